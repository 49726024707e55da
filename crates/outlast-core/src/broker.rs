//! The broker cut: few verbs, batch first. A new feature adds a field, not a verb (design §4).
//!
//! Every verb on tasks takes exactly one queue and a slice, and returns one verdict per item, in order;
//! one is a slice of length one. Batches are shared (`Arc<[_]>`), because the layers above keep them
//! until they are answered: replaying is calling the verb again with the same arguments.
//!
//! An `Err` speaks about the whole batch ([`Kind`](crate::Kind) says what may have happened); trouble
//! with one item is a verdict. Callers never retry (law L4), except the one layer made for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::inspect::{ScheduleState, ScheduleView, TickRecord, WorkerView};
use crate::session::{Durability, Stamp};
use crate::task::{Lease, LeaseToken, NewTask, TaskError, TaskRecord};
use crate::{BrokerError, GroupName, QueueName, ScheduleName, Settlement, TaskId, Timestamp};

/// Where tasks are kept. See the module's page for the rules that hold for every verb.
#[async_trait]
pub trait Broker: Send + Sync + 'static {
    /// Stores new tasks. A task that cannot be stored is a verdict and does not hold up the others.
    ///
    /// Repeatable by its stamp: a repeated batch stores nothing and answers as the first time.
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError>;

    /// Takes up to `want.tasks_max` tasks to run, oldest first, and leases them to `want.token`. Tasks
    /// of this queue whose time has come are taken too, without waiting for a sweep. Groups that are ready
    /// come first: in a line of tasks that never ends their delay would have no bound.
    ///
    /// Repeatable by its stamp: the repeat hands out what the first call claimed, as far as it is still
    /// leased to the token, and claims nothing more. A claim that finds nothing leaves no record, so that
    /// an idle worker writes nothing; its number is used again
    /// ([`Session::withdrawn`](crate::Session::withdrawn)). Only a *repeat* that hands out nothing leaves
    /// open whether there is a record: its lane is not used again.
    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError>;

    /// Reports how runs ended. Applied if and only if the task is still leased to the settlement's token
    /// (or may be adopted); otherwise [`SettleVerdict::LeaseLost`], and nothing changes.
    ///
    /// Repeatable by its stamp.
    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError>;

    /// Holds leases for `by` longer, counted from `now`, and stores what the handlers have written so
    /// far. Repeatable by itself.
    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError>;

    /// Moves what time has moved: due tasks, expired leases, ended retention, abandoned aggregation
    /// sets, too large an archive. Bounded by the budget, idempotent, repeatable by itself.
    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError>;

    /// Sleeps until there may be something to do for this interest, `at_most` that long. May wake early;
    /// never sleeps through work that arrives, from whichever process, nor past a due time (which is
    /// judged against `now`, the moment of the call).
    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError>;

    /// Says that a worker or scheduler lives, and learns what is asked of it. Repeatable by itself.
    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError>;

    /// The failure domain of a queue: a server, a shard, a file. Breakers, health and connection limits
    /// are kept per home, so no layer above knows a topology.
    fn home(&self, queue: &QueueName) -> Home;

    /// Looks after a home, with a probing write where `role` allows one.
    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError>;
}

/// The answer to an enqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// One per task, in order.
    pub verdicts: Vec<EnqueueVerdict>,
    /// Set if the broker has forgotten acknowledged batches.
    pub lost: Option<Lost>,
}

/// What became of one task that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnqueueVerdict {
    /// Stored, this durably.
    Accepted {
        /// The durability that was reached; it may be less than was asked.
        level: Durability,
    },
    /// On this machine's disk, to be delivered when the broker is back: the answer of the outbox, never of a
    /// broker. The stamp's session is not used again: whether its number was used stays open.
    Stored,
    /// Not stored: another task holds the unique lock, or the `once` key was used before.
    Duplicate {
        /// The task that holds the lock, if it is known.
        of: Option<TaskId>,
    },
    /// Not stored: a task with this id is in the queue.
    IdConflict,
    /// Not stored: wrong in itself.
    Rejected(Reject),
}

/// Why an item was refused: it would be refused again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject(pub Arc<str>);

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<TaskError> for Reject {
    fn from(error: TaskError) -> Self {
        Self(error.to_string().into())
    }
}

/// The broker has forgotten batches that it had acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Everything after this number in the stamp's lane is lost; zero if the broker knows nothing of the
    /// lane (compare [`Health::epoch`]: the same epoch means that the record was merely too old).
    pub after_seq: u64,
}

/// What a claim asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// Who will hold the leases.
    pub token: LeaseToken,
    /// Tasks at most (1 … [`BATCH_TASKS_MAX`](crate::limits::BATCH_TASKS_MAX)).
    pub tasks_max: usize,
    /// Payload bytes after which no further task is taken; the first task is taken whatever its size.
    pub bytes_max: usize,
    /// How long the leases hold.
    pub lease: Duration,
    /// Which groups to aggregate, and when. Empty: groups wait for a worker that knows them.
    pub groups: Arc<[GroupPolicy]>,
}

/// When a group is ready to be aggregated (contract §3.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPolicy {
    /// Which groups: a name, or a prefix followed by `*`. The first policy that matches counts.
    pub pattern: String,
    /// Ready when nothing was added for this long.
    pub grace: Duration,
    /// Ready when the oldest member waits this long, whatever is added.
    pub max_delay: Option<Duration>,
    /// Ready at this size, and never aggregated beyond it.
    pub max_size: Option<usize>,
}

impl GroupPolicy {
    /// True if the policy is for this group.
    ///
    /// ```
    /// use outlast_core::{GroupName, GroupPolicy};
    /// use std::time::Duration;
    /// let policy = GroupPolicy {
    ///     pattern: "user:*".into(),
    ///     grace: Duration::from_secs(2),
    ///     max_delay: None,
    ///     max_size: None,
    /// };
    /// assert!(policy.matches(&GroupName::new("user:7")?));
    /// assert!(!policy.matches(&GroupName::new("team:7")?));
    /// # Ok::<(), outlast_core::NameError>(())
    /// ```
    #[must_use]
    pub fn matches(&self, group: &GroupName) -> bool {
        match self.pattern.strip_suffix('*') {
            Some(prefix) => group.as_str().starts_with(prefix),
            None => group.as_str() == self.pattern,
        }
    }
}

/// The answer to a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// What was claimed, oldest first.
    pub claims: Vec<Claim>,
    /// Whether to come back at once.
    pub rest: Rest,
    /// Set if the broker has forgotten acknowledged batches.
    pub lost: Option<Lost>,
}

/// One thing that was claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// A task to run.
    Task(Box<ClaimedTask>),
    /// A group to aggregate.
    Group(ClaimedGroup),
    /// A record that cannot be read. The broker has put it among the archived, with this reason; where data of
    /// another program stands in its place there is nothing to be kept, and only the id has left the line.
    Corrupt {
        /// Whose record.
        id: TaskId,
        /// What is wrong with it.
        why: String,
    },
}

/// A task and the right to run it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedTask {
    /// The task.
    pub task: TaskRecord,
    /// The right to run it.
    pub lease: Lease,
}

/// The members of a group that are to become one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimedGroup {
    /// The group.
    pub group: GroupName,
    /// Its members, oldest first.
    pub tasks: Vec<TaskRecord>,
    /// The right to settle the set: [`Outcome::Aggregated`](crate::Outcome::Aggregated), or
    /// [`Outcome::Release`](crate::Outcome::Release) to give the members back to the group.
    pub lease: Lease,
}

/// Whether a queue has more for a claimer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rest {
    /// There may be more.
    More,
    /// Nothing is left that is due.
    Empty,
    /// The queue is paused.
    Paused,
}

/// The answer to a settle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// One per settlement, in order.
    pub verdicts: Vec<SettleVerdict>,
    /// Set if the broker has forgotten acknowledged batches.
    pub lost: Option<Lost>,
}

/// What became of one settlement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettleVerdict {
    /// Applied.
    Applied,
    /// On this machine's disk, to be applied when the broker is back: the answer of the journal, never of a
    /// broker. The stamp's session is not used again: whether its number was used stays open.
    Journaled,
    /// The lease had been lost and the task was back in retry or archived, but it had not been started
    /// again: the success was applied all the same.
    Adopted,
    /// The task is no longer leased to this token: nothing was applied.
    LeaseLost,
    /// The outcome itself is wrong (an aggregated task whose id exists, for example); the lease is as it
    /// was.
    Rejected(Reject),
}

/// A lease to be held longer, with what its handler has written since the last time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The lease.
    pub lease: Lease,
    /// Progress or a partial result, to be stored as the task's result; `None` leaves it as it is.
    pub result: Option<Bytes>,
}

/// What became of one hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extended {
    /// Held until then.
    Until(Timestamp),
    /// The task is no longer leased to this token.
    Lost,
}

/// How much one sweep may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepBudget {
    /// Tasks moved at most, per kind of work (1 … [`SWEEP_MAX`](crate::limits::SWEEP_MAX)).
    pub moves_max: usize,
    /// Whether expired leases are taken back. Withheld for a grace period after an outage, so that
    /// surviving workers report first (law L8).
    pub recovery: Recovery,
    /// A worker that is taken for dead before its leases have run out; see [`Swept::held`].
    pub vanished: Option<Held>,
}

/// The earliest end of the leases that a worker holds in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The worker.
    pub token: LeaseToken,
    /// When the first of its leases ends. One that lives extends them all, long before.
    pub until: Timestamp,
}

/// See [`SweepBudget::recovery`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recovery {
    /// Take expired leases back.
    #[default]
    Allowed,
    /// Leave them.
    Withheld,
}

/// What a sweep did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Scheduled and retry tasks that became pending, or joined their group.
    pub due: usize,
    /// Tasks taken back from workers that vanished, now in retry.
    pub recovered: usize,
    /// Of those, archived because they lost too many leases.
    pub given_up: usize,
    /// Aggregation sets given back to their groups.
    pub reclaimed: usize,
    /// Completed and archived tasks deleted because their time was over or the archive was full.
    pub deleted: usize,
    /// True if the budget was spent: sweep again.
    pub more: bool,
    /// When the next scheduled or retry task is due.
    pub next_due: Option<Timestamp>,
    /// Who holds the leases that end first, where the broker has no other way to notice that a worker is dead: a worker that has
    /// stopped extending is known by it long before its leases have run out. Handed in as [`SweepBudget::vanished`], its leases that
    /// end at that moment or before are taken back like those that have. `None` where nobody has looked.
    pub held: Option<Vec<Held>>,
}

/// What a waiter waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Tasks in these queues (those that are not paused), the due times of their scheduled ones, and their groups, where
    /// the broker's claims had policies for them: each time that the latest look has become old ([`GroupLooks`](crate::GroupLooks)).
    pub queues: Vec<QueueName>,
    /// Commands to the worker that holds this token.
    pub token: Option<LeaseToken>,
}

/// Why a waiter woke. Everything empty: the time was over, or for no reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Woke {
    /// Queues that may have something to claim.
    pub queues: Vec<QueueName>,
    /// True if a beat may bring commands.
    pub commands: bool,
}

/// A sign of life.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beat {
    /// Of a worker.
    pub worker: Option<WorkerBeat>,
    /// Of a scheduler: what it would enqueue.
    pub schedules: Vec<ScheduleView>,
    /// Schedules that the scheduler keeps no more, while `schedules` are those that it keeps still. They are listed for
    /// [`ENDED_LISTED`](crate::limits::ENDED_LISTED) at most, unless another scheduler keeps them, or they are paused.
    pub ended: Vec<ScheduleName>,
    /// Ticks enqueued since the last beat, for the history. Recorded once per schedule and tick.
    pub ticks: Vec<TickRecord>,
    /// How long the sign holds; after that the worker and the entries are no longer listed.
    pub ttl: Duration,
}

/// A worker's sign of life.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerBeat {
    /// What is shown of it; a status of [`Gone`](crate::inspect::WorkerStatus::Gone) removes it at once.
    pub view: WorkerView,
    /// Its token, or `None` in its first beat, which hands one out.
    pub token: Option<LeaseToken>,
    /// The number of the last command it has carried out: those up to it are forgotten.
    pub seen: u64,
}

/// The answer to a beat.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BeatReply {
    /// The worker's token, if the beat was a worker's.
    pub token: Option<LeaseToken>,
    /// Commands that it has not seen, oldest first, each with its number.
    pub commands: Vec<(u64, Command)>,
    /// What is known of the schedules that the beat listed, in the same order.
    pub schedules: Vec<ScheduleState>,
}

/// Something asked of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Cancel this run.
    Cancel {
        /// The queue of the task.
        queue: QueueName,
        /// The task.
        id: TaskId,
    },
    /// Claim nothing more, finish what runs.
    Quiet,
    /// Shut down.
    Stop,
}

/// A failure domain. Two queues of one home fail together.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Home(pub Arc<str>);

/// How a home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it takes writes.
    pub role: Role,
    /// What its clock says, where it has one of its own.
    pub clock: Option<Timestamp>,
    /// The incarnation of its data: another value means that other data is behind the same address.
    pub epoch: Epoch,
    /// Which run of its server answers, and of which line of replicas: another value means that it was restarted, or that another
    /// server has its place, and so that it may have forgotten something. Empty where there is no server, or it does not tell.
    pub run: String,
    /// Its software, such as `sqlite 3.54.1`.
    pub software: String,
    /// Whether there is room for new tasks.
    pub memory: Memory,
}

/// How much of its memory a home uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// The share of what it may use, where it has a limit beyond which it refuses new tasks, and tells of it.
    pub used_percent: Option<u8>,
    /// It refuses new tasks for want of memory, and still hands out and settles those that it has.
    pub is_full: bool,
}

/// Whether a home takes writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Takes writes: a probing write succeeded.
    Primary,
    /// Read-only.
    Replica,
}

/// The incarnation of a home's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch(pub String);

/// The id of the task that stands for one tick of a schedule, the same whoever computes it.
///
/// ```
/// use outlast_core::{ScheduleName, Timestamp, broker::tick_id};
/// let name = ScheduleName::new("nightly")?;
/// let tick = Timestamp::from_seconds(1_795_487_400);
/// assert_eq!(tick_id(&name, tick).as_str(), "nightly@2026-11-24T02:30:00Z");
/// # Ok::<(), outlast_core::NameError>(())
/// ```
#[must_use]
pub fn tick_id(schedule: &ScheduleName, tick: Timestamp) -> TaskId {
    TaskId::stored(&format!("{schedule}@{tick}"))
}
