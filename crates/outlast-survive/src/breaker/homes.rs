//! What the breaker knows of each home: a circuit for each class, since when it is down, what it refuses, and whose data it has.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_core::{Epoch, Home, Kind, QueueName, Timestamp};

use super::circuit::{Circuit, CircuitState, Event, Moment, Outcome, Reply};
use super::refused::Refused;
use super::watermark::Pressure;
use crate::event::Event as Told;

/// So many failures in a row say that the home may be away, although its circuit is still closed. Fewer are nothing: at
/// a thousand calls a second of which one in a hundred fails, two in a row come every ten seconds.
const AWAY_IN_A_ROW: u32 = 3;

/// How long no worker's call may have succeeded before the home counts as one that was out of reach, although its circuit never
/// opened: a process with little to ask has few failures to count. A lease is renewed several times in the grace that follows.
const UNREACHED_MAX: Duration = Duration::from_secs(3);

/// What kind of work a call is. A home can fail in one class alone: one that is out of memory takes no new
/// tasks and still hands out and settles those it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Enqueue.
    Produce,
    /// Claim, settle, extend, sweep, wait, beat.
    Consume,
    /// What people, dashboards and metrics look at and do. A home that fails them alone is not down.
    Admin,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 3] = [Class::Produce, Class::Consume, Class::Admin];

    /// Those that carry tasks: without one of them a home is down.
    pub(super) const WORKING: [Class; 2] = [Class::Produce, Class::Consume];

    /// The class in lower case, as logs, metrics and JSON name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Produce => "produce",
            Class::Consume => "consume",
            Class::Admin => "admin",
        }
    }
}

/// Why and since when a home is down, or refuses a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Timestamp,
    /// What kind of failure it began with.
    pub kind: Kind,
    /// The text of that failure.
    pub reason: String,
}

/// What the listeners are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    Down(Home, Outage),
    Up(Home, Duration),
    Epoch { home: Home, from: Epoch, to: Epoch },
    Server(Home),
    Refused { home: Home, queue: QueueName, outage: Outage },
    Admitted { home: Home, queue: QueueName, after: Duration },
    Memory { home: Home, used_percent: u8, is_scarce: bool },
}

impl From<News> for Told {
    fn from(news: News) -> Self {
        match news {
            News::Down(home, Outage { kind, reason, .. }) => Told::Down { home, kind, reason },
            News::Up(home, after) => Told::Up { home, after },
            News::Epoch { home, from, to } => Told::EpochChanged { home, from, to },
            News::Server(home) => Told::ServerChanged { home },
            News::Refused { home, queue, outage } => {
                Told::QueueRefused { home, queue, reason: outage.reason }
            }
            News::Admitted { home, queue, after } => Told::QueueAdmitted { home, queue, after },
            News::Memory { home, used_percent, is_scarce: true } => {
                Told::MemoryScarce { home, used_percent }
            }
            News::Memory { home, used_percent, is_scarce: false } => {
                Told::MemoryFree { home, used_percent }
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct HomeState {
    circuits: [Circuit; Class::ALL.len()],
    outage: Option<Outage>,
    /// When the home was last known, or had to be taken, to be out of its workers' reach.
    away_at: Moment,
    /// A worker's call has succeeded since the home went down.
    is_reached: bool,
    /// Since when workers' calls fail and none succeeds; of a new home, since it was met.
    unreached_since: Option<Moment>,
    epoch: Option<Epoch>,
    /// Which run of its server was seen last.
    run: Option<String>,
    /// The queues that it refuses alone.
    pub(super) refused: Refused,
    pub(super) pressure: Pressure,
    /// When data, or a run of the server, was seen to be there that was not known before.
    renewed_at: Option<Moment>,
    /// A prober is under way: one per home.
    pub(super) is_probed: bool,
}

/// All homes that were met. There are as many as servers, shards or files.
pub(super) type Homes = BTreeMap<Home, HomeState>;

/// The time in both ways: for pauses, and for people.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) moment: Moment,
    pub(super) time: Timestamp,
    /// Spreads the probes of many processes.
    pub(super) dice: f64,
}

impl HomeState {
    /// A home that is met now. Nobody here knows what was before, so it counts as one that has just come back.
    pub(super) fn new(now: Moment) -> Self {
        let circuits = std::array::from_fn(|_| Circuit::new());
        Self {
            circuits,
            outage: None,
            away_at: now,
            is_reached: true,
            unreached_since: Some(now),
            epoch: None,
            run: None,
            refused: Refused::default(),
            pressure: Pressure::default(),
            renewed_at: None,
            is_probed: false,
        }
    }

    pub(super) fn state(&self, class: Class) -> CircuitState {
        self.circuits[class as usize].state()
    }

    pub(super) fn admits(&self, class: Class) -> bool {
        self.circuits[class as usize].admits()
    }

    pub(super) fn outage(&self) -> Option<&Outage> {
        self.outage.as_ref()
    }

    /// True while workers may not have been able to report and to extend their leases, and for `grace` after: what
    /// has expired is left alone (law L8).
    pub(super) fn is_in_grace(&self, now: Moment, grace: Duration) -> bool {
        self.is_away() || self.is_unreached(now) || now.saturating_sub(self.away_at) < grace
    }

    fn is_unreached(&self, now: Moment) -> bool {
        self.unreached_since.is_some_and(|since| now.saturating_sub(since) > UNREACHED_MAX)
    }

    /// A home that refuses new tasks alone, for lack of memory or rights, is in reach of its workers: one of their
    /// calls says so.
    fn is_away(&self) -> bool {
        self.state(Class::Consume) != CircuitState::Closed || (!self.is_well() && !self.is_reached)
    }

    pub(super) fn renewed_at(&self) -> Option<Moment> {
        self.renewed_at
    }

    pub(super) fn is_well(&self) -> bool {
        Class::WORKING.iter().all(|class| self.state(*class) == CircuitState::Closed)
    }

    /// When the next probe is due, of whichever class; `None` while none is needed.
    pub(super) fn probe_at(&self) -> Option<Moment> {
        self.circuits.iter().filter_map(Circuit::probe_at).min()
    }

    pub(super) fn on(&mut self, class: Class, event: Event, now: Now) -> Reply {
        let was_away = self.is_away() || self.is_unreached(now.moment);
        if class == Class::Consume {
            match event {
                Event::Ended(Outcome::Good) | Event::TrialEnded(Outcome::Good) => {
                    (self.is_reached, self.unreached_since) = (true, None);
                }
                Event::Ended(_) | Event::TrialEnded(_) => {
                    self.unreached_since.get_or_insert(now.moment);
                }
                Event::Ask | Event::TrialDropped | Event::Probed(_) => {}
            }
        }
        let reply = self.circuits[class as usize].on(event, now.moment, now.dice);
        let circuit = &self.circuits[class as usize];
        let is_failing = class != Class::Admin
            && circuit.state() == CircuitState::Closed
            && circuit.failures_in_a_row() >= AWAY_IN_A_ROW;
        if was_away || is_failing || self.is_away() {
            self.away_at = now.moment;
        }
        reply
    }

    /// Hands the outcome of a probe to the circuits that wait for one. They share it, so that two classes
    /// that are down cost no more than one. A home that is well but for its memory takes no new tasks alone.
    pub(super) fn probed(&mut self, outcome: Outcome, is_full: bool, now: Now) {
        for class in Class::ALL {
            if self.circuits[class as usize].probe_at().is_some() {
                let outcome = match (class, outcome) {
                    (Class::Produce, Outcome::Good) if is_full => Outcome::Bad(Kind::Busy),
                    _ => outcome,
                };
                self.on(class, Event::Probed(outcome), now);
            }
        }
    }

    /// What is to be told of the state after an event: a home is down with its first circuit and up with its
    /// last, so that an outage is one line and not one per class.
    pub(super) fn news(
        &mut self,
        home: &Home,
        now: Now,
        why: impl FnOnce() -> (Kind, String),
    ) -> Option<News> {
        if self.is_well() {
            let outage = self.outage.take()?;
            return Some(News::Up(home.clone(), now.time.since(outage.since)));
        }
        if self.outage.is_some() {
            return None;
        }
        let (kind, reason) = why();
        let outage = Outage { since: now.time, kind, reason };
        self.outage = Some(outage.clone());
        self.is_reached = false;
        Some(News::Down(home.clone(), outage))
    }

    /// Notes whose data was seen. Data that has no name yet is nobody's.
    pub(super) fn seen(&mut self, home: &Home, epoch: &Epoch, now: Moment) -> Option<News> {
        if epoch.0.is_empty() {
            return None;
        }
        let from = self.epoch.replace(epoch.clone());
        if from.as_ref() != Some(epoch) {
            self.renewed_at = Some(now);
        }
        let from = from.filter(|from| from != epoch)?;
        Some(News::Epoch { home: home.clone(), from, to: epoch.clone() })
    }

    /// Notes which run of the server answered. One that does not tell is none.
    pub(super) fn served_by(&mut self, home: &Home, run: &str, now: Moment) -> Option<News> {
        if run.is_empty() || self.run.as_deref() == Some(run) {
            return None;
        }
        let before = self.run.replace(run.to_owned());
        self.renewed_at = Some(now);
        before.map(|_| News::Server(home.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(15);

    struct World {
        state: HomeState,
        now: Now,
    }

    impl World {
        fn new() -> Self {
            let mut now =
                Now { moment: Duration::ZERO, time: Timestamp::from_seconds(0), dice: 0.5 };
            let mut state = HomeState::new(now.moment);
            state.on(Class::Consume, Event::Ended(Outcome::Good), now);
            now.moment = 10 * GRACE;
            Self { state, now }
        }

        fn ended(&mut self, class: Class, outcome: Outcome, times: u32) {
            for _ in 0..times {
                self.state.on(class, Event::Ended(outcome), self.now);
                let why = || (Kind::Unavailable, String::new());
                self.state.news(&Home("a".into()), self.now, why);
            }
        }

        /// Whether it is in its grace period now, and after a long time and another probe of this outcome.
        fn is_in_grace(&mut self, probed: Outcome, is_full: bool) -> (bool, bool) {
            let soon = self.state.is_in_grace(self.now.moment, GRACE);
            self.now.moment += 10 * GRACE;
            self.state.probed(probed, is_full, self.now);
            (soon, self.state.is_in_grace(self.now.moment, GRACE))
        }
    }

    #[test]
    fn what_has_expired_is_left_alone_while_workers_may_not_be_able_to_report() {
        let down = Outcome::Bad(Kind::Unavailable);
        let table = [
            (Class::Consume, 2, (false, false)),
            // Not known to be down: it ends by itself, with the next success.
            (Class::Consume, 3, (true, false)),
            (Class::Consume, 5, (true, true)),
            (Class::Produce, 5, (true, true)),
        ];
        for (class, failures, expected) in table {
            let mut world = World::new();
            assert!(!world.state.is_in_grace(world.now.moment, GRACE));
            world.ended(class, down, failures);
            if world.state.is_well() {
                world.ended(class, Outcome::Good, 1);
            }
            assert_eq!(world.is_in_grace(down, false), expected, "{class:?}, {failures}");
        }
    }

    #[test]
    fn what_has_expired_is_taken_back_from_a_home_that_only_takes_no_new_tasks() {
        let full = Outcome::Bad(Kind::Busy);
        let mut world = World::new();
        world.ended(Class::Produce, full, 5);
        world.ended(Class::Consume, Outcome::Good, 1);
        assert_eq!(world.is_in_grace(Outcome::Good, true), (true, false));
        assert!(!world.state.is_well());
    }

    /// A worker that began while the server was silent asked it too little to open a circuit. Its grace period was over before
    /// the server was back, and it took the tasks of a process that reported a second later.
    #[test]
    fn the_grace_period_begins_with_the_first_answer_of_a_home_that_nobody_reached() {
        let began = |unreached: u64| {
            let mut world = World::new();
            world.state = HomeState::new(world.now.moment);
            world.ended(Class::Consume, Outcome::Slow, 2);
            world.now.moment += Duration::from_secs(unreached);
            let while_unreached = world.state.is_in_grace(world.now.moment, GRACE);
            world.ended(Class::Consume, Outcome::Good, 1);
            world.now.moment += GRACE - Duration::from_secs(1);
            (while_unreached, world.state.is_in_grace(world.now.moment, GRACE))
        };
        assert_eq!(began(2), (true, false), "it has just been met");
        assert_eq!(began(22), (true, true));
    }
}
