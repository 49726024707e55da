//! Waiting for work.

use std::time::Duration;

use outlast_core::{BrokerError, Interest, Timestamp, Woke};

use crate::broker::Inner;

impl Inner {
    pub(crate) async fn wait(
        &self,
        _: &Interest,
        _: Timestamp,
        _: Duration,
    ) -> Result<Woke, BrokerError> {
        Err(BrokerError::rejected("waiting is being written"))
    }
}
