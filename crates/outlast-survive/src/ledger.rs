//! The ledger: what the broker has acknowledged is kept for a short while in memory, and offered again when the
//! broker turns out to have forgotten it: a failover to a replica that was behind, a restart from an old
//! snapshot, a flush.
//!
//! A lane of stamps tells exactly what was forgotten (`lost`). Every batch of the ledger is then sent again under
//! its own stamp, oldest first: the broker applies those that it has forgotten and answers the others as
//! before, or as ghosts. Only the lane that told of the loss has moved on; its lost batches go without a
//! number. What is known to be finished is not offered again.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, EnqueueVerdict, Enqueued, Epoch, Home, Lost, NewTask, Outcome, QueueName,
    SettleVerdict, Settled, Settlement, Stamp, TaskId, Timestamp,
};
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::event::{Event, Events};
use crate::layer::layer;
use crate::spool::{NewItem, Parcel, Spool, SpoolError};
use crate::verb::{Enqueues, Settlements, Verb};

/// How long acknowledged batches are kept: longer than a failover takes to lose them and to be noticed.
const KEEP_FOR: Duration = Duration::from_secs(30);

/// How much is kept at most. The oldest goes first; a loss then is told to be made good in part.
const BYTES_MAX: usize = 16 << 20;

/// What a task or a settlement takes beside its payload, about.
const ITEM_BYTES: usize = 300;

/// Keeps what was acknowledged.
pub(crate) struct Ledger {
    below: Arc<Breaker>,
    spool: Spool,
    events: Arc<Events>,
    pages: Mutex<Pages>,
}

#[derive(Default)]
struct Pages {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// When the last entry went because of its size.
    cut_at: Option<Instant>,
}

/// An acknowledged batch.
struct Entry {
    at: Instant,
    queue: QueueName,
    stamp: Stamp,
    now: Timestamp,
    what: What,
    bytes: usize,
}

enum What {
    Tasks(Arc<[NewTask]>),
    Settlements(Arc<[Settlement]>),
}

layer! { Ledger, hands through [claim rest],
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let answer = self.below.enqueue(queue, stamp, now, tasks.clone()).await?;
        if let Some(lost) = answer.lost {
            self.offer_again(queue, &stamp, lost, now).await;
        }
        let is_in = |verdict: &EnqueueVerdict| matches!(verdict, EnqueueVerdict::Accepted { .. });
        if answer.verdicts.iter().any(is_in) {
            let bytes = tasks.iter().map(|task| task.payload.len() + ITEM_BYTES).sum();
            self.keep(queue, stamp, now, (What::Tasks(tasks), bytes));
        }
        Ok(answer)
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let answer = self.below.settle(queue, stamp, now, settlements.clone()).await?;
        if let Some(lost) = answer.lost {
            self.offer_again(queue, &stamp, lost, now).await;
        }
        let is_in = |verdict: &SettleVerdict| {
            matches!(verdict, SettleVerdict::Applied | SettleVerdict::Adopted)
        };
        if answer.verdicts.iter().any(is_in) {
            let bytes = settlements.iter().map(size).sum();
            self.keep(queue, stamp, now, (What::Settlements(settlements), bytes));
        }
        Ok(answer)
    }
}

impl Ledger {
    pub(crate) fn new(below: Arc<Breaker>, spool: Spool, events: Arc<Events>) -> Self {
        Self { below, spool, events, pages: Mutex::default() }
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, queue: &QueueName, stamp: Stamp, now: Timestamp, (what, bytes): (What, usize)) {
        let (at, queue) = (Instant::now(), queue.clone());
        self.pages().add(Entry { at, queue, stamp, now, what, bytes });
    }

    /// Stores what the ledger holds of the home in the spool, to be sent again.
    async fn offer_again(&self, queue: &QueueName, told_by: &Stamp, lost: Lost, now: Timestamp) {
        let home = self.below.home(queue);
        if lost.after_seq == 0 && !self.has_other_data(&home, now).await {
            // The record of the session is gone and nothing else: too old, or evicted.
            tracing::error!(%queue, "the broker has forgotten a session, but not its data");
            return;
        }
        let (entries, is_partly) = self.pages().take(|entry| self.below.home(&entry.queue) == home);
        let finished = finished(&entries);
        let mut offered_again = 0;
        for entry in entries {
            let is_of_teller = entry.queue == *queue
                && (entry.stamp.session, entry.stamp.lane) == (told_by.session, told_by.lane);
            if is_of_teller && entry.stamp.seq <= lost.after_seq {
                continue;
            }
            match self.store(&entry, is_of_teller, &finished).await {
                Ok(count) => offered_again += count,
                Err(error) => {
                    let count = entry.what.len();
                    tracing::error!(%error, count, "could not offer again what the broker has forgotten");
                }
            }
        }
        let queue = queue.clone();
        self.events.tell(Event::Lost { queue, offered_again, is_partly });
    }

    async fn has_other_data(&self, home: &Home, now: Timestamp) -> bool {
        let before: Option<Epoch> = self.below.epoch(home);
        match (before, self.below.health(home, now).await) {
            (Some(before), Ok(health)) => before != health.epoch,
            // Not known: what is offered again under its stamp does no harm where it is still known.
            (None, _) | (_, Err(_)) => true,
        }
    }

    async fn store(
        &self,
        entry: &Entry,
        is_of_teller: bool,
        finished: &HashSet<(QueueName, TaskId)>,
    ) -> Result<u64, SpoolError> {
        let is_open = |task: &&NewTask| !finished.contains(&(entry.queue.clone(), task.id.clone()));
        let (store, items): (_, Arc<[NewItem]>) = match &entry.what {
            What::Tasks(tasks) => {
                (Enqueues::STORE, tasks.iter().filter(is_open).map(Enqueues::item).collect())
            }
            What::Settlements(settlements) => {
                (Settlements::STORE, settlements.iter().map(Settlements::item).collect())
            }
        };
        if items.is_empty() {
            return Ok(0);
        }
        let (queue, durability) = (entry.queue.clone(), entry.stamp.durability);
        let (stamp, count) = ((!is_of_teller).then_some(entry.stamp), items.len() as u64);
        let parcel = Parcel { store, queue, now: entry.now, durability, stamp, items };
        self.spool.store(parcel).await.map(|_| count)
    }
}

/// The tasks that are known to be over.
fn finished(entries: &[Entry]) -> HashSet<(QueueName, TaskId)> {
    let mut over = HashSet::new();
    for entry in entries {
        let What::Settlements(settlements) = &entry.what else { continue };
        let ends = |settlement: &&Settlement| {
            matches!(settlement.outcome, Outcome::Done { .. } | Outcome::Revoke)
        };
        let ids = settlements.iter().filter(ends).map(|settlement| settlement.lease.id.clone());
        over.extend(ids.map(|id| (entry.queue.clone(), id)));
    }
    over
}

fn size(settlement: &Settlement) -> usize {
    let carried = match &settlement.outcome {
        Outcome::Done { result } => result.as_ref().map_or(0, |result| result.len()),
        Outcome::Retry { error, .. } | Outcome::Archive { error } => error.len(),
        Outcome::Aggregated { into } => into.payload.len(),
        _ => 0,
    };
    carried + ITEM_BYTES
}

impl What {
    fn len(&self) -> usize {
        match self {
            What::Tasks(tasks) => tasks.len(),
            What::Settlements(settlements) => settlements.len(),
        }
    }
}

impl Pages {
    fn add(&mut self, entry: Entry) {
        let now = entry.at;
        self.bytes += entry.bytes;
        self.entries.push_back(entry);
        while let Some(first) = self.entries.front() {
            let is_old = now - first.at > KEEP_FOR;
            if !is_old && self.bytes <= BYTES_MAX {
                break;
            }
            if !is_old {
                self.cut_at = Some(now);
            }
            self.bytes -= first.bytes;
            self.entries.pop_front();
        }
    }

    /// The entries that are wanted, oldest first, and whether some of their time are missing.
    fn take(&mut self, is_wanted: impl Fn(&Entry) -> bool) -> (Vec<Entry>, bool) {
        let is_partly = self.cut_at.take().is_some_and(|at| at.elapsed() <= KEEP_FOR);
        let (wanted, others): (Vec<_>, Vec<_>) =
            self.entries.drain(..).partition(|entry| is_wanted(entry));
        self.entries = others.into();
        self.bytes = self.entries.iter().map(|entry| entry.bytes).sum();
        (wanted, is_partly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_core::{Durability, SessionId};

    fn entry(seq: u64, bytes: usize) -> Entry {
        let stamp = Stamp { session: SessionId(1), lane: 0, seq, durability: Durability::Accepted };
        let (queue, what) = (QueueName::stored("q"), What::Tasks([].into()));
        let now = Timestamp::from_seconds(0);
        Entry { at: Instant::now(), queue, stamp, now, what, bytes }
    }

    #[tokio::test(start_paused = true)]
    async fn entries_go_when_they_are_old_or_when_they_are_too_many_and_the_latter_is_told() {
        let mut pages = Pages::default();
        pages.add(entry(1, 10));
        tokio::time::advance(KEEP_FOR + Duration::from_secs(1)).await;
        pages.add(entry(2, 10));
        assert_eq!((pages.entries.len(), pages.bytes), (1, 10));
        let (taken, is_partly) = pages.take(|_| true);
        assert_eq!((taken.len(), is_partly, pages.bytes), (1, false, 0));
        for seq in 3..6 {
            pages.add(entry(seq, BYTES_MAX / 2));
        }
        let (taken, is_partly) = pages.take(|_| true);
        assert_eq!((taken.len(), is_partly), (2, true));
    }
}
