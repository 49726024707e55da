//! Sending stamped batches: one session per queue, at most one unanswered batch per lane.
//!
//! This is the only place of the library that hands out stamps. The layers of `survive` will take it
//! over together with the spool: number, fsync, send.

use std::collections::HashMap;

use outlast_core::{BrokerError, Durability, Kind, QueueName, Session, SessionId, Stamp};

/// Idle sessions that are kept. Queue names may be many and short-lived; a queue that comes back after
/// its session was dropped begins another one.
const SESSIONS_IDLE_MAX: usize = 1000;

/// The sessions of one client or worker, one per queue.
#[derive(Debug)]
pub(crate) struct Lanes {
    sessions: HashMap<QueueName, OpenSession>,
    per_queue: u16,
    /// How many sessions there are when the idle ones are dropped next.
    prune_at: usize,
}

#[derive(Debug)]
struct OpenSession {
    session: Session,
    /// Batches without an answer, those of an earlier session among them. One whose caller is going to
    /// repeat it stays counted until the repeat is answered.
    under_way: u16,
    /// A lane carries a batch whose fate will stay open.
    is_maimed: bool,
}

impl OpenSession {
    fn new(lanes: u16, under_way: u16) -> Self {
        Self { session: Session::new(new_session(), lanes), under_way, is_maimed: false }
    }
}

impl Lanes {
    /// `per_queue` batches may be under way at once per queue.
    pub(crate) fn new(per_queue: u16) -> Self {
        Self { sessions: HashMap::new(), per_queue, prune_at: SESSIONS_IDLE_MAX }
    }

    /// True if no batch of this queue is under way.
    pub(crate) fn is_idle(&self, queue: &QueueName) -> bool {
        self.sessions.get(queue).is_none_or(|entry| entry.under_way == 0)
    }

    /// A stamp for the next batch of this queue, or `None` while its lanes are taken.
    pub(crate) fn stamp(&mut self, queue: &QueueName) -> Option<Stamp> {
        let per_queue = self.per_queue;
        if !self.sessions.contains_key(queue) {
            self.prune();
            self.sessions.insert(queue.clone(), OpenSession::new(per_queue, 0));
        }
        let entry = self.sessions.get_mut(queue)?;
        if entry.under_way >= per_queue {
            return None;
        }
        // A session that has lost a lane is left to history at once, or the queue would run with fewer
        // lanes from then on. What is under way in it is answered there.
        if entry.is_maimed {
            *entry = OpenSession::new(per_queue, entry.under_way);
        }
        let stamp = entry.session.stamp(Durability::Accepted)?;
        entry.under_way += 1;
        Some(stamp)
    }

    fn prune(&mut self) {
        if self.sessions.len() < self.prune_at {
            return;
        }
        self.sessions.retain(|_, entry| entry.under_way > 0);
        // Twice what cannot be dropped, so that a thousand busy queues are not searched for each other.
        self.prune_at = SESSIONS_IDLE_MAX.max(2 * self.sessions.len());
    }

    /// Nothing was sent under this number, or it was a claim that came back without anything: the broker keeps no record of it.
    pub(crate) fn empty(&mut self, queue: &QueueName, stamp: &Stamp) {
        if let Some(session) = self.landed(queue, stamp) {
            session.session.withdrawn(stamp);
        }
    }

    /// Whether the batch's number was used will not be known here: it is in the outbox or the journal now, or
    /// it is a claim that was asked again and came back without anything, when the first call may have
    /// claimed what is lost by now. Its session is left to history.
    pub(crate) fn left_open(&mut self, queue: &QueueName) {
        if let Some(entry) = self.sessions.get_mut(queue) {
            entry.under_way = entry.under_way.saturating_sub(1);
            entry.is_maimed = true;
        }
    }

    /// The batch came back, and nobody will repeat it. Its lane is free again unless the batch's fate is
    /// open: another batch under the next number would then hide what became of it.
    pub(crate) fn back(&mut self, queue: &QueueName, stamp: &Stamp, error: Option<&BrokerError>) {
        let Some(entry) = self.landed(queue, stamp) else { return };
        match error.map(BrokerError::kind) {
            None | Some(Kind::Superseded) => entry.session.answered(stamp),
            Some(Kind::Ambiguous) => entry.is_maimed = true,
            Some(
                Kind::Unavailable
                | Kind::Busy
                | Kind::Misconfigured
                | Kind::Rejected
                | Kind::Corrupt,
            ) => entry.session.withdrawn(stamp),
        }
    }

    /// Counts a batch as landed; its session, if that is still the queue's.
    fn landed(&mut self, queue: &QueueName, stamp: &Stamp) -> Option<&mut OpenSession> {
        let entry = self.sessions.get_mut(queue)?;
        entry.under_way = entry.under_way.saturating_sub(1);
        (entry.session.id() == stamp.session).then_some(entry)
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

    fn ambiguous() -> BrokerError {
        BrokerError::new(Kind::Ambiguous, "no answer")
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
    fn an_ambiguous_answer_costs_the_queue_no_lane() {
        // Each such answer took a lane for ever; only when the last one was gone did a new session
        // begin, so that a client after a bad minute enqueued one batch at a time.
        let mut lanes = Lanes::new(2);
        let first = lanes.stamp(&queue()).expect("free");
        let second = lanes.stamp(&queue()).expect("the other lane");
        lanes.back(&queue(), &first, Some(&ambiguous()));
        let third = lanes.stamp(&queue()).expect("a new session");
        assert_ne!(third.session, first.session);
        assert!(lanes.stamp(&queue()).is_none(), "the old session's batch counts");
        lanes.back(&queue(), &second, None);
        let fourth = lanes.stamp(&queue()).expect("as many lanes as before");
        assert_eq!((fourth.session, fourth.lane), (third.session, 1));
    }

    #[test]
    fn a_late_answer_of_an_old_session_frees_no_lane_of_the_new_one() {
        let mut lanes = Lanes::new(2);
        let (first, late) = (lanes.stamp(&queue()).expect("free"), lanes.stamp(&queue()));
        lanes.back(&queue(), &first, Some(&ambiguous()));
        let third = lanes.stamp(&queue()).expect("a new session");
        lanes.empty(&queue(), &late.expect("free"));
        assert_ne!(lanes.stamp(&queue()).expect("the other lane").lane, third.lane);
    }

    #[test]
    fn a_lane_is_kept_for_a_caller_that_will_repeat() {
        let mut lanes = Lanes::new(1);
        let stamp = lanes.stamp(&queue()).expect("free");
        // Its answer was lost, and the caller keeps the stamp instead of reporting it.
        assert!(lanes.stamp(&queue()).is_none());
        lanes.back(&queue(), &stamp, None);
        assert_eq!(lanes.stamp(&queue()).map(|next| next.seq), Some(2));
    }

    #[test]
    fn sessions_of_queues_that_came_and_went_are_dropped() {
        // They were kept for ever: a queue per customer and day is a leak by the name of it.
        let mut lanes = Lanes::new(1);
        let busy = lanes.stamp(&queue()).expect("free");
        for n in 0..3 * SESSIONS_IDLE_MAX {
            let queue = QueueName::stored(&n.to_string());
            let stamp = lanes.stamp(&queue).expect("free");
            lanes.back(&queue, &stamp, None);
        }
        assert!(lanes.sessions.len() <= SESSIONS_IDLE_MAX, "{}", lanes.sessions.len());
        assert!(lanes.stamp(&queue()).is_none(), "what is under way is not forgotten");
        lanes.back(&queue(), &busy, None);
        assert_eq!(lanes.stamp(&queue()).map(|next| next.seq), Some(2));
    }
}
