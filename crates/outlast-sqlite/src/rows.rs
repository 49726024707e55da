//! Rows to types and back. What a row holds is checked here: a stored value is never trusted to be of
//! the type or in the range that we would have written, and nothing here panics.

use std::time::Duration;

use bytes::Bytes;
use outlast_core::{
    GroupName, Headers, QueueName, TaskId, TaskRecord, TaskState, TaskType, Timestamp,
};
use rusqlite::Row;
use rusqlite::types::ValueRef;

/// How many states there are.
pub(crate) const STATES: usize = TaskState::ALL.len();

/// The number of a state in the database. Never changed: it is stored.
pub(crate) const fn code(state: TaskState) -> i64 {
    match state {
        TaskState::Active => 1,
        TaskState::Pending => 2,
        TaskState::Aggregating => 3,
        TaskState::Scheduled => 4,
        TaskState::Retry => 5,
        TaskState::Archived => 6,
        TaskState::Completed => 7,
    }
}

/// The state of a number.
pub(crate) fn state(code: i64) -> Option<TaskState> {
    TaskState::ALL.into_iter().find(|state| self::code(*state) == code)
}

/// The place of a state in an array.
pub(crate) const fn slot(state: TaskState) -> usize {
    match state {
        TaskState::Active => 0,
        TaskState::Pending => 1,
        TaskState::Aggregating => 2,
        TaskState::Scheduled => 3,
        TaskState::Retry => 4,
        TaskState::Archived => 5,
        TaskState::Completed => 6,
    }
}

/// The columns that [`read`] reads, in its order.
pub(crate) const COLUMNS: &str = "rid, state, score, id, type, max_retry, retried, losses, \
     timeout_s, deadline, retention_s, enqueued_at, pending_since, started_at, completed_at, \
     last_failed_at, set_id, grp, headers, last_error, result, payload";

/// A task with its number, score and set.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) rid: i64,
    pub(crate) score: i64,
    pub(crate) set: Option<i64>,
    pub(crate) task: TaskRecord,
    /// What is wrong with the record, if something is: the rest of it is still worth showing.
    pub(crate) flaw: Option<String>,
}

/// Reads a row of [`COLUMNS`].
pub(crate) fn read(row: &Row<'_>, queue: &QueueName, now: Timestamp) -> rusqlite::Result<Stored> {
    let mut flaws = Flaws(None);
    let rid: i64 = row.get(0)?;
    let score = flaws.int(row, 2, "score")?;
    let id = flaws.text(row, 3, "id")?;
    let task_type = flaws.text(row, 4, "type")?;
    let payload = flaws.blob(row, 21, "payload")?.unwrap_or_default();
    let mut task =
        TaskRecord::new(queue.clone(), TaskId::stored(&id), TaskType::stored(&task_type), payload);
    task.state = flaws.state(row)?;
    task.max_retry = flaws.count(row, 5, "max_retry")?;
    task.retried = flaws.count(row, 6, "retried")?;
    task.losses = flaws.count(row, 7, "losses")?;
    task.timeout = flaws.optional(row, 8, "timeout_s")?.map(seconds);
    task.deadline = flaws.moment(row, 9, "deadline")?;
    task.retention = seconds(flaws.int(row, 10, "retention_s")?);
    task.enqueued_at = flaws.moment(row, 11, "enqueued_at")?;
    task.pending_since = flaws.moment(row, 12, "pending_since")?;
    task.started_at = flaws.moment(row, 13, "started_at")?;
    task.completed_at = flaws.moment(row, 14, "completed_at")?;
    task.last_failed_at = flaws.moment(row, 15, "last_failed_at")?;
    let set = flaws.optional(row, 16, "set_id")?;
    task.group = flaws.maybe_text(row, 17, "grp")?.map(|name| GroupName::stored(&name));
    task.headers = flaws.headers(row, 18)?;
    task.last_error = flaws.maybe_text(row, 19, "last_error")?;
    task.result = flaws.blob(row, 20, "result")?;
    times_by_state(&mut task, score, now);
    Ok(Stored { rid, score, set, task, flaw: flaws.0 })
}

fn times_by_state(task: &mut TaskRecord, score: i64, now: Timestamp) {
    let at = Timestamp::from_millis(score);
    match task.state {
        TaskState::Pending => task.next_at = Some(now),
        TaskState::Scheduled | TaskState::Retry => task.next_at = Some(at),
        TaskState::Active => task.lease_until = Some(at),
        TaskState::Archived | TaskState::Completed | TaskState::Aggregating => {}
    }
}

/// Whole seconds, as asynq stores durations.
pub(crate) fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

/// The seconds of a duration, for storing.
pub(crate) fn as_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// Headers for storing: `None` if there are none.
pub(crate) fn headers_text(headers: &Headers) -> Option<String> {
    if headers.is_empty() { None } else { serde_json::to_string(headers).ok() }
}

/// Collects the first flaw of a record while the rest of it is still read.
struct Flaws(Option<String>);

impl Flaws {
    fn note(&mut self, column: &str, found: ValueRef<'_>) {
        self.0.get_or_insert_with(|| format!("column {column} holds {}", shown(found)));
    }

    fn int(&mut self, row: &Row<'_>, at: usize, column: &str) -> rusqlite::Result<i64> {
        match row.get_ref(at)? {
            ValueRef::Integer(number) => Ok(number),
            other => {
                self.note(column, other);
                Ok(0)
            }
        }
    }

    fn optional(
        &mut self,
        row: &Row<'_>,
        at: usize,
        column: &str,
    ) -> rusqlite::Result<Option<i64>> {
        match row.get_ref(at)? {
            ValueRef::Null => Ok(None),
            _ => self.int(row, at, column).map(Some),
        }
    }

    fn moment(
        &mut self,
        row: &Row<'_>,
        at: usize,
        column: &str,
    ) -> rusqlite::Result<Option<Timestamp>> {
        Ok(self.optional(row, at, column)?.map(Timestamp::from_millis))
    }

    fn count(&mut self, row: &Row<'_>, at: usize, column: &str) -> rusqlite::Result<u32> {
        let number = self.int(row, at, column)?;
        Ok(u32::try_from(number).unwrap_or_else(|_| {
            self.note(column, ValueRef::Integer(number));
            0
        }))
    }

    fn maybe_text(
        &mut self,
        row: &Row<'_>,
        at: usize,
        column: &str,
    ) -> rusqlite::Result<Option<String>> {
        let found = row.get_ref(at)?;
        match found {
            ValueRef::Null => Ok(None),
            ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => {
                    self.note(column, found);
                    Ok(Some(String::from_utf8_lossy(bytes).into_owned()))
                }
            },
            other => {
                self.note(column, other);
                Ok(None)
            }
        }
    }

    fn text(&mut self, row: &Row<'_>, at: usize, column: &str) -> rusqlite::Result<String> {
        match self.maybe_text(row, at, column)? {
            Some(text) => Ok(text),
            None => {
                self.note(column, ValueRef::Null);
                Ok(String::new())
            }
        }
    }

    fn blob(&mut self, row: &Row<'_>, at: usize, column: &str) -> rusqlite::Result<Option<Bytes>> {
        match row.get_ref(at)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
            other => {
                self.note(column, other);
                Ok(None)
            }
        }
    }

    fn headers(&mut self, row: &Row<'_>, at: usize) -> rusqlite::Result<Headers> {
        let Some(text) = self.maybe_text(row, at, "headers")? else {
            return Ok(Headers::new());
        };
        Ok(serde_json::from_str(&text).unwrap_or_else(|_| {
            self.note("headers", ValueRef::Text(text.as_bytes()));
            Headers::new()
        }))
    }

    fn state(&mut self, row: &Row<'_>) -> rusqlite::Result<TaskState> {
        let number = self.int(row, 1, "state")?;
        Ok(state(number).unwrap_or_else(|| {
            self.note("state", ValueRef::Integer(number));
            TaskState::Archived
        }))
    }
}

fn shown(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "nothing".to_owned(),
        ValueRef::Integer(number) => format!("the number {number}"),
        ValueRef::Real(number) => format!("the number {number}"),
        ValueRef::Text(text) => {
            let text: String = String::from_utf8_lossy(text).chars().take(32).collect();
            format!("the text {text:?}")
        }
        ValueRef::Blob(bytes) => format!("{} bytes", bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_back_from_its_number() {
        for (at, each) in TaskState::ALL.into_iter().enumerate() {
            assert_eq!(state(code(each)), Some(each));
            assert_eq!(slot(each), at);
        }
        assert_eq!(state(0), None);
    }
}
