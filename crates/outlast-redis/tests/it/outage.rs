//! Servers that go away and come back: what is said meanwhile, and that the next call works.

use std::time::Duration;

use outlast_core::{Broker, BrokerError, Interest, Kind, Woke};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{stamp, t, task, tasks};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;

use crate::kit::{ANSWERED, CONNECTED, LONG, Place, enqueue, failed, own, shared, until, within};

async fn stored(broker: &RedisBroker, place: &Place) -> Result<(), BrokerError> {
    let session = uuid::Uuid::new_v4().as_u128();
    enqueue(broker, &place.queue, stamp(session, 0, 1), vec![task(&format!("{session:x}"))])
        .await
        .map(drop)
}

async fn waits(
    broker: &RedisBroker,
    place: &Place,
    at_most: Duration,
) -> Result<Woke, BrokerError> {
    let interest = Interest { queues: vec![place.queue.clone()], token: None };
    broker.wait(&interest, t(0), at_most).await
}

/// Waits as a worker does, which asks again after an error.
async fn wakes(broker: &RedisBroker, place: &Place) {
    let woken = |woke: &Result<Woke, BrokerError>| {
        woke.as_ref().is_ok_and(|woke| woke.queues.contains(&place.queue))
    };
    let _ = until(|| waits(broker, place, LONG), woken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_accepts_and_never_answers_is_unavailable_and_then_works_at_once() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let proxy = TcpProxy::start(server.addr()).await.expect("a port");
    proxy.black_hole();
    let broker = place.broker(&proxy.url());
    let calls = (0..10).map(|_| stored(&broker, &place));
    for answer in within(CONNECTED, futures_util::future::join_all(calls)).await {
        failed(answer, Kind::Unavailable);
    }
    assert_eq!(proxy.counts().connections, 1, "all waited for one attempt");
    proxy.heal().await.expect("healed");
    within(Duration::from_secs(1), stored(&broker, &place)).await.expect("at once");
    // And once more on a connection that worked.
    proxy.black_hole();
    failed(within(ANSWERED, stored(&broker, &place)).await, Kind::Ambiguous);
    proxy.heal().await.expect("healed");
    within(Duration::from_secs(1), stored(&broker, &place)).await.expect("at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_to_connect_outlives_the_caller_who_gave_up() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let proxy = TcpProxy::start(server.addr()).await.expect("a port");
    proxy.delay(outlast_testkit::proxy::Direction::ToClient, Duration::from_millis(150));
    let broker = place.broker(&proxy.url());
    // Each of them gives up long before the greeting is over.
    let hurried = || async {
        let call = enqueue(&broker, &place.queue, stamp(1, 0, 1), tasks(&["a"]));
        tokio::time::timeout(Duration::from_millis(200), call).await.is_ok_and(|it| it.is_ok())
    };
    until(hurried, |is_stored| *is_stored).await;
    assert_eq!((proxy.counts().connections, place.pending()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_and_comes_back_is_used_again_and_wakes_waiters() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().persistent().start()) else {
        return;
    };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    assert!(waits(&broker, &place, Duration::from_millis(50)).await.is_ok());
    let waiter = wakes(&broker, &place);
    let outage = async {
        server.kill9();
        let said = failed(within(ANSWERED, stored(&broker, &place)).await, Kind::Unavailable);
        assert!(said.contains(&server.addr().to_string()), "{said}");
        server.restart().expect("it comes back");
        let push = ["LPUSH", &place.key("pending"), "of-a-go-client"];
        server.command(&push).expect("pushed");
    };
    within(LONG, async { tokio::join!(waiter, outage) }).await;
    stored(&broker, &place).await.expect("it works again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_an_operator_kills_are_made_anew() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    stored(&broker, &place).await.expect("stored");
    place.raw(&["DEL", &place.key("pending")]);
    assert!(waits(&broker, &place, Duration::from_millis(50)).await.is_ok());
    let waiter = wakes(&broker, &place);
    let operator = async {
        for _ in 0..3 {
            place.raw(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            place.raw(&["CLIENT", "KILL", "TYPE", "pubsub", "SKIPME", "yes"]);
            // A call may be under way on the connection just then.
            until(|| stored(&broker, &place), Result::is_ok).await.expect("stored");
        }
    };
    within(Duration::from_secs(5), async { tokio::join!(waiter, operator) }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_waited_for_so_long_and_no_longer() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    stored(&broker, &place).await.expect("stored");
    server.pause().expect("it runs");
    failed(within(ANSWERED, stored(&broker, &place)).await, Kind::Ambiguous);
    // The kernel still accepts connections for it.
    failed(within(CONNECTED, stored(&broker, &place)).await, Kind::Unavailable);
    server.resume().expect("it is there");
    within(ANSWERED, stored(&broker, &place)).await.expect("it works again");
    until(async || place.pending(), |count| *count == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_server_that_loads_its_data_is_busy() {
    let builder = RedisServer::builder()
        .debug_commands()
        .set("key-load-delay", "1500")
        .set("loading-process-events-interval-bytes", "1024");
    let Some(server) = RedisServer::or_skip(builder.start()) else { return };
    let server = std::sync::Arc::new(server);
    let place = Place::new(&server);
    place.raw(&["DEBUG", "POPULATE", "1500"]);
    place.raw(&["SAVE"]);
    let broker = place.broker(&server.url());
    stored(&broker, &place).await.expect("stored");
    server.kill9();
    let starting = server.clone();
    let started = tokio::task::spawn_blocking(move || starting.restart());
    let is_loading = |answer: &Result<(), BrokerError>| match answer {
        Ok(()) => panic!("it has loaded before anybody saw that it does"),
        Err(error) => error.kind() == Kind::Busy,
    };
    let answer = until(|| stored(&broker, &place), is_loading).await;
    let said = failed(answer, Kind::Busy);
    assert!(said.contains("loading"), "{said}");
    within(LONG, started).await.expect("it ran").expect("it started");
    stored(&broker, &place).await.expect("at once");
}
