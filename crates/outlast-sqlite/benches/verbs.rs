//! Rates of the verbs on a file with `synchronous = FULL`, beside two yardsticks of the same run: the
//! same rows by a bare rusqlite loop, and the same bytes by `write` and `fdatasync`. On shared machines
//! absolute rates swing by a factor of three; the ratios are what counts.
//!
//! `cargo bench -p outlast-sqlite --bench verbs [-- TASKS [STORED]]`: so many tasks per figure (default
//! 50,000), with so many stored before (default none).

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outlast_core::{
    Broker, Claim, Claims, Durability, EnqueueVerdict, Inspect, Interest, LeaseToken, NewTask,
    Outcome, QueueName, Session, SessionId, SettleVerdict, Settlement, TaskId, TaskType, Timestamp,
    Want,
};
use outlast_sqlite::{Options, SqliteBroker};
use rusqlite::{Connection, params};
use tokio::time::Instant;

const PAYLOAD: [u8; 200] = [b'x'; 200];
const BATCH: usize = 256;
const CALLERS: usize = 64;

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let count = numbers.next().unwrap_or(50_000);
    let stored = numbers.next().unwrap_or(0);
    let folder = tempfile::tempdir_in(".").expect("a folder beside us, on a real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    println!("tasks per figure: {count}, stored before: {stored}, payload: {} B", PAYLOAD.len());
    let fsync = yardstick_fsync(folder.path(), (count / 20).clamp(1, 2000));
    show("write + fdatasync, one record each", fsync, None);
    let bare_single = yardstick_rows(folder.path(), "single.db", (count / 20).clamp(1, 2000), 1);
    show("bare rusqlite, batch 1", bare_single, None);
    let bare = yardstick_rows(folder.path(), "bulk.db", count, BATCH);
    show("bare rusqlite, batch 256", bare, None);
    runtime.block_on(async {
        verbs(folder.path(), count, stored, bare_single, bare).await;
        wake_ups(folder.path()).await;
    });
}

/// From the call that enqueues to the waiter that is awake, in the same broker and in another one on
/// the same file (which hears of it as another process does); and what it costs to wait for nothing.
async fn wake_ups(folder: &Path) {
    let file = folder.join("wake.db");
    let broker = SqliteBroker::open(&file, Options::default()).expect("opens");
    let other = SqliteBroker::open(&file, Options::default()).expect("opens");
    for (what, waiter) in [("in this broker", &broker), ("in another one", &other)] {
        let mut took = Vec::new();
        for _ in 0..200 {
            took.push(wake_up(&broker, waiter).await);
        }
        took.sort();
        println!("wake-up {what:<16} p50 {:?}, p99 {:?}", took[100], took[198]);
    }
    let interest = Interest { queues: vec![name("nothing")], token: None };
    let (began, before) = (Instant::now(), cpu());
    for _ in 0..5 {
        other.wait(&interest, now(), Duration::from_secs(1)).await.expect("waits");
    }
    let part = (cpu() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("waiting for nothing: {:.2} % of a core", 100.0 * part);
}

async fn wake_up(broker: &SqliteBroker, waiter: &SqliteBroker) -> Duration {
    let interest = Interest { queues: vec![name("wake")], token: None };
    let waiting = waiter.clone();
    let mut wait = tokio::spawn(async move {
        waiting.wait(&interest, now(), Duration::from_secs(60)).await.expect("waits");
        Instant::now()
    });
    // Until the waiter sleeps: it has looked and found nothing by then.
    let early = tokio::time::timeout(Duration::from_millis(15), &mut wait).await;
    assert!(early.is_err(), "nothing is there yet");
    let began = Instant::now();
    enqueue(broker, "wake", 1, 1, 1).await;
    let took = wait.await.expect("ends").duration_since(began);
    drain(broker, "wake", 1, 1).await;
    took
}

/// The processor time of this process so far.
fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<i64> = stat.split(' ').filter_map(|field| field.parse().ok()).collect();
    // utime and stime are the 14th and 15th field; the name and the state are no numbers.
    let ticks = fields.get(11).zip(fields.get(12)).map_or(0, |(user, system)| user + system);
    Duration::from_millis(ticks.unsigned_abs() * 10)
}

async fn verbs(folder: &Path, count: usize, stored: usize, bare_single: f64, bare: f64) {
    let broker = SqliteBroker::open(folder.join("tasks.db"), Options::default()).expect("opens");
    if stored > 0 {
        fill(&broker, stored).await;
    }
    let rate = enqueue(&broker, "one", (count / 20).max(1), 1, 1).await;
    show("enqueue, 1 caller, batch 1", rate, Some(rate / bare_single));
    let rate = enqueue(&broker, "many", count, CALLERS, 1).await;
    show("enqueue, 64 callers, batch 1", rate, Some(rate / bare));
    let rate = enqueue(&broker, "mid", count, 4, 64).await;
    show("enqueue, 4 callers, batch 64", rate, Some(rate / bare));
    let rate = enqueue(&broker, "bulk1", count, 1, BATCH).await;
    show("enqueue, 1 caller, batch 256", rate, Some(rate / bare));
    let rate = enqueue(&broker, "bulk", count, 4, BATCH).await;
    show("enqueue, 4 callers, batch 256", rate, Some(rate / bare));
    let rate = drain(&broker, "bulk", count, BATCH).await;
    show("claim + settle, batch 256", rate, Some(rate / bare));
    let rate = drain(&broker, "mid", count, 64).await;
    show("claim + settle, batch 64", rate, Some(rate / bare));
    let rate = drain(&broker, "many", count, 16).await;
    show("claim + settle, batch 16", rate, Some(rate / bare));
    let stats = broker.queues(now()).await.expect("answers");
    let left: u64 = stats.iter().map(|stats| stats.size()).sum();
    let expected = (stored + count + (count / 20).max(1)) as u64;
    println!("every task counted once: {}", left == expected);
    broker.close().await;
}

fn show(what: &str, rate: f64, ratio: Option<f64>) {
    match ratio {
        Some(ratio) => println!("{what:<38} {rate:>10.0}/s   {ratio:.2} of bare"),
        None => println!("{what:<38} {rate:>10.0}/s"),
    }
}

fn now() -> Timestamp {
    Timestamp::from_seconds(1_800_000_000)
}

fn name(queue: &str) -> QueueName {
    QueueName::new(queue).expect("a valid name")
}

/// A task with an id that sorts by time, as version 7 UUIDs do, whoever makes it.
fn task() -> NewTask {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = TaskId::stored(&format!("0199-7a2b-{number:024x}"));
    NewTask::new(id, TaskType::stored("bench"), PAYLOAD.to_vec().into())
}

/// A new session, so that no batch is a repeat of an earlier figure's.
fn session() -> Session {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Session::new(SessionId(u128::from(std::process::id()) << 64 | u128::from(number)), 64)
}

async fn fill(broker: &SqliteBroker, stored: usize) {
    let started = Instant::now();
    enqueue(broker, "stored", stored, 4, BATCH).await;
    println!("filled in {:.1} s", started.elapsed().as_secs_f64());
}

/// Enqueues `count` tasks in batches from `callers` tasks; the rate per second.
async fn enqueue(
    broker: &SqliteBroker,
    queue: &str,
    count: usize,
    callers: usize,
    batch: usize,
) -> f64 {
    let started = Instant::now();
    let each = count / callers;
    let mut running = tokio::task::JoinSet::new();
    for caller in 0..callers {
        let (broker, queue) = (broker.clone(), name(queue));
        let extra = if caller == 0 { count - each * callers } else { 0 };
        running.spawn(async move {
            let mut session = session();
            let mut left = each + extra;
            while left > 0 {
                let size = left.min(batch);
                let tasks: Arc<[NewTask]> = (0..size).map(|_| task()).collect();
                let stamp = session.stamp(Durability::Accepted).expect("a free lane");
                let answer = broker.enqueue(&queue, stamp, now(), tasks).await.expect("enqueues");
                session.answered(&stamp);
                let accepted = |v: &EnqueueVerdict| matches!(v, EnqueueVerdict::Accepted { .. });
                assert!(answer.verdicts.iter().all(accepted));
                left -= size;
            }
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("a caller ends well");
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// Claims and settles until the queue is empty; two claimers, as a worker overlaps the two verbs.
async fn drain(broker: &SqliteBroker, queue: &str, count: usize, batch: usize) -> f64 {
    let started = Instant::now();
    let mut running = tokio::task::JoinSet::new();
    for claimer in 0..2 {
        let (broker, queue) = (broker.clone(), name(queue));
        running.spawn(async move { drain_one(&broker, &queue, claimer, batch).await });
    }
    let mut drained = 0;
    while let Some(ended) = running.join_next().await {
        drained += ended.expect("a claimer ends well");
    }
    assert_eq!(drained, count, "every task is claimed and settled once");
    count as f64 / started.elapsed().as_secs_f64()
}

async fn drain_one(broker: &SqliteBroker, queue: &QueueName, number: u64, batch: usize) -> usize {
    let mut session = session();
    let want = Want {
        token: LeaseToken::new(number as u32 + 1).expect("in range"),
        tasks_max: batch,
        bytes_max: 1 << 20,
        lease: Duration::from_secs(30),
        groups: Arc::new([]),
    };
    let mut drained = 0;
    loop {
        let stamp = session.stamp(Durability::Accepted).expect("a free lane");
        let Claims { claims, .. } = broker.claim(queue, stamp, now(), &want).await.expect("claims");
        session.answered(&stamp);
        if claims.is_empty() {
            return drained;
        }
        let settlements: Arc<[Settlement]> = claims.into_iter().filter_map(done).collect();
        drained += settlements.len();
        let stamp = session.stamp(Durability::Accepted).expect("a free lane");
        let answer = broker.settle(queue, stamp, now(), settlements).await.expect("settles");
        session.answered(&stamp);
        assert!(answer.verdicts.iter().all(|v| *v == SettleVerdict::Applied));
    }
}

fn done(claim: Claim) -> Option<Settlement> {
    match claim {
        Claim::Task(task) => {
            Some(Settlement { lease: task.lease, outcome: Outcome::Done { result: None } })
        }
        _ => None,
    }
}

/// The same bytes, appended and synced one record at a time.
fn yardstick_fsync(folder: &Path, count: usize) -> f64 {
    let mut file = std::fs::File::create(folder.join("raw")).expect("a file");
    let started = Instant::now();
    for _ in 0..count {
        file.write_all(&PAYLOAD).expect("writes");
        file.sync_data().expect("syncs");
    }
    count as f64 / started.elapsed().as_secs_f64()
}

/// The same rows into the same table and indexes, without anything around them.
fn yardstick_rows(folder: &Path, file: &str, count: usize, batch: usize) -> f64 {
    let conn = Connection::open(folder.join(file)).expect("opens");
    conn.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;").expect("prepares");
    conn.execute_batch(include_str!("../sql/migrations/0001_init.sql")).expect("makes tables");
    let started = Instant::now();
    let mut stored = 0;
    while stored < count {
        conn.execute_batch("BEGIN IMMEDIATE").expect("begins");
        let end = (stored + batch).min(count);
        for number in stored..end {
            let task = task();
            conn.prepare_cached(
                "INSERT INTO task (rid, queue, state, score, id, type, max_retry, timeout_s, \
                 retention_s, enqueued_at, pending_since, payload) \
                 VALUES (?1, 1, 2, ?1, ?2, 'bench', 25, 1800, 0, ?3, ?3, ?4)",
            )
            .and_then(|mut insert| {
                let now = now().as_millis();
                insert.execute(params![number as i64, task.id.as_str(), now, &task.payload[..]])
            })
            .expect("inserts");
        }
        stored = end;
        conn.execute_batch("COMMIT").expect("commits");
    }
    count as f64 / started.elapsed().as_secs_f64()
}
