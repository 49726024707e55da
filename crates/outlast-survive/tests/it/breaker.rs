//! The breaker: a sick broker is left in peace, and found again soon.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::{
    Broker, BrokerError, Health, Home, Kind, QueueName, Role, SweepBudget, Swept, Timestamp,
};
use outlast_survive::{CircuitState, Event, OnOutage};
use outlast_testkit::fault::{Fault, Verb};
use outlast_testkit::model::ModelBroker;
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
    bed.faults.always(Verb::Health, Fault::Busy);
    bed.until("claims may be tried", |status| status.homes[0].consume == CircuitState::HalfOpen)
        .await;
    let claimed = bed.claim(1).await;
    assert_eq!(bed.done(&claimed[0]).await, outlast_core::SettleVerdict::Applied);
    let home = &bed.status().homes[0];
    assert_eq!(home.consume, CircuitState::Closed);
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
    let budget = SweepBudget { moves_max: 10, recovery: Recovery::Allowed };
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
