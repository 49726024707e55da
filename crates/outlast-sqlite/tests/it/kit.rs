//! Short words for the tests of this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::{
    Broker, Claim, ClaimedTask, Claims, Durability, EnqueueVerdict, Lease, LeaseToken, NewTask,
    Outcome, QueueName, SessionId, SettleVerdict, Settlement, Stamp, SweepBudget, Swept, TaskId,
    TaskType, Timestamp, Want,
};
use outlast_sqlite::{Options, SqliteBroker};

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).expect("a valid name")
}

pub(crate) fn token(number: u32) -> LeaseToken {
    LeaseToken::new(number).expect("a valid token")
}

pub(crate) fn task(id: &str) -> NewTask {
    let id = TaskId::new(id).expect("a valid id");
    NewTask::new(id, TaskType::new("t").expect("a valid type"), "{}".into())
}

pub(crate) fn tasks(ids: impl IntoIterator<Item = String>) -> Arc<[NewTask]> {
    ids.into_iter().map(|id| task(&id)).collect()
}

/// A session of its own for every batch: nothing is a repeat unless the test makes it one.
pub(crate) fn stamp() -> Stamp {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let number = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    let session = SessionId(number << 32 | u128::from(std::process::id()));
    Stamp { session, lane: 0, seq: 1, durability: Durability::Accepted }
}

pub(crate) fn open(path: &std::path::Path) -> SqliteBroker {
    SqliteBroker::open(path, Options::default()).expect("opens")
}

pub(crate) fn want(token_number: u32, tasks_max: usize) -> Want {
    Want {
        token: token(token_number),
        tasks_max,
        bytes_max: 1 << 20,
        lease: Duration::from_secs(30),
        groups: Arc::new([]),
    }
}

pub(crate) async fn put(broker: &SqliteBroker, q: &str, new: NewTask) -> EnqueueVerdict {
    let batch: Arc<[NewTask]> = [new].into();
    let answer = broker.enqueue(&queue(q), stamp(), NOW, batch).await.expect("enqueues");
    answer.verdicts.into_iter().next().expect("one verdict")
}

pub(crate) async fn take(broker: &SqliteBroker, q: &str, number: u32, max: usize) -> Claims {
    broker.claim(&queue(q), stamp(), NOW, &want(number, max)).await.expect("claims")
}

pub(crate) async fn take_one(broker: &SqliteBroker, q: &str, number: u32) -> ClaimedTask {
    match take(broker, q, number, 1).await.claims.pop() {
        Some(Claim::Task(task)) => *task,
        other => panic!("expected a task, got {other:?}"),
    }
}

pub(crate) async fn end(
    broker: &SqliteBroker,
    q: &str,
    lease: &Lease,
    outcome: Outcome,
) -> SettleVerdict {
    let batch: Arc<[Settlement]> = [Settlement { lease: lease.clone(), outcome }].into();
    let answer = broker.settle(&queue(q), stamp(), NOW, batch).await.expect("settles");
    answer.verdicts.into_iter().next().expect("one verdict")
}

pub(crate) async fn sweep(broker: &SqliteBroker, q: &str, now: Timestamp) -> Swept {
    let budget = SweepBudget { moves_max: 1000, recovery: Recovery::Allowed, vanished: None };
    broker.sweep(&queue(q), now, budget).await.expect("sweeps")
}

pub(crate) fn ids(claims: &Claims) -> Vec<String> {
    let id = |claim: &Claim| match claim {
        Claim::Task(task) => task.task.id.to_string(),
        Claim::Group(group) => format!("group {}", group.group),
        Claim::Corrupt { id, .. } => format!("corrupt {id}"),
    };
    claims.claims.iter().map(id).collect()
}
