//! Signs of life of workers and schedulers.

use outlast_core::{Beat, BeatReply, BrokerError, Timestamp};

use crate::broker::Inner;

impl Inner {
    pub(crate) async fn beat(&self, _: Timestamp, _: &Beat) -> Result<BeatReply, BrokerError> {
        Err(BrokerError::rejected("beats are being written"))
    }
}
