//! How a connection outlives the outages of its broker, and how that looks from outside.

mod place;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::Broker;

pub use outlast_survive::{
    CircuitState, Counts, Event, HomeStatus, JournalMode, LedgerLimits, Metric, MetricKind,
    Metrics, NotStored, Notice, OnOutage, Outage, Quarantined, Sample, Shelf, Spool, SpoolError,
    SpoolErrorKind, SpoolLimits, Status, Store, Stored, StoredTask, Survivor, Waiting, Watermark,
    WhenFull,
};

use crate::Clock;
use crate::error::{Error, Result};

pub use place::default_spool;

/// What a connection needs to outlive outages: a file, and limits for it. By default the file is the one that
/// [`default_spool`] says, which is made with its folder.
#[derive(Clone, Debug, Default)]
pub struct Survive {
    /// Unless somebody names one it is the broker's.
    spool: Option<PathBuf>,
    broker: Option<String>,
    limits: SpoolLimits,
    journal: JournalMode,
    ledger: LedgerLimits,
    patience: Option<Duration>,
    watermark: Option<Watermark>,
}

impl Survive {
    /// Keeps what the broker cannot take in this file, which all processes of a machine share that use the
    /// same broker. Its folder must exist.
    #[must_use]
    pub fn new(spool: impl Into<PathBuf>) -> Self {
        Self { spool: Some(spool.into()), ..Self::default() }
    }

    /// What the file calls the broker: what was stored under one name is delivered under no other. Unless set it says where
    /// the tasks are (`10.0.0.7:6379/0 asynq`: server, database, namespace). For a server that has moved with its data, or is
    /// reached under several names: what all its processes call it.
    #[must_use]
    pub fn broker_name(mut self, name: impl Into<String>) -> Self {
        self.broker = Some(name.into());
        self
    }

    /// How large the file may become, and what happens then: a million items, a gigabyte and a week unless
    /// set, and what is beyond is refused.
    #[must_use]
    pub fn limits(mut self, limits: SpoolLimits) -> Self {
        self.limits = limits;
        self
    }

    /// When outcomes of runs are journaled: only when the broker does not take them, unless set.
    #[must_use]
    pub fn journal(mut self, mode: JournalMode) -> Self {
        self.journal = mode;
        self
    }

    /// How long what the broker has acknowledged is kept in memory, to be offered again if the broker forgets it: 30 s unless
    /// set. At least as long as a failover takes.
    #[must_use]
    pub fn keep_for(mut self, time: Duration) -> Self {
        self.ledger.keep_for = time;
        self
    }

    /// How many bytes of that are kept at most: 16 MiB unless set. The oldest goes first.
    #[must_use]
    pub fn keep_bytes(mut self, bytes: usize) -> Self {
        self.ledger.bytes_max = bytes;
        self
    }

    /// How long an enqueue waits for the broker before it is stored: 250 ms unless set.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Holds tasks of the less important queues back on the disk while the broker's memory fills up, so that what is left is
    /// there for the others. Costs one command every five seconds in which something is enqueued.
    ///
    /// ```
    /// use outlast::QueueName;
    /// use outlast::survive::{Survive, Watermark};
    /// # fn names() -> Result<(), Box<dyn std::error::Error>> {
    /// let weights = [(QueueName::new("critical")?, 6), (QueueName::new("reports")?, 1)];
    /// let spool = Survive::new("/var/lib/app/outbox.db").watermark(Watermark::new(weights));
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn watermark(mut self, watermark: Watermark) -> Self {
        self.watermark = Some(watermark);
        self
    }

    pub(crate) async fn wrap(
        self,
        broker: Arc<dyn Broker>,
        place: String,
        clock: Clock,
    ) -> Result<Survivor> {
        let clock = outlast_survive::Clock::new(move || clock.now());
        let env = |name: &str| std::env::var_os(name);
        let named = self.spool.or_else(|| place::named(env));
        let is_named = named.is_some();
        let spool = named.map_or_else(|| place::in_state_folder(&place, env), Ok)?;
        let mut config = outlast_survive::Config::new(spool, clock);
        config.broker = Some(self.broker.unwrap_or(place));
        (config.limits, config.journal) = (self.limits, self.journal);
        config.ledger = self.ledger;
        config.patience = self.patience.unwrap_or(config.patience);
        config.watermark = self.watermark;
        let runtime = tokio::runtime::Handle::current();
        let wrapped = tokio::task::spawn_blocking(move || {
            let _entered = runtime.enter();
            if is_named {
                return Ok(outlast_survive::wrap(broker, config)?);
            }
            place::make_folder(&config.spool)?;
            outlast_survive::wrap(broker, config).map_err(|error| place::remedied(error.into()))
        });
        let stopped = |_| Error::stopped("the runtime was shut down while the spool was opened");
        wrapped.await.map_err(stopped)?
    }
}
