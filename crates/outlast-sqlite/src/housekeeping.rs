//! What a sweep does for the whole database, whichever queue it was called for: noticing dead
//! processes, and forgetting what nobody will ask for again.
//!
//! Rate-limited by `now`: many queues are swept every second, and once a second is enough for all.

use outlast_core::Timestamp;
use outlast_core::limits::{SESSION_TTL, STATS_DAYS};
use rusqlite::{Connection, params};

use crate::error::Fail;
use crate::live::{Live, Sign};
use crate::writer::Tx;

/// Between two looks at the lock files: a dead worker is noticed within this and one sweep.
const LOOK_EVERY_MS: i64 = 500;

/// Between two rounds of forgetting.
const FORGET_EVERY_MS: i64 = 1000;

/// Between two looks for litter among the lock files.
const TIDY_EVERY_MS: i64 = 60_000;

/// Session records looked at in one round: they are not indexed by age, because an index would cost
/// every batch a write. A round goes on where the last one ended.
const SESSIONS_PER_ROUND: i64 = 500;

/// Lock files and workers looked at in one round.
const PER_ROUND: usize = 256;

/// Unused pages that stay in the file: 64 MiB.
const PAGES_KEPT: i64 = 16_384;

/// Unused pages given back in one round: some milliseconds of work, 8 MiB a second.
const PAGES_PER_ROUND: i64 = 2048;

/// What the writer remembers between sweeps.
#[derive(Debug, Default)]
pub(crate) struct Rounds {
    looked_at: Option<i64>,
    forgot_at: Option<i64>,
    tidied_at: Option<i64>,
    session: i64,
}

/// True if a round is due; a clock that went back makes it due too.
fn is_due(last: &mut Option<i64>, now: i64, every: i64) -> bool {
    let due = last.is_none_or(|last| !(last..last.saturating_add(every)).contains(&now));
    if due {
        *last = Some(now);
    }
    due
}

/// One round of everything that is due; true if something was left over.
pub(crate) fn sweep(tx: &mut Tx<'_>, now: Timestamp, limit: usize) -> Result<bool, Fail> {
    let at = now.as_millis();
    if is_due(&mut tx.rounds.looked_at, at, LOOK_EVERY_MS)
        && let Some(live) = tx.live
    {
        find_dead(tx.conn, live)?;
    }
    if !is_due(&mut tx.rounds.forgot_at, at, FORGET_EVERY_MS) {
        return Ok(false);
    }
    forget_workers(tx.conn, at)?;
    if is_due(&mut tx.rounds.tidied_at, at, TIDY_EVERY_MS)
        && let Some(live) = tx.live
    {
        tidy(tx.conn, live)?;
    }
    tx.conn.prepare_cached("DELETE FROM command WHERE expires <= ?1")?.execute([at])?;
    let old = now.minus(std::time::Duration::from_secs(u64::from(STATS_DAYS) * 86_400));
    tx.conn
        .prepare_cached("DELETE FROM schedule WHERE paused_since IS NULL AND expires <= ?1")?
        .execute([old.as_millis()])?;
    forget_sessions(tx, now)?;
    give_pages_back(tx.conn)?;
    empty_removed(tx.conn, limit)
}

/// Gives unused pages back to the file system, a few in each round, if there are a great many. Some are
/// kept: a queue that was empty is filled again.
fn give_pages_back(conn: &Connection) -> Result<(), Fail> {
    let unused: i64 =
        conn.prepare_cached("PRAGMA freelist_count")?.query_row([], |row| row.get(0))?;
    if unused > PAGES_KEPT {
        let mut vacuum =
            conn.prepare_cached(&format!("PRAGMA incremental_vacuum({PAGES_PER_ROUND})"))?;
        let mut rows = vacuum.query([])?;
        while rows.next()?.is_some() {}
    }
    Ok(())
}

/// Marks the workers whose process is gone. Their leases are taken back by the sweeps of the queues.
fn find_dead(conn: &Connection, live: &Live) -> Result<(), Fail> {
    let mut select = conn.prepare_cached(
        "SELECT DISTINCT instance FROM worker WHERE instance IS NOT NULL AND dead = 0",
    )?;
    let instances =
        select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    for instance in instances {
        if !live.is_mine(&instance) && live.look(&instance) == Sign::Dead {
            tracing::warn!(instance, "a worker's process is gone, its tasks are taken back");
            conn.prepare_cached("UPDATE worker SET dead = 1 WHERE instance = ?1")?
                .execute([&instance])?;
        }
    }
    Ok(())
}

/// Removes lock files of processes of which no worker is known any more.
fn tidy(conn: &Connection, live: &Live) -> Result<(), Fail> {
    let mut known =
        conn.prepare_cached("SELECT instance FROM worker WHERE instance IS NOT NULL")?;
    let known =
        known.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    live.tidy(PER_ROUND, |instance| known.iter().any(|known| known == instance));
    Ok(())
}

/// Forgets workers that are gone, dead or silent, as soon as they hold no lease: until then the row
/// keeps their token from being given to somebody else.
fn forget_workers(conn: &Connection, now: i64) -> Result<(), Fail> {
    let mut select = conn.prepare_cached(
        "SELECT name, token FROM worker WHERE gone = 1 OR dead = 1 OR expires <= ?1 LIMIT ?2",
    )?;
    let rows = select.query_map(params![now, PER_ROUND.cast_signed()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?))
    })?;
    for (name, token) in rows.collect::<rusqlite::Result<Vec<_>>>()? {
        if !holds_lease(conn, token)? {
            conn.prepare_cached("DELETE FROM worker WHERE name = ?1")?.execute([&name])?;
            conn.prepare_cached("DELETE FROM command WHERE token = ?1")?.execute([token])?;
        }
    }
    Ok(())
}

/// True if tasks or sets of any queue are leased to a token. Reads all active tasks: they are as many
/// as the workers have slots.
pub(crate) fn holds_lease(conn: &Connection, token: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM queue CROSS JOIN task ON task.queue = queue.qid \
           AND task.state = 1 WHERE queue.active > 0 AND task.token = ?1) \
         OR EXISTS (SELECT 1 FROM aggregation WHERE token = ?1)",
    )?
    .query_row([token], |row| row.get(0))
}

fn forget_sessions(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Fail> {
    let from = tx.rounds.session;
    let to: Option<i64> = tx
        .conn
        .prepare_cached(
            "SELECT max(rid) FROM (SELECT rid FROM session WHERE rid > ?1 ORDER BY rid LIMIT ?2)",
        )?
        .query_row([from, SESSIONS_PER_ROUND], |row| row.get(0))?;
    let Some(to) = to else {
        tx.rounds.session = 0;
        return Ok(());
    };
    tx.conn
        .prepare_cached("DELETE FROM session WHERE rid > ?1 AND rid <= ?2 AND touched <= ?3")?
        .execute([from, to, now.minus(SESSION_TTL).as_millis()])?;
    let is_last = tx
        .conn
        .prepare_cached("SELECT NOT EXISTS (SELECT 1 FROM session WHERE rid > ?1)")?
        .query_row([to], |row| row.get::<_, bool>(0))?;
    tx.rounds.session = if is_last { 0 } else { to };
    Ok(())
}

/// Deletes rows of removed queues; true if some are left. The tasks come last: until they are gone the
/// queue's row stays, so that nothing is forgotten if this stops half-way.
pub(crate) fn empty_removed(conn: &Connection, limit: usize) -> Result<bool, Fail> {
    let mut select = conn.prepare_cached("SELECT qid FROM queue WHERE name IS NULL LIMIT 1")?;
    let removed =
        select.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
    let Some(qid) = removed.first() else { return Ok(false) };
    let limit = limit.cast_signed();
    for sql in EMPTY {
        if conn.prepare_cached(sql)?.execute(params![qid, limit])? > 0 {
            return Ok(true);
        }
    }
    conn.prepare_cached("DELETE FROM queue WHERE qid = ?1")?.execute([qid])?;
    Ok(true)
}

const EMPTY: [&str; 8] = [
    "DELETE FROM unique_lock WHERE queue = ?1 AND key IN \
     (SELECT key FROM unique_lock WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM once WHERE queue = ?1 AND key IN (SELECT key FROM once WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM grp WHERE queue = ?1 AND name IN (SELECT name FROM grp WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM aggregation WHERE sid IN (SELECT sid FROM aggregation WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM day WHERE queue = ?1 AND day IN (SELECT day FROM day WHERE queue = ?1 LIMIT ?2)",
    "DELETE FROM session WHERE rid IN (SELECT rid FROM session WHERE queue = ?1 LIMIT ?2)",
    // A queue with a batch on its way is not removed: what is left is the name of its session.
    "DELETE FROM move WHERE queue IN (SELECT queue FROM move WHERE queue = ?1 LIMIT ?2)",
    // Event::DeleteByHand.
    "DELETE FROM task WHERE rid IN (SELECT rid FROM task WHERE queue = ?1 LIMIT ?2)",
];
