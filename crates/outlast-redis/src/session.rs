//! When the record of a session has to be kept alive for another day: known to the client, so that a batch
//! costs the server no extra command.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use outlast_core::{QueueName, SessionId, Stamp, Timestamp};

/// A record is renewed by the first batch after this long: well within its day.
const RENEW_AFTER: Duration = Duration::from_secs(3600);

/// Sessions whose renewal is remembered. One that was forgotten is renewed once more.
const SESSIONS_MAX: usize = 10_000;

type Key = (QueueName, SessionId);

#[derive(Debug, Default)]
pub(crate) struct Renewals(Mutex<HashMap<Key, Timestamp>>);

impl Renewals {
    /// True if the batch should keep its session's record alive; else it is young enough.
    pub(crate) fn is_due(&self, queue: &QueueName, stamp: &Stamp, now: Timestamp) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = known.get(&(queue.clone(), stamp.session));
        !last.is_some_and(|at| *at <= now && now.since(*at) < RENEW_AFTER)
    }

    /// A batch with a record was applied, and kept it alive. (A repeat does not: it writes nothing.)
    pub(crate) fn renewed(&self, queue: &QueueName, stamp: &Stamp, now: Timestamp) {
        // One that was young when it was sent asked for no renewal: its record is as old as before.
        if !self.is_due(queue, stamp, now) {
            return;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SESSIONS_MAX {
            known.clear();
        }
        known.insert((queue.clone(), stamp.session), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_core::Durability;

    /// The record of a busy session was never renewed: each batch moved the moment of the last renewal.
    #[test]
    fn a_busy_session_is_renewed_every_hour() {
        let (renewals, queue) = (Renewals::default(), QueueName::default_queue());
        let session = SessionId(7);
        let mut renewed = 0;
        for nth in 0..20 {
            let stamp = Stamp { session, lane: 0, seq: nth + 1, durability: Durability::Accepted };
            let now = Timestamp::from_seconds(1800 * i64::try_from(nth).expect("a few batches"));
            renewed += usize::from(renewals.is_due(&queue, &stamp, now));
            renewals.renewed(&queue, &stamp, now);
        }
        assert_eq!(renewed, 10, "every second batch of those that come every half hour");
    }
}
