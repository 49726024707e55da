//! The outbox: an enqueue that the broker cannot take is on this machine's disk when it is answered, and
//! reaches the broker later, in order, once.
//!
//! While a queue has a backlog, its new tasks go behind it, whoever stored it: a task never overtakes one
//! that was accepted before it. The answer of a task that is stored is [`EnqueueVerdict::Stored`].

use std::sync::Arc;

use outlast_core::{
    BrokerError, EnqueueVerdict, Enqueued, Kind, NewTask, QueueName, Reject, Stamp, Timestamp,
};

use crate::journal::Journal;
use crate::keep::{Keeper, Offer, Offered, not_stored};
use crate::layer::layer;
use crate::spool::Store;
use crate::verb::Enqueues;

/// Stores enqueues that cannot be delivered.
pub(crate) struct Outbox {
    below: Arc<Journal>,
    keeper: Keeper,
}

layer! { Outbox, hands through [claim settle rest],
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let offer = Offer { queue: queue.clone(), stamp, now, items: tasks };
        if self.has_backlog(queue) {
            return self.store_behind(offer).await;
        }
        let tasks = offer.items.len();
        match self.keeper.offer(offer).await? {
            Offered::Answered(answer) => {
                Ok(Enqueued { verdicts: answer.verdicts, lost: answer.lost })
            }
            Offered::Kept(_) => Ok(stored(vec![EnqueueVerdict::Stored; tasks])),
        }
    }
}

impl Outbox {
    pub(crate) fn new(below: Arc<Journal>, keeper: Keeper) -> Self {
        Self { below, keeper }
    }

    fn has_backlog(&self, queue: &QueueName) -> bool {
        self.keeper.spool.has_backlog(Store::Outbox, queue).unwrap_or_else(|error| {
            // Then order is not known, and the broker may be well: it is asked.
            tracing::warn!(%error, "could not see whether tasks wait");
            false
        })
    }

    /// Stores tasks that were not offered to the broker. What no broker would accept is refused here.
    async fn store_behind(&self, mut offer: Offer<Enqueues>) -> Result<Enqueued, BrokerError> {
        let verdict = |task: &NewTask| match task.check(offer.now) {
            Ok(()) => EnqueueVerdict::Stored,
            Err(error) => EnqueueVerdict::Rejected(Reject::from(error)),
        };
        let verdicts: Vec<_> = offer.items.iter().map(verdict).collect();
        let right = offer.items.iter().zip(&verdicts);
        let right = right.filter(|(_, verdict)| **verdict == EnqueueVerdict::Stored);
        offer.items = right.map(|(task, _)| task.clone()).collect();
        if !offer.items.is_empty() {
            let kept = self.keeper.keep(&offer, None).await;
            kept.map_err(|error| not_stored::<Enqueues>(waits(&offer.queue), error))?;
        }
        Ok(stored(verdicts))
    }
}

fn stored(verdicts: Vec<EnqueueVerdict>) -> Enqueued {
    Enqueued { verdicts, lost: None }
}

fn waits(queue: &QueueName) -> BrokerError {
    BrokerError::new(Kind::Busy, format!("tasks of queue {queue} wait in the outbox"))
}
