//! Outcomes after which their task goes on. Each speaks of the run that it ended: once this process has claimed the task again
//! the lease is the same, and an outcome that is offered again would end the new run.

use std::collections::HashMap;

use outlast_core::{Claim, Outcome, QueueName, Settlement, Stamp, TaskId};

/// The batch of the latest such outcome of each task that has not been claimed since. As many as the ledger keeps.
#[derive(Default)]
pub(super) struct Passing {
    by_task: HashMap<(QueueName, TaskId), Stamp>,
}

fn goes_on(settlement: &Settlement) -> bool {
    matches!(
        settlement.outcome,
        Outcome::Retry { .. } | Outcome::Snooze { .. } | Outcome::Archive { .. } | Outcome::Release
    )
}

impl Passing {
    /// These were acknowledged. True if there are any of this kind.
    pub(super) fn add(&mut self, queue: &QueueName, stamp: Stamp, all: &[Settlement]) -> bool {
        let mut is_any = false;
        for settlement in all.iter().filter(|settlement| goes_on(settlement)) {
            self.by_task.insert((queue.clone(), settlement.lease.id.clone()), stamp);
            is_any = true;
        }
        is_any
    }

    /// These are not kept any longer.
    pub(super) fn drop(&mut self, queue: &QueueName, stamp: Stamp, all: &[Settlement]) {
        for settlement in all.iter().filter(|settlement| goes_on(settlement)) {
            let task = (queue.clone(), settlement.lease.id.clone());
            if self.by_task.get(&task) == Some(&stamp) {
                self.by_task.remove(&task);
            }
        }
    }

    /// What was claimed has a new run.
    pub(super) fn claimed(&mut self, queue: &QueueName, claims: &[Claim]) {
        if self.by_task.is_empty() {
            return;
        }
        for claim in claims {
            let id = match claim {
                Claim::Task(task) => &task.lease.id,
                Claim::Group(group) => &group.lease.id,
                Claim::Corrupt { .. } => continue,
            };
            self.by_task.remove(&(queue.clone(), id.clone()));
        }
    }

    /// True unless the task has had a new run since.
    pub(super) fn is_open(&self, queue: &QueueName, stamp: Stamp, settlement: &Settlement) -> bool {
        !goes_on(settlement)
            || self.by_task.get(&(queue.clone(), settlement.lease.id.clone())) == Some(&stamp)
    }
}
