//! Outlast beside the real asynq, on one Redis: what each side of the wire makes of the other's tasks.
//!
//! `scripts/install-interop` builds the Go programs. Without them, or without a Redis, a test says that it was
//! skipped; `OUTLAST_REQUIRE_ASYNQ=1` makes that a failure. Every test has a server of its own, because asynq's
//! keys have no namespace.

#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]

mod faces;
mod fleet;
mod go;
mod golden;
mod groups;
mod inspect;
mod moved;
mod options;
mod ours;
mod outbox;
mod outcomes;
mod people;
mod routes;
mod screens;
mod states;
mod steer;
mod waiting;
mod world;
