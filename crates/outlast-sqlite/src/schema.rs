//! Which schema a file has, and bringing an older one up to date.

use outlast_core::{BrokerError, Kind};
use rusqlite::Connection;

use crate::error::from_sqlite;

/// The migrations, in order: the first makes version 1 out of an empty file.
const MIGRATIONS: [&str; 2] = [
    include_str!("../sql/migrations/0001_init.sql"),
    include_str!("../sql/migrations/0002_moves.sql"),
];

/// The schema version this program writes.
pub const SCHEMA_VERSION: u32 = MIGRATIONS.len() as u32;

/// "OLST", in the header of every file of ours (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x4f4c_5354;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No table in it.
    Empty,
    /// Ours, of this version.
    Version(u32),
}

/// Looks at a file without changing it. A file of a newer version or of another program is refused. It is one
/// snapshot: another process may be making the file, and half of what it makes would look like another program's.
pub(crate) fn look(conn: &Connection, name: &str) -> Result<Found, BrokerError> {
    let sql = "SELECT (SELECT application_id FROM pragma_application_id),
                      (SELECT user_version FROM pragma_user_version),
                      (SELECT count(*) FROM sqlite_schema)";
    let (application, version, tables) = conn
        .query_row(sql, [], |row| <(i64, i64, i64)>::try_from(row))
        .map_err(|error| from_sqlite(&format!("could not read {name}"), error))?;
    if application == 0 && version == 0 && tables == 0 {
        return Ok(Found::Empty);
    }
    if application != APPLICATION_ID {
        let what = format!("database {name} belongs to another program: name another file");
        return Err(BrokerError::new(Kind::Misconfigured, what));
    }
    match u32::try_from(version) {
        Ok(version) if (1..=SCHEMA_VERSION).contains(&version) => Ok(Found::Version(version)),
        _ => Err(newer(name, version)),
    }
}

/// Why a file of a newer program is left alone.
#[derive(Debug, thiserror::Error)]
#[error(
    "it has schema version {found}, this program knows {SCHEMA_VERSION}: it was written by a newer \
     one, update this program"
)]
struct Newer {
    found: i64,
}

fn newer(name: &str, found: i64) -> BrokerError {
    let what = format!("could not use database {name}");
    BrokerError::new(Kind::Misconfigured, what).with_source(Newer { found })
}

/// Looks whether an open database still has the schema that this program knows.
pub(crate) fn check(conn: &Connection) -> Result<(), BrokerError> {
    let version = conn
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map_err(|error| from_sqlite("could not read the schema version", error))?;
    if version == i64::from(SCHEMA_VERSION) {
        return Ok(());
    }
    Err(newer(conn.path().unwrap_or(":memory:"), version))
}

/// Brings a file to [`SCHEMA_VERSION`] in one transaction. Another process may do the same at the same
/// time: whoever comes second finds nothing to do.
pub(crate) fn migrate(conn: &Connection, name: &str) -> Result<(), BrokerError> {
    let failed = |error| from_sqlite(&format!("could not migrate {name}"), error);
    conn.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let result = apply(conn, name);
    let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = conn.execute_batch(end).map_err(failed);
    result.and(ended)
}

fn apply(conn: &Connection, name: &str) -> Result<(), BrokerError> {
    let failed = |error| from_sqlite(&format!("could not migrate {name}"), error);
    let from = match look(conn, name)? {
        Found::Empty => 0,
        Found::Version(version) => version,
    };
    if from == SCHEMA_VERSION {
        return Ok(());
    }
    for migration in MIGRATIONS.iter().skip(from as usize) {
        conn.execute_batch(migration).map_err(failed)?;
    }
    if from == 0 {
        let epoch = "INSERT INTO meta VALUES ('epoch', lower(hex(randomblob(16))))";
        conn.execute_batch(epoch).map_err(failed)?;
        conn.pragma_update(None, "application_id", APPLICATION_ID).map_err(failed)?;
    }
    conn.pragma_update(None, "user_version", SCHEMA_VERSION).map_err(failed)
}
