//! The questions and actions of people: looking at queues and tasks, and acting on them. Everything goes by
//! the admin connection, in scripts of bounded size, so that nobody who looks holds up a worker.

mod act;
mod control;
mod cursor;
mod read;
mod select;
mod stats;
mod walk;

use async_trait::async_trait;
use outlast_core::inspect::{ScheduleState, TickRecord};
use outlast_core::{
    Acted, Action, BrokerError, Command, Controlled, DayStats, GroupStats, Inspect, Page,
    PageRequest, QueueControl, QueueName, QueueStats, ScheduleControl, ScheduleName, ScheduleView,
    Selector, TaskId, TaskRecord, Timestamp, WorkerView,
};

use crate::broker::RedisBroker;

#[async_trait]
impl Inspect for RedisBroker {
    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueStats>, BrokerError> {
        self.inner.queues(now).await
    }

    async fn queue(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError> {
        self.inner.queue(queue, now).await
    }

    async fn history(
        &self,
        queue: &QueueName,
        now: Timestamp,
        days: u32,
    ) -> Result<Vec<DayStats>, BrokerError> {
        self.inner.history(queue, now, days).await
    }

    async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>, BrokerError> {
        self.inner.groups(queue).await
    }

    async fn task(
        &self,
        queue: &QueueName,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<Option<TaskRecord>, BrokerError> {
        self.inner.task(queue, id, now).await
    }

    async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<TaskRecord>, BrokerError> {
        self.inner.tasks(queue, select, page, now).await
    }

    async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        let answer = self.inner.act(queue, action, select, page, now).await;
        self.inner.hub.used(queue);
        answer
    }

    async fn control(
        &self,
        queue: &QueueName,
        control: QueueControl,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        let answer = self.inner.control(queue, control, now).await;
        self.inner.hub.used(queue);
        answer
    }

    async fn workers(&self, now: Timestamp) -> Result<Vec<WorkerView>, BrokerError> {
        self.inner.workers(now).await
    }

    async fn tell(
        &self,
        worker: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        self.inner.tell(worker, command, now).await
    }

    async fn schedules(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError> {
        self.inner.schedules(now).await
    }

    async fn ticks(
        &self,
        schedule: &ScheduleName,
        page: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError> {
        self.inner.ticks(schedule, page).await
    }

    async fn control_schedule(
        &self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        self.inner.control_schedule(schedule, control, now).await
    }
}
