//! The embedded broker of Outlast: every verb as SQL over one SQLite file, or in memory. It is internal
//! to the `outlast` crate; the version numbers move together.
//!
//! ```text
//!   verbs (async)                questions (async)
//!       │ bounded channel            │ bounded channel
//!   ┌───▼────────────┐          ┌────▼─────┐
//!   │ writer thread  │          │ readers  │   a connection each
//!   │ group commit   │          └────┬─────┘
//!   └───┬────────────┘               │
//!       │ gate (flock) between       │
//!       │ processes                  │
//!   ┌───▼────────────────────────────▼─┐
//!   │ SQLite: WAL, synchronous = FULL  │── the gate's bell ──► watch ──► waiters
//!   └──────────────────────────────────┘
//! ```
//!
//! Reading order: `writer` (how verbs share a commit), `tally` (why nothing counts), `moves` (every
//! change of a state), then the verbs: `enqueue`, `claim`, `settle`, `extend`, `sweep`, `beat`, `wait`;
//! `porter` moves tasks to other brokers.

mod beat;
mod broker;
mod claim;
mod enqueue;
mod error;
mod extend;
mod gate;
mod groups;
mod housekeeping;
mod hub;
mod inspect;
mod live;
mod moves;
mod open;
mod porter;
mod reader;
mod rows;
mod schema;
mod session;
mod settle;
mod sweep;
mod tally;
mod wait;
mod watch;
mod writer;

pub use broker::SqliteBroker;
pub use open::{Options, Synchronous};
pub use schema::SCHEMA_VERSION;

/// The version of this crate.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
