//! How long an answer may take: its class's patience, and the time that bytes need on a slow link.
//!
//! Requests and answers follow one another on a connection, so what counts is all that is under way on it. How large a request
//! is, we know; how large an answer will be, we learn: a claim whose answer did not come in time expects a larger one when it
//! is repeated, so that a large task on a slow link is not claimed in vain for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outlast_core::limits::{BATCH_BYTES_MAX, PAYLOAD_BYTES_MAX};
use outlast_core::{SessionId, Stamp};

/// The slowest link that is waited for: 2 Mbit/s. On a slower one, payloads near the limits are not carried.
const BYTES_A_SECOND_MIN: usize = 256 * 1024;

/// The largest answer that is expected: a task of the greatest size, and what else a batch may hold.
const ANSWER_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + BATCH_BYTES_MAX;

/// Lanes whose large answers are remembered. One that is forgotten begins anew.
const LANES_MAX: usize = 1000;

/// The time that so many bytes may take.
fn time_for(bytes: usize) -> Duration {
    Duration::from_millis(u64::try_from(bytes / (BYTES_A_SECOND_MIN / 1000)).unwrap_or(u64::MAX))
}

/// The bytes under way on one connection, there and back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Load(Arc<AtomicUsize>);

/// Bytes that are under way until this is dropped.
#[derive(Debug)]
pub(crate) struct Loaded(Load, usize);

impl Load {
    pub(crate) fn add(&self, bytes: usize) -> Loaded {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Loaded(self.clone(), bytes)
    }

    /// What an answer may take now, of a class that has this patience with an idle connection.
    pub(crate) fn patience(&self, class: Duration) -> Duration {
        class + time_for(self.0.load(Ordering::Relaxed))
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::Relaxed);
    }
}

/// The lanes whose last batch got no answer in time, with the bytes that its answer may have when it is sent again.
#[derive(Debug, Default)]
pub(crate) struct LongAnswers(Mutex<HashMap<(SessionId, u16), (u64, usize)>>);

impl LongAnswers {
    /// The bytes that the answer to this batch may have; zero unless it was sent before, in vain.
    pub(crate) fn expected(&self, stamp: Stamp) -> usize {
        let lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.get(&(stamp.session, stamp.lane));
        lane.filter(|(seq, _)| *seq == stamp.seq).map_or(0, |(_, bytes)| *bytes)
    }

    /// No answer came: the next time it may be twice as large.
    pub(crate) fn missed(&self, stamp: Stamp) {
        let bytes = (2 * self.expected(stamp)).clamp(2 * BATCH_BYTES_MAX, ANSWER_BYTES_MAX);
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= LANES_MAX {
            lanes.clear();
        }
        lanes.insert((stamp.session, stamp.lane), (stamp.seq, bytes));
    }

    /// An answer came.
    pub(crate) fn came(&self, stamp: Stamp) {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.remove(&(stamp.session, stamp.lane));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_core::Durability;

    #[test]
    fn patience_grows_with_what_is_under_way_and_shrinks_when_it_has_arrived() {
        let (load, class) = (Load::default(), Duration::from_secs(2));
        assert_eq!(load.patience(class), class);
        let one = load.add(PAYLOAD_BYTES_MAX);
        let other = load.add(BYTES_A_SECOND_MIN);
        let seconds = load.patience(class).as_secs();
        assert!((258..=264).contains(&seconds), "64 MiB at 2 Mbit/s: {seconds} s");
        drop(one);
        assert_eq!(load.patience(class).as_secs(), 3);
        drop(other);
        assert_eq!(load.patience(class), class);
    }

    #[test]
    fn an_answer_that_does_not_come_is_expected_to_be_larger_up_to_the_largest_there_is() {
        let lanes = LongAnswers::default();
        let stamp =
            |seq| Stamp { session: SessionId(7), lane: 0, seq, durability: Durability::Accepted };
        assert_eq!(lanes.expected(stamp(1)), 0);
        let expected = (0..9).map(|_| {
            lanes.missed(stamp(1));
            lanes.expected(stamp(1)) >> 20
        });
        assert_eq!(expected.collect::<Vec<_>>(), [2, 4, 8, 16, 32, 64, 65, 65, 65]);
        assert_eq!(lanes.expected(stamp(2)), 0, "another batch is another answer");
        lanes.came(stamp(1));
        assert_eq!(lanes.expected(stamp(1)), 0);
    }
}
