//! Looking and acting: the one interface under the program, the dashboard and whatever else people use.

use outlast_core::broker::Command;
use outlast_core::inspect::{
    Acted, Action, Controlled, DayStats, GroupStats, Page, PageRequest, QueueControl, QueueStats,
    ScheduleControl, ScheduleState, ScheduleView, Selector, TickRecord, WorkerView,
};
use outlast_core::{QueueName, ScheduleName, TaskId, TaskRecord, limits};

use crate::client::{Receipt, TaskRequest};
use crate::error::{Error, Result};
use crate::{Client, Connection};

/// Reads and administers a broker. Cheap to clone.
///
/// ```
/// use outlast::{Client, PageRequest, QueueName, Selector, TaskRequest, TaskState};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
/// let client = Client::open("sqlite::memory:").await?;
/// client.enqueue(TaskRequest::raw("greet", "world")).await?;
/// let queue = QueueName::new("default")?;
/// let page = client
///     .inspector()
///     .tasks(&queue, &Selector::state(TaskState::Pending), &PageRequest::first(10))
///     .await?;
/// assert_eq!(page.items.len(), 1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Inspector {
    connection: Connection,
}

impl Inspector {
    pub(crate) fn new(connection: &Connection) -> Self {
        Self { connection: connection.clone() }
    }

    fn now(&self) -> outlast_core::Timestamp {
        self.connection.clock.now()
    }

    /// All queues, by name.
    ///
    /// # Errors
    /// What the broker answers; so for every method here.
    pub async fn queues(&self) -> Result<Vec<QueueStats>> {
        Ok(self.connection.inspect.queues(self.now()).await?)
    }

    /// One queue.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) names the queue and the nearest one there is.
    pub async fn queue(&self, queue: &QueueName) -> Result<QueueStats> {
        match self.connection.inspect.queue(queue, self.now()).await? {
            Some(stats) => Ok(stats),
            None => Err(self.no_queue(queue).await?),
        }
    }

    async fn no_queue(&self, queue: &QueueName) -> Result<Error> {
        let queues = self.queues().await?;
        let names = queues.iter().map(|stats| stats.queue.as_str());
        let hint = nearest(queue.as_str(), names).map(|near| format!("; did you mean {near}?"));
        Ok(Error::not_found(format!("no queue {queue}{}", hint.unwrap_or_default())))
    }

    /// The last days of a queue in UTC, newest first.
    ///
    /// # Errors
    /// Also if there is no such queue.
    pub async fn history(&self, queue: &QueueName, days: u32) -> Result<Vec<DayStats>> {
        self.queue(queue).await?;
        Ok(self.connection.inspect.history(queue, self.now(), days).await?)
    }

    /// The groups of a queue that have waiting members.
    ///
    /// # Errors
    /// Also if there is no such queue.
    pub async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>> {
        self.queue(queue).await?;
        Ok(self.connection.inspect.groups(queue).await?)
    }

    /// One task.
    ///
    /// # Errors
    /// Also if there is no such queue or task.
    pub async fn task(&self, queue: &QueueName, id: &TaskId) -> Result<TaskRecord> {
        match self.connection.inspect.task(queue, id, self.now()).await? {
            Some(task) => Ok(task),
            None => {
                self.queue(queue).await?;
                Err(Error::not_found(format!("no task {id} in queue {queue}")))
            }
        }
    }

    /// A page of the tasks that the selector matches.
    ///
    /// # Errors
    /// Also if there is no such queue.
    pub async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
    ) -> Result<Page<TaskRecord>> {
        self.queue(queue).await?;
        Ok(self.connection.inspect.tasks(queue, select, page, self.now()).await?)
    }

    /// Acts on at most `page.limit` tasks.
    ///
    /// # Errors
    /// Also if there is no such queue.
    pub async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
    ) -> Result<Acted> {
        self.queue(queue).await?;
        Ok(self.connection.inspect.act(queue, action, select, page, self.now()).await?)
    }

    /// Acts on every task that the selector matches, in bounded steps; `progress` hears how many have
    /// been changed so far.
    ///
    /// # Errors
    /// As [`act`](Self::act); what was changed before stays changed.
    pub async fn act_all(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        mut progress: impl FnMut(u64),
    ) -> Result<Acted> {
        let mut total = Acted::default();
        let mut page = PageRequest::first(limits::ACT_MAX);
        loop {
            let step = self.act(queue, action, select, &page).await?;
            total.changed += step.changed;
            total.refused.extend(step.refused);
            progress(total.changed);
            match step.next {
                Some(cursor) => page.cursor = Some(cursor),
                None => return Ok(total),
            }
        }
    }

    /// Stops handing out tasks of a queue; `false` if it was paused already. The queue need not exist.
    ///
    /// # Errors
    /// What the broker answers.
    pub async fn pause(&self, queue: &QueueName) -> Result<bool> {
        let did = self.connection.inspect.control(queue, QueueControl::Pause, self.now()).await?;
        Ok(did == Controlled::Applied)
    }

    /// Hands out tasks of a queue again; `false` if it was not paused.
    ///
    /// # Errors
    /// Also if there is no such queue.
    pub async fn resume(&self, queue: &QueueName) -> Result<bool> {
        match self.connection.inspect.control(queue, QueueControl::Resume, self.now()).await? {
            Controlled::NoSuchQueue => Err(self.no_queue(queue).await?),
            did => Ok(did == Controlled::Applied),
        }
    }

    /// Removes a queue: one without tasks, or with everything in it. The answer says whether it was, and
    /// if not, what is in the way.
    ///
    /// # Errors
    /// Also if there is no such queue.
    pub async fn remove(&self, queue: &QueueName, control: QueueControl) -> Result<Controlled> {
        match self.connection.inspect.control(queue, control, self.now()).await? {
            Controlled::NoSuchQueue => Err(self.no_queue(queue).await?),
            did => Ok(did),
        }
    }

    /// The workers that are alive.
    ///
    /// # Errors
    /// What the broker answers.
    pub async fn workers(&self) -> Result<Vec<WorkerView>> {
        Ok(self.connection.inspect.workers(self.now()).await?)
    }

    /// Asks a worker to claim nothing more.
    ///
    /// # Errors
    /// Also if no such worker is alive.
    pub async fn quiet(&self, worker: &str) -> Result<()> {
        self.tell(worker, &Command::Quiet).await
    }

    /// Asks a worker to shut down.
    ///
    /// # Errors
    /// Also if no such worker is alive.
    pub async fn stop(&self, worker: &str) -> Result<()> {
        self.tell(worker, &Command::Stop).await
    }

    async fn tell(&self, worker: &str, command: &Command) -> Result<()> {
        match self.connection.inspect.tell(worker, command, self.now()).await? {
            true => Ok(()),
            false => Err(Error::not_found(format!("no worker {worker} is alive"))),
        }
    }

    /// The schedules that some scheduler runs, and the paused ones.
    ///
    /// # Errors
    /// What the broker answers.
    pub async fn schedules(&self) -> Result<Vec<(ScheduleView, ScheduleState)>> {
        Ok(self.connection.inspect.schedules(self.now()).await?)
    }

    /// What a schedule has enqueued, newest first.
    ///
    /// # Errors
    /// What the broker answers.
    pub async fn ticks(
        &self,
        schedule: &ScheduleName,
        page: &PageRequest,
    ) -> Result<Page<TickRecord>> {
        Ok(self.connection.inspect.ticks(schedule, page).await?)
    }

    /// Pauses a schedule for all schedulers; `false` if it was.
    ///
    /// # Errors
    /// Also if there is no such schedule.
    pub async fn pause_schedule(&self, schedule: &ScheduleName) -> Result<bool> {
        self.schedule(schedule).await?;
        let (inspect, now) = (&self.connection.inspect, self.now());
        Ok(inspect.control_schedule(schedule, ScheduleControl::Pause, now).await?)
    }

    /// Lets a schedule go on; ticks that passed meanwhile are not caught up. `false` if it was not
    /// paused.
    ///
    /// # Errors
    /// Also if there is no such schedule.
    pub async fn resume_schedule(&self, schedule: &ScheduleName) -> Result<bool> {
        self.schedule(schedule).await?;
        let (inspect, now) = (&self.connection.inspect, self.now());
        Ok(inspect.control_schedule(schedule, ScheduleControl::Resume, now).await?)
    }

    /// Enqueues a schedule's task now, beside its ticks, with the options that each of its ticks has. A
    /// deadline, a delay and a place in the queue are not among them.
    ///
    /// # Errors
    /// Also if there is no such schedule.
    pub async fn run_schedule(&self, schedule: &ScheduleName) -> Result<Receipt> {
        let view = self.schedule(schedule).await?;
        let request = TaskRequest::raw(view.task_type.as_str(), view.payload)
            .queue(view.queue.as_str())
            .with_schedule_options(view.options);
        Client::new(&self.connection).enqueue(request).await
    }

    async fn schedule(&self, schedule: &ScheduleName) -> Result<ScheduleView> {
        let all = self.schedules().await?;
        let names: Vec<&str> = all.iter().map(|(view, _)| view.name.as_str()).collect();
        let hint = nearest(schedule.as_str(), names.into_iter());
        let hint = hint.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let found = all.into_iter().map(|(view, _)| view).find(|view| view.name == *schedule);
        found.ok_or_else(|| Error::not_found(format!("no schedule {schedule}{hint}")))
    }
}

/// The known name that a mistyped one most likely means.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (strsim::jaro_winkler(name, candidate), candidate));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other));
    best.filter(|(score, _)| *score > 0.8).map(|(_, candidate)| candidate)
}
