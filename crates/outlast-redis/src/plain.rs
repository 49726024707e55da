//! Which of the tasks that this process holds leave nothing behind when they succeed: no retention, no
//! lock. Their settlement needs no look at the task.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use outlast_core::{QueueName, TaskId};

/// Ids that are remembered, over all queues. A lease that is forgotten is settled the long way.
const LEASES_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct PlainLeases(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    by_queue: HashMap<QueueName, HashSet<TaskId>>,
    count: usize,
}

impl PlainLeases {
    /// The task was claimed and is known to be plain.
    pub(crate) fn add(&self, queue: &QueueName, id: &TaskId) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if held.count >= LEASES_MAX {
            *held = Held::default();
        }
        let added = match held.by_queue.get_mut(queue) {
            Some(ids) => ids.insert(id.clone()),
            None => {
                held.by_queue.insert(queue.clone(), HashSet::from([id.clone()]));
                true
            }
        };
        held.count += usize::from(added);
    }

    /// True if all of these are held and plain.
    pub(crate) fn has_all<'a>(
        &self,
        queue: &QueueName,
        mut ids: impl Iterator<Item = &'a TaskId>,
    ) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.by_queue.get(queue).is_some_and(|known| ids.all(|id| known.contains(id)))
    }

    /// These were settled.
    pub(crate) fn remove<'a>(&self, queue: &QueueName, ids: impl Iterator<Item = &'a TaskId>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(known) = held.by_queue.get_mut(queue) else { return };
        let removed = ids.filter(|id| known.remove(*id)).count();
        if known.is_empty() {
            held.by_queue.remove(queue);
        }
        held.count -= removed;
    }
}
