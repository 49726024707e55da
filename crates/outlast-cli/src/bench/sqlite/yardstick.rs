//! What the disk and SQLite themselves can do, without a queue around them.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use rusqlite::{Connection, params};

use super::{PAYLOAD_BYTES, Size, Stopwatch, payload};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Appends a second, each synced.
pub(super) fn appends(folder: &Path, size: Size) -> Result<f64> {
    let mut file = File::create(folder.join("appends"))?;
    let bytes = [b'x'; PAYLOAD_BYTES];
    let (begin, mut count) = (Stopwatch::start(), 0_u32);
    while begin.seconds() < size.seconds {
        file.write_all(&bytes)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / begin.seconds())
}

/// A bare table with the columns and the index that a queue cannot do without, durable like ours.
pub(super) struct Bare {
    connection: Connection,
    next: usize,
}

impl Bare {
    pub(super) fn new(folder: &Path, name: &str) -> Result<Self> {
        let connection = Connection::open(folder.join(name))?;
        connection.execute_batch(
            "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-32000;
             CREATE TABLE task(rid INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, state INT, score INT, msg BLOB);
             CREATE INDEX task_state ON task(state, score);",
        )?;
        Ok(Self { connection, next: 0 })
    }

    /// Inserts a second, `batch` to a transaction, until the time is over or `most` are in.
    pub(super) fn insert(&mut self, batch: usize, most: usize, seconds: f64) -> Result<f64> {
        let (begin, first) = (Stopwatch::start(), self.next);
        while begin.seconds() < seconds && self.next - first < most {
            let transaction = self.connection.transaction()?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT INTO task(id, state, score, msg) VALUES (?1, 0, ?2, ?3)",
                )?;
                for _ in 0..batch {
                    let id = uuid::Uuid::now_v7().to_string();
                    insert.execute(params![id, self.next as i64, payload(self.next).as_bytes()])?;
                    self.next += 1;
                }
            }
            transaction.commit()?;
        }
        Ok((self.next - first) as f64 / begin.seconds())
    }

    /// Takes and deletes a second, `batch` to a transaction, in two transactions like a claim and a
    /// settle, until the table is empty.
    pub(super) fn drain(&mut self, batch: usize) -> Result<f64> {
        let (begin, mut count) = (Stopwatch::start(), 0_usize);
        loop {
            let taken: Vec<i64> = {
                let transaction = self.connection.transaction()?;
                let taken = {
                    let mut take = transaction.prepare_cached(
                        "UPDATE task SET state = 1 WHERE rid IN
                         (SELECT rid FROM task WHERE state = 0 ORDER BY score LIMIT ?1) RETURNING rid, msg",
                    )?;
                    let rows = take.query_map([batch as i64], |row| row.get::<_, i64>(0))?;
                    rows.collect::<rusqlite::Result<Vec<i64>>>()?
                };
                transaction.commit()?;
                taken
            };
            if taken.is_empty() {
                return Ok(count as f64 / begin.seconds());
            }
            let transaction = self.connection.transaction()?;
            for rid in &taken {
                transaction.prepare_cached("DELETE FROM task WHERE rid = ?1")?.execute([rid])?;
            }
            transaction.commit()?;
            count += taken.len();
        }
    }
}
