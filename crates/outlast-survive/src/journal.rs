//! The journal: an outcome that the broker cannot take is on this machine's disk when it is answered, and is
//! applied later. Nothing that finished runs again because the broker was away (law L2).
//!
//! Reconcile, then claim (law L8): after an outage no task of a queue is claimed before the outcomes that this
//! process has journaled for it were reported. A full journal is no place for another outcome: then the worker keeps
//! it and repeats its report, and takes no new tasks once its unsettled budget is spent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Claims, Kind, QueueName, SettleVerdict, Settled, Settlement, Stamp,
    Timestamp, Want,
};
use tokio::time::Instant;

use crate::keep::{Keeper, Offer, Offered};
use crate::layer::layer;
use crate::spool::{Kept, Spool, SpoolError, Store};
use crate::verb::Settlements;

/// How long a claim waits for the journal to be replayed. Then it says so; its caller comes again.
const REPLAY_MAX: Duration = Duration::from_secs(5);

/// How often it looks: another process may be the one that replays.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// When outcomes are journaled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JournalMode {
    /// When the broker does not take them: covers outages. A process that is killed between the end of a run
    /// and the broker's answer leaves that run unreported, and it runs again.
    #[default]
    OnFailure,
    /// Before they are sent: covers `kill -9` at any moment, for two commits to
    /// the disk a batch: one before it is sent, one when it is answered.
    Always,
}

/// Stores settlements that cannot be delivered.
pub(crate) struct Journal {
    below: Arc<dyn Broker>,
    keeper: Keeper,
    mode: JournalMode,
    /// Per queue the last item that must have gone before the next claim.
    owed: Arc<Mutex<HashMap<QueueName, i64>>>,
}

layer! { Journal, hands through [enqueue rest],
    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        self.reconcile(queue).await?;
        self.below.claim(queue, stamp, now, want).await
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let count = settlements.len();
        let offer = Offer { queue: queue.clone(), stamp, now, items: settlements };
        let offered = match self.mode {
            JournalMode::OnFailure => self.keeper.offer::<Settlements>(offer).await?,
            JournalMode::Always => self.journal_first(offer).await?,
        };
        match offered {
            Offered::Answered(answer) => {
                Ok(Settled { verdicts: answer.verdicts, lost: answer.lost })
            }
            Offered::Kept(kept) => {
                self.owe(queue, &kept);
                Ok(Settled { verdicts: vec![SettleVerdict::Journaled; count], lost: None })
            }
        }
    }
}

impl Journal {
    pub(crate) fn new(keeper: Keeper, mode: JournalMode) -> Result<Self, SpoolError> {
        // What a process before this one has left is owed too.
        let owed = keeper.spool.last_items(Store::Journal)?;
        Ok(Self { below: keeper.below.clone(), keeper, mode, owed: Arc::new(Mutex::new(owed)) })
    }

    /// The same journal for a worker that ends soon: outcomes are on the disk first, and the broker has this long
    /// to answer.
    pub(crate) fn leaving(&self, patience: Duration) -> Self {
        let keeper = Keeper { patience, ..self.keeper.clone() };
        let (below, owed) = (self.below.clone(), self.owed.clone());
        Self { below, keeper, mode: JournalMode::Always, owed }
    }

    /// On the disk first, then to the broker; the record goes when it is answered.
    async fn journal_first(
        &self,
        offer: Offer<Settlements>,
    ) -> Result<Offered<Settlements>, BrokerError> {
        let kept = match self.keeper.keep(&offer, Some(offer.stamp)).await {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(%error, "could not journal before settling: the broker is asked at once");
                return self.keeper.offer(offer).await;
            }
        };
        // Whether it is answered or not, and if this future is dropped: then it is the drain's.
        let own = kept.batch.map(|batch| self.keeper.spool.own(batch));
        let mut sent = self.keeper.call(&offer);
        let Ok(result) = tokio::time::timeout(self.keeper.patience, &mut sent).await else {
            // The call goes on: given up here, the breaker would not see that it is slow.
            if let (Some(batch), Some(own)) = (kept.batch, own) {
                tokio::spawn(self.keeper.clone().follow(offer, batch, sent, own));
            }
            return Ok(Offered::Kept(kept));
        };
        let is_open = result.as_ref().is_err_and(|error| match error.kind() {
            Kind::Unavailable | Kind::Busy | Kind::Misconfigured | Kind::Ambiguous => true,
            Kind::Rejected | Kind::Corrupt | Kind::Superseded => false,
        });
        if is_open {
            return Ok(Offered::Kept(kept));
        }
        if let Some(batch) = kept.batch
            && let Err(error) = self.keeper.spool.answered(batch, offer.now, Vec::new()).await
        {
            tracing::warn!(%error, "an answered outcome stays in the journal and is repeated");
        }
        result.map(Offered::Answered)
    }

    fn owe(&self, queue: &QueueName, kept: &Kept) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        let last = owed.entry(queue.clone()).or_default();
        *last = kept.last.max(*last);
    }

    /// True while outcomes of the queue wait that must be reported before its next claim.
    pub(crate) fn owes(&self, queue: &QueueName) -> Result<bool, SpoolError> {
        let owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner).get(queue).copied();
        let Some(last) = owed else { return Ok(false) };
        if self.spool().holds(Store::Journal, queue, last)? {
            return Ok(true);
        }
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        if owed.get(queue) == Some(&last) {
            owed.remove(queue);
        }
        Ok(false)
    }

    /// Waits until what is owed to the queue has been reported.
    async fn reconcile(&self, queue: &QueueName) -> Result<(), BrokerError> {
        let until = Instant::now() + REPLAY_MAX;
        while self.owes(queue).map_err(unseen)? {
            if Instant::now() >= until {
                let what = format!("outcomes of queue {queue} are still in the journal");
                return Err(BrokerError::new(Kind::Busy, what));
            }
            self.spool().room(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn spool(&self) -> &Spool {
        &self.keeper.spool
    }
}

fn unseen(error: SpoolError) -> BrokerError {
    let what = "could not see whether outcomes wait in the journal";
    BrokerError::new(Kind::Busy, what).with_source(error)
}
