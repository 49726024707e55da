//! What a broker brings to the suite: itself in a fresh namespace, and its real differences as data.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{Broker, Inspect, Kind, Porter, QueueName, TaskId};

/// A fresh broker that nobody else uses: a namespace, a file, a prefix of its own. Dropped at the end of
/// the case.
#[async_trait]
pub trait Fixture: Send + Sync + 'static {
    /// The broker. Every call gives the same one.
    fn broker(&self) -> Arc<dyn Broker>;

    /// The other side of the same broker.
    fn inspect(&self) -> Arc<dyn Inspect>;

    /// How the broker really differs from others.
    fn differences(&self) -> Differences {
        Differences::default()
    }

    /// The side that moves tasks.
    fn porter(&self) -> Result<Arc<dyn Porter>, Skip> {
        Err(Skip("the fixture cannot move tasks".into()))
    }

    /// A fixture of the same kind, as fresh as this one.
    fn other(&self) -> Result<Box<dyn Fixture>, Skip> {
        Err(Skip("the fixture has no other of its kind".into()))
    }

    /// Another connection to the same data, as another process would have.
    async fn second_handle(&self) -> Result<Handle, Skip> {
        Err(Skip("the fixture has no second handle".into()))
    }

    /// A broker of this kind, in the same or in another namespace, that answers its next enqueue with an
    /// error of `kind`.
    async fn provoke(&self, kind: Kind) -> Result<Provoked, Skip> {
        Err(Skip(format!("the fixture cannot provoke {kind}")))
    }

    /// Makes the stored record of this task unreadable, as a disk or a foreign program might.
    async fn corrupt(&self, queue: &QueueName, id: &TaskId) -> Result<(), Skip> {
        Err(Skip(format!("the fixture cannot make {id} in {queue} unreadable")))
    }
}

/// A connection to a broker.
#[derive(Clone)]
pub struct Handle {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// Its other side.
    pub inspect: Arc<dyn Inspect>,
}

/// A broker that is about to fail.
pub struct Provoked {
    /// Where the next enqueue fails.
    pub handle: Handle,
    /// Ends the trouble, so that the same call succeeds; `None` if that cannot be done.
    pub heal: Option<Box<dyn FnOnce() + Send>>,
    /// Whatever keeps the trouble alive until the case is over.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// Why a case cannot be run on this fixture.
#[derive(Clone, Debug)]
pub struct Skip(pub String);

/// How brokers really differ.
#[derive(Clone, Debug)]
pub struct Differences {
    /// The finest step of time that is stored: two moments closer than this are the same.
    pub time_resolution: Duration,
    /// How many archived tasks a queue keeps. Fixtures configure a small number; cases about the limit
    /// are skipped above 100.
    pub archive_max: usize,
    /// Who counts the lives of locks, `once` keys and signs of life.
    pub ttl_clock: TtlClock,
}

impl Default for Differences {
    fn default() -> Self {
        Self {
            time_resolution: Duration::from_millis(1),
            archive_max: 10_000,
            ttl_clock: TtlClock::Argument,
        }
    }
}

/// Who counts times to live (law L7 exempts those that a server counts).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtlClock {
    /// The `now` of the calls: a case can let them end.
    Argument,
    /// The server: a case would have to wait, so it is skipped.
    Server,
}
