//! Workers of both sides on the same queues: under load, and when one of them is killed.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast::{Connection, TaskRequest, TaskState, Worker};
use serde_json::{Value, json};

use super::go::Go;
use super::world::{World, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Tasks of the load, half of them enqueued by each side.
const TASKS: usize = 4000;

/// Every so many fails once.
const FLAKY_EVERY: usize = 20;

/// Set in the process that is a worker of ours and is going to be killed: where its Redis is.
const CHILD_ENV: &str = "OUTLAST_INTEROP_WORKER_OF";

fn kind(n: usize) -> &'static str {
    if n.is_multiple_of(FLAKY_EVERY) { "flaky:1" } else { "ok" }
}

fn queue(n: usize) -> &'static str {
    if n.is_multiple_of(4) { "low" } else { "high" }
}

async fn enqueue_load(world: &World) {
    let ours = (0..TASKS / 2).map(|n| {
        let request = TaskRequest::raw(kind(n), "payload").queue(queue(n)).id(&n.to_string());
        request.retention(HOUR)
    });
    for receipt in world.client.enqueue_all(ours.collect()).await.unwrap() {
        receipt.accepted().unwrap();
    }
    for n in TASKS / 2..TASKS {
        let options = json!({"queue": queue(n), "task_id": n.to_string(), "retention": "1h"});
        world.go_enqueues(json!({"type": kind(n), "payload": "payload", "options": options})).await;
    }
}

fn successes(go: &Go) -> Vec<usize> {
    let events = go.events("finished").into_iter().filter(|event| event.get("error").is_none());
    events.map(|event| number(&event["id"])).collect()
}

fn number(id: &Value) -> usize {
    id.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn two_workers_of_each_side_finish_every_task_of_a_common_load_exactly_once() {
    let Some(world) = World::start().await else { return };
    let flags = ["-queues", "high=3,low=1", "-concurrency", "10", "-retry-delay", "1s"];
    let theirs = [world.go_works(&flags).await, world.go_works(&flags).await];
    let start = || world.we_work(|worker| worker.queue("high", 3).queue("low", 1));
    let ours = [start(), start()];
    enqueue_load(&world).await;
    let expected = u64::try_from(TASKS).unwrap();
    until("every task is completed", async || {
        let mut completed = 0;
        for stats in world.inspector.queues().await.unwrap() {
            completed += stats.completed;
        }
        (completed == expected).then_some(())
    })
    .await;
    let [by_go, by_us] = tally(&theirs, &ours).await;
    let mut done: BTreeMap<usize, usize> = BTreeMap::new();
    for id in by_go.iter().chain(&by_us) {
        *done.entry(*id).or_default() += 1;
    }
    assert_eq!(done.len(), TASKS);
    let twice: Vec<_> = done.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    assert!(!by_go.is_empty() && !by_us.is_empty(), "{} and {}", by_go.len(), by_us.len());
    let flaky = u64::try_from(TASKS / FLAKY_EVERY).unwrap();
    let (mut processed, mut failed) = (0, 0);
    for stats in world.inspector.queues().await.unwrap() {
        processed += stats.processed_total;
        failed += stats.failed_total;
    }
    assert_eq!((processed, failed), (expected + flaky, flaky));
    for worker in ours {
        let summary = worker.stop().await;
        assert_eq!((summary.lost, summary.unsettled), (0, 0));
    }
}

/// Who has finished what. Go's events may still be on their way through the pipe.
async fn tally(theirs: &[Go; 2], ours: &[super::ours::Ours; 2]) -> [Vec<usize>; 2] {
    until("all events are here", async || {
        let by_go: Vec<_> = theirs.iter().flat_map(successes).collect();
        let runs = ours.iter().flat_map(super::ours::Ours::runs);
        let well = runs.filter(|ran| ran.task.task_type.as_str() == "ok" || ran.attempt == 2);
        let by_us: Vec<usize> = well.map(|ran| ran.task.id.as_str().parse().unwrap()).collect();
        (by_go.len() + by_us.len() >= TASKS).then_some([by_go, by_us])
    })
    .await
}

#[tokio::test]
async fn the_tasks_of_a_go_worker_that_was_killed_are_run_by_us_without_a_retry_spent() {
    let Some(world) = World::start().await else { return };
    let mut go = world.go_works(&["-queues", "q=1", "-concurrency", "3"]).await;
    for id in ["a", "b", "c"] {
        // Only Go's handler looks into the payload.
        let options = json!({"queue": "q", "task_id": id, "max_retry": 1, "retention": "1h"});
        let task = json!({"type": "ok", "payload": r#"{"do":"hang"}"#, "options": options});
        world.go_enqueues(task).await;
        go.event_of("started", id).await;
    }
    go.kill9();
    assert_eq!(world.expire_leases("q"), 3);
    let ours = world.we_work(|worker| worker.queue("q", 1));
    for id in ["a", "b", "c"] {
        let ran = ours.run(id).await;
        assert_eq!((ran.task.retried, ran.task.losses, ran.attempt), (0, 1, 1), "{id}");
        world.in_state("q", id, TaskState::Completed).await;
    }
    assert_eq!(ours.stop().await.succeeded, 3);
}

#[tokio::test]
async fn the_tasks_of_a_worker_of_ours_that_was_killed_are_run_by_go() {
    let Some(world) = World::start().await else { return };
    let test = std::env::current_exe().unwrap();
    let name = "fleet::a_worker_of_ours_in_a_process_of_its_own";
    let mut child =
        Go::start_with(&test, &["--exact", name, "--nocapture"], CHILD_ENV, &world.redis.url());
    for id in ["a", "b", "c"] {
        let request = TaskRequest::raw("hang", r#"{"do":"ok"}"#).queue("q").id(id).retention(HOUR);
        world.client.enqueue(request).await.unwrap().accepted().unwrap();
        world.in_state("q", id, TaskState::Active).await;
    }
    child.kill9();
    assert_eq!(world.expire_leases("q"), 3);
    let go = world.go_works(&["-queues", "q=1", "-retry-delay", "1s"]).await;
    for id in ["a", "b", "c"] {
        let event = go.event_of("finished", id).await;
        // To asynq a lost lease is a failed run.
        assert_eq!(event["retried"], 1, "{event}");
        let task = world.in_state("q", id, TaskState::Completed).await;
        assert_eq!(task.last_error.as_deref(), Some("asynq: task lease expired"));
    }
}

#[tokio::test]
async fn what_a_go_worker_gives_back_at_its_shutdown_is_run_by_us_with_nothing_spent() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("ok", r#"{"do":"sleep:20000"}"#).queue("q").id("a");
    world.client.enqueue(request.retention(HOUR)).await.unwrap().accepted().unwrap();
    let mut go = world.go_works(&["-queues", "q=1"]).await;
    go.event_of("started", "a").await;
    go.end().await;
    let ours = world.we_work(|worker| worker.queue("q", 1));
    let ran = ours.run("a").await;
    assert_eq!((ran.task.retried, ran.task.losses, ran.task.last_error), (0, 0, None));
    world.in_state("q", "a", TaskState::Completed).await;
}

#[tokio::test]
async fn what_a_worker_of_ours_gives_back_at_its_shutdown_is_run_by_go_with_nothing_spent() {
    let Some(world) = World::start().await else { return };
    let options = json!({"queue": "q", "task_id": "a", "retention": "1h"});
    let task = json!({"type": "hang", "payload": r#"{"do":"ok"}"#, "options": options});
    world.go_enqueues(task).await;
    let ours = world.we_work(|worker| worker.queue("q", 1));
    ours.run("a").await;
    ours.stop().await;
    let go = world.go_works(&["-queues", "q=1"]).await;
    let event = go.event_of("finished", "a").await;
    assert_eq!(event["retried"], 0, "{event}");
    let task = world.in_state("q", "a", TaskState::Completed).await;
    assert_eq!((task.losses, task.last_error), (0, None));
}

/// Not a test of its own: the other one starts it as a process that can be killed.
#[tokio::test]
async fn a_worker_of_ours_in_a_process_of_its_own() {
    let Ok(url) = std::env::var(CHILD_ENV) else { return };
    // Whoever started it holds the other end of its input.
    std::thread::spawn(|| {
        let _all = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let client = Connection::without_spool(&url).await.unwrap().client();
    let hang = std::future::pending::<()>;
    Worker::new(&client).queue("q", 1).slots(10).handle_type("hang", hang).run().await.unwrap();
}
