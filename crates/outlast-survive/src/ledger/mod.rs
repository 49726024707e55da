//! The ledger: what the broker has acknowledged is kept for a short while in memory, and offered again when the
//! broker turns out to have forgotten it: a failover to a replica that was behind, a restart from an old
//! snapshot, a flush.
//!
//! A lane of stamps tells exactly what was forgotten (`lost`): its lost batches go without a number, through the
//! spool, because the lane has moved on. A lane that sends nothing tells nothing, so it is asked: once a home
//! that failed answers again, or has other data, or another lane has told of a loss, the newest batch of each
//! lane is sent once more under its own stamp. A broker that remembers it answers as before; one that does not
//! applies it and tells what else the lane has lost. What is known to be finished is not offered again.

mod doubts;
mod pages;
mod passing;
mod ring;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Claims, EnqueueVerdict, Enqueued, Home, Kind, Lost, NewTask, QueueName,
    SettleVerdict, Settled, Settlement, Stamp, Timestamp, Want,
};
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;

use crate::breaker::Breaker;
use crate::event::{Event, Events};
use crate::layer::layer;
use crate::spool::{NewItem, Parcel, Spool, SpoolError};
use crate::verb::{Enqueues, Settlements, Verb};

pub use pages::LedgerLimits;

use doubts::{Queues, Says, says};
use pages::{About, Entry, Pages, What};

/// Between two rounds of questions: a home that fails every now and then is not asked all the time.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Keeps what was acknowledged.
pub(crate) struct Ledger {
    below: Arc<Breaker>,
    spool: Spool,
    events: Arc<Events>,
    pages: Mutex<Pages>,
    /// Rung when a home in doubt answers again.
    doubted: Notify,
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
        self.told(queue, &stamp, answer.lost, now).await;
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
        self.keep(queue, stamp, now, &What::Settlements(settlements));
        self.told(queue, &stamp, answer.lost, now).await;
        Ok(answer)
    }
}

/// The ledger as the drain uses it. Whoever stored a task was told yes, so it is also kept if the broker calls it a conflict or a
/// duplicate: it may be its own, acknowledged at the moment of a loss and offered again for nothing. Were it kept by nobody then,
/// the next loss would be its end.
pub(crate) struct Delivering {
    pub(crate) below: Arc<Ledger>,
}

layer! { Delivering, hands through [claim settle rest],
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
        self.below.enqueue_and_keep(queue, stamp, now, tasks, is_there).await
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
        Self { below, spool, events, pages, doubted: Notify::new() }
    }

    /// Asks the homes whose memory is in doubt, for ever. Safe to drop at any moment.
    pub(crate) fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // From here on, not from the first poll.
        let events = self.events.listen();
        self.listen(events)
    }

    async fn listen(self: Arc<Self>, mut events: broadcast::Receiver<Event>) {
        loop {
            let renewed = tokio::select! {
                () = self.doubted.notified() => Vec::new(),
                () = self.refused_long_enough() => Vec::new(),
                event = events.recv() => match event {
                    Ok(Event::EpochChanged { home, .. }) => {
                        self.pages().changed(&home, Instant::now());
                        vec![home]
                    }
                    Ok(Event::Up { home, .. }) => vec![home],
                    Ok(_) => continue,
                    // Some of what was missed may have been of this kind.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.below.status().into_iter().map(|status| status.home).collect()
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            };
            for home in &renewed {
                self.doubt(home);
            }
            let homes = self.pages().doubts.take(Instant::now());
            for (home, queues) in &homes {
                let refused = self.ask(home, queues.as_ref()).await;
                self.pages().doubts.asked(home, refused, Instant::now());
            }
            if !homes.is_empty() {
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    /// Waits until queues that were refused are to be asked again: for ever if there are none.
    async fn refused_long_enough(&self) {
        let again_at = self.pages().doubts.again_at();
        match again_at {
            Some(again_at) => tokio::time::sleep_until(again_at).await,
            None => std::future::pending().await,
        }
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
        self.keep(queue, stamp, now, &What::Tasks(tasks));
        self.told(queue, &stamp, answer.lost, now).await;
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

    /// A home that answers may have forgotten something.
    fn doubt(&self, home: &Home) {
        let mut pages = self.pages();
        pages.doubt(home, Instant::now());
        if pages.doubts.answers(home) {
            self.doubted.notify_one();
        }
    }

    /// Makes good what the answer to a batch says is lost, and has the other lanes of the home asked.
    async fn told(&self, queue: &QueueName, told_by: &Stamp, lost: Option<Lost>, now: Timestamp) {
        let Some(lost) = lost else { return };
        let Some(offered_again) = self.offer_again((queue, told_by), lost, now).await else {
            return;
        };
        self.tell(queue, offered_again);
        self.doubt(&self.below.home(queue));
    }

    fn tell(&self, queue: &QueueName, offered_again: u64) {
        let (queue, is_partly) = (queue.clone(), self.pages().is_cut());
        self.events.tell(Event::Lost { queue, offered_again, is_partly });
    }

    /// Stores what a lane has lost in the spool, to be sent again. `None` if it has not lost anything.
    async fn offer_again(
        &self,
        (queue, told_by): (&QueueName, &Stamp),
        lost: Lost,
        now: Timestamp,
    ) -> Option<u64> {
        let is_of_before =
            || self.pages().is_older_than_doubt(&self.below.home(queue), queue, told_by);
        if lost.after_seq == 0 && !is_of_before() && !self.has_other_data(queue, now).await {
            // The record of the session is gone and nothing else: too old, or evicted.
            tracing::error!(%queue, "the broker has forgotten a session, but not its data");
            return None;
        }
        Some(self.store_again((queue, told_by), lost.after_seq).await)
    }

    /// Stores what was acknowledged of a lane between these two numbers.
    async fn store_again(&self, (queue, told_by): (&QueueName, &Stamp), after_seq: u64) -> u64 {
        let entries = {
            let mut pages = self.pages();
            pages.told(queue, told_by, after_seq);
            pages.take_lane((queue, told_by), after_seq)
        };
        let mut offered_again = 0;
        for entry in entries {
            match self.store(&entry).await {
                Ok(count) => offered_again += count,
                Err(error) => {
                    let count = entry.what.len();
                    tracing::error!(%error, count, "could not offer again what the broker has forgotten");
                }
            }
        }
        offered_again
    }

    /// Sends the newest batch of every lane of the home again, or of some of its queues. Returns the queues that were refused.
    async fn ask(&self, home: &Home, queues: Option<&Queues>) -> Queues {
        let mut newest = self.pages().newest(home);
        // Outcomes go first: a task that is offered again may be claimed at once, and they are not of that run.
        newest.sort_by_key(|entry| matches!(entry.what, What::Tasks(_)));
        newest.retain(|entry| queues.is_none_or(|queues| queues.contains(&entry.about.queue)));
        let (mut offered, mut refused) = (BTreeMap::<QueueName, u64>::new(), Queues::new());
        for Entry { about, what } in newest {
            let now = about.now.plus(about.at.elapsed());
            let again = match self.send(&about, &what, now).await {
                Ok(Some(lost)) if about.told != Some(lost.after_seq) => {
                    let again = self.offer_again((&about.queue, &about.stamp), lost, now).await;
                    again.map(|again| again + what.len() as u64)
                }
                Ok(_) => None,
                Err(error) => match says(error.kind()) {
                    Says::Away => {
                        // Its own calls will find out when it answers.
                        self.pages().doubt(home, Instant::now());
                        break;
                    }
                    Says::Nothing => {
                        refused.insert(about.queue);
                        continue;
                    }
                    Says::Here => self.not_remembered(&about, &error).await,
                },
            };
            if let Some(again) = again {
                *offered.entry(about.queue).or_default() += again;
            }
        }
        for (queue, offered_again) in offered {
            self.tell(&queue, offered_again);
        }
        refused
    }

    /// What is offered again of a lane that did not take the question. One that has moved on tells by itself, but not always here: a
    /// batch whose reply was lost waits in the spool, and the process that delivers it hears of the loss. Yet a broker with other data
    /// has nothing of what was acknowledged before.
    async fn not_remembered(&self, about: &About, error: &BrokerError) -> Option<u64> {
        let About { queue, stamp, .. } = about;
        if error.kind() != Kind::Superseded {
            tracing::error!(%error, %queue, "could not ask what is remembered");
            return None;
        }
        if !self.pages().has_changed_since(about) {
            return None;
        }
        // The one that was asked about is lost as well.
        let behind = Stamp { seq: stamp.seq + 1, ..*stamp };
        let again = self.store_again((queue, &behind), 0).await;
        (again > 0).then_some(again)
    }

    async fn send(
        &self,
        About { queue, stamp, .. }: &About,
        what: &What,
        now: Timestamp,
    ) -> Result<Option<Lost>, BrokerError> {
        match what {
            What::Tasks(tasks) => {
                Ok(self.below.enqueue(queue, *stamp, now, tasks.clone()).await?.lost)
            }
            What::Settlements(settlements) => {
                Ok(self.below.settle(queue, *stamp, now, settlements.clone()).await?.lost)
            }
        }
    }

    /// True if other data is behind the home than when the oldest of what is kept was acknowledged, or it cannot be known.
    async fn has_other_data(&self, queue: &QueueName, now: Timestamp) -> bool {
        let home = self.below.home(queue);
        let health = self.below.health(&home, now).await;
        let keep_for = self.pages().limits().keep_for;
        health.is_err() || self.below.is_renewed(&home, keep_for)
    }

    /// Without a number: the lane has moved on, and what it lost was not applied.
    async fn store(&self, entry: &Entry) -> Result<u64, SpoolError> {
        let (store, items): (_, Arc<[NewItem]>) = match &entry.what {
            What::Tasks(tasks) => (Enqueues::STORE, tasks.iter().map(Enqueues::item).collect()),
            What::Settlements(settlements) => {
                (Settlements::STORE, settlements.iter().map(Settlements::item).collect())
            }
        };
        let (queue, durability) = (entry.about.queue.clone(), entry.about.stamp.durability);
        let (now, count) = (entry.about.now, items.len() as u64);
        let parcel = Parcel { store, queue, now, durability, stamp: None, items };
        self.spool.store(parcel).await.map(|_| count)
    }
}
