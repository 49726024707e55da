//! How a run ends: values, settled in one place, so that they can be journaled and repeated.

use bytes::Bytes;

use crate::{Lease, NewTask, Timestamp};

/// What becomes of a task after a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Succeeded: kept as completed for its retention, or deleted; its unique lock is released.
    Done {
        /// What the handler returned; `None` keeps what was written while it ran.
        result: Option<Bytes>,
    },
    /// Failed: runs again at `at`.
    Retry {
        /// When.
        at: Timestamp,
        /// Why it failed.
        error: String,
        /// Whether this run counts against `max_retry` and in the statistics.
        attempt: Attempt,
    },
    /// Not now: scheduled for `until`; no retry is spent and nothing is counted.
    Snooze {
        /// When it runs again.
        until: Timestamp,
    },
    /// Failed for good: kept among the archived for people to look at.
    Archive {
        /// Why.
        error: String,
    },
    /// No longer wanted: deleted, counted as processed.
    Revoke,
    /// Given back, as if it had not been claimed: next to run, nothing counted.
    Release,
    /// The tasks of an aggregation set became one new task, in the same queue and the same transaction.
    Aggregated {
        /// The task that stands for them.
        into: Box<NewTask>,
    },
}

/// Whether a failed run counts as an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// One of `max_retry` is spent, and the failure is counted.
    Spent,
    /// Nothing is spent and nothing is counted; the error text is kept.
    Kept,
}

/// An outcome with the lease that entitles to report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The lease under which the task ran.
    pub lease: Lease,
    /// What became of it.
    pub outcome: Outcome,
}
