//! The rows of the queues a transaction touches, kept in memory until it commits: counts per state,
//! places in line, daily statistics. So a batch of 256 tasks writes its queue's row once, and no
//! question about a queue ever has to count.
//!
//! Nothing here outlives a transaction: other processes write the same rows. Verbs change the rows
//! through [`QueueRow`], the writer stores them with [`Tally::flush`] before it commits, and drops
//! them when it rolls back.

use outlast_core::{QueueName, TaskState, Timestamp};
use rusqlite::{CachedStatement, Connection, OptionalExtension, Row, params};

use crate::rows;

/// A queue of the running transaction, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Q(usize);

/// One row of `queue`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueRow {
    pub(crate) qid: i64,
    pub(crate) listed: bool,
    pub(crate) paused_since: Option<i64>,
    pub(crate) head: i64,
    pub(crate) tail: i64,
    counts: [i64; rows::STATES],
    pub(crate) processed: i64,
    pub(crate) failed: i64,
}

/// Runs that ended on one day, not yet stored.
#[derive(Clone, Copy, Debug)]
struct DayDelta {
    day: i64,
    processed: i64,
    failed: i64,
}

struct Entry {
    name: QueueName,
    stored: QueueRow,
    row: QueueRow,
    days: Vec<DayDelta>,
}

/// How a run ended, for the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Well,
    Badly,
}

/// The queues of one transaction.
#[derive(Default)]
pub(crate) struct Tally {
    entries: Vec<Entry>,
    rid: Option<Rid>,
}

#[derive(Clone, Copy)]
struct Rid {
    stored: i64,
    last: i64,
}

const SELECT: &str = "SELECT qid, listed, paused_since, head, tail, active, pending, aggregating, \
     scheduled, retry, archived, completed, processed, failed FROM queue WHERE name = ?1";

const UPDATE: &str = "UPDATE queue SET listed = ?2, paused_since = ?3, head = ?4, tail = ?5, \
     active = ?6, pending = ?7, aggregating = ?8, scheduled = ?9, retry = ?10, archived = ?11, \
     completed = ?12, processed = ?13, failed = ?14 WHERE qid = ?1";

/// Adds runs to a day of a queue.
pub(crate) const ADD_DAY: &str = "INSERT INTO day (queue, day, processed, failed) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET processed = processed + excluded.processed, \
     failed = failed + excluded.failed";

impl QueueRow {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let mut counts = [0; rows::STATES];
        for (offset, count) in counts.iter_mut().enumerate() {
            *count = row.get(5 + offset)?;
        }
        Ok(Self {
            qid: row.get(0)?,
            listed: row.get(1)?,
            paused_since: row.get(2)?,
            head: row.get(3)?,
            tail: row.get(4)?,
            counts,
            processed: row.get(12)?,
            failed: row.get(13)?,
        })
    }

    fn new(qid: i64) -> Self {
        Self {
            qid,
            listed: false,
            paused_since: None,
            head: 0,
            tail: 0,
            counts: [0; rows::STATES],
            processed: 0,
            failed: 0,
        }
    }

    /// How many tasks are in a state.
    pub(crate) fn count(&self, state: TaskState) -> i64 {
        self.counts[rows::slot(state)]
    }

    /// How many tasks there are.
    pub(crate) fn size(&self) -> i64 {
        self.counts.iter().sum()
    }

    /// A task came into the queue.
    pub(crate) fn entered(&mut self, state: TaskState) {
        self.counts[rows::slot(state)] += 1;
    }

    /// A task left the queue.
    pub(crate) fn left(&mut self, state: TaskState) {
        self.counts[rows::slot(state)] -= 1;
    }

    /// A task changed its state.
    pub(crate) fn moved(&mut self, from: TaskState, to: TaskState) {
        self.left(from);
        self.entered(to);
    }

    /// The number of a task that goes to the back of the line.
    pub(crate) fn back(&mut self) -> i64 {
        self.tail += 1;
        self.tail
    }

    /// The number of a task that goes to the front of the line.
    pub(crate) fn front(&mut self) -> i64 {
        self.head -= 1;
        self.head
    }
}

impl Tally {
    /// The queue of this name, if it is known.
    pub(crate) fn find(
        &mut self,
        conn: &Connection,
        name: &QueueName,
    ) -> rusqlite::Result<Option<Q>> {
        if let Some(at) = self.entries.iter().position(|entry| entry.name == *name) {
            return Ok(Some(Q(at)));
        }
        let mut select = conn.prepare_cached(SELECT)?;
        let row = select.query_row([name.as_str()], QueueRow::read).optional()?;
        Ok(row.map(|row| self.push(name, row)))
    }

    /// The queue of this name; an unknown one gets a row that is not listed.
    pub(crate) fn open(&mut self, conn: &Connection, name: &QueueName) -> rusqlite::Result<Q> {
        if let Some(found) = self.find(conn, name)? {
            return Ok(found);
        }
        conn.prepare_cached("INSERT INTO queue (name) VALUES (?1)")?.execute([name.as_str()])?;
        Ok(self.push(name, QueueRow::new(conn.last_insert_rowid())))
    }

    fn push(&mut self, name: &QueueName, row: QueueRow) -> Q {
        self.entries.push(Entry { name: name.clone(), stored: row.clone(), row, days: Vec::new() });
        Q(self.entries.len() - 1)
    }

    pub(crate) fn row(&mut self, q: Q) -> &mut QueueRow {
        &mut self.entries[q.0].row
    }

    pub(crate) fn qid(&self, q: Q) -> i64 {
        self.entries[q.0].row.qid
    }

    /// True if the transaction has touched the queue and it is paused.
    pub(crate) fn is_paused(&self, name: &QueueName) -> bool {
        let entry = self.entries.iter().find(|entry| entry.name == *name);
        entry.is_some_and(|entry| entry.row.paused_since.is_some())
    }

    /// A run ended.
    pub(crate) fn ended(&mut self, q: Q, now: Timestamp, how: Ended) {
        let entry = &mut self.entries[q.0];
        let failed = i64::from(how == Ended::Badly);
        entry.row.processed = entry.row.processed.saturating_add(1);
        entry.row.failed = entry.row.failed.saturating_add(failed);
        let day = now.as_days();
        match entry.days.iter_mut().find(|delta| delta.day == day) {
            Some(delta) => {
                delta.processed += 1;
                delta.failed += failed;
            }
            None => entry.days.push(DayDelta { day, processed: 1, failed }),
        }
    }

    /// The next row number, which no task or set had before.
    pub(crate) fn next_rid(&mut self, conn: &Connection) -> rusqlite::Result<i64> {
        let rid = match self.rid {
            Some(rid) => rid,
            None => {
                let stored = conn
                    .prepare_cached("SELECT value FROM counter WHERE name = 'rid'")?
                    .query_row([], |row| row.get(0))?;
                Rid { stored, last: stored }
            }
        };
        self.rid = Some(Rid { last: rid.last + 1, ..rid });
        Ok(rid.last + 1)
    }

    /// Forgets a queue that was removed in this transaction, so that the name can be opened anew.
    pub(crate) fn forget(&mut self, q: Q) {
        // The entry stays, because positions are handed out; without a name nobody finds it again.
        self.entries[q.0].name = QueueName::stored("");
    }

    /// Writes what has changed.
    pub(crate) fn flush(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        for entry in &mut self.entries {
            if entry.row != entry.stored {
                store(&mut conn.prepare_cached(UPDATE)?, &entry.row)?;
                entry.stored = entry.row.clone();
            }
            for delta in entry.days.drain(..) {
                conn.prepare_cached(ADD_DAY)?.execute(params![
                    entry.row.qid,
                    delta.day,
                    delta.processed,
                    delta.failed
                ])?;
            }
        }
        if let Some(rid) = self.rid.filter(|rid| rid.last != rid.stored) {
            conn.prepare_cached("UPDATE counter SET value = ?1 WHERE name = 'rid'")?
                .execute([rid.last])?;
            self.rid = Some(Rid { stored: rid.last, last: rid.last });
        }
        Ok(())
    }
}

fn store(update: &mut CachedStatement<'_>, row: &QueueRow) -> rusqlite::Result<()> {
    let c = &row.counts;
    update.execute(params![
        row.qid,
        row.listed,
        row.paused_since,
        row.head,
        row.tail,
        c[0],
        c[1],
        c[2],
        c[3],
        c[4],
        c[5],
        c[6],
        row.processed,
        row.failed
    ])?;
    Ok(())
}
