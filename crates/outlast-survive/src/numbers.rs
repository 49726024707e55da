//! The stamps under which a drain sends what it forms: a number is given to one batch, ever.

use outlast_core::{Durability, SessionId, Stamp};

/// The numbers of one line of one drain.
#[derive(Debug)]
pub(crate) struct Numbers {
    session: SessionId,
    /// The last one that was answered.
    answered: u64,
    /// The next one was given out, and what became of it is not known here.
    is_open: bool,
}

impl Numbers {
    pub(crate) fn new(session: SessionId) -> Self {
        Self { session, answered: 0, is_open: false }
    }

    /// The stamp of the next batch, of the session `fresh` if the last one may have been used: whoever else delivers from
    /// this spool may have sent it and taken it away, and the broker would answer for that batch.
    pub(crate) fn give(&mut self, fresh: SessionId) -> Stamp {
        if self.is_open {
            *self = Self::new(fresh);
        }
        self.is_open = true;
        let durability = Durability::Accepted;
        Stamp { session: self.session, lane: 0, seq: self.answered + 1, durability }
    }

    /// No batch was formed under it: the next one may have it.
    pub(crate) fn unused(&mut self, stamp: &Stamp) {
        self.is_open &= self.session != stamp.session;
    }

    /// The broker has answered for it: the next batch gets the next number.
    pub(crate) fn answered(&mut self, stamp: &Stamp) {
        if self.session == stamp.session {
            self.answered = stamp.seq.max(self.answered);
            self.is_open = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batches of one outage that was over for one process and not for another: one formed number 1 and got no answer, the
    /// other, which thought it frozen, delivered that batch and took it from the spool, and the first gave number 1 to its
    /// next batch. The broker answered for the first one and applied nothing: a finished task was due again, and of the
    /// outbox an accepted one would have been lost.
    #[test]
    fn a_number_without_an_answer_is_never_given_to_another_batch() {
        let mut numbers = Numbers::new(SessionId(1));
        let first = numbers.give(SessionId(2));
        let second = numbers.give(SessionId(2));
        assert_eq!((first.session, first.seq), (SessionId(1), 1));
        assert_eq!((second.session, second.seq), (SessionId(2), 1));
        // An answer that comes after all says nothing about the new session.
        numbers.answered(&first);
        assert_eq!(numbers.give(SessionId(3)).session, SessionId(3));
    }

    #[test]
    fn numbers_go_on_after_an_answer_and_are_kept_if_nothing_was_formed() {
        let mut numbers = Numbers::new(SessionId(1));
        let first = numbers.give(SessionId(2));
        numbers.answered(&first);
        let second = numbers.give(SessionId(2));
        numbers.unused(&second);
        let again = numbers.give(SessionId(2));
        assert_eq!((again.session, again.seq), (SessionId(1), 2));
    }
}
