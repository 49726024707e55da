//! How fast a counter grows, from look to look.

use std::collections::HashMap;

use outlast::Timestamp;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    last: HashMap<String, (u64, Timestamp)>,
}

impl Rates {
    /// By how much `name` grew per second since the last look; `None` at the first.
    pub(crate) fn of(&mut self, name: &str, count: u64, now: Timestamp) -> Option<f64> {
        let (before, at) = self.last.insert(name.to_owned(), (count, now))?;
        let seconds = now.since(at).as_secs_f64();
        let grown = count.saturating_sub(before);
        // Counters of queues stay far below 2^52, where a double is exact.
        (seconds > 0.0).then(|| (grown as f64 / seconds * 10.0).round() / 10.0)
    }
}
