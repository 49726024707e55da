//! What a broker finds when it checks what it holds, and how a check goes on: step by step, each of them
//! bounded, because the broker is in use meanwhile.

use std::fmt;

use async_trait::async_trait;

use crate::error::BrokerError;
use crate::name::{QueueName, TaskId};
use crate::time::Timestamp;

/// Whether what is found is put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It is only told.
    No,
    /// It is put right where that is possible.
    Yes,
}

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Defect {
    /// A collection names a task that does not exist. Repaired: the name is taken out.
    Ghost,
    /// A task is in no collection, so that nobody would ever run or delete it. Repaired: it is put where its
    /// state says.
    Orphan,
    /// A task has gone and left its result or its state, which keep its id taken for ever. Repaired: they are deleted.
    ResultOnly,
    /// A task says one state and is where tasks of another state are. Repaired: it says where it is.
    Misplaced,
    /// A task is where it should be, and somewhere else as well. Repaired: only there.
    Twice,
    /// A task is active without a lease, so that its loss is never noticed. Repaired: as a lost lease.
    NoLease,
    /// A task has a lease and is not among the active ones. Repaired: it is.
    NotActive,
    /// A record cannot be read. Repaired: it is archived, with the reason.
    Unreadable,
    /// A group is listed and has no members. Repaired: it is not listed.
    EmptyGroup,
    /// A group has members and is not listed, so that it is never aggregated. Repaired: it is listed.
    UnlistedGroup,
    /// A group is listed as being aggregated, and there is nothing of it. Repaired: it is not listed.
    EmptySet,
    /// Members were taken out of a group, and nobody is aggregating them. Repaired: they wait in it again.
    StraySet,
    /// A unique lock outlives the task that held it. Repaired: it is given back.
    StaleLock,
    /// A record that should expire does not. Repaired: it will.
    NoExpiry,
    /// A queue holds tasks and is not listed. Repaired: it is.
    UnlistedQueue,
    /// A key holds something of another kind. Not repaired: it belongs to another program.
    ForeignKey,
}

impl Defect {
    /// Its name, as programs print it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Defect::Ghost => "ghost",
            Defect::Orphan => "orphan",
            Defect::ResultOnly => "result_only",
            Defect::Misplaced => "misplaced",
            Defect::Twice => "twice",
            Defect::NoLease => "no_lease",
            Defect::NotActive => "not_active",
            Defect::Unreadable => "unreadable",
            Defect::EmptyGroup => "empty_group",
            Defect::UnlistedGroup => "unlisted_group",
            Defect::EmptySet => "empty_set",
            Defect::StraySet => "stray_set",
            Defect::StaleLock => "stale_lock",
            Defect::NoExpiry => "no_expiry",
            Defect::UnlistedQueue => "unlisted_queue",
            Defect::ForeignKey => "foreign_key",
        }
    }
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong, or was until it was repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The queue.
    pub queue: QueueName,
    /// What is wrong.
    pub defect: Defect,
    /// The task, if it is about one.
    pub id: Option<TaskId>,
    /// The key that it is about.
    pub key: String,
    /// What was found, in words.
    pub what: String,
    /// True if it was put right.
    pub repaired: bool,
}

/// What one step of a check has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckStep {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Ids and keys that were looked at.
    pub looked_at: u64,
    /// Tasks of which nothing certain can be said, because their line is too long to be searched at once and has moved meanwhile.
    pub undecided: u64,
}

/// A check of one queue that is under way.
#[async_trait]
pub trait Fsck: Send {
    /// Goes on, for a bounded time; `None` at the end. After an error the step can be repeated.
    ///
    /// # Errors
    /// What the broker answers.
    async fn step(&mut self, now: Timestamp) -> Result<Option<FsckStep>, BrokerError>;
}
