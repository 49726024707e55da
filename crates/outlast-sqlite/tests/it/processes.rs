//! Several processes on one file: dying, waking and being killed.

use std::time::Duration;

use outlast_core::{Broker, Inspect, Interest, TaskState};
use rusqlite::Connection;
use tokio::time::Instant;

use crate::child::Actor;
use crate::kit::*;

#[tokio::test]
async fn a_killed_worker_is_noticed_long_before_its_leases_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let broker = open(&file);
    put(&broker, "q", task("1")).await;
    let mut worker = Actor::start("worker", &file);
    assert_eq!(worker.hear().as_deref(), Some("claimed 1"));

    let second = |n| NOW.plus(Duration::from_secs(n));
    assert_eq!(sweep(&broker, "q", second(1)).await.recovered, 0, "it lives");
    assert_eq!(broker.workers(NOW).await.expect("answers").len(), 1);
    worker.kill();
    assert_eq!(sweep(&broker, "q", second(2)).await.recovered, 1, "it is gone");
    let found = broker.task(&queue("q"), &task("1").id, second(2)).await.expect("answers");
    let found = found.expect("is stored");
    assert_eq!((found.state, found.losses, found.retried), (TaskState::Retry, 1, 0));
    assert!(found.last_error.expect("says why").starts_with("worker died"));
    assert!(broker.workers(NOW).await.expect("answers").is_empty());
    sweep(&broker, "q", second(70)).await;
    let litter = std::fs::read_dir(folder.path().join("tasks.db.live")).expect("a folder");
    assert_eq!(litter.count(), 0, "the lock file of the dead is removed");
}

#[tokio::test]
async fn a_task_from_another_process_wakes_a_waiter() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let broker = open(&file);
    let mut waker = Actor::start("waker", &file);
    assert_eq!(waker.hear().as_deref(), Some("ready"));
    let interest = Interest { queues: vec![queue("q")], token: None };
    let mut slowest = Duration::ZERO;
    for round in 0..20 {
        let wait = broker.wait(&interest, NOW, Duration::from_secs(60));
        let mut wait = std::pin::pin!(wait);
        let early = tokio::time::timeout(Duration::from_millis(20), wait.as_mut()).await;
        assert!(early.is_err(), "nothing is there yet: {early:?}");
        waker.tell(&format!("task-{round}"));
        let told = Instant::now();
        assert_eq!(wait.await.expect("wakes").queues, [queue("q")]);
        slowest = slowest.max(told.elapsed());
        take_one(&broker, "q", 1).await;
    }
    println!("slowest of 20 wake-ups from another process: {slowest:?}");
    assert!(slowest < Duration::from_secs(5), "woken by the time-out only: {slowest:?}");
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let mut acknowledged = Vec::new();
    for round in 1..=3 {
        let mut load = Actor::start("load", &file);
        while acknowledged.len() < round * 40 {
            acknowledged.push(load.hear().expect("still at work"));
        }
        load.kill();
        // What it had said before it died counts too.
        while let Some(batch) = load.hear() {
            acknowledged.push(batch);
        }
    }
    let broker = open(&file);
    for batch in &acknowledged {
        for n in 0..8 {
            let id = task(&format!("{batch}-{n}")).id;
            let found = broker.task(&queue("q"), &id, NOW).await.expect("answers");
            assert!(found.is_some(), "{id} of an acknowledged batch is lost");
        }
    }
    let stats = broker.queue(&queue("q"), NOW).await.expect("answers").expect("exists");
    assert_eq!(stats.size() % 8, 0, "no batch is there in part");
    broker.close().await;
    let conn = Connection::open(&file).expect("opens");
    let check: String =
        conn.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(check, "ok");
}
