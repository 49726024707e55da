//! Moving tasks from one broker to another without losing one or having one twice
//! (`docs/adr/0015-moving-between-brokers.md`).
//!
//! ```text
//!   source                        mover                         target
//!   take ──── a batch, out of ───►│
//!             everybody's reach   │──── put, with its stamp ────► stored once, whoever repeats it
//!                                 │◄─── a verdict per parcel ────
//!   conclude ◄── what was refused ┘
//!   forgets what was stored, gives the rest back to where it was
//! ```
//!
//! The source keeps the batch and its stamp until it is concluded. So whoever stopped in between, the next
//! [`take`](Porter::take) answers the same batch, the next [`put`](Porter::put) the same verdicts.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::Epoch;
use crate::inspect::{Cursor, Page, ScheduleState};
use crate::limits::{BATCH_TASKS_MAX, check_count};
use crate::{
    BrokerError, Durability, QueueName, SessionId, Stamp, TaskId, TaskRecord, TaskState, Timestamp,
};

/// Tasks of one batch that were refused and are passed over by later batches; a queue of which more are
/// refused is not moved on: something is wrong with all of it.
pub const REFUSED_MAX: usize = 1000;

/// How long a target remembers a batch: as long as the broker keeps archived tasks. A batch that was begun
/// longer ago is not put again, because nobody could say whether it was stored.
pub const MOVE_TTL: Duration = Duration::from_secs(90 * 24 * 3600);

/// The states whose tasks are moved, in this order. Active ones stay until they are over.
pub const MOVED_STATES: [TaskState; 6] = [
    TaskState::Pending,
    TaskState::Scheduled,
    TaskState::Retry,
    TaskState::Aggregating,
    TaskState::Archived,
    TaskState::Completed,
];

/// Both ends of a move. Every broker can be either.
#[async_trait]
pub trait Porter: Send + Sync + 'static {
    /// Moves up to `order.tasks_max` tasks out of the reach of workers and inspectors and answers them as a
    /// batch, or the batch that is on its way already. Their ids and unique locks stay taken. A queue that
    /// has no more tasks to move gives its counters, in a batch without parcels; then `None`.
    ///
    /// # Errors
    /// [`Kind::Rejected`](crate::Kind::Rejected) if a batch is on its way to another target.
    async fn take(
        &self,
        queue: &QueueName,
        order: &Order,
        now: Timestamp,
    ) -> Result<Option<Batch>, BrokerError>;

    /// Stores parcels in the states that they have, behind those that are there, and adds the counters. A
    /// parcel that cannot be stored is a verdict and does not hold up the others.
    ///
    /// Repeatable by its stamp for [`MOVE_TTL`], also after a task has run here and is gone.
    async fn put(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        load: &Load,
    ) -> Result<Delivered, BrokerError>;

    /// Ends the batch of this stamp: its tasks are forgotten, or given back to where they were. Nothing
    /// happens if another batch is on its way, or none: repeatable by itself. Then somebody else has ended
    /// it, and may have given back what the target has stored.
    async fn conclude(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        end: &Conclusion,
    ) -> Result<Concluded, BrokerError>;

    /// Tasks as they would travel, in the order of the ids. For comparing.
    async fn parcels(
        &self,
        queue: &QueueName,
        ids: &[TaskId],
        now: Timestamp,
    ) -> Result<Vec<Found>, BrokerError>;

    /// The `once` keys that still hold, in any order. A page may be empty and have a next one.
    async fn once_keys(
        &self,
        queue: &QueueName,
        cursor: Option<&Cursor>,
        now: Timestamp,
    ) -> Result<Page<OnceKey>, BrokerError>;

    /// Takes `once` keys over, as far as they are not held here already: repeatable by itself.
    async fn hold_once(
        &self,
        queue: &QueueName,
        keys: &[OnceKey],
        now: Timestamp,
    ) -> Result<(), BrokerError>;

    /// Why a put that was answered could be lost in a crash of the broker, to be read after "the target ";
    /// `None` if it would not be.
    async fn weakness(&self) -> Result<Option<String>, BrokerError>;

    /// What is known of every schedule, also of those that no scheduler lists at the moment.
    async fn schedule_states(&self, now: Timestamp) -> Result<Vec<ScheduleState>, BrokerError>;
}

/// What a batch is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which data the batch goes to: the target's [`Health::epoch`](crate::Health::epoch). `None`: only the
    /// batch that is on its way is asked for, wherever to, and nothing more is taken.
    pub target: Option<Epoch>,
    /// The name of the session, if the queue has none for this target yet.
    pub session: SessionId,
    /// Tasks at most (1 … [`BATCH_TASKS_MAX`]).
    pub tasks_max: usize,
    /// Payload and result bytes after which no further task is taken; the first one is, whatever its size.
    pub bytes_max: usize,
    /// Tasks to be passed over, at most [`REFUSED_MAX`].
    pub except: Vec<TaskId>,
}

impl Order {
    /// Refuses an order beyond its limits.
    ///
    /// # Errors
    /// [`Kind::Rejected`](crate::Kind::Rejected) with the number and the limit.
    pub fn check(&self) -> Result<(), BrokerError> {
        check_count("batch of tasks", self.tasks_max, BATCH_TASKS_MAX)?;
        check_count("tasks to pass over", self.except.len().max(1), REFUSED_MAX)
    }
}

/// The stamp of a batch that is taken at `now`, when `last` is the number of the one before it.
#[must_use]
pub fn stamp_at(session: SessionId, last: u64, now: Timestamp) -> Stamp {
    let seq = u64::try_from(now.as_millis()).unwrap_or(0).max(last + 1);
    Stamp { session, lane: 0, seq, durability: Durability::Synced }
}

/// Tasks on their way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What makes the put repeatable. Its number is the moment at which the batch was taken, in Unix
    /// milliseconds: a source that forgets the batch (a crash without its log) never gives the number to another one.
    pub stamp: Stamp,
    /// The number of the last batch before it that was stored; zero if there was none. A target that knows only an
    /// earlier one has lost what it had stored.
    pub previous: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// What there is to store.
    pub load: Load,
    /// Tasks whose record cannot be read, and why. They can only be given back.
    pub unreadable: Vec<(TaskId, String)>,
}

/// What a batch carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Tasks, oldest first within each state.
    pub parcels: Vec<Parcel>,
    /// Runs that ended, taken out of the source's counters.
    pub counts: Counts,
}

impl Load {
    /// Bytes that its tasks take, roughly.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of =
            |task: &TaskRecord| task.payload.len() + task.result.as_ref().map_or(0, Bytes::len);
        self.parcels.iter().map(|parcel| of(&parcel.task)).sum()
    }

    /// True if there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parcels.is_empty() && self.counts == Counts::default()
    }
}

/// The statistics of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Runs that ended, ever.
    pub processed: u64,
    /// Runs that failed, ever.
    pub failed: u64,
    /// The days, of which the totals include what is still known.
    pub days: Vec<DayCount>,
}

/// The runs of one day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayCount {
    /// Days since the epoch.
    pub day: i64,
    /// Runs that ended.
    pub processed: u64,
    /// Runs that failed.
    pub failed: u64,
}

/// A task and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The task, in its state.
    pub task: TaskRecord,
    /// The moment that goes with the state: when it is due (scheduled, retry), joined its group
    /// (aggregating), was put away (archived) or is forgotten (completed). Pending: since when.
    pub at: Timestamp,
    /// True if the task joins its group when it is due.
    pub joins_group: bool,
    /// Its unique lock.
    pub lock: Option<Lock>,
    /// What the wire format has of it beyond what this version knows, as it stands there.
    pub unknown: Bytes,
}

impl Parcel {
    /// The first thing in which a parcel that was read back differs from the one that was put a moment ago, or
    /// `None`. Moments are compared by the second, which is what asynq's format keeps of them. What a run
    /// changes, and what another program may leave out when it writes a task, is left out if the task
    /// [has gone on](Self::has_gone_on).
    ///
    /// ```
    /// use outlast_core::porter::Parcel;
    /// use outlast_core::{QueueName, TaskId, TaskRecord, TaskType, Timestamp};
    /// let task = TaskRecord::new(
    ///     QueueName::default_queue(), TaskId::new("a")?, TaskType::new("t")?, "one".into());
    /// let put = Parcel::new(task, Timestamp::from_seconds(1));
    /// let mut found = put.clone();
    /// assert_eq!(put.difference(&found), None);
    /// found.task.payload = "two".into();
    /// assert_eq!(put.difference(&found), Some("payload"));
    /// # Ok::<(), outlast_core::NameError>(())
    /// ```
    #[must_use]
    pub fn difference(&self, found: &Parcel) -> Option<&'static str> {
        let (put, got) = (&self.task, &found.task);
        let group = |parcel: &Parcel| parcel.task.group.clone().filter(|_| parcel.joins_group);
        let lasting = [
            ("id", put.id == got.id),
            ("type", put.task_type == got.task_type),
            ("payload", put.payload == got.payload),
            ("max_retry", put.max_retry == got.max_retry),
            ("timeout", put.timeout == got.timeout),
            ("deadline", same(put.deadline, got.deadline)),
            ("retention", put.retention == got.retention),
            ("group", group(self) == group(found)),
            ("enqueued_at", same(put.enqueued_at, got.enqueued_at)),
            ("unique lock", digest(self) == digest(found)),
        ];
        let passing = [
            ("headers", put.headers == got.headers),
            ("unknown fields", self.unknown == found.unknown),
            ("losses", put.losses == got.losses),
            ("last_error", put.last_error == got.last_error),
            ("last_failed_at", same(put.last_failed_at, got.last_failed_at)),
            ("completed_at", same(put.completed_at, got.completed_at)),
            ("result", put.result == got.result),
        ];
        let differs = |pairs: &[(&'static str, bool)]| pairs.iter().find(|p| !p.1).map(|p| p.0);
        differs(&lasting).or_else(|| differs(&passing).filter(|_| !self.has_gone_on(found)))
    }

    /// True if something has been done with a parcel that was read back since it was put: it is in another
    /// state, has been retried, or another moment goes with its state.
    #[must_use]
    pub fn has_gone_on(&self, found: &Parcel) -> bool {
        let (put, got) = (&self.task, &found.task);
        put.state != got.state || put.retried != got.retried || !same(Some(self.at), Some(found.at))
    }

    /// A parcel of a task without a lock.
    #[must_use]
    pub fn new(task: TaskRecord, at: Timestamp) -> Self {
        let joins_group = task.group.is_some();
        Self { task, at, joins_group, lock: None, unknown: Bytes::new() }
    }
}

fn same(one: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    one.map(Timestamp::as_seconds) == other.map(Timestamp::as_seconds)
}

fn digest(parcel: &Parcel) -> Option<&str> {
    parcel.lock.as_ref().map(|lock| lock.digest.as_str())
}

/// What there is of a task that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The task.
    Parcel(Box<Parcel>),
    /// Its record cannot be read, and why.
    Unreadable(String),
    /// There is none.
    Missing,
}

impl Found {
    /// The task, if it is there and can be read.
    #[must_use]
    pub fn parcel(self) -> Option<Parcel> {
        match self {
            Self::Parcel(parcel) => Some(*parcel),
            Self::Unreadable(_) | Self::Missing => None,
        }
    }
}

/// A unique lock on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// What it locks, among the tasks of one type.
    pub digest: String,
    /// Until when the task holds it; `None` if it has run out, or another task has it.
    pub held_until: Option<Timestamp>,
}

/// The answer to a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// One per parcel, in order.
    pub verdicts: Vec<PutVerdict>,
    /// True if the batch had been stored before: what became of its tasks since is open.
    pub is_repeat: bool,
    /// The number of the last batch that the target knew before this one, zero if it knew none; to be
    /// compared with [`Batch::previous`]. In a repeat it means nothing.
    pub known: u64,
}

/// How a batch ends at its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conclusion {
    /// The target has stored these, which are forgotten with the counters. Whatever is not named goes back.
    Stored {
        /// Which ones.
        ids: Vec<TaskId>,
    },
    /// All of it is given back, the counters, too.
    GivenBack,
}

/// What became of a conclusion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concluded {
    /// The batch has ended by it.
    Ended,
    /// Nothing was done: no batch of this stamp is on its way.
    NotOnItsWay,
}

/// What became of a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutVerdict {
    /// Stored.
    Stored,
    /// Not stored: a task with this id is in the target's queue.
    IdConflict,
    /// Not stored: another task holds the unique lock in the target.
    Duplicate {
        /// Which one.
        of: TaskId,
    },
}

/// A `once` key that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnceKey {
    /// The key.
    pub key: String,
    /// The task that used it.
    pub owner: TaskId,
    /// Until when it is remembered.
    pub until: Timestamp,
}
