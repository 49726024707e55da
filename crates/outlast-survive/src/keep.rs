//! Try below, and keep what could not be delivered: what the outbox and the journal have in common.
//!
//! | the layer below | the items |
//! |---|---|
//! | answers | are its business |
//! | Unavailable, Busy, Misconfigured: nothing was applied, by no attempt | are stored without a number |
//! | Ambiguous, or no answer in time: any of it may be applied | are stored with the stamp they were sent under |
//! | Corrupt, for all of a queue | outcomes are stored without a number: their runs are over |
//! | Rejected, Corrupt, Superseded | are the caller's again: sending them later would help nobody |

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outlast_core::{Broker, BrokerError, Kind, QueueName, Stamp, Timestamp};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use crate::clock::end_of;
use crate::event::{Counter, Event, Events};
use crate::report::Report;
use crate::spool::{Kept, Own, Parcel, Spool, SpoolError, SpoolErrorKind, Store, WhenFull};
use crate::verb::{Answer, Verb};

/// How often a caller that waits for room looks whether another process has made some.
const LOOK_FOR_ROOM: Duration = Duration::from_millis(100);

/// How long the drain leaves a late batch to the call that is under way: a broker that is slow and well is not
/// sent everything twice. Later than this the call is taken for lost.
const FOLLOW_ALONE: Duration = Duration::from_secs(2);

/// Doubtful batches that are remembered: more than a worker's unsettled budget has. The oldest is forgotten first:
/// its caller has most likely given up.
const DOUBTFUL_MAX: usize = 1024;

/// What a store needs to try and to keep.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) below: Arc<dyn Broker>,
    pub(crate) spool: Spool,
    pub(crate) events: Arc<Events>,
    /// How long a caller waits for the broker before its items are stored while the call goes on.
    pub(crate) patience: Duration,
    pub(crate) doubtful: Arc<Doubtful>,
}

/// Batches of which an attempt may have been applied and that could not be stored: their caller has them and tries
/// again, and a later attempt that fails cleanly says nothing about the first.
#[derive(Default)]
pub(crate) struct Doubtful(Mutex<VecDeque<(QueueName, Stamp)>>);

impl Doubtful {
    fn add(&self, queue: &QueueName, stamp: Stamp) {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        batches.push_back((queue.clone(), stamp));
        if batches.len() > DOUBTFUL_MAX {
            batches.pop_front();
        }
    }

    /// True if the batch was one of them; it is none any more.
    fn take(&self, queue: &QueueName, stamp: Stamp) -> bool {
        let mut batches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = batches.len();
        batches.retain(|(other, its)| (other, *its) != (queue, stamp));
        batches.len() < before
    }
}

/// A batch of one queue, as it was handed in.
pub(crate) struct Offer<V: Verb> {
    pub(crate) queue: QueueName,
    pub(crate) stamp: Stamp,
    pub(crate) now: Timestamp,
    pub(crate) items: Arc<[V::Item]>,
}

impl<V: Verb> Clone for Offer<V> {
    fn clone(&self) -> Self {
        let (queue, items) = (self.queue.clone(), self.items.clone());
        Self { queue, stamp: self.stamp, now: self.now, items }
    }
}

/// What came of an offer.
pub(crate) enum Offered<V: Verb> {
    Answered(Answer<V::Verdict>),
    Kept(Kept),
}

/// Neither the broker nor the spool would have it: the error of a caller whose task is not safe. The kind is the
/// broker's, because it says what may have happened; this is its source.
#[derive(Debug, thiserror::Error)]
#[error("{broker}; and it could not be stored instead: {spool}")]
pub struct NotStored {
    /// Why the broker did not take it.
    pub broker: BrokerError,
    /// Why the spool did not take it.
    #[source]
    pub spool: SpoolError,
}

pub(crate) type Call<V> = Pin<
    Box<dyn Future<Output = Result<Answer<<V as Verb>::Verdict>, BrokerError>> + Send + 'static>,
>;

impl Keeper {
    /// Tries below; what cannot be delivered is on the disk when this answers.
    pub(crate) async fn offer<V: Verb>(&self, offer: Offer<V>) -> Result<Offered<V>, BrokerError> {
        let (queue, stamp) = (offer.queue.clone(), offer.stamp);
        let was_doubtful = self.doubtful.take(&queue, stamp);
        let result = self.try_to_keep(offer, was_doubtful).await;
        let is_doubtful = result.as_ref().is_err_and(|error| match error.kind() {
            Kind::Ambiguous => true,
            Kind::Unavailable | Kind::Busy | Kind::Misconfigured => was_doubtful,
            Kind::Rejected | Kind::Corrupt | Kind::Superseded => false,
        });
        if is_doubtful {
            self.doubtful.add(&queue, stamp);
        }
        result
    }

    async fn try_to_keep<V: Verb>(
        &self,
        offer: Offer<V>,
        was_doubtful: bool,
    ) -> Result<Offered<V>, BrokerError> {
        let mut call = self.call(&offer);
        let Ok(result) = tokio::time::timeout(self.patience, &mut call).await else {
            return self.keep_late(offer, call).await;
        };
        let error = match result {
            Ok(answer) => return Ok(Offered::Answered(answer)),
            Err(error) => error,
        };
        let stamp = match error.kind() {
            Kind::Unavailable | Kind::Busy | Kind::Misconfigured => {
                was_doubtful.then_some(offer.stamp)
            }
            Kind::Ambiguous => Some(offer.stamp),
            Kind::Corrupt if is_open::<V>(&error) => was_doubtful.then_some(offer.stamp),
            Kind::Rejected | Kind::Corrupt | Kind::Superseded => return Err(error),
        };
        let kept = self.keep(&offer, stamp).await;
        kept.map(Offered::Kept).map_err(|spool| not_stored::<V>(error, spool))
    }

    pub(crate) fn call<V: Verb>(&self, offer: &Offer<V>) -> Call<V> {
        let Offer { queue, stamp, now, items } = offer.clone();
        V::send(self.below.clone(), queue, stamp, now, items)
    }

    /// The answer is late: the items are stored as ambiguous while the call goes on, and whichever is done first answers. If the
    /// call does, the items go from the spool again; if not, they are repeated under the same stamp, and the broker knows.
    async fn keep_late<V: Verb>(
        &self,
        offer: Offer<V>,
        mut call: Call<V>,
    ) -> Result<Offered<V>, BrokerError> {
        let (keeper, kept_offer) = (self.clone(), offer.clone());
        // In a task of its own: what goes to the disk cannot be called back.
        let keeping = async move {
            let kept = keeper.keep::<V>(&kept_offer, Some(kept_offer.stamp)).await?;
            // In the same breath, before the drain wakes: it leaves the batch to this call.
            let own = kept.batch.map(|batch| keeper.spool.own(batch));
            Ok((kept, own))
        };
        let mut keeping = tokio::spawn(keeping);
        let answer = tokio::select! {
            biased;
            kept = &mut keeping => return self.kept_late(offer, call, stored(kept)).await,
            answer = &mut call => answer,
        };
        match answer {
            Err(error) if is_open::<V>(&error) => {
                let kept = stored(keeping.await);
                kept.map(|(kept, _)| Offered::Kept(kept))
                    .map_err(|spool| not_stored::<V>(error, spool))
            }
            answer => {
                let count = if answer.is_ok() { offer.items.len() } else { 0 };
                self.spool.forgets(self.clone().forget::<V>((offer.now, count), keeping));
                answer.map(Offered::Answered)
            }
        }
    }

    /// The items were stored, or could not be, before the answer came.
    async fn kept_late<V: Verb>(
        &self,
        offer: Offer<V>,
        call: Call<V>,
        kept: Result<(Kept, Option<Own>), SpoolError>,
    ) -> Result<Offered<V>, BrokerError> {
        match kept {
            Ok((kept, own)) => {
                if let (Some(batch), Some(own)) = (kept.batch, own) {
                    tokio::spawn(self.clone().follow::<V>(offer, batch, call, own));
                }
                Ok(Offered::Kept(kept))
            }
            // It is not safe on this side, so its caller has to wait for the other one.
            Err(spool) => match call.await {
                Ok(answer) => Ok(Offered::Answered(answer)),
                Err(error) => Err(not_stored::<V>(error, spool)),
            },
        }
    }

    /// Takes from the spool what was answered while it was being stored.
    async fn forget<V: Verb>(
        self,
        (now, count): (Timestamp, usize),
        keeping: JoinHandle<Result<(Kept, Option<Own>), SpoolError>>,
    ) {
        let Ok((Kept { batch: Some(batch), .. }, _own)) = stored(keeping.await) else { return };
        let delivered = match V::STORE {
            Store::Outbox => Counter::Delivered,
            Store::Journal => Counter::Applied,
        };
        match self.spool.answered(batch, now, Vec::new()).await {
            Ok((true, _)) => self.events.add(delivered, count),
            Ok((false, _)) => {}
            Err(error) => {
                tracing::warn!(%error, "an answered batch stays in the spool and is repeated");
            }
        }
    }

    /// Waits for the answer to a stored batch that was sent, however late.
    pub(crate) async fn follow<V: Verb>(
        self,
        offer: Offer<V>,
        batch: i64,
        mut call: Call<V>,
        own: Own,
    ) {
        let in_time = tokio::time::timeout(FOLLOW_ALONE, &mut call).await;
        // Before the batch leaves the spool or is repeated, whichever it will be.
        let own = in_time.is_ok().then_some(own);
        let result = match in_time {
            Ok(result) => result,
            Err(_) => call.await,
        };
        // After an error the batch stays where it is and is repeated.
        let Ok(answer) = result else { return };
        let report = Report::of::<V>(&offer.items, answer.verdicts);
        // Its items have no numbers here: what was refused stays with the drain, which gets the same answer.
        if report.has_refused() {
            return;
        }
        match self.spool.answered(batch, offer.now, Vec::new()).await {
            Ok((true, _)) => report.tell(&self.events, V::STORE, &offer.queue),
            Ok((false, _)) => {}
            Err(error) => {
                tracing::warn!(%error, "an answered batch stays in the spool and is repeated");
            }
        }
        drop(own);
    }

    /// Stores a batch, as its store's policy says.
    pub(crate) async fn keep<V: Verb>(
        &self,
        offer: &Offer<V>,
        stamp: Option<Stamp>,
    ) -> Result<Kept, SpoolError> {
        let parcel = Parcel {
            store: V::STORE,
            queue: offer.queue.clone(),
            now: offer.now,
            durability: offer.stamp.durability,
            stamp,
            items: offer.items.iter().map(V::item).collect(),
        };
        let kept = self.store(parcel).await?;
        if !kept.dropped.is_empty() {
            let (queue, ids) = (offer.queue.clone(), kept.dropped.clone());
            self.events.tell(Event::Dropped { queue, ids });
        }
        let counter = match V::STORE {
            Store::Outbox => Counter::Stored,
            Store::Journal => Counter::Journaled,
        };
        self.events.add(counter, offer.items.len());
        Ok(kept)
    }

    async fn store(&self, parcel: Parcel) -> Result<Kept, SpoolError> {
        let WhenFull::Block(at_most) = self.spool.limits().when_full else {
            return self.spool.store(parcel).await;
        };
        let until = end_of(at_most);
        loop {
            match self.spool.store(parcel.clone()).await {
                Err(full) if full.kind() == SpoolErrorKind::Full && Instant::now() < until => {
                    self.spool.room(LOOK_FOR_ROOM).await;
                }
                stored => return stored,
            }
        }
    }
}

/// True if a call that ended like this may be done by a later attempt.
fn is_open<V: Verb>(error: &BrokerError) -> bool {
    match error.kind() {
        Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured => true,
        // What is wrong is the queue's and not the outcome's, and its run is over: it waits until somebody has mended the queue.
        Kind::Corrupt => V::STORE == Store::Journal && error.concerns_its_queue(),
        Kind::Rejected | Kind::Superseded => false,
    }
}

/// What became of a task that stores.
fn stored<T>(kept: Result<Result<T, SpoolError>, JoinError>) -> Result<T, SpoolError> {
    kept.unwrap_or_else(|error| Err(SpoolError::closed().caused_by(error)))
}

pub(crate) fn not_stored<V: Verb>(broker: BrokerError, spool: SpoolError) -> BrokerError {
    let what = match V::STORE {
        Store::Outbox => "could not enqueue",
        Store::Journal => "could not settle",
    };
    BrokerError::new(broker.kind(), what).with_source(NotStored { broker, spool })
}
