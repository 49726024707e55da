//! Recording how runs ended: each outcome, the fence before it, and what is counted.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use bytes::Bytes;
use outlast_core::limits::{ERROR_BYTES_MAX, RESULT_BYTES_MAX};
use outlast_core::{Attempt, Lease, Outcome, SettleVerdict, TaskState};

use super::case::Case;
use super::words::{archive, done, done_with, ids_of, kept, retry, t, task, tasks};

/// Runs ended and failed, ever.
async fn counted(c: &Case) -> (u64, u64) {
    let stats = c.stats(t(0)).await;
    (stats.processed_total, stats.failed_total)
}

pub async fn done_without_retention_deletes_the_task(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, done_with("forty-two")).await;
    assert_eq!(c.find("a", t(1)).await, None);
    assert_eq!(c.stats(t(1)).await.size(), 0);
    assert_eq!(counted(c).await, (1, 0));
}

pub async fn done_with_retention_keeps_the_task_and_its_result(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.finish(t(7), &claimed, done_with("forty-two")).await;
    let task = c.record("a", t(7)).await;
    assert_eq!((task.state, task.completed_at), (TaskState::Completed, Some(t(7))));
    assert_eq!(task.result.as_deref(), Some(&b"forty-two"[..]));
    assert_eq!((task.next_at, task.lease_until, task.started_at), (None, None, None));
    assert_eq!(counted(c).await, (1, 0));
}

pub async fn a_result_of_any_bytes_comes_back_unchanged(c: &Case) {
    let bytes: Bytes = (0..=255).cycle().take(1000).collect::<Vec<u8>>().into();
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.finish(t(1), &claimed, Outcome::Done { result: Some(bytes.clone()) }).await;
    assert_eq!(c.record("a", t(1)).await.result, Some(bytes));
}

pub async fn an_empty_result_is_not_no_result(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.finish(t(1), &claimed, done_with("")).await;
    assert_eq!(c.record("a", t(1)).await.result, Some(Bytes::new()));
    let claimed = c.running(t(2), kept("b", 100)).await;
    c.finish(t(3), &claimed, done()).await;
    assert_eq!(c.record("b", t(3)).await.result, None);
}

pub async fn a_result_over_the_limit_is_rejected_and_the_lease_stays(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    let result = Some(Bytes::from(vec![0; RESULT_BYTES_MAX + 1]));
    let verdict = c.settle(t(1), &claimed.lease, Outcome::Done { result }).await;
    assert!(matches!(verdict, SettleVerdict::Rejected(_)), "{verdict:?}");
    assert_eq!(c.state("a").await, Some(TaskState::Active));
    c.finish(t(2), &claimed, done()).await;
}

pub async fn a_retry_waits_for_its_time_and_counts_as_a_failure(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(5), &claimed, retry(t(60))).await;
    let task = c.record("a", t(5)).await;
    assert_eq!((task.state, task.next_at), (TaskState::Retry, Some(t(60))));
    assert_eq!((task.retried, task.losses), (1, 0));
    assert_eq!(task.last_error.as_deref(), Some("it broke"));
    assert_eq!((task.last_failed_at, task.lease_until), (Some(t(5)), None));
    assert_eq!(counted(c).await, (1, 1));
}

pub async fn a_retry_whose_attempt_is_kept_counts_nothing_and_keeps_its_error(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let error = "not my fault".to_owned();
    let outcome = Outcome::Retry { at: t(60), error, attempt: Attempt::Kept };
    c.finish(t(5), &claimed, outcome).await;
    let task = c.record("a", t(5)).await;
    assert_eq!((task.state, task.retried), (TaskState::Retry, 0));
    assert_eq!(task.last_error.as_deref(), Some("not my fault"));
    assert_eq!(task.last_failed_at, Some(t(5)));
    assert_eq!(counted(c).await, (0, 0));
}

pub async fn a_broker_retries_as_often_as_it_is_told(c: &Case) {
    c.accept(t(0), [super::words::with(task("a"), |task| task.max_retry = 1)]).await;
    for n in 0..3 {
        let claimed = c.claim_one(t(n * 10)).await;
        assert_eq!(i64::from(claimed.task.retried), n, "whoever reports outcomes minds max_retry");
        c.finish(t(n * 10), &claimed, retry(t(n * 10 + 1))).await;
    }
}

pub async fn a_later_error_replaces_an_earlier_one(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, retry(t(2))).await;
    let claimed = c.claim_one(t(2)).await;
    assert_eq!(claimed.task.last_error.as_deref(), Some("it broke"), "a handler can see it");
    c.finish(t(3), &claimed, archive()).await;
    let task = c.record("a", t(3)).await;
    assert_eq!(task.last_error.as_deref(), Some("it broke for good"));
    assert_eq!(task.last_failed_at, Some(t(3)));
}

pub async fn a_long_error_is_cut_at_its_limit_between_characters(c: &Case) {
    let error = format!("{}ééé", "x".repeat(ERROR_BYTES_MAX - 1));
    let claimed = c.running(t(0), task("a")).await;
    let outcome = Outcome::Retry { at: t(2), error: error.clone(), attempt: Attempt::Spent };
    c.finish(t(1), &claimed, outcome).await;
    let kept = c.record("a", t(1)).await.last_error.expect("an error");
    assert_eq!(kept.len(), ERROR_BYTES_MAX - 1, "é has two bytes, and half of it is no text");
    let claimed = c.claim_one(t(2)).await;
    c.finish(t(3), &claimed, Outcome::Archive { error }).await;
    assert_eq!(c.record("a", t(3)).await.last_error, Some(kept));
}

pub async fn a_snoozed_task_is_scheduled_and_nothing_is_counted(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(5), &claimed, Outcome::Snooze { until: t(90) }).await;
    let task = c.record("a", t(5)).await;
    assert_eq!((task.state, task.next_at), (TaskState::Scheduled, Some(t(90))));
    assert_eq!((task.retried, task.last_error), (0, None));
    assert_eq!(counted(c).await, (0, 0));
    assert_eq!(ids_of(&c.claim(t(90), 1).await), ["a"]);
}

pub async fn an_archived_task_keeps_its_error_and_its_retries(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, retry(t(2))).await;
    let claimed = c.claim_one(t(2)).await;
    c.finish(t(3), &claimed, archive()).await;
    let task = c.record("a", t(3)).await;
    assert_eq!((task.state, task.retried), (TaskState::Archived, 1));
    assert_eq!(task.last_error.as_deref(), Some("it broke for good"));
    assert_eq!((task.next_at, task.lease_until), (None, None));
    assert_eq!(counted(c).await, (2, 2));
}

pub async fn a_revoked_task_is_deleted_and_counts_as_processed(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.finish(t(1), &claimed, Outcome::Revoke).await;
    assert_eq!(c.find("a", t(1)).await, None, "even if it would have been kept");
    assert_eq!(counted(c).await, (1, 0));
}

pub async fn a_released_task_is_next_and_nothing_is_counted(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    let claimed = c.claim_one(t(1)).await;
    c.finish(t(2), &claimed, Outcome::Release).await;
    let task = c.record("a", t(2)).await;
    assert_eq!((task.state, task.retried, task.losses), (TaskState::Pending, 0, 0));
    assert_eq!((task.started_at, task.lease_until, task.last_error), (None, None, None));
    assert_eq!(counted(c).await, (0, 0));
    assert_eq!(ids_of(&c.claim(t(3), 2).await), ["a", "b"]);
}

pub async fn a_foreign_token_settles_nothing(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let foreign = Lease { token: c.other_token().await, ..claimed.lease.clone() };
    let outcomes = [done(), retry(t(9)), archive(), Outcome::Revoke, Outcome::Release];
    for outcome in outcomes {
        assert_eq!(c.settle(t(1), &foreign, outcome).await, SettleVerdict::LeaseLost);
    }
    assert_eq!(c.record("a", t(1)).await, c.record("a", t(0)).await);
    assert_eq!(counted(c).await, (0, 0));
    c.finish(t(2), &claimed, done()).await;
}

pub async fn a_lease_counts_by_its_token_and_not_by_its_end(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let stale = Lease { until: t(-500), ..claimed.lease };
    assert_eq!(c.settle(t(1), &stale, done()).await, SettleVerdict::Applied);
}

pub async fn a_task_is_settled_once(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    let twice = [(&claimed.lease, done_with("first")), (&claimed.lease, done_with("second"))];
    let verdicts = c.settle_all(t(1), twice).await;
    assert_eq!(verdicts, [SettleVerdict::Applied, SettleVerdict::LeaseLost]);
    assert_eq!(c.settle(t(2), &claimed.lease, archive()).await, SettleVerdict::LeaseLost);
    assert_eq!(c.record("a", t(2)).await.result.as_deref(), Some(&b"first"[..]));
    assert_eq!(counted(c).await, (1, 0));
}

pub async fn a_task_that_is_gone_settles_as_lost(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, done()).await;
    assert_eq!(c.settle(t(2), &claimed.lease, done()).await, SettleVerdict::LeaseLost);
}

pub async fn a_task_that_waits_cannot_be_settled(c: &Case) {
    let token = c.token().await;
    c.accept(t(0), [task("a"), super::words::due("b", t(50))]).await;
    for name in ["a", "b"] {
        let lease = Lease { id: super::words::id(name), token, until: t(30) };
        assert_eq!(c.settle(t(1), &lease, done()).await, SettleVerdict::LeaseLost);
    }
    assert_eq!(c.stats(t(1)).await.unfinished(), 2);
}

pub async fn a_batch_of_settlements_is_answered_item_by_item_in_order(c: &Case) {
    c.accept(t(0), [kept("a", 100), task("b"), task("c"), task("d")]).await;
    let claimed = c.claim(t(1), 4).await;
    let gone = Lease { id: super::words::id("nowhere"), ..claimed[0].lease.clone() };
    let batch = [
        (&claimed[1].lease, retry(t(60))),
        (&gone, done()),
        (&claimed[0].lease, done()),
        (&claimed[3].lease, archive()),
    ];
    let verdicts = c.settle_all(t(2), batch).await;
    use SettleVerdict::{Applied, LeaseLost};
    assert_eq!(verdicts, [Applied, LeaseLost, Applied, Applied]);
    let states = [c.state("a").await, c.state("b").await, c.state("c").await, c.state("d").await];
    use TaskState::{Active, Archived, Completed, Retry};
    assert_eq!(states, [Completed, Retry, Active, Archived].map(Some));
    assert_eq!(counted(c).await, (3, 2));
}

pub async fn an_empty_batch_of_settlements_is_answered(c: &Case) {
    assert!(c.settle_all(t(0), []).await.is_empty());
}

pub async fn a_task_cannot_be_aggregated_alone(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let outcome = Outcome::Aggregated { into: Box::new(task("into")) };
    let verdict = c.settle(t(1), &claimed.lease, outcome).await;
    assert!(matches!(verdict, SettleVerdict::Rejected(_)), "{verdict:?}");
    assert_eq!(c.state("a").await, Some(TaskState::Active));
    assert_eq!(c.find("into", t(1)).await, None);
}
