//! The tests of outlast-core: one binary, one module per question.
#![allow(clippy::unwrap_used)] // A test may fail by panicking.

mod schedule;
