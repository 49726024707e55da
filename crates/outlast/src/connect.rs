//! From a URL to a broker: the only file that names the brokers there are.

use std::sync::Arc;

use outlast_core::{
    Broker, BrokerError, Enqueued, Fsck, Inspect, Login, NewTask, Porter, QueueName, Repair, Stamp,
};
use outlast_survive::{OnOutage, Survivor};

use crate::error::{Error, Result};
use crate::mask::mask;
use crate::survive::Survive;
use crate::{Client, Clock, Inspector};

/// A broker that was opened by its URL. Cheap to clone; clones share it.
///
/// | URL | broker |
/// |---|---|
/// | `sqlite://tasks.db`, `sqlite:///var/lib/app/tasks.db` | one file, shared by any number of processes |
/// | `sqlite::memory:` | the memory of this process, for tests |
/// | `redis://user:password@host:6379/0` | a Redis or Valkey server, shared with asynq's services |
/// | `rediss://host:6380/0?ca=ca.pem` | the same, encrypted; `cert` and `key` for a certificate of one's own |
/// | `redis+unix:///run/redis.sock?db=0` | the same, by its socket |
///
/// A Redis URL takes `?namespace=NAME` for keys of its own instead of asynq's, and `?password_file=FILE` for a password that
/// is read again for each connection.
#[derive(Clone)]
pub struct Connection {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) inspect: Arc<dyn Inspect>,
    pub(crate) clock: Clock,
    pub(crate) survivor: Option<Arc<Survivor>>,
    porter: Option<Arc<dyn Porter>>,
    url: Arc<str>,
    closer: Closer,
}

#[derive(Clone)]
enum Closer {
    #[cfg(feature = "sqlite")]
    Sqlite(outlast_sqlite::SqliteBroker),
    #[cfg(feature = "redis")]
    Redis(outlast_redis::RedisBroker),
    Nothing,
}

impl Connection {
    /// Opens the broker behind `url`, creating an embedded one that does not exist yet.
    ///
    /// The outages of a server are outlived: what it cannot take waits on this machine's disk, in a file that all processes of
    /// this user share ([`default_spool`](crate::survive::default_spool) says which), and it need not be there yet. For another file or other
    /// limits there is [`Connection::surviving`], for no file [`Connection::without_spool`]. An embedded broker needs no
    /// second file: what would fill, lock or break its disk would do the same to the one beside it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a URL that names no broker of this build, and
    /// [`ErrorKind::Spool`](crate::ErrorKind::Spool) if the file on this machine's disk cannot be used, with what can be done; of an
    /// embedded broker what it answers: its kind says whether it can be opened, read and written.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
    /// let connection = outlast::Connection::open("sqlite::memory:").await?;
    /// assert_eq!(connection.url(), "sqlite::memory:");
    /// # Ok(()) }
    /// ```
    pub async fn open(url: &str) -> Result<Self> {
        Self::builder(url).open().await
    }

    /// Opens the broker behind `url` so that its outages are outlived as this says: tasks that it cannot take are stored
    /// on this machine's disk, outcomes too, and both reach it when it is back. A server need not be there
    /// yet; a URL that is wrong is told at once all the same.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// As [`Connection::open`], and [`ErrorKind::Spool`](crate::ErrorKind::Spool) if the store on disk cannot
    /// be opened.
    ///
    /// ```
    /// use outlast::survive::Survive;
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let spool = folder.path().join("outbox.db");
    /// // Nobody listens there, and the task is safe all the same.
    /// let url = "redis://127.0.0.1:1";
    /// let connection = outlast::Connection::surviving(url, Survive::new(spool)).await?;
    /// let receipt = connection.client().enqueue(outlast::TaskRequest::raw("mail", "")).await?;
    /// assert_eq!(receipt.verdict, outlast::Verdict::Stored);
    /// # Ok(()) }
    /// ```
    pub async fn surviving(url: &str, survive: Survive) -> Result<Self> {
        Self::builder(url).survive(survive).open().await
    }

    /// Opens the broker behind `url` and keeps nothing on this machine's disk: while the broker is away, enqueues fail with its
    /// error. For programs that look and enqueue nothing, and for those that have a better place for a task than this disk.
    /// A server must answer now.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a URL that names no broker of this build, otherwise what the broker
    /// answers: its kind says whether it can be reached, read and written.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// // Nobody listens there.
    /// let error = outlast::Connection::without_spool("redis://127.0.0.1:1").await.unwrap_err();
    /// assert_eq!(error.kind(), outlast::ErrorKind::Broker(outlast::Kind::Unavailable));
    /// # }
    /// ```
    pub async fn without_spool(url: &str) -> Result<Self> {
        Self::builder(url).without_spool().open().await
    }

    /// The same connection, so that its outages are outlived; see [`Connection::surviving`]. The clock it has
    /// now is the one that counts.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Spool`](crate::ErrorKind::Spool) if the store on disk cannot be opened, or keeps what waits for another
    /// broker; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if this connection survives already.
    pub async fn survive(mut self, survive: Survive) -> Result<Self> {
        if let Some(survivor) = &self.survivor {
            let file = survivor.spool().path().display();
            return Err(Error::invalid(format!("{} survives already, by {file}", self.url)));
        }
        let name = self.place();
        let survivor = Arc::new(survive.wrap(self.broker, name, self.clock.clone()).await?);
        self.broker = survivor.broker();
        self.inspect = survivor.inspect(self.inspect);
        self.survivor = Some(survivor);
        Ok(self)
    }

    /// Where the broker's tasks are: the same for all URLs that lead there.
    fn place(&self) -> String {
        match &self.closer {
            #[cfg(feature = "redis")]
            Closer::Redis(broker) => broker.place(),
            #[cfg(feature = "sqlite")]
            Closer::Sqlite(broker) if &*self.url != "sqlite::memory:" => {
                broker.home(&QueueName::default_queue()).0.to_string()
            }
            _ => self.url.to_string(),
        }
    }

    /// What outlives the broker's outages, if this connection does: how it is, and what happens.
    #[must_use]
    pub fn survivor(&self) -> Option<&Survivor> {
        self.survivor.as_deref()
    }

    /// Enqueues as the caller wants it in an outage. Without a store on disk there is one answer: it fails.
    pub(crate) async fn enqueue(
        &self,
        on_outage: OnOutage,
        (queue, stamp): (&QueueName, Stamp),
        tasks: Arc<[NewTask]>,
    ) -> std::result::Result<Enqueued, BrokerError> {
        let now = self.clock.now();
        match &self.survivor {
            Some(survivor) => survivor.enqueue(on_outage, (queue, stamp), now, tasks).await,
            None => self.broker.enqueue(queue, stamp, now, tasks).await,
        }
    }

    /// Opens the broker itself, without what outlives its outages.
    pub(crate) async fn reach(url: &str, contact: Contact, login: Option<Login>) -> Result<Self> {
        #[cfg(not(feature = "redis"))]
        let _ = (contact, login);
        match scheme(url)? {
            #[cfg(feature = "sqlite")]
            Scheme::Sqlite(path) => open_sqlite(url, path).await,
            #[cfg(not(feature = "sqlite"))]
            Scheme::Sqlite(_) => Err(Error::invalid(format!(
                "broker {} needs the feature `sqlite`, which this build lacks",
                mask(url)
            ))),
            #[cfg(feature = "redis")]
            Scheme::Redis => open_redis(url, contact, login).await,
            #[cfg(not(feature = "redis"))]
            Scheme::Redis => Err(lacks_redis(url)),
        }
    }

    /// A connection to a broker of the caller's own making. `name` stands for its URL, and like one it is
    /// shown without a password.
    pub fn custom<B: Broker + Inspect>(name: &str, broker: B) -> Self {
        let broker = Arc::new(broker);
        Self::of_halves(name, broker.clone(), broker)
    }

    /// A connection whose two sides are different objects: for layers over a broker that leave the
    /// inspection as it is.
    pub fn of_halves(name: &str, broker: Arc<dyn Broker>, inspect: Arc<dyn Inspect>) -> Self {
        let (clock, url) = (Clock::system(), mask(name).into());
        Self { inspect, broker, clock, survivor: None, url, porter: None, closer: Closer::Nothing }
    }

    /// The same broker seen with another clock: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The same broker, which tasks can be moved from and to by this side of it.
    #[must_use]
    pub fn with_porter(mut self, porter: Arc<dyn Porter>) -> Self {
        self.porter = Some(porter);
        self
    }

    /// The side that tasks are moved by.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a broker that has none.
    pub fn porter(&self) -> Result<Arc<dyn Porter>> {
        self.porter.clone().ok_or_else(|| {
            Error::invalid(format!(
                "tasks of {} cannot be moved: it is not one of our brokers",
                self.url
            ))
        })
    }

    /// The broker's URL, without its password: fit to be shown and logged, not to be opened again.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The broker itself: its verbs, batch by batch, for layers of your own and for measuring.
    #[must_use]
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.broker.clone()
    }

    /// The clock that is asked for the time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Looks after the broker, with a probing write where it takes any.
    ///
    /// # Errors
    /// What the broker answers: its kind says whether it can be reached and written.
    pub async fn health(&self) -> Result<outlast_core::Health> {
        let home = self.broker.home(&QueueName::default_queue());
        Ok(self.broker.health(&home, self.clock.now()).await?)
    }

    /// A client with the default options.
    ///
    /// # Panics
    /// Outside a tokio runtime, like [`Client::new`].
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self)
    }

    /// The read-and-administer side.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self)
    }

    /// A check of what the broker holds of one queue, while it is in use.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a broker that checks itself.
    pub fn fsck(&self, queue: &QueueName, repair: Repair) -> Result<Box<dyn Fsck>> {
        #[cfg(not(feature = "redis"))]
        let _ = (queue, repair);
        match &self.closer {
            #[cfg(feature = "redis")]
            Closer::Redis(broker) => Ok(broker.fsck(queue, repair)),
            #[cfg(feature = "sqlite")]
            Closer::Sqlite(_) => Err(self.checks_itself()),
            Closer::Nothing => Err(self.checks_itself()),
        }
    }

    fn checks_itself(&self) -> Error {
        Error::invalid(format!(
            "the embedded broker checks itself: each change of {} is one transaction of SQLite, so that no \
             task can be half-way; fsck is for redis:// brokers",
            self.url
        ))
    }

    /// The queues that a check has to look at: those that are listed, and those that only have keys.
    ///
    /// # Errors
    /// As [`fsck`](Self::fsck), and what the broker answers.
    pub async fn fsck_queues(&self) -> Result<Vec<QueueName>> {
        match &self.closer {
            #[cfg(feature = "redis")]
            Closer::Redis(broker) => Ok(broker.fsck_queues().await?),
            #[cfg(feature = "sqlite")]
            Closer::Sqlite(_) => Err(self.checks_itself()),
            Closer::Nothing => Err(self.checks_itself()),
        }
    }

    /// Closes the broker: what was handed over is answered first. Workers and clients that still use it
    /// get [`Kind::Unavailable`](crate::Kind::Unavailable).
    pub async fn close(self) {
        if let Some(survivor) = &self.survivor {
            survivor.stop().await;
        }
        match self.closer {
            #[cfg(feature = "sqlite")]
            Closer::Sqlite(broker) => broker.close().await,
            #[cfg(feature = "redis")]
            Closer::Redis(broker) => broker.close(),
            Closer::Nothing => {}
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

/// Where the tasks behind a URL are, without asking there; `None` for an embedded broker.
pub(crate) fn place_of(url: &str) -> Result<Option<String>> {
    match scheme(url)? {
        Scheme::Sqlite(_) => Ok(None),
        #[cfg(feature = "redis")]
        Scheme::Redis => {
            let broker = outlast_redis::RedisBroker::new(url, outlast_redis::Options::default());
            Ok(Some(broker.map_err(cannot_use)?.place()))
        }
        #[cfg(not(feature = "redis"))]
        Scheme::Redis => Err(lacks_redis(url)),
    }
}

#[cfg(not(feature = "redis"))]
fn lacks_redis(url: &str) -> Error {
    Error::invalid(format!(
        "broker {} needs the feature `redis`, which this build lacks",
        mask(url)
    ))
}

/// When a server must have answered.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Contact {
    Now,
    Later,
}

enum Scheme<'a> {
    Sqlite(&'a str),
    Redis,
}

const REDIS_SCHEMES: [&str; 3] = ["redis://", "rediss://", "redis+unix://"];

fn scheme(url: &str) -> Result<Scheme<'_>> {
    if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
        if path.is_empty() {
            return Err(Error::invalid(format!(
                "broker {url:?} names no file: write sqlite://tasks.db or sqlite::memory:"
            )));
        }
        // SQLite's own URLs have options there; here it would become part of the file's name.
        if let Some((path, _)) = path.split_once('?') {
            return Err(Error::invalid(format!(
                "broker {:?} has options after `?`, and an embedded broker takes none: write \
                 sqlite://{path}, a file that does not exist is created",
                mask(url)
            )));
        }
        return Ok(Scheme::Sqlite(path));
    }
    if REDIS_SCHEMES.iter().any(|scheme| url.starts_with(scheme)) {
        return Ok(Scheme::Redis);
    }
    Err(Error::invalid(format!(
        "broker {:?} is of no known kind: write sqlite://PATH, sqlite::memory: or redis://HOST:PORT",
        mask(url)
    )))
}

#[cfg(feature = "sqlite")]
async fn open_sqlite(url: &str, path: &str) -> Result<Connection> {
    let opened = match path {
        ":memory:" => tokio::task::spawn_blocking(outlast_sqlite::SqliteBroker::memory).await,
        path => {
            let path = std::path::PathBuf::from(path);
            let open = move || {
                outlast_sqlite::SqliteBroker::open(path, outlast_sqlite::Options::default())
            };
            tokio::task::spawn_blocking(open).await
        }
    };
    let broker = opened.map_err(|_| {
        Error::stopped(format!("the runtime was shut down while {} was opened", mask(url)))
    })??;
    Ok(Connection {
        closer: Closer::Sqlite(broker.clone()),
        porter: Some(Arc::new(broker.clone())),
        ..Connection::custom(&mask(url), broker)
    })
}

#[cfg(feature = "redis")]
async fn open_redis(url: &str, contact: Contact, login: Option<Login>) -> Result<Connection> {
    let mut options = outlast_redis::Options::default();
    options.login = login;
    let opened = match contact {
        Contact::Now => outlast_redis::RedisBroker::open(url, options).await,
        Contact::Later => outlast_redis::RedisBroker::new(url, options),
    };
    let broker = opened.map_err(cannot_use)?;
    Ok(Connection {
        closer: Closer::Redis(broker.clone()),
        porter: Some(Arc::new(broker.clone())),
        ..Connection::custom(&mask(url), broker)
    })
}

#[cfg(feature = "redis")]
fn cannot_use(error: BrokerError) -> Error {
    match error.kind() {
        // The URL itself is wrong: nothing was asked of a server yet.
        outlast_core::Kind::Rejected => Error::invalid(error.to_string()),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn options_in_the_url_of_an_embedded_broker_are_refused() {
        // They became part of the name of a file that nobody meant.
        for url in ["sqlite://tasks.db?mode=rwc", "sqlite:tasks.db?", "sqlite::memory:?x=1"] {
            let error = Connection::open(url).await.expect_err(url);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains("has options after `?`"), "{error}");
        }
    }

    #[test]
    fn the_name_of_a_custom_broker_is_shown_without_its_password() {
        let broker = outlast_testkit::model::ModelBroker::new(1000);
        let connection = Connection::custom("redis://user:pw@host", broker);
        assert_eq!(connection.url(), "redis://user:***@host");
    }

    #[tokio::test]
    async fn urls_of_no_broker_are_refused_by_name() {
        let of_redis = ["redis://u:pw@h/x", "redis://u:pw@h?colour=red", "rediss://u:pw@h?cert=x"];
        let of_none = ["", "tasks.db", "mysql://root:pw@h/db", "sqlite://", "sqlite:"];
        for url in of_none.into_iter().chain(of_redis) {
            let error = Connection::open(url).await.expect_err(url);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{url}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }
}
