//! Random work over a broker that fails at random, before and after it has applied: every task that was accepted
//! or stored runs once, and no law is broken in the broker's history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use outlast_core::{Broker, Claim, EnqueueVerdict, Outcome, SettleVerdict, Settlement};
use outlast_survive::{JournalMode, Survivor};
use outlast_testkit::fault::{Dice, FaultBroker};
use outlast_testkit::laws::{History, Recorded};
use outlast_testkit::model::ModelBroker;

use crate::kit::*;

const TASKS: usize = 60;

struct World {
    history: Arc<History>,
    faults: Arc<FaultBroker>,
    model: Arc<ModelBroker>,
    /// Two processes of one machine.
    survivors: [Survivor; 2],
    safe: BTreeSet<String>,
    /// Whose outcome was taken, by the broker or by the journal.
    finished: BTreeMap<String, u32>,
    _folder: tempfile::TempDir,
}

impl World {
    fn new(seed: u64, mode: JournalMode) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (model, history) = (Arc::new(ModelBroker::new(1000)), Arc::new(History::default()));
        let recorded = Arc::new(Recorded::new(model.clone(), history.clone()));
        let faults = Arc::new(FaultBroker::new(recorded));
        faults.roll(Dice { seed, per_mille: 250 });
        let time = Arc::new(AtomicI64::new(NOW.as_millis()));
        let open = || Bed::reopen_as(&faults, folder.path(), &time, |config| config.journal = mode);
        let survivors = [open(), open()];
        let (safe, finished) = (BTreeSet::new(), BTreeMap::new());
        Self { history, faults, model, survivors, safe, finished, _folder: folder }
    }

    fn broker(&self, n: usize) -> Arc<dyn Broker> {
        self.survivors[n % 2].broker()
    }

    async fn offer(&mut self, n: usize) {
        let id = format!("t{n:03}");
        // What fails is the caller's again, and not counted.
        let Ok(verdicts) = enqueue(&*self.broker(n), "q", NOW, &[&id]).await else { return };
        let is_safe =
            matches!(verdicts[0], EnqueueVerdict::Accepted { .. } | EnqueueVerdict::Stored);
        assert!(is_safe, "{id}: {verdicts:?}");
        self.safe.insert(id);
    }

    /// Claims and finishes what it gets. A claim whose answer is lost is asked again under its stamp, as a
    /// worker does.
    async fn work(&mut self, n: usize) {
        let (broker, stamp, q) = (self.broker(n), stamp(), queue("q"));
        let claims = loop {
            if let Ok(claims) = broker.claim(&q, stamp, NOW, &want(3)).await {
                break claims;
            }
            tokio::time::advance(std::time::Duration::from_millis(100)).await;
        };
        for claim in claims.claims {
            let Claim::Task(claimed) = claim else { panic!("no groups here: {claim:?}") };
            self.finish(&*broker, *claimed).await;
        }
    }

    async fn finish(&mut self, broker: &dyn Broker, claimed: outlast_core::ClaimedTask) {
        let outcome = Outcome::Done { result: None };
        let settlement = Settlement { lease: claimed.lease, outcome };
        let settled = broker.settle(&queue("q"), stamp(), NOW, [settlement].into()).await;
        let verdict = settled.expect("applied or journaled").verdicts.remove(0);
        assert!(
            matches!(verdict, SettleVerdict::Applied | SettleVerdict::Journaled),
            "{verdict:?}"
        );
        *self.finished.entry(claimed.task.id.to_string()).or_default() += 1;
    }

    /// The broker is well again: all is delivered and worked off.
    async fn end(mut self, seed: u64) {
        self.faults.heal();
        until(&self.survivors[0], "all is delivered", |s| s.outbox.items + s.journal.items == 0)
            .await;
        while !pending(&*self.model, "q", NOW).await.is_empty() {
            self.work(0).await;
        }
        until(&self.survivors[0], "all is applied", |s| s.journal.items == 0).await;
        let ran: BTreeSet<String> = self.finished.keys().cloned().collect();
        let lost: Vec<_> = self.safe.difference(&ran).collect();
        assert!(lost.is_empty(), "seed {seed}: accepted and never run: {lost:?}");
        let twice: Vec<_> = self.finished.iter().filter(|(_, runs)| **runs > 1).collect();
        assert!(twice.is_empty(), "seed {seed}: finished more than once: {twice:?}");
        let violations = self.history.violations(&BTreeMap::new());
        assert!(violations.is_empty(), "seed {seed}: {violations:?}");
        for survivor in &self.survivors {
            let counts = survivor.status().expect("readable").counts;
            let alarms = counts.id_conflicts + counts.lease_lost + counts.quarantined;
            assert_eq!(alarms, 0, "seed {seed}: {counts:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_every_accepted_task_runs_once() {
    for seed in 0..24 {
        let mode = if seed % 4 == 0 { JournalMode::Always } else { JournalMode::OnFailure };
        let mut world = World::new(seed, mode);
        for n in 0..TASKS {
            world.offer(n).await;
            if n % 5 == 4 {
                world.work(n / 5).await;
            }
            if n % 7 == 0 {
                tokio::time::advance(std::time::Duration::from_millis(300)).await;
            }
        }
        let safe = world.safe.len();
        assert!(safe > TASKS / 2, "seed {seed}: only {safe} were taken");
        world.end(seed).await;
    }
}
