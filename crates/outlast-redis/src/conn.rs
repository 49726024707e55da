//! Connections to the server. The only module that knows a topology: today one server; Sentinel and
//! Cluster are other ways to answer [`Server::connect`].
//!
//! A [`Link`] is one supervised connection. It is made when it is needed, by one caller at a time; whoever
//! waited for an attempt that failed gets its error instead of trying again. After a timeout, a broken
//! stream or an answer of the wrong server the connection is dropped whole: a stream on which an answer
//! is missing can never be trusted again. A link never repeats a call, except once what the server says
//! it did not run (NOSCRIPT), as law L4 allows.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outlast_core::{BrokerError, Kind};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, Pipeline, PushInfo, PushKind, RedisError, Value};

use crate::address::Address;
use crate::error::{Phase, classify, is_connection_spent};
use crate::scripts::{Dialect, Script, loaded};

/// How long a connection may take to be made, TLS and login included.
const CONNECT_PATIENCE: Duration = Duration::from_secs(3);

/// Commands under way at once on one connection; more wait their turn.
const UNDER_WAY_MAX: usize = 1024;

/// The oldest server that has the commands of the scripts (ZMSCORE, the long ZRANGE).
const VERSION_MIN: (u32, u32) = (6, 2);

/// What a connection is for: each class has a connection and a patience of its own, so that a long
/// listing does not hold up a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Produce,
    Consume,
    Admin,
    Watch,
}

impl Class {
    /// How long an answer may take before the connection is given up.
    fn patience(self) -> Duration {
        match self {
            Class::Produce | Class::Consume | Class::Watch => Duration::from_secs(2),
            Class::Admin => Duration::from_secs(10),
        }
    }
}

/// What the server says of itself when a connection is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct About {
    /// Such as `redis 7.0.15` or `valkey 8.1.1`.
    pub(crate) software: String,
    pub(crate) dialect: Dialect,
}

/// Where connections lead.
#[derive(Debug)]
pub(crate) struct Server {
    address: Address,
    client: Client,
}

impl Server {
    pub(crate) fn new(address: Address) -> Result<Self, BrokerError> {
        let info = address.info.clone();
        let client = match address.tls.clone() {
            Some(tls) => Client::build_with_tls(info, tls),
            None => Client::open(info),
        };
        let client = client.map_err(|error| classify(error, &address.shown, Phase::Connecting))?;
        Ok(Self { address, client })
    }

    pub(crate) fn shown(&self) -> &str {
        &self.address.shown
    }

    fn failed(&self, error: RedisError, phase: Phase) -> BrokerError {
        classify(error, self.shown(), phase)
    }

    async fn connect(
        &self,
        class: Class,
        on_push: PushHandler,
        channel: Option<&str>,
    ) -> Result<Live, BrokerError> {
        let making = self.make(class, on_push, channel);
        let made = tokio::time::timeout(CONNECT_PATIENCE, making).await;
        made.map_err(|late| {
            let what = format!("{} did not answer within {CONNECT_PATIENCE:?}", self.shown());
            BrokerError::new(Kind::Unavailable, what).with_source(late)
        })?
    }

    async fn make(
        &self,
        class: Class,
        on_push: PushHandler,
        channel: Option<&str>,
    ) -> Result<Live, BrokerError> {
        let is_broken = Arc::new(AtomicBool::new(false));
        let broken = is_broken.clone();
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_PATIENCE))
            .set_response_timeout(Some(class.patience()))
            .set_pipeline_buffer_size(256)
            .set_concurrency_limit(UNDER_WAY_MAX)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    broken.store(true, Ordering::Release);
                }
                on_push(push);
                Ok::<(), redis::aio::SendError>(())
            });
        let connecting = Phase::Connecting;
        let made = self.client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = made.map_err(|error| self.failed(error, connecting))?;
        let about = self.about(&mut connection).await?;
        let mut load = redis::pipe();
        for script in loaded(about.dialect) {
            load.cmd("SCRIPT").arg("LOAD").arg(&script.text).ignore();
        }
        let () = load.query_async(&mut connection).await.map_err(|e| self.failed(e, connecting))?;
        let is_told = match channel {
            Some(channel) => self.watch(&mut connection, channel).await?,
            None => false,
        };
        Ok(Live { connection, about, is_broken, is_told })
    }

    /// Asks to be told. Where that is forbidden or unknown, waiters poll, and the log says so.
    async fn watch(
        &self,
        connection: &mut MultiplexedConnection,
        channel: &str,
    ) -> Result<bool, BrokerError> {
        let mut tracking = redis::cmd("CLIENT");
        tracking.arg("TRACKING").arg("ON");
        let tracked: Result<(), RedisError> = tracking.query_async(connection).await;
        let subscribed = connection.subscribe(channel).await;
        for (asked, what) in [
            (&tracked, "CLIENT TRACKING is refused: waiting for work polls"),
            (&subscribed, "SUBSCRIBE is refused: cancels of asynq's clients are not heard"),
        ] {
            match asked {
                Ok(()) => {}
                Err(error) if error.is_io_error() => {
                    return Err(self.failed(error.clone(), Phase::Connecting));
                }
                Err(error) => tracing::warn!(server = self.shown(), %error, "{what}"),
            }
        }
        Ok(tracked.is_ok())
    }

    async fn about(&self, connection: &mut MultiplexedConnection) -> Result<About, BrokerError> {
        let asked: Result<String, RedisError> =
            redis::cmd("INFO").arg("server").query_async(connection).await;
        let info = match asked {
            Ok(info) => info,
            // INFO may be forbidden to us; then we take the server for a current one.
            Err(error) if error.code() == Some("NOPERM") => String::new(),
            Err(error) => return Err(self.failed(error, Phase::Connecting)),
        };
        self.judge(&info)
    }

    fn judge(&self, info: &str) -> Result<About, BrokerError> {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let unfit = |why: String| {
            Err(BrokerError::new(Kind::Misconfigured, format!("{}: {why}", self.shown())))
        };
        match field("redis_mode") {
            Some("sentinel") => {
                return unfit(
                    "is a Sentinel, which keeps no tasks: give the server's own address".into(),
                );
            }
            Some("cluster") => {
                return unfit("is a node of a cluster: this URL is for a single server".into());
            }
            _ => {}
        }
        let version = field("redis_version").unwrap_or("7.0.0");
        let numbers: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
        let numbers = (numbers.first().copied().unwrap_or(7), numbers.get(1).copied().unwrap_or(0));
        if numbers < VERSION_MIN {
            return unfit(format!("is Redis {version}, and 6.2 or later is needed"));
        }
        let software = match field("valkey_version") {
            Some(valkey) => format!("valkey {valkey}"),
            None => format!("redis {version}"),
        };
        let dialect = if numbers >= (7, 0) { Dialect::Flags } else { Dialect::Plain };
        Ok(About { software, dialect })
    }
}

/// What is done with messages that nobody asked for. Must not block.
pub(crate) type PushHandler = Arc<dyn Fn(PushInfo) + Send + Sync>;

/// A connection that works as far as anybody knows.
#[derive(Clone)]
struct Live {
    connection: MultiplexedConnection,
    about: About,
    is_broken: Arc<AtomicBool>,
    /// The server tells which of the keys that were read have changed.
    is_told: bool,
}

/// One supervised connection; see the module's page.
pub(crate) struct Link {
    server: Arc<Server>,
    class: Class,
    on_push: PushHandler,
    channel: Option<String>,
    live: Mutex<Option<Live>>,
    /// Held while a connection is made; counts the attempts that failed, and keeps the last error.
    making: tokio::sync::Mutex<(u64, Option<BrokerError>)>,
    failures: std::sync::atomic::AtomicU64,
}

impl Link {
    /// A connection on which the server tells which keys have changed, and what comes on `channel`.
    pub(crate) fn watching(server: Arc<Server>, channel: String, on_push: PushHandler) -> Self {
        Self { channel: Some(channel), on_push, ..Self::new(server, Class::Watch) }
    }

    pub(crate) fn new(server: Arc<Server>, class: Class) -> Self {
        Self {
            server,
            class,
            on_push: Arc::new(|_| {}),
            channel: None,
            live: Mutex::new(None),
            making: tokio::sync::Mutex::new((0, None)),
            failures: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// What the server says of itself; makes a connection if there is none.
    pub(crate) async fn about(&self) -> Result<About, BrokerError> {
        Ok(self.live().await?.about)
    }

    /// Sends one command.
    pub(crate) async fn run(&self, command: &Cmd) -> Result<Value, BrokerError> {
        let live = self.live().await?;
        let answer = command.query_async(&mut live.connection.clone()).await;
        answer.map_err(|error| self.lost(&live, error))
    }

    /// Sends several commands at once; the first error stands for all.
    pub(crate) async fn run_all(&self, commands: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        let live = self.live().await?;
        let answer = commands.query_async(&mut live.connection.clone()).await;
        answer.map_err(|error| self.lost(&live, error))
    }

    /// Runs a script.
    pub(crate) async fn script(&self, call: &Call) -> Result<Value, BrokerError> {
        let live = self.live().await?;
        let script = call.script.on(live.about.dialect);
        let by_hash = call.command("EVALSHA", &script.hash);
        match by_hash.query_async(&mut live.connection.clone()).await {
            Err(error) if RedisError::code(&error) == Some("NOSCRIPT") => {
                let by_text = call.command("EVAL", &script.text);
                let answer = by_text.query_async(&mut live.connection.clone()).await;
                answer.map_err(|error| self.lost(&live, error))
            }
            answer => answer.map_err(|error| self.lost(&live, error)),
        }
    }

    /// True if the server tells what changes; makes a connection if there is none.
    pub(crate) async fn is_told(&self) -> Result<bool, BrokerError> {
        Ok(self.live().await?.is_told)
    }

    /// Drops the connection, if there is one.
    pub(crate) fn close(&self) {
        *self.held() = None;
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> Option<Live> {
        let held = self.held();
        held.as_ref().filter(|live| !live.is_broken.load(Ordering::Acquire)).cloned()
    }

    async fn live(&self) -> Result<Live, BrokerError> {
        if let Some(live) = self.current() {
            return Ok(live);
        }
        let seen = self.failures.load(Ordering::Acquire);
        let mut making = self.making.lock().await;
        if let Some(live) = self.current() {
            return Ok(live);
        }
        if let (count, Some(error)) = &*making
            && *count > seen
        {
            return Err(error.clone());
        }
        let channel = self.channel.as_deref();
        match self.server.connect(self.class, self.on_push.clone(), channel).await {
            Ok(live) => {
                *self.held() = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                let count = self.failures.fetch_add(1, Ordering::AcqRel) + 1;
                *making = (count, Some(error.clone()));
                Err(error)
            }
        }
    }

    /// Gives the connection up if the error says so, and names the error.
    fn lost(&self, live: &Live, error: RedisError) -> BrokerError {
        if is_connection_spent(&error) {
            live.is_broken.store(true, Ordering::Release);
            let mut held = self.held();
            if held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.is_broken, &live.is_broken)) {
                *held = None;
            }
        }
        self.server.failed(error, Phase::Sent)
    }
}

/// A script with what it is called with.
#[derive(Debug)]
pub(crate) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    args: Vec<Arg>,
}

/// An argument. Payloads are shared, not copied, until they are written.
#[derive(Debug)]
pub(crate) enum Arg {
    Text(String),
    Static(&'static str),
    Bytes(bytes::Bytes),
    Int(i64),
}

impl Call {
    pub(crate) fn new(script: &'static Script, keys: Vec<String>) -> Self {
        Self { script, keys, args: Vec::with_capacity(16) }
    }

    /// One more key.
    pub(crate) fn add_key(&mut self, key: String) {
        self.keys.push(key);
    }

    pub(crate) fn text(&mut self, text: impl Into<String>) -> &mut Self {
        self.args.push(Arg::Text(text.into()));
        self
    }

    pub(crate) fn fixed(&mut self, text: &'static str) -> &mut Self {
        self.args.push(Arg::Static(text));
        self
    }

    pub(crate) fn bytes(&mut self, bytes: impl Into<bytes::Bytes>) -> &mut Self {
        self.args.push(Arg::Bytes(bytes.into()));
        self
    }

    pub(crate) fn int(&mut self, number: i64) -> &mut Self {
        self.args.push(Arg::Int(number));
        self
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        for key in &self.keys {
            command.arg(key);
        }
        for arg in &self.args {
            match arg {
                Arg::Text(text) => command.arg(text),
                Arg::Static(text) => command.arg(*text),
                Arg::Bytes(bytes) => command.arg(&bytes[..]),
                Arg::Int(number) => command.arg(*number),
            };
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(info: &str) -> Result<About, BrokerError> {
        let address = Address::parse("redis://u:pw@h").expect("a URL");
        Server::new(address).expect("a client").judge(info)
    }

    #[test]
    fn servers_are_known_by_their_own_description() {
        let about = judged("redis_version:7.0.15\r\nredis_mode:standalone\r\n").expect("fit");
        assert_eq!((about.software.as_str(), about.dialect), ("redis 7.0.15", Dialect::Flags));
        let about = judged("redis_version:7.2.4\r\nvalkey_version:8.1.1\r\n").expect("fit");
        assert_eq!(about.software, "valkey 8.1.1");
        let about = judged("redis_version:6.2.7\r\n").expect("fit");
        assert_eq!(about.dialect, Dialect::Plain);
    }

    #[test]
    fn servers_that_cannot_serve_are_refused_with_the_remedy() {
        for (info, why) in [
            ("redis_version:6.0.16\r\n", "is Redis 6.0.16, and 6.2 or later"),
            ("redis_version:7.0.15\r\nredis_mode:sentinel\r\n", "is a Sentinel"),
            ("redis_version:7.0.15\r\nredis_mode:cluster\r\n", "is a node of a cluster"),
        ] {
            let error = judged(info).expect_err(info);
            assert_eq!(error.kind(), Kind::Misconfigured);
            assert!(error.to_string().contains(why), "{error}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }
}
