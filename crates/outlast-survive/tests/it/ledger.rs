//! The ledger: what the broker had acknowledged and has forgotten is offered again, and nothing else.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Claim, Durability, Enqueued, Epoch, Health, Home, Inspect, Kind, NewTask,
    Outcome, PageRequest, QueueName, Selector, SessionId, Settlement, Stamp, TaskState, Timestamp,
};
use outlast_survive::Survivor;
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

use crate::kit::*;
use crate::stand_in::{Before, StandIn};

/// A name behind which another, empty broker can be put.
struct Address {
    now: Mutex<(Arc<ModelBroker>, u32)>,
    /// What stands before it while it is down.
    down: Mutex<Option<Arc<FaultBroker>>>,
    /// A queue that it refuses alone.
    barred: Mutex<Option<QueueName>>,
}

#[async_trait::async_trait]
impl StandIn for Address {
    fn behind(&self) -> Arc<dyn Broker> {
        let down = self.down.lock().expect("nobody panics").clone();
        match down {
            Some(down) => down,
            None => self.now.lock().expect("nobody panics").0.clone(),
        }
    }

    fn forbids(&self, queue: &QueueName) -> Option<BrokerError> {
        let is_barred = self.barred.lock().expect("nobody panics").as_ref() == Some(queue);
        is_barred.then(|| BrokerError::new(Kind::Misconfigured, "NOPERM").of_its_queue())
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
        let address = Arc::new(Address {
            now: Mutex::new((Arc::new(ModelBroker::new(100)), 1)),
            down: Mutex::default(),
            barred: Mutex::default(),
        });
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

    fn goes_down(&self) {
        let down = FaultBroker::new(self.model());
        for verb in [Verb::Enqueue, Verb::Claim, Verb::Settle, Verb::Health] {
            down.always(verb, Fault::Before(Kind::Unavailable));
        }
        *self.address.down.lock().expect("nobody panics") = Some(Arc::new(down));
    }

    fn comes_back(&self) {
        *self.address.down.lock().expect("nobody panics") = None;
    }

    /// Waits until these tasks are there, and nothing else.
    async fn until_pending(&self, ids: &[&str]) {
        let mut there = Vec::new();
        let looking = async {
            loop {
                there = pending(&*self.model(), "q", NOW).await;
                there.sort();
                let status = self.survivor.status().expect("readable");
                if there == ids && status.outbox.items == 0 {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(SOON, looking).await.is_err() {
            panic!("expected {ids:?}, found {there:?}");
        }
    }

    async fn enqueue(&self, lane: u16, seq: u64, ids: &[&str]) -> Enqueued {
        self.enqueue_as(7, lane, seq, ids).await
    }

    async fn enqueue_as(&self, session: u128, lane: u16, seq: u64, ids: &[&str]) -> Enqueued {
        let session = SessionId(session);
        let stamp = Stamp { session, lane, seq, durability: Durability::Accepted };
        let batch: Arc<[NewTask]> = tasks(ids);
        let q: QueueName = queue("q");
        self.survivor.broker().enqueue(&q, stamp, NOW, batch).await.expect("is taken")
    }
}

/// Runs all at once, in turns.
async fn together<T>(mut all: Vec<std::pin::Pin<Box<impl Future<Output = T>>>>) {
    std::future::poll_fn(|context| {
        all.retain_mut(|one| one.as_mut().poll(context).is_pending());
        if all.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

fn stamp_of(session: u128) -> Stamp {
    Stamp { session: SessionId(session), lane: 0, seq: 1, durability: Durability::Accepted }
}

#[tokio::test]
async fn what_was_acknowledged_and_forgotten_is_offered_again_from_every_lane() {
    let world = World::new();
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(0, 2, &["b"]).await;
    world.enqueue(1, 1, &["c"]).await;
    world.enqueue(1, 2, &["d"]).await;
    world.forget_everything();
    world.enqueue(0, 3, &["e"]).await;
    world.until_pending(&["a", "b", "c", "d", "e"]).await;
    until(&world.survivor, "it is counted", |status| status.counts.offered_again == 4).await;
    assert_eq!(world.survivor.status().expect("readable").counts.id_conflicts, 0);
    drop(world.folder);
}

#[tokio::test]
async fn lanes_that_move_on_at_once_after_a_loss_lose_nothing() {
    // The first lane that told took the batches of all others and stored them under their own stamps. Those lanes
    // had moved on by then: the broker called what it had lost superseded, and it was deleted.
    let world = World::new();
    let names: Vec<[String; 4]> =
        (0..16).map(|lane| [1, 2, 3, 4].map(|seq| format!("{lane:02}-{seq}"))).collect();
    for (lane, names) in (0..).zip(&names) {
        for (seq, name) in (1..=3).zip(names) {
            world.enqueue(lane, seq, &[name]).await;
        }
    }
    world.forget_everything();
    let (world_ref, mut moving) = (&world, Vec::new());
    for (lane, names) in (0..).zip(&names) {
        moving.push(Box::pin(async move { world_ref.enqueue(lane, 4, &[&names[3]]).await }));
    }
    together(moving).await;
    let all: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
    world.until_pending(&all).await;
    let counts = world.survivor.status().expect("readable").counts;
    assert_eq!((counts.id_conflicts, counts.duplicates), (0, 0));
}

#[tokio::test]
async fn a_restart_without_data_is_made_good_though_every_lane_has_left_its_session() {
    // The calls that failed were stored, so that their sessions were left: the new ones began at one, no answer
    // told of a loss, and the ledger was never asked.
    let world = World::new();
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(0, 2, &["b"]).await;
    world.enqueue(1, 1, &["c"]).await;
    world.goes_down();
    world.enqueue(0, 3, &["d"]).await;
    world.enqueue(1, 2, &["e"]).await;
    world.forget_everything();
    world.comes_back();
    world.enqueue_as(8, 0, 1, &["f"]).await;
    world.until_pending(&["a", "b", "c", "d", "e", "f"]).await;
    let counts = world.survivor.status().expect("readable").counts;
    assert_eq!((counts.id_conflicts, counts.duplicates), (0, 0));
}

#[tokio::test]
async fn a_session_that_began_in_the_part_that_was_lost_is_made_good_though_the_epoch_is_the_same()
{
    // An older copy of the same data has the same epoch. That a session was unknown there was taken for an eviction, and all but
    // its newest batch stayed lost.
    let world = World::new();
    let broker = world.survivor.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    // In its first half minute a process takes all data for new.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(31)).await;
    tokio::time::resume();
    let copy = world.model().save();
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(0, 2, &["b"]).await;
    world.goes_down();
    world.enqueue(0, 3, &["c"]).await;
    world.model().restore(copy);
    world.comes_back();
    world.enqueue_as(8, 0, 1, &["d"]).await;
    world.until_pending(&["a", "b", "c", "d"]).await;
}

/// Whether a batch had told of a loss was remembered, and not of which. Asked after the second loss it told of more, and that was taken for
/// a repeat of the first.
#[tokio::test]
async fn a_second_loss_that_the_same_batch_tells_of_is_made_good() {
    let world = World::new();
    let broker = world.survivor.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.enqueue(0, 1, &["a"]).await;
    let copy = world.model().save();
    world.enqueue(0, 2, &["b"]).await;
    world.model().restore(copy);
    let answer = world.enqueue(0, 3, &["c"]).await;
    assert_eq!(answer.lost.map(|lost| lost.after_seq), Some(1));
    world.until_pending(&["a", "b", "c"]).await;
    world.forget_everything();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.until_pending(&["a", "b", "c"]).await;
}

/// A task that was acknowledged in the moment of a loss was offered again for nothing, and met itself. Nobody kept it then, so the next
/// loss was its end.
#[tokio::test]
async fn a_stored_task_that_meets_itself_is_made_good_after_the_next_loss() {
    let world = World::new();
    let broker = world.survivor.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.model().enqueue(&queue("q"), stamp_of(8), NOW, tasks(&["a"])).await.expect("is taken");
    world.goes_down();
    world.enqueue(0, 1, &["a"]).await;
    world.comes_back();
    until(&world.survivor, "it meets itself", |status| status.counts.id_conflicts == 1).await;
    world.forget_everything();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.until_pending(&["a"]).await;
}

/// The reply to the batch that would have told of the loss was lost, and another process delivered it from the spool they share: that one
/// was told, and has nothing to offer. Who had been acknowledged what was lost asked, heard that its lane had moved on, and was content.
#[tokio::test]
async fn a_loss_that_another_process_is_told_of_is_made_good() {
    let world = World::new();
    let way = FaultBroker::new(Arc::new(Before(world.address.clone())));
    let (way, time) = (Arc::new(way), Arc::new(AtomicI64::new(NOW.as_millis())));
    let cut_off = Bed::reopen(&way, world.folder.path(), &time);
    let broker = cut_off.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    let of_lane = |seq| Stamp { seq, ..stamp_of(7) };
    broker.enqueue(&queue("q"), of_lane(1), NOW, tasks(&["a"])).await.expect("is taken");
    broker.enqueue(&queue("q"), of_lane(2), NOW, tasks(&["b"])).await.expect("is taken");
    world.forget_everything();
    way.script(Verb::Enqueue, [Some(Fault::After)]);
    for verb in [Verb::Enqueue, Verb::Health] {
        way.always(verb, Fault::Busy);
    }
    broker.enqueue(&queue("q"), of_lane(3), NOW, tasks(&["c"])).await.expect("is stored");
    world.until_pending(&["c"]).await;
    way.heal();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.until_pending(&["a", "b", "c"]).await;
    until(&cut_off, "it is counted", |status| status.counts.offered_again == 2).await;
    assert_eq!(cut_off.status().expect("readable").counts.id_conflicts, 0);
}

/// The same after a failover to a replica that was behind: its data has the same name, so that whoever had been acknowledged what was
/// lost took the answer "your lane has moved on" for a sign that all was well.
#[tokio::test]
async fn a_part_that_is_lost_is_made_good_though_another_process_is_told_of_it() {
    let world = World::new();
    let way = FaultBroker::new(Arc::new(Before(world.address.clone())));
    let (way, time) = (Arc::new(way), Arc::new(AtomicI64::new(NOW.as_millis())));
    let cut_off = Bed::reopen(&way, world.folder.path(), &time);
    let broker = cut_off.broker();
    let of_lane = |seq| Stamp { seq, ..stamp_of(7) };
    broker.enqueue(&queue("q"), of_lane(1), NOW, tasks(&["a"])).await.expect("is taken");
    let copy = world.model().save();
    broker.enqueue(&queue("q"), of_lane(2), NOW, tasks(&["b"])).await.expect("is taken");
    world.model().restore(copy);
    way.script(Verb::Enqueue, [Some(Fault::After)]);
    for verb in [Verb::Enqueue, Verb::Health] {
        way.always(verb, Fault::Busy);
    }
    broker.enqueue(&queue("q"), of_lane(3), NOW, tasks(&["c"])).await.expect("is stored");
    world.until_pending(&["a", "c"]).await;
    way.heal();
    world.until_pending(&["a", "b", "c"]).await;
    assert_eq!(cut_off.status().expect("readable").counts.offered_again, 1);
}

/// A producer that has nothing more to say was told nothing: its server came back without its task, and it noticed with its next call,
/// if there was one.
#[tokio::test]
async fn a_process_that_has_nothing_more_to_ask_notices_that_its_server_is_another_one() {
    for is_flushed in [true, false] {
        let world = World::new();
        let broker = world.survivor.broker();
        broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
        let copy = world.model().save();
        world.enqueue(0, 1, &["a"]).await;
        match is_flushed {
            true => world.forget_everything(),
            false => world.model().restore(copy),
        }
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(6)).await;
        tokio::time::resume();
        world.until_pending(&["a"]).await;
    }
}

/// The batches of a lane were given up before they were on the disk, and what the disk refused was gone.
#[tokio::test]
async fn what_was_forgotten_waits_in_memory_while_the_spool_does_not_take_it() {
    let (world, time) = (World::new(), Arc::new(AtomicI64::new(NOW.as_millis())));
    let way = Arc::new(FaultBroker::new(Arc::new(Before(world.address.clone()))));
    let folder = tempfile::tempdir().expect("a folder");
    let cramped = Bed::reopen_as(&way, folder.path(), &time, |config| config.limits.items_max = 1);
    let broker = cramped.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    let of_lane = |seq| Stamp { seq, ..stamp_of(7) };
    for (seq, id) in [(1, "a"), (2, "b"), (3, "c")] {
        broker.enqueue(&queue("q"), of_lane(seq), NOW, tasks(&[id])).await.expect("is taken");
    }
    world.forget_everything();
    broker.enqueue(&queue("q"), of_lane(4), NOW, tasks(&["d"])).await.expect("is taken");
    world.until_pending(&["a", "b", "c", "d"]).await;
    until(&cramped, "they are counted", |status| status.counts.offered_again == 3).await;
}

#[tokio::test]
async fn other_data_that_is_noticed_by_whoever_looks_is_offered_what_was_acknowledged() {
    let world = World::new();
    let broker = world.survivor.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(0, 2, &["b"]).await;
    world.forget_everything();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.until_pending(&["a", "b"]).await;
}

/// The first queue that refused the question ended the round: what the queues behind it had lost stayed lost as long as the one was
/// barred.
#[tokio::test]
async fn a_queue_that_is_barred_keeps_no_other_from_being_made_good() {
    let world = World::new();
    let broker = world.survivor.broker();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    broker.enqueue(&queue("barred"), stamp(), NOW, tasks(&["x"])).await.expect("is taken");
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(0, 2, &["b"]).await;
    *world.address.barred.lock().expect("nobody panics") = Some(queue("barred"));
    world.forget_everything();
    broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    world.until_pending(&["a", "b"]).await;
    *world.address.barred.lock().expect("nobody panics") = None;
    let looking = async {
        while pending(&*world.model(), "barred", NOW).await != ["x"] {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, looking).await.expect("it is asked again and made good");
}

#[tokio::test]
async fn a_claim_that_tells_of_a_loss_has_the_ledger_offer_again() {
    let world = World::new();
    let broker = world.survivor.broker();
    let claimer = |seq| Stamp { seq, ..stamp_of(9) };
    world.enqueue(0, 1, &["a", "b"]).await;
    broker.claim(&queue("q"), claimer(1), NOW, &want(1)).await.expect("claims");
    world.forget_everything();
    // Something to be claimed, so that the broker keeps a record of the lane.
    world.model().enqueue(&queue("q"), stamp(), NOW, tasks(&["other"])).await.expect("is taken");
    let claims = broker.claim(&queue("q"), claimer(2), NOW, &want(1)).await.expect("claims");
    assert!(claims.lost.is_some());
    world.until_pending(&["a", "b"]).await;
}

#[tokio::test]
async fn an_outage_without_a_loss_has_nothing_offered_and_nothing_stored_twice() {
    let world = World::new();
    world.enqueue(0, 1, &["a"]).await;
    world.enqueue(1, 1, &["b"]).await;
    world.goes_down();
    world.enqueue(0, 2, &["c"]).await;
    world.comes_back();
    world.enqueue_as(8, 0, 1, &["d"]).await;
    world.until_pending(&["a", "b", "c", "d"]).await;
    let counts = world.survivor.status().expect("readable").counts;
    assert_eq!((counts.offered_again, counts.id_conflicts), (0, 0));
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
    world.until_pending(&["next", "open"]).await;
    until(&world.survivor, "all is delivered", |s| s.outbox.items + s.journal.items == 0).await;
    world.until_pending(&["next", "open"]).await;
}

/// A server without persistence was killed and came back empty: the worker's lane told of the loss first, and with its outcomes the
/// ledger gave away what it knew of the tasks. A hundred tasks that were done ran again.
#[tokio::test]
async fn what_is_known_to_be_finished_is_not_offered_again_when_the_outcomes_are_missed_first() {
    let world = World::new();
    world.enqueue(0, 1, &["done", "open"]).await;
    let broker = world.survivor.broker();
    let claims = broker.claim(&queue("q"), stamp(), NOW, &want(1)).await.expect("claims");
    let outlast_core::Claim::Task(claimed) = &claims.claims[0] else { panic!("a task") };
    let outcome = outlast_core::Outcome::Done { result: None };
    let settlement = outlast_core::Settlement { lease: claimed.lease.clone(), outcome };
    let first = stamp_of(9);
    broker.settle(&queue("q"), first, NOW, [settlement].into()).await.expect("settles");
    world.forget_everything();
    let second = Stamp { seq: 2, ..first };
    let answer = broker.claim(&queue("q"), second, NOW, &want(1)).await.expect("claims");
    assert!(answer.lost.is_some() && answer.claims.is_empty(), "{answer:?}");
    world.enqueue(0, 2, &["next"]).await;
    world.until_pending(&["next", "open"]).await;
    until(&world.survivor, "all is delivered", |s| s.outbox.items + s.journal.items == 0).await;
    world.until_pending(&["next", "open"]).await;
}

/// A process keeps its token. The failure of a task's earlier run was offered again after a flush, met the new run of the task in the
/// same process, and the task ran a second time beside it.
#[tokio::test]
async fn a_failure_that_is_offered_again_does_not_meet_a_new_run_of_its_task() {
    let world = World::new();
    let broker = world.survivor.broker();
    let of_worker = |seq| Stamp { seq, ..stamp_of(9) };
    world.enqueue(0, 1, &["fails", "done"]).await;
    let claims = broker.claim(&queue("q"), stamp(), NOW, &want(2)).await.expect("claims");
    let at = NOW.plus(Duration::from_secs(60));
    let attempt = outlast_core::Attempt::Spent;
    let failed = Outcome::Retry { at, error: "no".to_owned(), attempt };
    let outcomes = [failed, Outcome::Done { result: None }];
    for ((claim, outcome), seq) in claims.claims.iter().zip(outcomes).zip(1..) {
        let Claim::Task(claimed) = claim else { panic!("a task") };
        let settlement = Settlement { lease: claimed.lease.clone(), outcome };
        broker
            .settle(&queue("q"), of_worker(seq), NOW, [settlement].into())
            .await
            .expect("settles");
    }
    world.forget_everything();
    world.model().enqueue(&queue("q"), stamp(), NOW, tasks(&["fails"])).await.expect("is taken");
    let answer = broker.claim(&queue("q"), of_worker(3), NOW, &want(1)).await.expect("claims");
    assert!(answer.lost.is_some() && answer.claims.len() == 1, "{answer:?}");
    until(&world.survivor, "what is over is offered again", |status| {
        status.counts.offered_again > 0 && status.journal.items + status.outbox.items == 0
    })
    .await;
    let active = Selector::state(TaskState::Active);
    let active = world.model().tasks(&queue("q"), &active, &PageRequest::first(10), NOW).await;
    let active: Vec<_> =
        active.expect("lists").items.iter().map(|task| task.id.to_string()).collect();
    assert_eq!(active, ["fails"]);
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
