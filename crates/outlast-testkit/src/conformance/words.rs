//! The words in which cases are written: small builders for times, tasks and outcomes.

use std::time::Duration;

use bytes::Bytes;
use outlast_core::broker::Recovery;
use outlast_core::inspect::{PriorityName, WorkerStatus};
use outlast_core::{
    Attempt, Beat, Claim, ClaimedTask, Claims, Durability, EnqueueVerdict, GroupName, GroupPolicy,
    LeaseToken, NewTask, Once, Outcome, Place, QueueName, SessionId, Stamp, SweepBudget, TaskId,
    TaskType, Timestamp, Unique, WorkerBeat, WorkerView,
};

/// How long a lease of [`Case::want`](super::Case::want) holds, in seconds.
pub const LEASE: i64 = 30;

/// The moment `seconds` after the suite's noon, 2026-11-24T12:00:00Z.
#[must_use]
pub fn t(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(1_795_521_600 + seconds)
}

/// That many seconds.
#[must_use]
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A task id.
#[must_use]
pub fn id(text: &str) -> TaskId {
    TaskId::new(text).expect("cases use valid ids")
}

/// A task of type `t` whose payload is its id.
#[must_use]
pub fn task(name: &str) -> NewTask {
    let task_type = TaskType::new("t").expect("a valid type");
    NewTask::new(id(name), task_type, Bytes::copy_from_slice(name.as_bytes()))
}

/// Tasks with these ids.
#[must_use]
pub fn tasks(names: &[&str]) -> Vec<NewTask> {
    names.iter().map(|name| task(name)).collect()
}

/// The task with something about it changed.
#[must_use]
pub fn with(mut task: NewTask, change: impl FnOnce(&mut NewTask)) -> NewTask {
    change(&mut task);
    task
}

/// The task, not before `at`.
#[must_use]
pub fn due(name: &str, at: Timestamp) -> NewTask {
    with(task(name), |task| task.due = Some(at))
}

/// A task in a group.
#[must_use]
pub fn grouped(name: &str, group: &str) -> NewTask {
    with(task(name), |task| task.group = Some(GroupName::new(group).expect("a valid group")))
}

/// A task that is kept for so many seconds after its success.
#[must_use]
pub fn kept(name: &str, retention: u64) -> NewTask {
    with(task(name), |task| task.retention = secs(retention))
}

/// A task that locks `digest` for so many seconds.
#[must_use]
pub fn unique(name: &str, digest: &str, ttl: u64) -> NewTask {
    locking(task(name), digest, ttl)
}

/// The task, but it locks `digest` for so many seconds.
#[must_use]
pub fn locking(mut task: NewTask, digest: &str, ttl: u64) -> NewTask {
    task.unique = Some(Unique { digest: digest.into(), ttl: secs(ttl) });
    task
}

/// A task that uses a `once` key, remembered for so many seconds.
#[must_use]
pub fn once(name: &str, key: &str, ttl: u64) -> NewTask {
    keyed(task(name), key, ttl)
}

/// The task, but it uses a `once` key, remembered for so many seconds.
#[must_use]
pub fn keyed(mut task: NewTask, key: &str, ttl: u64) -> NewTask {
    task.once = Some(Once { key: key.into(), ttl: secs(ttl) });
    task
}

/// A task that starts before all others.
#[must_use]
pub fn front(name: &str) -> NewTask {
    with(task(name), |task| task.place = Place::Front)
}

/// A stamp, spelled out.
#[must_use]
pub fn stamp(session: u128, lane: u16, seq: u64) -> Stamp {
    Stamp { session: SessionId(session), lane, seq, durability: Durability::Accepted }
}

/// Success without a result.
#[must_use]
pub fn done() -> Outcome {
    Outcome::Done { result: None }
}

/// Success with a result.
#[must_use]
pub fn done_with(result: &'static str) -> Outcome {
    Outcome::Done { result: Some(Bytes::from_static(result.as_bytes())) }
}

/// A failure that counts, to be repeated at `at`.
#[must_use]
pub fn retry(at: Timestamp) -> Outcome {
    Outcome::Retry { at, error: "it broke".into(), attempt: Attempt::Spent }
}

/// A failure for good.
#[must_use]
pub fn archive() -> Outcome {
    Outcome::Archive { error: "it broke for good".into() }
}

/// A policy for one group or a prefix; ready after so many calm seconds.
#[must_use]
pub fn policy(pattern: &str, grace: u64) -> GroupPolicy {
    GroupPolicy { pattern: pattern.into(), grace: secs(grace), max_delay: None, max_size: None }
}

/// A worker as its beats describe it.
#[must_use]
pub fn worker(name: &str) -> WorkerView {
    WorkerView {
        id: name.into(),
        host: "host".into(),
        pid: std::process::id(),
        started_at: t(0),
        status: WorkerStatus::Running,
        slots: 10,
        queues: vec![(QueueName::default_queue(), 1)],
        priority: PriorityName::Weighted,
        active: 0,
        running: Vec::new(),
    }
}

/// A worker's beat that holds for so many seconds.
#[must_use]
pub fn beat(view: WorkerView, token: Option<LeaseToken>, ttl: u64) -> Beat {
    let worker = Some(WorkerBeat { view, token, seen: 0 });
    Beat { worker, ttl: secs(ttl), ..Beat::default() }
}

/// A sweep of up to so many moves per kind of work, expired leases included.
#[must_use]
pub fn budget(moves_max: usize) -> SweepBudget {
    SweepBudget { moves_max, recovery: Recovery::Allowed, vanished: None }
}

/// A queue name.
#[must_use]
pub fn queue(name: &str) -> QueueName {
    QueueName::new(name).expect("cases use valid queue names")
}

/// True if the task was stored, however durably.
#[must_use]
pub fn is_accepted(verdict: &EnqueueVerdict) -> bool {
    matches!(verdict, EnqueueVerdict::Accepted { .. })
}

/// The tasks of a claim that took nothing else.
#[must_use]
pub fn tasks_of(claims: Claims) -> Vec<ClaimedTask> {
    let task = |claim| match claim {
        Claim::Task(task) => *task,
        other => panic!("a task was expected, not {other:?}"),
    };
    claims.claims.into_iter().map(task).collect()
}

/// The ids of claimed tasks, in order.
#[must_use]
pub fn ids_of(claimed: &[ClaimedTask]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.task.id.as_str()).collect()
}

/// The ids of a set's members, in order.
#[must_use]
pub fn ids_of_group(group: &outlast_core::ClaimedGroup) -> Vec<&str> {
    group.tasks.iter().map(|task| task.id.as_str()).collect()
}
