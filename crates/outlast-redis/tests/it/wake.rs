//! What waiting costs, how fast it ends, and how many connections all of it takes.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::{Broker, Inspect, Interest, QueueControl, QueueName, Want, Woke};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{beat, budget, policy, queue, stamp, t, tasks, worker};
use outlast_testkit::server::RedisServer;
use tokio::time::Instant;

use crate::kit::{LONG, Place, own, token, until, want, within};

/// Commands that the server has run so far, this question and its connection's greeting left out.
fn commands(server: &RedisServer) -> i64 {
    let page = server.command(&["INFO", "commandstats"]).expect("answered").text();
    let page = page.expect("a page");
    let mut calls = 0;
    for line in page.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let (name, facts) = line.split_once(':').expect("name and facts");
        let count = facts.strip_prefix("calls=").and_then(|it| it.split(',').next());
        if name != "info" {
            calls += count.and_then(|it| it.parse::<i64>().ok()).expect("a number");
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_on_many_quiet_queues_sends_less_than_a_command_a_second() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    let queues: Vec<QueueName> = (0..20).map(|n| queue(&format!("q{n}"))).collect();
    let paused = broker.control(&queues[7], QueueControl::Pause, t(0)).await;
    paused.expect("paused");
    let other = place.broker(&server.url());
    let batch = tasks(&["waits"]).into();
    other.enqueue(&queues[7], stamp(1, 0, 1), t(0), batch).await.expect("stored");
    let interest = Interest { queues, token: Some(token()) };
    let armed = broker.wait(&interest, t(0), Duration::from_millis(300)).await;
    assert_eq!(armed.expect("no error"), Woke::default());
    let before = commands(&server);
    let seconds = 4;
    let waiters = (0..5).map(|_| broker.wait(&interest, t(0), LONG));
    let waiting = futures_util::future::join_all(waiters);
    let woken = tokio::time::timeout(Duration::from_secs(seconds), waiting).await;
    assert!(woken.is_err(), "nothing happened, and it woke: {woken:?}");
    let sent = commands(&server) - before;
    println!("{sent} commands in {seconds} s of waiting by five waiters on 20 queues");
    assert!(sent < i64::try_from(seconds).expect("small"), "{sent}");
}

/// One group policy made an idle worker claim from each of its queues once a second: groups become ready by time alone, and
/// the wait ended every second for all of them, though there was no group anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_for_groups_on_many_quiet_queues_sends_less_than_a_command_a_second() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    let queues: Vec<QueueName> = (0..20).map(|n| queue(&format!("q{n}"))).collect();
    let aggregating = Want { groups: [policy("*", 1)].into(), ..want(1) };
    for queue in &queues {
        let claims = broker.claim(queue, stamp(1, 0, 1), t(0), &aggregating).await;
        assert!(claims.expect("answered").claims.is_empty());
    }
    let interest = Interest { queues: queues.clone(), token: Some(token()) };
    let armed = broker.wait(&interest, t(0), Duration::from_millis(300)).await;
    assert_eq!(armed.expect("no error"), Woke::default());
    let (before, seconds) = (commands(&server), 4);
    let waiting = broker.wait(&interest, t(0), LONG);
    let woken = tokio::time::timeout(Duration::from_secs(seconds), waiting).await;
    assert!(woken.is_err(), "nothing happened, and it woke: {woken:?}");
    let sent = commands(&server) - before;
    println!("{sent} commands in {seconds} s of waiting for groups on 20 queues");
    assert!(sent < i64::try_from(seconds).expect("small"), "{sent}");
    // As a Go client joins a group: nothing of ours is there to ring.
    let waiting = tokio::spawn(async move { broker.wait(&interest, t(5), LONG).await });
    let key = |name: &str| format!("{}:{{q7}}:{name}", place.namespace);
    place.raw(&["ZADD", &key("g:mail"), "1795521600", "a"]);
    place.raw(&["SADD", &key("groups"), "mail"]);
    let woke = within(Duration::from_secs(1), waiting).await.expect("it ends").expect("no error");
    assert_eq!(woke.queues, [queues[7].clone()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_waiters_one_gets_the_task_that_a_go_client_pushed() {
    let Some(server) = own() else { return };
    let place = Arc::new(Place::new(&server));
    let handles: Vec<RedisBroker> = (0..4).map(|_| place.broker(&server.url())).collect();
    let interest = Interest { queues: vec![place.queue.clone()], token: None };
    for broker in &handles {
        let woke = broker.wait(&interest, t(0), Duration::from_millis(50)).await;
        assert_eq!(woke.expect("no error"), Woke::default());
    }
    let (tell, mut told) = tokio::sync::mpsc::channel(20);
    let mut waiters = tokio::task::JoinSet::new();
    for nth in 0..20_u64 {
        let broker = handles[usize::try_from(nth).expect("small") % 4].clone();
        waiters.spawn(claims_forever(broker, place.clone(), 1000 + u128::from(nth), tell.clone()));
    }
    for push in 1..=8 {
        let name = format!("task-{push}");
        written_as_by_go(&place, &handles[0], &name).await;
        let before = commands(&server);
        place.raw(&["LPUSH", &place.key("pending"), &name]);
        within(LONG, told.recv()).await.expect("somebody got it");
        // The others come too late, and wait again.
        let another = tokio::time::timeout(Duration::from_millis(300), told.recv()).await;
        assert!(another.is_err(), "one task, and two got it");
        let caused = commands(&server) - before - 1;
        println!("push {push} to 20 waiters of 4 processes caused {caused} commands");
        assert!(caused < 20 * 40, "{caused}");
        assert_eq!((place.pending(), place.count("LLEN", "active")), (0, push));
    }
    waiters.abort_all();
}

/// As a worker does: wait, claim, and wait again.
async fn claims_forever(
    broker: RedisBroker,
    place: Arc<Place>,
    session: u128,
    tell: tokio::sync::mpsc::Sender<u128>,
) {
    let interest = Interest { queues: vec![place.queue.clone()], token: None };
    let mut seq = 1;
    loop {
        let woke = broker.wait(&interest, t(0), LONG).await.expect("no error");
        if woke.queues.is_empty() {
            continue;
        }
        let claims = broker.claim(&place.queue, stamp(session, 0, seq), t(1), &want(1)).await;
        if !claims.expect("answered").claims.is_empty() {
            seq += 1;
            tell.send(session).await.expect("somebody listens");
        }
    }
}

/// The record of a task that is in no line yet.
async fn written_as_by_go(place: &Place, broker: &RedisBroker, name: &str) {
    let aside = queue("aside");
    let session = uuid::Uuid::new_v4().as_u128();
    let stored = broker.enqueue(&aside, stamp(session, 0, 1), t(0), tasks(&[name]).into()).await;
    stored.expect("stored");
    let record = format!("{}:{{aside}}:t:{name}", place.namespace);
    place.raw(&["RENAME", &record, &place.key(&format!("t:{name}"))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_wakes_soon_after_a_push() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    let interest = Interest { queues: vec![place.queue.clone()], token: None };
    let mut took = Vec::new();
    for _ in 0..200 {
        let woke = broker.wait(&interest, t(0), Duration::from_millis(2)).await;
        assert_eq!(woke.expect("no error"), Woke::default());
        let waiting = {
            let (broker, interest) = (broker.clone(), interest.clone());
            tokio::spawn(async move {
                let woke = broker.wait(&interest, t(0), LONG).await.expect("no error");
                (woke, Instant::now())
            })
        };
        tokio::task::yield_now().await;
        let pushed = Instant::now();
        place.raw(&["LPUSH", &place.key("pending"), "a"]);
        let (woke, at) = waiting.await.expect("it ends");
        assert_eq!(woke.queues, std::slice::from_ref(&place.queue));
        took.push(at - pushed);
        place.raw(&["DEL", &place.key("pending")]);
        let is_quiet = async || broker.wait(&interest, t(0), Duration::ZERO).await;
        let quiet = |woke: &Result<Woke, _>| woke.as_ref().is_ok_and(|it| it.queues.is_empty());
        until(is_quiet, quiet).await.expect("no error");
    }
    took.sort();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("a waiter wakes after a push in {p50:?} (p50), {p99:?} (p99)");
    // Half a millisecond where nothing else runs: the median forgives a busy machine, and none that was slept through.
    assert!(p50 < Duration::from_millis(50), "{p50:?}");
    assert!(p99 < Duration::from_secs(1), "{p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_has_at_most_six_connections() {
    let Some(server) = own() else { return };
    let place = Arc::new(Place::new(&server));
    let broker = place.broker(&server.url());
    let clients = || {
        let list = server.command(&["CLIENT", "LIST"]).expect("answered").text();
        // The place has one, and so has this question.
        list.expect("a list").lines().count() - 2
    };
    let mut calls = tokio::task::JoinSet::new();
    for nth in 0..50_u128 {
        let (broker, place) = (broker.clone(), place.clone());
        calls.spawn(async move {
            let name = format!("task-{nth}");
            let queue = &place.queue;
            let interest = Interest { queues: vec![queue.clone()], token: Some(token()) };
            let batch = tasks(&[&name]).into();
            broker.enqueue(queue, stamp(nth, 0, 1), t(0), batch).await.expect("stored");
            broker.wait(&interest, t(0), Duration::from_millis(50)).await.expect("no error");
            broker.claim(queue, stamp(nth, 1, 1), t(1), &want(1)).await.expect("answered");
            let worker = worker(&format!("w{nth}"));
            broker.beat(t(0), &beat(worker, None, 30)).await.expect("answered");
            broker.sweep(queue, t(2), budget(10)).await.expect("answered");
            broker.queues(t(0)).await.expect("answered");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("it ends");
    }
    let most = clients();
    println!("{most} connections");
    assert!((1..=6).contains(&most), "{most}");
    broker.close();
    until(async || clients(), |count| *count == 0).await;
}
