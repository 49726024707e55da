//! Accepting tasks. The order of the questions is part of the semantics: is it valid, was its `once` key
//! used, is its lock free, is its id free. Whoever is refused leaves nothing behind.

use outlast_core::{
    Durability, EnqueueVerdict, NewTask, Once, QueueName, TaskId, Timestamp, Unique,
};

use super::world::World;

impl World {
    pub(super) fn enqueue(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        tasks: &[NewTask],
    ) -> Vec<EnqueueVerdict> {
        tasks.iter().map(|task| self.enqueue_one(queue, now, task)).collect()
    }

    pub(super) fn enqueue_one(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        task: &NewTask,
    ) -> EnqueueVerdict {
        if let Some(refused) = self.refuse(queue, now, task) {
            return refused;
        }
        if let Some(Once { key, ttl }) = &task.once {
            self.once.insert((queue.clone(), key.clone()), (task.id.clone(), now.plus(*ttl)));
        }
        let into = self.queues.entry(queue.clone()).or_default();
        if let Some(Unique { digest, ttl }) = &task.unique {
            // A scheduled task keeps its lock as long as one that was enqueued when it becomes due.
            let from = task.due.unwrap_or(now).max(now);
            let lock = (task.task_type.clone(), digest.clone());
            into.locks.insert(lock, (task.id.clone(), from.plus(*ttl)));
        }
        into.insert(queue, task, now);
        EnqueueVerdict::Accepted { level: Durability::Memory }
    }

    fn refuse(&self, queue: &QueueName, now: Timestamp, task: &NewTask) -> Option<EnqueueVerdict> {
        if let Err(error) = task.check(now) {
            return Some(EnqueueVerdict::Rejected(error.into()));
        }
        let used = task.once.as_ref().and_then(|once| self.key_user(queue, &once.key, now));
        let locked = task.unique.as_ref().and_then(|unique| {
            let (holder, until) = self
                .queues
                .get(queue)?
                .locks
                .get(&(task.task_type.clone(), unique.digest.clone()))?;
            (*until > now).then(|| holder.clone())
        });
        if let Some(of) = used.or(locked) {
            return Some(EnqueueVerdict::Duplicate { of: Some(of) });
        }
        let taken = self.queues.get(queue).is_some_and(|queue| queue.tasks.contains_key(&task.id));
        taken.then_some(EnqueueVerdict::IdConflict)
    }

    fn key_user(&self, queue: &QueueName, key: &str, now: Timestamp) -> Option<TaskId> {
        let (user, until) = self.once.get(&(queue.clone(), key.to_owned()))?;
        (*until > now).then(|| user.clone())
    }
}
