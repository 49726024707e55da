//! The ledger: what the broker had acknowledged and has forgotten is offered again, and nothing else.

use std::sync::{Arc, Mutex};

use outlast_core::{
    Broker, BrokerError, Durability, Enqueued, Epoch, Health, Home, NewTask, QueueName, SessionId,
    Stamp, Timestamp,
};
use outlast_survive::{Event, Survivor};
use outlast_testkit::model::ModelBroker;

use crate::kit::*;
use crate::stand_in::StandIn;

/// A name behind which another, empty broker can be put.
struct Address {
    now: Mutex<(Arc<ModelBroker>, u32)>,
}

#[async_trait::async_trait]
impl StandIn for Address {
    fn behind(&self) -> Arc<dyn Broker> {
        self.now.lock().expect("nobody panics").0.clone()
    }

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        let epoch = Epoch(self.now.lock().expect("nobody panics").1.to_string());
        Ok(Health { epoch, ..self.behind().health(home, now).await? })
    }
}

struct World {
    address: Arc<Address>,
    survivor: Survivor,
    folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let address = Arc::new(Address { now: Mutex::new((Arc::new(ModelBroker::new(100)), 1)) });
        let survivor = Bed::around(address.clone(), folder.path());
        Self { address, survivor, folder }
    }

    fn model(&self) -> Arc<ModelBroker> {
        self.address.now.lock().expect("nobody panics").0.clone()
    }

    /// What a flush leaves, or a replica that had nothing yet.
    fn forget_everything(&self) {
        let mut now = self.address.now.lock().expect("nobody panics");
        *now = (Arc::new(ModelBroker::new(100)), now.1 + 1);
    }

    async fn enqueue(&self, lane: u16, seq: u64, ids: &[&str]) -> Enqueued {
        let stamp = Stamp { session: SessionId(7), lane, seq, durability: Durability::Accepted };
        let batch: Arc<[NewTask]> = tasks(ids);
        let q: QueueName = queue("q");
        self.survivor.broker().enqueue(&q, stamp, NOW, batch).await.expect("is taken")
    }
}

#[tokio::test]
async fn what_was_acknowledged_and_forgotten_is_offered_again_from_every_lane() {
    let world = World::new();
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(0, 2, &["b"]).await;
    world.enqueue(1, 1, &["c"]).await;
    world.enqueue(1, 2, &["d"]).await;
    let mut events = world.survivor.events();
    world.forget_everything();
    world.enqueue(0, 3, &["e"]).await;
    let offered = event(&mut events, |event| match event {
        Event::Lost { offered_again, is_partly: false, .. } => Some(offered_again),
        _ => None,
    });
    assert_eq!(offered.await, 4);
    until(&world.survivor, "all is delivered", |status| status.outbox.items == 0).await;
    let mut there = pending(&*world.model(), "q", NOW).await;
    there.sort();
    assert_eq!(there, ["a", "b", "c", "d", "e"]);
    let counts = world.survivor.status().expect("readable").counts;
    assert_eq!((counts.id_conflicts, counts.offered_again), (0, 4));
    drop(world.folder);
}

#[tokio::test]
async fn what_is_known_to_be_finished_is_not_offered_again() {
    let world = World::new();
    world.enqueue(0, 1, &["done", "open"]).await;
    let broker = world.survivor.broker();
    let claims = broker.claim(&queue("q"), stamp(), NOW, &want(1)).await.expect("claims");
    let outlast_core::Claim::Task(claimed) = &claims.claims[0] else { panic!("a task") };
    let outcome = outlast_core::Outcome::Done { result: None };
    let settlement = outlast_core::Settlement { lease: claimed.lease.clone(), outcome };
    broker.settle(&queue("q"), stamp(), NOW, [settlement].into()).await.expect("settles");
    world.forget_everything();
    world.enqueue(0, 2, &["next"]).await;
    until(&world.survivor, "all is delivered", |s| s.outbox.items + s.journal.items == 0).await;
    let mut there = pending(&*world.model(), "q", NOW).await;
    there.sort();
    assert_eq!(there, ["next", "open"]);
}

#[tokio::test]
async fn a_broker_that_has_forgotten_a_session_and_no_data_is_offered_nothing_twice() {
    let world = World::new();
    world.enqueue(0, 1, &["a"]).await;
    // As after an eviction: the number comes from nowhere, the data is the same.
    let stamp = Stamp { session: SessionId(8), lane: 0, seq: 5, durability: Durability::Accepted };
    let broker = world.survivor.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    let answer = broker.enqueue(&queue("q"), stamp, NOW, tasks(&["b"])).await;
    assert!(answer.expect("is taken").lost.is_some());
    assert_eq!(pending(&*world.model(), "q", NOW).await, ["a", "b"]);
    assert_eq!(world.survivor.status().expect("readable").counts.offered_again, 0);
}
