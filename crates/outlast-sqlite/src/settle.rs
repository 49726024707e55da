//! Settling: what becomes of runs that have ended. Applied if and only if the task is still leased to
//! the settlement's token, with one exception, a success that comes late (adoption).

use std::sync::Arc;

use outlast_core::limits::{RESULT_BYTES_MAX, check_batch};
use outlast_core::{
    Attempt, NewTask, Outcome, QueueName, Reject, SettleVerdict, Settled, Settlement, Stamp,
    TaskState, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::enqueue::{self, release_lock};
use crate::error::Fail;
use crate::groups::{self, Set};
use crate::session::{self, Arrived};
use crate::tally::{Ended, Q};
use crate::writer::Tx;
use crate::{moves, rows};

/// A verdict as the session's record keeps it. The names are stored: never change them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Applied,
    Adopted,
    LeaseLost,
    Rejected(String),
}

/// Settles a batch; see [`outlast_core::Broker::settle`].
pub(crate) fn settle(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    stamp: &Stamp,
    now: Timestamp,
    settlements: &Arc<[Settlement]>,
) -> Result<Settled, Fail> {
    check_batch("batch of settlements", settlements.len())?;
    let q = tx.tally.open(tx.conn, queue)?;
    let (kept, lost) = match session::arrive(tx, q, stamp)? {
        Arrived::Repeat(record, lost) => {
            (session::decode(&record, settlements.len(), &Kept::Applied)?, lost)
        }
        Arrived::Apply(place) => {
            let settler = Settler { queue, q, qid: tx.tally.qid(q), now };
            let mut kept = Vec::with_capacity(settlements.len());
            for settlement in settlements.iter() {
                kept.push(settler.one(tx, settlement)?);
            }
            let record = session::encode(&kept, |kept| matches!(kept, Kept::Applied));
            place.record(tx, now, &record)?;
            (kept, place.lost)
        }
    };
    Ok(Settled { verdicts: kept.into_iter().map(verdict).collect(), lost })
}

fn verdict(kept: Kept) -> SettleVerdict {
    match kept {
        Kept::Applied => SettleVerdict::Applied,
        Kept::Adopted => SettleVerdict::Adopted,
        Kept::LeaseLost => SettleVerdict::LeaseLost,
        Kept::Rejected(why) => SettleVerdict::Rejected(Reject(why.into())),
    }
}

/// What has to be known of a task to settle it.
struct Run {
    rid: i64,
    state: TaskState,
    token: i64,
    retention_s: i64,
    unique_key: Option<String>,
}

const FIND: &str = "SELECT rid, state, token, retention_s, unique_key FROM task \
     WHERE queue = ?1 AND id = ?2 AND state <> 8";

struct Settler<'a> {
    queue: &'a QueueName,
    q: Q,
    qid: i64,
    now: Timestamp,
}

impl Settler<'_> {
    fn one(&self, tx: &mut Tx<'_>, settlement: &Settlement) -> Result<Kept, Fail> {
        let lease = &settlement.lease;
        if let Some(set) = groups::find_set(tx.conn, self.qid, lease.id.as_str())? {
            return self.set(tx, &set, settlement);
        }
        let Some(run) = find(tx.conn, self.qid, lease.id.as_str())? else {
            return Ok(Kept::LeaseLost);
        };
        if run.token != i64::from(lease.token.get()) {
            return Ok(Kept::LeaseLost);
        }
        match (run.state, &settlement.outcome) {
            (TaskState::Active, outcome) => match refusal(outcome) {
                Some(why) => Ok(Kept::Rejected(why)),
                None => {
                    self.apply(tx, &run, lease.id.as_str(), outcome)?;
                    Ok(Kept::Applied)
                }
            },
            // The token is still there only if a lost lease brought the task here, and nobody has
            // started it since.
            (TaskState::Retry | TaskState::Archived, outcome @ Outcome::Done { result }) => {
                if let Some(why) = refusal(outcome) {
                    return Ok(Kept::Rejected(why));
                }
                self.done(tx, &run, lease.id.as_str(), result.as_deref())?;
                Ok(Kept::Adopted)
            }
            _ => Ok(Kept::LeaseLost),
        }
    }

    fn apply(&self, tx: &mut Tx<'_>, run: &Run, id: &str, outcome: &Outcome) -> Result<(), Fail> {
        match outcome {
            Outcome::Done { result } => self.done(tx, run, id, result.as_deref()),
            Outcome::Retry { at, error, attempt } => self.retry(tx, run, *at, error, *attempt),
            Outcome::Snooze { until } => self.snooze(tx, run, *until),
            Outcome::Archive { error } => self.archive(tx, run, error),
            Outcome::Revoke => self.revoke(tx, run, id),
            Outcome::Release => self.release(tx, run),
            // Refused before.
            _ => Ok(()),
        }
    }

    fn done(
        &self,
        tx: &mut Tx<'_>,
        run: &Run,
        id: &str,
        result: Option<&[u8]>,
    ) -> Result<(), Fail> {
        release_lock(tx.conn, self.qid, run.unique_key.as_deref(), id)?;
        if run.retention_s > 0 {
            let expires = self.now.plus(rows::seconds(run.retention_s)).as_millis();
            tx.conn.prepare_cached(moves::COMPLETE)?.execute(params![
                run.rid,
                expires,
                self.now.as_millis(),
                result
            ])?;
            tx.tally.row(self.q).moved(run.state, TaskState::Completed);
        } else {
            tx.conn.prepare_cached(moves::DELETE)?.execute([run.rid])?;
            tx.tally.row(self.q).left(run.state);
        }
        tx.tally.ended(self.q, self.now, Ended::Well);
        Ok(())
    }

    fn retry(
        &self,
        tx: &mut Tx<'_>,
        run: &Run,
        at: Timestamp,
        error: &str,
        attempt: Attempt,
    ) -> Result<(), Fail> {
        let spent = attempt == Attempt::Spent;
        tx.conn.prepare_cached(moves::RETRY)?.execute(params![
            run.rid,
            at.as_millis(),
            moves::clipped(error),
            self.now.as_millis(),
            i64::from(spent)
        ])?;
        tx.tally.row(self.q).moved(run.state, TaskState::Retry);
        if spent {
            tx.tally.ended(self.q, self.now, Ended::Badly);
        }
        tx.due(self.queue, at.as_millis());
        Ok(())
    }

    fn snooze(&self, tx: &mut Tx<'_>, run: &Run, until: Timestamp) -> Result<(), Fail> {
        tx.conn.prepare_cached(moves::SNOOZE)?.execute([run.rid, until.as_millis()])?;
        tx.tally.row(self.q).moved(run.state, TaskState::Scheduled);
        tx.due(self.queue, until.as_millis());
        Ok(())
    }

    fn archive(&self, tx: &mut Tx<'_>, run: &Run, error: &str) -> Result<(), Fail> {
        let (now, error) = (self.now.as_millis(), moves::clipped(error));
        tx.conn.prepare_cached(moves::FAIL)?.execute(params![run.rid, now, error])?;
        tx.tally.row(self.q).moved(run.state, TaskState::Archived);
        tx.tally.ended(self.q, self.now, Ended::Badly);
        Ok(())
    }

    fn revoke(&self, tx: &mut Tx<'_>, run: &Run, id: &str) -> Result<(), Fail> {
        release_lock(tx.conn, self.qid, run.unique_key.as_deref(), id)?;
        tx.conn.prepare_cached(moves::DELETE)?.execute([run.rid])?;
        tx.tally.row(self.q).left(run.state);
        tx.tally.ended(self.q, self.now, Ended::Well);
        Ok(())
    }

    fn release(&self, tx: &mut Tx<'_>, run: &Run) -> Result<(), Fail> {
        let row = tx.tally.row(self.q);
        let place = row.front();
        row.moved(run.state, TaskState::Pending);
        let now = self.now.as_millis();
        tx.conn.prepare_cached(moves::RELEASE)?.execute([run.rid, place, now])?;
        tx.ready(self.queue);
        Ok(())
    }

    fn set(&self, tx: &mut Tx<'_>, set: &Set, settlement: &Settlement) -> Result<Kept, Fail> {
        if set.token != i64::from(settlement.lease.token.get()) {
            return Ok(Kept::LeaseLost);
        }
        match &settlement.outcome {
            Outcome::Release => {
                groups::give_back(tx.conn, self.qid, set)?;
                tx.ready(self.queue);
                Ok(Kept::Applied)
            }
            Outcome::Aggregated { into } => self.aggregated(tx, set, into),
            _ => Ok(Kept::Rejected(
                "an aggregation set can only be aggregated or released".to_owned(),
            )),
        }
    }

    /// The members go and the task that stands for them comes. Whether it may come is judged without
    /// them (it may take over an id or a lock of theirs), so they go first, within a savepoint.
    fn aggregated(&self, tx: &mut Tx<'_>, set: &Set, into: &NewTask) -> Result<Kept, Fail> {
        tx.conn.prepare_cached("SAVEPOINT aggregated")?.execute([])?;
        let before = tx.tally.row(self.q).clone();
        let gone = self.delete_members(tx, set)?;
        let stored = enqueue::store_one(tx, self.queue, self.q, self.now, into)?;
        let kept = match stored {
            Ok(()) => {
                groups::end_set(tx.conn, set)?;
                groups::changed(tx.conn, self.qid, &set.group, 0, -gone)?;
                Kept::Applied
            }
            Err(why) => {
                tx.conn.prepare_cached("ROLLBACK TO aggregated")?.execute([])?;
                *tx.tally.row(self.q) = before;
                Kept::Rejected(why)
            }
        };
        tx.conn.prepare_cached("RELEASE aggregated")?.execute([])?;
        Ok(kept)
    }

    fn delete_members(&self, tx: &mut Tx<'_>, set: &Set) -> Result<i64, Fail> {
        let mut select =
            tx.conn.prepare_cached("SELECT rid, id, unique_key FROM task WHERE set_id = ?1")?;
        let members = select
            .query_map([set.sid], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?))
            })?
            .collect::<rusqlite::Result<Vec<(i64, String, Option<String>)>>>()?;
        for (rid, id, unique_key) in &members {
            release_lock(tx.conn, self.qid, unique_key.as_deref(), id)?;
            tx.conn.prepare_cached(moves::DELETE)?.execute([rid])?;
            tx.tally.row(self.q).left(TaskState::Aggregating);
        }
        Ok(i64::try_from(members.len()).unwrap_or(i64::MAX))
    }
}

/// Why an outcome can become of no single task.
fn refusal(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Done { result: Some(result) } if result.len() > RESULT_BYTES_MAX => {
            let bytes = result.len();
            Some(format!("result of {bytes} bytes is too large: at most {RESULT_BYTES_MAX}"))
        }
        Outcome::Aggregated { .. } => Some("a single task cannot be aggregated".to_owned()),
        Outcome::Done { .. }
        | Outcome::Retry { .. }
        | Outcome::Snooze { .. }
        | Outcome::Archive { .. }
        | Outcome::Revoke
        | Outcome::Release => None,
        other => Some(format!("outcome {other:?} is unknown to this broker")),
    }
}

fn find(conn: &Connection, qid: i64, id: &str) -> Result<Option<Run>, Fail> {
    let found = conn
        .prepare_cached(FIND)?
        .query_row(params![qid, id], |row| {
            Ok(Run {
                rid: row.get(0)?,
                state: rows::state(row.get(1)?).unwrap_or(TaskState::Archived),
                token: row.get(2)?,
                retention_s: row.get(3)?,
                unique_key: row.get(4)?,
            })
        })
        .optional()?;
    Ok(found)
}
