//! Leaves a sick broker in peace (law L9): while a home is down its calls fail at once, and one prober asks
//! whether it is back.
//!
//! The breaker gates attempts and changes nothing else: what becomes of a call that did not pass is decided
//! above, exactly as for one that failed. All decisions are made in `circuit`, without I/O; this file asks the
//! clock, makes the calls and wakes those who wait.

mod circuit;
mod homes;
mod probe;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::broker::Recovery;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Extended, Health, Hold, Home, Interest,
    Kind, NewTask, QueueName, Settled, Settlement, Stamp, SweepBudget, Swept, Timestamp, Want,
    Woke,
};
use tokio::sync::watch;
use tokio::time::Instant;

pub use circuit::CircuitState;
pub use homes::{Class, Outage};

use circuit::{Event as Happened, Outcome, Reply};
use homes::{HomeState, Homes, News, Now};

use crate::Clock;
use crate::event::{Counter, Event, Events};

/// A call that takes longer counts as a failure, once: brokers answer in milliseconds.
const SLOW: Duration = Duration::from_secs(1);

/// A call is given up after this long, whatever the broker below does: it may have been applied. Brokers
/// have shorter limits of their own.
const CALL_MAX: Duration = Duration::from_secs(15);

/// The layer directly over the broker.
pub(crate) struct Breaker {
    below: Arc<dyn Broker>,
    clock: Clock,
    events: Arc<Events>,
    /// How long expired leases are left alone after an outage.
    grace: Duration,
    begun: Instant,
    homes: Mutex<Homes>,
    /// Counts changes of any circuit.
    changes: watch::Sender<u64>,
    me: Weak<Breaker>,
}

/// How one class of a home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeStatus {
    /// The home.
    pub home: Home,
    /// Whether enqueues pass.
    pub produce: CircuitState,
    /// Whether claims and settlements pass.
    pub consume: CircuitState,
    /// Why and since when it is down, if it is.
    pub outage: Option<Outage>,
}

impl std::fmt::Debug for Breaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Breaker").field("homes", &*self.homes()).finish_non_exhaustive()
    }
}

impl Breaker {
    pub(crate) fn new(
        below: Arc<dyn Broker>,
        clock: Clock,
        events: Arc<Events>,
        grace: Duration,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            below,
            clock,
            events,
            grace,
            begun: Instant::now(),
            homes: Mutex::default(),
            changes: watch::channel(0).0,
            me: me.clone(),
        })
    }

    /// How every home is that was met so far.
    pub(crate) fn status(&self) -> Vec<HomeStatus> {
        let status = |(home, state): (&Home, &HomeState)| HomeStatus {
            home: home.clone(),
            produce: state.state(Class::Produce),
            consume: state.state(Class::Consume),
            outage: state.outage().cloned(),
        };
        self.homes().iter().map(status).collect()
    }

    /// True if a call of this class would pass now.
    pub(crate) fn admits(&self, home: &Home, class: Class) -> bool {
        self.homes().get(home).is_none_or(|state| state.admits(class))
    }

    /// True if data that was not known before was seen at a home within this time.
    pub(crate) fn is_renewed(&self, home: &Home, within: Duration) -> bool {
        let now = self.begun.elapsed();
        let renewed_at = self.homes().get(home).and_then(HomeState::renewed_at);
        renewed_at.is_some_and(|at| now.saturating_sub(at) < within)
    }

    /// Counts changes of any circuit from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Waits until any circuit changes, or `at_most`.
    pub(crate) async fn changed(&self, at_most: Duration) {
        let mut changes = self.changes.subscribe();
        let _ = tokio::time::timeout(at_most, changes.changed()).await;
    }

    /// Waits until a call of this class would pass. Safe to drop.
    pub(crate) async fn until_admits(&self, home: &Home, class: Class) {
        let mut changes = self.changes.subscribe();
        while !self.admits(home, class) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn homes(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let moment = self.begun.elapsed();
        Now { moment, time: self.clock.now(), dice: rand::random() }
    }

    /// Makes a call if the home's circuit lets it pass, and tells the circuit how it went. `limit` is when
    /// the call is slow, and when it is given up.
    async fn through<T>(
        &self,
        home: &Home,
        class: Class,
        limit: (Duration, Duration),
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        let mut pass = self.ask(home, class)?;
        let mut call = std::pin::pin!(call);
        let (slow, give_up) = limit;
        if let Ok(result) = tokio::time::timeout(slow, &mut call).await {
            pass.end(result.as_ref().err());
            return result;
        }
        pass.is_slow();
        match tokio::time::timeout(give_up.saturating_sub(slow), call).await {
            Ok(result) => {
                pass.end(result.as_ref().err());
                result
            }
            Err(_) => {
                let what =
                    format!("broker {} did not answer within {} s", home.0, give_up.as_secs());
                Err(BrokerError::new(Kind::Ambiguous, what))
            }
        }
    }

    fn ask(&self, home: &Home, class: Class) -> Result<Pass<'_>, BrokerError> {
        let mut homes = self.homes();
        if !homes.contains_key(home) {
            homes.insert(home.clone(), HomeState::new(self.begun.elapsed()));
            probe::meet(self.me.clone(), home.clone());
        }
        let Some(state) = homes.get_mut(home) else { return Err(refusal(home, None)) };
        let is_trial = match state.state(class) {
            // The way of nearly every call: no clock is asked.
            CircuitState::Closed => false,
            CircuitState::Open | CircuitState::HalfOpen => {
                match state.on(class, Happened::Ask, self.now()) {
                    Reply::Pass => false,
                    Reply::Trial => true,
                    Reply::Refuse | Reply::Noted | Reply::Left(_) => {
                        return Err(refusal(home, state.outage()));
                    }
                }
            }
        };
        drop(homes);
        if is_trial {
            self.events.add(Counter::SickCalls, 1);
        }
        Ok(Pass { breaker: self, home: home.clone(), class, is_trial, is_open: true })
    }

    /// Takes what happened to a circuit, and tells whoever has to know.
    fn happened(&self, home: &Home, change: impl FnOnce(&mut HomeState, Now), why: Why<'_>) {
        let now = self.now();
        let mut homes = self.homes();
        let Some(state) = homes.get_mut(home) else { return };
        let states = Class::ALL.map(|class| (state.state(class), state.admits(class)));
        change(state, now);
        let is_changed =
            states != Class::ALL.map(|class| (state.state(class), state.admits(class)));
        let news = state.news(home, now, || why.words());
        let wants_probe = state.probe_at().is_some() && !state.is_probed;
        state.is_probed |= wants_probe;
        drop(homes);
        if wants_probe {
            probe::start(self.me.clone(), home.clone());
        }
        self.tell(news);
        if is_changed {
            self.changes.send_modify(|changes| *changes += 1);
        }
    }

    fn tell(&self, news: Option<News>) {
        match news {
            None => {}
            Some(News::Down(home, Outage { kind, reason, .. })) => {
                self.events.tell(Event::Down { home, kind, reason });
            }
            Some(News::Up(home, after)) => self.events.tell(Event::Up { home, after }),
            Some(News::Epoch { home, from, to }) => {
                self.events.tell(Event::EpochChanged { home, from, to });
            }
        }
    }

    /// The home of a beat: that of its first queue, or of the default queue for one that has none.
    pub(crate) fn home_of_beat(&self, beat: &Beat) -> Home {
        let of_worker = beat.worker.as_ref().and_then(|worker| worker.view.queues.first());
        match of_worker {
            Some((queue, _)) => self.below.home(queue),
            None => self.below.home(&QueueName::default_queue()),
        }
    }
}

/// Why a circuit opened.
#[derive(Clone, Copy)]
enum Why<'a> {
    Failed(&'a BrokerError),
    Slow,
}

impl Why<'_> {
    fn words(&self) -> (Kind, String) {
        match self {
            Why::Failed(error) => (error.kind(), error.to_string()),
            Why::Slow => (Kind::Ambiguous, format!("calls take longer than {} s", SLOW.as_secs())),
        }
    }
}

/// The right to make one call. Dropped with the call unanswered it says nothing, and a trial is free again.
struct Pass<'a> {
    breaker: &'a Breaker,
    home: Home,
    class: Class,
    is_trial: bool,
    is_open: bool,
}

impl Pass<'_> {
    fn end(&mut self, error: Option<&BrokerError>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let outcome = Outcome::of(error.map(BrokerError::kind));
        let event = match self.is_trial {
            true => Happened::TrialEnded(outcome),
            false => Happened::Ended(outcome),
        };
        let class = self.class;
        let change = |state: &mut HomeState, now| {
            state.on(class, event, now);
        };
        self.breaker.happened(&self.home, change, error.map_or(Why::Slow, Why::Failed));
    }

    /// Counts the call as failed, before it has ended.
    fn is_slow(&mut self) {
        let event = match self.is_trial {
            true => Happened::TrialEnded(Outcome::Slow),
            false => Happened::Ended(Outcome::Slow),
        };
        self.is_open = false;
        let class = self.class;
        let change = |state: &mut HomeState, now| {
            state.on(class, event, now);
        };
        self.breaker.happened(&self.home, change, Why::Slow);
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_open && self.is_trial {
            let class = self.class;
            let change = |state: &mut HomeState, now| {
                state.on(class, Happened::TrialDropped, now);
            };
            self.breaker.happened(&self.home, change, Why::Slow);
        }
    }
}

fn withheld(budget: SweepBudget) -> SweepBudget {
    SweepBudget { recovery: Recovery::Withheld, ..budget }
}

fn refusal(home: &Home, outage: Option<&Outage>) -> BrokerError {
    let (kind, why) = match outage {
        Some(outage) => (outage.kind, format!("down since {}: {}", outage.since, outage.reason)),
        None => (Kind::Unavailable, "being tried".to_owned()),
    };
    // Whatever the outage is about, this call was not made.
    let kind = if kind == Kind::Ambiguous { Kind::Unavailable } else { kind };
    BrokerError::new(kind, format!("broker {} is {why}", home.0))
}

#[async_trait]
impl Broker for Breaker {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let call = self.below.enqueue(queue, stamp, now, tasks);
        self.through(&self.below.home(queue), Class::Produce, (SLOW, CALL_MAX), call).await
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        let call = self.below.claim(queue, stamp, now, want);
        self.through(&self.below.home(queue), Class::Consume, (SLOW, CALL_MAX), call).await
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let call = self.below.settle(queue, stamp, now, settlements);
        self.through(&self.below.home(queue), Class::Consume, (SLOW, CALL_MAX), call).await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        let call = self.below.extend(queue, now, holds, by);
        self.through(&self.below.home(queue), Class::Consume, (SLOW, CALL_MAX), call).await
    }

    /// Expired leases are left alone in an outage, and for a grace period after it and after the first look at a home
    /// (law L8).
    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        let home = self.below.home(queue);
        let budget = if self.is_in_grace(&home) { withheld(budget) } else { budget };
        let call = self.below.sweep(queue, now, budget);
        self.through(&home, Class::Consume, (SLOW, CALL_MAX), call).await
    }

    /// While the home is down this waits for it, instead of failing at once: waking early is allowed.
    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        let home = interest.queues.first().map(|queue| self.below.home(queue));
        let home = home.or_else(|| self.homes().keys().next().cloned());
        let Some(home) = home else { return self.below.wait(interest, now, at_most).await };
        // Before the look: a change right after it wakes, too.
        let mut changes = self.changes.subscribe();
        if !self.is_closed(&home, Class::Consume) {
            let _ = tokio::time::timeout(at_most, changes.changed()).await;
            return Ok(Woke::default());
        }
        let limit = (at_most + SLOW, at_most + CALL_MAX);
        let call = self.below.wait(interest, now, at_most);
        self.through(&home, Class::Consume, limit, call).await
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        let call = self.below.beat(now, beat);
        self.through(&self.home_of_beat(beat), Class::Consume, (SLOW, CALL_MAX), call).await
    }

    fn home(&self, queue: &QueueName) -> Home {
        self.below.home(queue)
    }

    /// Passes always: it is how one looks after a home that is down.
    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        let health = self.below.health(home, now).await?;
        self.saw(home, &health);
        Ok(health)
    }
}

impl Breaker {
    /// True if calls of this class pass without being tried.
    pub(crate) fn is_closed(&self, home: &Home, class: Class) -> bool {
        self.homes().get(home).is_none_or(|state| state.state(class) == CircuitState::Closed)
    }

    /// True until a home has been back for a while: workers that outlived the outage report first.
    fn is_in_grace(&self, home: &Home) -> bool {
        let now = self.begun.elapsed();
        // A home that nobody has met yet is met by the call that follows.
        let state = |state: &HomeState| state.is_in_grace(now, self.grace);
        self.homes().get(home).map_or(!self.grace.is_zero(), state)
    }

    /// Notes the epoch of a home that was looked after.
    fn saw(&self, home: &Home, health: &Health) {
        let now = self.begun.elapsed();
        let news = {
            let mut homes = self.homes();
            let meet = || HomeState::new(now);
            homes.entry(home.clone()).or_insert_with(meet).seen(home, &health.epoch, now)
        };
        self.tell(news);
    }
}
