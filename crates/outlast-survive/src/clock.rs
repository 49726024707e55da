//! Time comes from the edge (law L7): the layers ask whoever put them together.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::Timestamp;
use tokio::time::Instant;

/// What "for ever" is, as a time to wait: far away, and no overflow.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// The moment in which a wait of this length is over, however long somebody wants to wait.
pub(crate) fn end_of(wait: Duration) -> Instant {
    Instant::now() + wait.min(FOR_EVER)
}

/// What tells the time.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    /// A clock that asks this function.
    ///
    /// ```
    /// use outlast_core::Timestamp;
    /// let clock = outlast_survive::Clock::new(|| Timestamp::from_seconds(7));
    /// assert_eq!(clock.now(), Timestamp::from_seconds(7));
    /// ```
    pub fn new(now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
