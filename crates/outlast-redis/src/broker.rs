//! The broker: its connections, what it remembers between calls, and the verbs, each in a file of its own.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::limits::SESSION_TTL;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Extended, GroupLooks, Health, Hold,
    Home, Interest, Login, NewTask, QueueName, Settled, Settlement, Stamp, SweepBudget, Swept,
    TaskId, Timestamp, Want, Woke,
};

use crate::address::Address;
use crate::beat::Presence;
use crate::conn::{Call, Class, Server};
use crate::held::HeldLeases;
use crate::hub::Hub;
use crate::keys::Root;
use crate::link::{Link, PushHandler};
use crate::patience::LongAnswers;
use crate::session::Renewals;
use crate::wait::Crowd;

/// What can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// Archived tasks a queue keeps (asynq's 10,000, contract §3.0): the oldest make room.
    pub archive_max: usize,
    /// Where credentials come from, if not from the URL.
    pub login: Option<Login>,
}

impl Default for Options {
    fn default() -> Self {
        Self { archive_max: 10_000, login: None }
    }
}

impl Options {
    /// Sets [`Options::archive_max`].
    #[must_use]
    pub fn archive_max(mut self, archive_max: usize) -> Self {
        self.archive_max = archive_max;
        self
    }

    /// Sets [`Options::login`]: its user and password come before those of the URL.
    #[must_use]
    pub fn login(mut self, login: Login) -> Self {
        self.login = Some(login);
        self
    }
}

/// A broker on one Redis or Valkey server. Cheap to clone; clones share its connections.
#[derive(Clone)]
pub struct RedisBroker {
    pub(crate) inner: Arc<Inner>,
}

/// What all handles of a broker share.
pub(crate) struct Inner {
    /// Asked for several times a call: made once.
    home: Home,
    pub(crate) root: Root,
    pub(crate) options: Options,
    pub(crate) server: Arc<Server>,
    pub(crate) produce: Link,
    pub(crate) consume: Link,
    pub(crate) admin: Link,
    pub(crate) probe: Link,
    pub(crate) renewals: Renewals,
    pub(crate) held: HeldLeases,
    pub(crate) long_answers: LongAnswers,
    pub(crate) watch: Link,
    pub(crate) hub: Hub,
    pub(crate) group_looks: GroupLooks,
    pub(crate) crowd: Crowd,
    pub(crate) presence: Presence,
}

impl RedisBroker {
    /// A broker on the server of `url` (`redis://`, `rediss://`, `redis+unix://`; see the crate's page). Does
    /// not connect: the first call does.
    ///
    /// # Errors
    /// [`Kind::Rejected`](outlast_core::Kind::Rejected) for a URL that cannot be used, without its password.
    pub fn new(url: &str, options: Options) -> Result<Self, BrokerError> {
        let mut address = Address::parse(url)?;
        if let Some(login) = &options.login {
            address.login = Some(login.clone());
        }
        let root = address.root.clone();
        let server = Arc::new(Server::new(address)?);
        let link = |class| Link::new(server.clone(), class);
        let inner = Arc::new_cyclic(|inner: &Weak<Inner>| Inner {
            home: Home(server.shown().into()),
            produce: link(Class::Produce),
            consume: link(Class::Consume),
            admin: link(Class::Admin),
            probe: link(Class::Probe),
            watch: Link::watching(server.clone(), root.global("cancel"), told(inner.clone())),
            renewals: Renewals::default(),
            held: HeldLeases::default(),
            long_answers: LongAnswers::default(),
            hub: Hub::new(),
            group_looks: GroupLooks::default(),
            crowd: Crowd::default(),
            presence: Presence::default(),
            server: server.clone(),
            root,
            options,
        });
        Ok(Self { inner })
    }

    /// A broker whose server has answered. Where the server may evict keys when its memory is full, the log says
    /// so, with the remedy.
    ///
    /// # Errors
    /// As [`RedisBroker::new`], and what the server or the network answers: its kind says whether it can be
    /// reached, let in and used.
    pub async fn open(url: &str, options: Options) -> Result<Self, BrokerError> {
        let broker = Self::new(url, options)?;
        broker.inner.admin.about().await?;
        broker.inner.warn_of_eviction().await;
        Ok(broker)
    }

    /// The server's URL without its password.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.inner.server.shown()
    }

    /// Where the tasks are: server, database and namespace, without who asks for them. Two URLs with one place lead to the
    /// same tasks.
    #[must_use]
    pub fn place(&self) -> String {
        self.inner.server.place()
    }

    /// Closes the connections. What is under way is still answered.
    pub fn close(&self) {
        self.inner.close();
    }
}

impl std::fmt::Debug for RedisBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisBroker").field("server", &self.shown()).finish_non_exhaustive()
    }
}

/// What is done with messages that nobody asked for.
fn told(inner: Weak<Inner>) -> PushHandler {
    Arc::new(move |push| {
        let Some(inner) = inner.upgrade() else { return };
        let Some(id) = inner.hub.take(&inner.root, &push) else { return };
        let id = TaskId::stored(&id);
        if !inner.held.find(&id).is_empty() {
            // At most one for each task that runs here.
            tokio::spawn(async move { inner.cancel_asked(id).await });
        }
    })
}

impl Inner {
    fn close(&self) {
        for link in [&self.produce, &self.consume, &self.admin, &self.probe, &self.watch] {
            link.close();
        }
    }

    /// The arguments that `session.lua` takes.
    pub(crate) fn add_stamp(
        &self,
        call: &mut Call,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
    ) {
        call.int(i64::from(stamp.lane)).text(stamp.seq.to_string());
        let seconds = SESSION_TTL.as_secs().cast_signed();
        let is_due = self.renewals.is_due(queue, &stamp, now);
        call.int(if is_due { seconds } else { -seconds });
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let answer = self.inner.enqueue(queue, stamp, now, tasks).await;
        self.inner.hub.used(queue);
        answer
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        let answer = self.inner.claim(queue, stamp, now, want).await;
        if !answer.as_ref().is_ok_and(|claims| claims.claims.is_empty()) {
            self.inner.hub.used(queue);
        }
        answer
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let answer = self.inner.settle(queue, stamp, now, settlements).await;
        self.inner.hub.used(queue);
        answer
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        let answer = self.inner.extend(queue, now, holds, by).await;
        self.inner.hub.used(queue);
        answer
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        self.inner.sweep(queue, now, budget).await
    }

    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        self.inner.wait(interest, now, at_most).await
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        self.inner.beat(now, beat).await
    }

    fn home(&self, _queue: &QueueName) -> Home {
        self.inner.home.clone()
    }

    async fn health(&self, _home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        self.inner.health(now).await
    }
}
