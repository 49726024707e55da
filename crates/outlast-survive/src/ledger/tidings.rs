//! The losses that answers have told of and that are yet to be made good.

use std::collections::VecDeque;

use crate::spool::Loss;

/// Losses that wait at most: more than a process has lanes. Beyond that they are found out by asking.
const TIDINGS_MAX: usize = 10_000;

/// A loss, and how it became known.
pub(super) struct Tiding {
    pub(super) loss: Loss,
    pub(super) by: Teller,
}

/// Who has told of a loss.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    /// The answer to a call.
    Call,
    /// The answer to a question, which has brought back so many items.
    Question(u64),
    /// Another process.
    Process,
}

/// In the order in which they were told. As long as there are any, what was acknowledged is kept however old it is.
#[derive(Default)]
pub(super) struct Tidings {
    waiting: VecDeque<Tiding>,
    /// Some are being made good.
    is_open: bool,
}

impl Tidings {
    pub(super) fn add(&mut self, loss: Loss, by: Teller) {
        let is_known = |tiding: &Tiding| tiding.loss == loss && tiding.by == by;
        if self.waiting.iter().any(is_known) {
            return;
        }
        if self.waiting.len() >= TIDINGS_MAX {
            let (queue, waiting) = (&loss.queue, TIDINGS_MAX);
            tracing::error!(%queue, waiting, "too many losses wait to be made good: this lane will be asked");
            return;
        }
        self.waiting.push_back(Tiding { loss, by });
    }

    /// The next one, which is made good from now on.
    pub(super) fn next(&mut self) -> Option<Tiding> {
        let next = self.waiting.pop_front();
        self.is_open |= next.is_some();
        next
    }

    /// What was handed out so far is made good.
    pub(super) fn settled(&mut self) {
        self.is_open = false;
    }

    pub(super) fn is_owing(&self) -> bool {
        self.is_open || !self.waiting.is_empty()
    }
}
