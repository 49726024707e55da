//! The ledger: what the broker has acknowledged is kept for a short while in memory, and offered again when the
//! broker turns out to have forgotten it: a failover to a replica that was behind, a restart from an old
//! snapshot, a flush.
//!
//! A lane of stamps tells exactly what was forgotten (`lost`): its lost batches go without a number, through the
//! spool, because the lane has moved on. A lane that sends nothing tells nothing, so it is asked: once a home
//! that failed answers again, or has other data, or another lane has told of a loss, the newest batch of each
//! lane is sent once more under its own stamp. A broker that remembers it answers as before; one that does not
//! applies it and tells what else the lane has lost. What is known to be finished is not offered again.
//!
//! This file is the way of every call, which only notes; what follows from the notes is done in `watch`.

mod doubts;
mod pages;
mod passing;
mod ring;
mod tidings;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outlast_core::{
    Broker, BrokerError, Claims, EnqueueVerdict, Enqueued, Lost, NewTask, QueueName, SettleVerdict,
    Settled, Settlement, Stamp, Timestamp, Want,
};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::event::Events;
use crate::layer::layer;
use crate::spool::{Loss, Spool};

pub use pages::LedgerLimits;

use doubts::{Says, says};
use pages::{About, Pages, What};
use tidings::Teller;

/// Keeps what was acknowledged.
pub(crate) struct Ledger {
    below: Arc<Breaker>,
    spool: Spool,
    events: Arc<Events>,
    pages: Mutex<Pages>,
    /// Rung when a home in doubt answers again, or a loss was told of.
    doubted: Notify,
    /// Rung when all losses that were told of have been made good.
    calmed: Notify,
    /// Which process this is, also to one that has the same pid in another container.
    me: i64,
}

layer! { Ledger, hands through [rest],
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let is_in = |verdict: &EnqueueVerdict| matches!(verdict, EnqueueVerdict::Accepted { .. });
        self.enqueue_and_keep(queue, stamp, now, tasks, is_in).await
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        let result = self.below.claim(queue, stamp, now, want).await;
        self.heard(queue, result.as_ref().err());
        let answer = result?;
        self.pages().passing.claimed(queue, &answer.claims);
        self.told(queue, stamp, answer.lost, now);
        Ok(answer)
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let result = self.below.settle(queue, stamp, now, settlements.clone()).await;
        self.heard(queue, result.as_ref().err());
        let answer = result?;
        let is_in = |verdict: &SettleVerdict| {
            matches!(verdict, SettleVerdict::Applied | SettleVerdict::Adopted)
        };
        let settlements = those(settlements, &answer.verdicts, is_in);
        // First, so that nothing which may be lost is let go for its age.
        self.told(queue, stamp, answer.lost, now);
        self.keep(queue, stamp, now, &What::Settlements(settlements));
        Ok(answer)
    }
}

/// The ledger as the drain uses it. Whoever stored a task was told yes, so it is also kept if the broker calls it a conflict or a
/// duplicate: it may be its own, acknowledged at the moment of a loss and offered again for nothing. Were it kept by nobody then,
/// the next loss would be its end. And what it delivers may be the batch of another process, which is to know of a loss that the
/// answer tells of: it has been acknowledged what is lost.
pub(crate) struct Delivering {
    pub(crate) below: Arc<Ledger>,
}

layer! { Delivering, hands through [claim rest],
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let is_there = |verdict: &EnqueueVerdict| match verdict {
            EnqueueVerdict::Accepted { .. }
            | EnqueueVerdict::Stored
            | EnqueueVerdict::Duplicate { .. }
            | EnqueueVerdict::IdConflict => true,
            EnqueueVerdict::Rejected(_) => false,
        };
        let answer = self.below.enqueue_and_keep(queue, stamp, now, tasks, is_there).await?;
        self.below.pass_on(queue, stamp, answer.lost, now).await;
        Ok(answer)
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let answer = self.below.settle(queue, stamp, now, settlements).await?;
        self.below.pass_on(queue, stamp, answer.lost, now).await;
        Ok(answer)
    }
}

/// The items whose verdicts are like this. The answer to a repeat may speak of more items than could still be read: then all.
fn those<T: Clone, V>(items: Arc<[T]>, verdicts: &[V], is_in: impl Fn(&V) -> bool) -> Arc<[T]> {
    if verdicts.len() != items.len() || verdicts.iter().all(&is_in) {
        return items;
    }
    let judged = items.iter().zip(verdicts);
    judged.filter(|(_, verdict)| is_in(verdict)).map(|(item, _)| item.clone()).collect()
}

impl Ledger {
    pub(crate) fn new(
        below: Arc<Breaker>,
        limits: LedgerLimits,
        spool: Spool,
        events: Arc<Events>,
    ) -> Self {
        let pages = Mutex::new(Pages::new(limits));
        let (doubted, calmed) = (Notify::new(), Notify::new());
        Self { below, spool, events, pages, doubted, calmed, me: rand::random() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues, and keeps the tasks whose verdicts are like this.
    async fn enqueue_and_keep(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
        is_in: impl Fn(&EnqueueVerdict) -> bool + Send,
    ) -> Result<Enqueued, BrokerError> {
        let result = self.below.enqueue(queue, stamp, now, tasks.clone()).await;
        self.heard(queue, result.as_ref().err());
        let answer = result?;
        let tasks = those(tasks, &answer.verdicts, is_in);
        self.told(queue, stamp, answer.lost, now);
        self.keep(queue, stamp, now, &What::Tasks(tasks));
        Ok(answer)
    }

    fn keep(&self, queue: &QueueName, stamp: Stamp, now: Timestamp, what: &What) {
        if what.len() == 0 {
            return;
        }
        let (at, home, queue) = (Instant::now(), self.below.home(queue), queue.clone());
        let about = About { at, home, queue, stamp, now, told: None };
        self.pages().add(about, what);
    }

    /// Notes whether the home of a queue answers.
    fn heard(&self, queue: &QueueName, error: Option<&BrokerError>) {
        let (home, says) = (self.below.home(queue), error.map_or(Says::Here, |e| says(e.kind())));
        if self.pages().heard(&home, says, Instant::now()) {
            self.doubted.notify_one();
        }
    }

    /// Notes that the answer to a batch tells of a loss.
    fn told(&self, queue: &QueueName, told_by: Stamp, lost: Option<Lost>, now: Timestamp) {
        let Some(lost) = lost else { return };
        let loss = Loss { queue: queue.clone(), told_by, lost, now };
        self.pages().tidings.add(loss, Teller::Call);
        self.doubted.notify_one();
    }

    /// Lets the other processes know of the same.
    async fn pass_on(&self, queue: &QueueName, told_by: Stamp, lost: Option<Lost>, now: Timestamp) {
        let Some(lost) = lost else { return };
        let loss = Loss { queue: queue.clone(), told_by, lost, now };
        if let Err(error) = self.spool.tell_loss(self.me, loss).await {
            tracing::error!(%error, %queue, "could not tell other processes of a loss");
        }
    }
}
