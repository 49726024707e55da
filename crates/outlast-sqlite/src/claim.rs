//! Claiming: what is due joins the line, ready groups become sets, and the head of the line is leased.
//!
//! Groups come before tasks: they are ready because of a promise about time, and a line that never ends
//! would break it.

use outlast_core::limits::{BATCH_TASKS_MAX, check_count};
use outlast_core::{
    Claim, ClaimedGroup, ClaimedTask, Claims, GroupName, Lease, LeaseToken, QueueName, Rest, Stamp,
    TaskId, TaskState, Timestamp, Want,
};
use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::error::Fail;
use crate::rows::{self, COLUMNS, Stored};
use crate::session::{self, Arrived};
use crate::tally::Q;
use crate::writer::Tx;
use crate::{groups, moves, sweep};

/// What a lane remembers of a claim. Row numbers are never used twice, and a task that was started
/// again in the meantime has another start: so a repeat hands out nothing twice.
#[derive(Default, Serialize, Deserialize)]
struct Record {
    at: i64,
    sets: Vec<i64>,
    /// Each as the difference to the one before: mostly ones.
    tasks: Vec<i64>,
}

/// Claims; see [`outlast_core::Broker::claim`].
pub(crate) fn claim(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    stamp: &Stamp,
    now: Timestamp,
    want: &Want,
) -> Result<Claims, Fail> {
    check_count("tasks_max", want.tasks_max, BATCH_TASKS_MAX)?;
    let q = tx.tally.open(tx.conn, queue)?;
    let taker = Taker { queue, q, qid: tx.tally.qid(q), now, token: want.token };
    match session::arrive(tx, q, stamp)? {
        Arrived::Repeat(record, lost) => Ok(Claims { lost, ..taker.repeat(tx, &record)? }),
        Arrived::Apply(place) => {
            let (claims, record, rest) = taker.take(tx, want)?;
            // A claim that found nothing leaves no record: an idle worker writes nothing.
            if !claims.is_empty() {
                place.record(tx, now, &serde_json::to_vec(&record).unwrap_or_default())?;
            }
            Ok(Claims { claims, rest, lost: place.lost })
        }
    }
}

struct Taker<'a> {
    queue: &'a QueueName,
    q: Q,
    qid: i64,
    now: Timestamp,
    token: LeaseToken,
}

/// What a claim may still take.
struct Room {
    tasks: usize,
    bytes: usize,
    taken: usize,
}

impl Room {
    /// True if a task of so many bytes fits; the first always does.
    fn take(&mut self, bytes: usize) -> bool {
        let fits = self.tasks > 0 && (self.taken == 0 || bytes <= self.bytes);
        if fits {
            self.taken += 1;
            self.bytes = self.bytes.saturating_sub(bytes);
        }
        fits
    }
}

impl Taker<'_> {
    fn take(&self, tx: &mut Tx<'_>, want: &Want) -> Result<(Vec<Claim>, Record, Rest), Fail> {
        let mut record = Record { at: self.now.as_millis(), ..Record::default() };
        let mut claims = Vec::new();
        if tx.tally.row(self.q).paused_since.is_some() {
            return Ok((claims, record, Rest::Paused));
        }
        let limit = want.tasks_max;
        let mut room = Room { tasks: limit, bytes: want.bytes_max, taken: 0 };
        // As many as the largest claim takes, however small this one is: each is moved once anyway.
        let promoted = sweep::promote(tx, self.queue, self.q, self.now, BATCH_TASKS_MAX)?;
        let until = self.now.plus(want.lease);
        let more_groups = self.take_groups(tx, want, until, &mut room, &mut claims, &mut record)?;
        self.take_tasks(tx, until, &mut room, &mut claims, &mut record)?;
        let pending = tx.tally.row(self.q).count(TaskState::Pending);
        let rest =
            if promoted.more || more_groups || pending > 0 { Rest::More } else { Rest::Empty };
        Ok((claims, record, rest))
    }

    fn take_tasks(
        &self,
        tx: &mut Tx<'_>,
        until: Timestamp,
        room: &mut Room,
        claims: &mut Vec<Claim>,
        record: &mut Record,
    ) -> Result<(), Fail> {
        let mut last = 0;
        for stored in self.head_of_line(tx, room)? {
            if let Some(why) = stored.flaw {
                claims.push(self.put_away(
                    tx,
                    stored.rid,
                    TaskState::Pending,
                    stored.task.id,
                    why,
                )?);
                continue;
            }
            let now = self.now.as_millis();
            tx.conn.prepare_cached(moves::CLAIM)?.execute(params![
                stored.rid,
                until.as_millis(),
                self.token.get(),
                now
            ])?;
            tx.tally.row(self.q).moved(TaskState::Pending, TaskState::Active);
            record.tasks.push(stored.rid - last);
            last = stored.rid;
            claims.push(self.claimed(stored, until));
        }
        Ok(())
    }

    /// The tasks at the head of the line that fit. Nothing is asked of an empty line.
    fn head_of_line(&self, tx: &mut Tx<'_>, room: &mut Room) -> Result<Vec<Stored>, Fail> {
        let mut head = Vec::new();
        if room.tasks == 0 || tx.tally.row(self.q).count(TaskState::Pending) == 0 {
            return Ok(head);
        }
        let mut select = tx.conn.prepare_cached(&line_sql())?;
        let limit = i64::try_from(room.tasks).unwrap_or(i64::MAX);
        let mut rows = select.query(params![self.qid, limit])?;
        while let Some(row) = rows.next()? {
            let stored = rows::read(row, self.queue, self.now)?;
            if !room.take(stored.task.payload.len()) {
                break;
            }
            head.push(stored);
        }
        Ok(head)
    }

    fn claimed(&self, stored: Stored, until: Timestamp) -> Claim {
        let mut task = stored.task;
        task.state = TaskState::Active;
        task.started_at = Some(self.now);
        task.lease_until = Some(until);
        task.pending_since = None;
        task.next_at = None;
        let lease = Lease { id: task.id.clone(), token: self.token, until };
        Claim::Task(Box::new(ClaimedTask { task, lease }))
    }

    fn put_away(
        &self,
        tx: &mut Tx<'_>,
        rid: i64,
        from: TaskState,
        id: TaskId,
        why: String,
    ) -> Result<Claim, Fail> {
        let error = format!("record cannot be read: {why}");
        let error = moves::clipped(&error);
        tx.conn.prepare_cached(moves::ARCHIVE_CORRUPT)?.execute(params![
            rid,
            self.now.as_millis(),
            error
        ])?;
        tx.tally.row(self.q).moved(from, TaskState::Archived);
        Ok(Claim::Corrupt { id, why })
    }

    /// Makes sets of ready groups; true if there are more than fit.
    fn take_groups(
        &self,
        tx: &mut Tx<'_>,
        want: &Want,
        until: Timestamp,
        room: &mut Room,
        claims: &mut Vec<Claim>,
        record: &mut Record,
    ) -> Result<bool, Fail> {
        if want.groups.is_empty() || tx.tally.row(self.q).count(TaskState::Aggregating) == 0 {
            return Ok(false);
        }
        // Again and again: what is left of a large group may be ready too.
        loop {
            let ready = groups::ready(tx.conn, self.qid, &want.groups, self.now)?;
            if ready.is_empty() {
                return Ok(false);
            }
            for ready in ready {
                if room.tasks == 0 {
                    return Ok(true);
                }
                let Some((sid, group)) = self.make_set(tx, &ready, until, room, claims)? else {
                    return Ok(true);
                };
                record.sets.push(sid);
                claims.push(Claim::Group(group));
                room.tasks -= 1;
            }
        }
    }

    /// Makes one set, or `None` if not even its first member fits.
    fn make_set(
        &self,
        tx: &mut Tx<'_>,
        ready: &groups::Ready,
        until: Timestamp,
        room: &mut Room,
        claims: &mut Vec<Claim>,
    ) -> Result<Option<(i64, ClaimedGroup)>, Fail> {
        let mut tasks = Vec::new();
        let mut waiting = 0;
        let sid = tx.tally.next_rid(tx.conn)?;
        for stored in self.members(tx, ready, room)? {
            waiting -= 1;
            if let Some(why) = stored.flaw {
                let id = stored.task.id;
                claims.push(self.put_away(tx, stored.rid, TaskState::Aggregating, id, why)?);
                continue;
            }
            tx.conn
                .prepare_cached("UPDATE task SET set_id = ?2 WHERE rid = ?1")?
                .execute([stored.rid, sid])?;
            tasks.push(stored.task);
        }
        let size = i64::try_from(tasks.len()).unwrap_or(i64::MAX);
        groups::changed(tx.conn, self.qid, &ready.group, waiting, size)?;
        if tasks.is_empty() {
            return Ok(None);
        }
        let id = self.insert_set(tx, sid, &ready.group, until, size)?;
        let lease = Lease { id, token: self.token, until };
        let group = GroupName::stored(&ready.group);
        Ok(Some((sid, ClaimedGroup { group, tasks, lease })))
    }

    fn insert_set(
        &self,
        tx: &Tx<'_>,
        sid: i64,
        group: &str,
        until: Timestamp,
        size: i64,
    ) -> Result<TaskId, Fail> {
        let id: String = tx.conn.prepare_cached(INSERT_SET)?.query_row(
            params![
                sid,
                groups::SET_PREFIX,
                self.qid,
                group,
                self.token.get(),
                until.as_millis(),
                self.now.as_millis(),
                size
            ],
            |row| row.get(0),
        )?;
        Ok(TaskId::stored(&id))
    }

    fn members(
        &self,
        tx: &Tx<'_>,
        ready: &groups::Ready,
        room: &mut Room,
    ) -> Result<Vec<Stored>, Fail> {
        let mut select = tx.conn.prepare_cached(&members_sql())?;
        let limit = i64::try_from(ready.size_max).unwrap_or(i64::MAX);
        let mut rows = select.query(params![self.qid, ready.group, limit])?;
        let mut members = Vec::new();
        while let Some(row) = rows.next()? {
            let stored = rows::read(row, self.queue, self.now)?;
            if !room.take(stored.task.payload.len()) {
                break;
            }
            members.push(stored);
        }
        Ok(members)
    }

    /// Hands out again what the first call claimed, as far as it is still leased to the token.
    fn repeat(&self, tx: &mut Tx<'_>, record: &[u8]) -> Result<Claims, Fail> {
        let record: Record = serde_json::from_slice(record).unwrap_or_default();
        let mut claims = Vec::new();
        for sid in &record.sets {
            claims.extend(self.set_again(tx, *sid)?.map(Claim::Group));
        }
        let mut rid = 0_i64;
        for step in &record.tasks {
            rid = rid.saturating_add(*step);
            claims.extend(self.task_again(tx, rid, record.at)?);
        }
        let row = tx.tally.row(self.q);
        let rest = match (row.paused_since, row.count(TaskState::Pending)) {
            (Some(_), _) => Rest::Paused,
            (None, 0) => Rest::Empty,
            (None, _) => Rest::More,
        };
        Ok(Claims { claims, rest, lost: None })
    }

    fn task_again(&self, tx: &Tx<'_>, rid: i64, at: i64) -> Result<Option<Claim>, Fail> {
        let sql = format!(
            "SELECT {COLUMNS} FROM task WHERE rid = ?1 AND queue = ?2 AND state = 1 \
             AND token = ?3 AND started_at = ?4"
        );
        let found = tx
            .conn
            .prepare_cached(&sql)?
            .query_row(params![rid, self.qid, self.token.get(), at], |row| {
                rows::read(row, self.queue, self.now)
            })
            .optional()?;
        Ok(found.map(|stored| {
            let lease = Lease {
                id: stored.task.id.clone(),
                token: self.token,
                until: Timestamp::from_millis(stored.score),
            };
            Claim::Task(Box::new(ClaimedTask { task: stored.task, lease }))
        }))
    }

    fn set_again(&self, tx: &Tx<'_>, sid: i64) -> Result<Option<ClaimedGroup>, Fail> {
        let found = tx
            .conn
            .prepare_cached(
                "SELECT id, grp, until FROM aggregation WHERE sid = ?1 AND queue = ?2 AND token = ?3",
            )?
            .query_row(params![sid, self.qid, self.token.get()], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
            })
            .optional()?;
        let Some((id, group, until)) = found else { return Ok(None) };
        let sql = format!("SELECT {COLUMNS} FROM task WHERE set_id = ?1 ORDER BY score, rid");
        let mut select = tx.conn.prepare_cached(&sql)?;
        let rows = select.query_map([sid], |row| rows::read(row, self.queue, self.now))?;
        let tasks = rows.map(|row| row.map(|stored| stored.task)).collect::<Result<_, _>>()?;
        let until = Timestamp::from_millis(until);
        let lease = Lease { id: TaskId::stored(&id), token: self.token, until };
        Ok(Some(ClaimedGroup { group: GroupName::stored(&group), tasks, lease }))
    }
}

/// The id is random, so that no task's id is like it by chance.
const INSERT_SET: &str = "INSERT INTO aggregation \
     (sid, id, queue, grp, token, until, started_at, members) \
     VALUES (?1, ?2 || lower(hex(randomblob(16))), ?3, ?4, ?5, ?6, ?7, ?8) RETURNING id";

fn line_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM task WHERE queue = ?1 AND state = 2 ORDER BY score, rid LIMIT ?2"
    )
}

fn members_sql() -> String {
    format!(
        "SELECT {COLUMNS} FROM task WHERE queue = ?1 AND grp = ?2 AND state = 3 \
         AND set_id IS NULL ORDER BY score, rid LIMIT ?3"
    )
}
