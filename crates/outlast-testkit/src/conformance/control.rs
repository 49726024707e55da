//! Pausing, resuming and removing queues.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use outlast_core::{Controlled, Outcome, QueueControl, TaskState};

use super::case::Case;
use super::words::{archive, done, due, grouped, kept, t, task};

async fn control(c: &Case, control: QueueControl, at: i64) -> Controlled {
    c.inspect.control(&c.queue, control, t(at)).await.expect("answered")
}

async fn is_known(c: &Case) -> bool {
    let queues = c.inspect.queues(t(0)).await.expect("answered");
    let one = c.inspect.queue(&c.queue, t(0)).await.expect("answered");
    assert_eq!(one.is_some(), queues.iter().any(|stats| stats.queue == c.queue));
    one.is_some()
}

pub async fn a_pause_says_since_when_and_whether_it_was_so_already(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    assert_eq!(control(c, QueueControl::Pause, 5).await, Controlled::Applied);
    assert_eq!(control(c, QueueControl::Pause, 9).await, Controlled::Unchanged);
    assert_eq!(c.stats(t(9)).await.paused_since, Some(t(5)));
    assert_eq!(control(c, QueueControl::Resume, 10).await, Controlled::Applied);
    assert_eq!(control(c, QueueControl::Resume, 11).await, Controlled::Unchanged);
    assert_eq!(c.stats(t(11)).await.paused_since, None);
}

pub async fn a_queue_that_nobody_knows_can_be_paused_beforehand(c: &Case) {
    assert_eq!(control(c, QueueControl::Pause, 0).await, Controlled::Applied);
    assert!(is_known(c).await);
    c.accept(t(1), [task("a")]).await;
    assert!(c.claim(t(2), 1).await.is_empty());
}

pub async fn a_paused_queue_accepts_tasks_and_takes_settlements(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    control(c, QueueControl::Pause, 1).await;
    c.accept(t(2), [task("b"), due("c", t(50))]).await;
    c.finish(t(3), &claimed, done()).await;
    assert_eq!(c.state("a").await, Some(TaskState::Completed));
    assert_eq!(c.stats(t(3)).await.unfinished(), 2);
}

pub async fn a_task_released_into_a_paused_queue_waits(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    control(c, QueueControl::Pause, 1).await;
    c.finish(t(2), &claimed, Outcome::Release).await;
    assert!(c.claim(t(3), 1).await.is_empty());
    control(c, QueueControl::Resume, 4).await;
    assert_eq!(c.claim(t(5), 1).await.len(), 1);
}

pub async fn groups_of_a_paused_queue_are_not_claimed(c: &Case) {
    c.accept(t(0), [grouped("a", "g")]).await;
    control(c, QueueControl::Pause, 1).await;
    assert_eq!(c.claim_group(t(100), &super::words::policy("g", 0)).await, None);
}

pub async fn an_empty_queue_is_removed(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, done()).await;
    control(c, QueueControl::Pause, 2).await;
    assert_eq!(control(c, QueueControl::RemoveIfEmpty, 3).await, Controlled::Applied);
    assert!(!is_known(c).await);
    c.accept(t(4), [task("a")]).await;
    let stats = c.stats(t(4)).await;
    assert_eq!((stats.paused_since, stats.processed_total), (None, 0), "nothing of it is left");
}

pub async fn a_queue_with_any_task_is_not_empty(c: &Case) {
    let claimed = c.running(t(0), kept("completed", 500)).await;
    c.finish(t(0), &claimed, done()).await;
    let not_empty = Controlled::NotEmpty { tasks: 1 };
    assert_eq!(control(c, QueueControl::RemoveIfEmpty, 1).await, not_empty);
    c.accept(t(1), [grouped("a", "g"), due("b", t(500))]).await;
    let not_empty = Controlled::NotEmpty { tasks: 3 };
    assert_eq!(control(c, QueueControl::RemoveIfEmpty, 2).await, not_empty);
    assert_eq!(c.stats(t(2)).await.size(), 3);
}

pub async fn a_queue_is_removed_with_its_tasks(c: &Case) {
    let claimed = c.running(t(0), task("archived")).await;
    c.finish(t(0), &claimed, archive()).await;
    c.accept(t(0), [task("a"), due("b", t(500)), grouped("c", "g")]).await;
    assert_eq!(control(c, QueueControl::RemoveWithTasks, 1).await, Controlled::Applied);
    assert!(!is_known(c).await);
    for name in ["archived", "a", "b", "c"] {
        assert_eq!(c.find(name, t(1)).await, None, "{name}");
    }
    assert!(c.inspect.groups(&c.queue).await.expect("answered").is_empty());
    assert!(c.claim(t(1000), 5).await.is_empty());
}

pub async fn a_queue_is_not_removed_while_a_task_runs(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.accept(t(0), [task("b")]).await;
    let active = Controlled::Active { tasks: 1 };
    assert_eq!(control(c, QueueControl::RemoveWithTasks, 1).await, active);
    assert_eq!(c.stats(t(1)).await.size(), 2);
    c.finish(t(2), &claimed, done()).await;
    assert_eq!(control(c, QueueControl::RemoveWithTasks, 3).await, Controlled::Applied);
}

pub async fn a_queue_that_nobody_knows_is_not_resumed_or_removed(c: &Case) {
    use QueueControl::{RemoveIfEmpty, RemoveWithTasks, Resume};
    for ask in [Resume, RemoveIfEmpty, RemoveWithTasks] {
        assert_eq!(control(c, ask, 0).await, Controlled::NoSuchQueue, "{ask:?}");
        assert!(!is_known(c).await);
    }
}

pub async fn controlling_one_queue_leaves_the_others_alone(c: &Case) {
    let other = super::words::queue("other");
    c.enqueue_in(&other, t(0), [task("a")]).await;
    c.accept(t(0), [task("a")]).await;
    control(c, QueueControl::Pause, 1).await;
    control(c, QueueControl::RemoveWithTasks, 2).await;
    let stats = c.inspect.queue(&other, t(3)).await.expect("answered").expect("known");
    assert_eq!((stats.pending, stats.paused_since), (1, None));
}
