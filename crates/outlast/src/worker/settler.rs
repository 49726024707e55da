//! Reports how runs ended: takes all outcomes that are ready, one call per queue.
//!
//! An outcome is never forgotten while the worker lives (law L2): a batch that the broker did not take
//! is repeated under its stamp until it is, so a lost reply cannot apply it twice. The journal of
//! `survive` will take this over, and with it outlive the process.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use outlast_core::broker::{SettleVerdict, Settled};
use outlast_core::{Backoff, BrokerError, Kind, Outcome, QueueName, Settlement, Stamp, limits};
use tokio::sync::mpsc;

use super::life::Phase;
use super::shared::{Finished, Shared};
use crate::lanes::Lanes;

/// Batches under way per queue.
const LANES: u16 = 2;

/// How long to wait before a batch is repeated: at most one attempt in two seconds.
const PATIENCE: Backoff = Backoff::Exponential {
    base: Duration::from_millis(100),
    factor: 2.0,
    cap: Duration::from_secs(2),
    jitter: 0.5,
};

struct Back {
    queue: usize,
    stamp: Stamp,
    batch: Vec<(u64, Settlement)>,
    result: Result<Settled, BrokerError>,
}

pub(super) struct Settler {
    shared: Arc<Shared>,
    inbox: mpsc::Receiver<Finished>,
    waiting: HashMap<usize, VecDeque<(u64, Settlement)>>,
    /// Settlements of batches that were refused as a whole: each goes alone, so that a bad one spoils
    /// no other.
    alone: VecDeque<(usize, (u64, Settlement))>,
    lanes: Lanes,
    under_way: FuturesUnordered<BoxFuture<'static, Back>>,
}

impl Settler {
    pub(super) fn new(shared: Arc<Shared>, inbox: mpsc::Receiver<Finished>) -> Self {
        let (waiting, under_way) = (HashMap::new(), FuturesUnordered::new());
        let (alone, lanes) = (VecDeque::new(), Lanes::new(LANES));
        Self { shared, inbox, waiting, alone, lanes, under_way }
    }

    /// Settles until `stop` says that nothing more will come, and everything is settled.
    pub(super) async fn run(mut self, stop: tokio_util::sync::CancellationToken) {
        let mut taken = Vec::with_capacity(limits::BATCH_TASKS_MAX);
        let mut open = true;
        loop {
            if !open && self.is_done() {
                return;
            }
            tokio::select! {
                biased;
                Some(back) = self.under_way.next() => self.answer(back),
                count = self.inbox.recv_many(&mut taken, limits::BATCH_TASKS_MAX), if open => {
                    open = count > 0;
                }
                () = stop.cancelled(), if open => self.inbox.close(),
            }
            for finished in taken.drain(..) {
                let waiting = self.waiting.entry(finished.queue).or_default();
                waiting.push_back((finished.key, finished.settlement));
            }
            self.send_ready();
        }
    }

    fn is_done(&self) -> bool {
        self.under_way.is_empty()
            && self.alone.is_empty()
            && self.waiting.values().all(VecDeque::is_empty)
    }

    fn send_ready(&mut self) {
        while let Some(&(queue, _)) = self.alone.front() {
            let Some(stamp) = self.lanes.stamp(&self.shared.queues[queue].name) else { break };
            let Some((queue, single)) = self.alone.pop_front() else { break };
            self.under_way.push(Box::pin(settle(self.shared.clone(), queue, stamp, vec![single])));
        }
        for queue in 0..self.shared.queues.len() {
            while self.waiting.get(&queue).is_some_and(|waiting| !waiting.is_empty()) {
                let Some(stamp) = self.lanes.stamp(&self.shared.queues[queue].name) else { break };
                let Some(waiting) = self.waiting.get_mut(&queue) else { break };
                let count = waiting.len().min(limits::BATCH_TASKS_MAX);
                let batch: Vec<_> = waiting.drain(..count).collect();
                self.under_way.push(Box::pin(settle(self.shared.clone(), queue, stamp, batch)));
            }
        }
    }

    fn answer(&mut self, back: Back) {
        let queue = &self.shared.queues[back.queue].name;
        match &back.result {
            Ok(settled) if settled.verdicts.contains(&SettleVerdict::Journaled) => {
                self.lanes.left_open(queue);
            }
            result => self.lanes.back(queue, &back.stamp, result.as_ref().err()),
        }
        match back.result {
            Ok(settled) => {
                if let Some(lost) = settled.lost {
                    tracing::error!(%queue, after = lost.after_seq, "the broker has forgotten settlements");
                }
                for ((key, settlement), verdict) in back.batch.iter().zip(settled.verdicts) {
                    self.count(settlement, &verdict);
                    self.shared.drop_held(*key);
                }
            }
            Err(_) if back.batch.len() > 1 => {
                self.alone.extend(back.batch.into_iter().map(|single| (back.queue, single)));
            }
            Err(error) => {
                for (key, settlement) in back.batch {
                    let id = &settlement.lease.id;
                    tracing::error!(%queue, %id, kind = %error.kind(), %error, "an outcome was refused");
                    self.shared.counters.lost.fetch_add(1, Ordering::Relaxed);
                    self.shared.drop_held(key);
                }
            }
        }
    }

    fn count(&self, settlement: &Settlement, verdict: &SettleVerdict) {
        let counters = &self.shared.counters;
        let counter = match (verdict, &settlement.outcome) {
            (SettleVerdict::LeaseLost, _) => &counters.lost,
            (SettleVerdict::Rejected(why), _) => {
                tracing::error!(id = %settlement.lease.id, %why, "the outcome was refused");
                &counters.lost
            }
            (_, Outcome::Done { .. } | Outcome::Aggregated { .. } | Outcome::Revoke) => {
                &counters.succeeded
            }
            (_, Outcome::Release | Outcome::Snooze { .. }) => &counters.released,
            (_, _) => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if *verdict == SettleVerdict::LeaseLost {
            tracing::warn!(id = %settlement.lease.id, "the lease was lost: the outcome was not applied");
        }
    }
}

/// One batch, repeated under its stamp until the broker takes or refuses it.
async fn settle(
    shared: Arc<Shared>,
    queue: usize,
    stamp: Stamp,
    batch: Vec<(u64, Settlement)>,
) -> Back {
    let name = &shared.queues[queue].name;
    let settlements: Arc<[Settlement]> =
        batch.iter().map(|(_, settlement)| settlement.clone()).collect();
    let mut tries = 0;
    loop {
        let result = attempt(&shared, name, stamp, settlements.clone()).await;
        match &result {
            Err(error) if error.kind().is_transient() || error.kind() == Kind::Misconfigured => {
                tracing::warn!(queue = %name, kind = %error.kind(), %error, tries, "could not settle yet");
                tokio::time::sleep(PATIENCE.delay(tries, rand::random())).await;
                tries = tries.saturating_add(1);
            }
            Ok(_) | Err(_) => return Back { queue, stamp, batch, result },
        }
    }
}

/// One attempt. A broker that is silent must not take outcomes with it when the worker's time is over: from the
/// drain phase on they are on the disk first, those under way too. The stamp is the same, so none counts twice.
async fn attempt(
    shared: &Shared,
    queue: &QueueName,
    stamp: Stamp,
    settlements: Arc<[Settlement]>,
) -> Result<Settled, BrokerError> {
    let now = shared.clock.now();
    let sent = shared.broker.settle(queue, stamp, now, settlements.clone());
    let Some(leaving) = &shared.leaving else { return sent.await };
    let mut phase = shared.phase();
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
        result = sent => return result,
    }
    leaving.settle(queue, stamp, now, settlements).await
}
