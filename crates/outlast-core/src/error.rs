//! What can go wrong at a broker, by what it means for the caller.
//!
//! The [`Kind`] is for branching (breaker, outbox, journal, exit codes); the text and the source are for
//! people. An error speaks about the whole batch of one queue; trouble with a single item is a verdict.

use std::error::Error as StdError;
use std::fmt;

/// What may have happened, and so what is safe to do next (design §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Nothing was applied: the broker could not be reached, or its file could not be opened.
    Unavailable,
    /// Sent, but no answer came: any part of the batch may be applied. Repeat with the same stamp.
    Ambiguous,
    /// Alive and asking for patience (locked, loading, out of memory or disk). Nothing was applied.
    Busy,
    /// Repeating is pointless until someone acts: permissions, read-only files, a newer schema.
    Misconfigured,
    /// This request is wrong, and would be wrong again.
    Rejected,
    /// A stored record cannot be read.
    Corrupt,
    /// The stamp is older than its lane's last one: a ghost of a batch that was answered long ago.
    Superseded,
}

impl Kind {
    /// Every kind, for tables and tests.
    pub const ALL: [Kind; 7] = [
        Kind::Unavailable,
        Kind::Ambiguous,
        Kind::Busy,
        Kind::Misconfigured,
        Kind::Rejected,
        Kind::Corrupt,
        Kind::Superseded,
    ];

    /// True if the same call, with the same stamp, can succeed later without anybody acting.
    ///
    /// ```
    /// use outlast_core::Kind;
    /// assert!(Kind::Busy.is_transient());
    /// assert!(!Kind::Rejected.is_transient());
    /// ```
    #[must_use]
    pub fn is_transient(self) -> bool {
        match self {
            Kind::Unavailable | Kind::Ambiguous | Kind::Busy => true,
            Kind::Misconfigured | Kind::Rejected | Kind::Corrupt | Kind::Superseded => false,
        }
    }

    /// The kind in lower case, as logs, metrics and JSON name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unavailable => "unavailable",
            Kind::Ambiguous => "ambiguous",
            Kind::Busy => "busy",
            Kind::Misconfigured => "misconfigured",
            Kind::Rejected => "rejected",
            Kind::Corrupt => "corrupt",
            Kind::Superseded => "superseded",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of a broker: its kind, what was being done to what, and the error below it.
///
/// ```
/// use outlast_core::{BrokerError, Kind};
/// let disk = std::io::Error::other("no space left on device");
/// let error = BrokerError::new(Kind::Busy, "could not write tasks.db").with_source(disk);
/// assert_eq!(error.kind(), Kind::Busy);
/// assert_eq!(error.to_string(), "could not write tasks.db: no space left on device");
/// ```
#[derive(Debug, Clone)]
pub struct BrokerError {
    kind: Kind,
    what: String,
    concerns_its_queue: bool,
    // Shared, because one failed transaction answers every batch that was in it.
    source: Option<std::sync::Arc<dyn StdError + Send + Sync + 'static>>,
}

impl BrokerError {
    /// An error of `kind`; `what` says what could not be done, to which thing and value.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), concerns_its_queue: false, source: None }
    }

    /// A request that is wrong in itself.
    pub fn rejected(what: impl Into<String>) -> Self {
        Self::new(Kind::Rejected, what)
    }

    /// The same error with the error that caused it.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(std::sync::Arc::new(source));
        self
    }

    /// The same error, known to speak about nothing but the queue that was asked for.
    #[must_use]
    pub fn of_its_queue(mut self) -> Self {
        self.concerns_its_queue = true;
        self
    }

    /// True if it is known that other queues of the same home may be well: what is wrong are the rights on this one's keys, or
    /// what is under them.
    #[must_use]
    pub fn concerns_its_queue(&self) -> bool {
        self.concerns_its_queue
    }

    /// What the error means for the caller.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl StdError for BrokerError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_keeps_its_source_through_clones() {
        let error = BrokerError::new(Kind::Unavailable, "could not open tasks.db")
            .with_source(std::io::Error::from(std::io::ErrorKind::NotFound));
        let source = error.clone();
        let source = source.source().expect("the clone still has its source");
        assert!(source.downcast_ref::<std::io::Error>().is_some());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> =
            Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
