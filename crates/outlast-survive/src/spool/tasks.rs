//! The outbox's tasks with all that was handed in, for people: to look at one, or to take all elsewhere.

use outlast_core::record::{RecordError, decode_task};
use outlast_core::{NewTask, QueueName, Timestamp};
use rusqlite::{Connection, Params, Row};

use super::error::SpoolError;
use super::{Spool, Store};

/// Where in the outbox a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shelf {
    /// It waits to be delivered.
    Line,
    /// It will not be delivered unless somebody says so.
    Quarantine,
}

/// A task of the outbox, with all that was handed in.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredTask {
    /// Its number on its shelf.
    pub id: i64,
    /// Where it is.
    pub shelf: Shelf,
    /// Its queue.
    pub queue: QueueName,
    /// Its id, which is known even if the rest cannot be read.
    pub name: String,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it was put away, and why, if it was.
    pub put_away: Option<(Timestamp, String)>,
    /// The task, or why it cannot be read.
    pub task: Result<NewTask, RecordError>,
}

impl Shelf {
    /// Every shelf.
    pub const ALL: [Shelf; 2] = [Shelf::Line, Shelf::Quarantine];

    /// The columns of a task, whichever shelf it is on.
    fn select(self) -> &'static str {
        match self {
            Shelf::Line => {
                "SELECT id, queue, name, stored_at, record, NULL, NULL FROM item WHERE store = ?1"
            }
            Shelf::Quarantine => {
                "SELECT id, queue, name, stored_at, record, put_at, why FROM quarantine WHERE store = ?1"
            }
        }
    }
}

impl Spool {
    /// Tasks of a shelf, oldest first, those whose number is above `after`, `limit` at most: the next page
    /// begins after the last one's number.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn tasks(
        &self,
        shelf: Shelf,
        after: i64,
        limit: u32,
    ) -> Result<Vec<StoredTask>, SpoolError> {
        let sql = format!("{} AND id > ?2 ORDER BY id LIMIT ?3", shelf.select());
        read(&self.reader().conn, shelf, &sql, (Store::Outbox.number(), after, limit))
    }

    /// The tasks of this id on both shelves, of whatever queues, `limit` of each shelf at most. Looks at every
    /// task that there is.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn find(&self, name: &str, limit: u32) -> Result<Vec<StoredTask>, SpoolError> {
        let mut found = Vec::new();
        for shelf in Shelf::ALL {
            let sql = format!("{} AND name = ?2 ORDER BY id LIMIT ?3", shelf.select());
            let params = (Store::Outbox.number(), name, limit);
            found.extend(read(&self.reader().conn, shelf, &sql, params)?);
        }
        Ok(found)
    }
}

fn read(
    conn: &Connection,
    shelf: Shelf,
    sql: &str,
    params: impl Params,
) -> Result<Vec<StoredTask>, SpoolError> {
    let list = || -> rusqlite::Result<Vec<StoredTask>> {
        let mut statement = conn.prepare_cached(sql)?;
        let rows = statement.query_map(params, |row| stored(shelf, row))?;
        rows.collect()
    };
    list().map_err(|error| SpoolError::sqlite("could not read the outbox's tasks", error))
}

fn stored(shelf: Shelf, row: &Row<'_>) -> rusqlite::Result<StoredTask> {
    let (put_at, why) = (row.get::<_, Option<i64>>(5)?, row.get::<_, Option<String>>(6)?);
    Ok(StoredTask {
        id: row.get(0)?,
        shelf,
        queue: QueueName::stored(&row.get::<_, String>(1)?),
        name: row.get(2)?,
        stored_at: Timestamp::from_millis(row.get(3)?),
        put_away: put_at.map(Timestamp::from_millis).zip(why),
        task: decode_task(&row.get::<_, Vec<u8>>(4)?),
    })
}
