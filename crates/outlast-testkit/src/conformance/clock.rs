//! Time is an argument, and arguments can be wrong: clocks that go back, differ, or are far away.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use outlast_core::{Extended, Hold, SettleVerdict, TaskState, Timestamp};

use super::case::Case;
use super::words::{LEASE, archive, done, due, ids_of, kept, retry, secs, t, task, tasks};

pub async fn a_clock_that_goes_back_loses_no_task(c: &Case) {
    c.accept(t(1000), tasks(&["a"])).await;
    c.accept(t(0), tasks(&["b"])).await;
    assert_eq!(ids_of(&c.claim(t(-500), 5).await), ["a", "b"], "the line knows no clock");
}

pub async fn a_task_claimed_by_an_earlier_clock_is_settled(c: &Case) {
    c.accept(t(1000), [kept("a", 60)]).await;
    let claimed = c.claim_one(t(10)).await;
    assert_eq!(claimed.lease.until, t(10 + LEASE));
    c.finish(t(5), &claimed, done()).await;
    let task = c.record("a", t(0)).await;
    assert_eq!((task.state, task.completed_at), (TaskState::Completed, Some(t(5))));
}

pub async fn an_early_clock_takes_nothing_before_its_time(c: &Case) {
    c.accept(t(0), [due("later", t(100)), task("runs")]).await;
    let claimed = c.claim_one(t(50)).await;
    c.sweep(t(-1000)).await;
    assert_eq!(c.state("later").await, Some(TaskState::Scheduled));
    assert_eq!(c.state("runs").await, Some(TaskState::Active));
    c.finish(t(60), &claimed, done()).await;
}

pub async fn a_task_that_is_pending_stays_so_when_the_clock_goes_back(c: &Case) {
    c.accept(t(0), [due("a", t(100))]).await;
    c.sweep(t(100)).await;
    assert_eq!(ids_of(&c.claim(t(20), 1).await), ["a"]);
}

pub async fn a_lease_extended_by_an_earlier_clock_is_still_held(c: &Case) {
    let claimed = c.running(t(1000), task("a")).await;
    let hold = Hold { lease: claimed.lease.clone(), result: None };
    let held = c.broker.extend(&c.queue, t(900), [hold].into(), secs(600)).await.expect("answered");
    assert!(matches!(held[..], [Extended::Until(_)]), "{held:?}");
    assert_eq!(c.settle(t(1), &claimed.lease, done()).await, SettleVerdict::Applied);
}

pub async fn a_retry_in_the_past_is_due_at_once(c: &Case) {
    let claimed = c.running(t(100), task("a")).await;
    c.finish(t(101), &claimed, retry(t(-5))).await;
    let task = c.record("a", t(101)).await;
    assert_eq!((task.state, task.next_at), (TaskState::Retry, Some(t(-5))));
    assert_eq!(c.claim_one(t(101)).await.task.retried, 1);
}

pub async fn a_run_counts_for_the_day_of_the_clock_that_reports_it(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    let claimed = c.claim(t(0), 2).await;
    c.finish(t(86_400), &claimed[0], done()).await;
    c.finish(t(0), &claimed[1], done()).await;
    let stats = [c.stats(t(0)).await, c.stats(t(86_400)).await];
    assert_eq!(stats.map(|day| (day.processed_today, day.processed_total)), [(1, 2), (1, 2)]);
}

pub async fn two_clocks_that_differ_share_one_queue(c: &Case) {
    c.accept(t(0), [due("a", t(100))]).await;
    assert_eq!(ids_of(&c.claim(t(100), 1).await), ["a"], "the fast clock finds it due");
    assert!(c.claim(t(40), 1).await.is_empty());
    c.sweep(t(40)).await;
    assert_eq!(c.state("a").await, Some(TaskState::Active), "the slow one does not take it back");
}

pub async fn moments_before_the_epoch_and_far_away_are_kept(c: &Case) {
    let far = Timestamp::from_seconds(250_000_000_000);
    let before = Timestamp::from_seconds(-86_400);
    c.accept(before, [due("far", far), task("a")]).await;
    assert_eq!(c.record("far", before).await.next_at, Some(far));
    assert_eq!(c.record("a", before).await.enqueued_at, Some(before));
    assert_eq!(c.sweep(before).await.next_due, Some(far));
    let claimed = c.claim_one(before).await;
    c.finish(before, &claimed, archive()).await;
    assert_eq!(c.record("a", before).await.last_failed_at, Some(before));
}

pub async fn the_last_moment_there_is_does_no_harm(c: &Case) {
    c.accept(t(0), [due("never", Timestamp::MAX), task("a")]).await;
    let claimed = c.claim_one(t(0)).await;
    c.finish(t(1), &claimed, retry(Timestamp::MAX)).await;
    assert_eq!(c.sweep(t(1)).await.due, 0);
    assert_eq!(c.sweep(Timestamp::MAX).await.due, 2);
}

pub async fn fractions_of_a_second_are_kept_as_far_as_they_are_stored(c: &Case) {
    let resolution = c.differences().time_resolution.as_millis();
    let resolution = i64::try_from(resolution).expect("a short time").max(1);
    let moment = Timestamp::from_millis(t(60).as_millis() + 457);
    c.accept(t(0), [due("a", moment)]).await;
    let stored = c.record("a", t(0)).await.next_at.expect("a due time");
    let lost = (stored.as_millis() - moment.as_millis()).abs();
    assert!(lost < resolution, "{stored} is not {moment}");
}
