//! Leases: holding them longer, losing them, and what a late report is worth.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use outlast_core::limits::LOSSES_MAX;
use outlast_core::{Action, Extended, Hold, Lease, Outcome, SettleVerdict, TaskState};

use super::case::Case;
use super::words::{LEASE, archive, done, done_with, kept, retry, secs, t, task, tasks, with};

async fn extend(
    c: &Case,
    at: i64,
    holds: &[(&Lease, Option<&'static str>)],
    by: Duration,
) -> Vec<Extended> {
    let hold = |(lease, result): &(&Lease, Option<&'static str>)| Hold {
        lease: (*lease).clone(),
        result: result.map(|text| Bytes::from_static(text.as_bytes())),
    };
    let holds: Arc<[Hold]> = holds.iter().map(hold).collect();
    c.broker.extend(&c.queue, t(at), holds, by).await.expect("answered")
}

pub async fn a_lease_is_held_longer_counted_from_now(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let held = extend(c, 20, &[(&claimed.lease, None)], secs(60)).await;
    assert_eq!(held, [Extended::Until(t(80))]);
    assert_eq!(c.record("a", t(20)).await.lease_until, Some(t(80)));
    assert_eq!(c.sweep(t(79)).await.recovered, 0);
    assert_eq!(c.sweep(t(80)).await.recovered, 1);
}

pub async fn extending_again_at_the_same_moment_changes_nothing(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    for _ in 0..2 {
        let held = extend(c, 20, &[(&claimed.lease, Some("half"))], secs(60)).await;
        assert_eq!(held, [Extended::Until(t(80))]);
    }
    assert_eq!(c.record("a", t(20)).await.result.as_deref(), Some(&b"half"[..]));
}

pub async fn holds_are_answered_one_by_one_in_order(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c"])).await;
    let claimed = c.claim(t(0), 3).await;
    c.finish(t(1), &claimed[1], done()).await;
    let foreign = Lease { token: c.other_token().await, ..claimed[2].lease.clone() };
    let holds = [(&claimed[1].lease, None), (&claimed[0].lease, None), (&foreign, None)];
    let held = extend(c, 10, &holds, secs(60)).await;
    assert_eq!(held, [Extended::Lost, Extended::Until(t(70)), Extended::Lost]);
    assert_eq!(
        c.record("c", t(10)).await.lease_until,
        Some(t(LEASE)),
        "a foreign hold holds nothing"
    );
}

pub async fn an_empty_list_of_holds_is_answered(c: &Case) {
    assert!(extend(c, 0, &[], secs(60)).await.is_empty());
}

pub async fn a_lease_that_ran_out_can_be_held_until_somebody_takes_it_back(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let held = extend(c, LEASE + 10, &[(&claimed.lease, None)], secs(60)).await;
    assert_eq!(held, [Extended::Until(t(LEASE + 70))]);
    assert_eq!(c.sweep(t(LEASE + 11)).await.recovered, 0);
}

pub async fn a_lease_that_ran_out_settles_until_somebody_takes_it_back(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.finish(t(500), &claimed, done()).await;
    assert_eq!(c.state("a").await, Some(TaskState::Completed));
}

pub async fn a_lease_that_was_taken_back_cannot_be_held(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.sweep(t(LEASE)).await;
    let held = extend(c, LEASE + 1, &[(&claimed.lease, Some("late"))], secs(60)).await;
    assert_eq!(held, [Extended::Lost]);
    assert_eq!(c.record("a", t(LEASE + 1)).await.result, None, "nor is its progress stored");
}

pub async fn progress_is_stored_and_shown_while_the_task_runs(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    extend(c, 5, &[(&claimed.lease, Some("one third"))], secs(60)).await;
    assert_eq!(c.record("a", t(5)).await.result.as_deref(), Some(&b"one third"[..]));
    extend(c, 6, &[(&claimed.lease, None)], secs(60)).await;
    assert_eq!(c.record("a", t(6)).await.result.as_deref(), Some(&b"one third"[..]));
    extend(c, 7, &[(&claimed.lease, Some(""))], secs(60)).await;
    assert_eq!(c.record("a", t(7)).await.result.as_deref(), Some(&b""[..]));
}

pub async fn done_without_a_result_keeps_the_progress(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    extend(c, 5, &[(&claimed.lease, Some("all of it"))], secs(60)).await;
    c.finish(t(6), &claimed, done()).await;
    assert_eq!(c.record("a", t(6)).await.result.as_deref(), Some(&b"all of it"[..]));
}

pub async fn a_result_replaces_the_progress(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    extend(c, 5, &[(&claimed.lease, Some("half of it"))], secs(60)).await;
    c.finish(t(6), &claimed, done_with("result")).await;
    assert_eq!(c.record("a", t(6)).await.result.as_deref(), Some(&b"result"[..]));
}

pub async fn progress_outlives_a_retry(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    extend(c, 5, &[(&claimed.lease, Some("page 7"))], secs(60)).await;
    c.finish(t(6), &claimed, retry(t(10))).await;
    let again = c.claim_one(t(10)).await;
    assert_eq!(again.task.result.as_deref(), Some(&b"page 7"[..]), "the next run can go on");
}

pub async fn a_lost_lease_is_not_an_attempt(c: &Case) {
    c.running(t(0), task("a")).await;
    let swept = c.sweep(t(LEASE)).await;
    assert_eq!((swept.recovered, swept.given_up), (1, 0));
    let task = c.record("a", t(LEASE)).await;
    assert_eq!((task.state, task.retried, task.losses), (TaskState::Retry, 0, 1));
    assert!(task.last_error.is_some(), "people are told why");
    assert_eq!((task.lease_until, task.started_at), (None, None));
    let stats = c.stats(t(LEASE)).await;
    assert_eq!((stats.processed_total, stats.failed_total), (0, 0));
}

pub async fn a_lost_task_runs_again_soon_and_later_after_every_loss(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let mut now = 0;
    for delay in [1, 2, 3, 4, 5, 5] {
        c.claim_one(t(now)).await;
        now += LEASE;
        c.sweep(t(now)).await;
        assert_eq!(c.record("a", t(now)).await.next_at, Some(t(now + delay)));
        now += delay;
    }
}

pub async fn a_task_that_loses_too_many_leases_is_archived(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    for n in 1..LOSSES_MAX {
        c.claim_one(t(i64::from(n) * 100)).await;
        assert_eq!(c.sweep(t(i64::from(n) * 100 + LEASE)).await.given_up, 0, "loss {n}");
    }
    c.claim_one(t(9000)).await;
    let swept = c.sweep(t(9000 + LEASE)).await;
    assert_eq!((swept.recovered, swept.given_up), (1, 1));
    let task = c.record("a", t(9100)).await;
    assert_eq!((task.state, task.losses, task.retried), (TaskState::Archived, LOSSES_MAX, 0));
    assert_eq!(c.stats(t(9100)).await.failed_total, 0, "no run of it failed");
}

pub async fn losses_are_not_forgotten_when_a_run_fails(c: &Case) {
    c.running(t(0), task("a")).await;
    c.sweep(t(LEASE)).await;
    let claimed = c.claim_one(t(LEASE + 5)).await;
    assert_eq!(claimed.task.losses, 1);
    c.finish(t(LEASE + 6), &claimed, retry(t(100))).await;
    assert_eq!(c.record("a", t(100)).await.losses, 1);
}

pub async fn a_late_success_of_a_lost_lease_is_adopted(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.sweep(t(LEASE)).await;
    let verdict = c.settle(t(LEASE + 1), &claimed.lease, done_with("late")).await;
    assert_eq!(verdict, SettleVerdict::Adopted);
    let task = c.record("a", t(LEASE + 1)).await;
    assert_eq!((task.state, task.completed_at), (TaskState::Completed, Some(t(LEASE + 1))));
    assert_eq!((task.result.as_deref(), task.next_at), (Some(&b"late"[..]), None));
    assert!(c.claim(t(1000), 1).await.is_empty(), "it does not run again");
    assert_eq!(c.stats(t(LEASE + 1)).await.processed_total, 1);
}

pub async fn a_late_success_without_retention_deletes_the_task(c: &Case) {
    let claimed = c.running(t(0), super::words::unique("a", "d", 1000)).await;
    c.sweep(t(LEASE)).await;
    assert_eq!(c.settle(t(40), &claimed.lease, done()).await, SettleVerdict::Adopted);
    assert_eq!(c.find("a", t(40)).await, None);
    c.accept(t(41), [super::words::unique("b", "d", 60)]).await;
}

pub async fn a_late_success_is_adopted_from_the_archive(c: &Case) {
    let impossible = with(kept("a", 5000), |task| task.max_retry = 0);
    c.accept(t(0), [impossible]).await;
    let mut lease = None;
    for n in 0..LOSSES_MAX {
        lease = Some(c.claim_one(t(i64::from(n) * 100)).await.lease);
        c.sweep(t(i64::from(n) * 100 + LEASE)).await;
    }
    assert_eq!(c.state("a").await, Some(TaskState::Archived));
    let lease = lease.expect("it was claimed");
    assert_eq!(c.settle(t(5000), &lease, done()).await, SettleVerdict::Adopted);
    assert_eq!(c.state("a").await, Some(TaskState::Completed));
}

pub async fn a_late_success_is_not_adopted_twice(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.sweep(t(LEASE)).await;
    assert_eq!(c.settle(t(31), &claimed.lease, done()).await, SettleVerdict::Adopted);
    assert_eq!(c.settle(t(32), &claimed.lease, done()).await, SettleVerdict::LeaseLost);
}

pub async fn a_late_success_of_another_token_is_not_adopted(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.sweep(t(LEASE)).await;
    let foreign = Lease { token: c.other_token().await, ..claimed.lease };
    assert_eq!(c.settle(t(31), &foreign, done()).await, SettleVerdict::LeaseLost);
    assert_eq!(c.state("a").await, Some(TaskState::Retry));
}

pub async fn a_late_success_is_not_adopted_once_another_worker_runs_the_task(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.sweep(t(LEASE)).await;
    let mut want = c.want(1).await;
    want.token = c.other_token().await;
    assert_eq!(c.claims(t(40), &want).await.claims.len(), 1);
    assert_eq!(c.settle(t(41), &claimed.lease, done()).await, SettleVerdict::LeaseLost);
    assert_eq!(c.state("a").await, Some(TaskState::Active));
}

pub async fn a_late_success_is_not_adopted_after_the_task_ran_and_failed_again(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.sweep(t(LEASE)).await;
    let mut want = c.want(1).await;
    want.token = c.other_token().await;
    let again = super::words::tasks_of(c.claims(t(40), &want).await);
    c.finish(t(41), &again[0], retry(t(90))).await;
    assert_eq!(c.settle(t(42), &claimed.lease, done()).await, SettleVerdict::LeaseLost);
    assert_eq!(c.state("a").await, Some(TaskState::Retry));
}

pub async fn only_a_success_is_adopted(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.sweep(t(LEASE)).await;
    let late = [retry(t(90)), archive(), Outcome::Revoke, Outcome::Release];
    for outcome in late {
        assert_eq!(c.settle(t(31), &claimed.lease, outcome).await, SettleVerdict::LeaseLost);
    }
    let task = c.record("a", t(31)).await;
    assert_eq!((task.state, task.retried), (TaskState::Retry, 0));
}

pub async fn a_task_that_failed_cannot_be_made_a_success_afterwards(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, retry(t(90))).await;
    assert_eq!(c.settle(t(2), &claimed.lease, done()).await, SettleVerdict::LeaseLost);
    assert_eq!(c.state("a").await, Some(TaskState::Retry));
}

pub async fn a_lost_task_that_was_moved_by_hand_is_not_adopted(c: &Case) {
    for action in [Action::Run, Action::Archive] {
        let claimed = c.running(t(0), task("a")).await;
        c.sweep(t(LEASE)).await;
        c.act_on(&action, "a", t(31)).await.expect("it is in retry");
        let verdict = c.settle(t(32), &claimed.lease, done()).await;
        assert_eq!(verdict, SettleVerdict::LeaseLost, "what people decided stands: {action:?}");
        c.act_on(&Action::Delete, "a", t(33)).await.expect("it waits");
    }
}
