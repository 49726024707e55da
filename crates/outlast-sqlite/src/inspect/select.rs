//! Finding the tasks that a selector matches, in an order that can be gone on from.
//!
//! A listing walks one state along the index `(queue, state, score)`; active tasks are listed by their
//! start instead, because the ends of their leases move. The selector's other fields are judged row by
//! row, so a call looks at a bounded number of rows, whatever it finds.

use outlast_core::{
    BrokerError, Cursor, GroupName, QueueName, Selector, TaskId, TaskState, Timestamp,
};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::error::Fail;
use crate::rows::{self, COLUMNS, Stored};

/// Ids one selector may name: more are a list that belongs into several calls.
const IDS_MAX: usize = 10_000;

/// Where a walk is: the place of the last row that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct At {
    pub(crate) key: i64,
    pub(crate) rid: i64,
}

impl At {
    const START: At = At { key: i64::MIN, rid: i64::MIN };

    pub(crate) fn cursor(self) -> Cursor {
        Cursor(format!("1.{}.{}", self.key, self.rid))
    }

    pub(crate) fn parse(cursor: Option<&Cursor>) -> Result<At, BrokerError> {
        let Some(cursor) = cursor else { return Ok(At::START) };
        let bad = || {
            let shown: String = cursor.0.chars().take(64).collect();
            BrokerError::rejected(format!("cursor {shown:?} is not one of this listing"))
        };
        let mut parts = cursor.0.split('.');
        let mut number = || parts.next().and_then(|part| part.parse::<i64>().ok());
        match (number(), number(), number(), parts.next()) {
            (Some(1), Some(key), Some(rid), None) => Ok(At { key, rid }),
            _ => Err(bad()),
        }
    }
}

/// The queue's number, if it is known.
pub(crate) fn qid(conn: &Connection, queue: &QueueName) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT qid FROM queue WHERE name = ?1")?
        .query_row([queue.as_str()], |row| row.get(0))
        .optional()
}

/// One task by its id.
pub(crate) fn by_id(
    conn: &Connection,
    queue: &QueueName,
    id: &TaskId,
    now: Timestamp,
) -> Result<Option<Stored>, Fail> {
    let sql = format!(
        "SELECT {COLUMNS} FROM task WHERE queue = (SELECT qid FROM queue WHERE name = ?1) \
         AND id = ?2 AND state <> 8"
    );
    let found = conn
        .prepare_cached(&sql)?
        .query_row(params![queue.as_str(), id.as_str()], |row| rows::read(row, queue, now))
        .optional()?;
    Ok(found)
}

/// What a walk looks for, and how far it may go.
pub(crate) struct Walk<'a> {
    pub(crate) queue: &'a QueueName,
    pub(crate) qid: i64,
    pub(crate) select: &'a Selector,
    pub(crate) limit: usize,
    /// Rows looked at, whether they match or not.
    pub(crate) looks_max: usize,
    pub(crate) now: Timestamp,
}

/// What a walk has found, and where to go on.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) tasks: Vec<Stored>,
    pub(crate) next: Option<At>,
}

impl Walk<'_> {
    /// Walks one state from `from` on.
    pub(crate) fn state(
        &self,
        conn: &Connection,
        state: TaskState,
        from: At,
    ) -> Result<Found, Fail> {
        let key = if state == TaskState::Active { "started_at" } else { "score" };
        let sql = format!(
            "SELECT {COLUMNS}, {key} FROM task WHERE queue = ?1 AND state = ?2 \
             AND ({key}, rid) > (?3, ?4) ORDER BY {key}, rid"
        );
        let mut statement = conn.prepare_cached(&sql)?;
        let mut rows = statement.query(params![self.qid, rows::code(state), from.key, from.rid])?;
        let mut found = Found::default();
        let mut last = from;
        let mut looks = 0;
        while let Some(row) = rows.next()? {
            if found.tasks.len() >= self.limit || looks >= self.looks_max {
                found.next = Some(last);
                break;
            }
            looks += 1;
            last = At { key: row.get::<_, Option<i64>>(22)?.unwrap_or(0), rid: row.get(0)? };
            if matches(self.select, row)? {
                found.tasks.push(rows::read(row, self.queue, self.now)?);
            }
        }
        Ok(found)
    }

    /// Looks up the named tasks, in order of state and place, from `from` on.
    pub(crate) fn named(&self, conn: &Connection, from: At) -> Result<Found, Fail> {
        check_ids(&self.select.ids)?;
        let mut all = Vec::new();
        for id in &self.select.ids {
            let stored = by_id(conn, self.queue, id, self.now)?;
            all.extend(stored.filter(|stored| self.select.matches(&stored.task)));
        }
        // Named tasks are few and of any state: by number they have one order that never changes.
        all.sort_by_key(|stored| stored.rid);
        all.dedup_by_key(|stored| stored.rid);
        let mut found = Found::default();
        for stored in all.into_iter().filter(|stored| stored.rid > from.rid) {
            if found.tasks.len() >= self.limit {
                found.next = found.tasks.last().map(|last| At { key: 0, rid: last.rid });
                break;
            }
            found.tasks.push(stored);
        }
        Ok(found)
    }
}

/// Refuses a list of ids that is longer than any call should bring.
pub(crate) fn check_ids(ids: &[TaskId]) -> Result<(), BrokerError> {
    if ids.len() > IDS_MAX {
        let why = format!("selection names {} ids: at most {IDS_MAX} are allowed", ids.len());
        return Err(BrokerError::rejected(why));
    }
    Ok(())
}

/// Judges a row of [`COLUMNS`] as [`Selector::matches`] judges a record, without copying it. The state
/// and the ids are the walk's affair.
fn matches(select: &Selector, row: &Row<'_>) -> rusqlite::Result<bool> {
    let text = |at: usize| row.get_ref(at).map(bytes);
    let fits_type = match &select.task_type {
        None => true,
        Some(pattern) => match pattern.strip_suffix('*') {
            Some(prefix) => text(4)?.starts_with(prefix.as_bytes()),
            None => text(4)? == pattern.as_bytes(),
        },
    };
    let fits_group = match &select.group {
        None => true,
        Some(group) => is_group(row.get_ref(17)?, group),
    };
    let fits_age = match select.before {
        None => true,
        Some(before) => row.get::<_, Option<i64>>(11)?.is_some_and(|at| at < before.as_millis()),
    };
    Ok(fits_type && fits_group && fits_age && holds_text(select, row)?)
}

fn is_group(stored: ValueRef<'_>, group: &GroupName) -> bool {
    matches!(stored, ValueRef::Text(name) if name == group.as_str().as_bytes())
}

fn holds_text(select: &Selector, row: &Row<'_>) -> rusqlite::Result<bool> {
    let Some(text) = select.text.as_deref().filter(|text| !text.is_empty()) else {
        return Ok(true);
    };
    let text = text.as_bytes();
    Ok(contains(bytes(row.get_ref(19)?), text) || contains(bytes(row.get_ref(21)?), text))
}

/// Looks for the first byte, which the standard library does fast, and compares there.
fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    let Some(first) = needle.first() else { return true };
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

fn bytes(value: ValueRef<'_>) -> &[u8] {
    match value {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes,
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_and_anything_else_is_named() {
        let at = At { key: -5, rid: 7 };
        assert_eq!(At::parse(Some(&at.cursor())).expect("our own"), at);
        for garbage in ["", "1", "1.2", "1.2.3.4", "2.1.1", "1.x.1", "ö"] {
            let error = At::parse(Some(&Cursor(garbage.into()))).expect_err(garbage);
            assert!(error.to_string().contains(&format!("{garbage:?}")), "{error}");
        }
    }

    #[test]
    fn text_is_found_wherever_it_is() {
        assert!(contains(b"aab", b"ab"));
        assert!(contains(b"ab", b"ab"));
        assert!(!contains(b"a", b"ab"));
        assert!(!contains(b"", b"a"));
        assert!(contains(b"\xff\x00x", b"x"));
    }
}
