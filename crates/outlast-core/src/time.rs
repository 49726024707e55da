//! Moments in time, as an argument (law L7): nothing in this crate asks a clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment: milliseconds since the Unix epoch, in UTC. Shown and read as RFC 3339.
///
/// Arithmetic saturates at the years −9999 and 9999, so a far away moment stays far away instead of
/// wrapping around.
///
/// ```
/// use outlast_core::Timestamp;
/// use std::time::Duration;
/// let tick: Timestamp = "2026-11-24T02:30:00Z".parse()?;
/// assert_eq!(tick.plus(Duration::from_millis(500)).to_string(), "2026-11-24T02:30:00.5Z");
/// assert_eq!(tick.since(tick.plus(Duration::from_secs(1))), Duration::ZERO);
/// # Ok::<(), outlast_core::time::TimeError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 time.
#[derive(Clone, Debug, thiserror::Error)]
#[error("time {value:?} is not RFC 3339, such as 2026-11-24T02:30:00Z")]
pub struct TimeError {
    value: String,
    #[source]
    source: jiff::Error,
}

// The range that jiff can show, so that every timestamp has a text.
const MIN: i64 = -377_705_023_201_000;
const MAX: i64 = 253_402_207_200_000;

impl Timestamp {
    /// The latest moment there is: what "never" becomes where a moment is needed.
    pub const MAX: Timestamp = Timestamp(MAX);

    /// The moment `millis` milliseconds after the epoch, held to the range that can be shown.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        if millis < MIN {
            Self(MIN)
        } else if millis > MAX {
            Self(MAX)
        } else {
            Self(millis)
        }
    }

    /// The moment `seconds` seconds after the epoch.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self::from_millis(seconds.saturating_mul(1000))
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down, as asynq stores its scores.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Days since the epoch, in UTC: the key of daily statistics.
    #[must_use]
    pub const fn as_days(self) -> i64 {
        self.0.div_euclid(86_400_000)
    }

    /// The moment `by` later.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_add(millis(by)))
    }

    /// The moment `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self::from_millis(self.0.saturating_sub(millis(by)))
    }

    /// How long after `earlier` this is; zero if it is before.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        let millis = self.0.saturating_sub(earlier.0).max(0);
        Duration::from_millis(millis.unsigned_abs())
    }

    /// The same moment for jiff, which does the calendar.
    #[must_use]
    pub fn to_jiff(self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// The moment of a jiff timestamp, rounded down to the millisecond.
    #[must_use]
    pub fn from_jiff(moment: jiff::Timestamp) -> Self {
        Self::from_millis(moment.as_millisecond())
    }

    /// The date in UTC, such as `2026-11-24`.
    #[must_use]
    pub fn date(self) -> String {
        self.to_jiff().strftime("%Y-%m-%d").to_string()
    }
}

fn millis(by: Duration) -> i64 {
    i64::try_from(by.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.to_jiff().to_string())
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        match text.trim().parse::<jiff::Timestamp>() {
            Ok(moment) => Ok(Self::from_jiff(moment)),
            Err(source) => Err(TimeError { value: text.to_owned(), source }),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_and_smallest_moments_can_be_shown_and_read_back() {
        for moment in [Timestamp::from_millis(i64::MIN), Timestamp::MAX, Timestamp::from_millis(-1)]
        {
            let text = moment.to_string();
            assert_eq!(text.parse::<Timestamp>().expect(&text), moment);
        }
    }

    #[test]
    fn seconds_round_down_on_both_sides_of_the_epoch() {
        assert_eq!(Timestamp::from_millis(1999).as_seconds(), 1);
        assert_eq!(Timestamp::from_millis(-1).as_seconds(), -1);
        assert_eq!(Timestamp::from_millis(-1).as_days(), -1);
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::MAX.plus(Duration::MAX), Timestamp::MAX);
        assert!(Timestamp::default().minus(Duration::MAX) < Timestamp::default());
    }
}
