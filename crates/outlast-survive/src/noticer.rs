//! Tells the other processes of this machine of an outage: since when a broker is down is known to those who use it, and
//! asked by a command that has only just started.
//!
//! It writes what is, not what happened: whatever is missed, the next round says it. A process that is killed leaves a
//! notice which nobody renews, and which counts for nothing half a minute later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::Clock;
use crate::breaker::{Breaker, CircuitState, HomeStatus};
use crate::spool::Spool;

/// How often a notice is written again while the outage lasts: an fsync each.
const AGAIN: Duration = Duration::from_secs(5);

/// Writes the notices of one process.
pub(crate) struct Noticer {
    breaker: Arc<Breaker>,
    spool: Spool,
    clock: Clock,
    /// Which process this is, also to one that has the same pid in another container.
    me: i64,
    /// Something may be in the file.
    is_told: AtomicBool,
}

impl Noticer {
    pub(crate) fn new(breaker: Arc<Breaker>, spool: Spool, clock: Clock) -> Self {
        Self { breaker, spool, clock, me: rand::random(), is_told: AtomicBool::new(false) }
    }

    /// For ever. Safe to drop at any moment.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut changes = self.breaker.changes();
        let (mut told, mut at) = (Vec::new(), Instant::now());
        loop {
            changes.borrow_and_update();
            let down = self.down();
            let news: Vec<_> = down.iter().map(gist).collect();
            let is_due = !news.is_empty() && at.elapsed() >= AGAIN;
            if news != told || is_due {
                self.write(down).await;
                (told, at) = (news, Instant::now());
            }
            let _ = tokio::time::timeout(AGAIN, changes.changed()).await;
        }
    }

    /// Takes back what was said: nobody will renew it.
    pub(crate) async fn end(&self) {
        if self.is_told.load(Ordering::Acquire) {
            self.write(Vec::new()).await;
        }
    }

    fn down(&self) -> Vec<HomeStatus> {
        let homes = self.breaker.status().into_iter();
        homes.filter(|status| status.outage.is_some()).collect()
    }

    async fn write(&self, down: Vec<HomeStatus>) {
        self.is_told.store(true, Ordering::Release);
        if let Err(error) = self.spool.notice(self.me, down, self.clock.now()).await {
            // A disk that does not take tasks tells of it elsewhere.
            tracing::debug!(%error, "could not note the outage for other processes");
        }
    }
}

/// What is worth a write at once: trials come and go twice a second.
fn gist(status: &HomeStatus) -> impl PartialEq + use<> {
    let passes = |state| state == CircuitState::Closed;
    (status.home.clone(), status.outage.clone(), passes(status.produce), passes(status.consume))
}
