//! What the library does while its broker fails: nothing is lost, nothing runs twice, and a sick broker
//! is not hammered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outlast::{Client, Connection, ErrorKind, Inspect, Kind, QueueName, TaskRequest, Worker};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

use super::{soon, work_for};

struct World {
    faults: Arc<FaultBroker>,
    inspect: Arc<ModelBroker>,
    client: Client,
}

impl World {
    fn new() -> Self {
        let model = Arc::new(ModelBroker::new(1000));
        let faults = Arc::new(FaultBroker::new(model.clone()));
        let connection = Connection::of_halves("model:", faults.clone(), model.clone());
        Self { faults, inspect: model, client: connection.client() }
    }

    async fn size(&self) -> u64 {
        let now = self.client.connection().clock().now();
        let stats = self.inspect.queue(&QueueName::default_queue(), now).await.unwrap();
        stats.map_or(0, |stats| stats.size())
    }

    /// A worker that counts its runs.
    fn worker(&self, runs: &Arc<AtomicU32>) -> Worker {
        let runs = runs.clone();
        Worker::new(&self.client).handle_type("t", move || {
            runs.fetch_add(1, Ordering::SeqCst);
            async {}
        })
    }
}

#[tokio::test]
async fn an_outcome_that_the_broker_does_not_take_is_repeated_until_it_does_and_never_run_again() {
    for fault in [Fault::Before(Kind::Unavailable), Fault::Before(Kind::Busy), Fault::After] {
        let world = World::new();
        world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
        world.faults.script(Verb::Settle, [Some(fault), Some(fault), None]);
        let runs = Arc::new(AtomicU32::new(0));
        let worker = world.worker(&runs).exit_when_empty().run();
        let summary = soon("the settlement", worker).await.unwrap();
        assert_eq!((summary.succeeded, summary.lost, summary.unsettled), (1, 0, 0), "{fault:?}");
        assert_eq!((runs.load(Ordering::SeqCst), world.size().await), (1, 0), "{fault:?}");
    }
}

#[tokio::test]
async fn a_claim_whose_answer_was_lost_is_claimed_again_under_its_number() {
    let world = World::new();
    world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    world.faults.script(Verb::Claim, [Some(Fault::After), None]);
    let runs = Arc::new(AtomicU32::new(0));
    let worker = world.worker(&runs).exit_when_empty().run();
    assert_eq!(soon("the run", worker).await.unwrap().succeeded, 1);
    assert_eq!((runs.load(Ordering::SeqCst), world.size().await), (1, 0));
}

#[tokio::test]
async fn a_broker_that_fails_is_asked_for_work_at_most_twice_a_second() {
    let world = World::new();
    world.faults.always(Verb::Claim, Fault::Before(Kind::Unavailable));
    let runs = Arc::new(AtomicU32::new(0));
    let worker = world.worker(&runs).run_until(work_for(Duration::from_millis(1200)));
    soon("the end", worker).await.unwrap();
    let calls = world.faults.calls(Verb::Claim);
    assert!((1..=4).contains(&calls), "{calls} claims in 1.2 s");
}

#[tokio::test]
async fn a_producer_gets_the_brokers_error_with_its_kind() {
    let world = World::new();
    for kind in [Kind::Unavailable, Kind::Busy, Kind::Misconfigured] {
        world.faults.script(Verb::Enqueue, [Some(Fault::Before(kind))]);
        let error = world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broker(kind));
        assert!(std::error::Error::source(&error).is_some(), "the source is kept");
    }
    world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    assert_eq!(world.size().await, 1);
}

#[tokio::test]
async fn a_batch_whose_answer_was_lost_blocks_no_later_one() {
    let world = World::new();
    world.faults.script(Verb::Enqueue, [Some(Fault::After); 6]);
    for _ in 0..6 {
        let error = world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broker(Kind::Ambiguous));
    }
    world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    assert_eq!(world.size().await, 7, "they were all stored, and the error said so");
}

#[tokio::test]
async fn a_worker_does_not_start_without_a_token() {
    let world = World::new();
    world.faults.script(Verb::Beat, [Some(Fault::Before(Kind::Misconfigured))]);
    let runs = Arc::new(AtomicU32::new(0));
    let error = world.worker(&runs).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broker(Kind::Misconfigured));
}

#[tokio::test]
async fn a_lost_claim_whose_tasks_were_taken_back_does_not_deafen_the_worker() {
    // The repeat finds nothing, and under the same number it would find nothing for ever.
    let world = World::new();
    world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    world.faults.script(Verb::Claim, [Some(Fault::After)]);
    world.faults.always(Verb::Claim, Fault::Before(Kind::Busy));
    let queue = QueueName::default_queue();
    let runs = Arc::new(AtomicU32::new(0));
    let worker = world.worker(&runs).lease(Duration::from_millis(300)).exit_when_empty().run();
    let taken_back = async {
        let now = || world.client.connection().clock().now();
        while world.inspect.queue(&queue, now()).await.unwrap().unwrap().retry == 0 {
            tokio::task::yield_now().await;
        }
        world.faults.heal();
    };
    let (summary, ()) = soon("the run", async { tokio::join!(worker, taken_back) }).await;
    assert_eq!(summary.unwrap().succeeded, 1);
    assert_eq!((runs.load(Ordering::SeqCst), world.size().await), (1, 0));
}

#[tokio::test]
async fn a_batch_of_outcomes_that_is_refused_as_a_whole_is_settled_one_by_one() {
    // One unreadable record used to take up to 255 finished runs with it.
    let world = World::new();
    let tasks = (0..20).map(|n: u32| TaskRequest::raw("t", n.to_string()));
    world.client.enqueue_all(tasks.collect()).await.unwrap();
    world.faults.script(Verb::Settle, [Some(Fault::Before(Kind::Corrupt)), None]);
    let runs = Arc::new(AtomicU32::new(0));
    let worker = world.worker(&runs).slots(20).exit_when_empty().run();
    let summary = soon("the settlements", worker).await.unwrap();
    assert!(summary.succeeded >= 19, "{summary:?}");
    assert_eq!(world.faults.calls(Verb::Settle) > 1, summary.succeeded == 20 || summary.lost == 1);
}

#[tokio::test]
async fn a_worker_that_cannot_extend_its_leases_does_not_take_its_own_tasks_back() {
    // Its sweeper is told every second, its keeper fails: the running task must not be started twice.
    let world = World::new();
    world.client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    world.faults.always(Verb::Extend, Fault::Before(Kind::Unavailable));
    let runs = Arc::new(AtomicU32::new(0));
    let count = runs.clone();
    let worker = Worker::new(&world.client)
        .lease(Duration::from_millis(400))
        .handle_type("t", move || {
            count.fetch_add(1, Ordering::SeqCst);
            work_for(Duration::from_millis(2500))
        })
        .exit_when_empty()
        .run();
    let heal = async {
        work_for(Duration::from_millis(1500)).await;
        world.faults.heal();
    };
    let (summary, ()) = soon("the end", async { tokio::join!(worker, heal) }).await;
    assert_eq!((summary.unwrap().succeeded, runs.load(Ordering::SeqCst)), (1, 1));
}
