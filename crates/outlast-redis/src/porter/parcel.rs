//! What Redis holds of a task to a parcel, and back.

use std::time::Duration;

use bytes::Bytes;
use outlast_core::limits::DURATION_MAX;
use outlast_core::porter::{Lock, Parcel};
use outlast_core::{BrokerError, QueueName, TaskId, TaskRecord, TaskState, Timestamp};
use redis::Value;

use crate::answer;
use crate::broker::Inner;
use crate::proto::TaskMessage;
use crate::record::{StoredTask, moment_of_score, record_of, unique_key};

/// A row of `porter_row.lua`.
pub(super) struct Row {
    id: Bytes,
    state: Bytes,
    score: Option<f64>,
    /// msg, pending_since, result, o:at, o:lost, group, o:group, unique_key.
    fields: [Option<Bytes>; 8],
}

impl Row {
    pub(super) fn read(value: Value) -> Result<Self, BrokerError> {
        let mut parts = answer::list(value)?.into_iter();
        let mut next = || answer::bytes(parts.next().unwrap_or_default());
        let (id, state) = (next()?.unwrap_or_default(), next()?.unwrap_or_default());
        let score = next()?.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        let mut fields: [Option<Bytes>; 8] = Default::default();
        for field in &mut fields {
            *field = next()?;
        }
        Ok(Self { id, state, score, fields })
    }

    pub(super) fn id(&self) -> TaskId {
        TaskId::stored(&String::from_utf8_lossy(&self.id))
    }

    /// The row as a parcel, but for the time that its lock has left; or why it cannot be read.
    pub(super) fn parcel(
        &self,
        root: &str,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Parcel, String> {
        if std::str::from_utf8(&self.id).is_err() {
            return Err("its id is not valid UTF-8".to_owned());
        }
        let [msg, since, result, accepted, losses, group, joins, lock] =
            self.fields.each_ref().map(Option::as_deref);
        let stored = StoredTask {
            msg,
            state: Some(&self.state[..]),
            pending_since: since,
            result,
            accepted,
            run: None,
            losses,
            score: self.score,
        };
        let task = record_of(queue, &self.id(), &stored, now).map_err(|error| error.to_string())?;
        // Read a second time for what a record does not show; it could be read a line above.
        let message = TaskMessage::decode(msg.unwrap_or_default()).map_err(|e| e.to_string())?;
        let at = match task.state {
            TaskState::Pending => task.pending_since.unwrap_or(now),
            TaskState::Active
            | TaskState::Aggregating
            | TaskState::Scheduled
            | TaskState::Retry
            | TaskState::Archived
            | TaskState::Completed => self.score.map_or(now, moment_of_score),
        };
        let lock = match lock {
            Some(key) => String::from_utf8_lossy(key).into_owned(),
            None => message.unique_key,
        };
        let lock = digest_of(root, queue, &task, &lock)?;
        let is_set = |field: Option<&[u8]>| field.is_some_and(|text| !text.is_empty());
        let joins_group = task.group.is_some() && (is_set(group) || is_set(joins));
        let unknown = Bytes::from(message.unknown);
        Ok(Parcel { task, at, joins_group, lock, unknown })
    }
}

/// The lock of a key, as far as a key of the queue and the type of the task says what is locked.
fn digest_of(
    root: &str,
    queue: &QueueName,
    task: &TaskRecord,
    key: &str,
) -> Result<Option<Lock>, String> {
    if key.is_empty() {
        return Ok(None);
    }
    let start = unique_key(root, queue, &task.task_type, "");
    match key.strip_prefix(&start) {
        Some(digest) => Ok(Some(Lock { digest: digest.to_owned(), held_until: None })),
        None => {
            Err(format!("the key of its unique lock, {key:?}, is not one of its queue and type"))
        }
    }
}

impl Inner {
    /// Looks how long the locks of parcels still hold.
    pub(super) async fn find_locks(
        &self,
        queue: &QueueName,
        parcels: &mut [&mut Parcel],
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let mut asked = redis::pipe();
        for parcel in parcels.iter() {
            let key = lock_key(self.root.as_str(), queue, parcel);
            asked.cmd("GET").arg(&key).cmd("PTTL").arg(&key);
        }
        let mut answers = self.admin.run_all(&asked).await?.into_iter();
        for parcel in parcels {
            let owner = answer::text(answers.next().unwrap_or_default())?;
            let left = ttl_of(answer::int(answers.next().unwrap_or_default())?);
            if let Some(lock) = &mut parcel.lock {
                let is_holder = owner == parcel.task.id.as_str();
                lock.held_until = left.filter(|_| is_holder).map(|left| now.plus(left));
            }
        }
        Ok(())
    }
}

/// The key of a parcel's lock here; empty if it has none.
pub(super) fn lock_key(root: &str, queue: &QueueName, parcel: &Parcel) -> String {
    let lock = parcel.lock.as_ref();
    lock.map_or_else(String::new, |lock| {
        unique_key(root, queue, &parcel.task.task_type, &lock.digest)
    })
}

/// What PTTL says: `None` if the key is gone. One that never expires is held for as long as anything is.
pub(super) fn ttl_of(millis: i64) -> Option<Duration> {
    match millis {
        -1 => Some(DURATION_MAX),
        _ => u64::try_from(millis).ok().map(Duration::from_millis),
    }
}

/// The message of a task that comes from elsewhere.
pub(super) fn message_of(root: &str, queue: &QueueName, parcel: &Parcel) -> TaskMessage {
    let task = &parcel.task;
    let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    let moment = |at: Option<Timestamp>| at.map_or(0, Timestamp::as_seconds);
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    TaskMessage {
        task_type: task.task_type.as_str().to_owned(),
        payload: task.payload.clone(),
        id: task.id.as_str().to_owned(),
        queue: queue.as_str().to_owned(),
        retry: number(task.max_retry),
        retried: number(task.retried),
        error_msg: task.last_error.clone().unwrap_or_default(),
        // None is zero there, and zero is what a negative number means.
        timeout: task.timeout.map_or(0, |span| if span.is_zero() { -1 } else { seconds(span) }),
        deadline: moment(task.deadline),
        unique_key: lock_key(root, queue, parcel),
        last_failed_at: moment(task.last_failed_at),
        retention: seconds(task.retention),
        completed_at: moment(task.completed_at),
        group_key: task.group.as_ref().map_or_else(String::new, |group| group.to_string()),
        headers: task.headers.clone(),
        unknown: parcel.unknown.to_vec(),
    }
}
