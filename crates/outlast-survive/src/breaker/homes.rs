//! What the breaker knows of each home: two circuits, since when it is down, and whose data it has.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_core::{Epoch, Home, Kind, Timestamp};

use super::circuit::{Circuit, CircuitState, Event, Moment, Outcome, Reply};

/// What kind of work a call is. A home can fail in one class alone: one that is out of memory takes no new
/// tasks and still hands out and settles those it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Class {
    /// Enqueue.
    Produce,
    /// Claim, settle, extend, sweep, wait, beat.
    Consume,
}

impl Class {
    /// Every class.
    pub const ALL: [Class; 2] = [Class::Produce, Class::Consume];

    /// The class in lower case, as logs, metrics and JSON name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Class::Produce => "produce",
            Class::Consume => "consume",
        }
    }
}

/// Why and since when a home is down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when.
    pub since: Timestamp,
    /// What kind of failure opened the first circuit.
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
}

#[derive(Debug)]
pub(super) struct HomeState {
    circuits: [Circuit; Class::ALL.len()],
    outage: Option<Outage>,
    /// When the last outage ended.
    back_at: Option<Moment>,
    epoch: Option<Epoch>,
    /// When data was seen to be there that was not known before.
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
    pub(super) fn new() -> Self {
        let circuits = std::array::from_fn(|_| Circuit::new());
        Self {
            circuits,
            outage: None,
            back_at: None,
            epoch: None,
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

    pub(super) fn back_at(&self) -> Option<Moment> {
        self.back_at
    }

    pub(super) fn renewed_at(&self) -> Option<Moment> {
        self.renewed_at
    }

    pub(super) fn is_well(&self) -> bool {
        self.circuits.iter().all(|circuit| circuit.state() == CircuitState::Closed)
    }

    /// When the next probe is due, of whichever class; `None` while none is needed.
    pub(super) fn probe_at(&self) -> Option<Moment> {
        self.circuits.iter().filter_map(Circuit::probe_at).min()
    }

    pub(super) fn on(&mut self, class: Class, event: Event, now: Now) -> Reply {
        self.circuits[class as usize].on(event, now.moment, now.dice)
    }

    /// Hands the outcome of a probe to the circuits that wait for one. They share it, so that two classes
    /// that are down cost no more than one.
    pub(super) fn probed(&mut self, outcome: Outcome, now: Now) {
        for circuit in &mut self.circuits {
            if circuit.probe_at().is_some() {
                circuit.on(Event::Probed(outcome), now.moment, now.dice);
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
            self.back_at = Some(now.moment);
            return Some(News::Up(home.clone(), now.time.since(outage.since)));
        }
        if self.outage.is_some() {
            return None;
        }
        let (kind, reason) = why();
        let outage = Outage { since: now.time, kind, reason };
        self.outage = Some(outage.clone());
        Some(News::Down(home.clone(), outage))
    }

    /// Notes whose data was seen.
    pub(super) fn seen(&mut self, home: &Home, epoch: &Epoch, now: Moment) -> Option<News> {
        let from = self.epoch.replace(epoch.clone());
        if from.as_ref() != Some(epoch) {
            self.renewed_at = Some(now);
        }
        let from = from.filter(|from| from != epoch)?;
        Some(News::Epoch { home: home.clone(), from, to: epoch.clone() })
    }
}
