//! Workers and schedules: who is there, and what is asked of them.

use outlast_core::inspect::{ScheduleState, TickRecord};
use outlast_core::limits::{PAGE_MAX, check_count};
use outlast_core::{
    Command, LeaseToken, Page, PageRequest, ScheduleControl, ScheduleName, ScheduleView, TaskId,
    Timestamp, WorkerView,
};
use rusqlite::{Connection, OptionalExtension, params};

use super::select::At;
use crate::beat;
use crate::error::Fail;
use crate::writer::Tx;

/// The workers whose beat holds, by name. A view that cannot be read was written by a newer program
/// and is left out.
pub(super) fn workers(conn: &Connection, now: Timestamp) -> Result<Vec<WorkerView>, Fail> {
    let mut select = conn.prepare_cached(
        "SELECT view FROM worker WHERE expires > ?1 AND gone = 0 AND dead = 0 ORDER BY name",
    )?;
    let rows = select.query_map([now.as_millis()], |row| row.get::<_, String>(0))?;
    let mut workers = Vec::new();
    for row in rows {
        workers.extend(serde_json::from_str::<WorkerView>(&row?).ok());
    }
    Ok(workers)
}

/// Writes a command for a worker; false if no such worker is alive.
pub(super) fn tell(
    tx: &mut Tx<'_>,
    worker: &str,
    command: &Command,
    now: Timestamp,
) -> Result<bool, Fail> {
    let token: Option<u32> = tx
        .conn
        .prepare_cached(
            "SELECT token FROM worker WHERE name = ?1 AND expires > ?2 AND gone = 0 AND dead = 0",
        )?
        .query_row(params![worker, now.as_millis()], |row| row.get(0))
        .optional()?;
    let Some(token) = token.and_then(LeaseToken::new) else { return Ok(false) };
    beat::post(tx, token, command, now)?;
    Ok(true)
}

/// The schedules whose beat holds, and those that are paused, by name. One that was paused before any
/// scheduler described it has nothing to show yet.
pub(super) fn schedules(
    conn: &Connection,
    now: Timestamp,
) -> Result<Vec<(ScheduleView, ScheduleState)>, Fail> {
    let mut select = conn.prepare_cached(
        "SELECT view, paused_since, last_tick FROM schedule WHERE view IS NOT NULL \
         AND (expires > ?1 OR paused_since IS NOT NULL) ORDER BY name",
    )?;
    let rows = select.query_map([now.as_millis()], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, Option<i64>>(2)?))
    })?;
    let mut schedules = Vec::new();
    for row in rows {
        let (view, paused_since, last_tick) = row?;
        let Ok(view) = serde_json::from_str::<ScheduleView>(&view) else { continue };
        let state = ScheduleState {
            name: view.name.clone(),
            paused_since: paused_since.map(Timestamp::from_millis),
            last_tick: last_tick.map(Timestamp::from_millis),
        };
        schedules.push((view, state));
    }
    Ok(schedules)
}

/// What a schedule has enqueued, newest first.
pub(super) fn ticks(
    conn: &Connection,
    schedule: &ScheduleName,
    page: &PageRequest,
) -> Result<Page<TickRecord>, Fail> {
    check_count("page limit", page.limit, PAGE_MAX)?;
    let limit = page.limit;
    let before = match &page.cursor {
        None => i64::MAX,
        Some(_) => At::parse(page.cursor.as_ref())?.key,
    };
    let mut select = conn.prepare_cached(
        "SELECT tick, task, enqueued_at FROM tick WHERE schedule = ?1 AND tick < ?2 \
         ORDER BY tick DESC LIMIT ?3",
    )?;
    let one_more = limit.cast_signed() + 1;
    let rows = select.query_map(params![schedule.as_str(), before, one_more], |row| {
        Ok(TickRecord {
            schedule: schedule.clone(),
            tick: Timestamp::from_millis(row.get(0)?),
            task: row.get::<_, Option<String>>(1)?.map(|id| TaskId::stored(&id)),
            enqueued_at: Timestamp::from_millis(row.get(2)?),
        })
    })?;
    let mut items = rows.collect::<rusqlite::Result<Vec<_>>>()?;
    let more = items.len() > limit;
    items.truncate(limit);
    let last = items.last().filter(|_| more);
    let next = last.map(|last| At { key: last.tick.as_millis(), rid: 0 }.cursor());
    Ok(Page { items, next })
}

/// Pauses or resumes a schedule; false if it was so already. Ticks that passed during a pause are not
/// caught up, so the last tick moves to the moment of the resume.
pub(super) fn control_schedule(
    conn: &Connection,
    schedule: &ScheduleName,
    control: ScheduleControl,
    now: Timestamp,
) -> Result<bool, Fail> {
    let changed = match control {
        ScheduleControl::Pause => conn
            .prepare_cached(
                "INSERT INTO schedule (name, paused_since, expires) VALUES (?1, ?2, ?2) \
                 ON CONFLICT (name) DO UPDATE SET paused_since = excluded.paused_since \
                 WHERE paused_since IS NULL",
            )?
            .execute(params![schedule.as_str(), now.as_millis()])?,
        ScheduleControl::Resume => conn
            .prepare_cached(
                "UPDATE schedule SET paused_since = NULL, \
                 last_tick = max(coalesce(last_tick, ?2), ?2) \
                 WHERE name = ?1 AND paused_since IS NOT NULL",
            )?
            .execute(params![schedule.as_str(), now.as_millis()])?,
    };
    Ok(changed > 0)
}
