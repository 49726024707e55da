//! Storing new tasks.
//!
//! The order of the checks is the contract's: the task itself, its `once` key, its unique lock, its
//! id. Nothing is written before all of them have passed, so a refused task leaves nothing behind.

use std::sync::Arc;

use outlast_core::limits::check_batch;
use outlast_core::{
    Durability, EnqueueVerdict, Enqueued, NewTask, Place, QueueName, Reject, Stamp, TaskId,
    TaskState, TaskType, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::error::Fail;
use crate::session::{self, Arrived};
use crate::tally::Q;
use crate::writer::Tx;
use crate::{groups, rows};

/// A verdict as the session's record keeps it. The names are stored: never change them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kept {
    Accepted,
    Duplicate(Option<String>),
    IdConflict,
    Rejected(String),
}

const INSERT: &str = "INSERT INTO task (rid, queue, state, score, id, type, max_retry, timeout_s, \
     deadline, retention_s, enqueued_at, pending_since, grp, unique_key, headers, payload) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16) \
     ON CONFLICT DO NOTHING";

/// Stores a batch; see [`outlast_core::Broker::enqueue`].
pub(crate) fn enqueue(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    stamp: &Stamp,
    now: Timestamp,
    tasks: &Arc<[NewTask]>,
    level: Durability,
) -> Result<Enqueued, Fail> {
    check_batch("batch of tasks", tasks.len())?;
    let q = tx.tally.open(tx.conn, queue)?;
    let (kept, lost) = match session::arrive(tx, q, stamp)? {
        Arrived::Repeat(record, lost) => {
            (session::decode(&record, tasks.len(), &Kept::Accepted)?, lost)
        }
        Arrived::Apply(place) => {
            let mut store = Store { queue, q, now };
            let mut kept = Vec::with_capacity(tasks.len());
            for task in tasks.iter() {
                kept.push(store.one(tx, task)?);
            }
            let record = session::encode(&kept, |kept| matches!(kept, Kept::Accepted));
            place.record(tx, now, &record)?;
            (kept, place.lost)
        }
    };
    let verdicts = kept.into_iter().map(|kept| verdict(kept, level)).collect();
    Ok(Enqueued { verdicts, lost })
}

fn verdict(kept: Kept, level: Durability) -> EnqueueVerdict {
    match kept {
        Kept::Accepted => EnqueueVerdict::Accepted { level },
        Kept::Duplicate(of) => EnqueueVerdict::Duplicate { of: of.map(|id| TaskId::stored(&id)) },
        Kept::IdConflict => EnqueueVerdict::IdConflict,
        Kept::Rejected(why) => EnqueueVerdict::Rejected(Reject(why.into())),
    }
}

/// Stores one task outside of a batch of its own (an aggregated one), or says why not.
pub(crate) fn store_one(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    q: Q,
    now: Timestamp,
    task: &NewTask,
) -> Result<Result<(), String>, Fail> {
    Ok(match (Store { queue, q, now }).one(tx, task)? {
        Kept::Accepted => Ok(()),
        Kept::Duplicate(Some(of)) => Err(format!("duplicate of task {of:?}")),
        Kept::Duplicate(None) => Err("duplicate of an earlier task".to_owned()),
        Kept::IdConflict => Err(format!("task id {:?} exists in the queue", task.id)),
        Kept::Rejected(why) => Err(why),
    })
}

struct Store<'a> {
    queue: &'a QueueName,
    q: Q,
    now: Timestamp,
}

impl Store<'_> {
    fn one(&mut self, tx: &mut Tx<'_>, task: &NewTask) -> Result<Kept, Fail> {
        if let Err(error) = task.check(self.now) {
            return Ok(Kept::Rejected(error.to_string()));
        }
        let qid = tx.tally.qid(self.q);
        if let Some(once) = &task.once
            && let Some(owner) = holder(tx.conn, ONCE, qid, &once.key, self.now)?
        {
            return Ok(Kept::Duplicate(Some(owner)));
        }
        let unique = task.unique.as_ref().map(|unique| lock_key(&task.task_type, &unique.digest));
        if let Some(key) = &unique
            && let Some(owner) = holder(tx.conn, LOCK, qid, key, self.now)?
        {
            return Ok(Kept::Duplicate(Some(owner)));
        }
        if !self.insert(tx, task, unique.as_deref())? {
            return Ok(Kept::IdConflict);
        }
        self.hold(tx.conn, qid, task, unique.as_deref())?;
        Ok(Kept::Accepted)
    }

    /// Inserts the row; false if the id is taken.
    fn insert(&mut self, tx: &mut Tx<'_>, task: &NewTask, key: Option<&str>) -> Result<bool, Fail> {
        let state = task.first_state(self.now);
        let now = self.now.as_millis();
        let rid = tx.tally.next_rid(tx.conn)?;
        let row = tx.tally.row(self.q);
        let (qid, due) = (row.qid, task.due.map_or(now, Timestamp::as_millis));
        let score = match (state, task.place) {
            (TaskState::Pending, Place::Back) => row.back(),
            (TaskState::Pending, Place::Front) => row.front(),
            (TaskState::Scheduled, _) => due,
            _ => now,
        };
        let stored = tx.conn.prepare_cached(INSERT)?.execute(params![
            rid,
            qid,
            rows::code(state),
            score,
            task.id.as_str(),
            task.task_type.as_str(),
            task.max_retry,
            task.effective_timeout().map(rows::as_seconds),
            task.deadline.map(Timestamp::as_millis),
            rows::as_seconds(task.retention),
            now,
            (state == TaskState::Pending).then_some(now),
            task.group.as_ref().map(|group| group.as_str()),
            key,
            rows::headers_text(&task.headers),
            &task.payload[..],
        ])?;
        if stored == 0 {
            return Ok(false);
        }
        self.stored(tx, task, state, score)?;
        Ok(true)
    }

    fn stored(
        &self,
        tx: &mut Tx<'_>,
        task: &NewTask,
        state: TaskState,
        score: i64,
    ) -> Result<(), Fail> {
        let row = tx.tally.row(self.q);
        row.listed = true;
        row.entered(state);
        match state {
            TaskState::Scheduled => tx.due(self.queue, score),
            _ => tx.ready(self.queue),
        }
        if let (TaskState::Aggregating, Some(group)) = (state, &task.group) {
            groups::joined(tx.conn, tx.tally.qid(self.q), group.as_str(), score)?;
        }
        Ok(())
    }

    fn hold(
        &self,
        conn: &Connection,
        qid: i64,
        task: &NewTask,
        key: Option<&str>,
    ) -> Result<(), Fail> {
        let owner = task.id.as_str();
        if let (Some(key), Some(unique)) = (key, &task.unique) {
            // The lock of a task for later holds for its ttl from then on.
            let from = task.due.map_or(self.now, |due| due.max(self.now));
            let expires = from.plus(unique.ttl).as_millis();
            conn.prepare_cached(LOCK.take)?.execute(params![qid, key, owner, expires])?;
        }
        if let Some(once) = &task.once {
            let expires = self.now.plus(once.ttl).as_millis();
            conn.prepare_cached(ONCE.take)?.execute(params![qid, once.key, owner, expires])?;
        }
        Ok(())
    }
}

/// A table of keys that are held by a task until they expire.
#[derive(Clone, Copy)]
pub(crate) struct Keys {
    look: &'static str,
    pub(crate) take: &'static str,
}

pub(crate) const LOCK: Keys = Keys {
    look: "SELECT owner FROM unique_lock WHERE queue = ?1 AND key = ?2 AND expires > ?3",
    take: "INSERT OR REPLACE INTO unique_lock (queue, key, owner, expires) VALUES (?1, ?2, ?3, ?4)",
};

const ONCE: Keys = Keys {
    look: "SELECT owner FROM once WHERE queue = ?1 AND key = ?2 AND expires > ?3",
    take: "INSERT OR REPLACE INTO once (queue, key, owner, expires) VALUES (?1, ?2, ?3, ?4)",
};

/// Which task holds a key.
pub(crate) fn holder(
    conn: &Connection,
    keys: Keys,
    qid: i64,
    key: &str,
    now: Timestamp,
) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached(keys.look)?
        .query_row(params![qid, key, now.as_millis()], |row| row.get(0))
        .optional()
}

/// The name of a unique lock within its queue. The digest comes first: it holds no colon.
pub(crate) fn lock_key(task_type: &TaskType, digest: &str) -> String {
    format!("{digest}:{task_type}")
}

/// Releases the unique lock of a task that ends, if the task still holds it.
pub(crate) fn release_lock(
    conn: &Connection,
    qid: i64,
    key: Option<&str>,
    owner: &str,
) -> rusqlite::Result<()> {
    if let Some(key) = key {
        conn.prepare_cached(
            "DELETE FROM unique_lock WHERE queue = ?1 AND key = ?2 AND owner = ?3",
        )?
        .execute(params![qid, key, owner])?;
    }
    Ok(())
}

/// The payload bytes of a batch.
pub(crate) fn bytes(tasks: &[NewTask]) -> usize {
    tasks.iter().map(|task| task.payload.len()).sum()
}
