//! What Outlast does while its broker is away.

mod spool;

pub use spool::{
    Quarantined, Spool, SpoolError, SpoolErrorKind, SpoolLimits, Store, Waiting, WhenFull,
};
