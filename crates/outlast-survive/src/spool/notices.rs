//! The notices of outages in the spool: each process writes its own, anybody reads them all.

use std::time::Duration;

use outlast_core::{Home, Timestamp};
use rusqlite::{Connection, params};

use super::Spool;
use super::error::SpoolError;
use crate::breaker::HomeStatus;

/// A notice that was not written again for so long is that of a process that is gone or stands still: six times what lies
/// between two writes.
const STALE: Duration = Duration::from_secs(30);

/// An outage as a process of this machine sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The process.
    pub pid: u32,
    /// What is down for it.
    pub home: Home,
    /// Since when.
    pub since: Timestamp,
    /// What kind of failure it was, as [`Kind::as_str`](outlast_core::Kind::as_str) has it.
    pub kind: String,
    /// The failure's text.
    pub reason: String,
    /// Whether its enqueues pass: `closed` if they do, else `open` or `half-open`.
    pub produce: String,
    /// Whether its claims and settlements pass, likewise.
    pub consume: String,
    /// When it last said so.
    pub seen_at: Timestamp,
}

impl Spool {
    /// What the processes that share this file say of outages now, the longest first.
    ///
    /// # Errors
    /// [`SpoolError`] if the file cannot be read.
    pub fn notices(&self, now: Timestamp) -> Result<Vec<Notice>, SpoolError> {
        let sql = "SELECT pid, home, since, kind, reason, produce, consume, seen_at FROM notice
                   WHERE seen_at >= ?1 ORDER BY since, pid, home";
        let reader = self.reader();
        let list = || -> rusqlite::Result<Vec<Notice>> {
            let mut statement = reader.conn.prepare_cached(sql)?;
            let rows = statement.query_map([now.minus(STALE).as_millis()], |row| {
                Ok(Notice {
                    pid: row.get(0)?,
                    home: Home(row.get::<_, String>(1)?.into()),
                    since: Timestamp::from_millis(row.get(2)?),
                    kind: row.get(3)?,
                    reason: row.get(4)?,
                    produce: row.get(5)?,
                    consume: row.get(6)?,
                    seen_at: Timestamp::from_millis(row.get(7)?),
                })
            })?;
            rows.collect()
        };
        list().map_err(|error| SpoolError::sqlite("could not read who is in an outage", error))
    }

    /// Replaces what a process has said; those of it that are well say nothing. What others have left behind goes.
    pub(crate) async fn notice(
        &self,
        process: i64,
        homes: Vec<HomeStatus>,
        now: Timestamp,
    ) -> Result<(), SpoolError> {
        let write = move |conn: &Connection| {
            let gone = "DELETE FROM notice WHERE process = ?1 OR seen_at < ?2";
            let stale = now.minus(STALE).as_millis();
            conn.prepare_cached(gone)?.execute(params![process, stale])?;
            let sql = "INSERT INTO notice VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
            let mut insert = conn.prepare_cached(sql)?;
            for status in &homes {
                let Some(outage) = &status.outage else { continue };
                insert.execute(params![
                    process,
                    &*status.home.0,
                    std::process::id(),
                    outage.since.as_millis(),
                    outage.kind.as_str(),
                    outage.reason,
                    status.produce.as_str(),
                    status.consume.as_str(),
                    now.as_millis(),
                ])?;
            }
            Ok(Ok(()))
        };
        self.writer.call(write).await
    }
}
