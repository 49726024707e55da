//! What a step of a move has done.

use std::collections::BTreeMap;

use outlast_core::{TaskId, TaskState};

/// Tasks named in [`Moved::mismatches`]: enough to see what they have in common. All are counted.
pub(super) const MISMATCHES_MAX: usize = 1000;

/// What one batch came to. Batches can be added up with [`Moved::add`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Moved {
    /// Tasks per state.
    pub states: BTreeMap<TaskState, StateCount>,
    /// Tasks that the target did not take, and that are back where they were.
    pub refused: Vec<Refused>,
    /// Tasks that the target says it has stored, and that are not there although nothing can have run them;
    /// the first thousand of them.
    pub mismatches: Vec<Mismatch>,
    /// How many there are.
    pub mismatched: u64,
    /// Runs that ended, added to the target's counters.
    pub runs: u64,
    /// True if the target has lost something that it had stored before.
    pub target_lost: bool,
}

/// Tasks of one state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StateCount {
    /// Taken from the source: stored and refused together.
    pub taken: u64,
    /// Stored by the target.
    pub stored: u64,
    /// Of those, read back and found to be the same.
    pub verified: u64,
    /// Of those, started or finished before they could be read back.
    pub gone: u64,
    /// Of those, changed in the target since an earlier run stored them.
    pub changed: u64,
    /// Given back to the source.
    pub refused: u64,
}

/// A task that stays at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which one.
    pub id: TaskId,
    /// Its state; `None` if its record cannot be read.
    pub state: Option<TaskState>,
    /// Why, to be read after "task … ".
    pub why: String,
}

/// A task that is not where it was put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// Which one.
    pub id: TaskId,
    /// The state in which it was put.
    pub state: TaskState,
}

impl Moved {
    /// Tasks that the target has stored.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.states.values().map(|count| count.stored).sum()
    }

    /// Adds what another batch came to.
    pub fn add(&mut self, other: Moved) {
        for (state, count) in other.states {
            let sum = self.states.entry(state).or_default();
            sum.taken += count.taken;
            sum.stored += count.stored;
            sum.verified += count.verified;
            sum.gone += count.gone;
            sum.changed += count.changed;
            sum.refused += count.refused;
        }
        self.refused.extend(other.refused);
        let room = MISMATCHES_MAX.saturating_sub(self.mismatches.len());
        self.mismatches.extend(other.mismatches.into_iter().take(room));
        self.mismatched += other.mismatched;
        self.runs += other.runs;
        self.target_lost |= other.target_lost;
    }

    pub(super) fn of(&mut self, state: TaskState) -> &mut StateCount {
        self.states.entry(state).or_default()
    }
}
