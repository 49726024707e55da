//! Storing new tasks: one script call for a batch, a shorter script where every task is a plain one.

use std::sync::Arc;

use outlast_core::limits::check_batch;
use outlast_core::{
    BrokerError, Durability, EnqueueVerdict, Enqueued, NewTask, Place, QueueName, Reject, Stamp,
    TaskId, TaskState, Timestamp,
};

use crate::answer::{self, Status, Verdict, stamped};
use crate::broker::Inner;
use crate::conn::Call;
use crate::keys::Keys;
use crate::record::{self, nanos_text, seconds_text};
use crate::scripts::{ENQUEUE, ENQUEUE_ONE, ENQUEUE_PLAIN, Script};

/// The level that an answer of the server stands for: what its own persistence is set to.
const LEVEL: Durability = Durability::Accepted;

impl Inner {
    pub(crate) async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        check_batch("batch of tasks", tasks.len())?;
        let mut verdicts = vec![EnqueueVerdict::Accepted { level: LEVEL }; tasks.len()];
        // What is refused here is sent all the same: its verdict is part of the answer that a repeat gets,
        // though the time of the repeat might judge otherwise.
        let wrong: Vec<_> = tasks.iter().map(|task| task.check(now).err()).collect();
        let keys = self.root.queue(queue);
        let is_plain =
            wrong.iter().all(Option::is_none) && tasks.iter().all(|task| is_plain(task, now));
        let script = match (is_plain, tasks.len()) {
            (true, 1) => &ENQUEUE_ONE,
            (true, _) => &ENQUEUE_PLAIN,
            (false, _) => &ENQUEUE,
        };
        let mut call = self.enqueue_call(script, &keys, queue, stamp, now);
        for (task, wrong) in tasks.iter().zip(wrong) {
            match wrong {
                None if is_plain => self.add_plain(&mut call, &keys, queue, task, now),
                None => {
                    call.add_key(keys.task(&task.id));
                    self.add_task(&mut call, &keys, queue, task, now);
                }
                Some(error) => add_wrong(&mut call, task, &error),
            }
        }
        let mut answer = stamped(self.produce.script(&call).await?, stamp, "e")?;
        if answer.status == Status::Declined {
            // The shortest script is not sure. This one takes the same words.
            call.script = &ENQUEUE_PLAIN;
            answer = stamped(self.produce.script(&call).await?, stamp, "e")?;
        }
        if answer.status == Status::Applied {
            self.renewals.renewed(queue, &stamp, now);
        }
        for verdict in answer::verdicts(answer.rest.next().unwrap_or_default())? {
            if let Some(slot) = verdict.nth.checked_sub(1).and_then(|nth| verdicts.get_mut(nth)) {
                *slot = refused(verdict);
            }
        }
        Ok(Enqueued { verdicts, lost: answer.lost })
    }

    fn enqueue_call(
        &self,
        script: &'static Script,
        keys: &Keys,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
    ) -> Call {
        let mut names = vec![keys.session(stamp.session), keys.key("pending")];
        let is_plain = !std::ptr::eq(script, &ENQUEUE);
        if !is_plain {
            names.extend([keys.key("scheduled"), keys.key("groups")]);
        }
        let mut call = Call::new(script, names);
        self.add_stamp(&mut call, queue, stamp, now);
        call.text(self.root.queues()).text(queue.as_str()).text(nanos_text(now));
        if !is_plain {
            call.text(keys.prefix());
        }
        call
    }

    fn add_plain(
        &self,
        call: &mut Call,
        keys: &Keys,
        queue: &QueueName,
        task: &NewTask,
        now: Timestamp,
    ) {
        call.add_key(keys.task(&task.id));
        let message = record::message_of(self.root.as_str(), queue, task);
        call.text(task.id.as_str()).bytes(message.encode());
        call.text(record::accepted_at_field(&task.id, now).unwrap_or_default());
    }

    /// A task as `put.lua` takes it.
    pub(crate) fn add_task(
        &self,
        call: &mut Call,
        keys: &Keys,
        queue: &QueueName,
        task: &NewTask,
        now: Timestamp,
    ) {
        let kind = match (task.first_state(now), task.place) {
            (TaskState::Scheduled, _) => "s",
            (TaskState::Aggregating, _) => "g",
            (_, Place::Front) => "f",
            (_, Place::Back) => "p",
        };
        let at = if kind == "s" { task.due.unwrap_or(now) } else { now };
        let message = record::message_of(self.root.as_str(), queue, task);
        call.text(task.id.as_str()).bytes(message.encode());
        call.text(record::accepted_at_field(&task.id, now).unwrap_or_default());
        call.fixed(kind).text(seconds_text(at));
        match &task.unique {
            Some(unique) => {
                // A scheduled task keeps its lock as long as one that was enqueued when it becomes due.
                let ttl = unique.ttl + task.due.map_or_else(Default::default, |due| due.since(now));
                call.text(message.unique_key).text(ttl.as_secs().max(1).to_string());
            }
            None => {
                call.fixed("").fixed("");
            }
        }
        match &task.once {
            Some(once) => {
                call.text(keys.once(&once.key)).text(once.ttl.as_secs().max(1).to_string());
            }
            None => {
                call.fixed("").fixed("");
            }
        }
        call.text(task.group.as_ref().map(ToString::to_string).unwrap_or_default());
    }
}

/// A task that is refused, as `put.lua` takes it.
fn add_wrong(call: &mut Call, task: &NewTask, error: &impl std::fmt::Display) {
    call.text(task.id.as_str()).text(error.to_string()).fixed("").fixed("x");
    for _ in 0..6 {
        call.fixed("");
    }
}

/// True if `enqueue_plain.lua` can store it.
fn is_plain(task: &NewTask, now: Timestamp) -> bool {
    task.unique.is_none()
        && task.once.is_none()
        && task.place == Place::Back
        && task.first_state(now) == TaskState::Pending
}

fn refused(verdict: Verdict) -> EnqueueVerdict {
    match verdict.code {
        b'D' => {
            let of = (!verdict.word.is_empty()).then(|| TaskId::stored(&verdict.word));
            EnqueueVerdict::Duplicate { of }
        }
        b'I' => EnqueueVerdict::IdConflict,
        _ => EnqueueVerdict::Rejected(Reject(verdict.word.into())),
    }
}
