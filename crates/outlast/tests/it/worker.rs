//! Slots, queues, priorities, many workers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{Client, ErrorKind, QueueOptions, State, TaskInfo, TaskRequest, TaskState, Worker};

use super::{soon, work_for};

/// How many run at once, at most.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

async fn gauged(State(gauge): State<Gauge>) {
    let now = gauge.now.fetch_add(1, Ordering::SeqCst) + 1;
    gauge.most.fetch_max(now, Ordering::SeqCst);
    work_for(Duration::from_millis(2)).await;
    gauge.now.fetch_sub(1, Ordering::SeqCst);
}

async fn fill(client: &Client, queue: &str, count: usize) {
    let request = |n: usize| TaskRequest::raw("t", n.to_string()).queue(queue);
    client.enqueue_all((0..count).map(request).collect()).await.unwrap();
}

#[tokio::test]
async fn never_more_tasks_run_at_once_than_there_are_slots() {
    let bed = TestBed::new().await.unwrap();
    fill(bed.client(), "default", 200).await;
    let gauge = Arc::new(Gauge::default());
    let shared = gauge.clone();
    let worker = Worker::new(bed.client()).slots(5).handle_type("t", move || {
        let gauge = shared.clone();
        async move { gauged(State(gauge)).await }
    });
    assert_eq!(soon("all", bed.drain(worker)).await.unwrap().succeeded, 200);
    assert_eq!(gauge.most.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn a_queues_own_concurrency_holds_beside_queues_without_one() {
    let bed = TestBed::new().await.unwrap();
    fill(bed.client(), "narrow", 20).await;
    fill(bed.client(), "wide", 20).await;
    let gauge = Arc::new(Gauge::default());
    let shared = gauge.clone();
    let options = QueueOptions { weight: 1, concurrency: Some(2) };
    let worker = Worker::new(bed.client()).slots(8).queue_with("narrow", options).queue("wide", 1);
    let worker = worker.handle_type("t", move |info: TaskInfo| {
        let gauge = shared.clone();
        async move {
            if info.queue.as_str() == "narrow" {
                gauged(State(gauge)).await;
            }
        }
    });
    assert_eq!(soon("all", bed.drain(worker)).await.unwrap().succeeded, 40);
    assert!(gauge.most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn strict_priorities_empty_the_greater_queue_first() {
    let bed = TestBed::new().await.unwrap();
    fill(bed.client(), "low", 5).await;
    fill(bed.client(), "high", 5).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let seen = order.clone();
    let worker = Worker::new(bed.client()).slots(1).queue("low", 1).queue("high", 9).strict();
    let worker = worker.handle_type("t", move |info: TaskInfo| {
        seen.lock().unwrap().push(info.queue.to_string());
        async {}
    });
    soon("all", bed.drain(worker)).await.unwrap();
    let order = order.lock().unwrap();
    assert_eq!(order[..5], ["high"; 5]);
    assert_eq!(order[5..], ["low"; 5]);
}

#[tokio::test]
async fn two_workers_share_a_queue_and_each_task_runs_once() {
    let client = Client::open("sqlite::memory:").await.unwrap();
    fill(&client, "default", 1000).await;
    let runs = Arc::new(Mutex::new(BTreeMap::<String, u32>::new()));
    let worker = || {
        let runs = runs.clone();
        let handler = move |info: TaskInfo| {
            *runs.lock().unwrap().entry(info.id.to_string()).or_default() += 1;
            async {}
        };
        Worker::new(&client).slots(4).handle_type("t", handler).exit_when_empty().run()
    };
    let (one, other) = soon("all", async { tokio::join!(worker(), worker()) }).await;
    assert_eq!(one.unwrap().succeeded + other.unwrap().succeeded, 1000);
    let runs = runs.lock().unwrap();
    assert_eq!((runs.len(), runs.values().max()), (1000, Some(&1)));
}

#[tokio::test]
async fn a_task_enqueued_while_the_worker_sleeps_wakes_it() {
    let client = Client::open("sqlite::memory:").await.unwrap();
    let (ran, mut runs) = tokio::sync::mpsc::channel(1);
    let worker = Worker::new(&client).handle_type("t", move || {
        let ran = ran.clone();
        async move { ran.send(()).await.unwrap() }
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    for _ in 0..10 {
        client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
        soon("the run", runs.recv()).await.unwrap();
    }
    control.stop();
    soon("the end", running).await.unwrap().unwrap();
}

#[tokio::test]
async fn mistakes_in_putting_a_worker_together_are_found_before_it_claims() {
    let bed = TestBed::new().await.unwrap();
    let worker = || Worker::new(bed.client());
    let cases = [
        (worker(), "a worker without handlers runs nothing"),
        (worker().queue(" ", 1), "queue name \" \" is blank"),
        (worker().queue("a", 0), "queue \"a\" has a weight or concurrency of 0"),
        (worker().queue("a", 1).queue("a", 2), "queue \"a\" is given twice"),
        (worker().slots(0), "a worker of 0 slots"),
        (worker().lease(Duration::from_millis(1)), "lease 1ms is too short"),
        (
            worker().handle_type("x:*", async || {}).handle_type("x:*", async || {}),
            "handler type \"x:*\" is bound twice",
        ),
        (
            worker().handle_type("x", gauged),
            "handler for \"x\": State<it::worker::Gauge> was not given",
        ),
    ];
    for (worker, text) in cases {
        let error = worker.run_until(std::future::pending()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().starts_with(text), "{error}");
    }
}

#[tokio::test]
async fn a_paused_queue_is_left_alone_and_goes_on_when_resumed() {
    let bed = TestBed::new().await.unwrap();
    fill(bed.client(), "default", 3).await;
    let queue = outlast::QueueName::default_queue();
    assert!(bed.inspector().pause(&queue).await.unwrap());
    let worker = || Worker::new(bed.client()).handle_type("t", async || {});
    assert_eq!(bed.drain(worker()).await.unwrap().succeeded, 0);
    bed.assert_count("default", TaskState::Pending, 3).await;
    assert!(bed.inspector().resume(&queue).await.unwrap());
    assert_eq!(bed.drain(worker()).await.unwrap().succeeded, 3);
}
