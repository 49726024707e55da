//! The end of a worker: nothing is lost, and it comes in time.

use std::sync::Arc;
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{Cancel, CancelReason, Failure, Phase, TaskRequest, TaskState, Worker};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::soon;

async fn bed_with_tasks(count: usize) -> TestBed {
    let bed = TestBed::new().await.unwrap();
    let request = |n: usize| TaskRequest::raw("t", n.to_string());
    bed.client().enqueue_all((0..count).map(request).collect()).await.unwrap();
    bed
}

#[tokio::test]
async fn what_runs_may_finish_and_what_waits_stays_pending() {
    let bed = bed_with_tasks(10).await;
    let (started, finish) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, hear) = (started.clone(), finish.clone());
    let worker = Worker::new(bed.client()).slots(1).handle_type("t", move || {
        let (started, finish) = (tell.clone(), hear.clone());
        async move {
            started.notify_one();
            finish.notified().await;
        }
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    soon("the start", started.notified()).await;
    control.stop();
    assert_eq!(control.phase(), Phase::Draining);
    finish.notify_one();
    let summary = soon("the end", running).await.unwrap().unwrap();
    assert_eq!((summary.succeeded, summary.unsettled), (1, 0));
    bed.assert_count("default", TaskState::Pending, 9).await;
    assert!(bed.inspector().workers().await.unwrap().is_empty(), "it has signed off");
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_given_back_unspent() {
    let bed = bed_with_tasks(3).await;
    let started = Arc::new(Notify::new());
    let tell = started.clone();
    let worker = Worker::new(bed.client()).slots(2).shutdown_timeout(Duration::from_millis(400));
    let worker = worker.handle_type("t", move || {
        tell.notify_one();
        std::future::pending::<()>()
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    soon("the start", started.notified()).await;
    let begin = Instant::now();
    control.stop();
    let summary = soon("the end", running).await.unwrap().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "took {:?}", begin.elapsed());
    assert_eq!((summary.succeeded, summary.failed), (0, 0));
    let pending = bed.tasks("default", TaskState::Pending).await.unwrap();
    assert_eq!(pending.len(), 3);
    assert!(pending.iter().all(|task| task.retried == 0 && task.losses == 0));
}

#[tokio::test]
async fn a_handler_that_listens_may_say_what_becomes_of_its_task() {
    let bed = bed_with_tasks(1).await;
    let started = Arc::new(Notify::new());
    let tell = started.clone();
    let worker = Worker::new(bed.client()).shutdown_timeout(Duration::from_millis(400));
    let worker = worker.handle_type("t", move |cancel: Cancel| {
        tell.notify_one();
        async move {
            assert_eq!(cancel.cancelled().await, CancelReason::Shutdown);
            Err::<(), _>(Failure::snooze(Duration::from_secs(60)))
        }
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    soon("the start", started.notified()).await;
    control.stop();
    soon("the end", running).await.unwrap().unwrap();
    bed.assert_count("default", TaskState::Scheduled, 1).await;
}

#[tokio::test]
async fn a_quiet_worker_claims_nothing_and_lives_on() {
    let bed = bed_with_tasks(1).await;
    let ran = Arc::new(Notify::new());
    let tell = ran.clone();
    let worker = Worker::new(bed.client()).handle_type("t", move || {
        tell.notify_one();
        async {}
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    soon("the first task", ran.notified()).await;
    control.quiet();
    bed.client().enqueue(TaskRequest::raw("t", "later")).await.unwrap();
    super::work_for(Duration::from_millis(100)).await;
    bed.assert_count("default", TaskState::Pending, 1).await;
    assert!(!running.is_finished());
    control.stop();
    soon("the end", running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_can_be_stopped_from_outside_by_its_name() {
    let bed = bed_with_tasks(0).await;
    let worker = Worker::new(bed.client()).handle_type("t", async || {});
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    let inspector = bed.inspector();
    let id = soon("the first beat", async {
        loop {
            if let Some(worker) = inspector.workers().await.unwrap().pop() {
                break worker.id;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    inspector.stop(&id).await.unwrap();
    soon("the end", running).await.unwrap().unwrap();
    assert!(inspector.stop(&id).await.unwrap_err().to_string().contains("is alive"));
}

#[tokio::test]
async fn a_worker_whose_future_is_dropped_drains_in_the_background() {
    // Its actors are tasks of their own: they used to go on claiming for ever.
    let bed = bed_with_tasks(1).await;
    let ran = Arc::new(Notify::new());
    let tell = ran.clone();
    let worker = Worker::new(bed.client()).handle_type("t", move || {
        tell.notify_one();
        async {}
    });
    let control = worker.control();
    tokio::select! {
        _ = worker.run_until(std::future::pending()) => panic!("nobody stopped it"),
        () = soon("the first task", ran.notified()) => {}
    }
    let mut phase = control.phase();
    soon("the end", async {
        while phase != Phase::Gone {
            tokio::task::yield_now().await;
            phase = control.phase();
        }
    })
    .await;
    bed.client().enqueue(TaskRequest::raw("t", "later")).await.unwrap();
    super::work_for(Duration::from_millis(100)).await;
    bed.assert_count("default", TaskState::Pending, 1).await;
}

#[tokio::test]
async fn a_handler_that_takes_too_long_to_end_by_itself_is_dropped_and_its_task_given_back() {
    let bed = bed_with_tasks(1).await;
    let started = Arc::new(Notify::new());
    let tell = started.clone();
    let worker = Worker::new(bed.client()).shutdown_timeout(Duration::from_millis(800));
    let worker = worker.handle_type("t", move |cancel: Cancel| {
        tell.notify_one();
        async move {
            cancel.cancelled().await;
            std::future::pending::<()>().await;
        }
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    soon("the start", started.notified()).await;
    control.stop();
    let summary = soon("the end", running).await.unwrap().unwrap();
    assert_eq!((summary.released, summary.unsettled), (1, 0));
    bed.assert_count("default", TaskState::Pending, 1).await;
}
