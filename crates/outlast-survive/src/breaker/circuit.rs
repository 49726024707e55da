//! When are calls let through? One circuit for each home and class, as a pure state machine: events and the
//! time go in, a reply comes out.
//!
//! ```text
//!              5 failures in a row, or half of the last 20
//!   Closed ──────────────────────────────────────────────────► Open ◄────────┐
//!     ▲                                                          │ probe     │ probe or trial
//!     │  the trial succeeds, or a second probe                   ▼ succeeds  │ fails
//!     └────────────────────────────────────────────────────── HalfOpen ──────┘
//! ```
//!
//! Open, nothing passes: only the probe asks the broker. HalfOpen, one call at a time passes as a trial:
//! a probe may succeed where calls of this class fail (it needs fewer rights), and a home that nobody uses is
//! closed by its second probe.

use std::collections::VecDeque;
use std::time::Duration;

use outlast_core::Kind;

/// Failures in a row that open a circuit.
const IN_A_ROW: u32 = 5;
/// Calls that are looked back on, and for how long; half of them failed open a circuit.
const WINDOW_CALLS: usize = 20;
/// See [`WINDOW_CALLS`].
const WINDOW: Duration = Duration::from_secs(10);

/// The first probe comes this long after the circuit opened, at most.
const PROBE_BASE: Duration = Duration::from_millis(500);
/// Probes are never further apart than this, however long the outage, so that the first success comes
/// within three seconds of the broker's return. Half of it is the shortest pause between two of them: with
/// the trial that may follow a probe, two commands a second at most (law L9).
const PROBE_CAP: Duration = Duration::from_secs(2);
/// Where somebody has to act first, nothing is gained by asking more often.
pub(super) const PROBE_MISCONFIGURED: Duration = Duration::from_secs(5);

/// A moment, as the time since the breaker was made.
pub(super) type Moment = Duration;

/// Where a circuit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CircuitState {
    /// Everything passes.
    Closed,
    /// Nothing passes.
    Open,
    /// One call at a time passes, as a trial.
    HalfOpen,
}

impl CircuitState {
    /// The state in lower case, as logs, metrics and JSON name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CircuitState::Closed => "closed",
            CircuitState::Open => "open",
            CircuitState::HalfOpen => "half-open",
        }
    }
}

/// What a call says about the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It answered, if only that the request is wrong.
    Good,
    /// It failed, in this way.
    Bad(Kind),
    /// It has not answered for a long time.
    Slow,
}

impl Outcome {
    /// What an answer says: the kinds that speak about the request or its data say that the home is well.
    pub(super) fn of(kind: Option<Kind>) -> Self {
        match kind {
            None | Some(Kind::Rejected | Kind::Corrupt | Kind::Superseded) => Outcome::Good,
            Some(
                kind @ (Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured),
            ) => Outcome::Bad(kind),
        }
    }
}

/// What happens to a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A call wants to pass.
    Ask,
    /// A call that had passed while the circuit was closed has ended, or is slow.
    Ended(Outcome),
    /// The trial has ended.
    TrialEnded(Outcome),
    /// The trial was given up by its caller.
    TrialDropped,
    /// The probe has ended.
    Probed(Outcome),
}

/// What a circuit replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    /// The call passes.
    Pass,
    /// The call passes, and everything depends on it.
    Trial,
    /// The call does not pass.
    Refuse,
    /// Noted.
    Noted,
    /// The circuit has left this state for another.
    Left(CircuitState),
}

/// One circuit.
#[derive(Clone, Debug)]
pub(super) struct Circuit {
    phase: Phase,
    in_a_row: u32,
    recent: VecDeque<(Moment, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Closed,
    /// `tries` probes or trials have failed; the next probe is due at `probe_at`.
    Open {
        tries: u32,
        probe_at: Moment,
    },
    HalfOpen {
        tries: u32,
        probe_at: Moment,
        on_trial: bool,
    },
}

impl Circuit {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Closed, in_a_row: 0, recent: VecDeque::with_capacity(WINDOW_CALLS) }
    }

    pub(super) fn state(&self) -> CircuitState {
        match self.phase {
            Phase::Closed => CircuitState::Closed,
            Phase::Open { .. } => CircuitState::Open,
            Phase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    /// When the next probe is due; `None` while none is needed.
    pub(super) fn probe_at(&self) -> Option<Moment> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { probe_at, .. } | Phase::HalfOpen { probe_at, .. } => Some(probe_at),
        }
    }

    /// How many calls have failed since the last success.
    pub(super) fn failures_in_a_row(&self) -> u32 {
        self.in_a_row
    }

    /// True if a call would pass now.
    pub(super) fn admits(&self) -> bool {
        match self.phase {
            Phase::Closed => true,
            Phase::Open { .. } => false,
            Phase::HalfOpen { on_trial, .. } => !on_trial,
        }
    }

    /// Takes an event. `dice`, from 0 to 1, spreads the probes of many processes.
    pub(super) fn on(&mut self, event: Event, now: Moment, dice: f64) -> Reply {
        let before = self.state();
        let reply = match (self.phase, event) {
            (Phase::Closed, Event::Ask) => Reply::Pass,
            (Phase::Closed, Event::Ended(outcome)) => self.count(outcome, now, dice),
            // What passed before the circuit opened says nothing about now.
            (Phase::Open { .. } | Phase::HalfOpen { .. }, Event::Ended(_)) => Reply::Noted,
            (Phase::Open { .. }, Event::Ask) => Reply::Refuse,
            (Phase::Open { tries, .. }, Event::Probed(Outcome::Good)) => {
                let probe_at = now + pause(tries, dice);
                self.phase = Phase::HalfOpen { tries, probe_at, on_trial: false };
                Reply::Noted
            }
            (Phase::Open { tries, .. }, Event::Probed(bad)) => self.open(bad, tries + 1, now, dice),
            (Phase::HalfOpen { on_trial: true, .. }, Event::Ask) => Reply::Refuse,
            (Phase::HalfOpen { tries, probe_at, on_trial: false }, Event::Ask) => {
                self.phase = Phase::HalfOpen { tries, probe_at, on_trial: true };
                Reply::Trial
            }
            (Phase::HalfOpen { .. }, Event::TrialEnded(Outcome::Good)) => self.close(),
            (Phase::HalfOpen { tries, probe_at, .. }, Event::TrialDropped) => {
                self.phase = Phase::HalfOpen { tries, probe_at, on_trial: false };
                Reply::Noted
            }
            // While a trial is under way it has the say.
            (Phase::HalfOpen { tries, on_trial: true, .. }, Event::Probed(Outcome::Good)) => {
                let probe_at = now + pause(tries, dice);
                self.phase = Phase::HalfOpen { tries, probe_at, on_trial: true };
                Reply::Noted
            }
            (Phase::HalfOpen { on_trial: false, .. }, Event::Probed(Outcome::Good)) => self.close(),
            (Phase::HalfOpen { tries, .. }, Event::TrialEnded(bad) | Event::Probed(bad)) => {
                self.open(bad, tries.max(1) + 1, now, dice)
            }
            // A probe or a trial that ends after another one has closed or opened the circuit.
            (Phase::Closed, Event::TrialEnded(_) | Event::TrialDropped | Event::Probed(_))
            | (Phase::Open { .. }, Event::TrialEnded(_) | Event::TrialDropped) => Reply::Noted,
        };
        if self.state() == before { reply } else { Reply::Left(before) }
    }

    fn count(&mut self, outcome: Outcome, now: Moment, dice: f64) -> Reply {
        let failed = outcome != Outcome::Good;
        self.in_a_row = if failed { self.in_a_row + 1 } else { 0 };
        while self.recent.len() >= WINDOW_CALLS {
            self.recent.pop_front();
        }
        self.recent.push_back((now, failed));
        let looked_at = self.recent.iter().filter(|(at, _)| now.saturating_sub(*at) <= WINDOW);
        let (calls, failures) = looked_at
            .fold((0, 0), |(calls, bad), (_, failed)| (calls + 1, bad + usize::from(*failed)));
        let half = calls >= WINDOW_CALLS && 2 * failures >= calls;
        let at_once = outcome == Outcome::Bad(Kind::Misconfigured);
        if failed && (at_once || half || self.in_a_row >= IN_A_ROW) {
            return self.open(outcome, 0, now, dice);
        }
        Reply::Noted
    }

    fn open(&mut self, why: Outcome, tries: u32, now: Moment, dice: f64) -> Reply {
        let pause = match why {
            Outcome::Bad(Kind::Misconfigured) => PROBE_MISCONFIGURED.mul_f64(0.8 + 0.2 * dice),
            Outcome::Bad(_) | Outcome::Slow | Outcome::Good => pause(tries, dice),
        };
        self.phase = Phase::Open { tries, probe_at: now + pause };
        Reply::Noted
    }

    fn close(&mut self) -> Reply {
        *self = Self::new();
        Reply::Noted
    }
}

/// The pause before the next probe after `tries` of them failed: between half and all of a bound that
/// doubles up to its cap.
fn pause(tries: u32, dice: f64) -> Duration {
    let bound = PROBE_BASE.saturating_mul(1 << tries.min(8)).min(PROBE_CAP);
    bound.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOWN: Outcome = Outcome::Bad(Kind::Unavailable);
    const NOW: Moment = Duration::from_secs(100);

    fn in_state(state: &str) -> Circuit {
        let mut circuit = Circuit::new();
        if state != "closed" {
            for _ in 0..IN_A_ROW {
                circuit.on(Event::Ended(DOWN), NOW, 1.0);
            }
        }
        if matches!(state, "half-open" | "on trial") {
            circuit.on(Event::Probed(Outcome::Good), NOW, 1.0);
        }
        if state == "on trial" {
            assert_eq!(circuit.on(Event::Ask, NOW, 1.0), Reply::Trial);
        }
        circuit
    }

    #[test]
    fn every_event_in_every_state_does_what_the_table_says() {
        use CircuitState::{Closed, HalfOpen, Open};
        use Outcome::{Good, Slow};
        let busy = Outcome::Bad(Kind::Busy);
        let table = [
            ("closed", Event::Ask, Reply::Pass, Closed),
            ("closed", Event::Ended(Good), Reply::Noted, Closed),
            ("closed", Event::Ended(DOWN), Reply::Noted, Closed),
            ("closed", Event::Ended(Slow), Reply::Noted, Closed),
            ("closed", Event::Ended(Outcome::Bad(Kind::Misconfigured)), Reply::Left(Closed), Open),
            ("closed", Event::TrialEnded(DOWN), Reply::Noted, Closed),
            ("closed", Event::TrialDropped, Reply::Noted, Closed),
            ("closed", Event::Probed(DOWN), Reply::Noted, Closed),
            ("open", Event::Ask, Reply::Refuse, Open),
            ("open", Event::Ended(Good), Reply::Noted, Open),
            ("open", Event::Ended(DOWN), Reply::Noted, Open),
            ("open", Event::TrialEnded(Good), Reply::Noted, Open),
            ("open", Event::TrialDropped, Reply::Noted, Open),
            ("open", Event::Probed(Good), Reply::Left(Open), HalfOpen),
            ("open", Event::Probed(busy), Reply::Noted, Open),
            ("open", Event::Probed(Slow), Reply::Noted, Open),
            ("half-open", Event::Ask, Reply::Trial, HalfOpen),
            ("half-open", Event::Ended(DOWN), Reply::Noted, HalfOpen),
            ("half-open", Event::Probed(Good), Reply::Left(HalfOpen), Closed),
            ("half-open", Event::Probed(DOWN), Reply::Left(HalfOpen), Open),
            ("on trial", Event::Ask, Reply::Refuse, HalfOpen),
            ("on trial", Event::TrialEnded(Good), Reply::Left(HalfOpen), Closed),
            ("on trial", Event::TrialEnded(busy), Reply::Left(HalfOpen), Open),
            ("on trial", Event::TrialEnded(Slow), Reply::Left(HalfOpen), Open),
            ("on trial", Event::TrialDropped, Reply::Noted, HalfOpen),
            ("on trial", Event::Probed(Good), Reply::Noted, HalfOpen),
            ("on trial", Event::Probed(DOWN), Reply::Left(HalfOpen), Open),
        ];
        for (state, event, reply, after) in table {
            let mut circuit = in_state(state);
            assert_eq!(circuit.on(event, NOW, 0.5), reply, "{state}, {event:?}");
            assert_eq!(circuit.state(), after, "{state}, {event:?}");
        }
    }

    #[test]
    fn a_trial_that_was_given_up_leaves_room_for_another() {
        let mut circuit = in_state("on trial");
        circuit.on(Event::TrialDropped, NOW, 0.5);
        assert_eq!(circuit.on(Event::Ask, NOW, 0.5), Reply::Trial);
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_a_success_between_them_counts_anew() {
        let mut circuit = Circuit::new();
        for outcome in [DOWN, DOWN, DOWN, DOWN, Outcome::Good, DOWN, DOWN, Outcome::Slow, DOWN] {
            assert_eq!(circuit.on(Event::Ended(outcome), NOW, 0.5), Reply::Noted);
        }
        let opened = circuit.on(Event::Ended(DOWN), NOW, 0.5);
        assert_eq!(opened, Reply::Left(CircuitState::Closed));
    }

    #[test]
    fn half_of_twenty_calls_within_ten_seconds_open_it() {
        let calls = |spacing: Duration| {
            let mut circuit = Circuit::new();
            (0..40).any(|n: u32| {
                let outcome = if n.is_multiple_of(2) { Outcome::Good } else { DOWN };
                circuit.on(Event::Ended(outcome), spacing * n, 0.5) != Reply::Noted
            })
        };
        assert!(calls(Duration::from_millis(100)));
        assert!(!calls(Duration::from_secs(2)), "what is long ago does not count");
    }

    #[test]
    fn a_few_percent_of_failures_open_nothing() {
        let mut circuit = Circuit::new();
        for n in 0..10_000_u32 {
            let outcome = if n.is_multiple_of(20) { DOWN } else { Outcome::Good };
            assert_eq!(circuit.on(Event::Ended(outcome), NOW, 0.5), Reply::Noted);
        }
    }

    #[test]
    fn a_sick_home_gets_two_commands_a_second_and_is_found_well_within_three_seconds() {
        // The worst there is: every probe succeeds and every trial fails, as when a right is missing.
        for dice in [0.0, 0.3, 1.0] {
            let mut circuit = in_state("open");
            let mut commands = Vec::new();
            let mut now = NOW;
            while now < NOW + Duration::from_secs(3600) {
                let probe_at = circuit.probe_at().expect("it is not closed");
                assert!(probe_at - now <= Duration::from_secs(2), "{:?}", probe_at - now);
                now = probe_at;
                circuit.on(Event::Probed(Outcome::Good), now, dice);
                assert_eq!(circuit.on(Event::Ask, now, dice), Reply::Trial);
                circuit.on(Event::TrialEnded(Outcome::Bad(Kind::Busy)), now, dice);
                commands.extend([now; 2]);
            }
            let a_second_later = |at: &Duration| *at + Duration::from_secs(1);
            let busiest = commands.iter().map(|at| {
                commands.iter().filter(|other| *other >= at && **other < a_second_later(at)).count()
            });
            assert!(busiest.max() <= Some(2), "dice {dice}");
        }
    }

    #[test]
    fn a_home_that_needs_somebody_to_act_is_asked_every_five_seconds() {
        let mut circuit = Circuit::new();
        circuit.on(Event::Ended(Outcome::Bad(Kind::Misconfigured)), NOW, 0.0);
        assert_eq!(circuit.probe_at(), Some(NOW + Duration::from_secs(4)));
    }
}
