//! One queue: its tasks, and the only function that changes their state.

use std::collections::BTreeMap;

use outlast_core::state::{Event, Next, next};
use outlast_core::{
    GroupName, LeaseToken, NewTask, Place, QueueName, TaskId, TaskRecord, TaskState, TaskType,
    Timestamp,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Queue {
    pub(super) tasks: BTreeMap<TaskId, Entry>,
    /// Unique locks by what they lock, with their holder and their end.
    pub(super) locks: BTreeMap<(TaskType, String), (TaskId, Timestamp)>,
    /// Aggregation sets that are claimed. Their members are the tasks that name them.
    pub(super) sets: BTreeMap<TaskId, Set>,
    pub(super) days: BTreeMap<i64, Ended>,
    pub(super) total: Ended,
    pub(super) paused_since: Option<Timestamp>,
    /// The places handed out last at both ends of the line of pending tasks.
    front: i64,
    back: i64,
    claims: i64,
}

/// A task and what nobody outside is shown of it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) record: TaskRecord,
    /// What the tasks of this state are ordered by; see the module's page.
    pub(super) place: i64,
    /// Who runs it.
    pub(super) holder: Option<LeaseToken>,
    /// Who lost its lease, if that is why it is where it is: whose success may be adopted.
    pub(super) lost_by: Option<LeaseToken>,
    /// The aggregation set it is in.
    pub(super) set: Option<TaskId>,
    /// What it locks, whether or not the lock is still its own.
    pub(super) lock: Option<(TaskType, String)>,
}

/// A claimed aggregation set.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) group: GroupName,
    pub(super) holder: LeaseToken,
    pub(super) until: Timestamp,
}

/// Runs that ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) processed: u64,
    pub(super) failed: u64,
}

/// How a run that counts ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Run {
    Well,
    Badly,
}

impl Queue {
    pub(super) fn insert(&mut self, queue: &QueueName, task: &NewTask, now: Timestamp) {
        let mut record = TaskRecord::new(
            queue.clone(),
            task.id.clone(),
            task.task_type.clone(),
            task.payload.clone(),
        );
        record.headers = task.headers.clone();
        record.max_retry = task.max_retry;
        record.timeout = task.effective_timeout();
        record.deadline = task.deadline;
        record.retention = task.retention;
        record.group = task.group.clone();
        record.enqueued_at = Some(now);
        let lock =
            task.unique.as_ref().map(|unique| (task.task_type.clone(), unique.digest.clone()));
        let entry = Entry { record, place: 0, holder: None, lost_by: None, set: None, lock };
        self.tasks.insert(task.id.clone(), entry);
        self.enter(&task.id, task.first_state(now), task.due.unwrap_or(now), now);
        if task.place == Place::Front && task.first_state(now) == TaskState::Pending {
            self.put_first(&task.id);
        }
    }

    /// Law L5: the only way from one state to another. `until` is what the new state runs until, where
    /// it has such a moment: due, lease or retention. False if the table refuses.
    pub(super) fn happen(
        &mut self,
        id: &TaskId,
        event: Event,
        until: Timestamp,
        now: Timestamp,
    ) -> bool {
        let Some(entry) = self.tasks.get(id) else { return false };
        match next(entry.record.state, event) {
            Next::Refused => return false,
            Next::Gone => {
                self.unlock(id);
                self.tasks.remove(id);
            }
            Next::State(state) => self.enter(id, state, until, now),
        }
        if event == Event::DoneKept {
            self.unlock(id);
        }
        if event == Event::Release {
            self.put_first(id);
        }
        true
    }

    fn enter(&mut self, id: &TaskId, state: TaskState, until: Timestamp, now: Timestamp) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        entry.holder = None;
        entry.lost_by = None;
        let record = &mut entry.record;
        record.state = state;
        record.next_at = None;
        record.pending_since = None;
        record.started_at = None;
        record.lease_until = None;
        record.completed_at = None;
        entry.place = until.as_millis();
        match state {
            TaskState::Pending => {
                self.back += 1;
                entry.place = self.back;
                record.pending_since = Some(now);
            }
            TaskState::Active => {
                self.claims += 1;
                entry.place = self.claims;
                record.started_at = Some(now);
                record.lease_until = Some(until);
            }
            TaskState::Scheduled | TaskState::Retry => record.next_at = Some(until),
            TaskState::Archived | TaskState::Aggregating => entry.place = now.as_millis(),
            TaskState::Completed => record.completed_at = Some(now),
        }
    }

    fn put_first(&mut self, id: &TaskId) {
        if let Some(entry) = self.tasks.get_mut(id) {
            self.front -= 1;
            entry.place = self.front;
        }
    }

    /// Gives back the lock that the task holds: not one that ran out and was taken by another.
    fn unlock(&mut self, id: &TaskId) {
        let Some(lock) = self.tasks.get(id).and_then(|entry| entry.lock.clone()) else { return };
        if self.locks.get(&lock).is_some_and(|(holder, _)| holder == id) {
            self.locks.remove(&lock);
        }
    }

    /// The tasks in a state, in its order.
    pub(super) fn in_state(&self, state: TaskState) -> Vec<TaskId> {
        let mut found: Vec<(i64, &TaskId)> = self
            .tasks
            .iter()
            .filter(|(_, entry)| entry.record.state == state)
            .map(|(id, entry)| (entry.place, id))
            .collect();
        found.sort();
        found.into_iter().map(|(_, id)| id.clone()).collect()
    }

    /// The members of a group that wait: those of a claimed set do not.
    pub(super) fn waiting_in(&self, group: &GroupName) -> Vec<TaskId> {
        let mut ids = self.in_state(TaskState::Aggregating);
        ids.retain(|id| {
            let entry = &self.tasks[id];
            entry.set.is_none() && entry.record.group.as_ref() == Some(group)
        });
        ids
    }

    pub(super) fn members(&self, set: &TaskId) -> Vec<TaskId> {
        let mut ids = self.in_state(TaskState::Aggregating);
        ids.retain(|id| self.tasks[id].set.as_ref() == Some(set));
        ids
    }

    /// The groups that have members, claimed or not, with their sizes.
    pub(super) fn groups(&self) -> BTreeMap<GroupName, u64> {
        let mut groups = BTreeMap::new();
        for entry in self.tasks.values() {
            if let (TaskState::Aggregating, Some(group)) = (entry.record.state, &entry.record.group)
            {
                *groups.entry(group.clone()).or_default() += 1;
            }
        }
        groups
    }

    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.tasks
            .values()
            .filter(|entry| matches!(entry.record.state, TaskState::Scheduled | TaskState::Retry))
            .filter_map(|entry| entry.record.next_at)
            .min()
    }

    pub(super) fn count_run(&mut self, run: Run, now: Timestamp) {
        let failed = u64::from(run == Run::Badly);
        for ended in [&mut self.total, self.days.entry(now.as_days()).or_default()] {
            ended.processed += 1;
            ended.failed += failed;
        }
    }
}
