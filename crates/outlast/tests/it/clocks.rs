//! Workers whose clocks differ.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outlast::{Clock, Connection, Kind, QueueName, TaskRequest, Timestamp, Worker};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;
use tokio::sync::{Notify, oneshot};

use super::soon;

/// What the server's clock says.
const TRUE: Timestamp = Timestamp::from_seconds(1_893_499_200);

/// Between the differences that are tried and the time that a lease is extended in.
const LEASE: Duration = Duration::from_secs(20);

/// A way to the broker from a machine whose clock is this many seconds ahead.
fn machine(model: &Arc<ModelBroker>, ahead: i64) -> (Arc<FaultBroker>, Connection) {
    let way = Arc::new(FaultBroker::new(model.clone()));
    way.says(TRUE);
    let clock = Clock::manual(Timestamp::from_seconds(TRUE.as_seconds() + ahead));
    let connection = Connection::of_halves("model:", way.clone(), model.clone()).with_clock(clock);
    (way, connection)
}

/// A worker whose clock is so far ahead runs a task, while one whose clock is so far ahead sweeps: the task stays with the
/// first.
async fn check(holder: i64, sweeper: i64) {
    check_after(None, holder, sweeper).await;
}

/// The same if the sweeper's first look at the server's clock is spoiled.
async fn check_after(spoiled: Option<Fault>, holder: i64, sweeper: i64) {
    let model = Arc::new(ModelBroker::new(1000));
    let (_, connection) = machine(&model, holder);
    let client = connection.client();
    client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    let (runs, started, go_on) = (AtomicU32::new(0), Notify::new(), Notify::new());
    let told = Arc::new((runs, started, go_on));
    let hears = told.clone();
    let handler = move || {
        let hears = hears.clone();
        async move {
            hears.0.fetch_add(1, Ordering::SeqCst);
            hears.1.notify_one();
            hears.2.notified().await;
        }
    };
    let worker = |client| Worker::new(client).lease(LEASE).handle_type("t", handler.clone());
    let running = tokio::spawn(worker(&client).exit_when_empty().run());
    soon("the start", told.1.notified()).await;
    let (way, other) = machine(&model, sweeper);
    way.script(Verb::Health, [spoiled]);
    let (stop, stopped) = oneshot::channel::<()>();
    let sweeping = tokio::spawn(worker(&other.client()).run_until(async {
        let _ = stopped.await;
    }));
    soon("two sweeps", async {
        while way.calls(Verb::Sweep) < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let queue = client.inspector().queue(&QueueName::default_queue()).await.unwrap();
    assert_eq!((queue.active, queue.retry), (1, 0), "{holder} and {sweeper}");
    told.2.notify_one();
    let summary = soon("the end", running).await.unwrap().unwrap();
    assert_eq!((summary.succeeded, summary.lost), (1, 0), "{holder} and {sweeper}");
    drop(stop);
    soon("the end", sweeping).await.unwrap().unwrap();
    assert_eq!(told.0.load(Ordering::SeqCst), 1, "it ran once");
}

/// A worker whose clock was 25 s ahead found the leases of living workers at their end, and took their tasks back.
#[tokio::test]
async fn a_worker_whose_clock_is_ahead_takes_no_task_of_a_living_one() {
    check(0, 25).await;
}

/// And one whose clock was behind wrote leases that were over for everybody else.
#[tokio::test]
async fn a_worker_whose_clock_is_behind_keeps_its_tasks() {
    check(-25, 0).await;
}

/// A worker that started while the server was slow or away could not compare clocks, took them for the same, and looked again a
/// minute later: one that was ahead took the tasks of the living from them all that time.
#[tokio::test]
async fn a_worker_that_could_not_compare_clocks_takes_no_task_before_it_has() {
    check_after(Some(Fault::Before(Kind::Unavailable)), 0, 25).await;
    // The answer that does not come is not waited for: without it the worker would not begin.
    check_after(Some(Fault::Hang), 0, 25).await;
}
