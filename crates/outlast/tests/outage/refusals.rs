//! A server that is there and refuses, or does not come to answer.

use std::time::Duration;

use outlast::{ErrorKind, Kind, TaskRequest, Verdict};
use outlast_testkit::server::RedisServer;
use tokio::time::Instant;

use crate::history::Step;
use crate::story::{OUTAGE, Sick, Story};
use crate::table;
use crate::world::World;

/// Commands a second of a worker that cannot read its queue: claims, and what a healthy one sends as well.
const STORM: u64 = 4;

/// Writes into the append-only file that a start reads again, each so many microseconds: two seconds in all and more.
const LOAD_DELAY: &str = "8000";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f18_a_server_that_loads_its_data() {
    let builder = RedisServer::builder().persistent();
    let builder = builder.set("key-load-delay", LOAD_DELAY);
    let builder = builder.set("loading-process-events-interval-bytes", "1024");
    let Some(mut story) = Story::begin_on(&builder).await else { return };
    let begun = Instant::now();
    // Returns when it has loaded; the producer and the worker have threads of their own.
    tokio::task::block_in_place(|| story.world.server.restart()).unwrap();
    assert!(begun.elapsed() > Duration::from_secs(1), "it had nothing to load");
    story.lasts(Sick::Hardly, Duration::from_millis(1)).await;
    assert!(story.world.history.sum().stored > 0);
    story.ends().await;
}

/// A script of somebody else's that does not end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f19_a_server_that_is_busy_with_a_script() {
    let Some(mut story) = Story::begin().await else { return };
    let server = &story.world.server;
    server.command(&["CONFIG", "SET", "lua-time-limit", "100"]).unwrap();
    let mut other = server.connect().unwrap();
    // Nobody waits for its answer longer than a reply may take, and it is killed before.
    let script =
        tokio::task::spawn_blocking(move || other.command(&["EVAL", "while true do end", "0"]));
    story.lasts(Sick::Down, Duration::from_secs(3)).await;
    story.world.server.command(&["SCRIPT", "KILL"]).unwrap();
    assert!(script.await.unwrap().is_err());
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f20_a_server_without_memory_is_drained_by_its_workers_and_left_in_peace_by_its_producers()
{
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    story.lasts(Sick::Produce, OUTAGE).await;
    story.assert_peace();
    story.world.server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f22_a_server_that_cannot_save_its_snapshot() {
    let builder = RedisServer::builder().persistent().set("enable-protected-configs", "yes");
    let Some(mut story) = Story::begin_on(&builder).await else { return };
    let server = &story.world.server;
    let gone = tempfile::tempdir().unwrap();
    let folder = gone.path().display().to_string();
    server.command(&["CONFIG", "SET", "dir", &folder]).unwrap();
    drop(gone);
    server.command(&["CONFIG", "SET", "save", "3600 1"]).unwrap();
    server.command(&["BGSAVE"]).unwrap();
    story.lasts(Sick::Down, OUTAGE).await;
    let folder = story.world.server.dir().display().to_string();
    story.world.server.command(&["CONFIG", "SET", "dir", &folder]).unwrap();
    story.world.server.command(&["BGSAVE"]).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f25_a_server_that_misses_its_replicas_is_left_in_peace() {
    let Some(mut story) = Story::begin().await else { return };
    let set = |count| ["CONFIG", "SET", "min-replicas-to-write", count];
    story.world.server.command(&set("1")).unwrap();
    story.lasts_in_peace().await;
    story.world.server.command(&set("0")).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f26_writes_that_are_paused_for_a_failover() {
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.command(&["CLIENT", "PAUSE", "60000", "WRITE"]).unwrap();
    story.lasts(Sick::Silent, OUTAGE).await;
    story.world.server.command(&["CLIENT", "UNPAUSE"]).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f26_everything_is_paused() {
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.command(&["CLIENT", "PAUSE", "4000", "ALL"]).unwrap();
    story.lasts(Sick::Hardly, Duration::from_millis(4000)).await;
    story.ends().await;
}

/// What was sent before is run later, when nobody waits for it any more: each of it is a ghost (F55).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f27_a_server_that_is_frozen_and_runs_later_what_it_was_sent() {
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.pause().unwrap();
    story.lasts(Sick::Silent, OUTAGE).await;
    story.world.server.resume().unwrap();
    story.ends().await;
}

/// A task that this server can never take, and that costs it the connection. Its caller hears the server's words, or, if the
/// connection broke before they came, the outbox does, and puts it away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f30_a_task_that_is_larger_than_the_server_takes_holds_up_no_other() {
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.command(&["CONFIG", "SET", "proto-max-bulk-len", "1mb"]).unwrap();
    // Ours to take, and with what is around it more than this server's.
    let request = TaskRequest::raw("count", vec![b'x'; 1024 * 1024]).id("large");
    story.world.history.add("large", Step::Invoked);
    story.world.unfit = 1;
    match story.world.client.enqueue(request).await {
        Ok(receipt) => assert_eq!(receipt.verdict, Verdict::Stored),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Broker(Kind::Rejected)),
    }
    story.world.history.add("large", Step::Unclear);
    story.lasts(Sick::Hardly, OUTAGE).await;
    story.world.server.command(&["CONFIG", "SET", "proto-max-bulk-len", "512mb"]).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f31_scripts_that_are_forgotten_again_and_again() {
    let Some(mut story) = Story::begin().await else { return };
    for _ in 0..10 {
        story.world.server.command(&["SCRIPT", "FLUSH"]).unwrap();
        story.lasts(Sick::Hardly, Duration::from_millis(100)).await;
    }
    assert_eq!(story.world.status().counts.outages, 0);
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f32_a_server_that_was_demoted_is_left_in_peace() {
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    story.lasts_in_peace().await;
    story.world.server.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    story.ends().await;
}

/// Somebody's program has put something else where a queue's line is. Its producers are told, its worker waits between two looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f64_a_queue_whose_key_is_of_another_kind_costs_its_server_no_storm() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let key = "asynq:{default}:pending";
    world.server.command(&["SET", key, "x"]).unwrap();
    let worker = world.work();
    let asked = || proxy.seen("EVALSHA");
    world.until("it was asked", |_| asked() > 5).await;
    let told = world.client.enqueue(TaskRequest::raw("count", "")).await;
    assert_eq!(told.unwrap_err().kind(), ErrorKind::Broker(Kind::Corrupt));
    let before = proxy.counts().requests;
    world.pass(OUTAGE).await;
    let sent = proxy.counts().requests - before;
    assert!(sent <= STORM * OUTAGE.as_secs(), "{sent} commands: {:?}", proxy.log());
    world.server.command(&["DEL", key]).unwrap();
    let producer = world.produce("t");
    world.until("it works again", |world| world.accepted() > 20).await;
    producer.stop().await;
    world.check().await;
    worker.stop().await;
    table::tell(&format!(
        "{sent} commands of its worker in {OUTAGE:?}; producers are told what is wrong"
    ));
}
