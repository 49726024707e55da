//! A broker that fails as planned, wrapped, and short words for what tests do with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Claim, ClaimedTask, Durability, EnqueueVerdict, Inspect, Kind, LeaseToken,
    NewTask, Outcome, PageRequest, QueueName, Selector, SessionId, SettleVerdict, Settlement,
    Stamp, TaskState, Timestamp, Want,
};
use outlast_survive::{Clock, Config, Event, Status, Survivor, wrap};
use outlast_testkit::conformance::task;
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;
use tempfile::TempDir;

use crate::stand_in::{Before, StandIn};

pub(crate) const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

/// Longer than anything here takes on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A wrapped broker, and the ends of it that a test holds.
pub(crate) struct Bed {
    pub(crate) faults: Arc<FaultBroker>,
    pub(crate) model: Arc<ModelBroker>,
    pub(crate) survivor: Survivor,
    pub(crate) time: Arc<AtomicI64>,
    pub(crate) folder: TempDir,
}

impl Bed {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = Arc::new(ModelBroker::new(1000));
        let faults = Arc::new(FaultBroker::new(model.clone()));
        let time = Arc::new(AtomicI64::new(NOW.as_millis()));
        let mut config = config(folder.path().join("spool.db"), &time);
        change(&mut config);
        let survivor = wrap(faults.clone(), config).expect("the spool opens");
        Self { faults, model, survivor, time, folder }
    }

    /// The same spool opened anew, as by a process that starts.
    pub(crate) fn reopen(
        faults: &Arc<FaultBroker>,
        folder: &Path,
        time: &Arc<AtomicI64>,
    ) -> Survivor {
        Self::reopen_as(faults, folder, time, |_| {})
    }

    pub(crate) fn reopen_as(
        faults: &Arc<FaultBroker>,
        folder: &Path,
        time: &Arc<AtomicI64>,
        change: impl FnOnce(&mut Config),
    ) -> Survivor {
        let mut config = config(folder.join("spool.db"), time);
        change(&mut config);
        wrap(faults.clone(), config).expect("the spool opens")
    }

    /// A survivor around a broker of the test's own.
    pub(crate) fn around<T: StandIn>(broker: Arc<T>, folder: &Path) -> Survivor {
        let time = Arc::new(AtomicI64::new(NOW.as_millis()));
        let config = config(folder.join("spool.db"), &time);
        wrap(Arc::new(Before(broker)), config).expect("the spool opens")
    }

    /// Another process on the same spool and broker, as far as one process can play two.
    pub(crate) fn neighbour(&self) -> Survivor {
        Self::reopen(&self.faults, self.folder.path(), &self.time)
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.time.load(Ordering::SeqCst))
    }

    /// Every verb fails like this, the probe too.
    pub(crate) fn down(&self, fault: Fault) {
        for verb in [Verb::Enqueue, Verb::Claim, Verb::Settle, Verb::Extend, Verb::Health] {
            self.faults.always(verb, fault);
        }
    }

    /// The broker is down, and the breaker knows it.
    pub(crate) async fn broken(&self) {
        self.down(Fault::Before(Kind::Unavailable));
        let failing = self.survivor.failing();
        while self.status().homes.iter().all(|home| home.outage.is_none()) {
            let _ = enqueue(&*failing, "q", self.now(), &["nobody's"]).await;
            let _ = failing.claim(&queue("q"), stamp(), self.now(), &want(1)).await;
        }
    }

    pub(crate) async fn enqueue(&self, ids: &[&str]) -> Result<Vec<EnqueueVerdict>, BrokerError> {
        enqueue(&*self.survivor.broker(), "q", self.now(), ids).await
    }

    /// The tasks of the queue that are pending, next first.
    pub(crate) async fn pending(&self) -> Vec<String> {
        pending(&*self.model, "q", self.now()).await
    }

    pub(crate) async fn claim(&self, tasks_max: usize) -> Vec<ClaimedTask> {
        let broker = self.survivor.broker();
        let claims = broker.claim(&queue("q"), stamp(), self.now(), &want(tasks_max)).await;
        let claims = claims.expect("claims").claims.into_iter();
        let tasks = claims.map(|claim| match claim {
            Claim::Task(task) => *task,
            other => panic!("expected a task, got {other:?}"),
        });
        tasks.collect()
    }

    pub(crate) async fn done(&self, claimed: &ClaimedTask) -> SettleVerdict {
        let settlement =
            Settlement { lease: claimed.lease.clone(), outcome: Outcome::Done { result: None } };
        let broker = self.survivor.broker();
        let settled = broker.settle(&queue("q"), stamp(), self.now(), [settlement].into()).await;
        settled.expect("settles").verdicts.remove(0)
    }

    pub(crate) fn status(&self) -> Status {
        self.survivor.status().expect("the spool is readable")
    }

    /// Waits until the status is as it should be, looking again at every event, and now and then.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Status) -> bool) {
        until(&self.survivor, what, is).await;
    }

    pub(crate) async fn delivered(&self) {
        self.until("the spool is empty", |s| s.outbox.items + s.journal.items == 0).await;
    }
}

pub(crate) async fn until(survivor: &Survivor, what: &str, is: impl Fn(&Status) -> bool) {
    let looking = async {
        let mut events = survivor.events();
        while !is(&survivor.status().expect("the spool is readable")) {
            let _ = tokio::time::timeout(Duration::from_millis(5), events.recv()).await;
        }
    };
    if tokio::time::timeout(SOON, looking).await.is_err() {
        panic!("{what}: not within {SOON:?}, but {:?}", survivor.status());
    }
}

/// The next event that `pick` takes.
pub(crate) async fn event<T>(
    events: &mut tokio::sync::broadcast::Receiver<Event>,
    pick: impl Fn(Event) -> Option<T>,
) -> T {
    let looking = async {
        loop {
            if let Some(found) = pick(events.recv().await.expect("the survivor lives")) {
                return found;
            }
        }
    };
    tokio::time::timeout(SOON, looking).await.expect("the event comes")
}

fn config(spool: PathBuf, time: &Arc<AtomicI64>) -> Config {
    let time = time.clone();
    let clock = Clock::new(move || Timestamp::from_millis(time.load(Ordering::SeqCst)));
    Config::new(spool, clock)
}

pub(crate) fn queue(name: &str) -> QueueName {
    QueueName::new(name).expect("a valid name")
}

pub(crate) fn want(tasks_max: usize) -> Want {
    Want {
        token: LeaseToken::new(1).expect("a token"),
        tasks_max,
        bytes_max: 1 << 20,
        lease: Duration::from_secs(30),
        groups: Arc::new([]),
    }
}

/// A session of its own for every batch: nothing is a repeat unless the test makes it one.
pub(crate) fn stamp() -> Stamp {
    // Above those that tests name.
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    let session = SessionId(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)));
    Stamp { session, lane: 0, seq: 1, durability: Durability::Accepted }
}

pub(crate) fn tasks(ids: &[&str]) -> Arc<[NewTask]> {
    ids.iter().map(|id| task(id)).collect()
}

pub(crate) async fn enqueue(
    broker: &dyn Broker,
    name: &str,
    now: Timestamp,
    ids: &[&str],
) -> Result<Vec<EnqueueVerdict>, BrokerError> {
    let answer = broker.enqueue(&queue(name), stamp(), now, tasks(ids)).await;
    answer.map(|answer| answer.verdicts)
}

pub(crate) async fn pending(inspect: &dyn Inspect, name: &str, now: Timestamp) -> Vec<String> {
    let page = PageRequest::first(1000);
    let found = inspect.tasks(&queue(name), &Selector::state(TaskState::Pending), &page, now).await;
    found.expect("lists").items.iter().map(|task| task.id.to_string()).collect()
}
