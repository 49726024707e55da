//! The spool as people see it: what waits, what was put away, and what can be done about it.

use outlast_core::{QueueName, Timestamp};
use rusqlite::{Connection, params};

use super::error::SpoolError;
use super::{Spool, Store, line};

/// How much of a store waits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Items.
    pub items: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// When the oldest was stored.
    pub oldest: Option<Timestamp>,
    /// Items in quarantine.
    pub quarantined: u64,
}

/// An item that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Its number in the spool.
    pub id: i64,
    /// Its queue.
    pub queue: QueueName,
    /// The task's id.
    pub name: String,
    /// When it was stored.
    pub stored_at: Timestamp,
}

/// An item that will not be delivered unless somebody says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// Its number in the quarantine.
    pub id: i64,
    /// Where it came from.
    pub store: Store,
    /// Its queue.
    pub queue: QueueName,
    /// The task's id.
    pub name: String,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// When it was put away.
    pub put_at: Timestamp,
    /// Why.
    pub why: String,
}

impl Spool {
    /// How much of a store waits.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn waiting(&self, store: Store) -> Result<Waiting, SpoolError> {
        let failed = |error| SpoolError::sqlite("could not look into the spool", error);
        let reader = self.reader();
        let (items, bytes) = line::totals(&reader.conn, store).map_err(failed)?;
        let number = |sql: &str| {
            let mut statement = reader.conn.prepare_cached(sql)?;
            statement.query_row([store.number()], |row| row.get::<_, Option<i64>>(0))
        };
        // Of each queue its first, which an index finds; the whole line would be read otherwise.
        let oldest = number(
            "SELECT min((SELECT stored_at FROM item WHERE item.store = meter.store
                         AND item.queue = meter.queue ORDER BY id LIMIT 1))
             FROM meter WHERE store = ?1 AND queue <> ''",
        );
        let quarantined = number("SELECT items FROM shelf WHERE store = ?1");
        Ok(Waiting {
            items,
            bytes,
            oldest: oldest.map_err(failed)?.map(Timestamp::from_millis),
            quarantined: quarantined.map_err(failed)?.unwrap_or(0).max(0).unsigned_abs(),
        })
    }

    /// Items that have left both stores since the file was made, delivered or put away, by whichever process:
    /// two looks at it are the rate of a drain.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn departed(&self) -> Result<u64, SpoolError> {
        // The highest number that was ever given, without those that are still there.
        let sql = "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'item'), 0)
                   - (SELECT sum(items) FROM meter WHERE queue = '')";
        let reader = self.reader();
        let count = reader
            .conn
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row([], |row| row.get::<_, i64>(0)));
        let count =
            count.map_err(|error| SpoolError::sqlite("could not look into the spool", error))?;
        Ok(count.max(0).unsigned_abs())
    }

    /// Whether the outbox would take a task now: there is room, and a write reaches the disk.
    ///
    /// # Errors
    /// [`SpoolError`]: what a task would be refused with.
    pub async fn check(&self) -> Result<(), SpoolError> {
        let limits = self.limits();
        self.writer.call(move |conn| line::check(conn, &limits)).await
    }

    /// What waits in a store, oldest first, `limit` items at most.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn items(&self, store: Store, limit: u32) -> Result<Vec<Stored>, SpoolError> {
        let sql =
            "SELECT id, queue, name, stored_at FROM item WHERE store = ?1 ORDER BY id LIMIT ?2";
        let reader = self.reader();
        let list = || -> rusqlite::Result<Vec<Stored>> {
            let mut statement = reader.conn.prepare_cached(sql)?;
            let rows = statement.query_map(params![store.number(), limit], |row| {
                Ok(Stored {
                    id: row.get(0)?,
                    queue: QueueName::stored(&row.get::<_, String>(1)?),
                    name: row.get(2)?,
                    stored_at: Timestamp::from_millis(row.get(3)?),
                })
            })?;
            rows.collect()
        };
        list().map_err(|error| SpoolError::sqlite("could not list the spool", error))
    }

    /// What is in quarantine, oldest first, `limit` items at most.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn quarantine(&self, store: Store, limit: u32) -> Result<Vec<Quarantined>, SpoolError> {
        let sql = "SELECT id, queue, name, stored_at, put_at, why FROM quarantine
                   WHERE store = ?1 ORDER BY id LIMIT ?2";
        let reader = self.reader();
        let list = || -> rusqlite::Result<Vec<Quarantined>> {
            let mut statement = reader.conn.prepare_cached(sql)?;
            let rows = statement.query_map(params![store.number(), limit], |row| {
                Ok(Quarantined {
                    id: row.get(0)?,
                    store,
                    queue: QueueName::stored(&row.get::<_, String>(1)?),
                    name: row.get(2)?,
                    stored_at: Timestamp::from_millis(row.get(3)?),
                    put_at: Timestamp::from_millis(row.get(4)?),
                    why: row.get(5)?,
                })
            })?;
            rows.collect()
        };
        list().map_err(|error| SpoolError::sqlite("could not list the quarantine", error))
    }

    /// Puts an item of the quarantine back at the end of its line. False if it is not there.
    ///
    /// # Errors
    /// [`SpoolError`] if it cannot be written.
    pub async fn retry(&self, id: i64, now: Timestamp) -> Result<bool, SpoolError> {
        let back = move |conn: &Connection| {
            let sql = "INSERT INTO item (store, queue, name, durability, stored_at, alone, record)
                       SELECT store, queue, name, durability, ?2, 1, record
                       FROM quarantine WHERE id = ?1";
            let moved = conn.prepare_cached(sql)?.execute(params![id, now.as_millis()])?;
            conn.prepare_cached("DELETE FROM quarantine WHERE id = ?1")?.execute([id])?;
            Ok(Ok(moved > 0))
        };
        let moved = self.writer.call(back).await?;
        self.shared.stored.notify_waiters();
        Ok(moved)
    }

    /// Deletes an item of the quarantine for good. False if it is not there.
    ///
    /// # Errors
    /// [`SpoolError`] if it cannot be written.
    pub async fn drop_quarantined(&self, id: i64) -> Result<bool, SpoolError> {
        let delete = move |conn: &Connection| {
            let sql = "DELETE FROM quarantine WHERE id = ?1";
            Ok(Ok(conn.prepare_cached(sql)?.execute([id])? > 0))
        };
        self.writer.call(delete).await
    }
}
