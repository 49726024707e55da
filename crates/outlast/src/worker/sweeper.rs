//! Moves what time has moved, a bounded step at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::{QueueName, SweepBudget, Timestamp, limits};
use tokio::time::Instant;

use super::holders::Holders;
use super::life::Phase;
use super::shared::{Shared, WorkerQueue};
use super::skew::{self, MEASURE_EVERY};

/// How often; claims take due tasks by themselves, so this is for expired leases and retention.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Between two sweeps that are answered lies no more than this, however short the lease.
const UNSWEPT_MAX: Duration = Duration::from_secs(5);

/// How long a queue is left alone that is refused, or that holds data of another program.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// Steps per queue and round, so that a mountain of expired tasks does not hold up the other queues.
const STEPS_MAX: usize = 16;

/// Sweeps until the worker drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut phase = shared.phase();
    let mut grace = Grace::new(shared.clock.now(), shared.lease);
    let begun = Instant::now();
    let mut measured_at = begun;
    let mut refused: HashMap<&QueueName, Instant> = HashMap::new();
    let mut holders: HashMap<&QueueName, Holders> = HashMap::new();
    while *phase.borrow_and_update() < Phase::Draining {
        let is_due = measured_at.elapsed() >= MEASURE_EVERY;
        if is_due || shared.queues.iter().any(|queue| is_unmeasured(&shared, queue)) {
            skew::measure(&shared).await;
            measured_at = Instant::now();
        }
        for queue in &shared.queues {
            if refused.get(&queue.name).is_some_and(|until| Instant::now() < *until) {
                continue;
            }
            // For a home that takes everything but this question, not for ever.
            let is_clear = queue.skew.is_known() || begun.elapsed() >= MEASURE_EVERY;
            // Anew for each queue: the one before it may have waited long for its answer.
            let recovery = grace.judge(shared.clock.now(), shared.extended_at());
            let recovery = if is_clear { recovery } else { Recovery::Withheld };
            let holders = holders.entry(&queue.name).or_default();
            match sweep(&shared, queue, recovery, holders).await {
                Swept::Done => grace.reached(shared.clock.now()),
                Swept::Failed => {}
                Swept::Refused => {
                    refused.insert(&queue.name, Instant::now() + REFUSED_PAUSE);
                }
            }
        }
        // Workers that started together should not sweep together.
        let pause = SWEEP_EVERY.mul_f64(rand::random_range(0.8..1.2));
        let _ =
            tokio::time::timeout(pause, phase.wait_for(|phase| *phase >= Phase::Draining)).await;
    }
}

/// True if nobody knows how far the clocks are apart, and the home may be asked (law L9).
fn is_unmeasured(shared: &Shared, queue: &WorkerQueue) -> bool {
    !queue.skew.is_known() && shared.is_claimable(&queue.name)
}

/// When expired leases may be taken back (law L8): not for a lease's length after this worker itself could not extend its own
/// in time, or, since one that holds none extends none, could not sweep. Whatever held it up, a suspended machine, a locked file
/// or a silent server, held up the others too, and they report first.
struct Grace {
    lease: Duration,
    reached_at: Timestamp,
    until: Option<Timestamp>,
}

impl Grace {
    fn new(now: Timestamp, lease: Duration) -> Self {
        Self { lease, reached_at: now, until: None }
    }

    /// A sweep has been answered.
    fn reached(&mut self, now: Timestamp) {
        self.notice(now);
        self.reached_at = now;
    }

    fn judge(&mut self, now: Timestamp, extended_at: Timestamp) -> Recovery {
        self.notice(now);
        if now.since(extended_at) > self.lease / 2 {
            self.until = Some(now.plus(self.lease));
        }
        match self.until {
            Some(until) if now < until => Recovery::Withheld,
            _ => Recovery::Allowed,
        }
    }

    /// Also when the answer comes at last: by the next look it would be forgotten how long it took.
    fn notice(&mut self, now: Timestamp) {
        if now.since(self.reached_at) > (self.lease / 2).max(UNSWEPT_MAX) {
            self.until = Some(now.plus(self.lease));
        }
    }
}

/// What became of a queue's turn.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Swept {
    Done,
    Failed,
    /// The queue alone cannot be swept.
    Refused,
}

async fn sweep(
    shared: &Shared,
    queue: &WorkerQueue,
    recovery: Recovery,
    holders: &mut Holders,
) -> Swept {
    let queue_name = &queue.name;
    for _ in 0..STEPS_MAX {
        let now = shared.clock.now().minus(queue.skew.ahead());
        let vanished = holders.vanished(Instant::now());
        let budget = SweepBudget { moves_max: limits::SWEEP_MAX, recovery, vanished };
        match shared.broker.sweep(queue_name, now, budget).await {
            Ok(swept) => {
                if let Some(held) = &swept.held {
                    holders.saw(held, shared.token, now, Instant::now());
                }
                if swept.recovered > 0 || swept.given_up > 0 {
                    let (recovered, given_up) = (swept.recovered, swept.given_up);
                    tracing::warn!(queue = %queue_name, recovered, given_up, "took tasks back from vanished workers");
                }
                if !swept.more {
                    return Swept::Done;
                }
            }
            Err(error) => {
                shared.failed("sweep", Some(queue_name), &error);
                return match error.concerns_its_queue() {
                    true => Swept::Refused,
                    false => Swept::Failed,
                };
            }
        }
    }
    Swept::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn a_worker_that_was_held_up_takes_nothing_back_for_the_length_of_a_lease() {
        let mut grace = Grace::new(at(100), LEASE);
        assert_eq!(grace.judge(at(105), at(100)), Recovery::Allowed);
        assert_eq!(grace.judge(at(200), at(105)), Recovery::Withheld);
        grace.reached(at(200));
        assert_eq!(grace.judge(at(201), at(201)), Recovery::Withheld, "the others report first");
        grace.reached(at(214));
        grace.reached(at(228));
        assert_eq!(grace.judge(at(229), at(228)), Recovery::Withheld);
        assert_eq!(grace.judge(at(230), at(228)), Recovery::Allowed);
    }

    /// One that held nothing had nothing to extend, so it never noticed that the server was silent.
    #[test]
    fn a_worker_without_tasks_whose_sweep_took_long_takes_nothing_back_either() {
        let mut grace = Grace::new(at(100), LEASE);
        assert_eq!(grace.judge(at(101), at(101)), Recovery::Allowed);
        grace.reached(at(117));
        assert_eq!(grace.judge(at(118), at(118)), Recovery::Withheld);
        grace.reached(at(130));
        grace.reached(at(145));
        assert_eq!(grace.judge(at(146), at(146)), Recovery::Withheld);
        assert_eq!(grace.judge(at(147), at(147)), Recovery::Allowed);
    }
}
