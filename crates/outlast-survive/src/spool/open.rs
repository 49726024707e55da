//! Opening the spool's file: its pragmas, its schema, and the refusal of files that are not ours.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::{SpoolError, SpoolErrorKind};

/// "OLSP", in the header of every spool (`PRAGMA application_id`).
const APPLICATION_ID: i64 = 0x4f4c_5350;

/// The schema this program writes.
const VERSION: i64 = 1;

/// See `owner.rs`.
const OWNER: &str = include_str!("../../sql/owner.sql");

/// See `notices.rs`.
const NOTICE: &str = include_str!("../../sql/notice.sql");

/// See `losses.rs`.
const LOSS: &str = include_str!("../../sql/loss.sql");

/// See `line.rs`.
const SHELF: &str = include_str!("../../sql/shelf.sql");

/// How long a write waits for other processes: an fsync each, and a slow disk takes a second for one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How soon the switch to the write-ahead log is tried again: it takes two fsyncs.
const SWITCH_AGAIN: Duration = Duration::from_millis(5);

/// Opens the connection that writes, and makes the file if it is not there. Its folder must exist.
pub(super) fn writer(path: &Path) -> Result<Connection, SpoolError> {
    let name = path.display();
    let failed = |error| SpoolError::sqlite(&format!("could not open spool {name}"), error);
    let conn = connect(path).map_err(failed)?;
    let is_new = check(&conn, path)?;
    if is_new {
        // Before the log is switched on: afterwards it silently stays off.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(failed)?;
    }
    let mode = switch_to_wal(&conn).map_err(failed)?;
    if !mode.eq_ignore_ascii_case("wal") {
        let what = format!("spool {name} cannot use a write-ahead log, only {mode}");
        return Err(SpoolError::new(SpoolErrorKind::Misconfigured, what));
    }
    // A checkpoint every 16 MB of log: it takes fsyncs of its own.
    conn.execute_batch(
        "PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA temp_store = MEMORY",
    )
    .map_err(failed)?;
    match is_new {
        true => create(&conn, path)?,
        false => complete(&conn).map_err(failed)?,
    }
    Ok(conn)
}

/// Adds what a file of an earlier program lacks. One that lacks nothing is only looked at: whoever keeps it locked holds up nobody
/// who opens it.
fn complete(conn: &Connection) -> rusqlite::Result<()> {
    let latest = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'shelf')";
    if conn.query_row(latest, [], |row| row.get(0))? {
        return Ok(());
    }
    let all = [OWNER, NOTICE, LOSS, SHELF].concat();
    // At once: of two processes that do it the second must find it done.
    conn.execute_batch(&format!("BEGIN IMMEDIATE; {all} COMMIT"))
}

/// Opens a connection that only reads.
pub(super) fn reader(path: &Path) -> Result<Connection, SpoolError> {
    let failed =
        |error| SpoolError::sqlite(&format!("could not read spool {}", path.display()), error);
    let conn = connect(path).map_err(failed)?;
    conn.execute_batch("PRAGMA query_only = ON").map_err(failed)?;
    Ok(conn)
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

/// Switches the write-ahead log on, and says what is on then. While another process switches SQLite answers "busy"
/// at once: its busy timeout does not hold for this.
fn switch_to_wal(conn: &Connection) -> rusqlite::Result<String> {
    let mut waited = Duration::ZERO;
    loop {
        let switched = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        let Err(error) = &switched else { return switched };
        let is_busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        if !is_busy || waited >= BUSY_TIMEOUT {
            return switched;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "opening blocks, and SQLite tells of no event"
        )]
        std::thread::sleep(SWITCH_AGAIN);
        waited += SWITCH_AGAIN;
    }
}

/// True for an empty file; an error for one that is not ours. Asked in one snapshot: another process may be making
/// it, and half of what it makes would look like another program's.
fn check(conn: &Connection, path: &Path) -> Result<bool, SpoolError> {
    let name = path.display();
    let sql = "SELECT (SELECT application_id FROM pragma_application_id),
                      (SELECT user_version FROM pragma_user_version),
                      (SELECT count(*) FROM sqlite_schema)";
    let found = conn
        .query_row(sql, [], |row| <(i64, i64, i64)>::try_from(row))
        .map_err(|error| SpoolError::sqlite(&format!("could not read spool {name}"), error))?;
    let wrong = match found {
        (APPLICATION_ID, VERSION, _) => return Ok(false),
        (0, 0, 0) => return Ok(true),
        (APPLICATION_ID, version, _) => {
            format!("spool {name} has version {version}, this program knows {VERSION}: update it")
        }
        _ => format!("spool {name} belongs to another program: name another file"),
    };
    Err(SpoolError::new(SpoolErrorKind::Misconfigured, wrong))
}

/// Another process may do the same at the same time: whoever comes second finds nothing to do.
fn create(conn: &Connection, path: &Path) -> Result<(), SpoolError> {
    let failed =
        |error| SpoolError::sqlite(&format!("could not create spool {}", path.display()), error);
    conn.execute_batch("BEGIN IMMEDIATE").map_err(failed)?;
    let made = check(conn, path).and_then(|is_new| {
        let sql = include_str!("../../sql/spool.sql");
        let ours =
            format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION}");
        match is_new {
            true => [OWNER, NOTICE, sql, LOSS, SHELF, &ours]
                .iter()
                .try_for_each(|sql| conn.execute_batch(sql)),
            false => Ok(()),
        }
        .map_err(failed)
    });
    let end = if made.is_ok() { "COMMIT" } else { "ROLLBACK" };
    made.and(conn.execute_batch(end).map_err(failed))
}
