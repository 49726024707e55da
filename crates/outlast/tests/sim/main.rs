//! A simulation in virtual time: real clients and workers of the library with real spools, a broker from the testkit, foreign
//! workers by the contract's rules, and faults that all come from one number. Afterwards the promises are checked.
//!
//! A seed stands for a plan of faults, not for a run to the letter: sessions and jitter are drawn at random by the library itself.
//! A seed that has failed once is run again and again here.
//!
//! `OUTLAST_SEED=7` runs one seed, `OUTLAST_SIM_FOR=600` runs fresh ones for so many seconds.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]

mod history;
mod peer;
mod plan;
mod process;
mod work;
mod world;

use std::hash::{BuildHasher, Hasher};
use std::sync::Mutex;
use std::time::Duration;

use plan::Plan;
use world::World;

/// One world at a time: a process knows the thread of its spool because no other begins meanwhile.
static ALONE: Mutex<()> = Mutex::new(());

/// How long fresh seeds are tried unless something else is said.
const FRESH_FOR: Duration = Duration::from_secs(20);

fn check(seed: u64) {
    let _alone = ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match World::new(Plan::of(seed)).run() {
        Ok(size) => println!("seed {seed}: {size}"),
        Err(how) => panic!("{how}"),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn the_promises_hold_in_worlds_that_are_always_the_same() {
    (1..=6).for_each(check);
}

/// A process without workers asked a full server two or three times a second.
#[test]
fn seed_79_a_full_server_is_left_in_peace() {
    check(79);
}

/// Workers that had started while the server was silent did not know how far their clocks were from its own, and those that were ahead
/// took the tasks of one that was behind, again and again.
#[test]
fn seed_166_no_task_is_taken_by_a_clock_that_was_never_compared() {
    check(166);
}

/// A task that was accepted in the moment of a loss was offered again, met itself, and was kept by nobody when the server was flushed
/// once more.
#[test]
fn seeds_561_and_703_a_task_that_met_itself_outlives_the_next_loss() {
    [561, 703].into_iter().for_each(check);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a time box is of real time")]
fn the_promises_hold_in_worlds_that_nobody_has_seen() {
    if let Some(seed) = number("OUTLAST_SEED") {
        return check(seed);
    }
    let limit = number("OUTLAST_SIM_FOR").map_or(FRESH_FOR, Duration::from_secs);
    let begun = std::time::Instant::now();
    while begun.elapsed() < limit {
        // The standard library's hasher is keyed at random, and no other source is at hand.
        let seed = std::hash::RandomState::new().build_hasher().finish() % 1_000_000;
        check(seed);
    }
}
