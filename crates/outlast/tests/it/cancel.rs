//! Runs that are cut short: deadlines, remote cancels, lost leases, progress meanwhile.

use std::sync::Arc;
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{
    Action, Cancel, CancelReason, Client, Failure, QueueName, ResultWriter, Run, Selector,
    TaskRequest, TaskState, Worker, blocking,
};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::{soon, work_for};

#[tokio::test]
async fn a_run_is_over_at_its_deadline_whatever_it_waits_for() {
    let bed = TestBed::new().await.unwrap();
    let deadline = bed.clock().now().plus(Duration::from_millis(50));
    bed.client().enqueue(TaskRequest::raw("t", "").deadline(deadline)).await.unwrap();
    let worker = Worker::new(bed.client()).handle_type("t", std::future::pending::<()>);
    soon("the deadline", bed.drain(worker)).await.unwrap();
    let error = bed.tasks("default", TaskState::Retry).await.unwrap()[0].last_error.clone();
    assert_eq!(error.as_deref(), Some("context deadline exceeded"));
}

#[tokio::test]
async fn a_success_that_comes_right_after_the_deadline_counts() {
    let bed = TestBed::new().await.unwrap();
    let deadline = bed.clock().now().plus(Duration::from_millis(50));
    bed.client().enqueue(TaskRequest::raw("t", "").deadline(deadline)).await.unwrap();
    let handler = async |cancel: Cancel| {
        assert_eq!(cancel.cancelled().await, CancelReason::Deadline);
        "finished all the same"
    };
    let worker = Worker::new(bed.client()).handle_type("t", handler);
    assert_eq!(soon("the end", bed.drain(worker)).await.unwrap().succeeded, 1);
}

#[tokio::test]
async fn a_remote_cancel_reaches_the_running_handler_and_the_task_is_retried() {
    let client = Client::open("sqlite::memory:").await.unwrap();
    let receipt = client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    let started = Arc::new(Notify::new());
    let tell = started.clone();
    let handler = move |cancel: Cancel| {
        let started = tell.clone();
        async move {
            started.notify_one();
            Err::<(), _>(Failure::retry(format!("{:?}", cancel.cancelled().await)))
        }
    };
    let worker = Worker::new(&client).handle_type("t", handler);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(worker.run_until(async move {
        let _ = stopped.await;
    }));
    soon("the start", started.notified()).await;
    let queue = QueueName::default_queue();
    let select = Selector::id(receipt.id.clone());
    let inspector = client.inspector();
    let acted = inspector.act_all(&queue, &Action::Cancel, &select, |_| {}).await.unwrap();
    assert_eq!(acted.changed, 1);
    soon("the retry", async {
        while inspector.queue(&queue).await.unwrap().retry == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let task = inspector.task(&queue, &receipt.id).await.unwrap();
    assert_eq!(task.last_error.as_deref(), Some("context canceled: Remote"));
    drop(stop);
    soon("the end", running).await.unwrap().unwrap();
}

/// After a command the worker did not listen for 50 ms, so that of two cancels in a row the second took that long. The
/// quickest of many counts: a busy machine may hold up any of them, the pause held up all.
#[tokio::test]
async fn a_cancel_right_after_another_is_heard_as_quickly() {
    const TASKS: usize = 10;
    let client = Client::open("sqlite::memory:").await.unwrap();
    let (told, mut heard) = mpsc::channel(TASKS);
    let handler = move |cancel: Cancel| {
        let told = told.clone();
        async move {
            told.send(()).await.unwrap();
            cancel.cancelled().await;
            told.send(()).await.unwrap();
        }
    };
    let worker = Worker::new(&client).slots(TASKS).handle_type("t", handler);
    let running = tokio::spawn(worker.exit_when_empty().run());
    let mut receipts = Vec::new();
    for _ in 0..TASKS {
        receipts.push(client.enqueue(TaskRequest::raw("t", "")).await.unwrap());
        soon("the start", heard.recv()).await.unwrap();
    }
    let (inspector, queue) = (client.inspector(), QueueName::default_queue());
    let mut took = Vec::new();
    for receipt in receipts {
        let started = Instant::now();
        let select = Selector::id(receipt.id);
        inspector.act_all(&queue, &Action::Cancel, &select, |_| {}).await.unwrap();
        soon("the cancel", heard.recv()).await.unwrap();
        took.push(started.elapsed());
    }
    let quickest = took[1..].iter().min().unwrap();
    assert!(*quickest < Duration::from_millis(25), "{took:?}");
    soon("the end", running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_task_of_ten_lease_periods_runs_once_among_several_workers() {
    let client = Client::open("sqlite::memory:").await.unwrap();
    client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    let lease = Duration::from_millis(500);
    let worker = || {
        Worker::new(&client)
            .lease(lease)
            .handle_type("t", move || work_for(lease * 10))
            .exit_when_empty()
            .run()
    };
    let (one, other) = soon("the end", async { tokio::join!(worker(), worker()) }).await;
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_eq!(one.succeeded + other.succeeded, 1);
    assert_eq!((one.lost + other.lost, one.failed + other.failed), (0, 0));
}

#[tokio::test]
async fn progress_can_be_read_while_the_handler_runs() {
    let client = Client::open("sqlite::memory:").await.unwrap();
    let receipt = client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    let seen = Arc::new(Notify::new());
    let go_on = seen.clone();
    let handler = move |progress: ResultWriter| {
        let go_on = go_on.clone();
        async move {
            progress.write("half way")?;
            go_on.notified().await;
            Ok::<_, Failure>(())
        }
    };
    let worker = Worker::new(&client).handle_type("t", handler).exit_when_empty();
    let running = tokio::spawn(worker.run());
    let (inspector, queue) = (client.inspector(), QueueName::default_queue());
    soon("the progress", async {
        loop {
            let task = inspector.task(&queue, &receipt.id).await.unwrap();
            if task.result.as_deref() == Some(&b"half way"[..]) {
                assert_eq!(task.state, TaskState::Active);
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    seen.notify_one();
    soon("the end", running).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_blocking_handler_keeps_its_slot_until_its_thread_is_done() {
    let bed = TestBed::new().await.unwrap();
    let deadline = bed.clock().now().plus(Duration::from_millis(50));
    bed.client().enqueue(TaskRequest::raw("t", "slow").deadline(deadline)).await.unwrap();
    bed.client().enqueue(TaskRequest::raw("t", "next")).await.unwrap();
    let busy = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let handler = blocking(move |run: Run| {
        use std::sync::atomic::Ordering;
        assert_eq!(busy.fetch_add(1, Ordering::SeqCst), 0, "two threads in one slot");
        while &run.task().payload[..] == b"slow" && run.cancel_reason().is_none() {
            std::thread::yield_now();
        }
        busy.fetch_sub(1, Ordering::SeqCst);
    });
    let worker = Worker::new(bed.client()).slots(1).handle_type("t", handler);
    let summary = soon("both runs", bed.drain(worker)).await.unwrap();
    assert_eq!(summary.succeeded + summary.failed, 2);
}
