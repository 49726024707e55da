//! Reading tasks by their ids, in answers of bounded size.

use std::collections::VecDeque;

use bytes::Bytes;
use outlast_core::{BrokerError, Kind, QueueName, TaskId, TaskRecord, TaskState, Timestamp};
use redis::Value;

use crate::answer;
use crate::broker::Inner;
use crate::claim::size;
use crate::conn::Call;
use crate::record::{self, StoredTask, Unreadable};
use crate::scripts::INSPECT_TASKS;

/// Bytes of messages and results after which one call reads no further task.
const READ_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Tasks that one call reads at most: a few milliseconds of the server's time.
const READ_MAX: usize = 250;

/// What stands behind an id.
pub(super) enum Seen {
    /// A task.
    Task(Box<TaskRecord>),
    /// Nothing: the id is a ghost, or its task has gone meanwhile.
    Nothing,
    /// Something that cannot be read, and why.
    Unreadable(Unreadable),
}

impl Inner {
    /// Reads the first of these tasks: as many as one answer has room for, at least one.
    pub(super) async fn read(
        &self,
        queue: &QueueName,
        ids: &[Bytes],
        now: Timestamp,
    ) -> Result<VecDeque<Seen>, BrokerError> {
        if ids.is_empty() {
            return Ok(VecDeque::new());
        }
        let keys = self.root.queue(queue);
        let names = ["lease", "scheduled", "retry", "archived", "completed"];
        let mut call = Call::new(&INSPECT_TASKS, names.map(|name| keys.key(name)).into());
        call.text(keys.prefix()).int(size(READ_BYTES_MAX));
        for id in ids.iter().take(READ_MAX) {
            call.bytes(id.clone());
        }
        let rows = answer::list(self.admin.script(&call).await?)?;
        rows.into_iter().zip(ids).map(|(row, id)| seen(queue, id, row, now)).collect()
    }

    /// One task, whatever its state.
    pub(super) async fn task(
        &self,
        queue: &QueueName,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<Option<TaskRecord>, BrokerError> {
        match self.read(queue, &[bytes_of(id)], now).await?.pop_front() {
            Some(Seen::Task(task)) => Ok(Some(*task)),
            Some(Seen::Unreadable(why)) => {
                let what = format!("could not read task {id} of queue {queue}");
                Err(BrokerError::new(Kind::Corrupt, what).with_source(why))
            }
            Some(Seen::Nothing) | None => Ok(None),
        }
    }
}

/// An id as the keys have it.
pub(super) fn bytes_of(id: &TaskId) -> Bytes {
    Bytes::copy_from_slice(id.as_str().as_bytes())
}

/// An id of the server's. One that is no text is another program's, and can be shown but not named.
pub(super) fn id_of(bytes: &Bytes) -> TaskId {
    TaskId::stored(&String::from_utf8_lossy(bytes))
}

fn seen(queue: &QueueName, id: &Bytes, row: Value, now: Timestamp) -> Result<Seen, BrokerError> {
    let mut fields = match row {
        Value::Nil | Value::Boolean(false) => return Ok(Seen::Nothing),
        row => answer::list(row)?.into_iter(),
    };
    let mut next = || answer::bytes(fields.next().unwrap_or_default());
    let (state, score) = (next()?, next()?);
    let (msg, pending_since, result) = (next()?, next()?, next()?);
    let (accepted, run, losses) = (next()?, next()?, next()?);
    let score = score.and_then(|score| std::str::from_utf8(&score).ok()?.parse().ok());
    let stored = StoredTask {
        msg: msg.as_deref(),
        state: state.as_deref(),
        pending_since: pending_since.as_deref(),
        result: result.as_deref(),
        accepted: accepted.as_deref(),
        run: run.as_deref(),
        losses: losses.as_deref(),
        score,
    };
    // A claim of asynq's makes a hash of nothing but a state where a task has gone (contract §5.4).
    if stored.msg.is_none() {
        return Ok(Seen::Nothing);
    }
    Ok(match record::record_of(queue, &id_of(id), &stored, now) {
        Ok(task) => Seen::Task(Box::new(task)),
        Err(why) => Seen::Unreadable(why),
    })
}

/// Says that a record is left out of a listing: nothing is skipped silently.
pub(super) fn left_out(queue: &QueueName, id: &Bytes, state: Option<TaskState>, why: &Unreadable) {
    let state = state.map_or("", TaskState::as_str);
    tracing::warn!(%queue, id = %id_of(id), state, %why, "a task that cannot be read was left out");
}
