//! From a URL to a broker: the only file that names the brokers there are.

use std::sync::Arc;

use outlast_core::{Broker, Inspect};

use crate::error::{Error, Result};
use crate::{Client, Clock, Inspector};

/// A broker that was opened by its URL. Cheap to clone; clones share it.
///
/// | URL | broker |
/// |---|---|
/// | `sqlite://tasks.db`, `sqlite:///var/lib/app/tasks.db` | one file, shared by any number of processes |
/// | `sqlite::memory:` | the memory of this process, for tests |
#[derive(Clone)]
pub struct Connection {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) inspect: Arc<dyn Inspect>,
    pub(crate) clock: Clock,
    url: Arc<str>,
    closer: Closer,
}

#[derive(Clone)]
enum Closer {
    #[cfg(feature = "sqlite")]
    Sqlite(outlast_sqlite::SqliteBroker),
    Nothing,
}

impl Connection {
    /// Opens the broker behind `url`, creating an embedded one that does not exist yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a URL that names no broker of this build, otherwise what the broker
    /// answers: its kind says whether it can be reached, read and written.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
    /// let connection = outlast::Connection::open("sqlite::memory:").await?;
    /// assert_eq!(connection.url(), "sqlite::memory:");
    /// # Ok(()) }
    /// ```
    pub async fn open(url: &str) -> Result<Self> {
        match scheme(url)? {
            #[cfg(feature = "sqlite")]
            Scheme::Sqlite(path) => open_sqlite(url, path).await,
            #[cfg(not(feature = "sqlite"))]
            Scheme::Sqlite(_) => Err(Error::invalid(format!(
                "broker {} needs the feature `sqlite`, which this build lacks",
                mask(url)
            ))),
        }
    }

    /// A connection to a broker of the caller's own making. `name` stands for its URL.
    pub fn custom<B: Broker + Inspect>(name: &str, broker: B) -> Self {
        let broker = Arc::new(broker);
        Self::of_halves(name, broker.clone(), broker)
    }

    /// A connection whose two sides are different objects: for layers over a broker that leave the
    /// inspection as it is.
    pub fn of_halves(name: &str, broker: Arc<dyn Broker>, inspect: Arc<dyn Inspect>) -> Self {
        Self { inspect, broker, clock: Clock::system(), url: name.into(), closer: Closer::Nothing }
    }

    /// The same broker seen with another clock: for tests.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The broker's URL, without its password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The clock that is asked for the time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// A client with the default options.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self)
    }

    /// The read-and-administer side.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::new(self)
    }

    /// Closes the broker: what was handed over is answered first. Workers and clients that still use it
    /// get [`Kind::Unavailable`](crate::Kind::Unavailable).
    pub async fn close(self) {
        match self.closer {
            #[cfg(feature = "sqlite")]
            Closer::Sqlite(broker) => broker.close().await,
            Closer::Nothing => {}
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("url", &self.url).finish_non_exhaustive()
    }
}

enum Scheme<'a> {
    Sqlite(&'a str),
}

fn scheme(url: &str) -> Result<Scheme<'_>> {
    if let Some(path) = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")) {
        if path.is_empty() {
            return Err(Error::invalid(format!(
                "broker {url:?} names no file: write sqlite://tasks.db or sqlite::memory:"
            )));
        }
        return Ok(Scheme::Sqlite(path));
    }
    Err(Error::invalid(format!(
        "broker {:?} is of no known kind: write sqlite://PATH or sqlite::memory:",
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
        Error::stopped(format!("the runtime was shut down while {url} was opened"))
    })??;
    Ok(Connection {
        closer: Closer::Sqlite(broker.clone()),
        ..Connection::custom(&mask(url), broker)
    })
}

/// The URL with its user info's password replaced by stars, fit for logs and errors.
#[must_use]
pub(crate) fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    match authority.rsplit_once('@') {
        None => url.to_owned(),
        Some((user, host)) => {
            let user = user.split_once(':').map_or("", |(user, _)| user);
            format!("{scheme}://{user}{}***@{host}{path}", if user.is_empty() { "" } else { ":" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_and_nothing_else() {
        let cases = [
            ("sqlite://tasks.db", "sqlite://tasks.db"),
            ("redis://:secret@10.0.0.7:6379/0", "redis://***@10.0.0.7:6379/0"),
            ("redis://queue:s@cret@host", "redis://queue:***@host"),
            ("redis://host/0?x=a@b", "redis://host/0?x=a@b"),
            ("redis://secret@host", "redis://***@host"),
        ];
        for (url, masked) in cases {
            assert_eq!(mask(url), masked);
        }
    }

    #[tokio::test]
    async fn urls_of_no_broker_are_refused_by_name() {
        for url in ["", "tasks.db", "mysql://root:pw@h/db", "sqlite://", "sqlite:"] {
            let error = Connection::open(url).await.expect_err(url);
            assert_eq!(error.kind(), crate::ErrorKind::Invalid, "{url}");
            assert!(!error.to_string().contains("pw"), "{error}");
        }
    }
}
