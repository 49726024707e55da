//! Processes that are killed: no step of a drain loses a task or runs one twice, and nothing that was
//! acknowledged goes with its producer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use outlast_core::{
    Broker, Claim, EnqueueVerdict, Kind, NewTask, Outcome, SettleVerdict, Settlement,
};
use outlast_survive::{Spool, SpoolLimits, Store, Survivor, wrap};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};

use crate::child::{Actor, broker, config};
use crate::kit::*;

/// A survivor whose broker is away, so that everything is stored.
fn away(folder: &Path) -> Survivor {
    let away = FaultBroker::new(Arc::new(broker(folder)));
    for verb in [Verb::Enqueue, Verb::Settle, Verb::Health] {
        away.always(verb, Fault::Before(Kind::Unavailable));
    }
    let config = config(folder);
    wrap(Arc::new(away), config).expect("the spool opens")
}

async fn store(folder: &Path, ids: &[String]) {
    let survivor = away(folder);
    for batch in ids.chunks(200) {
        let task = |id: &String| outlast_testkit::conformance::task(id);
        let tasks: Arc<[NewTask]> = batch.iter().map(task).collect();
        let stored = survivor.broker().enqueue(&queue("q"), stamp(), NOW, tasks).await;
        let verdicts = stored.expect("is stored").verdicts;
        assert!(verdicts.iter().all(|verdict| *verdict == EnqueueVerdict::Stored));
    }
}

/// Runs what is there, so that a task that came twice would run twice.
async fn work_off(folder: &Path, runs: &mut BTreeMap<String, u32>) {
    let broker = broker(folder);
    loop {
        let claims = broker.claim(&queue("q"), stamp(), NOW, &want(256)).await.expect("claims");
        if claims.claims.is_empty() {
            return;
        }
        let mut settlements = Vec::new();
        for claim in claims.claims {
            let Claim::Task(claimed) = claim else { panic!("no groups here") };
            *runs.entry(claimed.task.id.to_string()).or_default() += 1;
            let outcome = Outcome::Done { result: None };
            settlements.push(Settlement { lease: claimed.lease, outcome });
        }
        let settled = broker.settle(&queue("q"), stamp(), NOW, settlements.into()).await;
        let verdicts = settled.expect("settles").verdicts;
        assert!(verdicts.iter().all(|verdict| *verdict == SettleVerdict::Applied));
    }
}

/// Runs on a runtime of its own, which is gone afterwards with all its tasks, and what they had locked.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn a_drain_that_is_killed_between_any_two_steps_delivers_every_task_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let ids: Vec<String> = (0..600).map(|n| format!("t{n:03}")).collect();
    block_on(store(folder.path(), &ids));

    // Each drain gets one step further than its predecessor was allowed to: it is killed before its first
    // send, after it, before its second, and so on, until one is left in peace.
    let (mut runs, mut kills) = (BTreeMap::new(), 0);
    loop {
        let mut drain = Actor::start("drain", folder.path());
        let mut steps = kills % 4;
        let ended = loop {
            match drain.hear().as_deref() {
                Some("empty") => break true,
                None => panic!("the drain ended by itself"),
                Some(_) if steps == 0 => break false,
                Some(_) => {
                    steps -= 1;
                    drain.tell("go on");
                }
            }
        };
        drain.kill();
        block_on(work_off(folder.path(), &mut runs));
        if ended {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 4, "only {kills} were killed");
    assert_eq!(runs.keys().cloned().collect::<Vec<_>>(), ids);
    let twice: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test]
async fn nothing_that_was_stored_is_lost_when_its_producer_is_killed() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = Vec::new();
    for _ in 0..5 {
        // Two producers on one spool at once.
        let mut both = [0, 1].map(|_| Actor::start("producer", folder.path()));
        for producer in &mut both {
            for _ in 0..40 {
                acknowledged.push(producer.hear().expect("it goes on"));
            }
        }
        let [first, second] = both;
        first.kill();
        second.kill();
    }
    let spool = Spool::open(folder.path().join("spool.db"), SpoolLimits::default()).expect("opens");
    let waiting = spool.waiting(Store::Outbox).expect("readable");
    assert!(waiting.items >= acknowledged.len() as u64);
    let survivor = wrap(Arc::new(broker(folder.path())), config(folder.path()));
    until(&survivor.expect("opens"), "all is delivered", |s| s.outbox.items == 0).await;
    let mut runs = BTreeMap::new();
    work_off(folder.path(), &mut runs).await;
    let lost: Vec<_> = acknowledged.iter().filter(|id| runs.get(*id) != Some(&1)).collect();
    assert!(lost.is_empty(), "{} of {}: {lost:?}", lost.len(), acknowledged.len());
    assert!(runs.values().all(|runs| *runs == 1));
}

#[test]
fn a_run_whose_outcome_is_journaled_first_is_not_repeated_whenever_its_worker_is_killed() {
    for allowed_steps in [0, 1] {
        let folder = tempfile::tempdir().expect("a folder");
        block_on(async {
            let broker = broker(folder.path());
            enqueue(&broker, "q", NOW, &["a"]).await.expect("is taken");
        });
        let mut worker = Actor::start("worker", folder.path());
        for _ in 0..allowed_steps {
            assert_eq!(worker.hear().as_deref(), Some("sending"));
            worker.tell("go on");
        }
        assert!(worker.hear().is_some_and(|step| step.starts_with("sen")));
        worker.kill();
        block_on(async {
            let config = config(folder.path());
            let survivor = wrap(Arc::new(broker(folder.path())), config).expect("opens");
            until(&survivor, "it is applied", |status| status.journal.items == 0).await;
            until(&survivor, "it is counted", |status| status.counts.applied == 1).await;
            let mut runs = BTreeMap::new();
            work_off(folder.path(), &mut runs).await;
            assert!(runs.is_empty(), "{runs:?} after {allowed_steps} steps");
        });
    }
}
