//! The source of a move: taking tasks out of everybody's reach, and forgetting them or giving them back.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;
use outlast_core::porter::stamp_at;
use outlast_core::porter::{
    Batch, Concluded, Conclusion, Counts, DayCount, Found, Load, Lock, MOVED_STATES, Order, Parcel,
};
use outlast_core::{
    BrokerError, Epoch, Kind, QueueName, SessionId, Stamp, TaskId, TaskState, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::enqueue::release_lock;
use crate::error::Fail;
use crate::rows::{self, COLUMNS};
use crate::tally::Q;
use crate::writer::Tx;
use crate::{groups, moves};

/// Tasks of a queue that are on their way, at least one where only counters are; zero if no batch is.
pub(crate) fn outgoing(conn: &Connection, qid: i64) -> rusqlite::Result<u64> {
    let count: Option<i64> = conn
        .prepare_cached(
            "SELECT max(1, (SELECT count(*) FROM outgoing WHERE queue = ?1)) FROM move \
             WHERE queue = ?1 AND taken_at IS NOT NULL",
        )?
        .query_row([qid], |row| row.get(0))
        .optional()?;
    Ok(count.map_or(0, i64::unsigned_abs))
}

/// The row of `move`: the latest batch of a queue.
struct Latest {
    target: Epoch,
    session: SessionId,
    seq: u64,
    previous: u64,
    taken_at: Option<Timestamp>,
    counts: Counts,
}

const LATEST: &str =
    "SELECT target, session, seq, previous, taken_at, counts FROM move WHERE queue = ?1";
const KEEP: &str = "INSERT OR REPLACE INTO move \
     (queue, target, session, seq, previous, taken_at, counts) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

impl Latest {
    fn read(conn: &Connection, qid: i64) -> Result<Option<Self>, Fail> {
        let found = conn
            .prepare_cached(LATEST)?
            .query_row([qid], |row| {
                let counts: Option<String> = row.get(5)?;
                Ok(Self {
                    target: Epoch(row.get(0)?),
                    session: SessionId(u128::from_be_bytes(row.get(1)?)),
                    seq: row.get::<_, i64>(2)?.unsigned_abs(),
                    previous: row.get::<_, i64>(3)?.unsigned_abs(),
                    taken_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
                    // Written by us as JSON, or not there.
                    counts: counts
                        .and_then(|text| serde_json::from_str(&text).ok())
                        .unwrap_or_default(),
                })
            })
            .optional()?;
        Ok(found)
    }

    fn keep(&self, conn: &Connection, qid: i64) -> Result<(), Fail> {
        let has_counts = self.counts != Counts::default();
        let counts = has_counts.then(|| serde_json::to_string(&self.counts)).transpose();
        let counts = counts.map_err(|error| {
            BrokerError::new(Kind::Corrupt, "could not write counters").with_source(error)
        })?;
        conn.prepare_cached(KEEP)?.execute(params![
            qid,
            self.target.0,
            &self.session.0.to_be_bytes()[..],
            self.seq.cast_signed(),
            self.previous.cast_signed(),
            self.taken_at.map(Timestamp::as_millis),
            counts,
        ])?;
        Ok(())
    }

    fn stamp(&self) -> Stamp {
        Stamp { seq: self.seq, ..stamp_at(self.session, 0, Timestamp::from_millis(0)) }
    }
}

/// Takes a batch, or answers the one that is on its way; see [`outlast_core::Porter::take`].
pub(super) fn take(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    order: &Order,
    now: Timestamp,
) -> Result<Option<Batch>, Fail> {
    let Some(q) = tx.tally.find(tx.conn, queue)? else { return Ok(None) };
    let qid = tx.tally.qid(q);
    let before = Latest::read(tx.conn, qid)?;
    if let Some(latest) = before.as_ref().filter(|latest| latest.taken_at.is_some()) {
        if order.target.as_ref().is_some_and(|target| *target != latest.target) {
            return Err(elsewhere(queue, &latest.target).into());
        }
        return Ok(Some(batch_of(tx.conn, queue, qid, latest, now)?));
    }
    let Some(target) = &order.target else { return Ok(None) };
    let picked = pick(tx, q, order)?;
    let counts = if picked.is_empty() { take_counts(tx, q)? } else { Counts::default() };
    if picked.is_empty() && counts == Counts::default() {
        return Ok(None);
    }
    take_out(tx, q, &picked)?;
    let same = before.filter(|latest| latest.target == *target);
    let (session, last, previous) =
        same.map_or((order.session, 0, 0), |latest| (latest.session, latest.seq, latest.previous));
    let stamp = stamp_at(session, last, now);
    let latest = Latest {
        target: target.clone(),
        session,
        seq: stamp.seq,
        previous,
        taken_at: Some(now),
        counts,
    };
    latest.keep(tx.conn, qid)?;
    Ok(Some(batch_of(tx.conn, queue, qid, &latest, now)?))
}

fn elsewhere(queue: &QueueName, target: &Epoch) -> BrokerError {
    let why = format!(
        "queue {queue} has a batch on its way to another broker (its epoch is {}): finish that move first",
        target.0
    );
    BrokerError::rejected(why)
}

/// A task that is about to leave.
struct Picked {
    rid: i64,
    state: TaskState,
    group: Option<String>,
}

const NEXT: &str = "SELECT rid, id, grp, length(payload) + coalesce(length(result), 0) FROM task \
     WHERE queue = ?1 AND state = ?2 AND set_id IS NULL ORDER BY score, rid LIMIT ?3";

fn pick(tx: &mut Tx<'_>, q: Q, order: &Order) -> Result<Vec<Picked>, Fail> {
    let except: HashSet<&str> = order.except.iter().map(TaskId::as_str).collect();
    let (mut picked, mut bytes) = (Vec::new(), 0);
    for state in MOVED_STATES {
        if tx.tally.row(q).count(state) == 0 {
            continue;
        }
        let look = (order.tasks_max + except.len()).cast_signed();
        let mut select = tx.conn.prepare_cached(NEXT)?;
        let mut rows = select.query(params![tx.tally.qid(q), rows::code(state), look])?;
        while let Some(row) = rows.next()? {
            if picked.len() >= order.tasks_max || bytes >= order.bytes_max {
                return Ok(picked);
            }
            // An id of another kind is a flaw of the record, which is read later.
            let id: String = row.get(1).unwrap_or_default();
            if !except.contains(id.as_str()) {
                let group = row.get(2).unwrap_or_default();
                picked.push(Picked { rid: row.get(0)?, state, group });
                bytes += usize::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
            }
        }
    }
    Ok(picked)
}

fn take_out(tx: &mut Tx<'_>, q: Q, picked: &[Picked]) -> Result<(), Fail> {
    let qid = tx.tally.qid(q);
    for (nth, task) in picked.iter().enumerate() {
        let nth = nth.cast_signed();
        tx.conn.prepare_cached(moves::SEND)?.execute([task.rid])?;
        tx.conn
            .prepare_cached(
                "INSERT INTO outgoing (queue, nth, rid, state) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![qid, nth, task.rid, rows::code(task.state)])?;
        tx.tally.row(q).left(task.state);
    }
    members_changed(tx.conn, qid, picked, -1)
}

/// Corrects the groups whose members have left or come back.
fn members_changed(conn: &Connection, qid: i64, tasks: &[Picked], sign: i64) -> Result<(), Fail> {
    let mut groups: BTreeMap<&str, i64> = BTreeMap::new();
    for task in tasks.iter().filter(|task| task.state == TaskState::Aggregating) {
        *groups.entry(task.group.as_deref().unwrap_or_default()).or_default() += sign;
    }
    for (group, count) in groups {
        if count > 0 {
            conn.prepare_cached(
                "INSERT INTO grp (queue, name, waiting) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING",
            )?
            .execute(params![qid, group])?;
        }
        groups::changed(conn, qid, group, count, 0)?;
    }
    Ok(())
}

fn take_counts(tx: &mut Tx<'_>, q: Q) -> Result<Counts, Fail> {
    // What the verbs before this one have counted leaves, too.
    tx.tally.flush(tx.conn)?;
    let row = tx.tally.row(q);
    let (processed, failed) = (row.processed.unsigned_abs(), row.failed.unsigned_abs());
    (row.processed, row.failed) = (0, 0);
    let qid = row.qid;
    let mut select = tx
        .conn
        .prepare_cached("DELETE FROM day WHERE queue = ?1 RETURNING day, processed, failed")?;
    let days = select.query_map([qid], |row| {
        Ok(DayCount {
            day: row.get(0)?,
            processed: row.get::<_, i64>(1)?.unsigned_abs(),
            failed: row.get::<_, i64>(2)?.unsigned_abs(),
        })
    })?;
    let mut days = days.collect::<rusqlite::Result<Vec<_>>>()?;
    days.sort_by_key(|day| day.day);
    Ok(Counts { processed, failed, days })
}

fn batch_of(
    conn: &Connection,
    queue: &QueueName,
    qid: i64,
    latest: &Latest,
    now: Timestamp,
) -> Result<Batch, Fail> {
    let columns = COLUMNS.replacen("state", "?2", 1);
    let sql = format!("SELECT {columns}, unique_key, unknown FROM task WHERE rid = ?1");
    let mut read = conn.prepare_cached(&sql)?;
    let (mut parcels, mut unreadable) = (Vec::new(), Vec::new());
    for (rid, state) in members(conn, qid)? {
        let found = read.query_row([rid, state], |row| Loaded::read(row, queue, now))?;
        match found.flaw {
            Some(why) => unreadable.push((found.parcel.task.id, why)),
            None => parcels.push(found.with_lock(conn, qid, now)?),
        }
    }
    Ok(Batch {
        stamp: latest.stamp(),
        previous: latest.previous,
        taken_at: latest.taken_at.unwrap_or(now),
        load: Load { parcels, counts: latest.counts.clone() },
        unreadable,
    })
}

fn members(conn: &Connection, qid: i64) -> rusqlite::Result<Vec<(i64, i64)>> {
    conn.prepare_cached("SELECT rid, state FROM outgoing WHERE queue = ?1 ORDER BY nth")?
        .query_map([qid], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// A row as a parcel, but for the time that its lock has left.
struct Loaded {
    parcel: Parcel,
    unique_key: Option<String>,
    flaw: Option<String>,
}

impl Loaded {
    fn read(row: &Row<'_>, queue: &QueueName, now: Timestamp) -> rusqlite::Result<Self> {
        let stored = rows::read(row, queue, now)?;
        let score = Timestamp::from_millis(stored.score);
        let at = match stored.task.state {
            TaskState::Pending => stored.task.pending_since.unwrap_or(now),
            TaskState::Active
            | TaskState::Aggregating
            | TaskState::Scheduled
            | TaskState::Retry
            | TaskState::Archived
            | TaskState::Completed => score,
        };
        let mut parcel = Parcel::new(stored.task, at);
        let (key, unknown) = (row.get(22), row.get::<_, Option<Vec<u8>>>(23));
        let wrong = |error: &rusqlite::Error| error.to_string();
        let flaw = stored.flaw.or_else(|| key.as_ref().err().map(wrong));
        let flaw = flaw.or_else(|| unknown.as_ref().err().map(wrong));
        parcel.unknown = unknown.ok().flatten().map(Bytes::from).unwrap_or_default();
        Ok(Self { parcel, unique_key: key.ok().flatten(), flaw })
    }

    fn with_lock(self, conn: &Connection, qid: i64, now: Timestamp) -> rusqlite::Result<Parcel> {
        let mut parcel = self.parcel;
        if let Some(key) = &self.unique_key {
            let held_until = conn
                .prepare_cached(
                    "SELECT expires FROM unique_lock WHERE queue = ?1 AND key = ?2 AND owner = ?3 \
                     AND expires > ?4",
                )?
                .query_row(params![qid, key, parcel.task.id.as_str(), now.as_millis()], |row| {
                    row.get(0)
                })
                .optional()?;
            // The digest comes first and holds no colon.
            let digest = key.split_once(':').map_or(key.as_str(), |(digest, _)| digest).to_owned();
            parcel.lock = Some(Lock { digest, held_until: held_until.map(Timestamp::from_millis) });
        }
        Ok(parcel)
    }
}

/// Tasks as they would travel; see [`outlast_core::Porter::parcels`].
pub(super) fn parcels(
    conn: &Connection,
    queue: &QueueName,
    ids: &[TaskId],
    now: Timestamp,
) -> Result<Vec<Found>, Fail> {
    let Some(qid) = crate::inspect::qid(conn, queue)? else {
        return Ok(vec![Found::Missing; ids.len()]);
    };
    let sql = format!(
        "SELECT {COLUMNS}, unique_key, unknown FROM task WHERE queue = ?1 AND id = ?2 AND state <> 8"
    );
    let mut read = conn.prepare_cached(&sql)?;
    let mut parcels = Vec::with_capacity(ids.len());
    for id in ids {
        let found = read
            .query_row(params![qid, id.as_str()], |row| Loaded::read(row, queue, now))
            .optional()?;
        parcels.push(match found {
            None => Found::Missing,
            Some(Loaded { flaw: Some(why), .. }) => Found::Unreadable(why),
            Some(found) => Found::Parcel(Box::new(found.with_lock(conn, qid, now)?)),
        });
    }
    Ok(parcels)
}

/// Ends a batch; see [`outlast_core::Porter::conclude`].
pub(super) fn conclude(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    stamp: &Stamp,
    now: Timestamp,
    end: &Conclusion,
) -> Result<Concluded, Fail> {
    let Some(q) = tx.tally.find(tx.conn, queue)? else { return Ok(Concluded::NotOnItsWay) };
    let qid = tx.tally.qid(q);
    let is_meant = |latest: &Latest| {
        latest.taken_at.is_some() && (latest.session, latest.seq) == (stamp.session, stamp.seq)
    };
    let Some(latest) = Latest::read(tx.conn, qid)?.filter(is_meant) else {
        return Ok(Concluded::NotOnItsWay);
    };
    let (stored, previous): (HashSet<&str>, u64) = match end {
        Conclusion::Stored { ids } => (ids.iter().map(TaskId::as_str).collect(), latest.seq),
        Conclusion::GivenBack => {
            super::put::add_counts(tx, q, &latest.counts)?;
            (HashSet::new(), latest.previous)
        }
    };
    let mut back = Vec::new();
    for (rid, code) in members(tx.conn, qid)? {
        let (id, group, key): (String, Option<String>, Option<String>) = tx
            .conn
            .prepare_cached("SELECT id, grp, unique_key FROM task WHERE rid = ?1")?
            // What is of another kind is a flaw of the record: that one was not stored, and goes back.
            .query_row([rid], |row| {
                Ok((
                    row.get(0).unwrap_or_default(),
                    row.get(1).unwrap_or_default(),
                    row.get(2).unwrap_or_default(),
                ))
            })?;
        if !stored.contains(id.as_str()) {
            let state = rows::state(code).unwrap_or(TaskState::Archived);
            tx.conn.prepare_cached(moves::GIVE_BACK)?.execute([rid, rows::code(state)])?;
            tx.tally.row(q).entered(state);
            back.push(Picked { rid, state, group });
        } else {
            release_lock(tx.conn, qid, key.as_deref(), &id)?;
            tx.conn.prepare_cached(moves::DELETE)?.execute([rid])?;
        }
    }
    members_changed(tx.conn, qid, &back, 1)?;
    if !back.is_empty() {
        tx.ready(queue);
        tx.due(queue, now.as_millis());
    }
    tx.conn.prepare_cached("DELETE FROM outgoing WHERE queue = ?1")?.execute([qid])?;
    Latest { taken_at: None, counts: Counts::default(), previous, ..latest }.keep(tx.conn, qid)?;
    Ok(Concluded::Ended)
}
