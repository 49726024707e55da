//! The questions and actions of people: each method of [`Inspect`] on its way to the readers or the
//! writer.

mod act;
mod control;
mod people;
mod queries;
mod select;

use async_trait::async_trait;
use outlast_core::inspect::{ScheduleState, TickRecord};
use outlast_core::{
    Acted, Action, BrokerError, Command, Controlled, DayStats, GroupStats, Inspect, Page,
    PageRequest, QueueControl, QueueName, QueueStats, ScheduleControl, ScheduleName, ScheduleView,
    Selector, TaskId, TaskRecord, Timestamp, WorkerView,
};

use crate::broker::SqliteBroker;

pub(crate) use select::qid;

/// Rows of a removed queue deleted per transaction.
const REMOVE_STEP: usize = 1000;

#[async_trait]
impl Inspect for SqliteBroker {
    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueStats>, BrokerError> {
        self.read("could not list queues", move |conn| queries::queues(conn, None, now)).await
    }

    async fn queue(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError> {
        let queue = queue.clone();
        self.read("could not look at a queue", move |conn| {
            Ok(queries::queues(conn, Some(&queue), now)?.pop())
        })
        .await
    }

    async fn history(
        &self,
        queue: &QueueName,
        now: Timestamp,
        days: u32,
    ) -> Result<Vec<DayStats>, BrokerError> {
        let queue = queue.clone();
        self.read("could not read statistics", move |conn| {
            queries::history(conn, &queue, now, days)
        })
        .await
    }

    async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>, BrokerError> {
        let queue = queue.clone();
        self.read("could not list groups", move |conn| queries::groups(conn, &queue)).await
    }

    async fn task(
        &self,
        queue: &QueueName,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<Option<TaskRecord>, BrokerError> {
        let (queue, id) = (queue.clone(), id.clone());
        self.read("could not look at a task", move |conn| {
            select::by_id(conn, &queue, &id, now).map(|found| found.map(|stored| stored.task))
        })
        .await
    }

    async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<TaskRecord>, BrokerError> {
        let (queue, select, page) = (queue.clone(), select.clone(), page.clone());
        self.read("could not list tasks", move |conn| {
            queries::tasks(conn, &queue, &select, &page, now)
        })
        .await
    }

    async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        let (queue, action) = (queue.clone(), action.clone());
        let (select, page) = (select.clone(), page.clone());
        self.write("could not act on tasks", page.limit, move |tx| {
            act::act(tx, &queue, &action, &select, &page, now)
        })
        .await
    }

    async fn control(
        &self,
        queue: &QueueName,
        control: QueueControl,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        let name = queue.clone();
        let controlled = self
            .write("could not control a queue", 1, move |tx| {
                control::control(tx, &name, control, now)
            })
            .await?;
        if control == QueueControl::RemoveWithTasks && controlled == Controlled::Applied {
            // The queue is gone for everybody; its rows go in steps that hold nobody up. Should this
            // stop half-way, the sweeps of other queues go on with it.
            while self
                .write("could not empty a removed queue", REMOVE_STEP, |tx| {
                    crate::housekeeping::empty_removed(tx.conn, REMOVE_STEP)
                })
                .await?
            {}
        }
        Ok(controlled)
    }

    async fn workers(&self, now: Timestamp) -> Result<Vec<WorkerView>, BrokerError> {
        self.read("could not list workers", move |conn| people::workers(conn, now)).await
    }

    async fn tell(
        &self,
        worker: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        let (worker, command) = (worker.to_owned(), command.clone());
        self.write("could not tell a worker", 1, move |tx| people::tell(tx, &worker, &command, now))
            .await
    }

    async fn schedules(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError> {
        self.read("could not list schedules", move |conn| people::schedules(conn, now)).await
    }

    async fn ticks(
        &self,
        schedule: &ScheduleName,
        page: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError> {
        let (schedule, page) = (schedule.clone(), page.clone());
        self.read("could not list ticks", move |conn| people::ticks(conn, &schedule, &page)).await
    }

    async fn control_schedule(
        &self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        let schedule = schedule.clone();
        self.write("could not control a schedule", 1, move |tx| {
            people::control_schedule(tx.conn, &schedule, control, now)
        })
        .await
    }
}
