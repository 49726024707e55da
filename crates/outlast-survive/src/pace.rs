//! How fast is a backlog delivered? Slowly at first, twice as fast after every good half second, half as fast after
//! a bad answer: a broker that has just come back is not run over by those who waited for it.

use std::time::Duration;

/// Items a second at the beginning, and the least there is after bad answers.
const RATE_START: f64 = 500.0;
const RATE_MIN: f64 = 50.0;
/// More than any broker takes: from here on its answers set the pace.
const RATE_MAX: f64 = 200_000.0;
/// How long it must go well before the rate doubles: from the slowest beginning to 50,000 a second within four
/// seconds, and still as many answers in between as show a broker that is not up to it.
const GOOD_FOR: Duration = Duration::from_millis(500);
/// An answer that takes longer is a bad one.
const SLOW: Duration = Duration::from_millis(500);

/// A moment, as the time since some beginning.
type Moment = Duration;

/// The pace of one drain.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    rate: f64,
    /// When the next batch may go.
    next_at: Moment,
    good_since: Moment,
}

impl Pace {
    pub(crate) fn new(now: Moment) -> Self {
        Self { rate: RATE_START, next_at: now, good_since: now }
    }

    /// Items a second.
    pub(crate) fn rate(&self) -> f64 {
        self.rate
    }

    /// How long to wait before the next batch.
    pub(crate) fn pause(&self, now: Moment) -> Duration {
        self.next_at.saturating_sub(now)
    }

    /// A batch was delivered, and it took this long.
    pub(crate) fn delivered(&mut self, items: usize, took: Duration, now: Moment) {
        if took > SLOW {
            return self.failed(now);
        }
        if now.saturating_sub(self.good_since) >= GOOD_FOR {
            self.rate = (2.0 * self.rate).min(RATE_MAX);
            self.good_since = now;
        }
        // A batch counts from its beginning, or its own time would slow the rate down.
        let begun = now.saturating_sub(took).max(self.next_at);
        self.next_at = begun + Duration::from_secs_f64(items as f64 / self.rate);
    }

    /// The broker asked for patience, or did not answer.
    pub(crate) fn failed(&mut self, now: Moment) {
        self.rate = (self.rate / 2.0).max(RATE_MIN);
        self.good_since = now;
        self.next_at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_rate_doubles_with_every_good_half_second_until_the_broker_sets_it() {
        let mut pace = Pace::new(Duration::ZERO);
        let (mut now, mut sent) = (Duration::ZERO, Vec::new());
        while now < Duration::from_secs(12) {
            now += pace.pause(now) + MS;
            pace.delivered(250, MS, now);
            sent.push(now);
        }
        let within = |from: u64, to: u64| {
            let second = Duration::from_secs(from)..Duration::from_secs(to);
            250 * sent.iter().filter(|at| second.contains(at)).count()
        };
        assert!((250..=1000).contains(&within(0, 1)), "{}", within(0, 1));
        assert!((1500..=4000).contains(&within(1, 2)), "{}", within(1, 2));
        assert!(within(4, 5) > 50_000, "{}", within(4, 5));
    }

    #[test]
    fn a_bad_answer_halves_it_and_a_slow_one_is_bad() {
        let mut pace = Pace::new(Duration::ZERO);
        let before = pace.rate();
        pace.failed(MS);
        assert_eq!(pace.rate(), before / 2.0);
        pace.delivered(10, Duration::from_secs(1), Duration::from_secs(5));
        assert_eq!(pace.rate(), before / 4.0);
        for _ in 0..20 {
            pace.failed(MS);
        }
        assert_eq!(pace.rate(), RATE_MIN);
    }
}
