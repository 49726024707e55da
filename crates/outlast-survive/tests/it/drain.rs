//! The drain: whose turn it is when queues stand in each other's way, and who delivers.

use std::sync::Arc;

use outlast_core::{Broker, BrokerError, EnqueueVerdict, Kind, QueueName, SettleVerdict};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

use crate::kit::*;
use crate::stand_in::StandIn;

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
