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

/// What the score of a lease has behind its second, for a token.
pub(crate) fn fraction_text(token: LeaseToken) -> String {
    (f64::from(token.get()) / TOKEN_UNIT).to_string()
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
pub(crate) fn id_time(id: &TaskId) -> Option<Timestamp> {
    let uuid = Uuid::try_parse(id.as_str()).ok()?;
    let is_v7 = uuid.get_version_num() == 7 && uuid.get_variant() == Variant::RFC4122;
    // The first 48 bits are Unix milliseconds.
    let millis = i64::try_from(uuid.as_u128() >> 80).ok()?;
    is_v7.then(|| Timestamp::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use outlast_core::Unique;
    use proptest::prelude::*;

    use super::*;

    const V7: &str = "018bcfe5-6800-7000-8000-000000000000";
    const V7_MILLIS: i64 = 1_700_000_000_000;

    fn queue() -> QueueName {
        QueueName::default_queue()
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    fn token(number: u32) -> LeaseToken {
        LeaseToken::new(number).expect("a token")
    }

    fn record(message: &TaskMessage, state: TaskState, rest: StoredTask<'_>) -> TaskRecord {
        let msg = message.encode();
        let state = Some(state.as_str().as_bytes());
        let stored = StoredTask { msg: Some(&msg), state, ..rest };
        record_of(&queue(), &TaskId::stored("1"), &stored, at(50)).expect("readable")
    }

    #[test]
    fn a_new_task_becomes_the_message_that_asynq_would_write() {
        let kind = TaskType::stored("email:send");
        let mut task = NewTask::new(TaskId::stored("1"), kind, "{\"id\":7}".into());
        assert_eq!(message_of("asynq", &queue(), &task).timeout, 1800);
        for digest in ["f909686c4adf64f7a8c468b29e6e66aa", "d41d8cd98f00b204e9800998ecf8427e", ""] {
            let ttl = Duration::from_secs(60);
            task.unique = Some(Unique { digest: digest.into(), ttl });
            let key = message_of("asynq", &queue(), &task).unique_key;
            assert_eq!(key, format!("asynq:{{default}}:unique:email:send:{digest}"));
        }
        task.deadline = Some(Timestamp::from_millis(-1500));
        task.group = Some(GroupName::stored("g"));
        task.due = Some(at(1));
        task.max_retry = u32::MAX;
        let message = message_of("billing", &queue(), &task);
        assert_eq!((message.timeout, message.deadline, message.retry), (0, -2, i32::MAX));
        assert_eq!(message.group_key, "g");
        assert_eq!(message.unique_key, "billing:{default}:unique:email:send:");
    }

    #[test]
    fn key_wins_over_message_and_zero_and_negative_numbers_have_a_meaning() {
        let message = TaskMessage {
            id: "other".into(),
            queue: "other".into(),
            retry: -1,
            retried: -1,
            timeout: -5,
            retention: -5,
            deadline: -86_400,
            ..TaskMessage::default()
        };
        let task = record(&message, TaskState::Archived, StoredTask::default());
        assert_eq!((task.id.as_str(), task.queue.as_str()), ("1", "default"));
        assert_eq!((task.max_retry, task.retried, task.losses), (0, 0, 0));
        assert_eq!((task.timeout, task.retention), (Some(Duration::ZERO), Duration::ZERO));
        assert_eq!(task.deadline, Some(at(-86_400)));
        assert_eq!((task.last_error, task.last_failed_at, task.next_at), (None, None, None));
        let task = record(&TaskMessage::default(), TaskState::Archived, StoredTask::default());
        assert_eq!((task.timeout, task.deadline, task.enqueued_at), (None, None, None));
    }

    #[test]
    fn every_state_shows_its_own_moments_only() {
        let message = TaskMessage { completed_at: 7, ..TaskMessage::default() };
        let rest = StoredTask {
            pending_since: Some(b"-1500000000"),
            run: Some(b"40500:9"),
            accepted: Some(b"39000"),
            losses: Some(b"3"),
            result: Some(b"half"),
            score: Some(lease_score(at(60), token(9))),
            ..StoredTask::default()
        };
        for state in TaskState::ALL {
            let task = record(&message, state, rest);
            let only = |wanted: bool, moment: Timestamp| wanted.then_some(moment);
            let (pending, active) = (state == TaskState::Pending, state == TaskState::Active);
            assert_eq!(task.pending_since, only(pending, Timestamp::from_millis(-1500)));
            assert_eq!(task.started_at, only(active, Timestamp::from_millis(40_500)));
            assert_eq!(task.lease_until, only(active, at(60)));
            assert_eq!(task.completed_at, only(state == TaskState::Completed, at(7)));
            let next = match state {
                TaskState::Pending => Some(at(50)),
                TaskState::Scheduled | TaskState::Retry => Some(at(60)),
                _ => None,
            };
            assert_eq!(task.next_at, next, "{state}");
            assert_eq!((task.losses, task.enqueued_at), (3, Some(at(39))));
        }
    }

    #[test]
    fn the_run_of_another_token_or_of_asynq_has_no_known_start() {
        for score in [lease_score(at(60), token(8)), 60.0] {
            let rest =
                StoredTask { run: Some(b"40500:9"), score: Some(score), ..StoredTask::default() };
            let task = record(&TaskMessage::default(), TaskState::Active, rest);
            assert_eq!((task.started_at, task.lease_until), (None, Some(at(60))));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_value() {
        let ok = StoredTask {
            msg: Some(b""),
            state: Some(b"active"),
            score: Some(1.5),
            ..StoredTask::default()
        };
        let cases = [
            (StoredTask { msg: None, ..ok }, "field msg is missing"),
            (StoredTask { state: None, ..ok }, "field state is missing"),
            (
                StoredTask { msg: Some(b"\x0a"), ..ok },
                "field msg: the message ends within a field at byte 1",
            ),
            (
                StoredTask { state: Some(b"act\xff"), ..ok },
                "field state holds \"act\u{fffd}\", which is no state of a task",
            ),
            (
                StoredTask { run: Some(b"12"), ..ok },
                "field o:run holds \"12\", which is no <ms>:<token>",
            ),
            (
                StoredTask { losses: Some(b"-1"), ..ok },
                "field o:lost holds \"-1\", which is no count",
            ),
            (StoredTask { accepted: Some(b""), ..ok }, "field o:at holds \"\", which is no number"),
        ];
        for (stored, message) in cases {
            let error = record_of(&queue(), &TaskId::stored("1"), &stored, at(0));
            assert_eq!(error.expect_err(message).to_string(), message);
        }
    }

    #[test]
    fn an_id_that_tells_the_time_needs_no_field() {
        let id = TaskId::stored(V7);
        for (millis, field) in [(0, false), (1000, false), (-1000, false), (1001, true)] {
            let now = Timestamp::from_millis(V7_MILLIS + millis);
            let wanted = field.then(|| now.as_millis().to_string());
            assert_eq!(accepted_at_field(&id, now), wanted, "{millis}");
        }
        let now = Timestamp::from_millis(-5);
        assert_eq!(accepted_at_field(&TaskId::stored("42"), now).as_deref(), Some("-5"));
        let stored =
            StoredTask { msg: Some(b""), state: Some(b"archived"), ..StoredTask::default() };
        let task = record_of(&queue(), &id, &stored, now).expect("readable");
        assert_eq!(task.enqueued_at, Some(Timestamp::from_millis(V7_MILLIS)));
        let v4 = TaskId::stored("11111111-2222-4333-8444-555555555555");
        assert!(accepted_at_field(&v4, now).is_some());
    }

    #[test]
    fn texts_of_moments_round_down_and_do_not_overflow() {
        assert_eq!(seconds_text(Timestamp::from_millis(-1)), "-1");
        assert_eq!(nanos_text(Timestamp::default()), "0");
        for moment in [Timestamp::MAX, Timestamp::from_millis(i64::MIN)] {
            assert_eq!(moment_of_nanos(nanos_text(moment).as_bytes()), Ok(moment));
        }
        assert_eq!(moment_of_score(f64::INFINITY), Timestamp::MAX);
        assert_eq!(
            (token_of(f64::INFINITY), token_of(f64::NAN), token_of(-3.0)),
            (None, None, None)
        );
    }

    proptest! {
        #[test]
        fn a_lease_score_keeps_its_token_and_second_through_its_text(
            millis in any::<i64>(),
            number in 1..=outlast_core::limits::LEASE_TOKEN_MAX,
        ) {
            let until = Timestamp::from_millis(millis);
            let text = score_text(lease_score(until, token(number)));
            prop_assert!(!text.contains('e'));
            let score: f64 = text.parse().expect("a number");
            prop_assert_eq!(token_of(score), Some(token(number)));
            let kept = until.as_seconds().clamp(-LEASE_SECONDS_MAX, LEASE_SECONDS_MAX);
            prop_assert_eq!(moment_of_score(score), at(kept));
        }

        #[test]
        fn no_stored_bytes_make_the_reader_panic(
            fields in proptest::array::uniform7(proptest::option::of(any::<Vec<u8>>())),
            score in proptest::option::of(any::<f64>()),
            state in 0_usize..7,
        ) {
            let [msg, any_state, pending_since, result, accepted, run, losses] =
                fields.each_ref().map(Option::as_deref);
            let state = any_state.and(Some(TaskState::ALL[state].as_str().as_bytes()));
            let stored =
                StoredTask { msg, state, pending_since, result, accepted, run, losses, score };
            let _ = record_of(&queue(), &TaskId::stored("1"), &stored, at(0));
        }
    }
}
