//! Sending stamped batches: one session per queue, at most one unanswered batch per lane.
//!
//! This is the only place of the library that hands out stamps. The layers of `survive` will take it
//! over together with the spool: number, fsync, send.

use std::collections::HashMap;

use outlast_core::{BrokerError, Durability, Kind, QueueName, Session, SessionId, Stamp};

/// The sessions of one client or worker, one per queue.
#[derive(Debug)]
pub(crate) struct Lanes {
    sessions: HashMap<QueueName, OpenSession>,
    per_queue: u16,
}

#[derive(Debug)]
struct OpenSession {
    session: Session,
    under_way: u16,
}

impl Lanes {
    /// `per_queue` batches may be under way at once per queue.
    pub(crate) fn new(per_queue: u16) -> Self {
        Self { sessions: HashMap::new(), per_queue }
    }

    /// A stamp for the next batch of this queue, or `None` while its lanes are taken.
    pub(crate) fn stamp(&mut self, queue: &QueueName) -> Option<Stamp> {
        let per_queue = self.per_queue;
        let open = || OpenSession { session: Session::new(new_session(), per_queue), under_way: 0 };
        let entry = self.sessions.entry(queue.clone()).or_insert_with(open);
        let stamp = match entry.session.stamp(Durability::Accepted) {
            Some(stamp) => stamp,
            // Every lane carries a batch whose fate will stay open: they are left to history.
            None if entry.under_way == 0 => {
                *entry = open();
                entry.session.stamp(Durability::Accepted)?
            }
            None => return None,
        };
        entry.under_way += 1;
        Some(stamp)
    }

    /// The claim came back without anything: the broker keeps no record of it.
    pub(crate) fn empty(&mut self, queue: &QueueName, stamp: &Stamp) {
        if let Some(entry) = self.sessions.get_mut(queue) {
            entry.under_way = entry.under_way.saturating_sub(1);
            entry.session.withdrawn(stamp);
        }
    }

    /// A claim that was asked again came back without anything. Whether the broker keeps a record of it
    /// is not known: the first call may have claimed what is lost by now. Its lane is left to history.
    pub(crate) fn empty_repeat(&mut self, queue: &QueueName) {
        if let Some(entry) = self.sessions.get_mut(queue) {
            entry.under_way = entry.under_way.saturating_sub(1);
        }
    }

    /// The batch came back. A lane is free again unless the batch's fate is open and nobody will repeat
    /// it: another batch under the next number would then hide what became of it.
    pub(crate) fn back(&mut self, queue: &QueueName, stamp: &Stamp, error: Option<&BrokerError>) {
        let Some(entry) = self.sessions.get_mut(queue) else { return };
        if entry.session.id() != stamp.session {
            return;
        }
        entry.under_way = entry.under_way.saturating_sub(1);
        match error.map(BrokerError::kind) {
            None | Some(Kind::Superseded) => entry.session.answered(stamp),
            Some(Kind::Ambiguous) => {}
            Some(
                Kind::Unavailable
                | Kind::Busy
                | Kind::Misconfigured
                | Kind::Rejected
                | Kind::Corrupt,
            ) => entry.session.withdrawn(stamp),
        }
    }
}

fn new_session() -> SessionId {
    SessionId(uuid::Uuid::new_v4().as_u128())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> QueueName {
        QueueName::stored("q")
    }

    #[test]
    fn a_lane_whose_batch_failed_cleanly_is_used_again_with_the_same_number() {
        let mut lanes = Lanes::new(1);
        let stamp = lanes.stamp(&queue()).expect("free");
        assert!(lanes.stamp(&queue()).is_none());
        lanes.back(&queue(), &stamp, Some(&BrokerError::new(Kind::Busy, "locked")));
        assert_eq!(lanes.stamp(&queue()), Some(stamp));
    }

    #[test]
    fn when_every_lane_is_ambiguous_a_new_session_begins() {
        let mut lanes = Lanes::new(2);
        let ambiguous = BrokerError::new(Kind::Ambiguous, "no answer");
        let first = lanes.stamp(&queue()).expect("free");
        lanes.back(&queue(), &first, Some(&ambiguous));
        let second = lanes.stamp(&queue()).expect("the other lane");
        assert_eq!((second.session, second.lane), (first.session, 1));
        lanes.back(&queue(), &second, Some(&ambiguous));
        let third = lanes.stamp(&queue()).expect("a new session");
        assert_ne!(third.session, first.session);
    }
}
