//! Handing out tasks: which, in what order, how many, and under what lease.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use outlast_core::limits::BATCH_TASKS_MAX;
use outlast_core::{Kind, QueueControl, Rest, TaskState};

use super::case::Case;
use super::words::{
    LEASE, due, front, grouped, ids_of, retry, secs, t, task, tasks, tasks_of, with,
};

pub async fn tasks_are_claimed_in_the_order_in_which_they_came(c: &Case) {
    c.accept(t(0), tasks(&["b", "a"])).await;
    c.accept(t(0), tasks(&["d", "c"])).await;
    assert_eq!(ids_of(&c.claim(t(1), 3).await), ["b", "a", "d"]);
    assert_eq!(ids_of(&c.claim(t(1), 3).await), ["c"]);
}

pub async fn a_claimed_task_is_active_and_shows_its_lease(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let until = t(LEASE);
    let token = c.token().await;
    let lease = (claimed.lease.id.as_str(), claimed.lease.token, claimed.lease.until);
    assert_eq!(lease, ("a", token, until));
    let stored = c.record("a", t(5)).await;
    for task in [&claimed.task, &stored] {
        assert_eq!(task.state, TaskState::Active);
        assert_eq!((task.started_at, task.lease_until), (Some(t(0)), Some(until)));
        assert_eq!((task.pending_since, task.next_at), (None, None));
    }
}

pub async fn a_claimed_task_carries_all_that_was_enqueued(c: &Case) {
    let full = with(task("a"), |task| {
        task.max_retry = 3;
        task.timeout = Some(secs(90));
        task.deadline = Some(t(5000));
        task.retention = secs(600);
    });
    let task = c.running(t(1), full).await.task;
    assert_eq!((task.max_retry, task.retried, task.losses), (3, 0, 0));
    assert_eq!((task.timeout, task.deadline), (Some(secs(90)), Some(t(5000))));
    assert_eq!((task.retention, task.enqueued_at), (secs(600), Some(t(1))));
    assert_eq!((task.task_type.as_str(), &task.payload[..]), ("t", &b"a"[..]));
    assert_eq!(task.queue, c.queue);
}

pub async fn a_claimed_task_is_not_claimed_again(c: &Case) {
    c.accept(t(0), tasks(&["a"])).await;
    c.claim_one(t(1)).await;
    let mut want = c.want(5).await;
    want.token = c.other_token().await;
    assert!(c.claims(t(2), &want).await.claims.is_empty());
    let long_after = c.claims(t(1000), &want).await;
    assert!(long_after.claims.is_empty(), "only a sweep takes leases back");
}

pub async fn a_claim_takes_no_more_than_it_asks_for_and_says_that_there_is_more(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c"])).await;
    let claims = c.claims(t(1), &c.want(2).await).await;
    assert_eq!(claims.rest, Rest::More);
    assert_eq!(ids_of(&tasks_of(claims)), ["a", "b"]);
}

pub async fn a_claim_that_gets_less_than_it_asks_for_says_that_the_queue_is_empty(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    let claims = c.claims(t(1), &c.want(3).await).await;
    assert_eq!((claims.claims.len(), claims.rest), (2, Rest::Empty));
}

pub async fn a_queue_that_nobody_knows_is_empty(c: &Case) {
    let claims = c.claims(t(0), &c.want(1).await).await;
    assert_eq!((claims.claims.len(), claims.rest), (0, Rest::Empty));
    let known = c.inspect.queue(&c.queue, t(0)).await.expect("answered");
    assert_eq!(known, None, "asking for work makes no queue");
}

pub async fn a_paused_queue_hands_out_nothing_and_says_so(c: &Case) {
    c.accept(t(0), [task("a"), due("b", t(5))]).await;
    c.inspect.control(&c.queue, QueueControl::Pause, t(1)).await.expect("answered");
    let claims = c.claims(t(10), &c.want(5).await).await;
    assert_eq!((claims.claims.len(), claims.rest), (0, Rest::Paused));
    c.inspect.control(&c.queue, QueueControl::Resume, t(11)).await.expect("answered");
    assert_eq!(ids_of(&c.claim(t(12), 5).await), ["a", "b"]);
}

pub async fn tasks_that_are_due_are_claimed_without_a_sweep(c: &Case) {
    c.accept(t(0), [due("b", t(20)), due("a", t(10)), due("c", t(30))]).await;
    assert!(c.claim(t(9), 5).await.is_empty());
    assert_eq!(ids_of(&c.claim(t(20), 5).await), ["a", "b"], "a due time has come at its moment");
    assert_eq!(c.state("c").await, Some(TaskState::Scheduled));
}

pub async fn a_retry_that_is_due_is_claimed_without_a_sweep(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, retry(t(50))).await;
    assert!(c.claim(t(49), 1).await.is_empty());
    let again = c.claim_one(t(50)).await;
    assert_eq!((again.task.id.as_str(), again.task.retried), ("a", 1));
}

pub async fn a_task_that_joins_its_group_takes_no_place_from_one_that_can_run(c: &Case) {
    let member = with(due("member", t(10)), |task| task.group = grouped("g", "g").group);
    c.accept(t(0), [member, due("a", t(20))]).await;
    assert_eq!(ids_of(&c.claim(t(30), 1).await), ["a"]);
    assert_eq!(c.state("member").await, Some(TaskState::Aggregating));
}

pub async fn tasks_that_become_due_stand_behind_those_that_wait(c: &Case) {
    c.accept(t(0), [due("due", t(10))]).await;
    c.accept(t(5), tasks(&["a", "b"])).await;
    assert_eq!(ids_of(&c.claim(t(20), 5).await), ["a", "b", "due"]);
}

pub async fn claims_at_the_front_and_at_the_back_keep_their_order(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    assert_eq!(ids_of(&c.claim(t(1), 1).await), ["a"]);
    c.accept(t(2), [front("f"), task("z")]).await;
    assert_eq!(ids_of(&c.claim(t(3), 5).await), ["f", "b", "z"]);
}

pub async fn no_task_is_taken_that_would_exceed_the_byte_limit(c: &Case) {
    let ten = |name: &str| with(task(name), |task| task.payload = vec![1; 10].into());
    c.accept(t(0), [ten("a"), ten("b"), ten("c")]).await;
    let mut want = c.want(5).await;
    want.bytes_max = 25;
    let claims = c.claims(t(1), &want).await;
    assert_eq!(claims.rest, Rest::More);
    assert_eq!(ids_of(&tasks_of(claims)), ["a", "b"]);
    want.bytes_max = 10;
    c.accept(t(2), [ten("d")]).await;
    assert_eq!(
        ids_of(&tasks_of(c.claims(t(3), &want).await)),
        ["c"],
        "the limit itself is allowed"
    );
}

pub async fn the_first_task_is_taken_whatever_its_size(c: &Case) {
    let large = with(task("large"), |task| task.payload = vec![1; 5000].into());
    c.accept(t(0), [large, task("b")]).await;
    let mut want = c.want(5).await;
    want.bytes_max = 100;
    assert_eq!(ids_of(&tasks_of(c.claims(t(1), &want).await)), ["large"]);
    assert_eq!(ids_of(&tasks_of(c.claims(t(2), &want).await)), ["b"]);
}

pub async fn a_claim_for_no_task_or_too_many_is_rejected(c: &Case) {
    for tasks_max in [0, BATCH_TASKS_MAX + 1] {
        let want = c.want(tasks_max).await;
        let refused = c.broker.claim(&c.queue, super::words::stamp(1, 0, 1), t(0), &want).await;
        assert_eq!(refused.expect_err("out of bounds").kind(), Kind::Rejected, "{tasks_max}");
    }
}

pub async fn each_claim_sets_the_length_of_its_leases(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    let mut want = c.want(1).await;
    want.lease = secs(600);
    let long = tasks_of(c.claims(t(1), &want).await);
    assert_eq!(long[0].lease.until, t(601));
    assert_eq!(c.claim_one(t(1)).await.lease.until, t(1 + LEASE));
}

pub async fn claimers_that_come_together_share_the_tasks_without_overlap(c: &Case) {
    let names: Vec<String> = (0..200).map(|n| format!("{n:03}")).collect();
    c.accept(t(0), names.iter().map(|name| task(name))).await;
    let want = c.want(7).await;
    let claim = |n: u128| {
        let (broker, queue, want) = (c.broker.clone(), c.queue.clone(), want.clone());
        tokio::spawn(async move {
            broker.claim(&queue, super::words::stamp(100 + n, 0, 1), t(1), &want).await
        })
    };
    let claimers: Vec<_> = (0..40).map(claim).collect();
    let mut ids = Vec::new();
    for claimer in claimers {
        let claims = claimer.await.expect("no panic").expect("answered");
        ids.extend(tasks_of(claims).into_iter().map(|claimed| claimed.task.id.to_string()));
    }
    ids.sort();
    assert_eq!(ids, names);
}

pub async fn a_claim_leaves_other_queues_alone(c: &Case) {
    let other = super::words::queue("other");
    c.enqueue_in(&other, t(0), [task("a")]).await;
    assert!(c.claim(t(1), 1).await.is_empty());
}
