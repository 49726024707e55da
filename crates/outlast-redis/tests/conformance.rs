//! The common suite, and random comparison with the model, on a real server: each case in a namespace of
//! its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{Broker, Inspect, Kind, Porter, QueueName, TaskId};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::{Differences, Fixture, Handle, Provoked, Skip, TtlClock};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::random;
use outlast_testkit::server::RedisServer;

const ARCHIVE_MAX: usize = 20;

/// Without a server the suite fails, because it would test nothing.
fn server() -> &'static RedisServer {
    RedisServer::shared().unwrap_or_else(|error| panic!("no server: {error}"))
}

/// Sends a command that must succeed.
fn command(words: &[&str]) {
    server().command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

struct RedisFixture {
    namespace: String,
    broker: RedisBroker,
}

impl RedisFixture {
    fn new() -> Self {
        let namespace = format!("t{}", uuid::Uuid::new_v4().simple());
        let broker = open(&server().url(), &namespace);
        Self { namespace, broker }
    }

    fn key(&self, queue: &QueueName, name: &str) -> String {
        format!("{}:{{{queue}}}:{name}", self.namespace)
    }

    /// A broker in the same namespace at another address.
    fn at(&self, url: &str) -> Handle {
        handle(open(url, &self.namespace))
    }
}

fn open(url: &str, namespace: &str) -> RedisBroker {
    let url = format!("{url}/0?namespace={namespace}");
    RedisBroker::new(&url, Options::default().archive_max(ARCHIVE_MAX)).expect("a broker")
}

fn handle(broker: RedisBroker) -> Handle {
    Handle { broker: Arc::new(broker.clone()), inspect: Arc::new(broker) }
}

fn provoked(handle: Handle, heal: impl FnOnce() + Send + 'static) -> Provoked {
    Provoked { handle, heal: Some(Box::new(heal)), guard: Box::new(()) }
}

#[async_trait]
impl Fixture for RedisFixture {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn inspect(&self) -> Arc<dyn Inspect> {
        Arc::new(self.broker.clone())
    }

    fn porter(&self) -> Result<Arc<dyn Porter>, Skip> {
        Ok(Arc::new(self.broker.clone()))
    }

    fn other(&self) -> Result<Box<dyn Fixture>, Skip> {
        Ok(Box::new(RedisFixture::new()))
    }

    fn differences(&self) -> Differences {
        Differences {
            time_resolution: Duration::from_secs(1),
            archive_max: ARCHIVE_MAX,
            ttl_clock: TtlClock::Server,
        }
    }

    async fn second_handle(&self) -> Result<Handle, Skip> {
        Ok(self.at(&server().url()))
    }

    async fn provoke(&self, kind: Kind) -> Result<Provoked, Skip> {
        match kind {
            Kind::Unavailable => {
                let proxy = TcpProxy::start(server().addr()).await.expect("a proxy");
                proxy.refuse().await.expect("its port is closed");
                let handle = self.at(&proxy.url());
                Ok(Provoked { handle, heal: None, guard: Box::new(proxy) })
            }
            Kind::Busy => {
                let full =
                    RedisServer::builder().maxmemory(1 << 20).set("maxmemory-policy", "noeviction");
                let full = Arc::new(full.start().expect("a server"));
                let (handle, healed) = (self.at(&full.url()), full.clone());
                let heal = move || {
                    healed
                        .command(&["CONFIG", "SET", "maxmemory", "0"])
                        .expect("the server answers");
                };
                Ok(Provoked { guard: Box::new(full), ..provoked(handle, heal) })
            }
            Kind::Misconfigured => {
                let user = self.namespace.clone();
                let all = ["on", "nopass", "~*", "&*", "+@all"];
                command(&[&["ACL", "SETUSER", &user], &all[..], &["-evalsha"]].concat());
                let url = server().url().replacen("://", &format!("://{user}:x@"), 1);
                let heal = move || command(&["ACL", "SETUSER", &user, "+evalsha"]);
                Ok(provoked(self.at(&url), heal))
            }
            Kind::Corrupt => {
                let key = self.key(&QueueName::default_queue(), "pending");
                command(&["SET", &key, "of another program"]);
                let heal = move || command(&["DEL", &key]);
                Ok(provoked(self.at(&server().url()), heal))
            }
            Kind::Ambiguous => {
                let proxy = TcpProxy::start(server().addr()).await.expect("a proxy");
                proxy.lose_next_reply_to("EVALSHA");
                let handle = self.at(&proxy.url());
                Ok(Provoked { guard: Box::new(proxy), ..provoked(handle, || {}) })
            }
            kind => Err(Skip(format!("{kind} is no trouble of a server's"))),
        }
    }

    async fn corrupt(&self, queue: &QueueName, id: &TaskId) -> Result<(), Skip> {
        let key = self.key(queue, &format!("t:{id}"));
        command(&["HSET", &key, "msg", "\u{1}garbage"]);
        Ok(())
    }
}

outlast_testkit::conformance!(RedisFixture::new());

#[test]
fn random_sequences_of_verbs_end_as_in_the_model() {
    random::check(40, || async { RedisFixture::new() });
}
