//! Looking and acting.

use async_trait::async_trait;
use outlast_core::inspect::TickRecord;
use outlast_core::limits::STATS_DAYS;
use outlast_core::state::Event;
use outlast_core::{
    Acted, Action, BrokerError, Command, Controlled, DayStats, GroupStats, Inspect, Page,
    PageRequest, QueueControl, QueueName, QueueStats, Refusal, ScheduleControl, ScheduleName,
    ScheduleView, Selector, TaskId, TaskRecord, TaskState, Timestamp, WorkerView,
};

use super::ModelBroker;
use super::page::{Key, page};
use super::queue::Queue;
use super::world::World;
use outlast_core::inspect::ScheduleState;

#[async_trait]
impl Inspect for ModelBroker {
    async fn queues(&self, now: Timestamp) -> Result<Vec<QueueStats>, BrokerError> {
        Ok(self.world().queues.iter().map(|(name, queue)| queue.stats(name, now)).collect())
    }

    async fn queue(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError> {
        Ok(self.world().queues.get(queue).map(|found| found.stats(queue, now)))
    }

    async fn history(
        &self,
        queue: &QueueName,
        now: Timestamp,
        days: u32,
    ) -> Result<Vec<DayStats>, BrokerError> {
        let world = self.world();
        let day = |back: u32| {
            let at = now.minus(std::time::Duration::from_secs(u64::from(back) * 86_400));
            let ended = world.queues.get(queue).and_then(|queue| queue.days.get(&at.as_days()));
            let ended = ended.copied().unwrap_or_default();
            DayStats {
                queue: queue.clone(),
                date: at.date(),
                processed: ended.processed,
                failed: ended.failed,
            }
        };
        Ok((0..days.min(STATS_DAYS)).map(day).collect())
    }

    async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>, BrokerError> {
        let world = self.world();
        let groups = world.queues.get(queue).map(Queue::groups).unwrap_or_default();
        Ok(groups.into_iter().map(|(group, size)| GroupStats { group, size }).collect())
    }

    async fn task(
        &self,
        queue: &QueueName,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<Option<TaskRecord>, BrokerError> {
        Ok(self.world().queues.get(queue).and_then(|queue| queue.shown(id, now)))
    }

    async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        request: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<TaskRecord>, BrokerError> {
        let rows = self.world().rows(queue, select, now)?;
        let Page { items, next } = page(rows, request)?;
        Ok(Page { items: items.into_iter().map(|(_, task)| task).collect(), next })
    }

    async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        request: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        let acted = self.world().act(queue, action, select, request, now);
        self.bell.notify_waiters();
        acted
    }

    async fn control(
        &self,
        queue: &QueueName,
        control: QueueControl,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        let controlled = self.world().control(queue, control, now);
        self.bell.notify_waiters();
        Ok(controlled)
    }

    async fn workers(&self, now: Timestamp) -> Result<Vec<WorkerView>, BrokerError> {
        Ok(self.world().people.workers(now))
    }

    async fn tell(
        &self,
        worker: &str,
        command: &Command,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        let told = self.world().people.tell(worker, command, now);
        self.bell.notify_waiters();
        Ok(told)
    }

    async fn schedules(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError> {
        Ok(self.world().people.schedules(now))
    }

    async fn ticks(
        &self,
        schedule: &ScheduleName,
        request: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError> {
        let ticks = self.world().people.ticks(schedule);
        let rows = ticks.into_iter().map(|tick| ((-tick.tick.as_millis(), String::new()), tick));
        let Page { items, next } = page(rows.collect(), request)?;
        Ok(Page { items: items.into_iter().map(|(_, tick)| tick).collect(), next })
    }

    async fn control_schedule(
        &self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        Ok(self.world().people.control(schedule, control, now))
    }
}

impl World {
    /// The tasks that match, in order; without a state, by id.
    fn rows(
        &self,
        queue: &QueueName,
        select: &Selector,
        now: Timestamp,
    ) -> Result<Vec<(Key, TaskRecord)>, BrokerError> {
        if select.state.is_none() && select.ids.is_empty() {
            return Err(BrokerError::rejected("selector names neither a state nor an id"));
        }
        let Some(queue) = self.queues.get(queue) else { return Ok(Vec::new()) };
        let ids = match select.state {
            Some(state) => queue.in_state(state),
            None => queue.tasks.keys().cloned().collect(),
        };
        let row = |id: TaskId| {
            let task = queue.shown(&id, now).filter(|task| select.matches(task))?;
            let place = select.state.map_or(0, |_| queue.tasks[&id].place);
            Some(((place, id.as_str().to_owned()), task))
        };
        Ok(ids.into_iter().filter_map(row).collect())
    }

    fn act(
        &mut self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        request: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        let rows = self.rows(queue, select, now)?;
        let mut acted = Acted::default();
        if request.cursor.is_none() {
            let missing = select.ids.iter().filter(|id| rows.iter().all(|(_, t)| t.id != **id));
            acted.refused = missing.map(|id| (id.clone(), Refusal::NotFound)).collect();
        }
        let Page { items, next } = page(rows, request)?;
        acted.next = next;
        for (_, task) in items {
            match self.act_on(queue, action, &task.id, now) {
                Ok(()) => acted.changed += 1,
                Err(why) if !select.ids.is_empty() => acted.refused.push((task.id, why)),
                Err(_) => {}
            }
        }
        Ok(acted)
    }

    fn act_on(
        &mut self,
        queue: &QueueName,
        action: &Action,
        id: &TaskId,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let of = self.queues.get_mut(queue).ok_or(Refusal::NotFound)?;
        let entry = of.tasks.get_mut(id).ok_or(Refusal::NotFound)?;
        let state = entry.record.state;
        let event = match action {
            Action::Run => Event::RunByHand,
            Action::Archive => Event::ArchiveByHand,
            Action::Delete => Event::DeleteByHand,
            Action::SetPayload(payload) if state == TaskState::Scheduled => {
                entry.record.payload = payload.clone();
                return Ok(());
            }
            Action::SetPayload(_) => return Err(Refusal::NotScheduled),
            Action::Cancel => {
                let holder = entry.holder.ok_or(Refusal::NotActive)?;
                let (queue, id) = (queue.clone(), id.clone());
                self.people.ask(holder, Command::Cancel { queue, id });
                return Ok(());
            }
            // The trait may grow actions that the model does not know yet.
            _ => return Err(Refusal::NotFound),
        };
        if entry.set.is_some() {
            return Err(Refusal::InAggregation);
        }
        if of.happen(id, event, now, now) { Ok(()) } else { Err(refusal(state)) }
    }

    fn control(&mut self, name: &QueueName, control: QueueControl, now: Timestamp) -> Controlled {
        if control == QueueControl::Pause {
            let queue = self.queues.entry(name.clone()).or_default();
            let was = queue.paused_since.replace(queue.paused_since.unwrap_or(now));
            return if was.is_some() { Controlled::Unchanged } else { Controlled::Applied };
        }
        let Some(queue) = self.queues.get_mut(name) else { return Controlled::NoSuchQueue };
        let count = |state| u64::try_from(queue.in_state(state).len()).unwrap_or(u64::MAX);
        let tasks = TaskState::ALL.into_iter().map(count).sum();
        let active = count(TaskState::Active);
        match control {
            QueueControl::Resume => match queue.paused_since.take() {
                Some(_) => Controlled::Applied,
                None => Controlled::Unchanged,
            },
            QueueControl::RemoveIfEmpty if tasks > 0 => Controlled::NotEmpty { tasks },
            QueueControl::RemoveWithTasks if active > 0 => Controlled::Active { tasks: active },
            _ => {
                self.queues.remove(name);
                Controlled::Applied
            }
        }
    }
}

/// Why the table refuses a task in this state to people.
fn refusal(state: TaskState) -> Refusal {
    match state {
        TaskState::Active => Refusal::Active,
        TaskState::Pending => Refusal::AlreadyPending,
        TaskState::Archived => Refusal::AlreadyArchived,
        TaskState::Scheduled | TaskState::Retry | TaskState::Completed | TaskState::Aggregating => {
            Refusal::NotFound
        }
    }
}

impl Queue {
    /// A task as people see it: a pending one runs next now.
    fn shown(&self, id: &TaskId, now: Timestamp) -> Option<TaskRecord> {
        let mut task = self.tasks.get(id)?.record.clone();
        if task.state == TaskState::Pending {
            task.next_at = Some(now);
        }
        Some(task)
    }

    fn stats(&self, name: &QueueName, now: Timestamp) -> QueueStats {
        let mut stats = QueueStats::empty(name.clone());
        for state in TaskState::ALL {
            stats.set_count(state, self.in_state(state).len() as u64);
        }
        let today = self.days.get(&now.as_days()).copied().unwrap_or_default();
        stats.groups = self.groups().len() as u64;
        stats.processed_today = today.processed;
        stats.failed_today = today.failed;
        stats.processed_total = self.total.processed;
        stats.failed_total = self.total.failed;
        stats.oldest_pending = self
            .in_state(TaskState::Pending)
            .first()
            .and_then(|id| self.tasks[id].record.pending_since);
        stats.next_due = self.next_due();
        stats.paused_since = self.paused_since;
        stats
    }
}
