//! Servers, and how a connection to one is made. The only module that knows a topology: today one server;
//! Sentinel and Cluster are other ways to answer [`Server::connect`]. What keeps a connection is in `link.rs`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::{BrokerError, Credentials, Kind};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, PushInfo, PushKind, RedisError};

use crate::address::Address;
use crate::error::{Phase, classify};
use crate::keys::Root;
use crate::link::{Live, PushHandler};
use crate::permissions::{self, Refused};
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
    /// Asks whether a server is well, sick ones too: its connection costs one command, and knows nothing of the server.
    Probe,
}

impl Class {
    /// How long an answer may take, the wait for its turn included, before the connection is given up; more while large
    /// requests are under way (`patience.rs`).
    pub(crate) fn patience(self) -> Duration {
        match self {
            Class::Produce | Class::Consume | Class::Watch | Class::Probe => Duration::from_secs(2),
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

impl About {
    /// A server that was not asked: every one knows the plain dialect.
    fn unknown() -> Self {
        Self { software: String::new(), dialect: Dialect::Plain }
    }
}

/// Where connections lead.
#[derive(Debug)]
pub(crate) struct Server {
    address: Address,
    client: Client,
    /// What was learnt with the first connection. Later ones do not ask again: a server that is just recovering is to have its
    /// clients back for one command each (law L9), and what has changed since shows in its answers: of one that refuses a user
    /// or a call it is forgotten.
    known: Mutex<Option<Known>>,
}

/// What this process knows of a server. It has also given it the scripts.
#[derive(Clone, Debug)]
struct Known {
    /// Whom it refuses these commands: credentials may change to another user's.
    user: Option<String>,
    about: About,
    refused: Refused,
}

impl Server {
    pub(crate) fn new(address: Address) -> Result<Self, BrokerError> {
        let client = client(&address, None)?;
        Ok(Self { address, client, known: Mutex::default() })
    }

    /// What makes the next connection. Credentials that come from elsewhere are asked for each time: one that is
    /// refused is followed by one with what they are then.
    async fn client(&self) -> Result<Client, BrokerError> {
        let Some(login) = &self.address.login else { return Ok(self.client.clone()) };
        let known = login.ask().await.map_err(|error| {
            BrokerError::new(Kind::Misconfigured, self.shown()).with_source(error)
        })?;
        client(&self.address, Some(known))
    }

    pub(crate) fn root(&self) -> &Root {
        &self.address.root
    }

    pub(crate) fn shown(&self) -> &str {
        &self.address.shown
    }

    pub(crate) fn place(&self) -> String {
        self.address.place()
    }

    pub(crate) fn failed(&self, error: RedisError, phase: Phase) -> BrokerError {
        classify(error, self.shown(), phase)
    }

    /// Makes a connection within [`CONNECT_PATIENCE`]. On `channel`, if there is one, the server also tells
    /// which of the keys that were read have changed.
    pub(crate) async fn connect(
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
            // `Link` waits for answers itself: its patience includes the wait for a place here.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(256)
            .set_concurrency_limit(UNDER_WAY_MAX)
            .set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    broken.store(true, Ordering::Release);
                }
                on_push(push);
                Ok::<(), redis::aio::SendError>(())
            });
        let client = self.client().await?;
        let made = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = made.map_err(|error| {
            let failed = self.failed(error, Phase::Connecting);
            if failed.kind() == Kind::Misconfigured {
                // Somebody changes its users: when it lets us in, their permissions may be others.
                self.forget();
            }
            failed
        })?;
        if class == Class::Probe {
            let refused = Refused::default();
            return Ok(Live::new(connection, About::unknown(), is_broken, false, refused));
        }
        let user = client.get_connection_info().redis_settings().username();
        let known = self.known().clone().filter(|known| known.user.as_deref() == user);
        let Known { about, refused, .. } = match known {
            Some(known) => known,
            None => self.learn(&mut connection, user).await?,
        };
        let is_told = match channel {
            Some(channel) => self.watch(&mut connection, channel).await?,
            None => false,
        };
        Ok(Live::new(connection, about, is_broken, is_told, refused))
    }

    fn known(&self) -> MutexGuard<'_, Option<Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn learn(
        &self,
        connection: &mut MultiplexedConnection,
        user: Option<&str>,
    ) -> Result<Known, BrokerError> {
        let about = self.about(connection).await?;
        self.load(connection, about.dialect).await?;
        let names = self.refused(connection, about.dialect).await?;
        let mut known = self.known();
        // Two connections may learn at once: all of one user share one list, or what one of them hears would be lost on others.
        let shared = known.take().filter(|known| known.user.as_deref() == user);
        let refused = shared.map(|known| known.refused).unwrap_or_default();
        refused.set(names);
        Ok(known.insert(Known { user: user.map(str::to_owned), about, refused }).clone())
    }

    /// What is known may not be true any more: the next connection asks anew.
    pub(crate) fn forget(&self) {
        *self.known() = None;
    }

    /// The server says this of itself now.
    pub(crate) fn saw(&self, about: &About) {
        let mut known = self.known();
        if known.as_ref().is_some_and(|known| known.about != *about) {
            *known = None;
        }
    }

    /// Gives the server the scripts. One that has lost them since says so, and gets each with its next call.
    async fn load(
        &self,
        connection: &mut MultiplexedConnection,
        dialect: Dialect,
    ) -> Result<(), BrokerError> {
        let mut load = redis::pipe();
        for script in loaded(dialect) {
            load.cmd("SCRIPT").arg("LOAD").arg(&script.text).ignore();
        }
        let done: Result<(), RedisError> = load.query_async(connection).await;
        done.map_err(|error| self.failed(error, Phase::Connecting))
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

    /// Whoever may not even be asked is told when it calls.
    async fn refused(
        &self,
        connection: &mut MultiplexedConnection,
        dialect: Dialect,
    ) -> Result<Vec<String>, BrokerError> {
        let Some(question) = permissions::question(dialect, &self.address.root) else {
            return Ok(Vec::new());
        };
        match question.query_async(connection).await {
            Ok(answer) => permissions::refused(answer),
            Err(error) if error.code() == Some("NOPERM") => Ok(Vec::new()),
            Err(error) => Err(self.failed(error, Phase::Connecting)),
        }
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

    /// What INFO says of the server; nothing of one that we may not ask.
    ///
    /// # Errors
    /// `Misconfigured` for one that cannot be used.
    pub(crate) fn judge(&self, info: &str) -> Result<About, BrokerError> {
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let unfit = |why: String| {
            Err(BrokerError::new(Kind::Misconfigured, format!("{}: {why}", self.shown())))
        };
        // Valkey calls it server_mode.
        match field("redis_mode").or_else(|| field("server_mode")) {
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

/// A client of the address, with these credentials instead of its own.
fn client(address: &Address, known: Option<Credentials>) -> Result<Client, BrokerError> {
    // Two commands less.
    let mut settings = address.info.redis_settings().clone().set_skip_set_lib_name();
    if let Some(Credentials { user, password }) = known {
        settings = settings.set_password(password);
        if let Some(user) = user {
            settings = settings.set_username(user);
        }
    }
    let info = address.info.clone().set_redis_settings(settings);
    let client = match address.tls.clone() {
        Some(tls) => Client::build_with_tls(info, tls),
        None => Client::open(info),
    };
    client.map_err(|error| classify(error, &address.shown, Phase::Connecting))
}

/// A script with what it is called with.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) script: &'static Script,
    keys: Vec<String>,
    args: Vec<Arg>,
    /// Bytes of a large answer.
    expected: usize,
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
        Self { script, keys, args: Vec::with_capacity(16), expected: 0 }
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

    /// The answer may have so many bytes.
    pub(crate) fn awaits(&mut self, bytes: usize) {
        self.expected = bytes;
    }

    /// What the call and its answer weigh, where that is not little.
    pub(crate) fn bytes_under_way(&self) -> usize {
        let sent = self.args.iter().map(|arg| match arg {
            Arg::Text(text) => text.len(),
            Arg::Bytes(bytes) => bytes.len(),
            Arg::Static(_) | Arg::Int(_) => 0,
        });
        self.expected + sent.sum::<usize>()
    }

    pub(crate) fn command(&self, name: &str, script: &str) -> Cmd {
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
