//! Moves what time has moved, a bounded step at a time.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::{SweepBudget, limits};

use super::life::Phase;
use super::shared::Shared;

/// How often; claims take due tasks by themselves, so this is for expired leases and retention.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// Steps per queue and round, so that a mountain of expired tasks does not hold up the other queues.
const STEPS_MAX: usize = 16;

/// Sweeps until the worker drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut phase = shared.phase();
    while *phase.borrow_and_update() < Phase::Draining {
        for queue in &shared.queues {
            sweep(&shared, &queue.name).await;
        }
        // Workers that started together should not sweep together.
        let pause = SWEEP_EVERY.mul_f64(rand::random_range(0.8..1.2));
        let _ =
            tokio::time::timeout(pause, phase.wait_for(|phase| *phase >= Phase::Draining)).await;
    }
}

async fn sweep(shared: &Shared, queue: &outlast_core::QueueName) {
    let budget = SweepBudget { moves_max: limits::SWEEP_MAX, recovery: Recovery::Allowed };
    for _ in 0..STEPS_MAX {
        match shared.broker.sweep(queue, shared.clock.now(), budget).await {
            Ok(swept) => {
                if swept.recovered > 0 || swept.given_up > 0 {
                    let (recovered, given_up) = (swept.recovered, swept.given_up);
                    tracing::warn!(%queue, recovered, given_up, "took tasks back from vanished workers");
                }
                if !swept.more {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%queue, kind = %error.kind(), %error, "could not sweep");
                return;
            }
        }
    }
}
