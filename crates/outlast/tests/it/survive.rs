//! Clients and workers on a connection that outlives its broker's outages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outlast::survive::{SpoolErrorKind, SpoolLimits, Status, Survive};
use outlast::{
    Cancel, Client, Connection, ErrorKind, Inspect, Kind, OnOutage, QueueName, Readiness, Schedule,
    TaskRequest, Verdict, Worker,
};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;
use tempfile::TempDir;

use super::soon;

struct World {
    faults: Arc<FaultBroker>,
    model: Arc<ModelBroker>,
    client: Client,
    _folder: TempDir,
}

impl World {
    async fn new() -> Self {
        Self::limited(SpoolLimits::default()).await
    }

    async fn limited(limits: SpoolLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = Arc::new(ModelBroker::new(1000));
        let faults = Arc::new(FaultBroker::new(model.clone()));
        let connection = Connection::of_halves("model:", faults.clone(), model.clone());
        let survive = Survive::new(folder.path().join("outbox.db")).limits(limits);
        let connection = connection.survive(survive).await.unwrap();
        Self { faults, model, client: connection.client(), _folder: folder }
    }

    fn down(&self) {
        let verbs =
            [Verb::Enqueue, Verb::Claim, Verb::Settle, Verb::Extend, Verb::Beat, Verb::Health];
        for verb in verbs {
            self.faults.always(verb, Fault::Before(Kind::Unavailable));
        }
    }

    fn status(&self) -> Status {
        self.client.connection().survivor().unwrap().status().unwrap()
    }

    async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        let looking = async {
            while !is(&self.status()) {
                look.tick().await;
            }
        };
        soon(what, looking).await;
    }

    async fn pending(&self) -> u64 {
        let now = self.client.connection().clock().now();
        let stats = self.model.queue(&QueueName::default_queue(), now).await.unwrap();
        stats.map_or(0, |stats| stats.size())
    }
}

fn task() -> TaskRequest {
    TaskRequest::raw("t", "")
}

#[tokio::test]
async fn a_task_of_an_outage_has_a_receipt_that_says_so_and_is_delivered_afterwards() {
    let world = World::new().await;
    world.down();
    let receipts = world.client.enqueue_all((0..300).map(|_| task()).collect()).await.unwrap();
    assert!(receipts.iter().all(|receipt| receipt.verdict == Verdict::Stored));
    assert!(receipts.iter().all(outlast::Receipt::is_accepted));
    assert_eq!(world.pending().await, 0);
    world.faults.heal();
    world.until("all is delivered", |status| status.counts.delivered == 300).await;
    assert_eq!(world.pending().await, 300);
    let receipt = world.client.enqueue(task()).await.unwrap();
    assert!(matches!(receipt.verdict, Verdict::Accepted { .. }), "{receipt}");
}

#[tokio::test]
async fn what_happens_in_an_outage_is_the_callers_choice_task_by_task() {
    let world = World::new().await;
    world.down();
    let failing = world.client.clone().on_outage(OnOutage::Fail);
    let error = failing.enqueue(task()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broker(Kind::Unavailable));
    let receipt = failing.enqueue(task()).on_outage(OnOutage::Store).await.unwrap();
    assert_eq!(receipt.verdict, Verdict::Stored);

    let briefly = OnOutage::Wait(Duration::from_millis(50));
    let error = world.client.enqueue(task()).on_outage(briefly).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broker(Kind::Unavailable));
    let long = OnOutage::Wait(Duration::from_secs(20));
    let waiting = tokio::spawn(world.client.enqueue(task()).on_outage(long).into_future());
    world.faults.heal();
    let receipt = soon("the broker's return", waiting).await.unwrap().unwrap();
    assert!(matches!(receipt.verdict, Verdict::Accepted { .. }), "{receipt}");
}

/// All of a queue's lanes were with those who waited for the broker: whoever would have had his task stored waited with them.
#[tokio::test]
async fn those_who_wait_for_the_broker_hold_up_nobody_who_does_not() {
    let world = World::new().await;
    world.down();
    let long = OnOutage::Wait(Duration::from_secs(600));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        waiting.spawn(world.client.enqueue(task()).on_outage(long).into_future());
        tokio::task::yield_now().await;
    }
    let stored = soon("it is stored", world.client.enqueue(task()).into_future()).await.unwrap();
    assert_eq!(stored.verdict, Verdict::Stored);
    // Behind the others, and with less patience.
    let briefly = OnOutage::Wait(Duration::from_millis(50));
    let brief = world.client.enqueue(task()).on_outage(briefly).into_future();
    let error = soon("it has waited in vain", brief).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broker(Kind::Unavailable), "it has never left");
    world.faults.heal();
    while let Some(receipt) = soon("the broker's return", waiting.join_next()).await {
        assert!(receipt.unwrap().unwrap().is_accepted());
    }
}

/// Callers who had given up kept their places in the line, which was full of them: those of all other queues waited for ever.
#[tokio::test]
async fn callers_who_have_given_up_leave_room_for_others() {
    let world = World::new().await;
    world.down();
    let (long, briefly) = (Duration::from_secs(600), Duration::from_millis(300));
    let request = |wait| TaskRequest::raw("t", "").on_outage(OnOutage::Wait(wait));
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = world.client.clone();
        waiting.spawn(async move { client.enqueue(request(long)).await.map(|_| ()) });
        tokio::task::yield_now().await;
    }
    let many = || (0..6000).map(|_| request(briefly).fresh_id()).collect::<Vec<_>>();
    for _ in ["they fill the line", "and there is room again"] {
        let error = soon("they have waited", world.client.enqueue_all(many())).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broker(Kind::Unavailable));
    }
    world.faults.heal();
    while let Some(end) = soon("the broker's return", waiting.join_next()).await {
        end.unwrap().unwrap();
    }
    assert_eq!(world.pending().await, 8);
}

/// Runs what is there, and says how much that was.
async fn runs(world: &World) -> u32 {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = runs.clone();
    let worker = Worker::new(&world.client).handle_type("t", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async {}
    });
    let control = worker.control();
    let working = tokio::spawn(worker.run());
    soon("the queue is empty", async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        while world.pending().await > 0 {
            look.tick().await;
        }
    })
    .await;
    control.stop();
    soon("the worker ends", working).await.unwrap().unwrap();
    runs.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_callers_own_retry_of_a_task_with_a_once_key_runs_it_once_whatever_became_of_the_first() {
    let world = World::new().await;
    let faults = [
        (Fault::Before(Kind::Unavailable), Kind::Unavailable, 0),
        (Fault::After, Kind::Ambiguous, 1),
    ];
    for (fault, kind, of_the_first) in faults {
        let request = task().once(&format!("{kind}"), Duration::from_secs(3600));
        let request = request.on_outage(OnOutage::Fail);
        world.faults.script(Verb::Enqueue, [Some(fault)]);
        let error = world.client.enqueue(request.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Broker(kind), "{error}");
        assert_eq!(runs(&world).await, of_the_first, "{kind}");
        let second = world.client.enqueue(request).await.unwrap();
        let is_repeat = matches!(second.verdict, Verdict::Duplicate { .. });
        assert_eq!(is_repeat, of_the_first == 1, "{second}");
        assert_eq!(of_the_first + runs(&world).await, 1, "{kind}");
    }
}

#[tokio::test]
async fn a_worker_works_through_an_outage_and_runs_nothing_twice() {
    let world = World::new().await;
    for _ in 0..20 {
        world.client.enqueue(task()).await.unwrap();
    }
    let (runs, faults) = (Arc::new(AtomicU32::new(0)), world.faults.clone());
    let counted = runs.clone();
    // The broker goes away in the middle of the first run, while the others are claimed or wait.
    let worker = Worker::new(&world.client).slots(4).handle_type("t", move || {
        let first = counted.fetch_add(1, Ordering::SeqCst) == 0;
        if first {
            for verb in [Verb::Enqueue, Verb::Claim, Verb::Settle, Verb::Extend, Verb::Health] {
                faults.always(verb, Fault::Before(Kind::Unavailable));
            }
        }
        async {}
    });
    let running = tokio::spawn(worker.exit_when_empty().run());
    world.until("outcomes are journaled", |status| status.journal.items > 0).await;
    world.faults.heal();
    let summary = soon("all is done", running).await.unwrap().unwrap();
    assert_eq!((summary.succeeded, summary.lost, summary.unsettled), (20, 0, 0));
    world.until("all is applied", |status| status.journal.items == 0).await;
    assert_eq!((runs.load(Ordering::SeqCst), world.pending().await), (20, 0));
}

#[tokio::test]
async fn a_worker_that_ends_in_an_outage_leaves_its_outcomes_in_the_journal() {
    let world = World::new().await;
    world.client.enqueue(task()).await.unwrap();
    let (runs, faults) = (Arc::new(AtomicU32::new(0)), world.faults.clone());
    let counted = runs.clone();
    let worker = Worker::new(&world.client).shutdown_timeout(Duration::from_secs(5));
    let worker = worker.handle_type("t", move || {
        counted.fetch_add(1, Ordering::SeqCst);
        for verb in [Verb::Claim, Verb::Settle, Verb::Extend, Verb::Beat, Verb::Health] {
            faults.always(verb, Fault::Before(Kind::Unavailable));
        }
        async {}
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run());
    world.until("the outcome is journaled", |status| status.journal.items > 0).await;
    control.stop();
    let summary = soon("the worker ends", running).await.unwrap().unwrap();
    assert_eq!((summary.succeeded, summary.unsettled), (1, 0));
    world.faults.heal();
    world.until("it is applied", |status| status.counts.applied == 1).await;
    assert_eq!((runs.load(Ordering::SeqCst), world.pending().await), (1, 0));
}

#[tokio::test]
async fn a_worker_that_ends_while_its_broker_is_silent_leaves_every_outcome_in_the_journal() {
    // What ended in the last second was still waiting for the broker's answer when the worker's time was over: it
    // was in neither place.
    let world = World::new().await;
    for task_type in ["ends", "hangs"] {
        world.client.enqueue(TaskRequest::raw(task_type, "")).await.unwrap();
    }
    let begun = Arc::new(tokio::sync::Semaphore::new(0));
    let (one, other) = (begun.clone(), begun.clone());
    let worker = Worker::new(&world.client).slots(2).handle_type("ends", move |cancel: Cancel| {
        one.add_permits(1);
        async move {
            cancel.cancelled().await;
        }
    });
    let worker = worker.handle_type("hangs", move |cancel: Cancel| {
        other.add_permits(1);
        async move {
            // It listens, and is given until the last phase to end by itself.
            cancel.cancelled().await;
            std::future::pending::<()>().await;
        }
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run());
    let _both = soon("both run", begun.acquire_many(2)).await.unwrap();
    // Nothing else, or the breaker would open before the end, and refused outcomes are journaled at once.
    world.faults.always(Verb::Settle, Fault::Hang);
    control.stop();
    let summary = soon("the worker ends", running).await.unwrap().unwrap();
    assert_eq!((summary.succeeded, summary.released, summary.unsettled), (1, 1, 0));
    assert_eq!(world.status().journal.items, 2);
}

#[tokio::test]
async fn a_worker_that_starts_in_an_outage_enqueues_its_ticks_with_handlers_and_without() {
    // Its schedules waited for the first beat, and one without handlers did not start at all.
    for has_handlers in [true, false] {
        let world = World::new().await;
        world.down();
        let schedule =
            Schedule::new("often", "@every 1s", TaskRequest::raw("tick", "").queue("ticks"));
        let mut worker = Worker::new(&world.client).schedule(schedule.unwrap());
        if has_handlers {
            worker = worker.handle_type("t", async || {});
        }
        let control = worker.control();
        let running = tokio::spawn(worker.run());
        world.until("a tick is stored", |status| status.outbox.items > 0).await;
        world.faults.heal();
        world.until("it is delivered", |status| status.counts.delivered > 0).await;
        control.stop();
        soon("it ends", running).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_queue_whose_outcomes_are_stuck_in_the_journal_holds_up_no_other() {
    // Its claim waited five seconds for the journal, and was then taken for a failure of the whole broker.
    let world = World::new().await;
    world.client.enqueue(task().queue("stuck")).await.unwrap();
    let (begun, faults) = (Arc::new(tokio::sync::Notify::new()), world.faults.clone());
    let free = begun.clone();
    let worker = Worker::new(&world.client).queue("stuck", 9).queue("free", 1).strict();
    let worker = worker.handle_type("t", move || {
        faults.always(Verb::Settle, Fault::Hang);
        async {}
    });
    let worker = worker.handle_type("free", move || {
        free.notify_one();
        async {}
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run());
    world.until("it is journaled", |status| status.journal.items > 0).await;
    world.client.enqueue(task().queue("stuck")).await.unwrap();
    let enqueued_at = tokio::time::Instant::now();
    world.client.enqueue(TaskRequest::raw("free", "").queue("free")).await.unwrap();
    soon("the other queue's task runs", begun.notified()).await;
    assert!(enqueued_at.elapsed() < Duration::from_secs(3), "{:?}", enqueued_at.elapsed());
    world.faults.heal();
    world.faults.release();
    world.until("all is applied", |status| status.journal.items == 0).await;
    control.stop();
    soon("it ends", running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_that_starts_before_its_broker_waits_for_it_and_can_be_stopped_meanwhile() {
    let world = World::new().await;
    world.down();
    let never = Worker::new(&world.client).handle_type("t", async || {});
    let control = never.control();
    let waiting = tokio::spawn(never.run());
    world.until("it has tried", |_| world.faults.calls(Verb::Beat) > 0).await;
    control.stop();
    let summary = soon("it ends", waiting).await.unwrap().unwrap();
    assert_eq!(summary, outlast::Summary::default());

    world.client.enqueue(task()).await.unwrap();
    let worker = Worker::new(&world.client).handle_type("t", async || {});
    let control = worker.control();
    let running = tokio::spawn(worker.run());
    world.faults.heal();
    world.until("the task is delivered", |status| status.counts.delivered == 1).await;
    while world.pending().await > 0 {
        tokio::task::yield_now().await;
    }
    control.stop();
    let summary = soon("it ends", running).await.unwrap().unwrap();
    assert_eq!(summary.succeeded, 1);
}

#[tokio::test]
async fn a_spool_that_cannot_be_opened_is_told_before_anything_is_accepted() {
    let folder = tempfile::tempdir().unwrap();
    let survive = Survive::new(folder.path().join("no/such/folder/outbox.db"));
    let error = Connection::surviving("sqlite::memory:", survive).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Spool(_)), "{error}");
}

#[tokio::test]
async fn readiness_tells_degraded_but_safe_from_dead() {
    let world = World::limited(SpoolLimits { items_max: 2, ..SpoolLimits::default() }).await;
    let readiness = || world.client.connection().readiness();
    assert!(matches!(readiness().await, Readiness::Ready));
    world.down();
    // Nobody has noticed yet: the question does.
    assert!(matches!(readiness().await, Readiness::Degraded { stored: 0, .. }));
    world.client.enqueue(task()).await.unwrap();
    let degraded = readiness().await;
    assert!(matches!(degraded, Readiness::Degraded { stored: 1, .. }), "{degraded}");
    assert!(degraded.is_safe() && degraded.to_string().starts_with("degraded since"), "{degraded}");

    world.client.enqueue(task()).await.unwrap();
    let dead = readiness().await;
    let Readiness::Dead { why } = &dead else { panic!("{dead}") };
    assert_eq!((why.kind(), dead.is_safe()), (ErrorKind::Spool(SpoolErrorKind::Full), false));
    world.faults.heal();
    world.until("all is delivered", |status| status.counts.delivered == 2).await;
    assert!(matches!(readiness().await, Readiness::Ready));
}

#[tokio::test]
async fn an_outage_that_is_known_is_not_asked_about_again() {
    let world = World::new().await;
    world.down();
    for _ in 0..5 {
        world.client.enqueue(task()).await.unwrap();
    }
    world
        .until("it is noticed", |status| status.homes.iter().any(|home| home.outage.is_some()))
        .await;
    let before = world.faults.calls(Verb::Health);
    for _ in 0..100 {
        assert!(world.client.connection().readiness().await.is_safe());
    }
    // The prober asks in the meantime, twice a second at most.
    let asked = world.faults.calls(Verb::Health) - before;
    assert!(asked < 100, "{asked}");
}

#[tokio::test]
async fn a_connection_without_a_store_on_disk_is_dead_while_its_broker_is_away() {
    let model = Arc::new(ModelBroker::new(1000));
    let faults = Arc::new(FaultBroker::new(model.clone()));
    let connection = Connection::of_halves("model:", faults.clone(), model);
    assert!(matches!(connection.readiness().await, Readiness::Ready));
    faults.always(Verb::Health, Fault::Before(Kind::Unavailable));
    let dead = connection.readiness().await;
    let Readiness::Dead { why } = dead else { panic!("{dead}") };
    assert_eq!(why.kind(), ErrorKind::Broker(Kind::Unavailable));
}
