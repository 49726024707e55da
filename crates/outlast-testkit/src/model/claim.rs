//! Handing out work: tasks in line first, then the groups that are ready.

use outlast_core::limits::GROUP_SIZE_MAX;
use outlast_core::state::Event;
use outlast_core::{
    Claim, ClaimedGroup, ClaimedTask, Extended, GroupName, GroupPolicy, Hold, Lease, LeaseToken,
    QueueName, Rest, TaskId, TaskState, Timestamp, Want,
};

use super::queue::{Queue, Set};
use super::world::World;

impl World {
    /// Leases what `want` asks for and names it: tasks by their id, sets by theirs.
    pub(super) fn claim(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        want: &Want,
    ) -> (Vec<TaskId>, Rest) {
        let Some(from) = self.queues.get_mut(queue) else { return (Vec::new(), Rest::Empty) };
        if from.paused_since.is_some() {
            return (Vec::new(), Rest::Paused);
        }
        from.promote(now, usize::MAX);
        let mut taken = Vec::new();
        while taken.len() < want.tasks_max
            && let Some((group, size)) = from.ready_group(now, &want.groups)
        {
            self.people.sets += 1;
            let set = TaskId::stored(&format!("model-set-{}", self.people.sets));
            from.take_group(&set, &group, size, now, want);
            taken.push(set);
        }
        taken.extend(from.take_tasks(now, want, want.tasks_max - taken.len()));
        let more = !from.in_state(TaskState::Pending).is_empty()
            || from.ready_group(now, &want.groups).is_some();
        (taken, if more { Rest::More } else { Rest::Empty })
    }

    /// What was claimed, as far as it is still leased to the token.
    pub(super) fn claimed(
        &self,
        queue: &QueueName,
        ids: &[TaskId],
        token: LeaseToken,
    ) -> Vec<Claim> {
        let Some(queue) = self.queues.get(queue) else { return Vec::new() };
        ids.iter().filter_map(|id| queue.claimed(id, token)).collect()
    }

    pub(super) fn extend(&mut self, queue: &QueueName, hold: &Hold, until: Timestamp) -> Extended {
        let Some(queue) = self.queues.get_mut(queue) else { return Extended::Lost };
        let Lease { id, token, .. } = &hold.lease;
        if let Some(set) = queue.sets.get_mut(id).filter(|set| set.holder == *token) {
            set.until = until;
            return Extended::Until(until);
        }
        let Some(entry) = queue.tasks.get_mut(id).filter(|entry| entry.holder == Some(*token))
        else {
            return Extended::Lost;
        };
        entry.record.lease_until = Some(until);
        if let Some(result) = &hold.result {
            entry.record.result = Some(result.clone());
        }
        Extended::Until(until)
    }
}

impl Queue {
    fn take_tasks(&mut self, now: Timestamp, want: &Want, most: usize) -> Vec<TaskId> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        for id in self.in_state(TaskState::Pending) {
            bytes += self.tasks[&id].record.payload.len();
            if taken.len() == most || (!taken.is_empty() && bytes > want.bytes_max) {
                break;
            }
            self.happen(&id, Event::Claim, now.plus(want.lease), now);
            if let Some(entry) = self.tasks.get_mut(&id) {
                entry.holder = Some(want.token);
            }
            taken.push(id);
        }
        taken
    }

    /// The first group, by name, that its policy finds ready, and how many members to take.
    fn ready_group(&self, now: Timestamp, policies: &[GroupPolicy]) -> Option<(GroupName, usize)> {
        self.groups().into_keys().find_map(|group| {
            let policy = policies.iter().find(|policy| policy.matches(&group))?;
            let size = self.ready_size(&group, policy, now)?;
            Some((group, size))
        })
    }

    /// Contract §3.5, in its order; every bound is inclusive.
    fn ready_size(&self, group: &GroupName, policy: &GroupPolicy, now: Timestamp) -> Option<usize> {
        let waiting = self.waiting_in(group);
        let joined = |id: &TaskId| Timestamp::from_millis(self.tasks[id].place);
        let (oldest, newest) = (joined(waiting.first()?), joined(waiting.last()?));
        let most = policy.max_size.filter(|size| *size > 0).unwrap_or(GROUP_SIZE_MAX);
        let most = most.min(GROUP_SIZE_MAX);
        let full = waiting.len() >= most;
        let late = policy.max_delay.is_some_and(|delay| oldest.plus(delay) <= now);
        let calm = newest.plus(policy.grace) <= now;
        (full || late || calm).then(|| most.min(waiting.len()))
    }

    fn take_group(
        &mut self,
        set: &TaskId,
        group: &GroupName,
        size: usize,
        now: Timestamp,
        want: &Want,
    ) {
        for id in self.waiting_in(group).into_iter().take(size) {
            if let Some(entry) = self.tasks.get_mut(&id) {
                entry.set = Some(set.clone());
            }
        }
        let until = now.plus(want.lease);
        self.sets.insert(set.clone(), Set { group: group.clone(), holder: want.token, until });
    }

    fn claimed(&self, id: &TaskId, token: LeaseToken) -> Option<Claim> {
        if let Some(set) = self.sets.get(id).filter(|set| set.holder == token) {
            let tasks = self.members(id).iter().map(|id| self.tasks[id].record.clone()).collect();
            let lease = Lease { id: id.clone(), token, until: set.until };
            return Some(Claim::Group(ClaimedGroup { group: set.group.clone(), tasks, lease }));
        }
        let entry = self.tasks.get(id).filter(|entry| entry.holder == Some(token))?;
        let lease = Lease { id: id.clone(), token, until: entry.record.lease_until? };
        Some(Claim::Task(Box::new(ClaimedTask { task: entry.record.clone(), lease })))
    }
}
