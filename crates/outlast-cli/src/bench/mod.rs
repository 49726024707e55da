//! How fast is this broker on this machine, and compared with what runs beside it?
//!
//! Absolute rates swing by a factor of two to three on shared machines, so every figure comes with another one taken in
//! the same run: for the embedded broker what its disk and a bare loop of rows can do (`sqlite`), for a server what
//! Go's asynq does on it (`redis`), for outages the same without what outlives them (`outage`). The ratio is the promise. Every task
//! is counted by its number: a rate with a task lost or run twice would be worthless, and says `exact: false`.

mod load;
pub(crate) mod outage;
mod pickup;
pub(crate) mod redis;
mod report;
pub(crate) mod sqlite;

use std::time::Instant;

pub(crate) use pickup::produce;
pub(crate) use report::Figure;

/// Bytes of a task's payload: a small JSON object.
const PAYLOAD_BYTES: usize = 200;

/// What the folder of a run is called, before the number of its process.
const FOLDER: &str = ".outlast-bench";

/// What a measurement answers: a failed one has measured nothing.
pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How much is done for a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Only to see that everything works: for tests.
    Tiny,
    /// Ends in about a minute; the figures are rougher.
    Quick,
    /// For figures to be quoted.
    Usual,
    /// With a million tasks waiting as well.
    Full,
}

/// Real time from its start: what a bench is about.
#[derive(Clone, Copy)]
struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// Task number `n`, padded to the payload's size.
fn payload(n: usize) -> String {
    format!("{{\"n\":{n:010},\"fill\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 26))
}

/// The number of a payload.
fn number(payload: &[u8]) -> Option<usize> {
    std::str::from_utf8(payload.get(5..15)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_promised_size_and_gives_its_number_back() {
        for n in [0, 7, 9_999_999] {
            assert_eq!(payload(n).len(), PAYLOAD_BYTES);
            assert_eq!(number(payload(n).as_bytes()), Some(n));
        }
        assert_eq!(number(b"short"), None);
    }
}
