//! The target of a move: storing tasks in the states that they have.

use outlast_core::limits::SESSION_TTL;
use outlast_core::porter::{Counts, Delivered, Load, MOVE_TTL, Parcel, PutVerdict};
use outlast_core::{QueueName, Stamp, TaskId, TaskState, Timestamp};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::enqueue::{LOCK, holder, lock_key};
use crate::error::Fail;
use crate::session::{self, Arrived};
use crate::tally::{ADD_DAY, Q};
use crate::writer::Tx;
use crate::{groups, rows};

/// A verdict as the session's record keeps it. The names are stored: never change them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Stored,
    IdConflict,
    Duplicate(String),
}

/// Stores a batch; see [`outlast_core::Porter::put`].
pub(super) fn put(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    stamp: &Stamp,
    now: Timestamp,
    load: &Load,
) -> Result<Delivered, Fail> {
    let q = tx.tally.open(tx.conn, queue)?;
    let (kept, is_repeat, known) = match session::arrive(tx, q, stamp)? {
        Arrived::Repeat(record, _) => {
            (session::decode(&record, load.parcels.len(), &Kept::Stored)?, true, 0)
        }
        Arrived::Apply(place) => {
            let shelf = Shelf { queue, q, now };
            let mut kept = Vec::with_capacity(load.parcels.len());
            for parcel in &load.parcels {
                kept.push(shelf.one(tx, parcel)?);
            }
            add_counts(tx, q, &load.counts)?;
            let record = session::encode(&kept, |kept| matches!(kept, Kept::Stored));
            // Sessions are forgotten a day after the moment in their record: this one has to live longer.
            place.record(tx, now.plus(MOVE_TTL.saturating_sub(SESSION_TTL)), &record)?;
            let known = place.lost.map_or(stamp.seq - 1, |lost| lost.after_seq);
            (kept, false, known)
        }
    };
    Ok(Delivered { verdicts: kept.into_iter().map(verdict).collect(), is_repeat, known })
}

fn verdict(kept: Kept) -> PutVerdict {
    match kept {
        Kept::Stored => PutVerdict::Stored,
        Kept::IdConflict => PutVerdict::IdConflict,
        Kept::Duplicate(of) => PutVerdict::Duplicate { of: TaskId::stored(&of) },
    }
}

const INSERT: &str = "INSERT INTO task (rid, queue, state, score, id, type, max_retry, retried, \
     losses, timeout_s, deadline, retention_s, enqueued_at, pending_since, completed_at, \
     last_failed_at, grp, unique_key, headers, last_error, result, payload, unknown) VALUES (?1, ?2, \
     ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23) \
     ON CONFLICT DO NOTHING";

struct Shelf<'a> {
    queue: &'a QueueName,
    q: Q,
    now: Timestamp,
}

impl Shelf<'_> {
    fn one(&self, tx: &mut Tx<'_>, parcel: &Parcel) -> Result<Kept, Fail> {
        let (qid, task) = (tx.tally.qid(self.q), &parcel.task);
        let id = task.id.as_str();
        let taken: bool = tx
            .conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM task WHERE queue = ?1 AND id = ?2)")?
            .query_row(params![qid, id], |row| row.get(0))?;
        if taken {
            return Ok(Kept::IdConflict);
        }
        let key = parcel.lock.as_ref().map(|lock| lock_key(&task.task_type, &lock.digest));
        let until = parcel.lock.as_ref().and_then(|lock| lock.held_until);
        if let (Some(key), Some(until)) = (&key, until.filter(|until| *until > self.now)) {
            if let Some(owner) = holder(tx.conn, LOCK, qid, key, self.now)? {
                return Ok(Kept::Duplicate(owner));
            }
            tx.conn.prepare_cached(LOCK.take)?.execute(params![qid, key, id, until.as_millis()])?;
        }
        self.insert(tx, parcel, key.as_deref())?;
        Ok(Kept::Stored)
    }

    fn insert(&self, tx: &mut Tx<'_>, parcel: &Parcel, key: Option<&str>) -> Result<(), Fail> {
        let task = &parcel.task;
        let rid = tx.tally.next_rid(tx.conn)?;
        let row = tx.tally.row(self.q);
        let is_pending = task.state == TaskState::Pending;
        let score = if is_pending { row.back() } else { parcel.at.as_millis() };
        // A task of a Go client that runs alone must not find a group here that it would join.
        let group = task.group.as_ref().filter(|_| parcel.joins_group);
        tx.conn.prepare_cached(INSERT)?.execute(params![
            rid,
            row.qid,
            rows::code(task.state),
            score,
            task.id.as_str(),
            task.task_type.as_str(),
            task.max_retry,
            task.retried,
            task.losses,
            task.timeout.map(rows::as_seconds),
            task.deadline.map(Timestamp::as_millis),
            rows::as_seconds(task.retention),
            task.enqueued_at.map(Timestamp::as_millis),
            is_pending.then_some(parcel.at.as_millis()),
            task.completed_at.map(Timestamp::as_millis),
            task.last_failed_at.map(Timestamp::as_millis),
            group.map(|group| group.as_str()),
            key,
            rows::headers_text(&task.headers),
            task.last_error,
            task.result.as_deref(),
            &task.payload[..],
            (!parcel.unknown.is_empty()).then_some(&parcel.unknown[..]),
        ])?;
        let row = tx.tally.row(self.q);
        row.listed = true;
        row.entered(task.state);
        self.tell(tx, parcel)
    }

    fn tell(&self, tx: &mut Tx<'_>, parcel: &Parcel) -> Result<(), Fail> {
        let at = parcel.at.as_millis();
        match parcel.task.state {
            TaskState::Scheduled | TaskState::Retry => tx.due(self.queue, at),
            TaskState::Pending => tx.ready(self.queue),
            TaskState::Aggregating => {
                let group = parcel.task.group.as_ref().map_or("", |group| group.as_str());
                groups::joined(tx.conn, tx.tally.qid(self.q), group, at)?;
                tx.ready(self.queue);
            }
            TaskState::Active | TaskState::Archived | TaskState::Completed => {}
        }
        Ok(())
    }
}

/// Adds to the counters of a queue.
pub(super) fn add_counts(tx: &mut Tx<'_>, q: Q, counts: &Counts) -> Result<(), Fail> {
    let row = tx.tally.row(q);
    row.listed |= *counts != Counts::default();
    row.processed = row.processed.saturating_add(counts.processed.cast_signed());
    row.failed = row.failed.saturating_add(counts.failed.cast_signed());
    let qid = row.qid;
    for day in &counts.days {
        let (processed, failed) = (day.processed.cast_signed(), day.failed.cast_signed());
        tx.conn.prepare_cached(ADD_DAY)?.execute(params![qid, day.day, processed, failed])?;
    }
    Ok(())
}
