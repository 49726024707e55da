//! What time moves, and how much of it at once.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use outlast_core::broker::Recovery;
use outlast_core::limits::{ARCHIVE_AGE, SWEEP_MAX};
use outlast_core::{Action, Kind, SweepBudget, Swept, TaskState};

use super::case::Case;
use super::words::{
    LEASE, archive, budget, done, due, grouped, is_accepted, kept, policy, retry, t, task, tasks,
    unique,
};

fn withheld() -> SweepBudget {
    SweepBudget { moves_max: 1000, recovery: Recovery::Withheld, vanished: None }
}

pub async fn a_sweep_of_nothing_does_nothing(c: &Case) {
    assert_eq!(c.sweep(t(0)).await, Swept::default());
    let known = c.inspect.queue(&c.queue, t(0)).await.expect("answered");
    assert_eq!(known, None, "and makes no queue");
}

pub async fn due_tasks_become_pending_in_the_order_of_their_times(c: &Case) {
    c.accept(t(0), [due("c", t(30)), due("a", t(10)), due("b", t(20)), due("d", t(40))]).await;
    let swept = c.sweep(t(30)).await;
    assert_eq!((swept.due, swept.next_due), (3, Some(t(40))));
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "b", "c"]);
    assert_eq!(c.record("a", t(30)).await.pending_since, Some(t(30)));
    assert_eq!(c.sweep(t(30)).await.due, 0, "once");
}

pub async fn retries_become_pending_when_they_are_due(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, retry(t(50))).await;
    assert_eq!(c.sweep(t(49)).await.next_due, Some(t(50)));
    assert_eq!(c.state("a").await, Some(TaskState::Retry));
    let swept = c.sweep(t(50)).await;
    assert_eq!((swept.due, swept.next_due), (1, None));
    let task = c.record("a", t(50)).await;
    assert_eq!((task.state, task.retried), (TaskState::Pending, 1));
}

pub async fn a_sweep_goes_no_further_than_its_budget_and_says_that_there_is_more(c: &Case) {
    for n in 1..=5 {
        c.accept(t(0), [due(&n.to_string(), t(n))]).await;
    }
    let first = c.sweep_once(t(10), budget(2)).await;
    assert_eq!((first.due, first.more, first.next_due), (2, true, Some(t(3))));
    assert_eq!(c.ids(TaskState::Pending).await, ["1", "2"]);
    let mut moved = first.due;
    while c.stats(t(10)).await.scheduled > 0 {
        moved += c.sweep_once(t(10), budget(2)).await.due;
        assert!(moved <= 5, "a sweep moves a task once");
    }
    assert!(!c.sweep_once(t(10), budget(2)).await.more);
}

pub async fn each_kind_of_work_has_a_budget_of_its_own(c: &Case) {
    let claimed = c.running(t(0), kept("done", 10)).await;
    c.finish(t(0), &claimed, done()).await;
    c.accept(t(0), [task("lost"), due("later", t(60))]).await;
    c.claim_one(t(0)).await;
    let swept = c.sweep_once(t(60), budget(1)).await;
    assert_eq!((swept.due, swept.recovered, swept.deleted), (1, 1, 1));
}

pub async fn a_lease_is_taken_back_at_its_end_and_not_before(c: &Case) {
    c.running(t(0), task("a")).await;
    assert_eq!(c.sweep(t(LEASE - 1)).await.recovered, 0);
    assert_eq!(c.sweep(t(LEASE)).await.recovered, 1);
    assert_eq!(c.sweep(t(LEASE)).await.recovered, 0, "once");
}

pub async fn recovery_can_be_withheld(c: &Case) {
    c.accept(t(0), [task("a"), due("b", t(5))]).await;
    c.claim(t(0), 5).await;
    let swept = c.sweep_once(t(500), withheld()).await;
    assert_eq!((swept.recovered, swept.due), (0, 1), "all else goes on");
    assert_eq!(c.state("a").await, Some(TaskState::Active));
}

pub async fn aggregation_sets_are_withheld_with_the_leases(c: &Case) {
    c.accept(t(0), [grouped("a", "g")]).await;
    c.claim_group(t(1), &policy("g", 0)).await.expect("ready");
    assert_eq!(c.sweep_once(t(500), withheld()).await.reclaimed, 0);
    assert_eq!(c.sweep(t(500)).await.reclaimed, 1);
}

pub async fn many_leases_are_taken_back_step_by_step(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c", "d", "e"])).await;
    c.claim(t(0), 5).await;
    let first = c.sweep_once(t(LEASE), budget(2)).await;
    assert_eq!((first.recovered, first.more), (2, true));
    assert_eq!(c.sweep(t(LEASE)).await.recovered, 3);
    assert_eq!(c.stats(t(LEASE)).await.retry, 5);
}

pub async fn a_completed_task_is_deleted_when_its_retention_is_over(c: &Case) {
    let claimed = c.running(t(0), kept("a", 60)).await;
    c.finish(t(10), &claimed, done()).await;
    assert_eq!(c.sweep(t(69)).await.deleted, 0, "counted from its success");
    assert_eq!(c.sweep(t(70)).await.deleted, 1);
    assert_eq!(c.find("a", t(70)).await, None);
    assert_eq!(c.stats(t(70)).await.processed_total, 1, "what was counted stays counted");
}

pub async fn completed_tasks_are_deleted_step_by_step(c: &Case) {
    c.accept(t(0), (0..5).map(|n| kept(&n.to_string(), 60))).await;
    for claimed in c.claim(t(0), 5).await {
        c.finish(t(0), &claimed, done()).await;
    }
    let first = c.sweep_once(t(60), budget(2)).await;
    assert_eq!((first.deleted, first.more), (2, true));
    assert_eq!(c.sweep(t(60)).await.deleted, 3);
}

pub async fn an_archived_task_is_deleted_when_it_is_too_old_and_gives_its_lock_back(c: &Case) {
    let age = i64::try_from(ARCHIVE_AGE.as_secs()).expect("90 days");
    let claimed = c.running(t(0), unique("a", "d", 20_000_000)).await;
    c.finish(t(0), &claimed, archive()).await;
    assert_eq!(c.sweep(t(age - 1)).await.deleted, 0);
    assert!(!is_accepted(&c.enqueue(t(age - 1), [unique("b", "d", 60)]).await[0]));
    assert_eq!(c.sweep(t(age)).await.deleted, 1);
    c.accept(t(age), [unique("b", "d", 60)]).await;
}

pub async fn a_full_archive_loses_its_oldest_tasks(c: &Case) {
    let most = c.differences().archive_max;
    if most > 100 {
        return println!("skipped: an archive of {most} tasks is not filled here");
    }
    let count = most + 5;
    for n in 0..count {
        let at = t(i64::try_from(n).expect("few"));
        c.accept(at, [task(&format!("{n:03}"))]).await;
        let claimed = c.claim_one(at).await;
        c.finish(at, &claimed, archive()).await;
    }
    c.sweep(t(1000)).await;
    let left = c.ids(TaskState::Archived).await;
    // asynq keeps one less than its limit.
    assert!((most - 1..=most).contains(&left.len()), "{} are left of {count}", left.len());
    let newest: Vec<_> = (count - left.len()..count).map(|n| format!("{n:03}")).collect();
    assert_eq!(left, newest);
}

pub async fn the_next_due_time_is_the_earliest_of_scheduled_and_retry(c: &Case) {
    let claimed = c.running(t(0), task("r")).await;
    c.finish(t(0), &claimed, retry(t(70))).await;
    c.accept(t(0), [due("s", t(90))]).await;
    assert_eq!(c.sweep(t(0)).await.next_due, Some(t(70)));
    c.act_on(&Action::Delete, "r", t(1)).await.expect("it waits");
    assert_eq!(c.sweep(t(1)).await.next_due, Some(t(90)));
    assert_eq!(c.sweep(t(90)).await.next_due, None);
}

pub async fn a_paused_queue_is_swept_all_the_same(c: &Case) {
    c.accept(t(0), [due("a", t(10))]).await;
    let paused = c.inspect.control(&c.queue, outlast_core::QueueControl::Pause, t(1)).await;
    paused.expect("answered");
    assert_eq!(c.sweep(t(10)).await.due, 1);
}

pub async fn a_sweep_of_one_queue_leaves_the_others_alone(c: &Case) {
    let other = super::words::queue("other");
    c.enqueue_in(&other, t(0), [due("a", t(10))]).await;
    c.accept(t(0), [due("a", t(10))]).await;
    c.sweep(t(10)).await;
    let stats = c.inspect.queue(&other, t(10)).await.expect("answered").expect("known");
    assert_eq!((stats.scheduled, stats.pending), (1, 0));
}

pub async fn a_budget_of_nothing_or_too_much_is_rejected(c: &Case) {
    for moves_max in [0, SWEEP_MAX + 1] {
        let refused = c.broker.sweep(&c.queue, t(0), budget(moves_max)).await;
        assert_eq!(refused.expect_err("out of bounds").kind(), Kind::Rejected, "{moves_max}");
    }
}

pub async fn a_sweep_repeated_at_the_same_moment_does_nothing_more(c: &Case) {
    let claimed = c.running(t(0), kept("a", 60)).await;
    c.finish(t(0), &claimed, done()).await;
    c.accept(t(0), [due("b", t(60)), task("c")]).await;
    c.claim_one(t(1)).await;
    c.sweep(t(100)).await;
    let before = c.stats(t(100)).await;
    let again = c.sweep(t(100)).await;
    let moved = again.due + again.recovered + again.deleted + again.reclaimed;
    assert_eq!((moved, c.stats(t(100)).await), (0, before));
}
