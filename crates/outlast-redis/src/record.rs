//! Tasks to what Redis holds of them, and back: messages, hash fields and scores to a [`TaskRecord`].
//!
//! `docs/redis-keys.md` describes the fields. Other programs write here, too: nothing panics, what has a
//! sensible reading gets it, and what has none is [`Unreadable`], with the field and its value.

use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use outlast_core::{
    GroupName, LeaseToken, NewTask, QueueName, TaskId, TaskRecord, TaskState, TaskType, Timestamp,
};
use uuid::{Uuid, Variant};

use crate::proto::{DecodeError, TaskMessage};

/// A lease score is `seconds + token / TOKEN_UNIT`.
pub(crate) const TOKEN_UNIT: f64 = (1_u32 << 20) as f64;

/// Seconds of a lease end before 2^33 (the year 2242), or a double has no room for the token.
pub(crate) const LEASE_SECONDS_MAX: i64 = (1 << 33) - 1;

/// How far the time in a UUIDv7 may be from the moment of acceptance and still stand for it.
const ID_TIME_TOLERANCE: Duration = Duration::from_secs(1);

/// Why a stored task cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreadable {
    /// A field that every task has is absent: a ghost.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// The message is none.
    #[error("field msg: {0}")]
    Message(#[from] DecodeError),
    /// A field holds something else than it must.
    #[error("field {field} holds {value:?}, which is no {wanted}")]
    Field {
        /// Its name.
        field: &'static str,
        /// What it holds, at most 64 characters of it.
        value: String,
        /// What it must hold.
        wanted: &'static str,
    },
}

/// What Redis holds of a task: raw fields of its hash, and its score where it is in a sorted set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StoredTask<'a> {
    /// `msg`.
    pub(crate) msg: Option<&'a [u8]>,
    /// `state`.
    pub(crate) state: Option<&'a [u8]>,
    /// `pending_since`: Unix nanoseconds.
    pub(crate) pending_since: Option<&'a [u8]>,
    /// `result`.
    pub(crate) result: Option<&'a [u8]>,
    /// `o:at`: Unix milliseconds.
    pub(crate) accepted: Option<&'a [u8]>,
    /// `o:run`: `<ms>:<token>`.
    pub(crate) run: Option<&'a [u8]>,
    /// `o:lost`.
    pub(crate) losses: Option<&'a [u8]>,
    /// Its score in `scheduled`, `retry` or `lease`, whichever its state says.
    pub(crate) score: Option<f64>,
}

/// The key of a task's unique lock: `<root>:{<queue>}:unique:<type>:<digest>`.
pub(crate) fn unique_key(
    root: &str,
    queue: &QueueName,
    task_type: &TaskType,
    digest: &str,
) -> String {
    format!("{root}:{{{queue}}}:unique:{task_type}:{digest}")
}

/// The message of a new task. The group is in it even if the task is scheduled, as in asynq.
pub(crate) fn message_of(root: &str, queue: &QueueName, task: &NewTask) -> TaskMessage {
    let unique = task.unique.as_ref();
    TaskMessage {
        task_type: task.task_type.as_str().to_owned(),
        payload: task.payload.clone(),
        id: task.id.as_str().to_owned(),
        queue: queue.as_str().to_owned(),
        retry: i32::try_from(task.max_retry).unwrap_or(i32::MAX),
        timeout: task.effective_timeout().map_or(0, whole_seconds),
        deadline: task.deadline.map_or(0, Timestamp::as_seconds),
        unique_key: unique
            .map_or_else(String::new, |u| unique_key(root, queue, &task.task_type, &u.digest)),
        retention: whole_seconds(task.retention),
        group_key: task.group.as_ref().map_or_else(String::new, |group| group.as_str().to_owned()),
        headers: task.headers.clone(),
        ..TaskMessage::default()
    }
}

fn whole_seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

/// The record of a stored task at `now`. Queue and id are those of its key, whatever its message says.
///
/// # Errors
/// [`Unreadable`] names the field and what it holds.
pub(crate) fn record_of(
    queue: &QueueName,
    id: &TaskId,
    stored: &StoredTask<'_>,
    now: Timestamp,
) -> Result<TaskRecord, Unreadable> {
    let message = TaskMessage::decode(stored.msg.ok_or(Unreadable::Missing("msg"))?)?;
    let state = stored.state.ok_or(Unreadable::Missing("state"))?;
    let state: TaskState = number("state", "state of a task", state)?;
    let losses = stored.losses.map(|text| number("o:lost", "count", text)).transpose()?;
    let accepted = stored.accepted.map(|text| number("o:at", "number", text)).transpose()?;
    let mut record = of_message(queue, id, message);
    record.state = state;
    record.losses = losses.unwrap_or(0);
    record.enqueued_at = accepted.map(Timestamp::from_millis).or_else(|| id_time(id));
    record.result = stored.result.map(Bytes::copy_from_slice);
    times_by_state(&mut record, stored, now)?;
    Ok(record)
}

fn of_message(queue: &QueueName, id: &TaskId, message: TaskMessage) -> TaskRecord {
    let count = |number: i32| u32::try_from(number).unwrap_or(0);
    let span = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let moment = |seconds: i64| (seconds != 0).then(|| Timestamp::from_seconds(seconds));
    let task_type = TaskType::stored(&message.task_type);
    let mut record = TaskRecord::new(queue.clone(), id.clone(), task_type, message.payload);
    record.headers = message.headers;
    record.max_retry = count(message.retry);
    record.retried = count(message.retried);
    // A negative timeout expires at once, as in asynq (contract §2.6): zero, and not none.
    record.timeout = (message.timeout != 0).then(|| span(message.timeout));
    record.deadline = moment(message.deadline);
    record.retention = span(message.retention);
    record.group = (!message.group_key.is_empty()).then(|| GroupName::stored(&message.group_key));
    record.last_error = (!message.error_msg.is_empty()).then_some(message.error_msg);
    record.last_failed_at = moment(message.last_failed_at);
    record.completed_at = moment(message.completed_at);
    record
}

/// The moments that only one state has. asynq leaves some of them behind when the state changes.
fn times_by_state(
    record: &mut TaskRecord,
    stored: &StoredTask<'_>,
    now: Timestamp,
) -> Result<(), Unreadable> {
    if record.state != TaskState::Completed {
        record.completed_at = None;
    }
    match record.state {
        TaskState::Pending => {
            record.next_at = Some(now);
            record.pending_since = stored.pending_since.map(moment_of_nanos).transpose()?;
        }
        TaskState::Active => {
            record.lease_until = stored.score.map(moment_of_score);
            record.started_at = match (stored.run, stored.score.and_then(token_of)) {
                (Some(run), Some(token)) => started_at(run, token)?,
                (_, _) => None,
            };
        }
        TaskState::Scheduled | TaskState::Retry => {
            record.next_at = stored.score.map(moment_of_score);
        }
        TaskState::Archived | TaskState::Completed | TaskState::Aggregating => {}
    }
    Ok(())
}

/// When the run of `token` began, if `o:run` is about that one.
fn started_at(run: &[u8], token: LeaseToken) -> Result<Option<Timestamp>, Unreadable> {
    const WANTED: &str = "<ms>:<token>";
    let mut halves = run.splitn(2, |byte| *byte == b':');
    let (Some(millis), Some(holder)) = (halves.next(), halves.next()) else {
        return Err(wrong("o:run", WANTED, run));
    };
    let (millis, holder) = match (parsed::<i64>(millis), parsed::<u32>(holder)) {
        (Some(millis), Some(holder)) => (millis, holder),
        (_, _) => return Err(wrong("o:run", WANTED, run)),
    };
    Ok((holder == token.get()).then(|| Timestamp::from_millis(millis)))
}

/// `pending_since` as a moment. More digits than Go would write are read: the far future has them.
fn moment_of_nanos(text: &[u8]) -> Result<Timestamp, Unreadable> {
    let millis = number::<i128>("pending_since", "number", text)?.div_euclid(1_000_000);
    let end = if millis < 0 { i64::MIN } else { i64::MAX };
    Ok(Timestamp::from_millis(i64::try_from(millis).unwrap_or(end)))
}

fn parsed<T: FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn number<T: FromStr>(
    field: &'static str,
    wanted: &'static str,
    text: &[u8],
) -> Result<T, Unreadable> {
    parsed(text).ok_or_else(|| wrong(field, wanted, text))
}

fn wrong(field: &'static str, wanted: &'static str, text: &[u8]) -> Unreadable {
    let head = &text[..text.len().min(256)];
    let value = String::from_utf8_lossy(head).chars().take(64).collect();
    Unreadable::Field { field, value, wanted }
}

/// The moment of a score: its whole second, rounded down.
pub(crate) fn moment_of_score(score: f64) -> Timestamp {
    // The cast saturates, and makes zero of what is no number: Redis stores none.
    Timestamp::from_seconds(score.floor() as i64)
}

/// Who holds the lease of this score: `None` if it is a whole number, which is a lease of asynq's.
pub(crate) fn token_of(score: f64) -> Option<LeaseToken> {
    let fraction = score - score.floor();
    LeaseToken::new((fraction * TOKEN_UNIT).round() as u32)
}

/// The score of a lease: the second until which it holds, rounded down, and whose it is. Exact, so that
/// [`token_of`] gives the token back; a lease ends in the year 2242 at the latest.
pub(crate) fn lease_score(until: Timestamp, token: LeaseToken) -> f64 {
    let seconds = until.as_seconds().clamp(-LEASE_SECONDS_MAX, LEASE_SECONDS_MAX);
    seconds as f64 + f64::from(token.get()) / TOKEN_UNIT
}

/// A score as a decimal that Redis reads as the very same double. Do not calculate with it in Lua, which
/// writes numbers with 14 digits.
pub(crate) fn score_text(score: f64) -> String {
    // The shortest decimal that is read back as the same double, never with an exponent.
    format!("{score}")
}

/// A moment as asynq's scores have it: whole seconds, rounded down.
pub(crate) fn seconds_text(moment: Timestamp) -> String {
    moment.as_seconds().to_string()
}

/// A moment as `pending_since` has it: Unix nanoseconds.
pub(crate) fn nanos_text(moment: Timestamp) -> String {
    (i128::from(moment.as_millis()) * 1_000_000).to_string()
}

/// The field `o:at` of a task accepted at `now`, unless its id tells the time nearly enough.
pub(crate) fn accepted_at_field(id: &TaskId, now: Timestamp) -> Option<String> {
    let told = id_time(id).is_some_and(|time| {
        time.since(now) <= ID_TIME_TOLERANCE && now.since(time) <= ID_TIME_TOLERANCE
    });
    (!told).then(|| now.as_millis().to_string())
}

/// The time in an id that is a UUIDv7.
fn id_time(id: &TaskId) -> Option<Timestamp> {
    let uuid = Uuid::try_parse(id.as_str()).ok()?;
    let is_v7 = uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122;
    // The first 48 bits are Unix milliseconds.
    let millis = i64::try_from(uuid.as_u128() >> 80).ok()?;
    is_v7.then(|| Timestamp::from_millis(millis))
}
