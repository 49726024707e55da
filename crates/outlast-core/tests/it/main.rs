//! The tests of outlast-core: one binary, one module per question.
#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]

mod schedule;
