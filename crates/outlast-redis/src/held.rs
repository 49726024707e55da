//! The tasks that this process holds: by whose token, and whether they leave nothing behind when they
//! succeed (no retention, no lock), so that their settlement needs no look at the task.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use outlast_core::{LeaseToken, QueueName, TaskId};

/// Leases that are remembered, over all queues. One that is forgotten is settled the long way, and a
/// cancel of asynq's does not find it.
const LEASES_MAX: usize = 100_000;

#[derive(Debug, Default)]
pub(crate) struct HeldLeases(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    by_queue: HashMap<QueueName, HashMap<TaskId, Lease>>,
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    token: LeaseToken,
    is_plain: bool,
}

impl HeldLeases {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task was claimed.
    pub(crate) fn add(&self, queue: &QueueName, id: &TaskId, token: LeaseToken, is_plain: bool) {
        let mut held = self.held();
        if held.count >= LEASES_MAX {
            *held = Held::default();
        }
        let lease = Lease { token, is_plain };
        let before = match held.by_queue.get_mut(queue) {
            Some(leases) => leases.insert(id.clone(), lease),
            None => {
                held.by_queue.insert(queue.clone(), HashMap::from([(id.clone(), lease)]));
                None
            }
        };
        held.count += usize::from(before.is_none());
    }

    /// True if all of these are held and plain.
    pub(crate) fn are_plain<'a>(
        &self,
        queue: &QueueName,
        mut ids: impl Iterator<Item = &'a TaskId>,
    ) -> bool {
        let held = self.held();
        let is_plain = |leases: &HashMap<TaskId, Lease>, id: &TaskId| {
            leases.get(id).is_some_and(|lease| lease.is_plain)
        };
        held.by_queue.get(queue).is_some_and(|leases| ids.all(|id| is_plain(leases, id)))
    }

    /// Where tasks of this id run here. An id is unique in its queue only.
    pub(crate) fn find(&self, id: &TaskId) -> Vec<(QueueName, LeaseToken)> {
        let held = self.held();
        let found = held
            .by_queue
            .iter()
            .filter_map(|(queue, leases)| leases.get(id).map(|lease| (queue.clone(), lease.token)));
        found.collect()
    }

    /// These were settled.
    pub(crate) fn remove<'a>(&self, queue: &QueueName, ids: impl Iterator<Item = &'a TaskId>) {
        let mut held = self.held();
        let Some(leases) = held.by_queue.get_mut(queue) else { return };
        let removed = ids.filter(|id| leases.remove(*id).is_some()).count();
        if leases.is_empty() {
            held.by_queue.remove(queue);
        }
        held.count -= removed;
    }
}
