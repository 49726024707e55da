//! Leaves a sick broker in peace (law L9): while a home is down its calls fail at once, and one prober asks
//! whether it is back.
//!
//! The breaker gates attempts and changes nothing else: what becomes of a call that did not pass is decided
//! above, exactly as for one that failed. All decisions are made in `circuit`, without I/O; this file asks the
//! clock, makes the calls and wakes those who wait.

mod admin;
mod circuit;
mod homes;
mod pass;
mod probe;
mod refused;
mod verbs;
mod watermark;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use outlast_core::{Beat, Broker, BrokerError, Health, Home, Kind, Memory, QueueName, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use admin::Admin;
pub use circuit::CircuitState;
pub use homes::{Class, Outage};
pub use watermark::Watermark;

use circuit::{Event as Happened, Reply};
use homes::{HomeState, Homes, News, Now};
use pass::{Pass, Why};

use crate::Clock;
use crate::event::{Counter, Events};

/// A call that takes longer counts as a failure, once: brokers answer in milliseconds.
const SLOW: Duration = Duration::from_secs(1);

/// A call is given up after this long, whatever the broker below does: it may have been applied. Brokers
/// have shorter limits of their own.
const CALL_MAX: Duration = Duration::from_secs(15);

/// The same two for what people ask: a long listing is no sign of illness.
const ADMIN_SLOW: Duration = Duration::from_secs(5);
/// See [`ADMIN_SLOW`].
const ADMIN_MAX: Duration = Duration::from_secs(30);

/// How often those look who wait for a queue that only time lets pass.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The layer directly over the broker.
pub(crate) struct Breaker {
    below: Arc<dyn Broker>,
    clock: Clock,
    events: Arc<Events>,
    /// How long expired leases are left alone after an outage.
    grace: Duration,
    watermark: Option<Watermark>,
    begun: Instant,
    homes: Mutex<Homes>,
    /// Counts changes of any circuit.
    changes: watch::Sender<u64>,
    me: Weak<Breaker>,
}

/// What a call is about.
#[derive(Clone, Copy)]
struct About<'a> {
    home: &'a Home,
    class: Class,
    /// `None` where the home as a whole is asked.
    queue: Option<&'a QueueName>,
}

/// How a home is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeStatus {
    /// The home.
    pub home: Home,
    /// Whether enqueues pass.
    pub produce: CircuitState,
    /// Whether claims and settlements pass.
    pub consume: CircuitState,
    /// Whether what people look at and do passes.
    pub admin: CircuitState,
    /// Why and since when it is down, if it is.
    pub outage: Option<Outage>,
    /// Queues that it refuses alone, while it serves the others.
    pub refused: Vec<(QueueName, Outage)>,
    /// How full it was when that was last seen.
    pub memory: Memory,
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
        (grace, watermark): (Duration, Option<Watermark>),
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            below,
            clock,
            events,
            grace,
            watermark,
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
            admin: state.state(Class::Admin),
            outage: state.outage().cloned(),
            refused: state.refused.list(),
            memory: state.pressure.memory(),
        };
        self.homes().iter().map(status).collect()
    }

    /// True if a call of this class would pass now.
    pub(crate) fn admits(&self, home: &Home, class: Class) -> bool {
        self.homes().get(home).is_none_or(|state| state.admits(class))
    }

    /// True if a call for this queue would pass now.
    pub(crate) fn admits_queue(&self, queue: &QueueName, class: Class) -> bool {
        let (home, now) = (self.below.home(queue), self.begun.elapsed());
        let is_held = class == Class::Produce && self.held_back(&home, queue).is_some();
        let admits = |state: &HomeState| {
            state.admits(class) && state.refused.why(class, queue, now).is_none()
        };
        !is_held && self.homes().get(&home).is_none_or(admits)
    }

    /// What the clock of this process says.
    pub(crate) fn time(&self) -> Timestamp {
        self.clock.now()
    }

    /// True if nothing says that the home is down.
    pub(crate) fn is_well(&self, home: &Home) -> bool {
        self.homes().get(home).is_none_or(HomeState::is_well)
    }

    /// True if data, or a run of the server, that was not known before was seen at a home within this time.
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

    /// Waits until a call for this queue would pass. Safe to drop.
    pub(crate) async fn until_admits_queue(&self, queue: &QueueName, class: Class) {
        while !self.admits_queue(queue, class) {
            // It may be time that changes it.
            self.changed(LOOK_EVERY).await;
        }
    }

    fn homes(&self) -> MutexGuard<'_, Homes> {
        self.homes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        let moment = self.begun.elapsed();
        Now { moment, time: self.clock.now(), dice: rand::random() }
    }

    /// Makes a call if it may pass, and tells its circuit how it went. `limit` is when the call is slow, and when it is given up.
    async fn through<T>(
        &self,
        about: About<'_>,
        limit: (Duration, Duration),
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        let mut pass = self.ask(about)?;
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
                let home = &about.home.0;
                let what = format!("broker {home} did not answer within {} s", give_up.as_secs());
                Err(BrokerError::new(Kind::Ambiguous, what))
            }
        }
    }

    fn ask<'a>(&'a self, about: About<'a>) -> Result<Pass<'a>, BrokerError> {
        let About { home, class, queue } = about;
        let mut homes = self.homes();
        if !homes.contains_key(home) {
            homes.insert(home.clone(), HomeState::new(self.begun.elapsed()));
            probe::meet(self.me.clone(), home.clone());
        }
        let Some(state) = homes.get_mut(home) else { return Err(refusal(home, None)) };
        // Asked first: what does not pass here takes nobody's place as the trial of the home.
        if let Some(queue) = queue.filter(|_| !state.refused.is_empty())
            && let Some(outage) = state.refused.why(class, queue, self.begun.elapsed())
        {
            return Err(queue_refusal(home, queue, outage));
        }
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
        if let Some(queue) = queue.filter(|_| !state.refused.is_empty()) {
            state.refused.began(class, queue, self.begun.elapsed());
        }
        drop(homes);
        if is_trial {
            self.events.add(Counter::SickCalls, 1);
        }
        Ok(Pass::new(self, about, is_trial))
    }

    /// Takes what happened to a home, and tells whoever has to know.
    fn happened(
        &self,
        home: &Home,
        why: Why<'_>,
        change: impl FnOnce(&mut HomeState, Now) -> Option<News>,
    ) {
        let now = self.now();
        let mut homes = self.homes();
        let Some(state) = homes.get_mut(home) else { return };
        let states = Class::ALL.map(|class| (state.state(class), state.admits(class)));
        let own = change(state, now);
        let is_changed = own.is_some()
            || states != Class::ALL.map(|class| (state.state(class), state.admits(class)));
        let news = state.news(home, now, || why.words());
        let wants_probe = state.probe_at().is_some() && !state.is_probed;
        state.is_probed |= wants_probe;
        drop(homes);
        if wants_probe {
            probe::start(self.me.clone(), home.clone());
        }
        for news in [own, news].into_iter().flatten() {
            self.events.tell(news.into());
        }
        if is_changed {
            self.changes.send_modify(|changes| *changes += 1);
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

fn refusal(home: &Home, outage: Option<&Outage>) -> BrokerError {
    let (kind, why) = match outage {
        Some(outage) => (outage.kind, format!("down since {}: {}", outage.since, outage.reason)),
        None => (Kind::Unavailable, "being tried".to_owned()),
    };
    // Whatever the outage is about, this call was not made.
    let kind = if kind == Kind::Ambiguous { Kind::Unavailable } else { kind };
    BrokerError::new(kind, format!("broker {} is {why}", home.0))
}

fn queue_refusal(home: &Home, queue: &QueueName, outage: &Outage) -> BrokerError {
    let what = format!(
        "broker {} refuses queue {queue} since {}: {}",
        home.0, outage.since, outage.reason
    );
    BrokerError::new(outage.kind, what).of_its_queue()
}

impl Breaker {
    /// True if calls for this queue pass without being tried.
    pub(crate) fn serves(&self, queue: &QueueName, class: Class) -> bool {
        let (home, now) = (self.below.home(queue), self.begun.elapsed());
        self.is_closed(&home, class)
            && self
                .homes()
                .get(&home)
                .is_none_or(|state| state.refused.why(class, queue, now).is_none())
    }

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

    /// Notes what was seen of a home that was looked after.
    fn saw(&self, home: &Home, health: &Health) {
        let now = self.begun.elapsed();
        let news = {
            let mut homes = self.homes();
            let state = homes.entry(home.clone()).or_insert_with(|| HomeState::new(now));
            let seen = state.pressure.seen(Some(health.memory), self.watermark.as_ref(), now);
            let memory = seen.map(|(used_percent, is_scarce)| News::Memory {
                home: home.clone(),
                used_percent,
                is_scarce,
            });
            let server = state.served_by(home, &health.run, now);
            [memory, server, state.seen(home, &health.epoch, now)]
        };
        for news in news.into_iter().flatten() {
            self.events.tell(news.into());
        }
    }

    /// Why a new task of this queue has to wait although its home is well: the share of the memory that is used. Looks again, without
    /// waiting for it, where what is known is old and the home is not sick.
    fn held_back(&self, home: &Home, queue: &QueueName) -> Option<u8> {
        let watermark = self.watermark.as_ref()?;
        let mut homes = self.homes();
        let state = homes.get_mut(home)?;
        let held = state.pressure.holds(watermark, queue);
        let is_due = state.is_well() && state.pressure.is_due(self.begun.elapsed());
        drop(homes);
        if is_due {
            probe::look(self.me.clone(), home.clone());
        }
        held
    }
}
