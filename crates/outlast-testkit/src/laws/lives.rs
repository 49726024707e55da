//! The life of every task, as the events tell it, and what must not happen in it.

use std::collections::{BTreeMap, BTreeSet};

use outlast_core::state::{Event as Change, Next, next};
use outlast_core::{
    Action, Claim, EnqueueVerdict, Extended, Hold, Lease, LeaseToken, NewTask, Outcome, QueueName,
    SettleVerdict, Settlement, Stamp, Swept, TaskId, TaskState, Timestamp,
};

use super::{Event, Violation};

type Key = (QueueName, TaskId);

/// What one task has come to.
#[derive(Clone, Debug, Default)]
struct Life {
    /// Who held it last, and until when; nobody, once a settlement has given it up.
    holder: Option<(LeaseToken, Timestamp)>,
    end: End,
}

/// Whether and how a life is over.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum End {
    #[default]
    Open,
    /// Put away; a sweep may delete it when its time is over.
    PutAway,
    /// Finished well or dropped; kept or not.
    Finished,
    /// Deleted by hand or made part of another task.
    Deleted,
}

#[derive(Default)]
pub(super) struct Lives {
    lives: BTreeMap<Key, Life>,
    /// Members of claimed aggregation sets.
    sets: BTreeMap<Key, Vec<TaskId>>,
    /// The verdicts each stamp got, as text.
    answers: BTreeMap<(QueueName, u128, u16, u64), String>,
    /// Sweeps that took leases back, latest moment per queue.
    recovered: BTreeMap<QueueName, Timestamp>,
    /// Tasks that sweeps have deleted, and those that they have archived before.
    expired: u64,
    given_up: u64,
    violations: Vec<Violation>,
}

impl Lives {
    pub(super) fn live(&mut self, queue: &QueueName, event: &Event) {
        match event {
            Event::Enqueue { stamp, tasks, verdicts } => {
                if self.is_first(queue, stamp, &format!("{verdicts:?}")) {
                    for (task, verdict) in tasks.iter().zip(verdicts) {
                        self.offered(queue, task, verdict);
                    }
                }
            }
            // One that found nothing leaves its number to the next.
            Event::Claim { claims, .. } if claims.is_empty() => {}
            // A repeated claim hands out less and less, so its answers are not compared.
            Event::Claim { stamp, claims } => {
                if self.is_first(queue, stamp, "claimed") {
                    for claim in claims {
                        self.claimed(queue, claim);
                    }
                }
            }
            Event::Settle { stamp, settlements, verdicts, moves } => {
                if self.is_first(queue, stamp, &format!("{verdicts:?}")) {
                    for (n, (settlement, verdict)) in settlements.iter().zip(verdicts).enumerate() {
                        self.settled(queue, settlement, verdict);
                        self.moved(settlement, verdict, moves.get(n));
                    }
                }
            }
            Event::Extend { holds, extended } => {
                for (hold, extended) in holds.iter().zip(extended) {
                    self.extended(queue, hold, *extended);
                }
            }
            Event::Sweep { now, swept } => self.swept(queue, *now, swept),
            Event::ByHand { id, action } => self.by_hand(queue, id, action),
        }
    }

    fn swept(&mut self, queue: &QueueName, now: Timestamp, swept: &Swept) {
        self.expired += swept.deleted as u64;
        self.given_up += swept.given_up as u64;
        if swept.recovered + swept.reclaimed > 0 {
            let latest = self.recovered.entry(queue.clone()).or_insert(now);
            *latest = (*latest).max(now);
        }
    }

    /// L1, once everything has happened.
    pub(super) fn end(mut self, left: &BTreeMap<QueueName, BTreeSet<TaskId>>) -> Vec<Violation> {
        let is_left = |(queue, id): &Key| left.get(queue).is_some_and(|left| left.contains(id));
        let missing = |end| {
            let of_end = self.lives.iter().filter(move |(_, life)| life.end == end);
            of_end.map(|(key, _)| key).filter(|key| !is_left(key)).cloned().collect::<Vec<_>>()
        };
        let (open, put_away) = (missing(End::Open), missing(End::PutAway));
        // Whose task was given up is not said, so as many may be missing.
        if open.len() as u64 > self.given_up {
            for (queue, id) in &open {
                let what = format!("task {id} in {queue} was accepted and is nowhere");
                self.broken("L1", what);
            }
        }
        let gone = (open.len() + put_away.len()) as u64;
        if gone > self.expired && !put_away.is_empty() {
            let expired = self.expired;
            self.broken("L1", format!("{gone} archived tasks are gone, {expired} were deleted"));
        }
        self.violations
    }

    fn broken(&mut self, law: &'static str, what: String) {
        self.violations.push(Violation { law, what });
    }

    /// True for a stamp that was not seen before; the answer of one that was must be the same.
    fn is_first(&mut self, queue: &QueueName, stamp: &Stamp, answer: &str) -> bool {
        let key = (queue.clone(), stamp.session.0, stamp.lane, stamp.seq);
        match self.answers.get(&key) {
            None => {
                self.answers.insert(key, answer.to_owned());
                true
            }
            Some(first) if first == answer => false,
            Some(first) => {
                let what = format!("{stamp:?} was answered {first} and then {answer}");
                self.broken("L3", what);
                false
            }
        }
    }

    fn offered(&mut self, queue: &QueueName, task: &NewTask, verdict: &EnqueueVerdict) {
        if let EnqueueVerdict::Accepted { .. } = verdict {
            self.lives.insert((queue.clone(), task.id.clone()), Life::default());
        }
    }

    fn claimed(&mut self, queue: &QueueName, claim: &Claim) {
        match claim {
            Claim::Task(claimed) => self.taken(queue, &claimed.task.id, &claimed.lease),
            Claim::Group(group) => {
                let members: Vec<_> = group.tasks.iter().map(|task| task.id.clone()).collect();
                for id in &members {
                    self.taken(queue, id, &group.lease);
                }
                self.sets.insert((queue.clone(), group.lease.id.clone()), members);
            }
            Claim::Corrupt { id, .. } => {
                let life = self.lives.entry((queue.clone(), id.clone())).or_default();
                life.end = End::PutAway;
            }
        }
    }

    fn taken(&mut self, queue: &QueueName, id: &TaskId, lease: &Lease) {
        let recovered = self.recovered.get(queue).copied();
        let life = self.lives.entry((queue.clone(), id.clone())).or_default();
        let held = life.holder.filter(|(_, until)| recovered.is_none_or(|at| at < *until));
        let end = life.end;
        *life = Life { holder: Some((lease.token, lease.until)), end: End::Open };
        if let Some((token, until)) = held {
            let what = format!("task {id} was claimed while {token:?} held it until {until}");
            self.broken("L3", what);
        }
        match end {
            End::Open => {}
            End::PutAway => {
                self.broken("L5", format!("task {id} was archived, and claimed without being run"));
            }
            End::Finished | End::Deleted => {
                self.broken("L2", format!("task {id} was over ({end:?}) and claimed again"));
            }
        }
    }

    fn settled(&mut self, queue: &QueueName, settlement: &Settlement, verdict: &SettleVerdict) {
        let Settlement { lease, outcome } = settlement;
        let adopted = match verdict {
            SettleVerdict::Applied => false,
            SettleVerdict::Adopted => true,
            SettleVerdict::Journaled | SettleVerdict::LeaseLost | SettleVerdict::Rejected(_) => {
                return;
            }
        };
        let set = self.sets.remove(&(queue.clone(), lease.id.clone()));
        let settled = set.unwrap_or_else(|| vec![lease.id.clone()]);
        for id in settled {
            let key = (queue.clone(), id.clone());
            let life = self.lives.entry(key).or_default();
            let holder = life.holder.take().map(|(token, _)| token);
            life.end = end_of(outcome, life.end);
            if holder != Some(lease.token) {
                let who = lease.token;
                let what = format!("{who:?} settled task {id}, which {holder:?} held");
                self.broken("L3", what);
            }
        }
        if adopted && !matches!(outcome, Outcome::Done { .. }) {
            self.broken("L3", format!("{outcome:?} of task {} was adopted", lease.id));
        }
        if let Outcome::Aggregated { into } = outcome {
            self.lives.insert((queue.clone(), into.id.clone()), Life::default());
        }
    }

    /// L5, where somebody looked. Two settlements of one task in a batch are seen as one move, so what
    /// was not applied is not looked at.
    fn moved(
        &mut self,
        settlement: &Settlement,
        verdict: &SettleVerdict,
        moves: Option<&(Option<TaskState>, Option<TaskState>)>,
    ) {
        let Some((Some(before), after)) = moves else { return };
        let from = match verdict {
            SettleVerdict::Applied => &[TaskState::Active][..],
            SettleVerdict::Adopted => &[TaskState::Retry, TaskState::Archived],
            SettleVerdict::Journaled | SettleVerdict::LeaseLost | SettleVerdict::Rejected(_) => {
                return;
            }
        };
        // Whether a success is kept shows only in what became of it.
        let as_told =
            changes(&settlement.outcome).iter().any(|change| match next(*before, *change) {
                Next::State(state) => *after == Some(state),
                Next::Gone => after.is_none(),
                Next::Refused => false,
            });
        if !as_told || !from.contains(before) {
            let Settlement { lease, outcome } = settlement;
            let what = format!("{outcome:?} moved task {} from {before} to {after:?}", lease.id);
            self.broken("L5", what);
        }
    }

    fn extended(&mut self, queue: &QueueName, hold: &Hold, extended: Extended) {
        let Extended::Until(until) = extended else { return };
        let Lease { id, token, .. } = &hold.lease;
        let members = self.sets.get(&(queue.clone(), id.clone())).cloned();
        for id in members.unwrap_or_else(|| vec![id.clone()]) {
            let life = self.lives.entry((queue.clone(), id.clone())).or_default();
            match &mut life.holder {
                Some((holder, lease)) if holder == token => *lease = until,
                other => {
                    let what = format!("{token:?} extended task {id}, which {other:?} held");
                    self.broken("L3", what);
                }
            }
        }
    }

    fn by_hand(&mut self, queue: &QueueName, id: &TaskId, action: &Action) {
        let life = self.lives.entry((queue.clone(), id.clone())).or_default();
        match action {
            Action::Delete => {
                life.end = End::Deleted;
                life.holder = None;
            }
            Action::Archive => life.end = End::PutAway,
            Action::Run => *life = Life::default(),
            _ => {}
        }
    }
}

/// What an outcome makes of a life that is at `end`.
fn end_of(outcome: &Outcome, end: End) -> End {
    match outcome {
        Outcome::Done { .. } | Outcome::Revoke => End::Finished,
        Outcome::Archive { .. } => End::PutAway,
        Outcome::Aggregated { .. } => End::Deleted,
        _ => end,
    }
}

/// The changes that an outcome may be, for a task.
fn changes(outcome: &Outcome) -> &'static [Change] {
    match outcome {
        Outcome::Done { .. } => &[Change::Done, Change::DoneKept],
        Outcome::Retry { .. } => &[Change::Retry],
        Outcome::Snooze { .. } => &[Change::Snooze],
        Outcome::Archive { .. } => &[Change::Fail],
        Outcome::Revoke => &[Change::Revoke],
        Outcome::Release => &[Change::Release],
        _ => &[],
    }
}
