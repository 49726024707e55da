//! One server, without replicas. The numbers are those of the catalogue.

use std::time::Duration;

use outlast::survive::CircuitState;
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;

use crate::world::World;

/// How long the outages last: long enough for every breaker to open and for probes at their widest.
const OUTAGE: Duration = Duration::from_secs(4);

/// How long is counted what a sick server gets.
const LAW: Duration = Duration::from_secs(10);

/// No producer waits longer, whatever the broker does. The promise is 250 ms and an fsync; this is a build machine.
const LONGEST: Duration = Duration::from_millis(1500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_a_server_that_is_killed_and_restarted() {
    let Some(world) = World::new().await else { return };
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.kill9();
    world.pass(OUTAGE).await;
    world.server.restart().unwrap();
    let before = world.status().counts.delivered;
    let first = world.until("the first success", |world| world.status().counts.delivered > before);
    let first = first.await;
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    world.check().await;
    assert!(first < Duration::from_secs(3), "first success after {first:?}");
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    assert!(produced.longest < LONGEST, "{produced:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f76_a_producer_and_a_worker_that_start_before_their_server() {
    let Some(world) = World::new().await else { return };
    world.server.kill9();
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("tasks are stored", |world| world.accepted() > 100).await;
    world.server.restart().unwrap();
    let produced = producer.stop().await;
    world.check().await;
    assert_eq!(produced.refused, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_network_that_swallows_everything() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().persistent().start()) else {
        return;
    };
    let proxy = TcpProxy::start(server.addr()).await.unwrap();
    let world = World::at(server, &proxy.url()).await;
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    proxy.black_hole();
    world.pass(OUTAGE).await;
    proxy.heal().await.unwrap();
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    assert!(produced.longest < LONGEST, "{produced:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f27_a_server_that_is_frozen_and_runs_later_what_it_was_sent() {
    let Some(world) = World::new().await else { return };
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.pause().unwrap();
    world.pass(OUTAGE).await;
    world.server.resume().unwrap();
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    assert!(produced.longest < LONGEST, "{produced:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_server_without_memory_is_drained_by_its_workers_and_left_in_peace_by_its_producers()
{
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let producer = world.produce("t");
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    let is_open = |world: &World| {
        world.status().homes.iter().any(|home| home.produce != CircuitState::Closed)
    };
    world.until("producers back off", is_open).await;
    left_in_peace(&world, &proxy).await;
    let worker = world.work();
    world.pass(Duration::from_secs(1)).await;
    assert!(world.status().homes.iter().all(|home| home.consume == CircuitState::Closed));
    world.server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    worker.stop().await;
}

/// Law L9 itself: what reaches the server in ten seconds, handshakes of connections included, while calls go on.
async fn left_in_peace(world: &World, proxy: &TcpProxy) {
    let before = proxy.counts();
    world.pass(LAW).await;
    let after = proxy.counts();
    let (sent, made) = (after.requests - before.requests, after.connections - before.connections);
    let log = proxy.log();
    let last = &log[log.len().saturating_sub(usize::try_from(sent).unwrap())..];
    assert!(sent <= 2 * LAW.as_secs(), "{sent} commands, {made} connections in {LAW:?}: {last:?}");
    println!("{sent} commands, {made} connections in {LAW:?}");
    assert!(sent > 0, "it is asked whether it is well");
}

/// A condition under which nobody is served: producers and workers go on, the server is left in peace, and all is well afterwards.
async fn in_peace_through((world, proxy): (World, TcpProxy), begin: &[&str], end: &[&str]) {
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.command(begin).unwrap();
    let is_open = |world: &World| {
        let homes = world.status().homes;
        homes.iter().all(|home| ![home.produce, home.consume].contains(&CircuitState::Closed))
    };
    world.until("both classes are down", is_open).await;
    left_in_peace(&world, &proxy).await;
    world.server.command(end).unwrap();
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_a_server_that_was_demoted_is_left_in_peace() {
    let Some(both) = World::behind_a_proxy().await else { return };
    in_peace_through(both, &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_server_that_misses_its_replicas_is_left_in_peace() {
    let Some(both) = World::behind_a_proxy().await else { return };
    let set = |count| ["CONFIG", "SET", "min-replicas-to-write", count];
    in_peace_through(both, &set("1"), &set("0")).await;
}

/// Every probe is a connection of its own here, and still the law holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_server_that_does_not_know_its_user_any_more_is_left_in_peace() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let on = ["ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all"];
    world.server.command(&on).unwrap();
    let url = proxy.url().replace("://", "://u:pw@");
    let world = World::at(world.server, &url).await;
    in_peace_through((world, proxy), &["ACL", "DELUSER", "u"], &on).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_a_server_that_is_demoted_under_its_clients_and_promoted_again() {
    let Some(world) = World::new().await else { return };
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    world.pass(OUTAGE).await;
    world.server.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    assert!(produced.longest < LONGEST, "{produced:?}");
    worker.stop().await;
}

/// A condition that begins and ends with a command, while producers and workers go on.
async fn through(begin: &[&str], end: &[&str]) {
    let Some(world) = World::new().await else { return };
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.command(begin).unwrap();
    world.pass(OUTAGE).await;
    if !end.is_empty() {
        world.server.command(end).unwrap();
    }
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    assert!(produced.longest < LONGEST, "{produced:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_server_that_misses_its_replicas() {
    let set = |count| ["CONFIG", "SET", "min-replicas-to-write", count];
    through(&set("1"), &set("0")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f26_writes_that_are_paused_for_a_failover() {
    through(&["CLIENT", "PAUSE", "3000", "WRITE"], &[]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_permissions_that_are_taken_away_and_given_back() {
    through(
        &["ACL", "SETUSER", "default", "-evalsha", "-eval"],
        &["ACL", "SETUSER", "default", "+evalsha", "+eval"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f62_a_server_that_is_flushed_under_its_producers() {
    let Some(world) = World::new().await else { return };
    let producer = world.produce("t");
    world.until("it works", |world| world.accepted() > 100).await;
    world.server.command(&["FLUSHALL"]).unwrap();
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    assert_eq!(produced.refused, 0);
    let worker = world.work();
    world.check().await;
    assert!(world.status().counts.offered_again > 0, "{:?}", world.status().counts);
    worker.stop().await;
}
