//! What a task costs the server: time in scripts (`INFO commandstats`, calls of scripts only, because what
//! a script calls is listed once more) of enqueue, claim and settle, by size of the batch. Where Go asynq
//! is built (`scripts/install-interop`), its figure beside it, in the same rounds on the same server.
//!
//! `cargo bench -p outlast-redis --bench scripts [-- TASKS [WAITING [ACTIVE]]]`: so many tasks per round
//! (default 10,000), with so many waiting and so many active before (default none).

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::{
    Broker, Claim, Claims, Durability, EnqueueVerdict, LeaseToken, NewTask, Outcome, QueueName,
    Session, SessionId, SettleVerdict, Settlement, TaskId, TaskType, Timestamp, Want,
};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::resp::Reply;
use outlast_testkit::server::RedisServer;

const PAYLOAD: [u8; 200] = [b'x'; 200];
const ROUNDS: usize = 3;
const BATCHES: [usize; 4] = [1, 10, 100, 256];

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|arg| arg.parse::<usize>().ok());
    let count = numbers.next().unwrap_or(10_000);
    let before = [numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)];
    let server = RedisServer::start().expect("a server");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let [waiting, active] = before;
    println!("{count} tasks of {} B, {waiting} waiting and {active} active before", PAYLOAD.len());
    for round in 1..=ROUNDS {
        for batch in BATCHES {
            let spent = runtime.block_on(ours(&server, count, before, batch));
            show(round, &format!("batch {batch}"), spent);
        }
        match asynq(&server, count) {
            Some(spent) => show(round, "asynq", spent),
            None => println!("asynq is not built: scripts/install-interop"),
        }
    }
}

fn show(round: usize, what: &str, [enqueue, rest]: [f64; 2]) {
    let all = enqueue + rest;
    println!(
        "round {round} {what:<9} enqueue {enqueue:>5.2}, claim and settle {rest:>5.2}, all {all:>5.2} µs a task"
    );
}

/// Microseconds a task that enqueue, and claim with settle, took of the server. (Not one by one: to ask
/// between two calls would empty the server's caches.)
async fn ours(
    server: &RedisServer,
    count: usize,
    [waiting, active]: [usize; 2],
    batch: usize,
) -> [f64; 2] {
    server.command(&["FLUSHALL"]).expect("flushed");
    let broker = RedisBroker::new(&server.url(), Options::default()).expect("a broker");
    let queue = QueueName::new("bench").expect("a name");
    // A producer, a claimer and a settler have sessions of their own.
    let [mut produced, mut claimed, mut settled] =
        [7, 8, 9].map(|id| Session::new(SessionId(id), 1));
    enqueue(&broker, &queue, &mut produced, waiting + active, 256).await;
    let mut left = active;
    while left > 0 {
        left -= claim(&broker, &queue, &mut claimed, left.min(256)).await.len();
    }
    let begin = script_time(server);
    enqueue(&broker, &queue, &mut produced, count, batch).await;
    let between = script_time(server);
    let mut left = count;
    while left > 0 {
        let done = claim(&broker, &queue, &mut claimed, batch.min(left)).await;
        assert!(!done.is_empty(), "a task was lost");
        left -= done.len();
        settle(&broker, &queue, &mut settled, done).await;
    }
    let end = script_time(server);
    [between - begin, end - between].map(|spent| spent / count as f64)
}

/// The real one: the moment of acceptance is not stored where the id tells it.
fn now() -> Timestamp {
    let since = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
    Timestamp::from_millis(
        i64::try_from(since.as_millis()).expect("a clock before the end of time"),
    )
}

async fn enqueue(
    broker: &RedisBroker,
    queue: &QueueName,
    session: &mut Session,
    count: usize,
    batch: usize,
) {
    let mut left = count;
    while left > 0 {
        let tasks: Arc<[NewTask]> = (0..batch.min(left))
            .map(|_| {
                let id = TaskId::new(uuid::Uuid::now_v7().to_string()).expect("an id");
                NewTask::new(id, TaskType::new("bench").expect("a type"), PAYLOAD[..].into())
            })
            .collect();
        left -= tasks.len();
        let stamp = session.stamp(Durability::Accepted).expect("a lane");
        let answer = broker.enqueue(queue, stamp, now(), tasks).await.expect("enqueued");
        session.answered(&stamp);
        let is_accepted = |verdict| matches!(verdict, &EnqueueVerdict::Accepted { .. });
        assert!(answer.verdicts.iter().all(is_accepted), "a task was refused");
    }
}

async fn claim(
    broker: &RedisBroker,
    queue: &QueueName,
    session: &mut Session,
    most: usize,
) -> Vec<Settlement> {
    let want = Want {
        token: LeaseToken::new(7).expect("a token"),
        tasks_max: most,
        bytes_max: 1 << 20,
        lease: Duration::from_secs(30),
        groups: Arc::default(),
    };
    let stamp = session.stamp(Durability::Accepted).expect("a lane");
    let Claims { claims, .. } = broker.claim(queue, stamp, now(), &want).await.expect("claimed");
    session.answered(&stamp);
    let done = |claim| match claim {
        Claim::Task(task) => {
            Settlement { lease: task.lease, outcome: Outcome::Done { result: None } }
        }
        other => panic!("claimed {other:?}"),
    };
    claims.into_iter().map(done).collect()
}

async fn settle(
    broker: &RedisBroker,
    queue: &QueueName,
    session: &mut Session,
    settlements: Vec<Settlement>,
) {
    let stamp = session.stamp(Durability::Accepted).expect("a lane");
    let answer = broker.settle(queue, stamp, now(), settlements.into()).await.expect("settled");
    session.answered(&stamp);
    let is_applied = |verdict| matches!(verdict, &SettleVerdict::Applied);
    assert!(answer.verdicts.iter().all(is_applied), "a lease was lost");
}

/// Microseconds a task that asynq's enqueue, and its whole worker, took of the server.
fn asynq(server: &RedisServer, count: usize) -> Option<[f64; 2]> {
    let binary = asynq_binary()?;
    server.command(&["FLUSHALL"]).expect("flushed");
    let run = |what: &str, more: &[&str]| {
        let before = script_time(server);
        let at = server.addr().to_string();
        let count = count.to_string();
        let status = Command::new(&binary)
            .args(["bench", what, "-redis", &at, "-n", &count, "-payload-bytes", "200"])
            .args(more)
            .output()
            .expect("asynq runs");
        assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
        script_time(server) - before
    };
    let enqueue = run("enqueue", &["-c", "1"]) / count as f64;
    server.command(&["FLUSHALL"]).expect("flushed");
    let both = run("drain", &["-c", "1"]) / count as f64;
    Some([enqueue, both - enqueue])
}

/// Where `scripts/install-interop` has put it: beside the folder of the profile this was built in.
fn asynq_binary() -> Option<PathBuf> {
    let here = std::env::current_exe().ok()?;
    let target = here.ancestors().find(|folder| folder.join("interop").is_dir())?;
    let binary = target.join("interop/outlast-interop");
    binary.is_file().then_some(binary)
}

/// Microseconds that the server has spent in scripts.
fn script_time(server: &RedisServer) -> f64 {
    let Ok(Reply::Bulk(stats)) = server.command(&["INFO", "commandstats"]) else {
        panic!("no statistics")
    };
    let stats = String::from_utf8_lossy(&stats).into_owned();
    let of = |line: &str| -> Option<f64> {
        let rest = line.strip_prefix("cmdstat_eval")?;
        rest.split("usec=").nth(1)?.split(',').next()?.parse().ok()
    };
    stats.lines().filter_map(of).sum()
}
