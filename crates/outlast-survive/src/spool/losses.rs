//! The losses that brokers have told of, for all processes that share the spool: the one that delivers a batch is told, and another
//! one may have been acknowledged what is lost.

use outlast_core::{Durability, Lost, QueueName, Stamp, Timestamp};
use rusqlite::{Connection, params};

use super::error::SpoolError;
use super::{Spool, session_of};

/// Losses that are remembered: more than a process has lanes. The oldest goes first; it was read half a second after it came.
const LOSSES_MAX: i64 = 10_000;

/// The answer to a batch that told of a loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) queue: QueueName,
    /// The batch.
    pub(crate) told_by: Stamp,
    pub(crate) lost: Lost,
    pub(crate) now: Timestamp,
}

impl Spool {
    /// Lets the other processes know of a loss that this one was told of.
    pub(crate) async fn tell_loss(&self, process: i64, loss: Loss) -> Result<(), SpoolError> {
        let Loss { queue, told_by, lost, now } = loss;
        let number = |seq: u64| i64::try_from(seq).unwrap_or(i64::MAX);
        let write = move |conn: &Connection| {
            conn.prepare_cached(
                "INSERT INTO loss (process, queue, session, lane, seq, after_seq, told_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                process,
                queue.as_str(),
                told_by.session.0.to_be_bytes(),
                told_by.lane,
                number(told_by.seq),
                number(lost.after_seq),
                now.as_millis(),
            ])?;
            let oldest = conn.last_insert_rowid() - LOSSES_MAX;
            conn.prepare_cached("DELETE FROM loss WHERE id <= ?1")?.execute([oldest])?;
            Ok(Ok(()))
        };
        self.writer.call(write).await
    }

    /// The losses that other processes were told of after this one, and the number of the last.
    pub(crate) fn losses(&self, process: i64, after: i64) -> Result<(Vec<Loss>, i64), SpoolError> {
        let sql = "SELECT id, queue, session, lane, seq, after_seq, told_at FROM loss
                   WHERE id > ?1 AND process <> ?2 ORDER BY id";
        let reader = self.reader();
        let number = |seq: i64| seq.max(0).unsigned_abs();
        let list = || -> rusqlite::Result<Vec<(i64, Loss)>> {
            let mut statement = reader.conn.prepare_cached(sql)?;
            let rows = statement.query_map([after, process], |row| {
                let told_by = Stamp {
                    session: session_of(row.get(2)?),
                    lane: row.get(3)?,
                    seq: number(row.get(4)?),
                    durability: Durability::Accepted,
                };
                let queue = QueueName::stored(&row.get::<_, String>(1)?);
                let lost = Lost { after_seq: number(row.get(5)?) };
                let now = Timestamp::from_millis(row.get(6)?);
                Ok((row.get(0)?, Loss { queue, told_by, lost, now }))
            })?;
            rows.collect()
        };
        let losses =
            list().map_err(|error| SpoolError::sqlite("could not read what was lost", error))?;
        let last = losses.last().map_or(after, |(id, _)| *id);
        Ok((losses.into_iter().map(|(_, loss)| loss).collect(), last))
    }

    /// The number of the last loss that was told of.
    pub(crate) fn last_loss(&self) -> Result<i64, SpoolError> {
        let reader = self.reader();
        let last =
            reader.conn.query_row("SELECT ifnull(max(id), 0) FROM loss", [], |row| row.get(0));
        last.map_err(|error| SpoolError::sqlite("could not read what was lost", error))
    }
}
