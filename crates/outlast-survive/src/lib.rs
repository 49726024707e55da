//! What Outlast does while its broker is away: four layers over any broker, each changing one thing.
//!
//! ```text
//! Outbox   stores enqueues that cannot be delivered
//!   over Journal   stores settlements that cannot be delivered
//!     over Ledger   keeps for a while what was acknowledged, and offers it again if it was lost
//!       over Breaker   fails fast while the broker is down; probes alone
//!         over the broker you chose
//! ```
//!
//! What is stored is a verb's own argument; delivering it later is calling the verb again. Every batch that
//! is sent from the disk was numbered on the disk first, so that whoever is killed at whatever moment repeats
//! exactly what may have been applied, under the stamp it had (law L3).
//!
//! This crate is internal to `outlast`. Reading order: `survivor` (the assembly), `outbox` and `journal` (one
//! verb each), `keep` (what they share), `drain` (how it is delivered), `breaker/circuit` (when), `spool/line`
//! (what is on the disk).

mod breaker;
mod clock;
mod drain;
mod event;
mod journal;
mod keep;
mod layer;
mod ledger;
mod metrics;
mod noticer;
mod numbers;
mod outbox;
mod pace;
mod report;
mod spool;
mod survivor;
mod verb;

pub use breaker::{CircuitState, Class, HomeStatus, Outage, Watermark};
pub use clock::Clock;
pub use event::{Counts, Event};
pub use journal::JournalMode;
pub use keep::NotStored;
pub use ledger::LedgerLimits;
pub use metrics::{Metric, MetricKind, Metrics, Sample};
pub use spool::{
    Notice, Quarantined, Shelf, Spool, SpoolError, SpoolErrorKind, SpoolLimits, Store, Stored,
    StoredTask, Waiting, WhenFull,
};
pub use survivor::{Config, OnOutage, Status, Survivor, wrap};
