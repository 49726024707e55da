//! How far the worker's clock is from that of its broker's server, and what follows for leases.
//!
//! Clocks differ, and a lease is written by one worker's and judged by another's. The rule: a lease is written by the later of
//! two clocks, the worker's and the server's, and judged by the earlier. So neither a worker that is ahead takes tasks of
//! living ones, nor does one that is behind lose its own. Nothing else follows: due times and everything that people read are
//! by the worker's clock alone. And no more than [`SKEW_MAX`] follows: where the server's clock is the wrong one, tasks of
//! workers that vanished come back that much later, and that is all.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use outlast_core::{Home, Timestamp};
use tokio::time::Instant;

use super::shared::Shared;

/// The greatest difference that is made good: what asynq allows for clocks, too (contract §3.0).
const SKEW_MAX: Duration = Duration::from_secs(30);

/// What is no difference: leases end at whole seconds.
const SKEW_MIN: Duration = Duration::from_secs(1);

/// How often clocks are compared. They drift by milliseconds a minute; a step shows within one.
pub(super) const MEASURE_EVERY: Duration = Duration::from_secs(60);

/// An answer that took longer says too little about now, and is not waited for.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The difference to one queue's home in milliseconds, above zero if the worker's clock is ahead; zero until it was measured.
#[derive(Debug, Default)]
pub(super) struct Skew {
    millis: AtomicI64,
    is_known: AtomicBool,
}

impl Skew {
    /// How much longer a lease has to be asked for.
    pub(super) fn behind(&self) -> Duration {
        counted(self.millis.load(Ordering::Relaxed).saturating_neg())
    }

    /// How much earlier it is for the leases of others.
    pub(super) fn ahead(&self) -> Duration {
        counted(self.millis.load(Ordering::Relaxed))
    }

    /// True once the home has answered: until then a difference may be there that nobody knows of.
    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// A home without a clock leaves what was known.
    fn set(&self, millis: Option<i64>) {
        if let Some(millis) = millis {
            self.millis.store(millis, Ordering::Relaxed);
        }
        self.is_known.store(true, Ordering::Relaxed);
    }
}

fn counted(millis: i64) -> Duration {
    let skew = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    if skew < SKEW_MIN { Duration::ZERO } else { skew.min(SKEW_MAX) }
}

/// Compares the worker's clock with those of its queues' homes. One that does not answer leaves what was known.
pub(super) async fn measure(shared: &Shared) {
    let mut homes: HashMap<Home, Option<Option<i64>>> = HashMap::new();
    for queue in &shared.queues {
        let home = shared.broker.home(&queue.name);
        // One that is sick is asked by its prober alone (law L9).
        if !shared.is_claimable(&queue.name) {
            continue;
        }
        if !homes.contains_key(&home) {
            let skew = skew_of(shared, &home).await;
            homes.insert(home.clone(), skew);
        }
        if let Some(Some(skew)) = homes.get(&home).copied() {
            queue.skew.set(skew);
        }
    }
}

/// The difference, if the home has a clock; `None` if it has not answered in time.
async fn skew_of(shared: &Shared, home: &Home) -> Option<Option<i64>> {
    let (asked, started) = (shared.clock.now(), Instant::now());
    let answer = tokio::time::timeout(ANSWER_MAX, shared.broker.health(home, asked)).await;
    let health = match answer.ok()? {
        Ok(health) => health,
        Err(error) => {
            tracing::debug!(home = %home.0, kind = %error.kind(), %error, "could not compare clocks");
            return None;
        }
    };
    let took = started.elapsed();
    let Some(clock) = health.clock else { return Some(None) };
    let skew = difference(asked, took, clock)?;
    if Duration::from_millis(skew.unsigned_abs()) >= SKEW_MIN {
        tracing::warn!(home = %home.0, ahead_ms = skew, "this machine's clock is not the broker's: set both by NTP");
    }
    Some(Some(skew))
}

/// By how many milliseconds the clock that said `asked` is ahead of one that said `theirs` half of `took` later.
fn difference(asked: Timestamp, took: Duration, theirs: Timestamp) -> Option<i64> {
    let ours = asked.plus(took / 2).as_millis();
    (took <= ANSWER_MAX).then(|| ours.saturating_sub(theirs.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_from_a_second_to_the_greatest_that_is_made_good() {
        let seconds = Duration::from_secs;
        for (millis, behind, ahead) in [
            (0, 0, 0),
            (999, 0, 0),
            (-999, 0, 0),
            (25_000, 0, 25),
            (-25_000, 25, 0),
            (400_000, 0, 30),
            (i64::MIN, 30, 0),
        ] {
            let skew = Skew::default();
            skew.set(Some(millis));
            assert_eq!(
                (skew.behind(), skew.ahead()),
                (seconds(behind), seconds(ahead)),
                "{millis}"
            );
        }
    }

    #[test]
    fn the_way_of_the_answer_is_half_of_the_time_that_it_took() {
        let (asked, theirs) = (Timestamp::from_millis(10_000), Timestamp::from_millis(8_000));
        assert_eq!(difference(asked, Duration::from_millis(600), theirs), Some(2_300));
        assert_eq!(difference(asked, Duration::from_secs(3), theirs), None, "too slow to say");
    }
}
