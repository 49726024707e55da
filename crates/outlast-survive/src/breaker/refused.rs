//! Which queues does a home refuse alone? Rights are given by key, and the one queue that a user may not write is no reason to
//! leave the others without service. A pure table: events and the time go in.
//!
//! A queue that was refused is tried again every five seconds, with one call. If there are many, because the right that is
//! missing is one that all need, they are tried in turn: one a second of a home, so that law L9 holds however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_core::{Kind, QueueName};

use super::circuit::{Moment, PROBE_MISCONFIGURED};
use super::homes::{Class, Now, Outage};

/// The shortest time between two tries, of whichever queues of a home.
const APART: Duration = Duration::from_secs(1);

/// Queues and classes that are remembered. One more is not, and each of its calls reaches the home.
const REFUSED_MAX: usize = 10_000;

/// The refused queues of one home.
#[derive(Debug, Default)]
pub(super) struct Refused {
    queues: BTreeMap<(QueueName, Class), Refusal>,
    /// No queue is tried before.
    next_at: Moment,
}

#[derive(Debug)]
struct Refusal {
    outage: Outage,
    try_at: Moment,
    on_trial: bool,
}

/// What the end of a call has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    /// The queue is refused from now on.
    Began(Outage),
    /// It is not refused any more.
    Ended(Outage),
}

impl Refused {
    /// Why a call of this class is not to be made now; `None` if it may be made, perhaps as a try.
    pub(super) fn why(&self, class: Class, queue: &QueueName, now: Moment) -> Option<&Outage> {
        if self.queues.is_empty() {
            return None;
        }
        let refusal = self.queues.get(&(queue.clone(), class))?;
        let may_try = !refusal.on_trial && now >= refusal.try_at && now >= self.next_at;
        (!may_try).then_some(&refusal.outage)
    }

    /// A call that may be made begins.
    pub(super) fn began(&mut self, class: Class, queue: &QueueName, now: Moment) {
        if let Some(refusal) = self.queues.get_mut(&(queue.clone(), class)) {
            refusal.on_trial = true;
            self.next_at = now + APART;
        }
    }

    /// A call was refused.
    pub(super) fn refused(
        &mut self,
        (class, queue): (Class, &QueueName),
        (kind, reason): (Kind, String),
        now: Now,
    ) -> Change {
        let try_at = now.moment + PROBE_MISCONFIGURED.mul_f64(0.8 + 0.2 * now.dice);
        let is_known = self.is_refused(queue);
        if let Some(refusal) = self.queues.get_mut(&(queue.clone(), class)) {
            (refusal.try_at, refusal.on_trial) = (try_at, false);
            return Change::Nothing;
        }
        if self.queues.len() >= REFUSED_MAX {
            return Change::Nothing;
        }
        let outage = Outage { since: now.time, kind, reason };
        let refusal = Refusal { outage: outage.clone(), try_at, on_trial: false };
        self.queues.insert((queue.clone(), class), refusal);
        if is_known { Change::Nothing } else { Change::Began(outage) }
    }

    /// A call ended in another way. `is_good` if the home has done it, or would have.
    pub(super) fn ended(&mut self, class: Class, queue: &QueueName, is_good: bool) -> Change {
        let key = (queue.clone(), class);
        if !is_good {
            // It says nothing about the queue.
            if let Some(refusal) = self.queues.get_mut(&key) {
                refusal.on_trial = false;
            }
            return Change::Nothing;
        }
        match self.queues.remove(&key) {
            Some(refusal) if !self.is_refused(queue) => Change::Ended(refusal.outage),
            Some(_) | None => Change::Nothing,
        }
    }

    fn is_refused(&self, queue: &QueueName) -> bool {
        Class::ALL.iter().any(|class| self.queues.contains_key(&(queue.clone(), *class)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// The queues, each once.
    pub(super) fn list(&self) -> Vec<(QueueName, Outage)> {
        let all = self.queues.iter().map(|((queue, _), refusal)| (queue, &refusal.outage));
        let mut list: Vec<_> = all.map(|(queue, outage)| (queue.clone(), outage.clone())).collect();
        list.dedup_by(|one, other| one.0 == other.0);
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_core::Timestamp;

    fn queue(n: usize) -> QueueName {
        QueueName::stored(&format!("q{n}"))
    }

    fn at(seconds: f64) -> Now {
        let moment = Duration::from_secs_f64(seconds);
        Now { moment, time: Timestamp::from_seconds(0), dice: 1.0 }
    }

    fn refuse(refused: &mut Refused, class: Class, n: usize, seconds: f64) -> Change {
        let why = (Kind::Misconfigured, "no".to_owned());
        refused.refused((class, &queue(n)), why, at(seconds))
    }

    #[test]
    fn a_refused_queue_is_tried_again_after_five_seconds_and_the_others_always_pass() {
        let mut refused = Refused::default();
        let passes = |refused: &Refused, n, seconds| {
            refused.why(Class::Produce, &queue(n), at(seconds).moment).is_none()
        };
        assert!(matches!(refuse(&mut refused, Class::Produce, 0, 0.0), Change::Began(_)));
        assert!(!passes(&refused, 0, 4.9) && passes(&refused, 1, 0.0));
        assert!(refused.why(Class::Consume, &queue(0), at(0.0).moment).is_none());
        assert!(passes(&refused, 0, 5.0));
        refused.began(Class::Produce, &queue(0), at(5.0).moment);
        assert!(!passes(&refused, 0, 9.0), "one call at a time");
        assert_eq!(refuse(&mut refused, Class::Produce, 0, 9.0), Change::Nothing);
        assert!(!passes(&refused, 0, 13.9) && passes(&refused, 0, 14.0));
        assert!(matches!(refused.ended(Class::Produce, &queue(0), true), Change::Ended(_)));
        assert!(passes(&refused, 0, 14.0) && refused.list().is_empty());
    }

    #[test]
    fn of_many_refused_queues_one_a_second_is_tried() {
        let mut refused = Refused::default();
        for n in 0..20 {
            refuse(&mut refused, Class::Produce, n, 0.0);
        }
        let mut tries = 0;
        for step in 0..600 {
            let seconds = f64::from(step) / 10.0;
            for n in 0..20 {
                let moment = at(seconds).moment;
                if refused.why(Class::Produce, &queue(n), moment).is_none() {
                    refused.began(Class::Produce, &queue(n), moment);
                    refuse(&mut refused, Class::Produce, n, seconds);
                    tries += 1;
                }
            }
        }
        assert!((50..=60).contains(&tries), "{tries} tries in a minute");
    }

    #[test]
    fn a_queue_that_is_refused_in_two_classes_is_one() {
        let mut refused = Refused::default();
        assert!(matches!(refuse(&mut refused, Class::Produce, 0, 0.0), Change::Began(_)));
        assert_eq!(refuse(&mut refused, Class::Consume, 0, 0.0), Change::Nothing);
        assert_eq!(refused.list().len(), 1);
        assert_eq!(refused.ended(Class::Produce, &queue(0), true), Change::Nothing);
        assert!(matches!(refused.ended(Class::Consume, &queue(0), true), Change::Ended(_)));
    }

    #[test]
    fn a_try_that_says_nothing_may_be_repeated() {
        let mut refused = Refused::default();
        refuse(&mut refused, Class::Consume, 0, 0.0);
        refused.began(Class::Consume, &queue(0), at(5.0).moment);
        assert_eq!(refused.ended(Class::Consume, &queue(0), false), Change::Nothing);
        assert!(refused.why(Class::Consume, &queue(0), at(6.0).moment).is_none());
    }
}
