//! What a task is: what a client asks for ([`NewTask`]), what a broker keeps ([`TaskRecord`]), and what
//! a worker holds while it runs one ([`Lease`]).

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::limits::{self, HEADERS_BYTES_MAX, HEADERS_MAX, MAX_RETRY_MAX, PAYLOAD_BYTES_MAX};
use crate::{GroupName, QueueName, TaskId, TaskState, TaskType, Timestamp};

/// Metadata that travels with a task: trace ids, tenants, content types.
pub type Headers = BTreeMap<String, String>;

/// A task to be enqueued. Only `id`, `task_type` and `payload` have no default; the rest is set by name.
///
/// Whole seconds: `timeout`, `deadline`, `retention` and `unique.ttl` are stored by asynq in seconds, so
/// fractions are refused by [`NewTask::check`] where they would be lost.
///
/// ```
/// use outlast_core::{NewTask, TaskId, TaskState, TaskType, Timestamp};
/// use std::time::Duration;
/// let now = Timestamp::from_seconds(1_000);
/// let mut task = NewTask::new(TaskId::new("42")?, TaskType::new("email:welcome")?, "{}".into());
/// task.due = Some(now.plus(Duration::from_secs(60)));
/// assert!(task.check(now).is_ok());
/// assert_eq!(task.first_state(now), TaskState::Scheduled);
/// # Ok::<(), outlast_core::NameError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewTask {
    /// Unique in its queue, for as long as the task is stored.
    pub id: TaskId,
    /// Which handler runs it.
    pub task_type: TaskType,
    /// What the handler gets; opaque to every broker.
    pub payload: Bytes,
    /// Metadata that travels with the task.
    pub headers: Headers,
    /// Not before this moment. `None`, or a moment that has passed, is now.
    pub due: Option<Timestamp>,
    /// Retries after the first run before the task is archived.
    pub max_retry: u32,
    /// How long one run may take; `None` with no deadline either means 30 minutes, as in asynq.
    pub timeout: Option<Duration>,
    /// When every run must be over; it does not move with retries.
    pub deadline: Option<Timestamp>,
    /// How long the task is kept after its success; zero deletes it at once.
    pub retention: Duration,
    /// Refuse the task while another one with the same digest holds the lock.
    pub unique: Option<Unique>,
    /// Wait in this group to be aggregated with others, instead of running alone.
    pub group: Option<GroupName>,
    /// Accept only the first task of this key, ever within its time to live, whatever became of it.
    pub once: Option<Once>,
    /// Where in the queue the task starts.
    pub place: Place,
}

/// A lock on what a task is about: held from enqueue until the task is done or deleted, or `ttl` is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unique {
    /// Lower-case hex MD5 of the payload, or empty for a task without payload (contract §1.5). The
    /// client computes it, so that payloads can be encrypted one day.
    pub digest: String,
    /// How long the lock holds, in whole seconds, at least one.
    pub ttl: Duration,
}

/// A key that is accepted once: periodic ticks, webhooks, idempotency keys. Unlike [`Unique`] it is not
/// released when the task is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once {
    /// The key, in the task's queue.
    pub key: String,
    /// How long the key is remembered.
    pub ttl: Duration,
}

/// Where in its queue a task starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Behind everything that waits.
    #[default]
    Back,
    /// Before everything that waits.
    Front,
}

/// Why a task cannot be accepted by any broker, now or later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TaskError {
    /// The payload exceeds a limit.
    #[error(
        "payload of {bytes} bytes is too large: at most {limit} are allowed; store the data and enqueue a reference"
    )]
    PayloadTooLarge {
        /// The payload's size.
        bytes: usize,
        /// The limit it exceeds.
        limit: usize,
    },
    /// Too many headers, or too many bytes in them.
    #[error(
        "{count} headers of {bytes} bytes are too much: at most {HEADERS_MAX} headers of {HEADERS_BYTES_MAX} bytes in all"
    )]
    HeadersTooLarge {
        /// How many there are.
        count: usize,
        /// Their names and values in bytes.
        bytes: usize,
    },
    /// A duration with a fraction of a second, where asynq stores whole seconds; or too short or long.
    #[error("{option} {value} {why}")]
    Duration {
        /// Which option.
        option: &'static str,
        /// Its value.
        value: String,
        /// What is wrong and what to give instead.
        why: &'static str,
    },
    /// A deadline that has passed: the task could never run.
    #[error("deadline {deadline} has passed, it is {now}: give a later one or none")]
    DeadlinePassed {
        /// The deadline.
        deadline: Timestamp,
        /// The time it was compared with.
        now: Timestamp,
    },
    /// More retries than [`MAX_RETRY_MAX`].
    #[error("max retry {0} is too many: at most {MAX_RETRY_MAX} are allowed")]
    MaxRetry(u32),
    /// A `once` key that is empty or too long.
    #[error("once key {0:?} is blank or over 512 bytes")]
    OnceKey(String),
}

impl NewTask {
    /// A task with asynq's defaults: 25 retries, 30 minutes, no retention, runs as soon as possible.
    #[must_use]
    pub fn new(id: TaskId, task_type: TaskType, payload: Bytes) -> Self {
        Self {
            id,
            task_type,
            payload,
            headers: Headers::new(),
            due: None,
            max_retry: limits::MAX_RETRY_DEFAULT,
            timeout: None,
            deadline: None,
            retention: Duration::ZERO,
            unique: None,
            group: None,
            once: None,
            place: Place::Back,
        }
    }

    /// The state in which a broker stores the task at `now`.
    #[must_use]
    pub fn first_state(&self, now: Timestamp) -> TaskState {
        match (self.due, &self.group) {
            (Some(due), _) if due > now => TaskState::Scheduled,
            (_, Some(_)) => TaskState::Aggregating,
            (_, None) => TaskState::Pending,
        }
    }

    /// The timeout that is stored: asynq's 30 minutes where neither timeout nor deadline is given.
    #[must_use]
    pub fn effective_timeout(&self) -> Option<Duration> {
        match (self.timeout, self.deadline) {
            (None, None) => Some(limits::TIMEOUT_DEFAULT),
            (timeout, _) => timeout,
        }
    }

    /// Checks everything that can be known without a broker.
    ///
    /// # Errors
    /// [`TaskError`] names the option, its value and the remedy.
    pub fn check(&self, now: Timestamp) -> Result<(), TaskError> {
        self.check_sizes()?;
        self.check_durations()?;
        if let Some(deadline) = self.deadline.filter(|deadline| *deadline <= now) {
            return Err(TaskError::DeadlinePassed { deadline, now });
        }
        if self.max_retry > MAX_RETRY_MAX {
            return Err(TaskError::MaxRetry(self.max_retry));
        }
        match &self.once {
            Some(once) if once.key.trim().is_empty() || once.key.len() > 512 => {
                Err(TaskError::OnceKey(once.key.chars().take(64).collect()))
            }
            _ => Ok(()),
        }
    }

    fn check_sizes(&self) -> Result<(), TaskError> {
        if self.payload.len() > PAYLOAD_BYTES_MAX {
            let bytes = self.payload.len();
            return Err(TaskError::PayloadTooLarge { bytes, limit: PAYLOAD_BYTES_MAX });
        }
        let (count, bytes) = (self.headers.len(), header_bytes(&self.headers));
        if count > HEADERS_MAX || bytes > HEADERS_BYTES_MAX {
            return Err(TaskError::HeadersTooLarge { count, bytes });
        }
        Ok(())
    }

    fn check_durations(&self) -> Result<(), TaskError> {
        if let Some(timeout) = self.timeout {
            whole_seconds("timeout", timeout, AtLeast::OneSecond)?;
        }
        if let Some(unique) = &self.unique {
            whole_seconds("unique", unique.ttl, AtLeast::OneSecond)?;
        }
        if let Some(once) = &self.once {
            whole_seconds("once", once.ttl, AtLeast::OneSecond)?;
        }
        whole_seconds("retention", self.retention, AtLeast::Zero)
    }
}

fn header_bytes(headers: &Headers) -> usize {
    headers.iter().map(|(name, value)| name.len() + value.len()).sum()
}

#[derive(Clone, Copy, PartialEq)]
enum AtLeast {
    Zero,
    OneSecond,
}

fn whole_seconds(option: &'static str, value: Duration, least: AtLeast) -> Result<(), TaskError> {
    let why = if least == AtLeast::OneSecond && value < Duration::from_secs(1) {
        "is too short: asynq stores whole seconds, use 1s or more"
    } else if value.subsec_nanos() != 0 {
        "has a fraction of a second: asynq stores whole seconds, round it"
    } else if value > limits::DURATION_MAX {
        "is too long: at most ten years are allowed"
    } else {
        return Ok(());
    };
    Err(TaskError::Duration { option, value: crate::duration::format(value), why })
}

/// The right to run a task, and the fence around it: a broker applies a settlement or an extension only
/// while the task is still leased to this token (design §5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The task; for an aggregation, the id of the set.
    pub id: TaskId,
    /// Who holds it.
    pub token: LeaseToken,
    /// Until when, unless extended.
    pub until: Timestamp,
}

/// Who holds a lease: a number from 1 to 2^20 − 1, handed out by a worker's first beat and constant for
/// its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken(u32);

impl LeaseToken {
    /// The token `number`, or `None` if it is zero or above [`limits::LEASE_TOKEN_MAX`].
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (1..=limits::LEASE_TOKEN_MAX).contains(&number).then_some(Self(number))
    }

    /// The token as a number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A task as a broker keeps it: what claims hand out and inspections show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskRecord {
    /// The task's id.
    pub id: TaskId,
    /// The queue it is in.
    pub queue: QueueName,
    /// Which handler runs it.
    pub task_type: TaskType,
    /// What the handler gets.
    pub payload: Bytes,
    /// Metadata that travels with it.
    pub headers: Headers,
    /// Where it is in its life.
    pub state: TaskState,
    /// Retries before it is archived.
    pub max_retry: u32,
    /// Failed runs so far; a lost lease is none.
    pub retried: u32,
    /// Leases lost so far.
    pub losses: u32,
    /// How long one run may take.
    pub timeout: Option<Duration>,
    /// When every run must be over.
    pub deadline: Option<Timestamp>,
    /// How long it is kept after success.
    pub retention: Duration,
    /// The group it waits in, or came from.
    pub group: Option<GroupName>,
    /// The last error's text.
    pub last_error: Option<String>,
    /// When that was.
    pub last_failed_at: Option<Timestamp>,
    /// When it runs next: now if pending, the due time if scheduled or in retry, else `None`.
    pub next_at: Option<Timestamp>,
    /// When it was accepted.
    pub enqueued_at: Option<Timestamp>,
    /// Since when it is pending.
    pub pending_since: Option<Timestamp>,
    /// When the current run was claimed.
    pub started_at: Option<Timestamp>,
    /// Until when the current run's lease holds.
    pub lease_until: Option<Timestamp>,
    /// When it succeeded.
    pub completed_at: Option<Timestamp>,
    /// What its handler wrote: the result, or the progress so far.
    pub result: Option<Bytes>,
}

impl TaskRecord {
    /// A pending record with nothing but its names and payload; brokers fill in the rest.
    #[must_use]
    pub fn new(queue: QueueName, id: TaskId, task_type: TaskType, payload: Bytes) -> Self {
        Self {
            id,
            queue,
            task_type,
            payload,
            headers: Headers::new(),
            state: TaskState::Pending,
            max_retry: limits::MAX_RETRY_DEFAULT,
            retried: 0,
            losses: 0,
            timeout: None,
            deadline: None,
            retention: Duration::ZERO,
            group: None,
            last_error: None,
            last_failed_at: None,
            next_at: None,
            enqueued_at: None,
            pending_since: None,
            started_at: None,
            lease_until: None,
            completed_at: None,
            result: None,
        }
    }

    /// When a run that starts at `now` must be over (contract §2.7).
    #[must_use]
    pub fn run_deadline(&self, now: Timestamp) -> Timestamp {
        match (self.timeout, self.deadline) {
            (None, None) => now.plus(limits::TIMEOUT_DEFAULT),
            (Some(timeout), None) => now.plus(timeout),
            (None, Some(deadline)) => deadline,
            (Some(timeout), Some(deadline)) => now.plus(timeout).min(deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> NewTask {
        NewTask::new(TaskId::stored("1"), TaskType::stored("t"), Bytes::new())
    }

    #[test]
    fn options_that_asynq_cannot_store_are_refused_by_name_and_value() {
        let now = Timestamp::from_seconds(100);
        let with = |change: fn(&mut NewTask)| {
            let mut task = task();
            change(&mut task);
            task.check(now).expect_err("must be refused").to_string()
        };
        assert_eq!(
            with(|t| t.timeout = Some(Duration::from_millis(500))),
            "timeout 500ms is too short: asynq stores whole seconds, use 1s or more"
        );
        assert_eq!(
            with(|t| t.retention = Duration::from_millis(1500)),
            "retention 1s500ms has a fraction of a second: asynq stores whole seconds, round it"
        );
        assert!(with(|t| t.deadline = Some(Timestamp::from_seconds(100))).contains("has passed"));
        assert!(with(|t| t.max_retry = u32::MAX).contains("is too many"));
        assert!(with(|t| t.payload = vec![0; PAYLOAD_BYTES_MAX + 1].into()).contains("too large"));
        assert!(
            with(|t| {
                t.unique = Some(Unique { digest: String::new(), ttl: Duration::ZERO });
            })
            .starts_with("unique 0s is too short")
        );
        assert!(
            with(|t| {
                t.headers = (0..=HEADERS_MAX).map(|n| (n.to_string(), String::new())).collect();
            })
            .contains("65 headers")
        );
    }

    #[test]
    fn a_scheduled_task_with_a_group_waits_for_its_time_first() {
        let now = Timestamp::from_seconds(100);
        let mut task = task();
        assert_eq!(task.first_state(now), TaskState::Pending);
        task.group = Some(GroupName::stored("g"));
        assert_eq!(task.first_state(now), TaskState::Aggregating);
        task.due = Some(now.plus(Duration::from_secs(1)));
        assert_eq!(task.first_state(now), TaskState::Scheduled);
        assert_eq!(task.first_state(now.plus(Duration::from_secs(1))), TaskState::Aggregating);
    }

    #[test]
    fn the_earlier_of_timeout_and_deadline_ends_a_run() {
        let now = Timestamp::from_seconds(100);
        let mut record = TaskRecord::new(
            QueueName::default_queue(),
            TaskId::stored("1"),
            TaskType::stored("t"),
            Bytes::new(),
        );
        assert_eq!(record.run_deadline(now), now.plus(limits::TIMEOUT_DEFAULT));
        record.deadline = Some(Timestamp::from_seconds(105));
        assert_eq!(record.run_deadline(now), Timestamp::from_seconds(105));
        record.timeout = Some(Duration::from_secs(2));
        assert_eq!(record.run_deadline(now), Timestamp::from_seconds(102));
    }
}
