//! The path of a task through the verbs, as a first look; the common suite tells the details.

use std::time::Duration;

use outlast_core::{
    Broker, Durability, EnqueueVerdict, Inspect, Interest, Kind, Outcome, Selector, SettleVerdict,
    TaskState, Unique,
};
use outlast_core::{PageRequest, Rest};
use outlast_sqlite::SqliteBroker;

use crate::kit::*;

#[tokio::test]
async fn a_task_goes_from_enqueue_to_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let broker = open(&folder.path().join("tasks.db"));
    assert_eq!(
        put(&broker, "mail", task("1")).await,
        EnqueueVerdict::Accepted { level: Durability::Synced }
    );
    assert_eq!(put(&broker, "mail", task("1")).await, EnqueueVerdict::IdConflict);
    let claimed = take_one(&broker, "mail", 7).await;
    assert_eq!(claimed.task.state, TaskState::Active);
    let stats = broker.queue(&queue("mail"), NOW).await.expect("answers").expect("exists");
    assert_eq!((stats.active, stats.size()), (1, 1));
    let done = Outcome::Done { result: None };
    assert_eq!(end(&broker, "mail", &claimed.lease, done.clone()).await, SettleVerdict::Applied);
    assert_eq!(end(&broker, "mail", &claimed.lease, done).await, SettleVerdict::LeaseLost);
    let stats = broker.queue(&queue("mail"), NOW).await.expect("answers").expect("exists");
    assert_eq!((stats.size(), stats.processed_today, stats.processed_total), (0, 1, 1));
    broker.close().await;
    let error = broker.queues(NOW).await.expect_err("closed");
    assert_eq!(error.kind(), Kind::Unavailable);
}

#[tokio::test]
async fn released_tasks_come_first_and_the_rest_in_order_of_arrival() {
    let broker = SqliteBroker::memory().expect("opens");
    for id in ["1", "2", "3"] {
        put(&broker, "q", task(id)).await;
    }
    let first = take_one(&broker, "q", 1).await;
    assert_eq!(end(&broker, "q", &first.lease, Outcome::Release).await, SettleVerdict::Applied);
    let claims = take(&broker, "q", 1, 10).await;
    assert_eq!(ids(&claims), ["1", "2", "3"]);
    assert_eq!(claims.rest, Rest::Empty);
}

#[tokio::test]
async fn a_repeated_batch_is_answered_as_the_first_time() {
    let broker = SqliteBroker::memory().expect("opens");
    let (q, first) = (queue("q"), stamp());
    let batch = tasks(["a".into(), "a".into()]);
    let answer = broker.enqueue(&q, first, NOW, batch.clone()).await.expect("enqueues");
    assert_eq!(answer.verdicts[1], EnqueueVerdict::IdConflict);
    assert_eq!(broker.enqueue(&q, first, NOW, batch).await.expect("repeats"), answer);
    let second = stamp();
    let claims = broker.claim(&q, second, NOW, &want(3, 5)).await.expect("claims");
    let again = broker.claim(&q, second, NOW, &want(3, 5)).await.expect("claims");
    assert_eq!(claims, again);
}

#[tokio::test]
async fn a_lost_lease_is_no_failure_and_a_late_success_is_adopted() {
    let broker = SqliteBroker::memory().expect("opens");
    let mut new = task("1");
    new.unique = Some(Unique { digest: "d".into(), ttl: Duration::from_secs(60) });
    put(&broker, "q", new).await;
    let claimed = take_one(&broker, "q", 9).await;
    let later = NOW.plus(Duration::from_secs(31));
    let swept = sweep(&broker, "q", later).await;
    assert_eq!(swept.recovered, 1);
    assert_eq!(swept.next_due, Some(later.plus(Duration::from_secs(1))));
    let task = broker.task(&queue("q"), &claimed.task.id, later).await.expect("answers");
    let task = task.expect("is stored");
    assert_eq!((task.state, task.retried, task.losses), (TaskState::Retry, 0, 1));
    let done = Outcome::Done { result: None };
    assert_eq!(end(&broker, "q", &claimed.lease, done).await, SettleVerdict::Adopted);
    let select = Selector::state(TaskState::Retry);
    let page = broker.tasks(&queue("q"), &select, &PageRequest::first(10), later).await;
    assert!(page.expect("answers").items.is_empty());
}

#[tokio::test]
async fn a_waiter_wakes_for_a_task_and_not_for_a_paused_queue() {
    let broker = SqliteBroker::memory().expect("opens");
    let interest = Interest { queues: vec![queue("q")], token: None };
    let (woke, _) = tokio::join!(
        broker.wait(&interest, NOW, Duration::from_secs(60)),
        put(&broker, "q", task("1"))
    );
    assert_eq!(woke.expect("wakes").queues, [queue("q")]);
    use outlast_core::QueueControl;
    broker.control(&queue("q"), QueueControl::Pause, NOW).await.expect("pauses");
    let woke = broker.wait(&interest, NOW, Duration::from_millis(20)).await.expect("ends");
    assert!(woke.queues.is_empty());
}
