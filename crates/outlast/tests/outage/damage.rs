//! Replies that are lost after their command was applied, and servers that come back with less than they had acknowledged.

use std::path::Path;
use std::time::Duration;

use outlast_testkit::server::RedisServer;

use crate::story::{Meter, Sick, Story};
use crate::world::World;

/// Whatever it was: an enqueue, a claim, a settlement, an extension. Each was applied, and nobody was told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_f51_f52_replies_that_are_lost_again_and_again() {
    let Some(mut story) = Story::begin().await else { return };
    for _ in 0..30 {
        story.proxy().lose_next_reply_to("EVALSHA");
        story.lasts(Sick::Hardly, Duration::from_millis(150)).await;
    }
    let lost = story.proxy().counts().replies_lost;
    assert!(lost >= 10, "{lost}");
    story.proxy().heal().await.unwrap();
    story.ends().await;
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
    // Finding 13 of asynq: the queue is listed again.
    let listed = world.server.command(&["SISMEMBER", "asynq:queues", "default"]).unwrap();
    assert_eq!(listed.int(), Some(1));
    let worker = world.work();
    world.check().await;
    assert!(world.status().counts.offered_again > 0, "{:?}", world.status().counts);
    worker.stop().await;
    crate::table::write(&crate::story::Seen::default(), &world.history.sum());
}

/// Nothing is on its disk. Tasks that had run were run again once: the outcomes' lane told of the loss before the tasks' did, and
/// with the outcomes the ledger gave away what it knew of them. What had run and was not reported yet when it was killed may run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_a_server_that_keeps_nothing_and_is_killed() {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    let url = server.url();
    let mut world = World::at(server, &url).await;
    world.forgets = true;
    let mut story = Story::of(world, Meter::None).await;
    story.world.server.kill9();
    story.lasts(Sick::Down, Duration::from_secs(2)).await;
    story.world.server.restart().unwrap();
    story.ends().await;
}

/// The page cache outlives the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_a_server_that_syncs_once_a_second_and_is_killed() {
    let builder = RedisServer::builder().set("appendonly", "yes").set("appendfsync", "everysec");
    let Some(server) = RedisServer::or_skip(builder.start()) else { return };
    let url = server.url();
    let mut story = Story::of(World::at(server, &url).await, Meter::None).await;
    story.world.server.kill9();
    story.lasts(Sick::Down, Duration::from_secs(2)).await;
    story.world.server.restart().unwrap();
    story.ends().await;
}

/// What a power cut leaves of an append-only file that was not synced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f60_a_server_whose_last_writes_are_gone() {
    let Some(world) = World::new().await else { return };
    let producer = world.produce("t");
    world.until("it works", |world| world.accepted() > 300).await;
    world.server.kill9();
    cut_tail(&world.server.dir().join("appendonlydir"));
    world.server.restart().unwrap();
    let healthy = world.status().counts.delivered;
    world.until("it is back", |world| world.status().counts.delivered > healthy).await;
    world.pass(Duration::from_secs(1)).await;
    let produced = producer.stop().await;
    assert_eq!(produced.refused, 0);
    let worker = world.work();
    world.check().await;
    assert!(world.status().counts.offered_again > 0, "{:?}", world.status().counts);
    worker.stop().await;
    crate::table::write(&crate::story::Seen::default(), &world.history.sum());
}

/// The last quarter of the file goes.
fn cut_tail(folder: &Path) {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let tail =
        entries.into_iter().find(|path| path.to_string_lossy().ends_with(".incr.aof")).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(tail).unwrap();
    let len = file.metadata().unwrap().len();
    file.set_len(len / 4 * 3).unwrap();
}
