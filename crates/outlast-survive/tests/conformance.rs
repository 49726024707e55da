//! A wrapped broker that is well is the broker it wraps: the common suite, over the embedded broker and all
//! layers. What the layers do while it fails is in `tests/it/`.

use std::sync::Arc;

use async_trait::async_trait;
use outlast_core::{Broker, Inspect, Timestamp};
use outlast_sqlite::SqliteBroker;
use outlast_survive::{Clock, Config, Survivor, wrap};
use outlast_testkit::conformance::{Fixture, t};
use tempfile::TempDir;

struct Wrapped {
    survivor: Survivor,
    broker: SqliteBroker,
    _folder: TempDir,
}

impl Wrapped {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = SqliteBroker::memory().expect("opens");
        let clock = Clock::new(|| -> Timestamp { t(0) });
        let mut config = Config::new(folder.path().join("spool.db"), clock);
        // The suite asks at once for what has expired.
        config.grace = std::time::Duration::ZERO;
        let survivor = wrap(Arc::new(broker.clone()), config).expect("the spool opens");
        Self { survivor, broker, _folder: folder }
    }
}

#[async_trait]
impl Fixture for Wrapped {
    fn broker(&self) -> Arc<dyn Broker> {
        self.survivor.broker()
    }

    fn inspect(&self) -> Arc<dyn Inspect> {
        Arc::new(self.broker.clone())
    }
}

outlast_testkit::conformance!(Wrapped::new());
