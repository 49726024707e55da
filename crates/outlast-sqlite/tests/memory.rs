//! The common suite on a broker in memory: it is what users test with, so it must behave like a file.

use std::sync::Arc;

use async_trait::async_trait;
use outlast_core::{Broker, Inspect, Porter};
use outlast_sqlite::{Options, SqliteBroker};
use outlast_testkit::conformance::{Differences, Fixture, Skip};

struct MemoryFixture(SqliteBroker);

#[async_trait]
impl Fixture for MemoryFixture {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.0.clone())
    }

    fn inspect(&self) -> Arc<dyn Inspect> {
        Arc::new(self.0.clone())
    }

    fn porter(&self) -> Result<Arc<dyn Porter>, Skip> {
        Ok(Arc::new(self.0.clone()))
    }

    fn other(&self) -> Result<Box<dyn Fixture>, Skip> {
        Ok(Box::new(MemoryFixture(SqliteBroker::memory().expect("memory is there"))))
    }

    fn differences(&self) -> Differences {
        Differences { archive_max: Options::default().archive_max, ..Differences::default() }
    }
}

outlast_testkit::conformance!(MemoryFixture(SqliteBroker::memory().expect("memory is there")));
