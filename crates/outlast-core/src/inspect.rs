//! The few questions and actions of people: what every face of Outlast (program, dashboard, metrics) is
//! made of. The engine never imports this trait; it is the other side of the same broker.

mod schedule;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::broker::Command;
use crate::pick::Priority;
use crate::{
    BrokerError, GroupName, QueueName, ScheduleName, TaskId, TaskRecord, TaskState, TaskType,
    Timestamp,
};

pub use schedule::{ScheduleOptions, ScheduleView};

/// Looking at a broker and acting on what is seen. Every answer is bounded, every bulk action goes in
/// steps, so that no call holds up the workers.
#[async_trait]
pub trait Inspect: Send + Sync + 'static {
    /// All queues, by name.
    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueStats>, BrokerError>;

    /// One queue, or `None` if nothing was ever enqueued in it.
    async fn queue(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError>;

    /// The last `days` days in UTC, newest first, today included (at most
    /// [`STATS_DAYS`](crate::limits::STATS_DAYS)).
    async fn history(
        &self,
        queue: &QueueName,
        now: Timestamp,
        days: u32,
    ) -> Result<Vec<DayStats>, BrokerError>;

    /// The groups of a queue that have waiting members, by name.
    async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>, BrokerError>;

    /// One task, whatever its state.
    async fn task(
        &self,
        queue: &QueueName,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<Option<TaskRecord>, BrokerError>;

    /// The tasks of one state that the selector matches, in the order in which they run or ran. Going
    /// on from a cursor neither repeats nor skips a task that stays where it is.
    async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<TaskRecord>, BrokerError>;

    /// Acts on the tasks that the selector matches, at most `page.limit` of them per call; go on with
    /// [`Acted::next`] until it is `None`.
    async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError>;

    /// Pauses, resumes or removes a queue.
    async fn control(
        &self,
        queue: &QueueName,
        control: QueueControl,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError>;

    /// The workers whose beat holds.
    async fn workers(&self, now: Timestamp) -> Result<Vec<WorkerView>, BrokerError>;

    /// Asks something of a worker. `false` if no such worker is alive.
    async fn tell(
        &self,
        worker: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<bool, BrokerError>;

    /// The schedules whose beat holds, by name, and those that are paused.
    async fn schedules(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError>;

    /// What a schedule has enqueued, newest first.
    async fn ticks(
        &self,
        schedule: &ScheduleName,
        page: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError>;

    /// Pauses or resumes a schedule. `false` if it was so already.
    async fn control_schedule(
        &self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> Result<bool, BrokerError>;
}

/// A queue in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueStats {
    /// Its name.
    pub queue: QueueName,
    /// Tasks per state.
    pub active: u64,
    /// See `active`.
    pub pending: u64,
    /// See `active`.
    pub aggregating: u64,
    /// See `active`.
    pub scheduled: u64,
    /// See `active`.
    pub retry: u64,
    /// See `active`.
    pub archived: u64,
    /// See `active`.
    pub completed: u64,
    /// Groups with waiting members.
    pub groups: u64,
    /// Runs that ended today in UTC, well or badly.
    pub processed_today: u64,
    /// Runs that failed today in UTC.
    pub failed_today: u64,
    /// Runs that ended, ever.
    pub processed_total: u64,
    /// Runs that failed, ever.
    pub failed_total: u64,
    /// Since when the next task to run is pending.
    pub oldest_pending: Option<Timestamp>,
    /// When the next scheduled or retry task is due.
    pub next_due: Option<Timestamp>,
    /// Since when the queue is paused.
    pub paused_since: Option<Timestamp>,
    /// Bytes the queue's tasks take, roughly, where the broker knows.
    pub bytes: Option<u64>,
}

impl QueueStats {
    /// A queue without a task.
    #[must_use]
    pub fn empty(queue: QueueName) -> Self {
        Self {
            queue,
            active: 0,
            pending: 0,
            aggregating: 0,
            scheduled: 0,
            retry: 0,
            archived: 0,
            completed: 0,
            groups: 0,
            processed_today: 0,
            failed_today: 0,
            processed_total: 0,
            failed_total: 0,
            oldest_pending: None,
            next_due: None,
            paused_since: None,
            bytes: None,
        }
    }

    /// Tasks in one state.
    #[must_use]
    pub fn count(&self, state: TaskState) -> u64 {
        match state {
            TaskState::Active => self.active,
            TaskState::Pending => self.pending,
            TaskState::Aggregating => self.aggregating,
            TaskState::Scheduled => self.scheduled,
            TaskState::Retry => self.retry,
            TaskState::Archived => self.archived,
            TaskState::Completed => self.completed,
        }
    }

    /// Sets the number of tasks in one state.
    pub fn set_count(&mut self, state: TaskState, count: u64) {
        match state {
            TaskState::Active => self.active = count,
            TaskState::Pending => self.pending = count,
            TaskState::Aggregating => self.aggregating = count,
            TaskState::Scheduled => self.scheduled = count,
            TaskState::Retry => self.retry = count,
            TaskState::Archived => self.archived = count,
            TaskState::Completed => self.completed = count,
        }
    }

    /// Tasks in all states.
    #[must_use]
    pub fn size(&self) -> u64 {
        TaskState::ALL.into_iter().map(|state| self.count(state)).sum()
    }

    /// Tasks that will still run by themselves: all but the archived and the completed.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        self.size() - self.archived - self.completed
    }

    /// How long the next task to run has been pending.
    #[must_use]
    pub fn latency(&self, now: Timestamp) -> Duration {
        self.oldest_pending.map_or(Duration::ZERO, |since| now.since(since))
    }
}

/// A day of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayStats {
    /// The queue.
    pub queue: QueueName,
    /// The date in UTC, such as `2026-11-24`.
    pub date: String,
    /// Runs that ended, well or badly.
    pub processed: u64,
    /// Runs that failed.
    pub failed: u64,
}

/// A group of a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStats {
    /// Its name.
    pub group: GroupName,
    /// Members that wait, those in an aggregation set included.
    pub size: u64,
}

/// Which tasks of a queue. Every field that is set narrows the selection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// In this state. `None`: in any (only together with `ids`).
    pub state: Option<TaskState>,
    /// With one of these ids. Empty: any id.
    pub ids: Vec<TaskId>,
    /// Of this type; a trailing `*` matches a prefix.
    pub task_type: Option<String>,
    /// Of this group.
    pub group: Option<GroupName>,
    /// With this text in the payload or the last error, to the letter.
    pub text: Option<String>,
    /// Accepted before this moment.
    pub before: Option<Timestamp>,
}

impl Selector {
    /// Every task in `state`.
    #[must_use]
    pub fn state(state: TaskState) -> Self {
        Self { state: Some(state), ..Self::default() }
    }

    /// The task with this id, in whatever state.
    #[must_use]
    pub fn id(id: TaskId) -> Self {
        Self { ids: vec![id], ..Self::default() }
    }

    /// True if the selector matches this task: the reference that brokers are compared with.
    #[must_use]
    pub fn matches(&self, task: &TaskRecord) -> bool {
        self.state.is_none_or(|state| task.state == state)
            && (self.ids.is_empty() || self.ids.contains(&task.id))
            && self
                .task_type
                .as_deref()
                .is_none_or(|pattern| type_matches(pattern, &task.task_type))
            && self.group.as_ref().is_none_or(|group| task.group.as_ref() == Some(group))
            && self.text.as_deref().is_none_or(|text| holds_text(task, text))
            && self.before.is_none_or(|before| task.enqueued_at.is_some_and(|at| at < before))
    }
}

fn type_matches(pattern: &str, task_type: &TaskType) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => task_type.as_str().starts_with(prefix),
        None => task_type.as_str() == pattern,
    }
}

fn holds_text(task: &TaskRecord, text: &str) -> bool {
    let found = |bytes: &[u8]| {
        text.is_empty() || bytes.windows(text.len()).any(|window| window == text.as_bytes())
    };
    found(&task.payload) || task.last_error.as_deref().is_some_and(|error| found(error.as_bytes()))
}

/// Which part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// Rows at most (1 … [`PAGE_MAX`](crate::limits::PAGE_MAX)).
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Cursor>,
}

impl PageRequest {
    /// The first `limit` rows.
    #[must_use]
    pub fn first(limit: usize) -> Self {
        Self { limit, cursor: None }
    }
}

/// Where a page ended. Opaque: only the broker that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor(pub String);

/// A part of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The rows.
    pub items: Vec<T>,
    /// Where to go on, or `None` at the end.
    pub next: Option<Cursor>,
}

/// What to do with tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Make it pending now.
    Run,
    /// Put it among the archived.
    Archive,
    /// Delete it, and release its unique lock.
    Delete,
    /// Ask its worker to cancel the run.
    Cancel,
    /// Replace the payload of a scheduled task.
    SetPayload(Bytes),
}

/// What an action did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    /// Tasks that were changed (or, for a cancel, whose worker was told).
    pub changed: u64,
    /// Tasks named by id that were left as they are, and why.
    pub refused: Vec<(TaskId, Refusal)>,
    /// Where to go on, or `None` at the end.
    pub next: Option<Cursor>,
}

/// Why a task was left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such task in the queue.
    #[error("not found")]
    NotFound,
    /// It runs at the moment; cancel it first.
    #[error("is active: cancel it first")]
    Active,
    /// It does not run at the moment.
    #[error("is not active")]
    NotActive,
    /// It is pending already.
    #[error("is pending already")]
    AlreadyPending,
    /// It is archived already.
    #[error("is archived already")]
    AlreadyArchived,
    /// It is being aggregated at the moment.
    #[error("is being aggregated")]
    InAggregation,
    /// Only scheduled tasks can be edited.
    #[error("is not scheduled")]
    NotScheduled,
}

/// What to do with a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueueControl {
    /// Hand out no more tasks. The queue need not exist.
    Pause,
    /// Hand out tasks again.
    Resume,
    /// Remove the queue and everything that belongs to it, if it has no task.
    RemoveIfEmpty,
    /// Remove the queue with its tasks, unless one is active.
    RemoveWithTasks,
}

/// What a control did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Controlled {
    /// Done.
    Applied,
    /// It was so already.
    Unchanged,
    /// There is no such queue.
    NoSuchQueue,
    /// Not removed: it holds tasks.
    NotEmpty {
        /// How many.
        tasks: u64,
    },
    /// Not removed: tasks of it run at the moment.
    Active {
        /// How many.
        tasks: u64,
    },
}

/// A worker as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its name, unique for the life of the process.
    pub id: String,
    /// Where it runs.
    pub host: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// What it does.
    pub status: WorkerStatus,
    /// How many tasks it runs at once.
    pub slots: u32,
    /// Its queues with their weights.
    pub queues: Vec<(QueueName, u32)>,
    /// How the weights are read.
    pub priority: PriorityName,
    /// How many tasks it runs now.
    pub active: u32,
    /// Which ones, at most [`BEAT_RUNNING_MAX`](crate::limits::BEAT_RUNNING_MAX).
    pub running: Vec<RunningTask>,
}

/// [`Priority`] as views show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PriorityName {
    /// In proportion to the weights.
    Weighted,
    /// Greater weights first.
    Strict,
}

impl From<Priority> for PriorityName {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::Weighted => PriorityName::Weighted,
            Priority::Strict => PriorityName::Strict,
        }
    }
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerStatus {
    /// Claims and runs.
    Running,
    /// Claims nothing more.
    Quiet,
    /// Shuts down.
    Draining,
    /// Has shut down.
    Gone,
}

/// A task that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// Its queue.
    pub queue: QueueName,
    /// Its id.
    pub id: TaskId,
    /// Its type.
    #[serde(rename = "type")]
    pub task_type: TaskType,
    /// Since when.
    pub started_at: Timestamp,
    /// Until when, at most.
    pub deadline: Timestamp,
    /// Its payload. Empty where it is longer than [`BEAT_PAYLOAD_MAX`](crate::limits::BEAT_PAYLOAD_MAX), or where those before it
    /// have used up [`BEAT_PAYLOADS_MAX`](crate::limits::BEAT_PAYLOADS_MAX).
    #[serde(default, skip_serializing_if = "Bytes::is_empty", with = "schedule::payload_text")]
    pub payload: Bytes,
}

/// What the broker knows of a schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleState {
    /// Its name.
    pub name: ScheduleName,
    /// Since when it is paused.
    pub paused_since: Option<Timestamp>,
    /// The last tick that was enqueued or deliberately skipped; catching up begins behind it.
    pub last_tick: Option<Timestamp>,
}

/// One tick of a schedule that was dealt with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickRecord {
    /// The schedule.
    pub schedule: ScheduleName,
    /// The moment the tick stands for.
    pub tick: Timestamp,
    /// The task, or `None` if the tick was skipped.
    pub task: Option<TaskId>,
    /// When that was.
    pub enqueued_at: Timestamp,
}

/// What to do with a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScheduleControl {
    /// Enqueue no more ticks.
    Pause,
    /// Enqueue ticks again; those that passed meanwhile are not caught up.
    Resume,
}
