//! Which [`Kind`] an error of SQLite or the file system is. This file is the only place that decides.
//!
//! The rule behind the table: while a transaction is open, every failure rolls it back, so nothing was
//! applied. Only a commit that fails for another reason than space or a lock leaves its outcome open:
//! the frames may be in the log and be found there by the next recovery.

use std::io;

use outlast_core::{BrokerError, Kind};
use rusqlite::ErrorCode;

/// Why a verb failed inside its transaction.
#[derive(Debug)]
pub(crate) enum Fail {
    /// Refused by its own checks, before it wrote anything: the others in the transaction go on.
    Refused(BrokerError),
    /// Refused half-way: what the verb wrote has to be rolled back.
    Abort(BrokerError),
    /// SQLite failed: what the verb wrote has to be rolled back.
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Fail {
    fn from(error: rusqlite::Error) -> Self {
        Fail::Sql(error)
    }
}

impl From<BrokerError> for Fail {
    fn from(error: BrokerError) -> Self {
        Fail::Refused(error)
    }
}

impl Fail {
    /// The error as the caller sees it.
    pub(crate) fn into_error(self, what: &str) -> BrokerError {
        match self {
            Fail::Refused(error) | Fail::Abort(error) => error,
            Fail::Sql(error) => from_sqlite(what, error),
        }
    }
}

/// An error of SQLite while `what` was being done, with nothing applied.
pub(crate) fn from_sqlite(what: &str, error: rusqlite::Error) -> BrokerError {
    BrokerError::new(kind(&error), what).with_source(error)
}

/// An error of a commit. Without room or a lock SQLite rolls back; after anything else nobody knows.
pub(crate) fn from_commit(error: rusqlite::Error) -> BrokerError {
    match kind_of_commit(&error) {
        Kind::Ambiguous => BrokerError::new(
            Kind::Ambiguous,
            "could not confirm a commit, the batch may or may not be stored",
        )
        .with_source(error),
        kind => BrokerError::new(kind, "could not commit").with_source(error),
    }
}

pub(crate) fn kind_of_commit(error: &rusqlite::Error) -> Kind {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull) => {
            Kind::Busy
        }
        Some(ErrorCode::ReadOnly) => Kind::Misconfigured,
        _ => Kind::Ambiguous,
    }
}

/// True if a write failed because the database may only be read.
pub(crate) fn is_read_only(error: &BrokerError) -> bool {
    let source = std::error::Error::source(error);
    source
        .and_then(|source| source.downcast_ref::<rusqlite::Error>())
        .is_some_and(|error| error.sqlite_error_code() == Some(ErrorCode::ReadOnly))
}

/// An error of the file system.
pub(crate) fn from_io(what: &str, error: io::Error) -> BrokerError {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Misconfigured,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Kind::Busy,
        _ => Kind::Unavailable,
    };
    BrokerError::new(kind, what).with_source(error)
}

/// The table: what may have happened, and so what is safe to do next.
pub(crate) fn kind(error: &rusqlite::Error) -> Kind {
    let Some(code) = error.sqlite_error_code() else {
        return kind_without_code(error);
    };
    match code {
        // Someone else holds the file, or there is no room: later it will work.
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::DiskFull
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::SchemaChanged => Kind::Busy,
        // A full disk is not among the I/O errors, it has a code of its own: the device is in trouble.
        ErrorCode::CannotOpen | ErrorCode::SystemIoFailure => Kind::Unavailable,
        // Waiting does not help: someone has to act.
        ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied
        | ErrorCode::NoLargeFileSupport => Kind::Misconfigured,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => Kind::Corrupt,
        ErrorCode::TooBig => Kind::Rejected,
        // Unknown is what a missing table answers: somebody has changed the schema under us.
        _ => Kind::Corrupt,
    }
}

/// Errors of rusqlite itself: a stored value of another type than the column's is a damaged record.
fn kind_without_code(error: &rusqlite::Error) -> Kind {
    match error {
        rusqlite::Error::InvalidPath(_) | rusqlite::Error::NulError(_) => Kind::Misconfigured,
        _ => Kind::Corrupt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::ffi;

    fn sqlite(code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
    }

    #[test]
    fn every_code_means_what_the_design_says() {
        let cases = [
            (ffi::SQLITE_BUSY, Kind::Busy),
            (ffi::SQLITE_BUSY_SNAPSHOT, Kind::Busy),
            (ffi::SQLITE_LOCKED, Kind::Busy),
            (ffi::SQLITE_FULL, Kind::Busy),
            (ffi::SQLITE_IOERR, Kind::Unavailable),
            (ffi::SQLITE_IOERR_WRITE, Kind::Unavailable),
            (ffi::SQLITE_NOMEM, Kind::Busy),
            (ffi::SQLITE_CANTOPEN, Kind::Unavailable),
            (ffi::SQLITE_READONLY, Kind::Misconfigured),
            (ffi::SQLITE_READONLY_DBMOVED, Kind::Misconfigured),
            (ffi::SQLITE_PERM, Kind::Misconfigured),
            (ffi::SQLITE_AUTH, Kind::Misconfigured),
            (ffi::SQLITE_CORRUPT, Kind::Corrupt),
            (ffi::SQLITE_NOTADB, Kind::Corrupt),
            (ffi::SQLITE_TOOBIG, Kind::Rejected),
            (ffi::SQLITE_ERROR, Kind::Corrupt),
        ];
        for (code, expected) in cases {
            assert_eq!(kind(&sqlite(code)), expected, "{}", sqlite(code));
        }
    }

    #[test]
    fn a_commit_that_failed_on_the_disk_leaves_its_outcome_open() {
        assert_eq!(from_commit(sqlite(ffi::SQLITE_IOERR_FSYNC)).kind(), Kind::Ambiguous);
        assert_eq!(from_commit(sqlite(ffi::SQLITE_FULL)).kind(), Kind::Busy);
        assert_eq!(from_commit(sqlite(ffi::SQLITE_BUSY)).kind(), Kind::Busy);
    }

    #[test]
    fn the_error_below_is_kept() {
        let error = from_sqlite("could not enqueue", sqlite(ffi::SQLITE_FULL));
        let source = std::error::Error::source(&error).expect("has a source");
        assert!(source.downcast_ref::<rusqlite::Error>().is_some());
        assert!(error.to_string().starts_with("could not enqueue: "), "{error}");
    }
}
