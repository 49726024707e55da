//! Holding leases longer.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::limits::check_batch;
use outlast_core::{BrokerError, Extended, Hold, QueueName, Timestamp};

use crate::answer;
use crate::broker::Inner;
use crate::conn::Call;
use crate::record::seconds_text;
use crate::scripts::EXTEND;

impl Inner {
    pub(crate) async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        check_batch("batch of holds", holds.len())?;
        if holds.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.root.queue(queue);
        let until = now.plus(by);
        let mut call = Call::new(&EXTEND, vec![keys.key("lease"), keys.key("aggregation_sets")]);
        call.text(keys.prefix()).text(seconds_text(until));
        for Hold { lease, result } in holds.iter() {
            call.text(lease.id.as_str()).int(i64::from(lease.token.get()));
            call.fixed(if result.is_some() { "1" } else { "" });
            call.bytes(result.clone().unwrap_or_default());
        }
        let held = answer::list(self.consume.script(&call).await?)?;
        let until = Timestamp::from_seconds(until.as_seconds());
        let each = held.into_iter().map(|held| {
            Ok(if answer::int(held)? == 1 { Extended::Until(until) } else { Extended::Lost })
        });
        each.collect()
    }
}
