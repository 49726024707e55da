//! How a server is.

use outlast_core::{BrokerError, Health, Timestamp};

use crate::broker::Inner;

impl Inner {
    pub(crate) async fn health(&self, _: Timestamp) -> Result<Health, BrokerError> {
        Err(BrokerError::rejected("health is being written"))
    }
}
