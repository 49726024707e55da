//! Recording how runs ended: first the fence, then the outcome.

use outlast_core::limits::{ERROR_BYTES_MAX, RESULT_BYTES_MAX};
use outlast_core::state::Event;
use outlast_core::{
    Attempt, EnqueueVerdict, Lease, NewTask, Outcome, QueueName, Reject, SettleVerdict, Settlement,
    TaskId, TaskState, Timestamp,
};

use super::queue::{Queue, Run};
use super::world::World;

impl World {
    pub(super) fn settle(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        settlements: &[Settlement],
    ) -> Vec<SettleVerdict> {
        settlements.iter().map(|settlement| self.settle_one(queue, now, settlement)).collect()
    }

    fn settle_one(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        settlement: &Settlement,
    ) -> SettleVerdict {
        let Settlement { lease, outcome } = settlement;
        let Some(of) = self.queues.get_mut(queue) else { return SettleVerdict::LeaseLost };
        if of.sets.get(&lease.id).is_some_and(|set| set.holder == lease.token) {
            return self.settle_set(queue, now, &lease.id, outcome);
        }
        let verdict = match of.fence(lease, outcome) {
            SettleVerdict::LeaseLost => return SettleVerdict::LeaseLost,
            verdict => verdict,
        };
        if let Some(refused) = refuse(outcome) {
            return refused;
        }
        of.apply(&lease.id, outcome, now);
        verdict
    }

    fn settle_set(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        set: &TaskId,
        outcome: &Outcome,
    ) -> SettleVerdict {
        match outcome {
            Outcome::Aggregated { into } => self.aggregate(queue, now, set, into),
            Outcome::Release => {
                if let Some(queue) = self.queues.get_mut(queue) {
                    queue.give_back(set);
                }
                SettleVerdict::Applied
            }
            _ => rejected("an aggregation set can only be aggregated or released"),
        }
    }

    /// The new task is judged while the members are still there; if it is refused, they stay.
    fn aggregate(
        &mut self,
        queue: &QueueName,
        now: Timestamp,
        set: &TaskId,
        into: &NewTask,
    ) -> SettleVerdict {
        match self.enqueue_one(queue, now, into) {
            EnqueueVerdict::Accepted { .. } | EnqueueVerdict::Stored => {}
            EnqueueVerdict::Duplicate { of: Some(of) } => {
                return rejected(&format!("task {} is a duplicate of {of}", into.id));
            }
            EnqueueVerdict::Duplicate { of: None } => {
                return rejected(&format!("task {} is a duplicate", into.id));
            }
            EnqueueVerdict::IdConflict => {
                return rejected(&format!("a task with the id {} exists", into.id));
            }
            EnqueueVerdict::Rejected(why) => return SettleVerdict::Rejected(why),
        }
        if let Some(queue) = self.queues.get_mut(queue) {
            for id in queue.members(set) {
                queue.happen(&id, Event::Aggregate, now, now);
            }
            queue.sets.remove(set);
        }
        SettleVerdict::Applied
    }
}

/// Outcomes that are wrong whatever the task.
fn refuse(outcome: &Outcome) -> Option<SettleVerdict> {
    match outcome {
        Outcome::Aggregated { .. } => Some(rejected("the lease is of a task, not of a set")),
        Outcome::Done { result: Some(result) } if result.len() > RESULT_BYTES_MAX => {
            let bytes = result.len();
            Some(rejected(&format!(
                "result of {bytes} bytes is too large: at most {RESULT_BYTES_MAX} are allowed"
            )))
        }
        _ => None,
    }
}

fn rejected(why: &str) -> SettleVerdict {
    SettleVerdict::Rejected(Reject(why.into()))
}

/// At most `bytes_max` bytes of a text, cut between characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let fits = |end: &usize| *end <= bytes_max;
    let ends = text.char_indices().map(|(at, c)| at + c.len_utf8());
    &text[..ends.take_while(fits).last().unwrap_or(0)]
}

impl Queue {
    /// Who may settle: the holder of the lease; and whoever lost it, if the news is good and nobody has
    /// started the task since.
    fn fence(&self, lease: &Lease, outcome: &Outcome) -> SettleVerdict {
        let Some(entry) = self.tasks.get(&lease.id) else { return SettleVerdict::LeaseLost };
        let is_late_success = matches!(outcome, Outcome::Done { .. })
            && matches!(entry.record.state, TaskState::Retry | TaskState::Archived)
            && entry.lost_by == Some(lease.token);
        match entry.holder {
            Some(holder) if holder == lease.token => SettleVerdict::Applied,
            None if is_late_success => SettleVerdict::Adopted,
            Some(_) | None => SettleVerdict::LeaseLost,
        }
    }

    fn apply(&mut self, id: &TaskId, outcome: &Outcome, now: Timestamp) {
        match outcome {
            Outcome::Done { result } => self.done(id, result.as_ref(), now),
            Outcome::Retry { at, error, attempt } => {
                self.note_failure(id, error, now);
                if *attempt == Attempt::Spent {
                    self.count_run(Run::Badly, now);
                    if let Some(entry) = self.tasks.get_mut(id) {
                        entry.record.retried += 1;
                    }
                }
                self.happen(id, Event::Retry, *at, now);
            }
            Outcome::Snooze { until } => {
                self.happen(id, Event::Snooze, *until, now);
            }
            Outcome::Archive { error } => {
                self.note_failure(id, error, now);
                self.count_run(Run::Badly, now);
                self.happen(id, Event::Fail, now, now);
            }
            Outcome::Revoke => {
                self.count_run(Run::Well, now);
                self.happen(id, Event::Revoke, now, now);
            }
            Outcome::Release => {
                self.happen(id, Event::Release, now, now);
            }
            // Refused before; the trait may grow outcomes that the model does not know yet.
            _ => {}
        }
    }

    fn done(&mut self, id: &TaskId, result: Option<&bytes::Bytes>, now: Timestamp) {
        let Some(entry) = self.tasks.get_mut(id) else { return };
        if let Some(result) = result {
            entry.record.result = Some(result.clone());
        }
        let retention = entry.record.retention;
        let event = if retention.is_zero() { Event::Done } else { Event::DoneKept };
        self.happen(id, event, now.plus(retention), now);
        self.count_run(Run::Well, now);
    }

    pub(super) fn note_failure(&mut self, id: &TaskId, error: &str, now: Timestamp) {
        if let Some(entry) = self.tasks.get_mut(id) {
            entry.record.last_error = Some(beginning(error, ERROR_BYTES_MAX).to_owned());
            entry.record.last_failed_at = Some(now);
        }
    }

    /// The members of a set wait in their group again, where they stood.
    pub(super) fn give_back(&mut self, set: &TaskId) {
        self.sets.remove(set);
        for entry in self.tasks.values_mut() {
            if entry.set.as_ref() == Some(set) {
                entry.set = None;
            }
        }
    }
}
