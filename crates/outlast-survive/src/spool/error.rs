//! What can go wrong with the spool itself, by what somebody has to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use rusqlite::ErrorCode;

/// What is wrong with the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SpoolErrorKind {
    /// One of its own limits is reached: deliver, drop, or allow more.
    Full,
    /// The disk is full.
    DiskFull,
    /// Another process keeps it locked.
    Locked,
    /// The device does not do what it is told; what was to be stored may or may not be there.
    Failing,
    /// The file is damaged.
    Damaged,
    /// It may not be opened or written, or is another program's, or a newer one's.
    Misconfigured,
    /// It keeps what waits for another broker than this one.
    OtherBroker,
    /// It was closed by this process.
    Closed,
}

impl SpoolErrorKind {
    /// The kind in lower case, as logs, metrics and JSON name it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            SpoolErrorKind::Full => "full",
            SpoolErrorKind::DiskFull => "disk-full",
            SpoolErrorKind::Locked => "locked",
            SpoolErrorKind::Failing => "failing",
            SpoolErrorKind::Damaged => "damaged",
            SpoolErrorKind::Misconfigured => "misconfigured",
            SpoolErrorKind::OtherBroker => "other-broker",
            SpoolErrorKind::Closed => "closed",
        }
    }
}

/// An error of the spool.
#[derive(Clone, Debug)]
pub struct SpoolError {
    kind: SpoolErrorKind,
    what: String,
    // Shared, because one failed transaction answers every call that was in it.
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl SpoolError {
    pub(crate) fn new(kind: SpoolErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// An error of SQLite while `what` was being done.
    pub(crate) fn sqlite(what: &str, error: rusqlite::Error) -> Self {
        Self::new(kind_of(&error), what).caused_by(error)
    }

    pub(crate) fn closed() -> Self {
        Self::new(SpoolErrorKind::Closed, "the spool is closed")
    }

    /// What is wrong.
    #[must_use]
    pub fn kind(&self) -> SpoolErrorKind {
        self.kind
    }
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        self.source.as_ref().map_or(Ok(()), |source| write!(f, ": {source}"))
    }
}

impl StdError for SpoolError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

fn kind_of(error: &rusqlite::Error) -> SpoolErrorKind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SpoolErrorKind::DiskFull,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SpoolErrorKind::Locked,
        Some(ErrorCode::SystemIoFailure | ErrorCode::OutOfMemory) => SpoolErrorKind::Failing,
        Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            SpoolErrorKind::Misconfigured
        }
        // A missing table, a value of another type, a page that makes no sense.
        _ => SpoolErrorKind::Damaged,
    }
}
