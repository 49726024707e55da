//! Law L3: every write can be repeated. The same stamp gives the first answer and the effect of one.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::sync::Arc;

use outlast_core::{
    BrokerError, Claims, EnqueueVerdict, Enqueued, Kind, Lost, NewTask, Outcome, QueueControl,
    SettleVerdict, Settled, Settlement, Stamp, TaskState,
};

use super::case::Case;
use super::words::{
    LEASE, done, ids_of, is_accepted, kept, once, retry, stamp, t, task, tasks, tasks_of, unique,
};

type Answer<T> = Result<T, BrokerError>;

async fn enqueue(c: &Case, stamp: Stamp, at: i64, tasks: Vec<NewTask>) -> Answer<Enqueued> {
    c.broker.enqueue(&c.queue, stamp, t(at), tasks.into()).await
}

async fn claim(c: &Case, stamp: Stamp, at: i64, tasks_max: usize) -> Answer<Claims> {
    c.broker.claim(&c.queue, stamp, t(at), &c.want(tasks_max).await).await
}

async fn settle(c: &Case, stamp: Stamp, at: i64, batch: &Arc<[Settlement]>) -> Answer<Settled> {
    c.broker.settle(&c.queue, stamp, t(at), batch.clone()).await
}

fn nothing() -> Arc<[Settlement]> {
    Arc::new([])
}

fn superseded<T: std::fmt::Debug>(answer: Answer<T>) {
    assert_eq!(answer.expect_err("a ghost").kind(), Kind::Superseded);
}

pub async fn an_enqueue_repeated_answers_as_the_first_time_and_stores_nothing(c: &Case) {
    let first = enqueue(c, stamp(1, 0, 1), 0, tasks(&["a", "b"])).await.expect("answered");
    let again = enqueue(c, stamp(1, 0, 1), 5, tasks(&["a", "b"])).await.expect("answered");
    assert_eq!(first, again);
    assert!(again.verdicts.iter().all(is_accepted), "{again:?}");
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "b"]);
    assert_eq!(c.record("a", t(5)).await.enqueued_at, Some(t(0)));
}

pub async fn mixed_verdicts_are_repeated_as_they_were(c: &Case) {
    c.accept(t(0), [task("taken"), unique("holder", "d", 1000)]).await;
    let wrong = super::words::with(task("wrong"), |task| task.max_retry = u32::MAX);
    let batch = vec![task("a"), task("taken"), unique("dup", "d", 60), wrong, task("b")];
    let first = enqueue(c, stamp(1, 0, 1), 0, batch.clone()).await.expect("answered");
    for name in ["taken", "holder", "a"] {
        c.act_on(&outlast_core::Action::Delete, name, t(1)).await.expect("it waits");
    }
    let again = enqueue(c, stamp(1, 0, 1), 2, batch).await.expect("answered");
    assert_eq!(first, again, "though everything would be accepted now");
    assert_eq!(c.ids(TaskState::Pending).await, ["b"]);
}

pub async fn an_enqueue_repeated_after_its_task_ran_does_not_run_it_again(c: &Case) {
    enqueue(c, stamp(1, 0, 1), 0, tasks(&["a"])).await.expect("answered");
    let claimed = c.claim_one(t(1)).await;
    c.finish(t(2), &claimed, done()).await;
    let again = enqueue(c, stamp(1, 0, 1), 3, tasks(&["a"])).await.expect("answered");
    assert!(is_accepted(&again.verdicts[0]), "accepted, not a conflict: {again:?}");
    assert_eq!(c.find("a", t(3)).await, None);
    assert!(c.claim(t(4), 1).await.is_empty());
}

pub async fn an_enqueue_repeated_is_not_its_own_duplicate(c: &Case) {
    let batch = vec![unique("a", "d", 1000), once("b", "key", 1000)];
    let first = enqueue(c, stamp(1, 0, 1), 0, batch.clone()).await.expect("answered");
    let again = enqueue(c, stamp(1, 0, 1), 1, batch).await.expect("answered");
    assert_eq!(first.verdicts, again.verdicts);
    assert!(again.verdicts.iter().all(is_accepted), "{again:?}");
}

/// Verdicts were told apart by their place among the tasks that were valid: a task that had become wrong by
/// the time of the repeat was refused though it was stored, and moved the others' verdicts.
pub async fn a_repeat_is_not_judged_anew_when_a_deadline_has_passed_meanwhile(c: &Case) {
    c.accept(t(0), [task("taken")]).await;
    let brief = super::words::with(task("brief"), |task| task.deadline = Some(t(10)));
    let batch = vec![brief, task("taken"), task("b")];
    let first = enqueue(c, stamp(1, 0, 1), 0, batch.clone()).await.expect("answered");
    assert!(is_accepted(&first.verdicts[0]), "{first:?}");
    let again = enqueue(c, stamp(1, 0, 1), 20, batch).await.expect("answered");
    assert_eq!(first, again);
}

pub async fn a_batch_older_than_the_last_one_is_a_ghost(c: &Case) {
    enqueue(c, stamp(1, 0, 1), 0, tasks(&["a"])).await.expect("answered");
    enqueue(c, stamp(1, 0, 2), 0, tasks(&["b"])).await.expect("answered");
    superseded(enqueue(c, stamp(1, 0, 1), 1, tasks(&["a"])).await);
    superseded(enqueue(c, stamp(1, 0, 1), 1, tasks(&["never-seen"])).await);
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "b"], "a ghost applies nothing");
    superseded(claim(c, stamp(1, 0, 1), 1, 1).await);
    superseded(settle(c, stamp(1, 0, 1), 1, &nothing()).await);
    assert_eq!(c.stats(t(1)).await.pending, 2);
}

pub async fn a_gap_is_applied_and_reported_as_a_loss(c: &Case) {
    let first = enqueue(c, stamp(1, 0, 1), 0, tasks(&["a"])).await.expect("answered");
    assert_eq!(first.lost, None);
    let gap = enqueue(c, stamp(1, 0, 4), 1, tasks(&["d"])).await.expect("answered");
    assert_eq!(gap.lost, Some(Lost { after_seq: 1 }));
    assert!(is_accepted(&gap.verdicts[0]), "{gap:?}");
    let next = enqueue(c, stamp(1, 0, 5), 2, tasks(&["e"])).await.expect("answered");
    assert_eq!(next.lost, None, "a loss is reported once");
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "d", "e"]);
}

pub async fn a_loss_is_reported_again_when_the_batch_is_repeated(c: &Case) {
    enqueue(c, stamp(1, 0, 1), 0, tasks(&["a"])).await.expect("answered");
    let gap = enqueue(c, stamp(1, 0, 4), 1, tasks(&["d"])).await.expect("answered");
    let again = enqueue(c, stamp(1, 0, 4), 2, tasks(&["d"])).await.expect("answered");
    assert_eq!(gap, again, "if its first answer was lost, nobody has learned of the loss");
}

pub async fn a_lane_that_the_broker_does_not_know_is_a_loss_after_zero(c: &Case) {
    let lost = Some(Lost { after_seq: 0 });
    assert_eq!(enqueue(c, stamp(1, 0, 7), 0, tasks(&["a"])).await.expect("answered").lost, lost);
    assert_eq!(claim(c, stamp(2, 0, 2), 1, 1).await.expect("answered").lost, lost);
    assert_eq!(settle(c, stamp(3, 0, 9), 2, &nothing()).await.expect("answered").lost, lost);
}

pub async fn lanes_are_counted_each_for_itself(c: &Case) {
    for (lane, name) in [(0, "a"), (63, "b"), (1, "c")] {
        let answer = enqueue(c, stamp(1, lane, 1), 0, tasks(&[name])).await.expect("answered");
        assert_eq!(answer.lost, None);
    }
    enqueue(c, stamp(1, 0, 2), 1, tasks(&["d"])).await.expect("answered");
    let again = enqueue(c, stamp(1, 1, 1), 2, tasks(&["c"])).await.expect("lane 1 is still at 1");
    assert!(is_accepted(&again.verdicts[0]), "{again:?}");
}

pub async fn sessions_are_counted_each_for_itself(c: &Case) {
    for (session, name) in [(1, "a"), (u128::MAX, "b"), (u128::MAX - 1, "c")] {
        let answer = enqueue(c, stamp(session, 0, 1), 0, tasks(&[name])).await.expect("answered");
        assert_eq!((answer.lost, is_accepted(&answer.verdicts[0])), (None, true));
    }
    let conflict = enqueue(c, stamp(4, 0, 1), 1, tasks(&["a"])).await.expect("answered");
    assert_eq!(conflict.verdicts, [EnqueueVerdict::IdConflict], "another session's is no repeat");
}

pub async fn one_lane_carries_different_verbs_in_turn(c: &Case) {
    enqueue(c, stamp(1, 0, 1), 0, tasks(&["a", "b"])).await.expect("answered");
    let claims = claim(c, stamp(1, 0, 2), 1, 1).await.expect("answered");
    let lease = tasks_of(claims).remove(0).lease;
    let batch: Arc<[Settlement]> = Arc::new([Settlement { lease, outcome: done() }]);
    let settled = settle(c, stamp(1, 0, 3), 2, &batch).await.expect("answered");
    assert_eq!((settled.verdicts, settled.lost), (vec![SettleVerdict::Applied], None));
    superseded(claim(c, stamp(1, 0, 2), 3, 1).await);
}

pub async fn a_claim_repeated_hands_out_the_same_tasks_and_claims_nothing_more(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c", "d"])).await;
    let first = claim(c, stamp(1, 0, 1), 1, 2).await.expect("answered");
    let again = claim(c, stamp(1, 0, 1), 9, 2).await.expect("answered");
    assert_eq!(first.claims, again.claims, "with the leases of the first time");
    assert_eq!(c.ids(TaskState::Pending).await, ["c", "d"]);
}

pub async fn a_claim_that_found_nothing_leaves_no_record_and_its_number_is_used_again(c: &Case) {
    let empty = claim(c, stamp(1, 0, 1), 0, 5).await.expect("answered");
    assert!(empty.claims.is_empty(), "{empty:?}");
    c.accept(t(1), [task("a")]).await;
    let found = claim(c, stamp(1, 0, 1), 2, 5).await.expect("answered");
    assert_eq!((found.claims.len(), found.lost), (1, None));
    let again = claim(c, stamp(1, 0, 1), 3, 5).await.expect("answered");
    assert_eq!(again.claims.len(), 1, "now it is a repeat");
}

pub async fn a_claim_repeated_leaves_out_what_has_been_settled(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c"])).await;
    let first = tasks_of(claim(c, stamp(1, 0, 1), 1, 3).await.expect("answered"));
    c.finish(t(2), &first[0], done()).await;
    c.finish(t(2), &first[2], retry(t(500))).await;
    let again = tasks_of(claim(c, stamp(1, 0, 1), 3, 3).await.expect("answered"));
    assert_eq!(ids_of(&again), ["b"]);
}

pub async fn a_claim_repeated_leaves_out_what_was_taken_back(c: &Case) {
    c.accept(t(0), tasks(&["a"])).await;
    claim(c, stamp(1, 0, 1), 0, 1).await.expect("answered");
    c.sweep(t(LEASE)).await;
    let again = claim(c, stamp(1, 0, 1), LEASE + 10, 1).await.expect("answered");
    assert!(again.claims.is_empty(), "{again:?}");
    assert_eq!(c.state("a").await, Some(TaskState::Retry), "and it claims nothing new");
}

pub async fn a_claimed_group_is_handed_out_again_when_the_claim_is_repeated(c: &Case) {
    c.accept(t(0), [super::words::grouped("a", "g"), super::words::grouped("b", "g")]).await;
    let mut want = c.want(1).await;
    want.groups = [super::words::policy("g", 0)].into();
    let first = c.broker.claim(&c.queue, stamp(1, 0, 1), t(9), &want).await.expect("answered");
    let again = c.broker.claim(&c.queue, stamp(1, 0, 1), t(10), &want).await.expect("answered");
    assert_eq!((first.claims.len(), &first.claims), (1, &again.claims));
}

pub async fn a_settlement_repeated_answers_as_the_first_time_and_counts_once(c: &Case) {
    c.accept(t(0), [kept("a", 100), task("b"), task("c")]).await;
    let claimed = c.claim(t(1), 3).await;
    let outcomes = [done(), retry(t(50)), Outcome::Revoke];
    let batch: Arc<[Settlement]> = claimed
        .iter()
        .zip(outcomes)
        .map(|(claimed, outcome)| Settlement { lease: claimed.lease.clone(), outcome })
        .collect();
    let first = settle(c, stamp(1, 0, 1), 2, &batch).await.expect("answered");
    assert_eq!(first.verdicts, vec![SettleVerdict::Applied; 3]);
    let again = settle(c, stamp(1, 0, 1), 3, &batch).await.expect("answered");
    assert_eq!(first, again, "applied, not lost");
    let stats = c.stats(t(3)).await;
    assert_eq!((stats.processed_total, stats.failed_total), (3, 1));
    assert_eq!(c.record("b", t(3)).await.retried, 1);
}

pub async fn a_settlement_repeated_does_not_touch_the_next_run(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let lease = claimed.lease;
    let batch: Arc<[Settlement]> = Arc::new([Settlement { lease, outcome: retry(t(5)) }]);
    settle(c, stamp(1, 0, 1), 1, &batch).await.expect("answered");
    c.claim_one(t(5)).await;
    let again = settle(c, stamp(1, 0, 1), 6, &batch).await.expect("answered");
    assert_eq!(again.verdicts, [SettleVerdict::Applied]);
    let task = c.record("a", t(6)).await;
    let same_token = "the next run has the same token, so that only the stamp can tell";
    assert_eq!((task.state, task.retried), (TaskState::Active, 1), "{same_token}");
}

pub async fn mixed_settlements_are_repeated_as_they_were(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    let gone = outlast_core::Lease { id: super::words::id("gone"), ..claimed.lease.clone() };
    let settlement =
        |lease: &outlast_core::Lease| Settlement { lease: lease.clone(), outcome: done() };
    let batch: Arc<[_]> = Arc::new([settlement(&gone), settlement(&claimed.lease)]);
    let first = settle(c, stamp(1, 0, 1), 1, &batch).await.expect("answered");
    assert_eq!(first.verdicts, [SettleVerdict::LeaseLost, SettleVerdict::Applied]);
    assert_eq!(settle(c, stamp(1, 0, 1), 2, &batch).await.expect("answered"), first);
}

pub async fn a_rejected_batch_takes_no_number(c: &Case) {
    let too_many: Vec<_> = (0..257).map(|n| task(&n.to_string())).collect();
    let refused = enqueue(c, stamp(1, 0, 1), 0, too_many).await;
    assert_eq!(refused.expect_err("too long").kind(), Kind::Rejected);
    let next = enqueue(c, stamp(1, 0, 1), 1, tasks(&["a"])).await.expect("the number is free");
    assert_eq!((is_accepted(&next.verdicts[0]), next.lost), (true, None));
}

pub async fn a_repeat_is_known_on_every_connection(c: &Case) {
    let Some(other) = c.unless_skipped(c.fixture.second_handle().await) else { return };
    let first = enqueue(c, stamp(1, 0, 1), 0, tasks(&["a"])).await.expect("answered");
    let again = other.broker.enqueue(&c.queue, stamp(1, 0, 1), t(1), tasks(&["a"]).into()).await;
    assert_eq!(first, again.expect("answered"));
}

pub async fn removing_a_queue_does_not_look_like_data_loss(c: &Case) {
    enqueue(c, stamp(1, 0, 1), 0, tasks(&["a"])).await.expect("answered");
    let removed = c.inspect.control(&c.queue, QueueControl::RemoveWithTasks, t(1)).await;
    removed.expect("answered");
    let next = enqueue(c, stamp(1, 0, 2), 2, tasks(&["b"])).await.expect("answered");
    assert_eq!(next.lost, None, "or its producers would offer again what was removed on purpose");
    superseded(enqueue(c, stamp(1, 0, 1), 3, tasks(&["a"])).await);
}
