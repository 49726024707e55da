//! Outages of a real server, each from the catalogue of faults: while it lasts producers go on and workers keep what
//! they have finished; afterwards every task that was accepted has run, once.

#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]
#![cfg(feature = "redis")]

mod asynq;
mod catalogue;
mod connectivity;
mod damage;
#[path = "../interop/go.rs"]
#[expect(dead_code, reason = "shared with the tests of interoperation, which use all of it")]
mod go;
mod history;
mod namespace;
mod network;
mod pressure;
mod refusals;
mod story;
mod table;
mod workers;
mod world;
