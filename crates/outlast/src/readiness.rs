//! May work be sent to this process? What a health endpoint answers: well, *degraded but safe*, or dead.

use std::fmt;
use std::time::Duration;

use outlast_core::{Role, Timestamp};
use tokio::time::timeout;

use crate::survive::Survivor;
use crate::{Connection, Error, ErrorKind, Kind};

/// How long the broker may take to answer: whoever asks for readiness gives up after a second by habit.
const ANSWER_MAX: Duration = Duration::from_millis(800);

/// Whether a process may be sent work.
#[derive(Clone, Debug)]
pub enum Readiness {
    /// The broker takes tasks.
    Ready,
    /// The broker does not, and nothing is lost: tasks and outcomes wait on this machine's disk.
    Degraded {
        /// Since when the broker is away; now, if this question was the first to notice.
        since: Timestamp,
        /// What it answers, or that it does not.
        reason: String,
        /// Tasks that wait, of all processes that share the file.
        stored: u64,
    },
    /// Tasks would be refused.
    Dead {
        /// What they would be refused with.
        why: Error,
    },
}

impl Readiness {
    /// True unless tasks would be refused: what an orchestrator should look at, because a process that is
    /// taken away for being degraded helps nobody.
    #[must_use]
    pub fn is_safe(&self) -> bool {
        match self {
            Readiness::Ready | Readiness::Degraded { .. } => true,
            Readiness::Dead { .. } => false,
        }
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Readiness::Ready => f.write_str("ready"),
            Readiness::Degraded { since, reason, stored } => {
                write!(f, "degraded since {since}, {stored} tasks stored: {reason}")
            }
            Readiness::Dead { why } => write!(f, "dead: {why}"),
        }
    }
}

impl Connection {
    /// Whether this process may be sent work. A broker that is known to be away is not asked; any other one is,
    /// by a probing write, and so is the store on disk while it is needed. Answers within a second, unless the
    /// disk does not. Safe to drop.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
    /// use outlast::{Connection, Readiness};
    /// let connection = Connection::open("sqlite::memory:").await?;
    /// let readiness = connection.readiness().await;
    /// let status = if readiness.is_safe() { 200 } else { 503 };
    /// assert!(matches!(readiness, Readiness::Ready) && status == 200);
    /// # Ok(()) }
    /// ```
    pub async fn readiness(&self) -> Readiness {
        let known = self.survivor().and_then(known_outage);
        let (since, broker) = match known {
            Some((since, reason)) => {
                (since, Error::new(ErrorKind::Broker(Kind::Unavailable), reason))
            }
            None => match self.answers().await {
                Ok(()) => return Readiness::Ready,
                Err(error) => (self.clock().now(), error),
            },
        };
        let Some(survivor) = self.survivor() else { return Readiness::Dead { why: broker } };
        let stored = match survivor.spool().check().await {
            Ok(()) => survivor.status().map(|status| status.outbox.items),
            Err(error) => Err(error),
        };
        match stored {
            Ok(stored) => Readiness::Degraded { since, reason: broker.to_string(), stored },
            Err(error) => Readiness::Dead { why: error.into() },
        }
    }

    /// A broker that may only be read takes no tasks, and neither does one that is full.
    async fn answers(&self) -> Result<(), Error> {
        let unavailable = |what: String| Error::new(ErrorKind::Broker(Kind::Unavailable), what);
        match timeout(ANSWER_MAX, self.health()).await {
            Ok(Ok(health)) if health.memory.is_full => {
                Err(unavailable(format!("{} has no memory for new tasks", self.url())))
            }
            Ok(Ok(health)) if health.role == Role::Primary => Ok(()),
            Ok(Ok(_)) => Err(unavailable(format!("{} takes no writes", self.url()))),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let ms = ANSWER_MAX.as_millis();
                Err(unavailable(format!("{} did not answer within {ms} ms", self.url())))
            }
        }
    }
}

/// Since when a home is away, and why: of several the one that went first.
fn known_outage(survivor: &Survivor) -> Option<(Timestamp, String)> {
    let outages = survivor.homes().into_iter().filter_map(|home| home.outage);
    let first = outages.min_by_key(|outage| outage.since)?;
    Some((first.since, first.reason))
}
