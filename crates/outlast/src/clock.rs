//! The edge where time is asked for (law L7): everything below gets `now` as an argument.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use outlast_core::Timestamp;

/// What tells the time: the system, or a test.
///
/// ```
/// use outlast::{Clock, Timestamp};
/// use std::time::Duration;
/// let clock = Clock::manual(Timestamp::from_seconds(100));
/// clock.advance(Duration::from_secs(60));
/// assert_eq!(clock.now(), Timestamp::from_seconds(160));
/// ```
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands still until it is moved. Its clones move with it.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.as_millis()))))
    }

    /// The time it is.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the edge that asks the system")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::Manual(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
            Source::System => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                let since = since.unwrap_or(Duration::ZERO);
                Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Moves a manual clock forward; the system's clock does not listen.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(millis) = &self.0 {
            let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
            millis.fetch_add(by, Ordering::SeqCst);
        }
    }

    /// True if the clock only moves by [`advance`](Self::advance).
    #[must_use]
    pub fn is_manual(&self) -> bool {
        matches!(self.0, Source::Manual(_))
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}
