//! The states of a task and the one table of transitions (law L5). SQL, Lua and the test model are all
//! checked against it.
//!
//! ```text
//!                enqueue                    due
//!   client ───────────────► PENDING ◄──────────────── SCHEDULED ◄── enqueue for later, snooze
//!      │                     │   ▲ ▲                    │ due, in a group
//!      │ enqueue in a group  │   │ └── run by hand      ▼
//!      └───────────────► AGGREGATING ◄──────────────────┘
//!                            │   │ release, run by hand
//!             aggregated ◄───┘   ▼        claim
//!             (deleted)        PENDING ──────────► ACTIVE ── done ─► COMPLETED ─ expired ─► (deleted)
//!                                ▲                  │ │ └─ done without retention, revoke ─► (deleted)
//!                                │ due              │ └─ archive, lost too often ─► ARCHIVED ─ trimmed ─► (deleted)
//!                              RETRY ◄── retry, lease lost
//! ```

use serde::{Deserialize, Serialize};

/// Where a task is in its life. The names are asynq's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskState {
    /// Runs at a time in the future.
    Scheduled,
    /// Waits for a worker.
    Pending,
    /// Runs: a worker holds its lease.
    Active,
    /// Failed, and runs again later.
    Retry,
    /// Failed for good, or put away by hand.
    Archived,
    /// Succeeded, and is kept for its retention.
    Completed,
    /// Waits in a group to be aggregated.
    Aggregating,
}

impl TaskState {
    /// Every state, in the order in which views list them.
    pub const ALL: [TaskState; 7] = [
        TaskState::Active,
        TaskState::Pending,
        TaskState::Aggregating,
        TaskState::Scheduled,
        TaskState::Retry,
        TaskState::Archived,
        TaskState::Completed,
    ];

    /// The state's name, as asynq writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            TaskState::Scheduled => "scheduled",
            TaskState::Pending => "pending",
            TaskState::Active => "active",
            TaskState::Retry => "retry",
            TaskState::Archived => "archived",
            TaskState::Completed => "completed",
            TaskState::Aggregating => "aggregating",
        }
    }
}

impl std::fmt::Display for TaskState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that names no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "state {0:?} is none of active, pending, aggregating, scheduled, retry, archived, completed"
)]
pub struct StateError(String);

impl std::str::FromStr for TaskState {
    type Err = StateError;
    fn from_str(text: &str) -> Result<Self, StateError> {
        let found = TaskState::ALL.into_iter().find(|state| state.as_str() == text);
        found.ok_or_else(|| StateError(text.chars().take(64).collect()))
    }
}

/// What can happen to a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Its due time came and it is in no group.
    Due,
    /// Its due time came and it belongs to a group.
    DueInGroup,
    /// A worker took it.
    Claim,
    /// It succeeded, with retention.
    DoneKept,
    /// It succeeded, without retention.
    Done,
    /// It failed and runs again.
    Retry,
    /// Its handler asked for a later time.
    Snooze,
    /// It failed for good.
    Fail,
    /// Its handler dropped it.
    Revoke,
    /// Its worker gave it back.
    Release,
    /// Its worker vanished.
    LeaseLost,
    /// Its worker vanished for the last time ([`LOSSES_MAX`](crate::limits::LOSSES_MAX)).
    LeaseLostTooOften,
    /// Its retention is over, or the archive was trimmed.
    Expire,
    /// It became part of an aggregated task.
    Aggregate,
    /// Somebody ran it by hand.
    RunByHand,
    /// Somebody archived it by hand.
    ArchiveByHand,
    /// Somebody deleted it by hand.
    DeleteByHand,
}

impl Event {
    /// Every event, for tables and tests.
    pub const ALL: [Event; 17] = [
        Event::Due,
        Event::DueInGroup,
        Event::Claim,
        Event::DoneKept,
        Event::Done,
        Event::Retry,
        Event::Snooze,
        Event::Fail,
        Event::Revoke,
        Event::Release,
        Event::LeaseLost,
        Event::LeaseLostTooOften,
        Event::Expire,
        Event::Aggregate,
        Event::RunByHand,
        Event::ArchiveByHand,
        Event::DeleteByHand,
    ];
}

/// What the table answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The task goes to this state.
    State(TaskState),
    /// The task is deleted.
    Gone,
    /// The event cannot happen in this state: a broker leaves the task as it is and says so.
    Refused,
}

/// The transition table: what `event` makes of a task in `state`.
///
/// ```
/// use outlast_core::state::{Event, Next, next};
/// use outlast_core::TaskState;
/// assert_eq!(next(TaskState::Pending, Event::Claim), Next::State(TaskState::Active));
/// assert_eq!(next(TaskState::Active, Event::DeleteByHand), Next::Refused);
/// ```
#[must_use]
pub fn next(state: TaskState, event: Event) -> Next {
    use TaskState::{Active, Aggregating, Archived, Completed, Pending, Retry, Scheduled};
    match (state, event) {
        (Scheduled | Retry, Event::Due) => Next::State(Pending),
        (Scheduled | Retry, Event::DueInGroup) => Next::State(Aggregating),
        (Pending, Event::Claim) => Next::State(Active),

        (Active, Event::DoneKept) => Next::State(Completed),
        (Active, Event::Done | Event::Revoke) => Next::Gone,
        (Active, Event::Retry | Event::LeaseLost) => Next::State(Retry),
        (Active, Event::Snooze) => Next::State(Scheduled),
        (Active, Event::Fail | Event::LeaseLostTooOften) => Next::State(Archived),
        (Active, Event::Release) => Next::State(Pending),

        // A late success of a lost lease is adopted from where recovery put the task (design §5).
        (Retry | Archived, Event::Done) => Next::Gone,
        (Retry | Archived, Event::DoneKept) => Next::State(Completed),

        (Completed | Archived, Event::Expire) => Next::Gone,
        (Aggregating, Event::Aggregate) => Next::Gone,

        (Scheduled | Retry | Archived | Completed | Aggregating, Event::RunByHand) => {
            Next::State(Pending)
        }
        (Scheduled | Retry | Pending | Completed | Aggregating, Event::ArchiveByHand) => {
            Next::State(Archived)
        }
        (Scheduled | Retry | Pending | Completed | Aggregating | Archived, Event::DeleteByHand) => {
            Next::Gone
        }

        (_, event) => refused(event),
    }
}

/// Everything else is refused. The list is written out so that a new event is a compile error here and
/// must be given its rows above.
fn refused(event: Event) -> Next {
    match event {
        Event::Due
        | Event::DueInGroup
        | Event::Claim
        | Event::DoneKept
        | Event::Done
        | Event::Retry
        | Event::Snooze
        | Event::Fail
        | Event::Revoke
        | Event::Release
        | Event::LeaseLost
        | Event::LeaseLostTooOften
        | Event::Expire
        | Event::Aggregate
        | Event::RunByHand
        | Event::ArchiveByHand
        | Event::DeleteByHand => Next::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(state: TaskState) -> Vec<Event> {
        Event::ALL.into_iter().filter(|event| next(state, *event) != Next::Refused).collect()
    }

    #[test]
    fn nobody_can_touch_an_active_task_by_hand() {
        for event in [Event::RunByHand, Event::ArchiveByHand, Event::DeleteByHand] {
            assert_eq!(next(TaskState::Active, event), Next::Refused);
        }
    }

    #[test]
    fn every_state_can_be_left() {
        for state in TaskState::ALL {
            assert!(
                allowed(state).iter().any(|e| next(state, *e) != Next::State(state)),
                "{state}"
            );
        }
    }

    #[test]
    fn only_a_claim_makes_a_task_active() {
        for state in TaskState::ALL {
            for event in Event::ALL {
                if next(state, event) == Next::State(TaskState::Active) {
                    assert_eq!((state, event), (TaskState::Pending, Event::Claim));
                }
            }
        }
    }

    #[test]
    fn state_names_are_read_back_and_others_are_named() {
        for state in TaskState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        let error = "retrying".parse::<TaskState>().expect_err("no such state").to_string();
        assert!(error.starts_with("state \"retrying\" is none of active,"), "{error}");
    }
}
