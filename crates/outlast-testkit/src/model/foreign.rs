//! The back door: what peers do that are not ours. asynq takes, extends, finishes and takes back by id alone: it knows no
//! tokens, no stamps and no sessions, and whoever names an active task may finish it (contract §3.2, §3.3, §4.5).

use std::time::Duration;

use outlast_core::state::Event;
use outlast_core::{QueueName, TaskId, TaskRecord, TaskState, Timestamp};

use super::ModelBroker;
use super::queue::{Queue, Run};

/// How long asynq holds a task, and what its recoverer allows clocks to differ.
pub const FOREIGN_LEASE: Duration = Duration::from_secs(30);

impl ModelBroker {
    /// Dequeue: the first task in line, held by nobody whom we know.
    pub fn foreign_take(&self, queue: &QueueName, now: Timestamp) -> Option<TaskRecord> {
        let mut world = self.world();
        let from = world.queues.get_mut(queue).filter(|queue| queue.paused_since.is_none())?;
        let id = from.in_state(TaskState::Pending).into_iter().next()?;
        from.happen(&id, Event::Claim, now.plus(FOREIGN_LEASE), now);
        from.tasks.get(&id).map(|entry| entry.record.clone())
    }

    /// The heartbeat: whatever still has a lease has it longer, whosever it is.
    pub fn foreign_extend(&self, queue: &QueueName, id: &TaskId, now: Timestamp) {
        let mut world = self.world();
        let entry = world.queues.get_mut(queue).and_then(|queue| queue.tasks.get_mut(id));
        if let Some(entry) = entry.filter(|entry| entry.record.state == TaskState::Active) {
            entry.record.lease_until = Some(now.plus(FOREIGN_LEASE));
        }
    }

    /// Done: an active task is gone, whoever runs it. False for `NOT FOUND`.
    pub fn foreign_done(&self, queue: &QueueName, id: &TaskId, now: Timestamp) -> bool {
        let mut world = self.world();
        let Some(queue) = world.queues.get_mut(queue) else { return false };
        let is_active = queue.is_active(id);
        if is_active {
            queue.happen(id, Event::Done, now, now);
            queue.count_run(Run::Well, now);
        }
        drop(world);
        self.bell.notify_waiters();
        is_active
    }

    /// One pass of the recoverer: leases that expired long enough ago, ours too. Each costs an attempt, and the last one the
    /// task. Says whose they were.
    pub fn foreign_recover(&self, queue: &QueueName, now: Timestamp) -> Vec<TaskId> {
        let mut world = self.world();
        let Some(queue) = world.queues.get_mut(queue) else { return Vec::new() };
        let mut lost = queue.in_state(TaskState::Active);
        let is_over = |until: Timestamp| until.plus(FOREIGN_LEASE) <= now;
        lost.retain(|id| queue.tasks[id].record.lease_until.is_some_and(is_over));
        lost.iter().for_each(|id| queue.recover_as_asynq(id, now));
        lost
    }

    /// The forwarder: what is due stands in line.
    pub fn foreign_forward(&self, queue: &QueueName, now: Timestamp) {
        if let Some(queue) = self.world().queues.get_mut(queue) {
            queue.promote(now, usize::MAX);
        }
        self.bell.notify_waiters();
    }
}

impl Queue {
    fn is_active(&self, id: &TaskId) -> bool {
        self.tasks.get(id).is_some_and(|entry| entry.record.state == TaskState::Active)
    }

    fn recover_as_asynq(&mut self, id: &TaskId, now: Timestamp) {
        self.note_failure(id, "asynq: task lease expired", now);
        let Some(entry) = self.tasks.get_mut(id) else { return };
        let holder = entry.holder;
        let is_last = entry.record.retried >= entry.record.max_retry;
        let event = if is_last { Event::Fail } else { Event::Retry };
        entry.record.retried += u32::from(!is_last);
        self.happen(id, event, now.plus(Duration::from_secs(15)), now);
        self.count_run(Run::Badly, now);
        // A late success of ours is adopted from there: error text and count say that only the lease was lost.
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.lost_by = holder;
        }
    }
}
