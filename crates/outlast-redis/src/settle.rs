//! Recording how runs ended: one script call for a batch, a much shorter script where every task simply
//! succeeded.

use std::sync::Arc;

use bytes::Bytes;
use outlast_core::limits::{
    ARCHIVE_AGE, ERROR_BYTES_MAX, RESULT_BYTES_MAX, STATS_DAYS, beginning, check_batch,
};
use outlast_core::{
    Attempt, BrokerError, NewTask, Outcome, QueueName, Reject, SettleVerdict, Settled, Settlement,
    Stamp, Timestamp,
};

use crate::answer::{self, Status, Verdict, stamped};
use crate::broker::Inner;
use crate::claim::size;
use crate::conn::Call;
use crate::keys::Keys;
use crate::proto::TaskMessage;
use crate::record::{fraction_text, nanos_text, seconds_text};
use crate::scripts::{SETTLE, SETTLE_DONE, SETTLE_ONE, Script};

/// The error of a task whose worker vanished: ours, and asynq's (contract §4.5).
pub(crate) const LEASE_LOST: &str = "lease lost: the worker stopped extending it";
pub(crate) const LEASE_LOST_IN_ASYNQ: &str = "asynq: task lease expired";

impl Inner {
    pub(crate) async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        check_batch("batch of settlements", settlements.len())?;
        let keys = self.root.queue(queue);
        if self.is_plain(queue, &settlements) {
            // Both take the same words; the shorter one declines where it is not sure.
            let shorter = if settlements.len() == 1 { Some(&SETTLE_ONE) } else { None };
            for script in shorter.into_iter().chain([&SETTLE_DONE]) {
                let call = self.done_call(script, &keys, queue, stamp, now, &settlements);
                let answer = stamped(self.consume.script(&call).await?, stamp, "s")?;
                if answer.status != Status::Declined {
                    return self.settled(queue, stamp, now, &settlements, answer);
                }
            }
        }
        let call = self.settle_call(&keys, queue, stamp, now, &settlements);
        let answer = stamped(self.consume.script(&call).await?, stamp, "s")?;
        self.settled(queue, stamp, now, &settlements, answer)
    }

    fn settled(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: &[Settlement],
        mut answer: answer::Stamped,
    ) -> Result<Settled, BrokerError> {
        if answer.status == Status::Applied {
            self.renewals.renewed(queue, &stamp, now);
        }
        let mut verdicts = vec![SettleVerdict::Applied; settlements.len()];
        for verdict in answer::verdicts(answer.rest.next().unwrap_or_default())? {
            if let Some(slot) = verdict.nth.checked_sub(1).and_then(|nth| verdicts.get_mut(nth)) {
                *slot = exception(verdict);
            }
        }
        self.held.remove(queue, settlements.iter().map(|settlement| &settlement.lease.id));
        Ok(Settled { verdicts, lost: answer.lost })
    }

    /// True if every task succeeded and is known to leave nothing behind, under one token.
    fn is_plain(&self, queue: &QueueName, settlements: &[Settlement]) -> bool {
        let Some(first) = settlements.first() else { return false };
        let is_done = |settlement: &Settlement| {
            matches!(settlement.outcome, Outcome::Done { .. })
                && !is_too_large(&settlement.outcome)
                && settlement.lease.token == first.lease.token
        };
        settlements.iter().all(is_done)
            && self.held.are_plain(queue, settlements.iter().map(|settlement| &settlement.lease.id))
    }

    fn done_call(
        &self,
        script: &'static Script,
        keys: &Keys,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: &[Settlement],
    ) -> Call {
        let mut names = vec![
            keys.session(stamp.session),
            keys.key("active"),
            keys.key("lease"),
            keys.day("processed", now),
            keys.key("processed"),
        ];
        names.extend(settlements.iter().map(|settlement| keys.task(&settlement.lease.id)));
        let mut call = Call::new(script, names);
        self.add_stamp(&mut call, queue, stamp, now);
        let token = settlements.first().map(|settlement| settlement.lease.token);
        call.text(token.map(fraction_text).unwrap_or_default()).text(counters_until(now));
        for settlement in settlements {
            call.text(settlement.lease.id.as_str());
        }
        call
    }

    fn settle_call(
        &self,
        keys: &Keys,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: &[Settlement],
    ) -> Call {
        let names = ["active", "lease", "pending", "scheduled", "retry", "archived", "completed"];
        let mut all = vec![keys.session(stamp.session)];
        all.extend(names.map(|name| keys.key(name)));
        all.extend([keys.key("groups"), keys.key("aggregation_sets")]);
        all.extend([keys.day("processed", now), keys.day("failed", now)]);
        all.extend([keys.key("processed"), keys.key("failed")]);
        let mut call = Call::new(&SETTLE, all);
        self.add_stamp(&mut call, queue, stamp, now);
        call.text(keys.prefix()).text(seconds_text(now)).text(nanos_text(now));
        let completed = TaskMessage { completed_at: now.as_seconds(), ..TaskMessage::default() };
        call.text(counters_until(now)).bytes(completed.encode());
        call.fixed(LEASE_LOST).fixed(LEASE_LOST_IN_ASYNQ);
        call.int(size(self.options.archive_max)).text(ARCHIVE_AGE.as_secs().to_string());
        call.text(settlements.len().to_string());
        let mut into: Vec<&NewTask> = Vec::new();
        for Settlement { lease, outcome } in settlements {
            call.text(lease.id.as_str()).text(fraction_text(lease.token));
            add_outcome(&mut call, outcome, now, &mut into);
        }
        for task in into {
            self.add_task(&mut call, keys, queue, task, now);
        }
        call
    }
}

/// The kind of an outcome and its three arguments, as `settle.lua` takes them.
fn add_outcome<'a>(
    call: &mut Call,
    outcome: &'a Outcome,
    now: Timestamp,
    into: &mut Vec<&'a NewTask>,
) {
    if is_too_large(outcome) {
        let why = format!("result is too large: at most {RESULT_BYTES_MAX} bytes are allowed");
        call.fixed("x").fixed("").text(why).fixed("");
        return;
    }
    match outcome {
        Outcome::Done { result } => {
            call.fixed("d").fixed(if result.is_some() { "1" } else { "" });
            call.bytes(result.clone().unwrap_or_default()).fixed("");
        }
        Outcome::Retry { at, error, attempt } => {
            let spent = if *attempt == Attempt::Spent { "1" } else { "" };
            call.fixed("r").text(seconds_text(*at)).bytes(failure(error, now)).fixed(spent);
        }
        Outcome::Snooze { until } => {
            call.fixed("s").text(seconds_text(*until)).fixed("").fixed("");
        }
        Outcome::Archive { error } => {
            call.fixed("a").fixed("").bytes(failure(error, now)).fixed("");
        }
        Outcome::Revoke => {
            call.fixed("v").fixed("").fixed("").fixed("");
        }
        Outcome::Release => {
            call.fixed("l").fixed("").fixed("").fixed("");
        }
        Outcome::Aggregated { into: task } => match task.check(now) {
            Ok(()) => {
                call.fixed("g").fixed("").text(into.len().to_string()).fixed("");
                into.push(task);
            }
            Err(error) => {
                call.fixed("x").fixed("").text(error.to_string()).fixed("");
            }
        },
        other => {
            call.fixed("x").fixed("").text(format!("outcome {other:?} is unknown here")).fixed("");
        }
    }
}

fn is_too_large(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done { result: Some(result) } if result.len() > RESULT_BYTES_MAX)
}

/// The fields of a message that a failure sets.
pub(crate) fn failure(error: &str, now: Timestamp) -> Bytes {
    let fields = TaskMessage {
        error_msg: beginning(error, ERROR_BYTES_MAX).to_owned(),
        last_failed_at: now.as_seconds(),
        ..TaskMessage::default()
    };
    fields.encode().into()
}

fn exception(verdict: Verdict) -> SettleVerdict {
    match verdict.code {
        b'A' => SettleVerdict::Adopted,
        b'L' => SettleVerdict::LeaseLost,
        _ => SettleVerdict::Rejected(Reject(verdict.word.into())),
    }
}

/// When today's counters expire (contract §3.0).
fn counters_until(now: Timestamp) -> String {
    seconds_text(now.plus(std::time::Duration::from_secs(u64::from(STATS_DAYS) * 86_400)))
}
