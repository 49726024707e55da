//! Whose the spool is: what was stored for one broker never reaches another.
//!
//! The file keeps the name of the broker whose tasks and outcomes are in it, the quarantine included. It is compared when the
//! spool is opened, and again in every transaction that stores or numbers something, because another process may have come
//! in between. A file in which nothing is kept goes over to whoever asks.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::error::{SpoolError, SpoolErrorKind};

/// Takes the spool for a broker that opens it.
pub(super) fn open(conn: &mut Connection, path: &Path, broker: &str) -> Result<(), SpoolError> {
    let failed =
        |error| SpoolError::sqlite(&format!("could not open spool {}", path.display()), error);
    // Nearly always it is ours already, and a file that can only be read can be looked at.
    if owner(conn).map_err(failed)?.as_deref() == Some(broker) {
        return Ok(());
    }
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    take(&tx, path, broker).map_err(failed)??;
    tx.commit().map_err(failed)
}

/// Takes the spool for a broker, inside a transaction; refused while something of another one is kept.
pub(super) fn take(
    conn: &Connection,
    path: &Path,
    broker: &str,
) -> rusqlite::Result<Result<(), SpoolError>> {
    let owner = owner(conn)?;
    if owner.as_deref() == Some(broker) {
        return Ok(Ok(()));
    }
    if let Some(owner) = owner
        && is_used(conn)?
    {
        return Ok(Err(belongs_to(&owner, path, broker)));
    }
    let sql = "INSERT INTO owner VALUES (1, ?1) ON CONFLICT DO UPDATE SET broker = excluded.broker";
    conn.prepare_cached(sql)?.execute([broker])?;
    Ok(Ok(()))
}

fn owner(conn: &Connection) -> rusqlite::Result<Option<String>> {
    conn.prepare_cached("SELECT broker FROM owner")?.query_row([], |row| row.get(0)).optional()
}

fn is_used(conn: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM item) OR EXISTS (SELECT 1 FROM quarantine)";
    conn.prepare_cached(sql)?.query_row([], |row| row.get(0))
}

fn belongs_to(owner: &str, path: &Path, broker: &str) -> SpoolError {
    let what = format!(
        "spool {} keeps what waits for broker {owner:?}, and this is {broker:?}: name another file; or let that broker \
         have it all first, its quarantine too; or, if only the address has changed, give the broker the name it had",
        path.display()
    );
    SpoolError::new(SpoolErrorKind::OtherBroker, what)
}
