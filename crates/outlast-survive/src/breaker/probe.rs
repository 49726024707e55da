//! Asks whether a home is back: one task per home that is down, one probe at a time, until all its circuits
//! are closed. It never gives up.
//!
//! The probe is the broker's own `health`, which writes: a ping is answered by a server that is read-only,
//! out of memory, or short of replicas.

use std::sync::Weak;
use std::time::Duration;

use outlast_core::{BrokerError, Health, Home, Kind, Role};

use super::Breaker;
use super::circuit::Outcome;
use super::pass::Why;
use crate::event::Counter;

/// A probe that takes longer has failed: a home that is well answers in milliseconds.
const PROBE_MAX: Duration = Duration::from_secs(1);

/// Starts the prober of a home. It holds the breaker only while it works, and ends with it.
pub(super) fn start(breaker: Weak<Breaker>, home: Home) {
    tokio::spawn(async move {
        while let Some(pause) = breaker.upgrade().and_then(|breaker| breaker.pause(&home)) {
            tokio::time::sleep(pause).await;
            let Some(breaker) = breaker.upgrade() else { return };
            breaker.probe(&home).await;
        }
    });
}

/// Looks after a home that is met for the first time, so that it is known whose data it has.
pub(super) fn meet(breaker: Weak<Breaker>, home: Home) {
    tokio::spawn(async move {
        let Some(breaker) = breaker.upgrade() else { return };
        let health = breaker.below.health(&home, breaker.clock.now());
        // If it is down, the prober will see.
        if let Ok(Ok(health)) = tokio::time::timeout(PROBE_MAX, health).await {
            breaker.saw(&home, &health);
        }
    });
}

/// Looks how full a home is that is well.
pub(super) fn look(breaker: Weak<Breaker>, home: Home) {
    tokio::spawn(async move {
        let Some(breaker) = breaker.upgrade() else { return };
        let health = breaker.below.health(&home, breaker.clock.now());
        match tokio::time::timeout(PROBE_MAX, health).await {
            Ok(Ok(health)) => breaker.saw(&home, &health),
            // Whether it is sick its calls will show.
            Ok(Err(_)) | Err(_) => breaker.saw_nothing(&home),
        }
    });
}

impl Breaker {
    fn saw_nothing(&self, home: &Home) {
        if let Some(state) = self.homes().get_mut(home) {
            state.pressure.seen(None, self.watermark.as_ref(), self.begun.elapsed());
        }
    }

    /// How long until the next probe; `None` if none is needed any more, and the prober is to end.
    fn pause(&self, home: &Home) -> Option<Duration> {
        let mut homes = self.homes();
        let state = homes.get_mut(home)?;
        match state.probe_at() {
            Some(at) => Some(at.saturating_sub(self.begun.elapsed())),
            None => {
                state.is_probed = false;
                None
            }
        }
    }

    async fn probe(&self, home: &Home) {
        self.events.add(Counter::SickCalls, 1);
        let health = tokio::time::timeout(PROBE_MAX, self.below.health(home, self.clock.now()));
        let answer = health.await.unwrap_or_else(|_| {
            let what = format!("broker {} did not answer a probe", home.0);
            Err(BrokerError::new(Kind::Ambiguous, what))
        });
        let answer = answer.and_then(|health| writes(home, health));
        if let Ok(health) = &answer {
            self.saw(home, health);
        }
        let outcome = Outcome::of(answer.as_ref().err().map(BrokerError::kind));
        let is_full = answer.as_ref().is_ok_and(|health| health.memory.is_full);
        self.happened(home, answer.as_ref().err().map_or(Why::Full, Why::Failed), |state, now| {
            state.probed(outcome, is_full, now);
            None
        });
    }
}

/// A home that may only be read is up for nobody.
fn writes(home: &Home, health: Health) -> Result<Health, BrokerError> {
    match health.role {
        Role::Primary => Ok(health),
        _ => {
            let what = format!("broker {} is a replica and takes no writes", home.0);
            Err(BrokerError::new(Kind::Unavailable, what))
        }
    }
}
