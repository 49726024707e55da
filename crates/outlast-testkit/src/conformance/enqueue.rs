//! Accepting tasks: what is stored, what is refused, and what a refusal leaves behind.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::sync::Arc;

use bytes::Bytes;
use outlast_core::limits::{MAX_RETRY_DEFAULT, PAYLOAD_BYTES_MAX, TIMEOUT_DEFAULT};
use outlast_core::{
    EnqueueVerdict, GroupName, Headers, NewTask, Place, QueueName, TaskId, TaskState, TaskType,
};

use super::case::Case;
use super::words::{
    due, front, grouped, id, ids_of, is_accepted, kept, queue, secs, t, task, tasks, unique, with,
};

pub async fn a_task_is_pending_with_the_defaults_of_asynq(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let task = c.record("a", t(5)).await;
    assert_eq!((task.state, task.queue.clone()), (TaskState::Pending, c.queue.clone()));
    assert_eq!((task.task_type.as_str(), &task.payload[..]), ("t", &b"a"[..]));
    assert_eq!((task.max_retry, task.retried, task.losses), (MAX_RETRY_DEFAULT, 0, 0));
    assert_eq!((task.timeout, task.deadline), (Some(TIMEOUT_DEFAULT), None));
    assert_eq!((task.retention, task.group, task.headers), (secs(0), None, Headers::new()));
    assert_eq!((task.last_error, task.last_failed_at, task.result), (None, None, None));
    assert_eq!((task.enqueued_at, task.pending_since), (Some(t(0)), Some(t(0))));
    assert_eq!((task.started_at, task.lease_until, task.completed_at), (None, None, None));
}

pub async fn a_pending_task_runs_next_now(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    assert_eq!(c.record("a", t(7)).await.next_at, Some(t(7)));
}

pub async fn every_option_of_a_task_is_kept(c: &Case) {
    let full = with(task("a"), |task| {
        task.max_retry = 3;
        task.timeout = Some(secs(90));
        task.deadline = Some(t(5000));
        task.retention = secs(600);
        task.headers = Headers::from([("trace".into(), "1-2-3".into())]);
    });
    c.accept(t(0), [full]).await;
    let task = c.record("a", t(0)).await;
    assert_eq!((task.max_retry, task.retention), (3, secs(600)));
    assert_eq!((task.timeout, task.deadline), (Some(secs(90)), Some(t(5000))));
    assert_eq!(task.headers.get("trace").map(String::as_str), Some("1-2-3"));
}

pub async fn a_deadline_alone_leaves_the_timeout_open(c: &Case) {
    c.accept(t(0), [with(task("a"), |task| task.deadline = Some(t(60)))]).await;
    let task = c.record("a", t(0)).await;
    assert_eq!((task.timeout, task.deadline), (None, Some(t(60))));
}

pub async fn a_second_task_with_the_same_id_is_a_conflict(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let again = with(task("a"), |task| task.payload = "other".into());
    assert_eq!(c.enqueue(t(1), [again]).await, [EnqueueVerdict::IdConflict]);
    assert_eq!(&c.record("a", t(1)).await.payload[..], b"a", "the first task is as it was");
}

pub async fn an_id_is_taken_in_every_state_and_free_after_the_task_is_gone(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    assert_eq!(c.enqueue(t(1), [task("a")]).await, [EnqueueVerdict::IdConflict]);
    c.finish(t(1), &claimed, super::words::done()).await;
    assert_eq!(c.enqueue(t(2), [task("a")]).await, [EnqueueVerdict::IdConflict]);
    c.sweep(t(101)).await;
    c.accept(t(102), [task("a")]).await;
}

pub async fn the_same_id_in_another_queue_is_another_task(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let verdicts = c.enqueue_in(&queue("other"), t(0), [task("a")]).await;
    assert!(is_accepted(&verdicts[0]), "{verdicts:?}");
    assert_eq!(c.ids(TaskState::Pending).await, ["a"]);
}

pub async fn the_same_id_twice_in_one_batch_is_stored_once(c: &Case) {
    let verdicts = c.enqueue(t(0), tasks(&["a", "a", "b"])).await;
    assert!(is_accepted(&verdicts[0]) && is_accepted(&verdicts[2]), "{verdicts:?}");
    assert_eq!(verdicts[1], EnqueueVerdict::IdConflict);
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "b"]);
}

pub async fn a_mixed_batch_is_answered_item_by_item_in_order(c: &Case) {
    c.accept(t(0), [unique("holder", "d", 60)]).await;
    let wrong =
        with(task("wrong"), |task| task.timeout = Some(std::time::Duration::from_millis(1)));
    let batch = [task("a"), unique("dup", "d", 60), wrong, task("holder"), task("b")];
    let verdicts = c.enqueue(t(1), batch).await;
    assert!(is_accepted(&verdicts[0]) && is_accepted(&verdicts[4]), "{verdicts:?}");
    assert_eq!(verdicts[1], EnqueueVerdict::Duplicate { of: Some(id("holder")) });
    assert!(matches!(&verdicts[2], EnqueueVerdict::Rejected(_)), "{verdicts:?}");
    assert_eq!(verdicts[3], EnqueueVerdict::IdConflict);
    assert_eq!(c.ids(TaskState::Pending).await, ["holder", "a", "b"]);
}

pub async fn an_empty_batch_is_answered_and_takes_its_number(c: &Case) {
    assert!(c.enqueue(t(0), []).await.is_empty());
    c.accept(t(0), [task("a")]).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["a"]);
}

pub async fn a_wrong_task_is_rejected_with_the_option_and_its_value(c: &Case) {
    let late = with(task("a"), |task| task.deadline = Some(t(10)));
    let verdicts = c.enqueue(t(20), [late]).await;
    let EnqueueVerdict::Rejected(why) = &verdicts[0] else { panic!("{verdicts:?}") };
    assert!(why.to_string().contains("deadline"), "{why}");
    assert_eq!(c.find("a", t(20)).await, None);
}

pub async fn a_payload_over_the_limit_is_rejected_and_the_rest_is_stored(c: &Case) {
    let large = with(task("large"), |task| task.payload = vec![0; PAYLOAD_BYTES_MAX + 1].into());
    let verdicts = c.enqueue(t(0), [large, task("b")]).await;
    assert!(
        matches!(&verdicts[0], EnqueueVerdict::Rejected(why) if why.to_string().contains("too large"))
    );
    assert_eq!(c.ids(TaskState::Pending).await, ["b"]);
}

pub async fn headers_come_back_as_they_were_given(c: &Case) {
    let headers: Headers = [("b", "2"), ("a", ""), ("ключ", "значение ✓"), ("A", "upper")]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    let given = with(task("a"), |task| task.headers = headers.clone());
    let claimed = c.running(t(0), given).await;
    assert_eq!(claimed.task.headers, headers);
    assert_eq!(c.record("a", t(0)).await.headers, headers);
}

pub async fn an_empty_payload_is_an_empty_payload(c: &Case) {
    let claimed = c.running(t(0), with(task("a"), |task| task.payload = Bytes::new())).await;
    assert!(claimed.task.payload.is_empty());
}

pub async fn a_payload_of_any_bytes_comes_back_unchanged(c: &Case) {
    let bytes: Bytes = (0..=255).cycle().take(1000).collect::<Vec<u8>>().into();
    let claimed = c.running(t(0), with(task("a"), |task| task.payload = bytes.clone())).await;
    assert_eq!(claimed.task.payload, bytes);
}

pub async fn a_payload_of_one_mebibyte_comes_back_unchanged(c: &Case) {
    let bytes: Bytes = (0..=250).cycle().take(1024 * 1024).collect::<Vec<u8>>().into();
    let claimed = c.running(t(0), with(task("a"), |task| task.payload = bytes.clone())).await;
    assert!(claimed.task.payload == bytes, "the payload came back changed");
}

pub async fn names_of_all_scripts_and_lengths_are_kept(c: &Case) {
    let long = "n".repeat(255);
    for name in ["задача:1", "仕事/二", "a b'c\"d%_\\*?[x]", "🦀", long.as_str()] {
        let queue = QueueName::new(name).expect("a valid queue");
        let id = TaskId::new(name).expect("a valid id");
        let mut task = NewTask::new(id.clone(), TaskType::new(name).expect("valid"), "{}".into());
        task.group = Some(GroupName::new(name).expect("a valid group"));
        let verdicts = c.enqueue_in(&queue, t(0), [task]).await;
        assert!(is_accepted(&verdicts[0]), "{name}: {verdicts:?}");
        let found = c.inspect.task(&queue, &id, t(0)).await.expect("answered").expect(name);
        let (task_type, group) = (found.task_type.as_str(), found.group.as_ref());
        assert_eq!((task_type, group.map(GroupName::as_str)), (name, Some(name)));
        let groups = c.inspect.groups(&queue).await.expect("answered");
        assert_eq!(groups[0].group.as_str(), name);
    }
}

pub async fn ids_that_differ_in_case_only_are_different(c: &Case) {
    c.accept(t(0), tasks(&["a", "A"])).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "A"]);
}

pub async fn a_task_for_later_is_scheduled(c: &Case) {
    c.accept(t(0), [due("a", t(60))]).await;
    let task = c.record("a", t(0)).await;
    assert_eq!((task.state, task.next_at), (TaskState::Scheduled, Some(t(60))));
    assert_eq!((task.enqueued_at, task.pending_since), (Some(t(0)), None));
}

pub async fn a_due_time_that_has_come_is_now(c: &Case) {
    c.accept(t(100), [due("past", t(40)), due("now", t(100))]).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["past", "now"]);
}

pub async fn a_task_of_a_group_waits_in_it(c: &Case) {
    c.accept(t(0), [grouped("a", "g")]).await;
    let task = c.record("a", t(0)).await;
    assert_eq!((task.state, task.next_at), (TaskState::Aggregating, None));
    assert_eq!(task.group.as_ref().map(GroupName::as_str), Some("g"));
    assert!(c.claim(t(1000), 1).await.is_empty(), "groups wait for a worker that knows them");
}

pub async fn a_scheduled_task_of_a_group_waits_for_its_time_first(c: &Case) {
    c.accept(t(0), [with(grouped("a", "g"), |task| task.due = Some(t(60)))]).await;
    assert_eq!(c.state("a").await, Some(TaskState::Scheduled));
    assert_eq!(c.stats(t(0)).await.groups, 0);
}

pub async fn a_task_at_the_front_starts_before_all_that_wait(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    c.accept(t(1), [front("first")]).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["first", "a", "b"]);
    assert_eq!(ids_of(&c.claim(t(2), 3).await), ["first", "a", "b"]);
}

pub async fn the_last_task_put_at_the_front_starts_first(c: &Case) {
    c.accept(t(0), [task("a"), front("b"), front("c")]).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["c", "b", "a"]);
}

pub async fn a_place_at_the_front_means_nothing_to_a_task_for_later(c: &Case) {
    c.accept(t(0), [with(due("later", t(10)), |task| task.place = Place::Front)]).await;
    c.accept(t(1), [task("a")]).await;
    c.sweep(t(10)).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["a", "later"], "it was not there to be in front");
}

pub async fn a_batch_of_the_greatest_length_is_stored_in_order(c: &Case) {
    let names: Vec<String> = (0..256).map(|n| format!("{n:03}")).collect();
    c.accept(t(0), names.iter().map(|name| task(name))).await;
    assert_eq!(c.ids(TaskState::Pending).await, names);
}

pub async fn batches_that_arrive_together_are_all_stored(c: &Case) {
    let send = |n: u128| {
        let batch: Arc<[NewTask]> = Arc::new([task(&format!("a{n}")), task(&format!("b{n}"))]);
        let stamp = super::words::stamp(100 + n, 0, 1);
        let broker = c.broker.clone();
        let queue = c.queue.clone();
        tokio::spawn(async move { broker.enqueue(&queue, stamp, t(0), batch).await })
    };
    let all: Vec<_> = (0..50).map(send).collect();
    for one in all {
        let answer = one.await.expect("no panic").expect("answered");
        assert!(answer.verdicts.iter().all(is_accepted), "{answer:?}");
    }
    assert_eq!(c.stats(t(0)).await.pending, 100);
}
