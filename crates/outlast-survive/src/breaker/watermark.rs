//! Which queues wait on the disk while a home fills up? Before it is out of memory and takes no new tasks at all, those that matter
//! least are held back, so that what is left is there for those that matter most.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_core::{Memory, QueueName};

use super::circuit::Moment;

/// How old what is known of a home's memory may be before it is asked again. A home that takes 50,000 small tasks a second
/// grows by some 100 MB in that time.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// From these shares of the broker's memory on queues are held back.
const LOW_PERCENT: u8 = 80;
/// See [`LOW_PERCENT`].
const HIGH_PERCENT: u8 = 95;

/// Which queues are held back while the broker's memory fills up: from 80 % on those of the lowest weight, from 95 % on all but those
/// of the highest.
///
/// ```
/// # use outlast_survive::Watermark;
/// # use outlast_core::QueueName;
/// let queue = QueueName::stored;
/// let watermark = Watermark::new([(queue("critical"), 6), (queue("default"), 3), (queue("reports"), 1)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watermark {
    weights: BTreeMap<QueueName, u32>,
    low_percent: u8,
    high_percent: u8,
}

impl Watermark {
    /// With these weights, such as workers give their queues. One that is not named has weight 1. Where all weights are equal
    /// nothing is held back.
    pub fn new(weights: impl IntoIterator<Item = (QueueName, u32)>) -> Self {
        let weights = weights.into_iter().collect();
        Self { weights, low_percent: LOW_PERCENT, high_percent: HIGH_PERCENT }
    }

    /// Holds back from these shares of the memory on, in percent.
    #[must_use]
    pub fn at(mut self, low_percent: u8, high_percent: u8) -> Self {
        (self.low_percent, self.high_percent) = (low_percent, high_percent);
        self
    }

    /// True if new tasks of this queue wait while so much is used.
    fn holds(&self, queue: &QueueName, used_percent: u8) -> bool {
        let weights = self.weights.values();
        let (Some(lowest), Some(highest)) = (weights.clone().min(), weights.max()) else {
            return false;
        };
        let weight = self.weights.get(queue).unwrap_or(&1);
        weight < highest
            && (used_percent >= self.high_percent
                || (used_percent >= self.low_percent && weight <= lowest))
    }
}

/// What is known of a home's memory.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    memory: Memory,
    seen_at: Option<Moment>,
    /// Somebody is looking.
    is_looked_at: bool,
    is_scarce: bool,
}

impl Pressure {
    /// The share that is used if new tasks of the queue wait.
    pub(super) fn holds(&self, watermark: &Watermark, queue: &QueueName) -> Option<u8> {
        self.memory.used_percent.filter(|used| watermark.holds(queue, *used))
    }

    /// True if it is time to look again; whoever is told so looks.
    pub(super) fn is_due(&mut self, now: Moment) -> bool {
        let is_recent = self.seen_at.is_some_and(|at| now.saturating_sub(at) < LOOK_EVERY);
        !is_recent && !std::mem::replace(&mut self.is_looked_at, true)
    }

    /// A look is over: what was seen, if anything. Answers the share that is used if memory has become scarce by the watermark, or is no
    /// longer, and which of the two.
    pub(super) fn seen(
        &mut self,
        memory: Option<Memory>,
        watermark: Option<&Watermark>,
        now: Moment,
    ) -> Option<(u8, bool)> {
        self.is_looked_at = false;
        // One that did not answer is asked no sooner.
        self.seen_at = Some(now);
        self.memory = memory?;
        let (watermark, used) = (watermark?, self.memory.used_percent.unwrap_or(0));
        let was_scarce = std::mem::replace(&mut self.is_scarce, used >= watermark.low_percent);
        (was_scarce != self.is_scarce).then_some((used, self.is_scarce))
    }

    pub(super) fn memory(&self) -> Memory {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watermark(weights: &[(&str, u32)]) -> Watermark {
        Watermark::new(weights.iter().map(|(name, weight)| (QueueName::stored(name), *weight)))
    }

    #[test]
    fn the_least_important_queues_wait_first_and_the_most_important_never() {
        let three = watermark(&[("critical", 6), ("default", 3), ("reports", 1)]);
        let held = |watermark: &Watermark, used| {
            let queues = ["critical", "default", "reports", "unnamed"];
            let held = queues.map(|name| watermark.holds(&QueueName::stored(name), used));
            std::iter::zip(queues, held).filter(|(_, held)| *held).map(|(name, _)| name).collect()
        };
        let check = |watermark: &Watermark, used, expected: &[&str]| {
            let held: Vec<&str> = held(watermark, used);
            assert_eq!(held, expected, "{used} %");
        };
        check(&three, 79, &[]);
        check(&three, 80, &["reports", "unnamed"]);
        check(&three, 94, &["reports", "unnamed"]);
        check(&three, 95, &["default", "reports", "unnamed"]);
        check(&three.clone().at(50, 60), 55, &["reports", "unnamed"]);
        check(&watermark(&[("critical", 1), ("default", 1)]), 99, &[]);
        check(&watermark(&[]), 99, &[]);
    }

    #[test]
    fn one_looks_every_five_seconds_and_tells_when_memory_becomes_scarce_and_when_it_is_not() {
        let watermark = watermark(&[("critical", 2), ("default", 1)]);
        let at = Duration::from_secs;
        let mut pressure = Pressure::default();
        assert!(pressure.is_due(at(1)));
        assert!(!pressure.is_due(at(100)), "somebody is at it");
        let mut seen = |used, moment| {
            let memory = Memory { used_percent: Some(used), is_full: false };
            let told = pressure.seen(Some(memory), Some(&watermark), moment);
            (told, pressure.is_due(moment + at(4)), pressure.is_due(moment + at(5)))
        };
        assert_eq!(seen(79, at(2)), (None, false, true));
        assert_eq!(seen(85, at(7)), (Some((85, true)), false, true));
        assert_eq!(seen(97, at(12)), (None, false, true));
        assert_eq!(seen(20, at(17)), (Some((20, false)), false, true));
    }

    #[test]
    fn what_was_known_is_true_until_somebody_has_seen_more() {
        let watermark = watermark(&[("critical", 2), ("default", 1)]);
        let memory = Memory { used_percent: Some(90), is_full: false };
        let mut pressure = Pressure::default();
        pressure.seen(Some(memory), Some(&watermark), Duration::ZERO);
        pressure.seen(None, Some(&watermark), Duration::from_secs(9));
        assert_eq!(pressure.holds(&watermark, &QueueName::stored("default")), Some(90));
    }
}
