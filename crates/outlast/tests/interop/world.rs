//! What every test here stands on: a Redis of its own, our side of it, and Go's client and inspector.

use std::future::Future;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outlast::{
    Client, Clock, Connection, Inspector, PageRequest, QueueName, QueueStats, Selector, TaskId,
    TaskRecord, TaskState, Timestamp, Worker,
};
use outlast_testkit::resp::Reply;
use outlast_testkit::server::RedisServer;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::go::{Go, program};
use super::ours::Ours;

/// How long anything may take before it counts as failed, on the busiest of build machines.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Flags that make a Go worker quick and end it with this process.
const WORK_FLAGS: [&str; 11] = [
    "-until-eof",
    "-task-check-interval",
    "50ms",
    "-delay-check-interval",
    "200ms",
    "-janitor-interval",
    "1s",
    "-shutdown-timeout",
    "1s",
    "-log-level",
    "warn",
];

/// A Redis with both sides on it.
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) inspector: Inspector,
    pub(crate) clock: Clock,
    pub(crate) redis: RedisServer,
    enqueue: Mutex<Go>,
    inspect: Mutex<Go>,
}

impl World {
    /// The world of one test, or none and a line that says what is missing.
    pub(crate) async fn start() -> Option<Self> {
        let interop = built("outlast-interop")?;
        let redis = RedisServer::or_skip(RedisServer::start())?;
        let connection = Connection::without_spool(&redis.url()).await.unwrap();
        let at = redis.addr().to_string();
        let go = |command: &str| Mutex::new(Go::start(&interop, &[command, "-redis", &at]));
        Some(Self {
            client: connection.client(),
            inspector: connection.inspector(),
            clock: connection.clock().clone(),
            enqueue: go("enqueue"),
            inspect: go("inspect"),
            redis,
        })
    }

    /// What the clock of our side says.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Go enqueues a task.
    pub(crate) async fn go_enqueues(&self, task: Value) -> Value {
        result(&self.go_offers(task).await)
    }

    /// Go offers a task: the whole answer.
    pub(crate) async fn go_offers(&self, task: Value) -> Value {
        self.enqueue.lock().await.ask(&task).await
    }

    /// What Go's inspector answers when all is well.
    pub(crate) async fn go(&self, request: Value) -> Value {
        result(&self.ask_go(request).await)
    }

    /// What Go's inspector answers, whatever it is.
    pub(crate) async fn ask_go(&self, request: Value) -> Value {
        self.inspect.lock().await.ask(&request).await
    }

    /// A task as Go's inspector sees it.
    pub(crate) async fn go_task(&self, queue: &str, id: &str) -> Value {
        self.go(json!({"op": "task", "queue": queue, "id": id})).await
    }

    /// A queue as Go's inspector sees it.
    pub(crate) async fn go_queue(&self, queue: &str) -> Value {
        self.go(json!({"op": "queue", "queue": queue})).await
    }

    /// A Go worker that is ready.
    pub(crate) async fn go_works(&self, flags: &[&str]) -> Go {
        let at = self.redis.addr().to_string();
        let mut args = vec!["work", "-redis", &at];
        args.extend(WORK_FLAGS);
        args.extend(flags);
        let go = Go::start(&program("outlast-interop"), &args);
        go.event("ready", |_| true).await;
        go
    }

    /// A worker of ours that behaves as tasks ask it to.
    pub(crate) fn we_work(&self, with: impl FnOnce(Worker) -> Worker) -> Ours {
        Ours::start(&self.client, &self.clock, with)
    }

    /// A task as we see it, once it is in `state`.
    pub(crate) async fn in_state(&self, queue: &str, id: &str, state: TaskState) -> TaskRecord {
        let (name, task) = (QueueName::stored(queue), TaskId::stored(id));
        until(&format!("{id} is {state}"), async || {
            let found = self.inspector.task(&name, &task).await.ok()?;
            (found.state == state).then_some(found)
        })
        .await
    }

    /// Waits until there is no such task.
    pub(crate) async fn gone(&self, queue: &str, id: &str) {
        let (name, task) = (QueueName::stored(queue), TaskId::stored(id));
        until(&format!("{id} is gone"), async || {
            let error = self.inspector.task(&name, &task).await.err()?;
            (error.kind() == outlast::ErrorKind::NotFound).then_some(())
        })
        .await;
    }

    /// A queue as we see it, once it `fits`.
    pub(crate) async fn queue_when(
        &self,
        queue: &str,
        fits: impl Fn(&QueueStats) -> bool,
    ) -> QueueStats {
        let name = QueueName::stored(queue);
        until(&format!("the queue {queue}"), async || {
            self.inspector.queue(&name).await.ok().filter(|stats| fits(stats))
        })
        .await
    }

    /// The ids of our listing of one state, sorted.
    pub(crate) async fn ids(&self, queue: &str, state: TaskState) -> Vec<String> {
        let (name, page) = (QueueName::stored(queue), PageRequest::first(1000));
        let found = self.inspector.tasks(&name, &Selector::state(state), &page).await.unwrap();
        let mut ids: Vec<_> = found.items.iter().map(|task| task.id.to_string()).collect();
        ids.sort();
        ids
    }

    /// A command to Redis itself.
    pub(crate) fn raw(&self, words: &[&str]) -> Reply {
        self.redis.command(words).unwrap()
    }

    /// What was sent to Redis by somebody who neither enqueues nor looks: scripts, and whether it is there.
    pub(crate) fn scripts_and_pings(&self) -> u64 {
        let page = self.raw(&["INFO", "commandstats"]).text().unwrap();
        let calls = |line: &str| {
            let (name, facts) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let is_sent = ["eval", "evalsha", "ping"].contains(&name);
            let count = facts.split(',').next()?.parse::<u64>().ok()?;
            is_sent.then_some(count)
        };
        page.lines().filter_map(calls).sum()
    }

    /// Makes the lease of every active task of a queue end long ago, as if its worker had died then.
    pub(crate) fn expire_leases(&self, queue: &str) -> usize {
        let key = format!("asynq:{{{queue}}}:lease");
        let members = self.raw(&["ZRANGE", &key, "0", "-1"]);
        for member in members.items() {
            let member = member.text().unwrap();
            let score: f64 = self.raw(&["ZSCORE", &key, &member]).text().unwrap().parse().unwrap();
            // The fraction says whose lease it is.
            let past = format!("{}", score - 3600.0);
            self.raw(&["ZADD", &key, "XX", &past, &member]);
        }
        members.items().len()
    }
}

/// The result of an answer that has to be a good one.
pub(crate) fn result(answer: &Value) -> Value {
    assert_eq!(answer["ok"], true, "{answer}");
    answer["result"].clone()
}

/// A program of `scripts/install-interop`, or none and a line that says so.
pub(crate) fn built(name: &str) -> Option<PathBuf> {
    let path = program(name);
    if path.exists() {
        return Some(path);
    }
    let missing = format!("{name} is not built: run scripts/install-interop");
    assert!(std::env::var_os("OUTLAST_REQUIRE_ASYNQ").is_none_or(|set| set != "1"), "{missing}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not through eprintln!, whose words are kept from the terminal when a test passes.
    let _unread = writeln!(io::stderr(), "skipped: {test}: {missing}");
    None
}

/// Waits as a bound on failure, never as a way to pass.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, future).await.ok()
}

/// Looks again and again until there is something to see.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut again = tokio::time::interval(LOOK_EVERY);
    let seen = soon(async {
        loop {
            again.tick().await;
            if let Some(seen) = look().await {
                return seen;
            }
        }
    });
    seen.await.unwrap_or_else(|| panic!("{what}: not within {PATIENCE:?}"))
}

/// What Go shows of bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What Go shows of a duration.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

/// A time as Go shows it; none for its zero time.
pub(crate) fn time(shown: &Value) -> Option<Timestamp> {
    let text = shown.as_str().unwrap();
    (!text.starts_with("0001-")).then(|| text.parse().unwrap())
}
