//! Two brokers on one file, as two processes have them; and one that others hinder.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use outlast_core::{Beat, Broker, EnqueueVerdict, Inspect, Kind, Outcome, SettleVerdict};
use outlast_sqlite::{Options, SqliteBroker};
use rusqlite::Connection;

use crate::child::first_beat;
use crate::kit::*;

fn impatient(path: &Path) -> SqliteBroker {
    let busy_timeout = Duration::from_millis(20);
    SqliteBroker::open(path, Options { busy_timeout, ..Options::default() }).expect("opens")
}

/// Of two processes that made a database at once one was now and then told that it belonged to another program, as it
/// had looked at a file that was half made, or that it was locked: the switch to the write-ahead log does not wait.
#[test]
fn those_who_make_a_new_database_at_once_all_open_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..40 {
        let file = folder.path().join(format!("{round}.db"));
        let all_at_once = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    all_at_once.wait();
                    open(&file);
                });
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_brokers_on_one_file_share_the_work_and_take_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let (one, two) = (open(&file), open(&file));
    one.enqueue(&queue("q"), stamp(), NOW, tasks((0..200).map(|n| n.to_string())))
        .await
        .expect("enqueues");
    let drain = |broker: SqliteBroker, number| async move {
        let mut mine = Vec::new();
        loop {
            let claims = take(&broker, "q", number, 7).await;
            if claims.claims.is_empty() {
                return mine;
            }
            mine.extend(ids(&claims));
        }
    };
    let first = tokio::spawn(drain(one.clone(), 1));
    let second = tokio::spawn(drain(two, 2));
    let (first, second) = (first.await.expect("drains"), second.await.expect("drains"));
    let all: BTreeSet<_> = first.iter().chain(&second).collect();
    assert_eq!((first.len() + second.len(), all.len()), (200, 200));
    let stats = one.queue(&queue("q"), NOW).await.expect("answers").expect("exists");
    assert_eq!((stats.active, stats.pending), (200, 0));
}

#[tokio::test]
async fn tokens_are_given_out_once_across_brokers() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let (one, two) = (open(&file), open(&file));
    let first = one.beat(NOW, &first_beat("a")).await.expect("beats").token;
    let second = two.beat(NOW, &first_beat("b")).await.expect("beats").token;
    assert!(first.is_some() && second.is_some());
    assert_ne!(first, second);
    let again = one.beat(NOW, &first_beat("a")).await.expect("beats").token;
    assert_eq!(again, first, "the repeat of a first beat brings the same token");
    assert_eq!(one.beat(NOW, &Beat::default()).await.expect("beats").token, None);
}

#[tokio::test]
async fn a_worker_whose_broker_was_dropped_is_dead_and_one_that_said_so_is_gone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let (one, two) = (open(&file), open(&file));
    put(&one, "q", task("1")).await;
    let token = two.beat(NOW, &first_beat("b")).await.expect("beats").token.expect("a token");
    take_one(&two, "q", token.get()).await;
    two.close().await;
    let swept = sweep(&one, "q", NOW.plus(Duration::from_secs(1))).await;
    assert_eq!(swept.recovered, 1);
}

#[tokio::test]
async fn a_locked_database_is_busy_and_loses_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let broker = impatient(&file);
    put(&broker, "q", task("1")).await;
    let other = Connection::open(&file).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let batch = tasks(["2".into()]);
    let send = stamp();
    let error = broker.enqueue(&queue("q"), send, NOW, batch.clone()).await.expect_err("locked");
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    assert!(std::error::Error::source(&error).is_some());
    let stats = broker.queue(&queue("q"), NOW).await.expect("reading works").expect("exists");
    assert_eq!(stats.pending, 1);
    other.execute_batch("ROLLBACK").expect("unlocks");
    let answer = broker.enqueue(&queue("q"), send, NOW, batch).await.expect("enqueues");
    assert!(matches!(answer.verdicts[0], EnqueueVerdict::Accepted { .. }));
    assert_eq!(answer.lost, None);
}

#[tokio::test]
async fn a_process_that_keeps_the_gate_makes_others_busy_and_not_hang() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let broker = impatient(&file);
    let gate = std::fs::File::open(folder.path().join("tasks.db.lock")).expect("is there");
    gate.lock().expect("locks");
    let error = broker.enqueue(&queue("q"), stamp(), NOW, tasks(["1".into()])).await;
    assert_eq!(error.expect_err("locked").kind(), Kind::Busy);
    gate.unlock().expect("unlocks");
    put(&broker, "q", task("1")).await;
}

#[tokio::test]
async fn a_full_disk_is_busy_and_what_gives_room_still_works() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let options = Options { bytes_max: Some(408_000), ..Options::default() };
    let broker = SqliteBroker::open(&file, options).expect("opens");
    let large = |id: String| {
        let mut large = task(&id);
        large.payload = vec![b'x'; 20_000].into();
        large
    };
    let mut stored = 0;
    let error = loop {
        let batch = [large(stored.to_string())].into();
        match broker.enqueue(&queue("q"), stamp(), NOW, batch).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1000, "the limit holds");
    };
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    let stats = broker.queue(&queue("q"), NOW).await.expect("answers").expect("exists");
    assert_eq!(stats.pending, stored, "the refused one left nothing behind");

    // In one transaction with a batch that does not fit, others go on.
    let q = queue("q");
    let (fits, refused) = tokio::join!(
        take(&broker, "q", 1, 3),
        broker.enqueue(&q, stamp(), NOW, [large("no".into())].into())
    );
    assert_eq!(refused.expect_err("no room").kind(), Kind::Busy);
    assert_eq!(ids(&fits), ["0", "1", "2"]);
    for claim in fits.claims {
        let outlast_core::Claim::Task(claimed) = claim else { panic!("tasks only") };
        let done = Outcome::Done { result: None };
        assert_eq!(end(&broker, "q", &claimed.lease, done).await, SettleVerdict::Applied);
    }
    put(&broker, "q", large("yes".into())).await;
}
