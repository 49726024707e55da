//! The breaker: a sick broker is left in peace, and found again soon.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::{
    Broker, BrokerError, EnqueueVerdict, Health, Home, Interest, Kind, Memory, QueueName, Role,
    SweepBudget, Swept, Timestamp, Woke,
};
use outlast_survive::{CircuitState, Event, OnOutage, Status, Survivor, Watermark};
use outlast_testkit::fault::{Fault, Verb};
use outlast_testkit::model::ModelBroker;
use tempfile::TempDir;
use tokio::time::Instant;

use crate::kit::*;
use crate::stand_in::StandIn;

#[tokio::test(start_paused = true)]
async fn a_broker_that_is_down_gets_two_commands_a_second_whatever_is_asked_of_it() {
    let bed = Bed::new();
    bed.down(Fault::Before(Kind::Unavailable));
    let failing = bed.survivor.failing();
    for _ in 0..10 {
        let _ = enqueue(&*failing, "q", NOW, &["a"]).await;
    }
    let verbs = [Verb::Enqueue, Verb::Claim, Verb::Settle, Verb::Health];
    let commands = || verbs.iter().map(|verb| bed.faults.calls(*verb)).sum::<u64>();
    assert_eq!(commands(), 5, "then it opened");
    let (before, begun) = (commands(), Instant::now());
    while begun.elapsed() < Duration::from_secs(60) {
        for _ in 0..100 {
            let _ = enqueue(&*failing, "q", NOW, &["a"]).await;
        }
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    let seconds = begun.elapsed().as_secs();
    let sent = commands() - before;
    assert!((20..=2 * seconds).contains(&sent), "{sent} commands in {seconds} s");
}

#[tokio::test]
async fn one_event_goes_down_and_one_comes_up_with_the_time_between() {
    let bed = Bed::new();
    let mut events = bed.survivor.events();
    bed.down(Fault::Before(Kind::Unavailable));
    let failing = bed.survivor.failing();
    for _ in 0..10 {
        let _ = enqueue(&*failing, "q", NOW, &["a"]).await;
        let _ = failing.claim(&queue("q"), stamp(), NOW, &want(1)).await;
    }
    let Ok(Event::Down { kind, reason, .. }) = events.recv().await else { panic!("goes down") };
    assert_eq!(kind, Kind::Unavailable);
    assert!(reason.contains("planned fault"), "{reason}");
    let homes = bed.status().homes;
    assert_eq!((homes[0].produce, homes[0].consume), (CircuitState::Open, CircuitState::Open));
    bed.time.fetch_add(8_100, Ordering::SeqCst);
    bed.faults.heal();
    let up = tokio::time::timeout(Duration::from_secs(6), events.recv()).await.expect("soon");
    let Ok(Event::Up { after, .. }) = up else { panic!("comes up, not {up:?}") };
    assert_eq!(after, Duration::from_millis(8_100));
    assert!(events.is_empty(), "two classes are one outage");
}

#[tokio::test]
async fn the_first_success_comes_within_three_seconds_of_the_brokers_return() {
    let bed = Bed::new();
    bed.down(Fault::Before(Kind::Unavailable));
    for n in 0..10 {
        bed.enqueue(&[&format!("t{n}")]).await.expect("is stored");
    }
    // Some probes have failed, so that the pauses are as long as they get.
    bed.until("five probes", |_| bed.faults.calls(Verb::Health) >= 5).await;
    bed.faults.heal();
    let back = Instant::now();
    bed.until("the first task is delivered", |status| status.counts.delivered > 0).await;
    assert!(back.elapsed() < Duration::from_secs(3), "{:?}", back.elapsed());
}

#[tokio::test]
async fn a_broker_without_memory_for_new_tasks_still_hands_out_and_settles() {
    let bed = Bed::new();
    bed.enqueue(&["a"]).await.expect("answers");
    bed.faults.always(Verb::Enqueue, Fault::Busy);
    let failing = bed.survivor.failing();
    for _ in 0..10 {
        let _ = enqueue(&*failing, "q", NOW, &["b"]).await;
    }
    assert_ne!(bed.status().homes[0].produce, CircuitState::Closed);
    let claimed = bed.claim(1).await;
    assert_eq!(bed.done(&claimed[0]).await, outlast_core::SettleVerdict::Applied);
    assert_eq!(bed.status().homes[0].consume, CircuitState::Closed);
}

#[tokio::test]
async fn a_broker_that_comes_back_with_its_memory_full_is_drained() {
    // Its probes were refused, and so nobody asked again whether claims pass: it stayed full for ever.
    let bed = Bed::new();
    bed.enqueue(&["a"]).await.expect("answers");
    bed.broken().await;
    let failing = bed.survivor.failing();
    while bed.status().homes[0].consume == CircuitState::Closed {
        failing.claim(&queue("q"), stamp(), NOW, &want(1)).await.expect_err("is down");
    }
    bed.faults.heal();
    bed.faults.always(Verb::Enqueue, Fault::Busy);
    bed.faults.uses(Memory { used_percent: Some(101), is_full: true });
    bed.until("claims may be tried", |status| status.homes[0].consume != CircuitState::Open).await;
    let claimed = bed.claim(1).await;
    assert_eq!(bed.done(&claimed[0]).await, outlast_core::SettleVerdict::Applied);
    let home = &bed.status().homes[0];
    assert_eq!(home.consume, CircuitState::Closed);
    assert_eq!(home.produce, CircuitState::Open, "it is known that nothing new is taken");
}

#[tokio::test(start_paused = true)]
async fn an_enqueue_that_waits_pauses_between_its_attempts_although_nothing_is_known_to_be_down() {
    // It asked again at once for as long as other calls kept the breaker closed.
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, [Some(Fault::Busy); 4]);
    let (wait, begun) = (OnOutage::Wait(Duration::from_secs(20)), Instant::now());
    let (q, stamp) = (queue("q"), stamp());
    let answer = bed.survivor.enqueue(wait, (&q, stamp), NOW, tasks(&["a"])).await;
    answer.expect("the fifth attempt succeeds");
    assert_eq!(bed.faults.calls(Verb::Enqueue), 5);
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
}

/// Its attempt was waited for as long as the broker takes to be given up, however short the wait was to be.
#[tokio::test(start_paused = true)]
async fn an_enqueue_that_waits_a_second_for_a_silent_broker_waits_no_longer() {
    let bed = Bed::new();
    bed.faults.always(Verb::Enqueue, Fault::Hang);
    let (wait, begun) = (OnOutage::Wait(Duration::from_secs(1)), Instant::now());
    let (q, stamp) = (queue("q"), stamp());
    let error = bed.survivor.enqueue(wait, (&q, stamp), NOW, tasks(&["a"])).await;
    assert_eq!(error.expect_err("nothing is answered").kind(), Kind::Ambiguous);
    assert!(begun.elapsed() < Duration::from_millis(1100), "{:?}", begun.elapsed());
}

/// The end of such a wait is beyond what a clock can say, and that was a panic.
#[tokio::test(start_paused = true)]
async fn an_enqueue_may_wait_for_ever() {
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, [Some(Fault::Busy)]);
    let (q, stamp) = (queue("q"), stamp());
    let for_ever = OnOutage::Wait(Duration::MAX);
    let answer = bed.survivor.enqueue(for_ever, (&q, stamp), NOW, tasks(&["a"])).await;
    answer.expect("the second attempt succeeds");
    bed.survivor.linger(Duration::MAX).await.expect("nothing is left");
}

#[tokio::test]
async fn a_call_that_hangs_counts_before_it_ends() {
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, vec![Some(Fault::Hang); 5]);
    let failing = bed.survivor.failing();
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..5 {
        let failing = failing.clone();
        calls.spawn(async move { enqueue(&*failing, "q", NOW, &[&format!("t{n}")]).await });
    }
    bed.until("the breaker opens", |status| {
        status.homes.first().is_some_and(|home| home.produce != CircuitState::Closed)
    })
    .await;
    bed.faults.release();
    for answer in calls.join_all().await {
        answer.expect("the call itself goes on");
    }
    assert_eq!(bed.pending().await.len(), 5);
}

/// Refuses the queues that are in the set.
struct Refusing {
    model: Arc<ModelBroker>,
    refused: Mutex<BTreeSet<&'static str>>,
    asked: AtomicU64,
}

impl Refusing {
    fn bed(refused: impl IntoIterator<Item = &'static str>) -> (Arc<Self>, Survivor, TempDir) {
        let (folder, model) = (tempfile::tempdir().expect("a folder"), ModelBroker::new(100));
        let refused = Mutex::new(refused.into_iter().collect());
        let broker = Arc::new(Self { model: Arc::new(model), refused, asked: AtomicU64::new(0) });
        let survivor = Bed::around(broker.clone(), folder.path());
        (broker, survivor, folder)
    }
}

impl StandIn for Refusing {
    fn behind(&self) -> Arc<dyn Broker> {
        self.model.clone()
    }

    fn forbids(&self, queue: &QueueName) -> Option<BrokerError> {
        let is_refused = self.refused.lock().expect("nobody panics").contains(queue.as_str());
        let refusal = || BrokerError::new(Kind::Misconfigured, "no rights on this key");
        self.asked.fetch_add(u64::from(is_refused), Ordering::SeqCst);
        is_refused.then(|| refusal().of_its_queue())
    }
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_is_refused_leaves_the_circuit_of_its_home_closed_for_all_others() {
    // Its every try opened the circuit for five seconds, and everybody's tasks were stored.
    let (broker, survivor, _folder) = Refusing::bed(["secret"]);
    let mut events = survivor.events();
    let begun = Instant::now();
    for n in 0..100 {
        let id = format!("t{n}");
        let stored = enqueue(&*survivor.broker(), "secret", NOW, &[&id]).await.expect("is stored");
        assert_eq!(stored, [EnqueueVerdict::Stored]);
        let taken = enqueue(&*survivor.broker(), "q", NOW, &[&id]).await.expect("is taken");
        assert!(matches!(taken[0], EnqueueVerdict::Accepted { .. }), "{taken:?}");
        tokio::time::advance(Duration::from_millis(100)).await;
    }
    let home = survivor.homes().remove(0);
    assert_eq!((home.produce, home.outage), (CircuitState::Closed, None));
    assert_eq!(home.refused.len(), 1);
    // The clock also moves while the disk writes.
    let (tries, took) = (broker.asked.load(Ordering::SeqCst), begun.elapsed());
    assert!(tries <= 1 + took.as_secs() / 4, "{tries} tries in {took:?}");
    let Event::QueueRefused { queue: which, .. } = events.recv().await.expect("is told") else {
        panic!("is told")
    };
    assert_eq!(which.as_str(), "secret");

    broker.refused.lock().expect("nobody panics").clear();
    let begun = Instant::now();
    until(&survivor, "it is delivered", |status| status.outbox.items == 0).await;
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let is_admitted = |event| matches!(event, Event::QueueAdmitted { .. }).then_some(());
    event(&mut events, is_admitted).await;
}

#[tokio::test(start_paused = true)]
async fn a_home_that_refuses_all_of_twenty_queues_gets_two_commands_a_second() {
    // No server says whether the key that it refuses is one that every queue needs.
    let names: Vec<&'static str> =
        (0..20).map(|n| &*Box::leak(format!("q{n}").into_boxed_str())).collect();
    let (broker, survivor, _folder) = Refusing::bed(names.clone());
    let failing = survivor.failing();
    let ask_all = async || {
        for name in &names {
            enqueue(&*failing, name, NOW, &["a"]).await.expect_err("is refused");
        }
    };
    ask_all().await;
    let (before, begun) = (broker.asked.load(Ordering::SeqCst), Instant::now());
    while begun.elapsed() < Duration::from_secs(60) {
        ask_all().await;
        tokio::time::advance(Duration::from_millis(50)).await;
    }
    let sent = broker.asked.load(Ordering::SeqCst) - before;
    assert!((30..=60).contains(&sent), "{sent} commands in a minute");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_under_way_ends_when_its_home_goes_down() {
    // Where the server does not tell of changes it went on looking, five times a second.
    let bed = Bed::new();
    let broker = bed.survivor.broker();
    let interest = Interest { queues: vec![queue("q")], token: None };
    let waiting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.wait(&interest, NOW, Duration::from_secs(3600)).await }
    });
    while bed.faults.calls(Verb::Wait) == 0 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    bed.down(Fault::Before(Kind::Unavailable));
    for _ in 0..5 {
        broker.claim(&queue("q"), stamp(), NOW, &want(1)).await.expect_err("is down");
    }
    assert_eq!(waiting.await.expect("ends").expect("says nothing"), Woke::default());
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn while_memory_fills_up_the_least_important_queues_wait_on_the_disk_and_then_all_but_the_most_important()
 {
    let bed = Bed::with(|config| {
        let weights = [("critical", 6), ("default", 3), ("reports", 1)];
        let weights = weights.map(|(name, weight)| (queue(name), weight));
        config.watermark = Some(Watermark::new(weights));
    });
    let broker = bed.survivor.broker();
    let mut n = 0;
    let mut held = async || {
        n += 1;
        let mut held = Vec::new();
        for name in ["critical", "default", "reports"] {
            let verdicts = enqueue(&*broker, name, NOW, &[&format!("t{n}")]).await;
            if verdicts.expect("is safe") == [EnqueueVerdict::Stored] {
                held.push(name);
            }
        }
        held
    };
    let seen = async |used: u8| {
        bed.faults.uses(Memory { used_percent: Some(used), is_full: false });
        let (looks, begun) = (bed.faults.calls(Verb::Health), Instant::now());
        tokio::time::advance(Duration::from_secs(6)).await;
        // Whoever enqueues has it looked at.
        enqueue(&*broker, "critical", NOW, &[&format!("look at {used}")]).await.expect("is taken");
        let is_seen = |status: &Status| status.homes[0].memory.used_percent == Some(used);
        bed.until("it is seen", is_seen).await;
        let looks = bed.faults.calls(Verb::Health) - looks;
        assert!(looks <= 1 + begun.elapsed().as_secs() / 5, "{looks} in {:?}", begun.elapsed());
    };
    assert_eq!(held().await, [""; 0]);
    seen(80).await;
    assert_eq!(held().await, ["reports"]);
    seen(96).await;
    assert_eq!(held().await, ["default", "reports"]);
    assert_eq!(bed.survivor.homes()[0].outage, None, "the broker is well");
    let failing = enqueue(&*bed.survivor.failing(), "reports", NOW, &["x"]).await;
    assert_eq!(failing.expect_err("is shed").kind(), Kind::Busy);
    seen(20).await;
    bed.delivered().await;
    assert_eq!(pending(&*bed.model, "reports", NOW).await.len(), 3);
}

#[tokio::test]
async fn looking_after_a_home_passes_whatever_its_breaker_says() {
    let bed = Bed::new();
    let broker = bed.survivor.broker();
    let health = broker.health(&broker.home(&queue("q")), NOW).await.expect("is well");
    assert_eq!(health.role, Role::Primary);
}

/// Notes what sweeps were allowed to do.
struct Sweeps {
    model: Arc<dyn Broker>,
    is_down: AtomicBool,
    recoveries: Mutex<Vec<Recovery>>,
}

#[async_trait::async_trait]
impl StandIn for Sweeps {
    fn behind(&self) -> Arc<dyn Broker> {
        self.model.clone()
    }

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        match self.is_down.load(Ordering::SeqCst) {
            true => Err(BrokerError::new(Kind::Unavailable, "is down")),
            false => self.model.health(home, now).await,
        }
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(BrokerError::new(Kind::Unavailable, "is down"));
        }
        self.recoveries.lock().expect("nobody panics").push(budget.recovery);
        self.model.sweep(queue, now, budget).await
    }
}

#[tokio::test(start_paused = true)]
async fn expired_leases_are_left_alone_for_fifteen_seconds_after_an_outage() {
    // A sweep that was the trial itself, or the first call of a process, took back what living workers were about
    // to report.
    let folder = tempfile::tempdir().expect("a folder");
    let sweeps = Arc::new(Sweeps {
        model: Arc::new(ModelBroker::new(10)),
        is_down: AtomicBool::new(false),
        recoveries: Mutex::default(),
    });
    let survivor = Bed::around(sweeps.clone(), folder.path());
    let broker = survivor.broker();
    let budget = SweepBudget { moves_max: 10, recovery: Recovery::Allowed, vanished: None };
    let q = queue("q");
    let check = async |what: &str, recovery| {
        let is_back = async {
            while broker.sweep(&q, NOW, budget).await.is_err() {
                tokio::time::advance(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, is_back).await.expect(what);
        let seen = std::mem::take(&mut *sweeps.recoveries.lock().expect("nobody panics"));
        assert_eq!(seen, [recovery], "{what}");
    };
    check("the process has just begun", Recovery::Withheld).await;
    tokio::time::advance(Duration::from_secs(16)).await;
    check("all is well", Recovery::Allowed).await;
    sweeps.is_down.store(true, Ordering::SeqCst);
    while survivor.status().expect("readable").homes[0].outage.is_none() {
        broker.sweep(&q, NOW, budget).await.expect_err("is down");
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    sweeps.is_down.store(false, Ordering::SeqCst);
    check("the sweep is the trial", Recovery::Withheld).await;
    until(&survivor, "it is back", |status| status.homes[0].outage.is_none()).await;
    check("it has just come back", Recovery::Withheld).await;
    tokio::time::advance(Duration::from_secs(16)).await;
    check("it has been back for long", Recovery::Allowed).await;
}
