//! What can be done at random. Operations name things by small numbers, so that they meet often and a
//! shrunk sequence still makes sense.

use std::sync::Arc;

use bytes::Bytes;
use outlast_core::{
    Action, Attempt, GroupName, NewTask, Outcome, Place, QueueControl, TaskId, TaskState, TaskType,
    Timestamp,
};
use proptest::prelude::*;

use crate::conformance::words::{keyed, locking, policy, secs};

/// Ids in play. With the few ids of aggregated tasks they stay below every fixture's archive limit.
const IDS: u8 = 12;

/// One step of a random sequence.
#[derive(Clone, Debug)]
pub enum Op {
    /// Offers up to three tasks.
    Enqueue(Vec<NewSeed>),
    /// One of two workers claims.
    Claim {
        /// Which worker.
        worker: usize,
        /// How many tasks at most.
        tasks_max: usize,
        /// How many payloads' worth of bytes at most; zero: no limit.
        payloads_max: usize,
    },
    /// One of two workers claims whatever there is, groups included.
    ClaimGroups {
        /// Which worker.
        worker: usize,
    },
    /// Reports outcomes under leases that were handed out at some time, still held or not.
    Settle(Vec<(usize, How)>),
    /// Holds such a lease longer, with or without progress.
    Extend {
        /// Which lease.
        lease: usize,
        /// For how many seconds.
        by: u64,
        /// Whether progress is written.
        progress: bool,
    },
    /// Sweeps, expired leases included.
    Sweep,
    /// Acts on one task.
    ActOn(u8, Action),
    /// Acts on all tasks of a state, in small steps.
    ActAll(Reach),
    /// Pauses or resumes the queue.
    Control(QueueControl),
    /// Sends an earlier batch again, the last of its lane or a ghost.
    Repeat {
        /// How many batches ago it was sent first.
        ago: usize,
    },
    /// Forgets that a number of a lane was ever used, so that its next batch leaves a gap.
    Gap {
        /// Which lane.
        lane: usize,
    },
    /// Lets time pass, or go back a little.
    Step(i64),
}

/// A task to be offered.
#[derive(Clone, Debug)]
pub struct NewSeed {
    id: u8,
    due: Option<i64>,
    retention: u64,
    unique: Option<u8>,
    once: Option<u8>,
    group: Option<u8>,
    front: bool,
    wrong: bool,
}

/// How a run ends.
#[derive(Clone, Debug)]
pub enum How {
    /// Well, with or without a result.
    Done(bool),
    /// Again after so many seconds; whether the attempt is spent.
    Retry(i64, bool),
    /// Later.
    Snooze(i64),
    /// Badly.
    Archive,
    /// Not wanted any more.
    Revoke,
    /// Given back.
    Release,
    /// Made into one task: this one of a few.
    Aggregated(u8),
}

/// Which tasks are acted on together, and what is done: only what no broker's order can show in.
#[derive(Clone, Debug)]
pub enum Reach {
    /// All that wait for a time are run.
    RunWaiting(TaskState),
    /// All of a state are archived.
    Archive(TaskState),
    /// All of a state are deleted.
    Delete(TaskState),
}

/// Random sequences.
pub fn ops() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..100)
}

fn op() -> impl Strategy<Value = Op> {
    let worker = || 0..2usize;
    prop_oneof![
        12 => proptest::collection::vec(seed(), 1..=3).prop_map(Op::Enqueue),
        12 => (worker(), 1..4usize, 0..4usize).prop_map(|(worker, tasks_max, payloads_max)| {
            Op::Claim { worker, tasks_max, payloads_max }
        }),
        5 => worker().prop_map(|worker| Op::ClaimGroups { worker }),
        14 => proptest::collection::vec((0..64usize, how()), 1..=3).prop_map(Op::Settle),
        6 => (0..64usize, 1..60u64, any::<bool>())
            .prop_map(|(lease, by, progress)| Op::Extend { lease, by, progress }),
        5 => Just(Op::Sweep),
        6 => (0..IDS, action()).prop_map(|(id, action)| Op::ActOn(id, action)),
        2 => reach().prop_map(Op::ActAll),
        1 => Just(Op::Control(QueueControl::Pause)),
        2 => Just(Op::Control(QueueControl::Resume)),
        6 => (0..8usize).prop_map(|ago| Op::Repeat { ago }),
        1 => (0..8usize).prop_map(|lane| Op::Gap { lane }),
        10 => (-3..=45i64).prop_map(Op::Step),
    ]
}

fn seed() -> impl Strategy<Value = NewSeed> {
    let rarely = |of: std::ops::Range<u8>| prop_oneof![3 => Just(None), 1 => of.prop_map(Some)];
    let due = prop_oneof![2 => Just(None), 1 => (-5..60i64).prop_map(Some)];
    let retention = prop_oneof![1 => Just(0), 1 => 1..60u64];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.05));
    (0..IDS, due, retention, rarely(0..2), rarely(0..3), rarely(0..2), flags).prop_map(
        |(id, due, retention, unique, once, group, (front, wrong))| NewSeed {
            id,
            due,
            retention,
            unique,
            once,
            group,
            front,
            wrong,
        },
    )
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![
        6 => any::<bool>().prop_map(How::Done),
        4 => (-5..60i64, any::<bool>()).prop_map(|(after, spent)| How::Retry(after, spent)),
        2 => (1..60i64).prop_map(How::Snooze),
        2 => Just(How::Archive),
        1 => Just(How::Revoke),
        2 => Just(How::Release),
        4 => (0..4u8).prop_map(How::Aggregated),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => Just(Action::Run),
        2 => Just(Action::Archive),
        2 => Just(Action::Delete),
        1 => Just(Action::Cancel),
        1 => Just(Action::SetPayload(payload(b'p'))),
    ]
}

fn reach() -> impl Strategy<Value = Reach> {
    let state = || proptest::sample::select(TaskState::ALL.to_vec());
    let waiting = proptest::sample::select(vec![TaskState::Scheduled, TaskState::Retry]);
    prop_oneof![
        waiting.prop_map(Reach::RunWaiting),
        state().prop_map(Reach::Archive),
        state().prop_map(Reach::Delete),
    ]
}

/// All payloads have one size, so that byte limits fall between tasks.
pub(super) const PAYLOAD_BYTES: usize = 10;

fn payload(byte: u8) -> Bytes {
    vec![byte; PAYLOAD_BYTES].into()
}

fn task(id: &str, byte: u8) -> NewTask {
    let task_type = TaskType::stored(if byte.is_multiple_of(2) { "even" } else { "odd" });
    NewTask::new(TaskId::stored(id), task_type, payload(byte))
}

pub(super) fn id(number: u8) -> TaskId {
    TaskId::stored(&format!("t{number:02}"))
}

impl NewSeed {
    /// The task; its lock and key live for `ttl` seconds. `nth` of its batch, so that no two are due at
    /// one moment.
    pub(super) fn task(&self, now: Timestamp, ttl: u64, nth: usize) -> NewTask {
        let mut task = task(id(self.id).as_str(), self.id);
        task.due = self.due.map(|after| {
            let later = now.plus(secs(u64::try_from(after.max(0)).unwrap_or(0) + nth as u64));
            if after < 0 { now.minus(secs(after.unsigned_abs())) } else { later }
        });
        task.retention = secs(self.retention);
        task.group = self.group.map(|n| GroupName::stored(&format!("g{n}")));
        if self.front {
            task.place = Place::Front;
        }
        if self.wrong {
            task.max_retry = u32::MAX;
        }
        if let Some(digest) = self.unique {
            task = locking(task, &format!("d{digest}"), ttl);
        }
        match self.once {
            Some(key) => keyed(task, &format!("k{key}"), ttl),
            None => task,
        }
    }
}

impl How {
    pub(super) fn outcome(&self, now: Timestamp, nth: usize) -> Outcome {
        let later = |after: i64| {
            let after = secs(after.unsigned_abs() + nth as u64);
            now.plus(after)
        };
        match self {
            How::Done(false) => Outcome::Done { result: None },
            How::Done(true) => Outcome::Done { result: Some(Bytes::from_static(b"result")) },
            How::Retry(after, spent) => Outcome::Retry {
                at: if *after < 0 { now.minus(secs(after.unsigned_abs())) } else { later(*after) },
                error: format!("e: after {after}"),
                attempt: if *spent { Attempt::Spent } else { Attempt::Kept },
            },
            How::Snooze(after) => Outcome::Snooze { until: later(*after) },
            How::Archive => Outcome::Archive { error: "e: for good".into() },
            How::Revoke => Outcome::Revoke,
            How::Release => Outcome::Release,
            How::Aggregated(n) => {
                Outcome::Aggregated { into: Box::new(task(&format!("s{n}"), b's')) }
            }
        }
    }
}

/// The policies of a claim that takes groups.
pub(super) fn policies() -> Arc<[outlast_core::GroupPolicy]> {
    let impatient = outlast_core::GroupPolicy { max_delay: Some(secs(20)), ..policy("g1", 10) };
    [policy("g0", 5), impatient].into()
}
