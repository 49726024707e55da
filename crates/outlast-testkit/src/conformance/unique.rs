//! Unique locks, which are held from enqueue until the task is over, and `once` keys, which are not
//! released at all.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use bytes::Bytes;
use outlast_core::{Action, EnqueueVerdict, Outcome, QueueControl, TaskState, TaskType};

use super::case::Case;
use super::words::{
    archive, done, due, id, is_accepted, kept, keyed, locking, once, queue, retry, secs, t, task,
    unique, with,
};

/// What a second task with the digest `d` is answered.
async fn second(c: &Case, at: i64) -> EnqueueVerdict {
    let name = format!("second-{at}");
    c.enqueue(t(at), [unique(&name, "d", 1000)]).await.remove(0)
}

fn duplicate_of(name: &str) -> EnqueueVerdict {
    EnqueueVerdict::Duplicate { of: Some(id(name)) }
}

async fn is_locked(c: &Case, at: i64) -> bool {
    let verdict = second(c, at).await;
    assert!(is_accepted(&verdict) || verdict == duplicate_of("a"), "{verdict:?}");
    !is_accepted(&verdict)
}

pub async fn a_duplicate_names_the_task_that_holds_the_lock(c: &Case) {
    c.accept(t(0), [unique("a", "d", 60)]).await;
    assert_eq!(second(c, 1).await, duplicate_of("a"));
    assert_eq!(c.find("second-1", t(1)).await, None);
}

pub async fn another_digest_type_or_queue_is_another_lock(c: &Case) {
    c.accept(t(0), [unique("a", "d", 60)]).await;
    let other_type = with(unique("c", "d", 60), |task| {
        task.task_type = TaskType::new("other").expect("a valid type");
    });
    c.accept(t(1), [unique("b", "e", 60), other_type]).await;
    let verdicts = c.enqueue_in(&queue("other"), t(1), [unique("a", "d", 60)]).await;
    assert!(is_accepted(&verdicts[0]), "{verdicts:?}");
}

pub async fn the_lock_is_of_the_digest_whatever_the_payload(c: &Case) {
    c.accept(t(0), [unique("a", "d", 60)]).await;
    let other = with(unique("b", "d", 60), |task| task.payload = Bytes::from_static(b"else"));
    assert_eq!(c.enqueue(t(1), [other]).await, [duplicate_of("a")]);
    c.accept(t(1), [task("not-unique")]).await;
}

pub async fn an_empty_digest_is_a_lock_of_its_own(c: &Case) {
    c.accept(t(0), [unique("a", "", 60)]).await;
    assert_eq!(c.enqueue(t(1), [unique("b", "", 60)]).await, [duplicate_of("a")]);
}

pub async fn two_of_one_digest_in_a_batch_are_stored_once(c: &Case) {
    let verdicts = c.enqueue(t(0), [unique("a", "d", 60), unique("b", "d", 60)]).await;
    assert!(is_accepted(&verdicts[0]), "{verdicts:?}");
    assert_eq!(verdicts[1], duplicate_of("a"));
}

pub async fn the_lock_is_asked_before_the_id(c: &Case) {
    c.accept(t(0), [unique("a", "d", 60)]).await;
    assert_eq!(c.enqueue(t(1), [unique("a", "d", 60)]).await, [duplicate_of("a")]);
}

pub async fn a_task_refused_for_its_id_leaves_no_lock(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    assert_eq!(c.enqueue(t(1), [unique("a", "d", 60)]).await, [EnqueueVerdict::IdConflict]);
    assert!(is_accepted(&second(c, 2).await));
}

pub async fn a_task_that_is_wrong_leaves_no_lock_and_no_key(c: &Case) {
    let wrong = keyed(unique("a", "d", 60), "key", 60);
    let wrong = with(wrong, |task| task.max_retry = u32::MAX);
    assert!(matches!(&c.enqueue(t(0), [wrong]).await[0], EnqueueVerdict::Rejected(_)));
    c.accept(t(1), [unique("b", "d", 60), once("c", "key", 60)]).await;
}

pub async fn the_lock_ends_with_its_time_though_the_task_waits(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    c.accept(t(0), [unique("a", "d", 60)]).await;
    assert_eq!(second(c, 59).await, duplicate_of("a"));
    assert!(is_accepted(&second(c, 61).await));
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "second-61"]);
}

pub async fn a_task_whose_lock_ran_out_does_not_release_that_of_another(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    let claimed = c.running(t(0), unique("a", "d", 60)).await;
    assert!(is_accepted(&second(c, 61).await));
    c.finish(t(62), &claimed, done()).await;
    assert_eq!(second(c, 63).await, duplicate_of("second-61"));
}

pub async fn the_lock_of_a_scheduled_task_counts_from_its_due_time(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    let later = locking(due("a", t(100)), "d", 60);
    c.accept(t(0), [later]).await;
    assert_eq!(second(c, 61).await, duplicate_of("a"));
    assert_eq!(second(c, 159).await, duplicate_of("a"));
    assert!(is_accepted(&second(c, 161).await));
}

pub async fn the_lock_is_held_while_the_task_runs(c: &Case) {
    c.running(t(0), unique("a", "d", 1000)).await;
    assert!(is_locked(c, 1).await);
}

pub async fn the_lock_is_released_when_the_task_is_done(c: &Case) {
    let claimed = c.running(t(0), unique("a", "d", 1000)).await;
    c.finish(t(1), &claimed, done()).await;
    assert!(!is_locked(c, 2).await);
}

pub async fn the_lock_is_released_when_the_task_is_done_and_kept(c: &Case) {
    let kept = with(unique("a", "d", 1000), |task| task.retention = secs(1000));
    let claimed = c.running(t(0), kept).await;
    c.finish(t(1), &claimed, done()).await;
    assert!(!is_locked(c, 2).await);
}

pub async fn the_lock_is_released_when_the_task_is_revoked(c: &Case) {
    let claimed = c.running(t(0), unique("a", "d", 1000)).await;
    c.finish(t(1), &claimed, Outcome::Revoke).await;
    assert!(!is_locked(c, 2).await);
}

pub async fn the_lock_is_released_when_the_task_is_deleted_by_hand(c: &Case) {
    c.accept(t(0), [unique("a", "d", 1000)]).await;
    assert_eq!(c.act_on(&Action::Delete, "a", t(1)).await, Ok(()));
    assert!(!is_locked(c, 2).await);
}

pub async fn the_lock_is_held_through_a_retry(c: &Case) {
    let claimed = c.running(t(0), unique("a", "d", 1000)).await;
    c.finish(t(1), &claimed, retry(t(10))).await;
    assert!(is_locked(c, 2).await);
    c.sweep(t(10)).await;
    assert!(is_locked(c, 11).await);
}

pub async fn the_lock_is_held_through_snooze_and_release(c: &Case) {
    let claimed = c.running(t(0), unique("a", "d", 1000)).await;
    c.finish(t(1), &claimed, Outcome::Release).await;
    assert!(is_locked(c, 2).await);
    let claimed = c.claim_one(t(3)).await;
    c.finish(t(4), &claimed, Outcome::Snooze { until: t(50) }).await;
    assert!(is_locked(c, 5).await);
}

pub async fn the_lock_is_held_by_an_archived_task_until_it_is_deleted(c: &Case) {
    let claimed = c.running(t(0), unique("a", "d", 1000)).await;
    c.finish(t(1), &claimed, archive()).await;
    assert!(is_locked(c, 2).await);
    assert_eq!(c.act_on(&Action::Delete, "a", t(3)).await, Ok(()));
    assert!(!is_locked(c, 4).await);
}

pub async fn the_lock_is_held_when_a_lease_is_lost(c: &Case) {
    c.running(t(0), unique("a", "d", 1000)).await;
    assert_eq!(c.sweep(t(60)).await.recovered, 1);
    assert!(is_locked(c, 61).await);
}

pub async fn the_lock_goes_with_the_queue_that_is_removed(c: &Case) {
    c.accept(t(0), [unique("a", "d", 1000)]).await;
    let removed = c.inspect.control(&c.queue, QueueControl::RemoveWithTasks, t(1)).await;
    removed.expect("answered");
    assert!(!is_locked(c, 2).await);
}

pub async fn a_once_key_is_accepted_once(c: &Case) {
    c.accept(t(0), [once("a", "key", 60)]).await;
    let verdicts = c.enqueue(t(1), [once("b", "key", 60), once("c", "other", 60)]).await;
    assert!(matches!(verdicts[0], EnqueueVerdict::Duplicate { .. }), "{verdicts:?}");
    assert!(is_accepted(&verdicts[1]), "{verdicts:?}");
}

pub async fn a_once_key_outlives_its_task(c: &Case) {
    let claimed = c.running(t(0), once("a", "key", 60)).await;
    c.finish(t(1), &claimed, done()).await;
    let verdicts = c.enqueue(t(2), [once("a", "key", 60)]).await;
    assert!(matches!(verdicts[0], EnqueueVerdict::Duplicate { .. }), "{verdicts:?}");
    c.accept(t(2), [once("b", "another", 60)]).await;
    assert_eq!(c.act_on(&Action::Delete, "b", t(3)).await, Ok(()));
    let verdicts = c.enqueue(t(4), [once("b", "another", 60)]).await;
    assert!(matches!(verdicts[0], EnqueueVerdict::Duplicate { .. }), "{verdicts:?}");
}

pub async fn a_once_key_is_forgotten_after_its_time(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    c.accept(t(0), [once("a", "key", 60)]).await;
    let verdicts = c.enqueue(t(59), [once("b", "key", 60)]).await;
    assert!(matches!(verdicts[0], EnqueueVerdict::Duplicate { .. }), "{verdicts:?}");
    c.accept(t(61), [once("b", "key", 60)]).await;
}

pub async fn a_once_key_is_of_its_queue(c: &Case) {
    c.accept(t(0), [once("a", "key", 60)]).await;
    let verdicts = c.enqueue_in(&queue("other"), t(1), [once("a", "key", 60)]).await;
    assert!(is_accepted(&verdicts[0]), "{verdicts:?}");
}

pub async fn a_once_key_twice_in_a_batch_is_used_once(c: &Case) {
    let verdicts = c.enqueue(t(0), [once("a", "key", 60), once("b", "key", 60)]).await;
    assert!(is_accepted(&verdicts[0]), "{verdicts:?}");
    assert!(matches!(verdicts[1], EnqueueVerdict::Duplicate { .. }), "{verdicts:?}");
}

pub async fn a_task_refused_for_its_lock_or_id_uses_no_once_key(c: &Case) {
    c.accept(t(0), [unique("a", "d", 60)]).await;
    let locked = keyed(unique("b", "d", 60), "one", 60);
    let conflict = once("a", "two", 60);
    let verdicts = c.enqueue(t(1), [locked, conflict]).await;
    assert_eq!(verdicts, [duplicate_of("a"), EnqueueVerdict::IdConflict]);
    c.accept(t(2), [once("c", "one", 60), once("e", "two", 60)]).await;
}

pub async fn a_task_refused_for_its_once_key_leaves_no_lock(c: &Case) {
    c.accept(t(0), [once("a", "key", 60)]).await;
    let refused = locking(once("b", "key", 60), "d", 60);
    assert!(matches!(c.enqueue(t(1), [refused]).await[0], EnqueueVerdict::Duplicate { .. }));
    assert!(is_accepted(&second(c, 2).await));
}

pub async fn a_kept_task_that_runs_again_by_hand_takes_no_lock(c: &Case) {
    let first = locking(kept("a", 1000), "d", 1000);
    let claimed = c.running(t(0), first).await;
    c.finish(t(1), &claimed, done()).await;
    assert_eq!(c.act_on(&Action::Run, "a", t(2)).await, Ok(()));
    assert!(!is_locked(c, 3).await, "its lock was given back when it was done");
}
