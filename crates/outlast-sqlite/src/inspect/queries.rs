//! Queues, tasks, groups and statistics.

use outlast_core::limits::{PAGE_MAX, STATS_DAYS, check_count};
use outlast_core::{
    BrokerError, DayStats, GroupName, GroupStats, Page, PageRequest, QueueName, QueueStats,
    Selector, TaskRecord, TaskState, Timestamp,
};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::select::{self, At, Found, Walk};
use crate::error::Fail;
use crate::sweep;

/// Rows one page looks at: about a second of reading, which holds up nobody but the one who asks. A
/// page that ends here may be short and has a cursor to go on.
const LOOKS_MAX: usize = 500_000;

const QUEUES: &str = "SELECT qid, name, active, pending, aggregating, scheduled, retry, archived, \
     completed, queue.processed, queue.failed, paused_since, \
     (SELECT count(*) FROM grp WHERE grp.queue = qid), \
     (SELECT pending_since FROM task WHERE task.queue = qid AND state = 2 \
        ORDER BY score, rid LIMIT 1), \
     coalesce(day.processed, 0), coalesce(day.failed, 0) \
     FROM queue LEFT JOIN day ON day.queue = qid AND day.day = ?1 \
     WHERE listed = 1 AND (?2 IS NULL OR name = ?2) AND name IS NOT NULL ORDER BY name";

/// All queues that are listed, or the one of this name.
pub(super) fn queues(
    conn: &Connection,
    only: Option<&QueueName>,
    now: Timestamp,
) -> Result<Vec<QueueStats>, Fail> {
    let mut select = conn.prepare_cached(QUEUES)?;
    let bounds = params![now.as_days(), only.map(|name| name.as_str())];
    let rows = select.query_map(bounds, |row| Ok((row.get::<_, i64>(0)?, stats(row)?)))?;
    let mut queues = Vec::new();
    for row in rows {
        let (qid, mut stats) = row?;
        stats.next_due = sweep::next_due(conn, qid)?.map(Timestamp::from_millis);
        queues.push(stats);
    }
    Ok(queues)
}

fn stats(row: &Row<'_>) -> rusqlite::Result<QueueStats> {
    let count = |at: usize| row.get::<_, i64>(at).map(|count| u64::try_from(count).unwrap_or(0));
    let moment = |at: usize| row.get::<_, Option<i64>>(at).map(|at| at.map(Timestamp::from_millis));
    let mut stats = QueueStats::empty(QueueName::stored(&row.get::<_, String>(1)?));
    for (offset, state) in TaskState::ALL.into_iter().enumerate() {
        stats.set_count(state, count(2 + offset)?);
    }
    stats.processed_total = count(9)?;
    stats.failed_total = count(10)?;
    stats.paused_since = moment(11)?;
    stats.groups = count(12)?;
    stats.oldest_pending = moment(13)?;
    stats.processed_today = count(14)?;
    stats.failed_today = count(15)?;
    Ok(stats)
}

/// The last days of a queue, newest first. Days without a run are zero.
pub(super) fn history(
    conn: &Connection,
    queue: &QueueName,
    now: Timestamp,
    days: u32,
) -> Result<Vec<DayStats>, Fail> {
    let qid = select::qid(conn, queue)?;
    let mut select =
        conn.prepare_cached("SELECT processed, failed FROM day WHERE queue = ?1 AND day = ?2")?;
    let today = now.as_days();
    let mut history = Vec::new();
    for back in 0..i64::from(days.min(STATS_DAYS)) {
        let day = today - back;
        let found: Option<(i64, i64)> =
            select.query_row(params![qid, day], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let (processed, failed) = found.unwrap_or_default();
        history.push(DayStats {
            queue: queue.clone(),
            date: Timestamp::from_millis(day.saturating_mul(86_400_000)).date(),
            processed: processed.unsigned_abs(),
            failed: failed.unsigned_abs(),
        });
    }
    Ok(history)
}

/// The groups of a queue with members, by name.
pub(super) fn groups(conn: &Connection, queue: &QueueName) -> Result<Vec<GroupStats>, Fail> {
    let mut select = conn.prepare_cached(
        "SELECT name, waiting + in_set FROM grp \
         WHERE queue = (SELECT qid FROM queue WHERE name = ?1) ORDER BY name",
    )?;
    let rows = select.query_map([queue.as_str()], |row| {
        Ok(GroupStats {
            group: GroupName::stored(&row.get::<_, String>(0)?),
            size: u64::try_from(row.get::<_, i64>(1)?).unwrap_or(0),
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// A page of tasks.
pub(super) fn tasks(
    conn: &Connection,
    queue: &QueueName,
    select: &Selector,
    page: &PageRequest,
    now: Timestamp,
) -> Result<Page<TaskRecord>, Fail> {
    check_count("page limit", page.limit, PAGE_MAX)?;
    let limit = page.limit;
    let from = At::parse(page.cursor.as_ref())?;
    let Some(qid) = select::qid(conn, queue)? else {
        check(select)?;
        return Ok(Page { items: Vec::new(), next: None });
    };
    let walk = Walk { queue, qid, select, limit, looks_max: LOOKS_MAX, now };
    let Found { tasks, next } = match (check(select)?, select.ids.is_empty()) {
        (Some(state), true) => walk.state(conn, state, from)?,
        _ => walk.named(conn, from)?,
    };
    let items = tasks.into_iter().map(|stored| stored.task).collect();
    Ok(Page { items, next: next.map(At::cursor) })
}

/// The state of a selection; one that names neither a state nor ids is refused.
pub(super) fn check(select: &Selector) -> Result<Option<TaskState>, BrokerError> {
    if select.state.is_none() && select.ids.is_empty() {
        return Err(BrokerError::rejected("selection names neither a state nor ids"));
    }
    Ok(select.state)
}
