//! Sweeping: moving what time has moved, in bounded steps. Everything here is idempotent, and a sweep
//! that finds nothing writes nothing.

use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::limits::{ARCHIVE_AGE, LOSSES_MAX, STATS_DAYS, SWEEP_MAX, check_count};
use outlast_core::{QueueName, SweepBudget, Swept, TaskState, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use crate::enqueue::release_lock;
use crate::error::Fail;
use crate::groups::{self, Set};
use crate::tally::Q;
use crate::writer::Tx;
use crate::{housekeeping, moves, rows};

/// What [`promote`] did.
pub(crate) struct Promoted {
    pub(crate) moved: usize,
    /// True if more is due than the limit allowed.
    pub(crate) more: bool,
}

/// Sweeps a queue; see [`outlast_core::Broker::sweep`].
pub(crate) fn sweep(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    now: Timestamp,
    budget: SweepBudget,
    archive_max: usize,
) -> Result<Swept, Fail> {
    check_count("moves_max", budget.moves_max, SWEEP_MAX)?;
    let limit = budget.moves_max;
    let mut more = housekeeping::sweep(tx, now, limit)?;
    let mut swept = Swept::default();
    let Some(q) = tx.tally.find(tx.conn, queue)? else {
        return Ok(Swept { more, ..swept });
    };
    let sweeper = Sweeper { queue, q, qid: tx.tally.qid(q), now, limit };
    if budget.recovery == Recovery::Allowed {
        more |= sweeper.recover(tx, &mut swept)?;
        more |= sweeper.reclaim(tx, &mut swept)?;
    }
    let promoted = promote(tx, queue, q, now, limit)?;
    swept.due = promoted.moved;
    more |= promoted.moved >= limit;
    more |= sweeper.expire(tx, &mut swept)?;
    more |= sweeper.trim(tx, archive_max, &mut swept)?;
    more |= sweeper.forget(tx.conn)?;
    swept.more = more;
    swept.next_due = next_due(tx.conn, sweeper.qid)?.map(Timestamp::from_millis);
    Ok(swept)
}

const DUE: &str = "SELECT rid, score, grp FROM task WHERE queue = ?1 AND state = ?2 \
     AND score <= ?3 ORDER BY score, rid LIMIT ?4";

/// Moves what is due to the line, or into its group, in the order of the due times.
pub(crate) fn promote(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    q: Q,
    now: Timestamp,
    limit: usize,
) -> Result<Promoted, Fail> {
    let mut due: Vec<(i64, i64, Option<String>, TaskState)> = Vec::new();
    for state in [TaskState::Scheduled, TaskState::Retry] {
        if tx.tally.row(q).count(state) > 0 {
            let mut select = tx.conn.prepare_cached(DUE)?;
            let qid = tx.tally.qid(q);
            let one_more = limit.cast_signed().saturating_add(1);
            let bounds = params![qid, rows::code(state), now.as_millis(), one_more];
            let rows = select.query_map(bounds, |row| {
                Ok((row.get::<_, i64>(1)?, row.get::<_, i64>(0)?, row.get(2)?, state))
            })?;
            for row in rows {
                due.push(row?);
            }
        }
    }
    due.sort_by_key(|(score, rid, _, _)| (*score, *rid));
    let more = due.len() > limit;
    due.truncate(limit);
    for (_, rid, group, from) in &due {
        promote_one(tx, q, now, *rid, group.as_deref(), *from)?;
    }
    if !due.is_empty() {
        tx.ready(queue);
    }
    Ok(Promoted { moved: due.len(), more })
}

fn promote_one(
    tx: &mut Tx<'_>,
    q: Q,
    now: Timestamp,
    rid: i64,
    group: Option<&str>,
    from: TaskState,
) -> Result<(), Fail> {
    let now = now.as_millis();
    let row = tx.tally.row(q);
    match group {
        Some(group) => {
            row.moved(from, TaskState::Aggregating);
            let qid = row.qid;
            tx.conn.prepare_cached(moves::TO_GROUP)?.execute([rid, now])?;
            groups::joined(tx.conn, qid, group, now)?;
        }
        None => {
            row.moved(from, TaskState::Pending);
            let place = row.back();
            tx.conn.prepare_cached(moves::TO_PENDING)?.execute([rid, place, now])?;
        }
    }
    Ok(())
}

/// When the next scheduled or retry task of a queue is due.
pub(crate) fn next_due(conn: &Connection, qid: i64) -> rusqlite::Result<Option<i64>> {
    let mut earliest = conn.prepare_cached(
        "SELECT score FROM task WHERE queue = ?1 AND state = ?2 ORDER BY score LIMIT 1",
    )?;
    let mut next: Option<i64> = None;
    for state in [TaskState::Scheduled, TaskState::Retry] {
        let due: Option<i64> =
            earliest.query_row([qid, rows::code(state)], |row| row.get(0)).optional()?;
        next = match (next, due) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
    Ok(next)
}

struct Sweeper<'a> {
    queue: &'a QueueName,
    q: Q,
    qid: i64,
    now: Timestamp,
    limit: usize,
}

/// A lease that has ended, or whose holder is dead.
struct Ended {
    rid: i64,
    losses: i64,
    is_dead: bool,
}

impl Sweeper<'_> {
    fn limit(&self) -> i64 {
        self.limit.cast_signed() as i64
    }

    /// Takes leases back; true if there are more.
    fn recover(&self, tx: &mut Tx<'_>, swept: &mut Swept) -> Result<bool, Fail> {
        if tx.tally.row(self.q).count(TaskState::Active) == 0 {
            return Ok(false);
        }
        let ended = self.ended_leases(tx.conn)?;
        let more = ended.len() >= self.limit;
        for lease in ended {
            self.take_back(tx, &lease, swept)?;
        }
        Ok(more)
    }

    fn ended_leases(&self, conn: &Connection) -> Result<Vec<Ended>, Fail> {
        // The second half reads all active tasks of the queue, but only while a worker is known to
        // be dead: they are as many as the workers have slots.
        let mut select = conn.prepare_cached(
            "SELECT rid, losses, 0 FROM task WHERE queue = ?1 AND state = 1 AND score <= ?2 \
             UNION ALL \
             SELECT rid, losses, 1 FROM task WHERE queue = ?1 AND state = 1 AND score > ?2 \
               AND EXISTS (SELECT 1 FROM worker WHERE dead = 1) \
               AND token IN (SELECT token FROM worker WHERE dead = 1) \
             LIMIT ?3",
        )?;
        let rows = select.query_map([self.qid, self.now.as_millis(), self.limit()], |row| {
            Ok(Ended { rid: row.get(0)?, losses: row.get(1)?, is_dead: row.get(2)? })
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    fn take_back(&self, tx: &mut Tx<'_>, lease: &Ended, swept: &mut Swept) -> Result<(), Fail> {
        let losses = lease.losses.saturating_add(1);
        let error = match lease.is_dead {
            true => "worker died: its process is gone",
            false => "lease expired: its worker vanished",
        };
        let now = self.now.as_millis();
        swept.recovered += 1;
        if losses >= i64::from(LOSSES_MAX) {
            swept.given_up += 1;
            tx.conn.prepare_cached(moves::LOSE_LAST)?.execute(params![lease.rid, now, error])?;
            tx.tally.row(self.q).moved(TaskState::Active, TaskState::Archived);
            return Ok(());
        }
        // Not at once: a task that kills its worker shall not take the next one in the same second.
        let due = self.now.plus(Duration::from_secs(losses.clamp(1, 5).unsigned_abs()));
        let due = due.as_millis();
        tx.conn.prepare_cached(moves::LOSE)?.execute(params![lease.rid, due, error, now])?;
        tx.tally.row(self.q).moved(TaskState::Active, TaskState::Retry);
        tx.due(self.queue, due);
        Ok(())
    }

    /// Gives the members of abandoned sets back; true if there are more.
    fn reclaim(&self, tx: &mut Tx<'_>, swept: &mut Swept) -> Result<bool, Fail> {
        if tx.tally.row(self.q).count(TaskState::Aggregating) == 0 {
            return Ok(false);
        }
        let sets = {
            let mut select = tx.conn.prepare_cached(
                "SELECT sid, grp, token, until FROM aggregation WHERE queue = ?1 AND (until <= ?2 \
                 OR token IN (SELECT token FROM worker WHERE dead = 1)) LIMIT ?3",
            )?;
            let rows = select.query_map([self.qid, self.now.as_millis(), self.limit()], |row| {
                Ok(Set { sid: row.get(0)?, group: row.get(1)?, token: row.get(2)? })
            })?;
            rows.collect::<rusqlite::Result<Vec<_>>>()?
        };
        for set in &sets {
            groups::give_back(tx.conn, self.qid, set)?;
            swept.reclaimed += 1;
            tx.ready(self.queue);
        }
        Ok(sets.len() >= self.limit)
    }

    /// Deletes completed and archived tasks whose time is over; true if there are more.
    fn expire(&self, tx: &mut Tx<'_>, swept: &mut Swept) -> Result<bool, Fail> {
        let mut more = false;
        let ends =
            [(TaskState::Completed, self.now), (TaskState::Archived, self.now.minus(ARCHIVE_AGE))];
        for (state, end) in ends {
            if tx.tally.row(self.q).count(state) == 0 {
                continue;
            }
            let gone = self.delete_until(tx, state, end, self.limit)?;
            swept.deleted += gone;
            more |= gone >= self.limit;
        }
        Ok(more)
    }

    /// Deletes the oldest archived tasks beyond the number that is kept; true if there are more.
    fn trim(&self, tx: &mut Tx<'_>, kept: usize, swept: &mut Swept) -> Result<bool, Fail> {
        let archived = tx.tally.row(self.q).count(TaskState::Archived);
        let surplus = archived.saturating_sub(i64::try_from(kept).unwrap_or(i64::MAX));
        if surplus <= 0 {
            return Ok(false);
        }
        let most = usize::try_from(surplus).unwrap_or(usize::MAX).min(self.limit);
        let gone = self.delete_until(tx, TaskState::Archived, Timestamp::MAX, most)?;
        swept.deleted += gone;
        Ok(gone >= self.limit)
    }

    /// Event::Expire, for at most `most` tasks.
    fn delete_until(
        &self,
        tx: &mut Tx<'_>,
        state: TaskState,
        end: Timestamp,
        most: usize,
    ) -> Result<usize, Fail> {
        let expired = {
            let mut select = tx.conn.prepare_cached(
                "SELECT rid, id, unique_key FROM task WHERE queue = ?1 AND state = ?2 \
                 AND score <= ?3 ORDER BY score, rid LIMIT ?4",
            )?;
            let most = most.cast_signed() as i64;
            let bounds = params![self.qid, rows::code(state), end.as_millis(), most];
            let rows = select.query_map(bounds, |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(i64, String, Option<String>)>>>()?
        };
        for (rid, id, unique_key) in &expired {
            release_lock(tx.conn, self.qid, unique_key.as_deref(), id)?;
            tx.conn.prepare_cached(moves::DELETE)?.execute([rid])?;
            tx.tally.row(self.q).left(state);
        }
        Ok(expired.len())
    }

    /// Forgets locks and keys that have expired, and statistics that are too old.
    fn forget(&self, conn: &Connection) -> Result<bool, Fail> {
        let now = self.now.as_millis();
        let mut most = 0;
        for sql in [FORGET_LOCKS, FORGET_ONCE] {
            most = most.max(conn.prepare_cached(sql)?.execute([self.qid, now, self.limit()])?);
        }
        conn.prepare_cached("DELETE FROM day WHERE queue = ?1 AND day <= ?2")?
            .execute([self.qid, self.now.as_days() - i64::from(STATS_DAYS)])?;
        Ok(most >= self.limit)
    }
}

const FORGET_LOCKS: &str = "DELETE FROM unique_lock WHERE queue = ?1 AND key IN \
     (SELECT key FROM unique_lock WHERE queue = ?1 AND expires <= ?2 LIMIT ?3)";
const FORGET_ONCE: &str = "DELETE FROM once WHERE queue = ?1 AND key IN \
     (SELECT key FROM once WHERE queue = ?1 AND expires <= ?2 LIMIT ?3)";
