//! What is copied and not moved, because it is the same however often it is done: `once` keys, and what is
//! known of schedules.

use outlast_core::inspect::ScheduleState;
use outlast_core::limits::BATCH_TASKS_MAX;
use outlast_core::porter::OnceKey;
use outlast_core::{Cursor, Page, QueueName, ScheduleName, TaskId, Timestamp};
use rusqlite::{Connection, params};

use crate::error::Fail;
use crate::writer::Tx;

const ONCE: &str = "SELECT key, owner, expires FROM once WHERE queue = \
     (SELECT qid FROM queue WHERE name = ?1) AND expires > ?2 AND key > ?3 ORDER BY key LIMIT ?4";

/// A page of the `once` keys that hold; the cursor is the last key.
pub(super) fn once_keys(
    conn: &Connection,
    queue: &QueueName,
    cursor: Option<&Cursor>,
    now: Timestamp,
) -> Result<Page<OnceKey>, Fail> {
    let after = cursor.map_or("", |cursor| cursor.0.as_str());
    let limit = BATCH_TASKS_MAX.cast_signed();
    let bounds = params![queue.as_str(), now.as_millis(), after, limit];
    let mut select = conn.prepare_cached(ONCE)?;
    let rows = select.query_map(bounds, |row| {
        Ok(OnceKey {
            key: row.get(0)?,
            owner: TaskId::stored(&row.get::<_, String>(1)?),
            until: Timestamp::from_millis(row.get(2)?),
        })
    })?;
    let items = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let last = items.last().filter(|_| items.len() == BATCH_TASKS_MAX);
    let next = last.map(|last| Cursor(last.key.clone()));
    Ok(Page { items, next })
}

const HOLD: &str = "INSERT INTO once (queue, key, owner, expires) VALUES (?1, ?2, ?3, ?4) \
     ON CONFLICT DO UPDATE SET owner = excluded.owner, expires = excluded.expires \
     WHERE once.expires <= ?5";

/// Takes over the keys that nobody holds.
pub(super) fn hold_once(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    keys: &[OnceKey],
    now: Timestamp,
) -> Result<(), Fail> {
    let q = tx.tally.open(tx.conn, queue)?;
    let qid = tx.tally.qid(q);
    let mut hold = tx.conn.prepare_cached(HOLD)?;
    for key in keys.iter().filter(|key| key.until > now) {
        let (owner, until) = (key.owner.as_str(), key.until.as_millis());
        hold.execute(params![qid, key.key, owner, until, now.as_millis()])?;
    }
    Ok(())
}

/// What is known of every schedule.
pub(super) fn schedule_states(conn: &Connection) -> Result<Vec<ScheduleState>, Fail> {
    let mut select = conn.prepare_cached(
        "SELECT name, paused_since, last_tick FROM schedule \
         WHERE paused_since IS NOT NULL OR last_tick IS NOT NULL ORDER BY name",
    )?;
    let moment = |at: Option<i64>| at.map(Timestamp::from_millis);
    let rows = select.query_map([], |row| {
        Ok(ScheduleState {
            name: ScheduleName::stored(&row.get::<_, String>(0)?),
            paused_since: moment(row.get(1)?),
            last_tick: moment(row.get(2)?),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}
