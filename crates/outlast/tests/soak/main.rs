//! A soak: a real server, producers and workers as processes of their own, and for as long as one likes something that goes wrong.
//! Every task is counted by its id.
//!
//! With the other tests it takes some seconds, so that it never rots. `scripts/soak` runs it for an hour.

#![cfg(all(target_os = "linux", feature = "redis"))]
#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]

mod fault;
mod role;
mod tally;
mod world;

use std::time::Duration;

use outlast_testkit::server::RedisServer;
use outlast_testkit::split_mix::SplitMix;
use world::World;

/// How long the faults go on among the other tests.
const SHORT: u64 = 12;

/// Tasks a second of each producer, unless something else is said.
const RATE: u64 = 50;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_no_task_is_lost_and_none_repeated_for_no_reason() {
    let Some(server) = RedisServer::or_skip(World::server()) else { return };
    let seed = number("OUTLAST_SEED").unwrap_or(1);
    let time = Duration::from_secs(number("OUTLAST_SOAK_FOR").unwrap_or(SHORT));
    let rate = number("OUTLAST_SOAK_RATE").unwrap_or(RATE);
    println!("OUTLAST_SEED={seed}: {time:?} on {}", server.version().unwrap());
    let mut world = World::new(server, rate).await;
    world.spoil(time, &mut SplitMix(seed)).await;
    let wrong = world.end().await;
    assert!(wrong.is_empty(), "OUTLAST_SEED={seed}\n{}", wrong.join("\n"));
}
