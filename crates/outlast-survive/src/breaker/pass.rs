//! The right to make one call, and what becomes of it: what its end says about the home, or about its queue alone.

use outlast_core::{BrokerError, Home, Kind, QueueName};

use super::circuit::{Event as Happened, Outcome};
use super::homes::{Class, HomeState, News, Now};
use super::refused::Change;
use super::{About, Breaker, SLOW};

/// Why a circuit opened.
#[derive(Clone, Copy)]
pub(super) enum Why<'a> {
    Failed(&'a BrokerError),
    Slow,
    Full,
}

impl Why<'_> {
    pub(super) fn words(&self) -> (Kind, String) {
        match self {
            Why::Failed(error) => (error.kind(), error.to_string()),
            Why::Slow => (Kind::Ambiguous, format!("calls take longer than {} s", SLOW.as_secs())),
            Why::Full => (Kind::Busy, "its memory is full".to_owned()),
        }
    }
}

/// The right to make one call. Dropped with the call unanswered it says nothing, and a trial is free again.
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    home: Home,
    class: Class,
    queue: Option<QueueName>,
    is_trial: bool,
    is_open: bool,
}

impl<'a> Pass<'a> {
    pub(super) fn new(breaker: &'a Breaker, about: About<'_>, is_trial: bool) -> Self {
        let (home, queue) = (about.home.clone(), about.queue.cloned());
        Self { breaker, home, class: about.class, queue, is_trial, is_open: true }
    }

    pub(super) fn end(&mut self, error: Option<&BrokerError>) {
        if !std::mem::take(&mut self.is_open) {
            return;
        }
        let why = error.map_or(Why::Slow, Why::Failed);
        if let (Some(queue), Some(error)) = (&self.queue, error.filter(is_refusal_of_queue)) {
            let subject = (self.class, queue);
            return self.breaker.happened(&self.home, why, |state, now| {
                // Servers look at rights first: that the call was refused for them says nothing else about the home.
                if self.is_trial {
                    state.on(self.class, Happened::TrialDropped, now);
                }
                let words = (error.kind(), error.to_string());
                news(&self.home, queue, state.refused.refused(subject, words, now), now)
            });
        }
        let outcome = match (self.class, error.map(BrokerError::kind)) {
            // What may not be looked at is one question of many: as a failure it counts, and does not decide.
            (Class::Admin, Some(Kind::Misconfigured)) => Outcome::Bad(Kind::Busy),
            (_, kind) => Outcome::of(kind),
        };
        self.ended(outcome, why);
    }

    /// Counts the call as failed, before it has ended.
    pub(super) fn is_slow(&mut self) {
        self.is_open = false;
        self.ended(Outcome::Slow, Why::Slow);
    }

    fn ended(&self, outcome: Outcome, why: Why<'_>) {
        let event = match self.is_trial {
            true => Happened::TrialEnded(outcome),
            false => Happened::Ended(outcome),
        };
        self.breaker.happened(&self.home, why, |state, now| {
            state.on(self.class, event, now);
            self.freed(state, outcome == Outcome::Good, now)
        });
    }

    fn freed(&self, state: &mut HomeState, is_good: bool, now: Now) -> Option<News> {
        let queue = self.queue.as_ref().filter(|_| !state.refused.is_empty())?;
        let change = state.refused.ended(self.class, queue, is_good);
        news(&self.home, queue, change, now)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.is_open {
            self.breaker.happened(&self.home, Why::Slow, |state, now| {
                if self.is_trial {
                    state.on(self.class, Happened::TrialDropped, now);
                }
                self.freed(state, false, now)
            });
        }
    }
}

/// Data that cannot be read is not refused: what else the queue has may be well.
fn is_refusal_of_queue(error: &&BrokerError) -> bool {
    error.concerns_its_queue() && error.kind() == Kind::Misconfigured
}

fn news(home: &Home, queue: &QueueName, change: Change, now: Now) -> Option<News> {
    let (home, queue) = (home.clone(), queue.clone());
    match change {
        Change::Nothing => None,
        Change::Began(outage) => Some(News::Refused { home, queue, outage }),
        Change::Ended(outage) => {
            Some(News::Admitted { home, queue, after: now.time.since(outage.since) })
        }
    }
}
