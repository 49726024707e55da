//! Why every write can be repeated (law L3): each batch carries its session, its lane and its number.
//!
//! A session belongs to one process and one queue. It has *lanes*, each with at most one unanswered
//! batch. A broker keeps one number per lane, written in the batch's own transaction:
//!
//! ```text
//!   number = last      the batch was applied, only its answer was lost: the first answer again
//!   number = last + 1  apply it
//!   number < last      a ghost of a batch answered long ago: Superseded, nothing is applied
//!   number > last + 1  the broker has forgotten what it had acknowledged: apply it, and report `lost`
//! ```
//!
//! It is Raft's client session (RIFL, Lee et al., SOSP 2015) at the price of one write per batch.

use crate::limits::LANES_MAX;

/// The name of a session: 128 random bits, made by the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u128);

/// What makes one batch repeatable, and how durable it has to be. (Design §4 calls it `send`; that name
/// is taken by Rust.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Whose batch.
    pub session: SessionId,
    /// Which of the session's lanes.
    pub lane: u16,
    /// The batch's number in its lane, from 1.
    pub seq: u64,
    /// What must be true before the broker says yes.
    pub durability: Durability,
}

/// How safe an accepted batch is; greater is safer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// In the memory of one process, gone with it.
    Memory,
    /// In the broker, with whatever persistence the broker is configured for.
    #[default]
    Accepted,
    /// On this many replicas as well.
    Replicated(u8),
    /// On disk, synced.
    Synced,
}

impl Durability {
    /// The level in lower case, as receipts show it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Durability::Memory => "memory",
            Durability::Accepted => "accepted",
            Durability::Replicated(_) => "replicated",
            Durability::Synced => "synced",
        }
    }
}

/// The client's half of a session: hands out stamps, at most one unanswered per lane.
///
/// ```
/// use outlast_core::{Durability, Session, SessionId};
/// let mut session = Session::new(SessionId(7), 2);
/// let first = session.stamp(Durability::Accepted).expect("two lanes are free");
/// let second = session.stamp(Durability::Accepted).expect("one lane is free");
/// assert!(session.stamp(Durability::Accepted).is_none(), "both lanes wait for their answer");
/// session.answered(&first);
/// let third = session.stamp(Durability::Accepted).expect("the first lane is free again");
/// assert_eq!((third.lane, third.seq), (first.lane, 2));
/// # let _ = second;
/// ```
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    lanes: Vec<Lane>,
    lanes_max: u16,
}

#[derive(Debug, Clone, Copy)]
struct Lane {
    last: u64,
    waiting: bool,
}

impl Session {
    /// A session of at most `lanes` lanes (held to 1 … [`LANES_MAX`]).
    #[must_use]
    pub fn new(id: SessionId, lanes: u16) -> Self {
        Self { id, lanes: Vec::new(), lanes_max: lanes.clamp(1, LANES_MAX) }
    }

    /// The session's name.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// A stamp for the next batch, or `None` while every lane waits for an answer.
    pub fn stamp(&mut self, durability: Durability) -> Option<Stamp> {
        let free = self.lanes.iter().position(|lane| !lane.waiting);
        let lane = free.or_else(|| self.open_lane())?;
        let state = &mut self.lanes[lane];
        state.last += 1;
        state.waiting = true;
        let lane = u16::try_from(lane).ok()?;
        Some(Stamp { session: self.id, lane, seq: state.last, durability })
    }

    fn open_lane(&mut self) -> Option<usize> {
        if self.lanes.len() >= usize::from(self.lanes_max) {
            return None;
        }
        self.lanes.push(Lane { last: 0, waiting: false });
        Some(self.lanes.len() - 1)
    }

    /// The batch was answered, with success or with an error that says nothing was applied *and* that
    /// it will not be sent again: its lane is free. A batch whose fate is open keeps its lane.
    pub fn answered(&mut self, stamp: &Stamp) {
        if let Some(lane) = self.lanes.get_mut(usize::from(stamp.lane)) {
            lane.waiting &= lane.last != stamp.seq;
        }
    }

    /// The batch was refused before anything was applied and will not be sent again: its number is
    /// given back, so that the lane has no gap (a gap would read as data loss at the broker).
    pub fn withdrawn(&mut self, stamp: &Stamp) {
        if let Some(lane) = self.lanes.get_mut(usize::from(stamp.lane))
            && lane.waiting
            && lane.last == stamp.seq
        {
            lane.last -= 1;
            lane.waiting = false;
        }
    }
}

/// What a broker's record of a lane says about an arriving batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Apply it.
    Next,
    /// It was applied: answer as the first time.
    Repeat,
    /// A ghost: apply nothing, answer [`Superseded`](crate::Kind::Superseded).
    Ghost,
    /// Apply it, and report that everything after this number is lost.
    Gap {
        /// The last number the broker knows, or zero if it knows none.
        after_seq: u64,
    },
}

/// Judges a batch numbered `seq` in a lane whose last applied number is `last` (`None`: no record).
///
/// ```
/// use outlast_core::session::{Arrival, judge};
/// assert_eq!(judge(Some(4), 5), Arrival::Next);
/// assert_eq!(judge(Some(5), 5), Arrival::Repeat);
/// assert_eq!(judge(Some(6), 5), Arrival::Ghost);
/// assert_eq!(judge(None, 5), Arrival::Gap { after_seq: 0 });
/// ```
#[must_use]
pub fn judge(last: Option<u64>, seq: u64) -> Arrival {
    let last = last.unwrap_or(0);
    match seq.checked_sub(last) {
        None => Arrival::Ghost,
        Some(0) => Arrival::Repeat,
        Some(1) => Arrival::Next,
        Some(_) => Arrival::Gap { after_seq: last },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_not_used_again_before_its_batch_is_answered() {
        let mut session = Session::new(SessionId(1), 3);
        let stamps: Vec<_> = std::iter::from_fn(|| session.stamp(Durability::Accepted)).collect();
        assert_eq!(stamps.iter().map(|s| s.lane).collect::<Vec<_>>(), [0, 1, 2]);
        session.answered(&stamps[1]);
        assert_eq!(session.stamp(Durability::Accepted).map(|s| (s.lane, s.seq)), Some((1, 2)));
        assert!(session.stamp(Durability::Accepted).is_none());
    }

    #[test]
    fn a_late_answer_to_an_earlier_batch_does_not_free_the_lane() {
        let mut session = Session::new(SessionId(1), 1);
        let first = session.stamp(Durability::Accepted).expect("free");
        session.answered(&first);
        session.stamp(Durability::Accepted).expect("free");
        session.answered(&first);
        assert!(session.stamp(Durability::Accepted).is_none());
    }

    #[test]
    fn a_withdrawn_number_is_used_again_so_that_no_gap_appears() {
        let mut session = Session::new(SessionId(1), 1);
        let first = session.stamp(Durability::Accepted).expect("free");
        session.withdrawn(&first);
        assert_eq!(session.stamp(Durability::Accepted), Some(first));
    }
}
