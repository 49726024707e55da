//! The drain: whose turn it is when queues stand in each other's way, and who delivers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Claim, EnqueueVerdict, Kind, Outcome, QueueName, SettleVerdict, Settlement,
};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

use crate::kit::*;
use crate::stand_in::StandIn;

/// A broker that cannot read what is under a queue's keys, until somebody has mended it.
struct Unreadable {
    faults: Arc<FaultBroker>,
    is_mended: AtomicBool,
    refusals: AtomicU32,
}

#[async_trait::async_trait]
impl StandIn for Unreadable {
    fn behind(&self) -> Arc<dyn Broker> {
        self.faults.clone()
    }

    fn forbids(&self, _: &QueueName) -> Option<BrokerError> {
        let error = || {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            BrokerError::new(Kind::Corrupt, "WRONGTYPE").of_its_queue()
        };
        (!self.is_mended.load(Ordering::SeqCst)).then(error)
    }
}

/// Somebody's key stood in the place of a queue's line when the broker was back: everything that waited for the queue went into
/// quarantine, task by task, and what finished was given up.
#[tokio::test]
async fn what_waits_for_a_queue_that_cannot_be_read_stays_in_line_until_it_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = Arc::new(ModelBroker::new(100));
    let faults = Arc::new(FaultBroker::new(model.clone()));
    let (is_mended, refusals) = (AtomicBool::new(true), AtomicU32::new(0));
    let unreadable = Arc::new(Unreadable { faults: faults.clone(), is_mended, refusals });
    let survivor = Bed::around(unreadable.clone(), folder.path());
    let broker = survivor.broker();
    broker.enqueue(&queue("q"), stamp(), NOW, tasks(&["a"])).await.expect("is taken");
    let claims = broker.claim(&queue("q"), stamp(), NOW, &want(1)).await.expect("claims").claims;
    let Claim::Task(claimed) = &claims[0] else { panic!("expected a task") };
    faults.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
    broker.enqueue(&queue("q"), stamp(), NOW, tasks(&["b", "c"])).await.expect("is stored");
    unreadable.is_mended.store(false, Ordering::SeqCst);
    faults.heal();
    let outcome = Outcome::Done { result: None };
    let done = Settlement { lease: claimed.lease.clone(), outcome };
    let settled = broker.settle(&queue("q"), stamp(), NOW, [done].into()).await;
    assert_eq!(settled.expect("is journaled").verdicts, [SettleVerdict::Journaled]);
    // The call's own, and one for each store.
    until(&survivor, "both are tried", |_| unreadable.refusals.load(Ordering::SeqCst) >= 3).await;
    unreadable.is_mended.store(true, Ordering::SeqCst);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
    until(&survivor, "all is delivered", |status| status.outbox.items + status.journal.items == 0)
        .await;
    assert_eq!(pending(&*model, "q", NOW).await, ["b", "c"]);
    let status = survivor.status().expect("readable");
    assert_eq!((status.counts.quarantined, status.outbox.quarantined), (0, 0));
    assert_eq!((status.counts.applied, status.counts.delivered), (1, 2));
}

/// A broker whose user may not write some queues.
struct Forbidding(Arc<FaultBroker>);

#[async_trait::async_trait]
impl StandIn for Forbidding {
    fn behind(&self) -> Arc<dyn Broker> {
        self.0.clone()
    }

    fn forbids(&self, queue: &QueueName) -> Option<BrokerError> {
        let is_forbidden = queue.as_str().starts_with("forbidden");
        let refusal = || BrokerError::new(Kind::Misconfigured, "no permission for this key");
        is_forbidden.then(|| refusal().of_its_queue())
    }
}

#[tokio::test]
async fn a_queue_that_may_not_be_written_does_not_hold_up_the_others() {
    // The drain took queues in the order of their names: the first took every trial after an outage, failed, and
    // closed the home again for all.
    let folder = tempfile::tempdir().expect("a folder");
    let model = Arc::new(ModelBroker::new(100));
    let faults = Arc::new(FaultBroker::new(model.clone()));
    faults.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
    let survivor = Bed::around(Arc::new(Forbidding(faults.clone())), folder.path());
    let broker = survivor.broker();
    for name in ["forbidden-1", "open-1", "open-2"] {
        let offered = broker.enqueue(&queue(name), stamp(), NOW, tasks(&["a"])).await;
        faults.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
        assert_eq!(offered.expect("is stored").verdicts, [EnqueueVerdict::Stored]);
    }
    faults.heal();
    until(&survivor, "all others are delivered", |status| status.counts.delivered == 2).await;
    assert_eq!(survivor.status().expect("readable").outbox.items, 1);
    for name in ["open-1", "open-2"] {
        assert_eq!(pending(&*model, name, NOW).await, ["a"]);
    }
}

#[tokio::test]
async fn an_outcome_that_is_journaled_while_a_backlog_is_delivered_does_not_wait_for_its_end() {
    let bed = Bed::new();
    bed.enqueue(&["a"]).await.expect("answers");
    let claimed = bed.claim(1).await;
    bed.down(Fault::Before(Kind::Unavailable));
    let ids: Vec<String> = (0..4000).map(|n| format!("t{n:04}")).collect();
    for batch in ids.chunks(200) {
        let batch: Vec<&str> = batch.iter().map(String::as_str).collect();
        bed.enqueue(&batch).await.expect("is stored");
    }
    bed.faults.heal();
    bed.until("it is being delivered", |status| status.outbox.items < 4000).await;
    bed.faults.script(Verb::Settle, [Some(Fault::After)]);
    assert_eq!(bed.done(&claimed[0]).await, SettleVerdict::Journaled);
    bed.until("it is reported", |status| status.journal.items == 0).await;
    assert!(bed.status().outbox.items > 2000, "{:?}", bed.status().outbox);
}

#[tokio::test]
async fn a_process_that_holds_the_right_to_deliver_and_does_nothing_loses_it() {
    let bed = Bed::new();
    let hold = bed.survivor.spool().path().with_extension("db.drain");
    let right = std::fs::File::create(hold).expect("opens");
    right.lock().expect("is free");
    bed.enqueue(&["a"]).await.expect("answers");
    let claimed = bed.claim(1).await;
    bed.faults.script(Verb::Enqueue, [Some(Fault::Before(Kind::Unavailable))]);
    bed.faults.script(Verb::Settle, [Some(Fault::Before(Kind::Unavailable))]);
    bed.enqueue(&["b"]).await.expect("is stored");
    assert_eq!(bed.done(&claimed[0]).await, SettleVerdict::Journaled);
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["b"]);
    drop(right);
}
