//! Opening a database: the options, the pragmas and their order, the checks before anything is touched.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use outlast_core::{BrokerError, Kind};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use crate::error::{from_io, from_sqlite};
use crate::schema::{self, Found};

/// The writer's page cache in KiB. A larger one is slower (measured, 64 MiB: claims in batches of 16 fell
/// from 42,000 to 24,000 a second): a commit after which an index page was split walks the whole cache,
/// and a queue works at its two ends anyway, whatever lies between.
const CACHE_KIB: u32 = 16_000;

/// Prepared statements kept per connection: more than this crate has.
const STATEMENTS_MAX: usize = 192;

/// How soon the switch to the write-ahead log is tried again: it takes two fsyncs.
const SWITCH_AGAIN: Duration = Duration::from_millis(5);

/// The oldest SQLite without the WAL reset race, in which a checkpoint and a commit at the wrong moment
/// lost the commit.
const SQLITE_MIN: i32 = 3_051_003;

/// How a database is opened.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Create the file if it does not exist. Its folder must exist.
    pub create: bool,
    /// What a commit waits for.
    pub synchronous: Synchronous,
    /// How long a write waits for other processes before it answers busy.
    pub busy_timeout: Duration,
    /// How large the file may grow; a write that needs more answers busy, until something is deleted.
    /// `None`: as large as the disk allows.
    pub bytes_max: Option<u64>,
    /// Archived tasks kept per queue; sweeps delete the oldest beyond it. asynq keeps 10,000, because each
    /// is memory of a server; here they are bytes on a disk.
    pub archive_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            create: true,
            synchronous: Synchronous::Full,
            busy_timeout: Duration::from_secs(5),
            bytes_max: None,
            archive_max: 1_000_000,
        }
    }
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// For the disk: what was accepted survives a power cut.
    #[default]
    Full,
    /// For the operating system: a power cut may take the last moments, a killed process takes nothing.
    Normal,
}

/// Where a database is.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) file: PathBuf,
    pub(crate) options: Options,
}

impl Site {
    /// A file next to the database.
    pub(crate) fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.file.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }

    pub(crate) fn name(&self) -> String {
        self.file.display().to_string()
    }
}

/// Refuses to run on a SQLite that can lose commits.
pub(crate) fn check_sqlite() -> Result<(), BrokerError> {
    if rusqlite::version_number() >= SQLITE_MIN {
        return Ok(());
    }
    let version = rusqlite::version();
    let what = format!("sqlite {version} can lose commits: 3.51.3 or newer is needed");
    Err(BrokerError::new(Kind::Misconfigured, what))
}

/// Opens the writer's connection of a file, making or migrating it where needed.
pub(crate) fn open_file(path: &Path, options: &Options) -> Result<(Connection, Site), BrokerError> {
    check_sqlite()?;
    let name = path.display().to_string();
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    flags.set(OpenFlags::SQLITE_OPEN_CREATE, options.create);
    let conn =
        Connection::open_with_flags(path, flags).map_err(|error| cannot_open(path, error))?;
    conn.busy_timeout(options.busy_timeout)
        .map_err(|error| from_sqlite(&format!("could not open {name}"), error))?;
    if conn.is_readonly(MAIN_DB).unwrap_or(false) {
        // SQLite falls back to reading a file that it may not write.
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        return Err(from_io(&format!("could not open {name} for writing"), denied));
    }
    let found = look_gently(&conn, &name)?;
    // Symbolic links and relative names of one file must lead to one lock file.
    let file =
        path.canonicalize().map_err(|error| from_io(&format!("could not find {name}"), error))?;
    let site = Site { file, options: *options };
    prepare(&conn, found, &site)?;
    Ok((conn, site))
}

/// SQLite says only that it cannot open a file; the system says why.
fn cannot_open(path: &Path, error: rusqlite::Error) -> BrokerError {
    let what = format!("could not open {}", path.display());
    let tried = std::fs::OpenOptions::new().read(true).write(true).open(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = std::fs::metadata(folder.unwrap_or(Path::new(".")));
    match (tried, folder) {
        (Err(denied), _) if denied.kind() != io::ErrorKind::NotFound => from_io(&what, denied),
        // The folder is there and the file cannot be made in it: nobody may write there.
        (Err(_), Ok(folder)) if folder.permissions().readonly() => {
            from_io(&what, io::Error::from(io::ErrorKind::PermissionDenied))
        }
        _ => from_sqlite(&what, error),
    }
}

/// Looks at the file; one that is not ours is left exactly as it is, its log included.
fn look_gently(conn: &Connection, name: &str) -> Result<Found, BrokerError> {
    let found = schema::look(conn, name);
    if found.is_err() {
        // Best effort: without it the last one to close would write the log back into the file.
        let _ = conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
    }
    found
}

fn prepare(conn: &Connection, found: Found, site: &Site) -> Result<(), BrokerError> {
    let name = site.name();
    let failed = |error| from_sqlite(&format!("could not prepare {name}"), error);
    if found == Found::Empty {
        // Before WAL: afterwards it silently stays off.
        conn.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(failed)?;
    }
    let mode = switch_to_wal(conn, site.options.busy_timeout).map_err(failed)?;
    if !mode.eq_ignore_ascii_case("wal") {
        let what = format!("database {name} cannot use a write-ahead log, only {mode}");
        return Err(BrokerError::new(Kind::Misconfigured, what));
    }
    tune(conn, &site.options).map_err(failed)?;
    if found != Found::Version(schema::SCHEMA_VERSION) {
        schema::migrate(conn, &name)?;
    }
    Ok(())
}

/// Switches the write-ahead log on, and says what is on then. While another process switches SQLite answers "busy"
/// at once: its busy timeout does not hold for this.
fn switch_to_wal(conn: &Connection, at_most: Duration) -> rusqlite::Result<String> {
    let mut waited = Duration::ZERO;
    loop {
        let switched = conn.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        let Err(error) = &switched else { return switched };
        let is_busy = error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        if !is_busy || waited >= at_most {
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

fn tune(conn: &Connection, options: &Options) -> rusqlite::Result<()> {
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    if let Some(bytes) = options.bytes_max {
        let page: i64 = conn.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = (bytes / page.max(1).unsigned_abs()).clamp(1, u64::from(u32::MAX - 1));
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    conn.execute_batch(match options.synchronous {
        Synchronous::Full => "PRAGMA synchronous = FULL",
        Synchronous::Normal => "PRAGMA synchronous = NORMAL",
    })?;
    // Plans shall not depend on the values bound: with partial indexes around, SQLite would prepare a
    // statement anew for every other state.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    conn.execute_batch(&format!(
        "PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}; \
         PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864"
    ))
}

/// Opens a connection for reading a file that is open already.
pub(crate) fn open_reader(site: &Site) -> Result<Connection, BrokerError> {
    let failed = |error| from_sqlite(&format!("could not open {} for reading", site.name()), error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(&site.file, flags).map_err(failed)?;
    conn.busy_timeout(site.options.busy_timeout).map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.execute_batch(
        "PRAGMA query_only = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -16000",
    )
    .map_err(failed)?;
    Ok(conn)
}

/// Opens a database in memory.
pub(crate) fn open_memory() -> Result<Connection, BrokerError> {
    check_sqlite()?;
    let failed = |error| from_sqlite("could not open a database in memory", error);
    let conn = Connection::open_in_memory().map_err(failed)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    conn.execute_batch("PRAGMA temp_store = MEMORY").map_err(failed)?;
    schema::migrate(&conn, ":memory:")?;
    Ok(conn)
}

/// The epoch of a database: another one means that other data is behind the same name.
pub(crate) fn epoch(conn: &Connection) -> rusqlite::Result<String> {
    conn.query_row("SELECT value FROM meta WHERE name = 'epoch'", [], |row| row.get(0))
}
