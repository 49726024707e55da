//! What every broker of Outlast is held against: three oracles and the faults to try them with.
//!
//! 1. [`mod@conformance`]: named cases, written once; [`conformance!`] runs them on any broker.
//! 2. [`model`]: an obvious broker in memory. It passes the cases, and [`random`] compares it with other
//!    brokers over random sequences of verbs.
//! 3. [`laws`]: what must hold of any recorded history, whatever happened.
//!
//! [`fault`] makes a broker fail on purpose; [`server`] starts real servers, and [`proxy`]
//! spoils the connections to them. The next broker runs all of it with about twenty lines; see
//! this crate's own `tests/conformance.rs`.

pub mod conformance;
pub mod fault;
pub mod laws;
pub mod model;
pub mod proxy;
pub mod random;
pub mod resp;
pub mod server;
pub mod split_mix;
