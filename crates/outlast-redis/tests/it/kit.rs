//! A queue of its own for a test, seen through a broker and through raw commands, and what may spoil the way.

use std::future::{Future, pending};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, ClaimedTask, EnqueueVerdict, Kind, Lease, LeaseToken, NewTask, Outcome,
    QueueName, SettleVerdict, Settlement, Stamp, Want,
};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{secs, stamp, t, tasks_of};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::resp::{CommandError, Connection, Reply};
use outlast_testkit::server::RedisServer;

/// Longer than anything that these tests wait for.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// The longest that a call may take whose answer is missing: its class's patience of 2 s, and some.
pub(crate) const ANSWERED: Duration = Duration::from_millis(3500);

/// Longer than a connection may take to be made.
pub(crate) const CONNECTED: Duration = Duration::from_millis(4500);

/// A queue in a namespace of its own.
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) queue: QueueName,
    raw: std::sync::Mutex<Connection>,
}

impl Place {
    pub(crate) fn new(server: &RedisServer) -> Self {
        let namespace = format!("t{}", uuid::Uuid::new_v4().simple());
        let raw = std::sync::Mutex::new(server.connect().expect("the server answers"));
        Self { namespace, queue: QueueName::default_queue(), raw }
    }

    /// A broker in this namespace: as another process would have it.
    pub(crate) fn broker(&self, url: &str) -> RedisBroker {
        broker(&format!("{url}/0?namespace={}", self.namespace))
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.namespace, self.queue)
    }

    pub(crate) fn session_key(&self, session: u128) -> String {
        self.key(&format!("outlast:s:{session:032x}"))
    }

    pub(crate) fn try_raw(&self, words: &[&str]) -> Result<Reply, CommandError> {
        self.raw.lock().expect("no test has panicked with it").command(words)
    }

    /// A command that must succeed.
    pub(crate) fn raw(&self, words: &[&str]) -> Reply {
        self.try_raw(words).expect("the command succeeds")
    }

    pub(crate) fn count(&self, command: &str, name: &str) -> i64 {
        self.raw(&[command, &self.key(name)]).int().expect("a number")
    }

    pub(crate) fn pending(&self) -> i64 {
        self.count("LLEN", "pending")
    }

    /// The keys of this namespace, with what they hold.
    pub(crate) fn everything(&self) -> Vec<(String, Reply)> {
        let keys = self.raw(&["KEYS", &format!("{}:*", self.namespace)]);
        let mut keys: Vec<_> = keys.items().iter().filter_map(Reply::text).collect();
        keys.sort();
        keys.into_iter().map(|key| (key.clone(), self.raw(&["DUMP", &key]))).collect()
    }

    /// The tasks that exist, by the last part of their keys.
    pub(crate) fn tasks(&self) -> Vec<String> {
        let found = self.everything().into_iter();
        let begin = self.key("t:");
        found.filter_map(|(key, _)| key.strip_prefix(&begin).map(str::to_owned)).collect()
    }

    /// Pushes pending tasks `<name>0`, `<name>1`, … as another program would.
    pub(crate) fn push(&self, verb: &str, name: &str, count: usize) {
        let script = "for n = 0, tonumber(ARGV[4]) - 1 do
            local id = ARGV[3] .. n
            redis.call('HSET', ARGV[1] .. 't:' .. id, 'msg', '\\10\\1t', 'state', 'pending')
            redis.call(ARGV[2], ARGV[1] .. 'pending', id)
        end";
        let count = count.to_string();
        self.raw(&["EVAL", script, "0", &self.key(""), verb, name, &count]);
        let queues = format!("{}:queues", self.namespace);
        self.raw(&["SADD", &queues, self.queue.as_str()]);
    }

    pub(crate) async fn accept(&self, broker: &RedisBroker, tasks: Vec<NewTask>) {
        // A session of its own, so that the numbers of the test's are its own.
        let session = uuid::Uuid::new_v4().as_u128();
        let stored = enqueue(broker, &self.queue, stamp(session, 0, 1), tasks).await;
        let stored = stored.expect("answered");
        assert!(stored.iter().all(|verdict| matches!(verdict, EnqueueVerdict::Accepted { .. })));
    }

    pub(crate) async fn claim(&self, broker: &RedisBroker, tasks_max: usize) -> Vec<ClaimedTask> {
        let session = uuid::Uuid::new_v4().as_u128();
        let claims = broker.claim(&self.queue, stamp(session, 0, 1), t(1), &want(tasks_max)).await;
        tasks_of(claims.expect("answered"))
    }

    /// Runs a task as asynq's worker does (contract §3.2 and §3.3); its id, or `None` from an empty queue.
    pub(crate) fn run_as_go_does(&self) -> Option<String> {
        let (pending, active) = (self.key("pending"), self.key("active"));
        let id = self.raw(&["RPOPLPUSH", &pending, &active]).text()?;
        let task = self.key(&format!("t:{id}"));
        self.raw(&["HSET", &task, "state", "active"]);
        self.raw(&["HDEL", &task, "pending_since"]);
        self.raw(&["ZADD", &self.key("lease"), "1795525200", &id]);
        self.raw(&["LREM", &active, "0", &id]);
        self.raw(&["ZREM", &self.key("lease"), &id]);
        self.raw(&["DEL", &task]);
        self.raw(&["INCR", &self.key("processed")]);
        Some(id)
    }

    pub(crate) fn run_all_as_go_does(&self) -> Vec<String> {
        std::iter::from_fn(|| self.run_as_go_does()).collect()
    }
}

/// The server that all tests share, unless there is none.
pub(crate) fn shared() -> Option<&'static RedisServer> {
    RedisServer::or_skip(RedisServer::shared())
}

/// A server of this test alone.
pub(crate) fn own() -> Option<RedisServer> {
    RedisServer::or_skip(RedisServer::start())
}

pub(crate) fn broker(url: &str) -> RedisBroker {
    RedisBroker::new(url, Options::default()).expect("a broker")
}

pub(crate) fn token() -> LeaseToken {
    LeaseToken::new(77).expect("a token")
}

pub(crate) fn want(tasks_max: usize) -> Want {
    let (token, lease) = (token(), secs(30));
    Want { token, tasks_max, bytes_max: 1 << 20, lease, groups: [].into() }
}

pub(crate) fn settlement(lease: &Lease, outcome: Outcome) -> Settlement {
    Settlement { lease: lease.clone(), outcome }
}

pub(crate) async fn enqueue(
    broker: &RedisBroker,
    queue: &QueueName,
    stamp: Stamp,
    tasks: Vec<NewTask>,
) -> Result<Vec<EnqueueVerdict>, BrokerError> {
    broker.enqueue(queue, stamp, t(0), tasks.into()).await.map(|answer| answer.verdicts)
}

pub(crate) async fn settle(
    broker: &RedisBroker,
    queue: &QueueName,
    stamp: Stamp,
    batch: &[Settlement],
) -> Result<Vec<SettleVerdict>, BrokerError> {
    broker.settle(queue, stamp, t(2), batch.into()).await.map(|answer| answer.verdicts)
}

/// What a call that must fail says.
#[track_caller]
pub(crate) fn failed<T: std::fmt::Debug>(answer: Result<T, BrokerError>, kind: Kind) -> String {
    let error = answer.expect_err("this call must fail");
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

/// The answer, which must come within `limit`.
pub(crate) async fn within<T>(limit: Duration, answer: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, answer).await.expect("this must not take so long")
}

/// Lets others go on for a moment.
pub(crate) async fn moment(length: Duration) {
    // Ends by its deadline alone.
    let _ = tokio::time::timeout(length, pending::<()>()).await;
}

/// Asks again until the answer is as wanted, for [`LONG`] at most.
pub(crate) async fn until<T: std::fmt::Debug, F: Future<Output = T>>(
    mut ask: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let asking = async {
        loop {
            let answer = ask().await;
            if wanted(&answer) {
                return answer;
            }
            moment(Duration::from_millis(10)).await;
        }
    };
    within(LONG, asking).await
}

/// A queue, a broker whose replies may be lost, and one of another process.
pub(crate) struct Lossy {
    pub(crate) place: Place,
    pub(crate) proxy: TcpProxy,
    pub(crate) through: RedisBroker,
    pub(crate) other: RedisBroker,
}

impl Lossy {
    pub(crate) async fn new(server: &RedisServer) -> Self {
        let place = Place::new(server);
        let proxy = TcpProxy::start(server.addr()).await.expect("a port");
        let through = place.broker(&proxy.url());
        let other = place.broker(&server.url());
        Self { place, proxy, through, other }
    }

    /// Calls a verb whose reply is lost.
    pub(crate) async fn lose<T: std::fmt::Debug, F>(&self, verb: impl Fn(RedisBroker) -> F)
    where
        F: Future<Output = Result<T, BrokerError>>,
    {
        self.proxy.lose_next_reply_to("EVALSHA");
        failed(within(ANSWERED, verb(self.through.clone())).await, Kind::Ambiguous);
    }

    /// Calls a verb whose reply is lost, and then again: from another process, and where it was lost. What
    /// these two were told, which must be the same.
    pub(crate) async fn repeated<T, F>(&self, verb: impl Fn(RedisBroker) -> F) -> T
    where
        T: PartialEq + std::fmt::Debug,
        F: Future<Output = Result<T, BrokerError>>,
    {
        self.lose(&verb).await;
        let answer = verb(self.other.clone()).await.expect("answered");
        let again = verb(self.through.clone()).await.expect("answered");
        assert_eq!(answer, again, "however often, and on whichever connection");
        answer
    }
}
