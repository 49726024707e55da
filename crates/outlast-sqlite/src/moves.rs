//! Every statement that changes a task's state, with the event of core's table that it stands for
//! (law L5). No other file writes `task.state`; `tests/it/states.rs` drives each event against a task
//! in each state and compares with [`outlast_core::state::next`].
//!
//! The contract of all: `?1` is the row's `rid`, and the caller has just read the row's state in the
//! same transaction and moves the counts of its queue. States: 1 active, 2 pending, 3 aggregating,
//! 4 scheduled, 5 retry, 6 archived, 7 completed.

use outlast_core::TaskState;
use outlast_core::limits::{ERROR_BYTES_MAX, beginning};
use outlast_core::state::{Event, Next, next};

/// [`Event::Due`], and [`Event::RunByHand`]: to the line, as number `?2`, since `?3`.
pub(crate) const TO_PENDING: &str = "UPDATE task SET state = 2, score = ?2, pending_since = ?3, \
     token = 0, started_at = NULL, completed_at = NULL, set_id = NULL WHERE rid = ?1";

/// [`Event::DueInGroup`]: joins its group at `?2`.
pub(crate) const TO_GROUP: &str = "UPDATE task SET state = 3, score = ?2, token = 0 WHERE rid = ?1";

/// [`Event::Claim`]: leased until `?2` to the token `?3`, started at `?4`.
pub(crate) const CLAIM: &str = "UPDATE task SET state = 1, score = ?2, token = ?3, \
     started_at = ?4, pending_since = NULL WHERE rid = ?1";

/// [`Event::DoneKept`]: expires at `?2`, completed at `?3`, with the result `?4` if there is one.
pub(crate) const COMPLETE: &str = "UPDATE task SET state = 7, score = ?2, completed_at = ?3, \
     result = coalesce(?4, result), token = 0, started_at = NULL WHERE rid = ?1";

/// [`Event::Done`], [`Event::Revoke`], [`Event::Expire`], [`Event::Aggregate`] and
/// [`Event::DeleteByHand`]: the row goes.
pub(crate) const DELETE: &str = "DELETE FROM task WHERE rid = ?1";

/// [`Event::Retry`]: due at `?2`, with the error `?3` at `?4`, and `?5` more failed runs.
pub(crate) const RETRY: &str = "UPDATE task SET state = 5, score = ?2, last_error = ?3, \
     last_failed_at = ?4, retried = retried + ?5, token = 0, started_at = NULL WHERE rid = ?1";

/// [`Event::Snooze`]: due at `?2`.
pub(crate) const SNOOZE: &str =
    "UPDATE task SET state = 4, score = ?2, token = 0, started_at = NULL WHERE rid = ?1";

/// [`Event::Fail`]: archived at `?2` with the error `?3`.
pub(crate) const FAIL: &str = "UPDATE task SET state = 6, score = ?2, last_failed_at = ?2, \
     last_error = ?3, token = 0, started_at = NULL WHERE rid = ?1";

/// [`Event::Release`]: back in line as number `?2`, since `?3`.
pub(crate) const RELEASE: &str = "UPDATE task SET state = 2, score = ?2, pending_since = ?3, \
     token = 0, started_at = NULL WHERE rid = ?1";

/// [`Event::LeaseLost`]: due at `?2`, with the error `?3` at `?4`. The token stays: a late success of
/// its holder is adopted.
pub(crate) const LOSE: &str = "UPDATE task SET state = 5, score = ?2, last_error = ?3, \
     last_failed_at = ?4, losses = losses + 1, started_at = NULL WHERE rid = ?1";

/// [`Event::LeaseLostTooOften`]: archived at `?2` with the error `?3`. The token stays.
pub(crate) const LOSE_LAST: &str = "UPDATE task SET state = 6, score = ?2, last_failed_at = ?2, \
     last_error = ?3, losses = losses + 1, started_at = NULL WHERE rid = ?1";

/// [`Event::ArchiveByHand`]: archived at `?2`.
pub(crate) const ARCHIVE_BY_HAND: &str = "UPDATE task SET state = 6, score = ?2, token = 0, \
     pending_since = NULL, completed_at = NULL WHERE rid = ?1";

/// A record that cannot be read is put away when it is claimed: archived at `?2` with the reason `?3`.
/// For the table this is [`Event::ArchiveByHand`]; nobody asked, but nobody can run it either.
pub(crate) const ARCHIVE_CORRUPT: &str = "UPDATE task SET state = 6, score = ?2, token = 0, \
     pending_since = NULL, last_error = ?3, last_failed_at = ?2, set_id = NULL WHERE rid = ?1";

/// No transition: the task leaves, and comes back in the same state if it is refused. See `porter`.
pub(crate) const SEND: &str = "UPDATE task SET state = 8 WHERE rid = ?1";

/// The other half of [`SEND`]: back in state `?2`. Its score and all else are as they were.
pub(crate) const GIVE_BACK: &str = "UPDATE task SET state = ?2 WHERE rid = ?1";

/// True if core's table lets `event` happen to a task in `state`.
pub(crate) fn is_allowed(state: TaskState, event: Event) -> bool {
    next(state, event) != Next::Refused
}

/// The beginning of an error text, as much of it as is kept.
pub(crate) fn clipped(error: &str) -> &str {
    beginning(error, ERROR_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let error = "é".repeat(ERROR_BYTES_MAX);
        assert_eq!(clipped(&error).len(), ERROR_BYTES_MAX);
        let error = format!("x{error}");
        assert_eq!(clipped(&error).len(), ERROR_BYTES_MAX - 1);
        assert_eq!(clipped("short"), "short");
    }
}
