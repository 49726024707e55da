//! Waiting: wakes for work from wherever it comes, and does not wake for what cannot be claimed.
//!
//! Real time passes here and only here. A waiter is started first and the work arrives while it waits;
//! the long limits bound a failure, a passing case does not use them up.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::future::Future;
use std::time::Duration;

use outlast_core::{Action, Command, Interest, NewTask, Outcome, QueueControl, QueueName, Woke};

use super::case::Case;
use super::words::{due, grouped, policy, queue, stamp, t, task};

/// Longer than any waiter that works, and far shorter than `AN_HOUR`: a waiter that sleeps through its
/// work does not find it at the end of its time and pass.
const PATIENCE: Duration = Duration::from_secs(10);
const AN_HOUR: Duration = Duration::from_secs(3600);

fn interest(queues: &[&QueueName]) -> Interest {
    Interest { queues: queues.iter().copied().cloned().collect(), token: None }
}

async fn wait(c: &Case, interest: &Interest, at: i64, at_most: Duration) -> Woke {
    let woke = tokio::time::timeout(PATIENCE, c.broker.wait(interest, t(at), at_most)).await;
    woke.expect("a waiter answers in time").expect("the wait is answered")
}

/// Waits again and again, as workers do (a waiter may wake for no reason), until it wakes for something.
async fn wait_until_woken(c: &Case, interest: &Interest) -> Woke {
    let woken = async {
        loop {
            let woke = wait(c, interest, 0, AN_HOUR).await;
            if woke != Woke::default() {
                return woke;
            }
        }
    };
    tokio::time::timeout(PATIENCE, woken).await.expect("the waiter wakes")
}

/// The waiter is polled first, so that `then` happens while it waits.
async fn waiting(c: &Case, interest: &Interest, then: impl Future<Output = ()>) -> Woke {
    tokio::join!(wait_until_woken(c, interest), then).0
}

fn for_the_queue(c: &Case) -> Woke {
    Woke { queues: vec![c.queue.clone()], commands: false }
}

pub async fn a_waiter_wakes_for_a_task_that_comes_while_it_waits(c: &Case) {
    let interest = interest(&[&c.queue]);
    let woke = waiting(c, &interest, c.accept(t(0), [task("a")])).await;
    assert_eq!(woke, for_the_queue(c));
}

pub async fn a_waiter_wakes_for_a_task_from_another_connection(c: &Case) {
    let Some(other) = c.unless_skipped(c.fixture.second_handle().await) else { return };
    let interest = interest(&[&c.queue]);
    let send = async {
        let tasks: std::sync::Arc<[NewTask]> = [task("a")].into();
        other.broker.enqueue(&c.queue, stamp(9, 0, 1), t(0), tasks).await.expect("answered");
    };
    assert_eq!(waiting(c, &interest, send).await, for_the_queue(c));
}

pub async fn a_waiter_does_not_wait_for_work_that_is_there_already(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let woke = wait(c, &interest(&[&c.queue]), 1, AN_HOUR).await;
    assert_eq!(woke, for_the_queue(c));
}

pub async fn a_waiter_does_not_wait_for_a_task_that_is_due_already(c: &Case) {
    c.accept(t(0), [due("a", t(10))]).await;
    let woke = wait(c, &interest(&[&c.queue]), 10, AN_HOUR).await;
    assert_eq!(woke, for_the_queue(c));
}

pub async fn a_waiter_wakes_when_a_task_becomes_due(c: &Case) {
    c.accept(t(0), [due("a", t(60))]).await;
    let started = tokio::time::Instant::now();
    let interest = interest(&[&c.queue]);
    let woken = async {
        loop {
            // Woken early, a worker waits again at the moment it is then.
            let now = t(59).plus(started.elapsed());
            let woke = c.broker.wait(&interest, now, AN_HOUR).await.expect("answered");
            if woke != Woke::default() {
                return woke;
            }
        }
    };
    let woke = tokio::time::timeout(PATIENCE, woken).await.expect("the due time wakes it");
    assert_eq!(woke, for_the_queue(c));
}

pub async fn a_waiter_ends_when_its_time_is_over(c: &Case) {
    let interest = interest(&[&c.queue]);
    for at_most in [Duration::ZERO, Duration::from_millis(20)] {
        assert_eq!(wait(c, &interest, 0, at_most).await, Woke::default());
    }
}

pub async fn a_waiter_is_not_woken_for_a_paused_queue(c: &Case) {
    c.accept(t(0), [task("a"), due("b", t(1))]).await;
    c.inspect.control(&c.queue, QueueControl::Pause, t(1)).await.expect("answered");
    let woke = wait(c, &interest(&[&c.queue]), 5, Duration::from_millis(50)).await;
    assert_eq!(woke, Woke::default());
}

pub async fn a_waiter_wakes_when_its_queue_is_resumed(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    c.inspect.control(&c.queue, QueueControl::Pause, t(1)).await.expect("answered");
    let interest = interest(&[&c.queue]);
    let resume = async {
        c.inspect.control(&c.queue, QueueControl::Resume, t(2)).await.expect("answered");
    };
    assert_eq!(waiting(c, &interest, resume).await, for_the_queue(c));
}

pub async fn a_waiter_names_only_queues_that_have_work(c: &Case) {
    let (one, two) = (queue("one"), queue("two"));
    c.enqueue_in(&two, t(0), [task("a")]).await;
    c.enqueue_in(&queue("three"), t(0), [task("a")]).await;
    let woke = wait(c, &interest(&[&one, &two]), 1, AN_HOUR).await;
    assert_eq!(woke.queues, [two]);
}

pub async fn a_waiter_wakes_for_a_task_that_is_given_back(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    let interest = interest(&[&c.queue]);
    let release = c.finish(t(1), &claimed, Outcome::Release);
    assert_eq!(waiting(c, &interest, release).await, for_the_queue(c));
}

pub async fn a_waiter_wakes_for_a_task_that_is_run_by_hand(c: &Case) {
    c.accept(t(0), [due("a", t(5000))]).await;
    let interest = interest(&[&c.queue]);
    let run = async {
        c.act_on(&Action::Run, "a", t(1)).await.expect("it is scheduled");
    };
    assert_eq!(waiting(c, &interest, run).await, for_the_queue(c));
}

/// An idle worker asked all its queues once a second as soon as it aggregated groups of one of them.
pub async fn a_waiter_wakes_for_a_group_where_the_latest_claim_had_policies(c: &Case) {
    assert_eq!(c.claim_group(t(0), &policy("g", 1)).await, None);
    let interest = interest(&[&c.queue]);
    let quiet = wait(c, &interest, 0, Duration::from_millis(700)).await;
    assert_eq!(quiet, Woke::default(), "there are no groups to be looked at");
    let join = c.accept(t(0), [grouped("a", "g")]);
    assert_eq!(waiting(c, &interest, join).await, for_the_queue(c));
    assert_eq!(c.claim_group(t(0), &policy("g", 1)).await, None, "it is not ready");
    let looked = wait(c, &interest, 0, Duration::from_millis(20)).await;
    assert_eq!(looked, Woke::default(), "somebody has looked just now");
    assert_eq!(wait_until_woken(c, &interest).await, for_the_queue(c));
}

pub async fn a_waiter_is_not_woken_for_groups_that_nobody_aggregates(c: &Case) {
    c.accept(t(0), [grouped("a", "g")]).await;
    assert_eq!(c.claim(t(1), 1).await, []);
    let woke = wait(c, &interest(&[&c.queue]), 5, Duration::from_millis(50)).await;
    assert_eq!(woke, Woke::default());
}

pub async fn a_waiter_is_not_woken_for_the_groups_of_a_paused_queue(c: &Case) {
    c.accept(t(0), [grouped("a", "g")]).await;
    assert_eq!(c.claim_group(t(0), &policy("g", 10)).await, None);
    c.inspect.control(&c.queue, QueueControl::Pause, t(1)).await.expect("answered");
    let woke = wait(c, &interest(&[&c.queue]), 5, Duration::from_millis(50)).await;
    assert_eq!(woke, Woke::default());
}

pub async fn a_waiter_wakes_for_a_command(c: &Case) {
    let interest = Interest { queues: Vec::new(), token: Some(c.token().await) };
    let tell = async {
        let told = c.inspect.tell("the-worker", &Command::Quiet, t(1)).await;
        assert!(told.expect("answered"), "the worker is alive");
    };
    let woke = waiting(c, &interest, tell).await;
    assert_eq!(woke, Woke { queues: Vec::new(), commands: true });
    assert!(wait(c, &interest, 2, AN_HOUR).await.commands, "until it has been carried out");
}

pub async fn a_waiter_is_not_woken_for_the_commands_of_others(c: &Case) {
    let token = Some(c.token().await);
    c.other_token().await;
    c.inspect.tell("the-other-worker", &Command::Stop, t(1)).await.expect("answered");
    let interest = Interest { queues: Vec::new(), token };
    let woke = wait(c, &interest, 2, Duration::from_millis(50)).await;
    assert_eq!(woke, Woke::default());
}

pub async fn a_waiter_that_is_dropped_leaves_nothing_behind(c: &Case) {
    let interest = interest(&[&c.queue]);
    for _ in 0..20 {
        let dropped = c.broker.wait(&interest, t(0), AN_HOUR);
        let _ = tokio::time::timeout(Duration::from_millis(1), dropped).await;
    }
    c.accept(t(0), [task("a")]).await;
    assert_eq!(wait(c, &interest, 1, AN_HOUR).await, for_the_queue(c));
    assert_eq!(c.claim_one(t(1)).await.task.id.as_str(), "a");
}

pub async fn every_waiter_may_wake_but_one_claims(c: &Case) {
    let interest = interest(&[&c.queue]);
    let all =
        async { tokio::join!(wait_until_woken(c, &interest), wait_until_woken(c, &interest)) };
    let ((one, two), ()) = tokio::join!(all, c.accept(t(0), [task("a")]));
    assert_eq!((one, two), (for_the_queue(c), for_the_queue(c)));
    assert_eq!((c.claim(t(1), 1).await.len(), c.claim(t(1), 1).await.len()), (1, 0));
}
