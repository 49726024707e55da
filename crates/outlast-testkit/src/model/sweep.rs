//! What time moves, each kind of work up to the budget.

use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::limits::{ARCHIVE_AGE, LOSSES_MAX};
use outlast_core::state::Event;
use outlast_core::{QueueName, SweepBudget, Swept, TaskId, TaskState, Timestamp};

use super::queue::Queue;
use super::world::World;

impl World {
    pub(super) fn sweep(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Swept {
        let archive_max = self.archive_max;
        let Some(queue) = self.queues.get_mut(queue) else { return Swept::default() };
        let most = budget.moves_max;
        let mut swept = Swept { due: queue.promote(now, most), ..Swept::default() };
        if budget.recovery == Recovery::Allowed {
            (swept.recovered, swept.given_up) = queue.recover(now, most);
            swept.reclaimed = queue.reclaim(now, most);
        }
        swept.deleted = queue.expire(now, archive_max, most);
        let done = [swept.due, swept.recovered, swept.reclaimed, swept.deleted];
        swept.more = done.into_iter().any(|moved| moved >= most);
        swept.next_due = queue.next_due();
        swept
    }
}

impl Queue {
    /// Makes due tasks pending, or members of their group, in the order in which they were due.
    pub(super) fn promote(&mut self, now: Timestamp, most: usize) -> usize {
        let mut due: Vec<(Timestamp, TaskId)> = self
            .tasks
            .values()
            .filter(|entry| matches!(entry.record.state, TaskState::Scheduled | TaskState::Retry))
            .filter_map(|entry| Some((entry.record.next_at?, entry.record.id.clone())))
            .filter(|(at, _)| *at <= now)
            .collect();
        due.sort();
        due.truncate(most);
        for (_, id) in &due {
            let in_group = self.tasks[id].record.group.is_some();
            self.happen(id, if in_group { Event::DueInGroup } else { Event::Due }, now, now);
        }
        due.len()
    }

    /// Takes expired leases back: how many, and how many of those tasks were given up.
    fn recover(&mut self, now: Timestamp, most: usize) -> (usize, usize) {
        let mut lost = self.in_state(TaskState::Active);
        lost.retain(|id| self.tasks[id].record.lease_until.is_some_and(|until| until <= now));
        lost.truncate(most);
        let mut given_up = 0;
        for id in &lost {
            given_up += usize::from(self.lose(id, now));
        }
        (lost.len(), given_up)
    }

    /// True if it was the last loss that the task was allowed.
    fn lose(&mut self, id: &TaskId, now: Timestamp) -> bool {
        self.note_failure(id, "lease lost: the worker stopped extending it", now);
        let Some(entry) = self.tasks.get_mut(id) else { return false };
        let holder = entry.holder;
        entry.record.losses += 1;
        let losses = entry.record.losses;
        let too_often = losses >= LOSSES_MAX;
        let again = now.plus(Duration::from_secs(u64::from(losses.clamp(1, 5))));
        let event = if too_often { Event::LeaseLostTooOften } else { Event::LeaseLost };
        self.happen(id, event, again, now);
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.lost_by = holder;
        }
        too_often
    }

    fn reclaim(&mut self, now: Timestamp, most: usize) -> usize {
        let over = self.sets.iter().filter(|(_, set)| set.until <= now).map(|(id, _)| id.clone());
        let over: Vec<TaskId> = over.take(most).collect();
        for set in &over {
            self.give_back(set);
        }
        over.len()
    }

    fn expire(&mut self, now: Timestamp, archive_max: usize, most: usize) -> usize {
        let mut over = self.in_state(TaskState::Completed);
        over.retain(|id| self.tasks[id].place <= now.as_millis());
        let archived = self.in_state(TaskState::Archived);
        let too_many = archived.len().saturating_sub(archive_max);
        let too_old =
            |id: &TaskId| Timestamp::from_millis(self.tasks[id].place).plus(ARCHIVE_AGE) <= now;
        let trimmed = archived.iter().enumerate();
        over.extend(
            trimmed.filter(|(rank, id)| *rank < too_many || too_old(id)).map(|(_, id)| id.clone()),
        );
        over.truncate(most);
        for id in &over {
            self.happen(id, Event::Expire, now, now);
        }
        over.len()
    }
}
