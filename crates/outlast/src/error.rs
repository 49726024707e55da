//! The one error of the library: a kind to branch on, a text to show, and the source below it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use outlast_core::task::TaskError;
use outlast_core::{BrokerError, Kind, NameError};
use outlast_survive::{SpoolError, SpoolErrorKind};

/// A `Result` with the library's [`Error`](struct@Error).
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The broker could not do it; the [`Kind`] says whether it may have been done.
    Broker(Kind),
    /// The store on this machine's disk could not do it; the [`SpoolErrorKind`] says what is wrong with it.
    Spool(SpoolErrorKind),
    /// What was asked for is wrong in itself; the message names the thing and the value.
    Invalid,
    /// The task was not stored because one like it, or one of its id, was there before: what
    /// [`Receipt::accepted`](crate::Receipt::accepted) says of a duplicate.
    Duplicate,
    /// There is no such queue, task, worker or schedule.
    NotFound,
    /// The client or worker has been stopped.
    Stopped,
}

/// An error of the library.
///
/// ```
/// use outlast::{ErrorKind, TaskRequest};
/// let error = TaskRequest::raw("  ", "payload").check_options().unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Invalid);
/// assert!(error.to_string().starts_with("task type \"  \" is blank"));
/// ```
#[derive(Clone, Debug)]
pub struct Error {
    kind: ErrorKind,
    what: String,
    source: Option<Arc<dyn StdError + Send + Sync + 'static>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None }
    }

    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, what)
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, what)
    }

    pub(crate) fn stopped(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Stopped, what)
    }

    fn from_source(kind: ErrorKind, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind, what: source.to_string(), source: Some(Arc::new(source)) }
    }

    /// The same with what is below it.
    pub(crate) fn caused_by(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// What the error means for the caller.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        // The text of the source is our own text, so the chain goes on one below it.
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl From<BrokerError> for Error {
    fn from(error: BrokerError) -> Self {
        Self::from_source(ErrorKind::Broker(error.kind()), error)
    }
}

impl From<SpoolError> for Error {
    fn from(error: SpoolError) -> Self {
        Self::from_source(ErrorKind::Spool(error.kind()), error)
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::from_source(ErrorKind::Invalid, error)
    }
}

impl From<TaskError> for Error {
    fn from(error: TaskError) -> Self {
        Self::from_source(ErrorKind::Invalid, error)
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::from_source(ErrorKind::Invalid, error)
    }
}
