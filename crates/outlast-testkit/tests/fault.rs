//! Planned faults happen as planned.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, EnqueueVerdict, Enqueued, Inspect, Kind, NewTask, QueueName,
};
use outlast_testkit::conformance::words::{budget, stamp, t, task};
use outlast_testkit::fault::{Dice, Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

fn queue() -> QueueName {
    QueueName::default_queue()
}

fn faulty() -> (Arc<ModelBroker>, FaultBroker) {
    let model = Arc::new(ModelBroker::new(20));
    (model.clone(), FaultBroker::new(model))
}

async fn offer(broker: &FaultBroker, seq: u64) -> Result<Enqueued, BrokerError> {
    let tasks: Arc<[NewTask]> = [task(&seq.to_string())].into();
    broker.enqueue(&queue(), stamp(1, 0, seq), t(0), tasks).await
}

async fn stored(model: &ModelBroker) -> u64 {
    let stats = model.queue(&queue(), t(0)).await.expect("answered");
    stats.map_or(0, |stats| stats.pending)
}

#[tokio::test]
async fn a_fault_before_answers_with_its_kind_and_applies_nothing() {
    let (model, faulty) = faulty();
    for kind in Kind::ALL {
        faulty.script(Verb::Enqueue, [Some(Fault::Before(kind))]);
        assert_eq!(offer(&faulty, 1).await.expect_err("planned").kind(), kind);
    }
    faulty.script(Verb::Enqueue, [Some(Fault::Busy)]);
    assert_eq!(offer(&faulty, 1).await.expect_err("planned").kind(), Kind::Busy);
    assert_eq!(stored(&model).await, 0);
    offer(&faulty, 1).await.expect("the script is over");
    assert_eq!((stored(&model).await, faulty.calls(Verb::Enqueue)), (1, 9));
}

#[tokio::test]
async fn a_fault_after_applies_the_call_and_loses_the_answer() {
    let (model, faulty) = faulty();
    faulty.script(Verb::Enqueue, [Some(Fault::After)]);
    assert_eq!(offer(&faulty, 1).await.expect_err("planned").kind(), Kind::Ambiguous);
    assert_eq!(stored(&model).await, 1);
    let again = offer(&faulty, 1).await.expect("the script is over");
    assert!(matches!(again.verdicts[..], [EnqueueVerdict::Accepted { .. }]), "{again:?}");
    assert_eq!(stored(&model).await, 1);
}

#[tokio::test]
async fn a_call_that_hangs_goes_on_when_it_is_released() {
    let (model, faulty) = faulty();
    faulty.script(Verb::Enqueue, [Some(Fault::Hang)]);
    let hanging = async {
        let bounded = tokio::time::timeout(Duration::from_secs(20), offer(&faulty, 1)).await;
        bounded.expect("it was released").expect("and applied");
    };
    let release = async {
        assert_eq!(stored(&model).await, 0, "nothing is applied while it hangs");
        faulty.release();
    };
    tokio::join!(hanging, release);
    assert_eq!(stored(&model).await, 1);
}

#[tokio::test]
async fn a_script_spoils_the_calls_of_its_verb_in_its_order() {
    let (_, faulty) = faulty();
    faulty.script(Verb::Enqueue, [None, Some(Fault::Busy), None]);
    let sweep = faulty.sweep(&queue(), t(0), budget(1)).await;
    sweep.expect("another verb is left alone");
    let answers = [offer(&faulty, 1).await, offer(&faulty, 2).await, offer(&faulty, 2).await];
    assert_eq!(answers.map(|answer| answer.is_ok()), [true, false, true]);
}

#[tokio::test]
async fn what_always_fails_fails_until_it_is_healed() {
    let (_, faulty) = faulty();
    faulty.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
    for _ in 0..3 {
        assert_eq!(offer(&faulty, 1).await.expect_err("planned").kind(), Kind::Unavailable);
    }
    faulty.heal();
    offer(&faulty, 1).await.expect("healed");
}

#[tokio::test]
async fn the_same_seed_spoils_the_same_calls() {
    let mut patterns = Vec::new();
    for seed in [1, 1, 2] {
        let (_, faulty) = faulty();
        faulty.roll(Dice { seed, per_mille: 500 });
        let mut pattern = Vec::new();
        for _ in 0..100 {
            let swept = faulty.sweep(&queue(), t(0), budget(1)).await;
            pattern.push(swept.err().map(|error| error.kind()));
        }
        patterns.push(pattern);
    }
    assert_eq!(patterns[0], patterns[1]);
    assert_ne!(patterns[0], patterns[2]);
    let spoiled = patterns[0].iter().filter(|kind| kind.is_some()).count();
    assert!((25..75).contains(&spoiled), "half of a hundred calls, more or less: {spoiled}");
}
