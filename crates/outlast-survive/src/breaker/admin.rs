//! What people look at and do passes the breaker, too, in a class of its own: a dashboard that asks every second does not keep a
//! home down that has just come back, and its questions do not stop the work.

use std::sync::Arc;

use async_trait::async_trait;
use outlast_core::inspect::{ScheduleState, TickRecord, WorkerView};
use outlast_core::{
    Acted, Action, Broker, BrokerError, Command, Controlled, DayStats, GroupStats, Inspect, Page,
    PageRequest, QueueControl, QueueName, QueueStats, ScheduleControl, ScheduleName, ScheduleView,
    Selector, TaskId, TaskRecord, Timestamp,
};

use super::{ADMIN_MAX, ADMIN_SLOW, About, Breaker, Class};

/// The inspection of a broker, in front of its breaker.
pub(crate) struct Admin {
    below: Arc<dyn Inspect>,
    breaker: Arc<Breaker>,
}

impl Admin {
    pub(crate) fn new(below: Arc<dyn Inspect>, breaker: Arc<Breaker>) -> Self {
        Self { below, breaker }
    }

    /// A question about one queue.
    async fn of<T>(
        &self,
        queue: &QueueName,
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        // Whoever may not look at a queue is told so each time: nothing else depends on it.
        let home = self.breaker.home(queue);
        let about = About { home: &home, class: Class::Admin, queue: None };
        self.breaker.through(about, (ADMIN_SLOW, ADMIN_MAX), call).await
    }

    /// A question about all of them.
    async fn all<T>(
        &self,
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        self.of(&QueueName::default_queue(), call).await
    }
}

#[async_trait]
impl Inspect for Admin {
    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueStats>, BrokerError> {
        self.all(self.below.queues(now)).await
    }

    async fn queue(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError> {
        self.of(queue, self.below.queue(queue, now)).await
    }

    async fn history(
        &self,
        queue: &QueueName,
        now: Timestamp,
        days: u32,
    ) -> Result<Vec<DayStats>, BrokerError> {
        self.of(queue, self.below.history(queue, now, days)).await
    }

    async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>, BrokerError> {
        self.of(queue, self.below.groups(queue)).await
    }

    async fn task(
        &self,
        queue: &QueueName,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<Option<TaskRecord>, BrokerError> {
        self.of(queue, self.below.task(queue, id, now)).await
    }

    async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<TaskRecord>, BrokerError> {
        self.of(queue, self.below.tasks(queue, select, page, now)).await
    }

    async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        self.of(queue, self.below.act(queue, action, select, page, now)).await
    }

    async fn control(
        &self,
        queue: &QueueName,
        control: QueueControl,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        self.of(queue, self.below.control(queue, control, now)).await
    }

    async fn workers(&self, now: Timestamp) -> Result<Vec<WorkerView>, BrokerError> {
        self.all(self.below.workers(now)).await
    }

    async fn tell(
        &self,
        worker: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        self.all(self.below.tell(worker, command, now)).await
    }

    async fn schedules(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError> {
        self.all(self.below.schedules(now)).await
    }

    async fn ticks(
        &self,
        schedule: &ScheduleName,
        page: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError> {
        self.all(self.below.ticks(schedule, page)).await
    }

    async fn control_schedule(
        &self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        self.all(self.below.control_schedule(schedule, control, now)).await
    }
}
