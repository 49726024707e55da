//! Signs of life of workers and schedulers, and what is asked of them.

use outlast_core::broker::WorkerBeat;
use outlast_core::inspect::{ScheduleState, ScheduleView, TickRecord, WorkerStatus};
use outlast_core::limits::{BEAT_RUNNING_MAX, ENDED_LISTED, LEASE_TOKEN_MAX, TICKS_KEPT};
use outlast_core::{
    Beat, BeatReply, BrokerError, Command, Kind, LeaseToken, QueueName, ScheduleName, TaskId,
    Timestamp,
};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::error::Fail;
use crate::housekeeping::holds_lease;
use crate::writer::Tx;

/// Commands that may wait for one worker. They are asked for by people; whoever reaches this has a
/// worker that does not listen, and is told so.
const COMMANDS_MAX: i64 = 10_000;

/// How long a command waits for a worker that never beats.
const COMMAND_TTL_MS: i64 = 3_600_000;

/// Commands handed out by one beat; the next one brings the rest.
const COMMANDS_PER_BEAT: i64 = 1000;

/// A command as it is stored. The names are stored: never change them.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stored {
    Cancel { queue: QueueName, id: TaskId },
    Quiet,
    Stop,
}

/// Takes a sign of life; see [`outlast_core::Broker::beat`].
pub(crate) fn beat(tx: &mut Tx<'_>, now: Timestamp, beat: &Beat) -> Result<BeatReply, Fail> {
    let expires = now.plus(beat.ttl).as_millis();
    let mut reply = BeatReply::default();
    if let Some(worker) = &beat.worker {
        reply.token = worker_beat(tx, now, expires, worker)?;
        if let Some(token) = reply.token {
            reply.commands = commands(tx.conn, token, worker.seen)?;
        }
    }
    for schedule in &beat.schedules {
        upsert_schedule(tx.conn, schedule, expires)?;
    }
    let listed_until = now.plus(ENDED_LISTED).as_millis();
    for name in &beat.ended {
        end_schedule(tx.conn, name, listed_until)?;
    }
    for tick in &beat.ticks {
        record_tick(tx.conn, tick)?;
    }
    for schedule in &beat.schedules {
        reply.schedules.push(schedule_state(tx.conn, &schedule.name)?);
    }
    Ok(reply)
}

fn worker_beat(
    tx: &Tx<'_>,
    now: Timestamp,
    expires: i64,
    worker: &WorkerBeat,
) -> Result<Option<LeaseToken>, Fail> {
    let name = worker.view.id.as_str();
    let known: Option<u32> = tx
        .conn
        .prepare_cached("SELECT token FROM worker WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    if worker.view.status == WorkerStatus::Gone {
        // The row stays until its leases are settled or taken back, see `housekeeping`.
        tx.conn
            .prepare_cached("UPDATE worker SET gone = 1, expires = ?2 WHERE name = ?1")?
            .execute(params![name, now.as_millis()])?;
        return Ok(known.and_then(LeaseToken::new).or(worker.token));
    }
    let token = choose_token(tx.conn, name, known, worker.token)?;
    let view = view_text(worker)?;
    let instance = instance(tx)?;
    tx.conn.prepare_cached(UPSERT_WORKER)?.execute(params![
        name,
        token.get(),
        instance,
        expires,
        view
    ])?;
    Ok(Some(token))
}

const UPSERT_WORKER: &str = "INSERT INTO worker (name, token, instance, expires, view) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT (name) DO UPDATE SET token = excluded.token, \
     instance = excluded.instance, expires = excluded.expires, view = excluded.view, \
     dead = 0, gone = 0";

fn view_text(worker: &WorkerBeat) -> Result<String, BrokerError> {
    let mut view = worker.view.clone();
    view.running.truncate(BEAT_RUNNING_MAX);
    serde_json::to_string(&view).map_err(|error| {
        BrokerError::rejected("could not store the worker's view").with_source(error)
    })
}

/// The lock file that proves this process's life, made by its first beat.
fn instance(tx: &Tx<'_>) -> Result<Option<String>, Fail> {
    let Some(live) = tx.live else { return Ok(None) };
    let fresh: String = tx
        .conn
        .prepare_cached("SELECT lower(hex(randomblob(16)))")?
        .query_row([], |row| row.get(0))?;
    Ok(live.instance(&fresh))
}

/// The token of a worker: the one it has, unless somebody else got it while it was silent.
fn choose_token(
    conn: &Connection,
    name: &str,
    known: Option<u32>,
    asked: Option<LeaseToken>,
) -> Result<LeaseToken, Fail> {
    for token in [asked, known.and_then(LeaseToken::new)].into_iter().flatten() {
        let owner: Option<String> = conn
            .prepare_cached("SELECT name FROM worker WHERE token = ?1")?
            .query_row([token.get()], |row| row.get(0))
            .optional()?;
        if owner.is_none_or(|owner| owner == name) {
            return Ok(token);
        }
    }
    fresh_token(conn)
}

/// The next token that nobody has and no lease carries.
fn fresh_token(conn: &Connection) -> Result<LeaseToken, Fail> {
    let mut number: u32 = conn
        .prepare_cached("SELECT value FROM counter WHERE name = 'token'")?
        .query_row([], |row| row.get(0))?;
    for _ in 0..LEASE_TOKEN_MAX {
        number = if number >= LEASE_TOKEN_MAX { 1 } else { number + 1 };
        let taken: bool = conn
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM worker WHERE token = ?1)")?
            .query_row([number], |row| row.get(0))?;
        if let Some(token) = LeaseToken::new(number)
            && !taken
            && !holds_lease(conn, i64::from(number))?
        {
            conn.prepare_cached("UPDATE counter SET value = ?1 WHERE name = 'token'")?
                .execute([number])?;
            conn.prepare_cached("DELETE FROM command WHERE token = ?1")?.execute([number])?;
            return Ok(token);
        }
    }
    Err(BrokerError::new(Kind::Busy, "could not give out a token: all are in use").into())
}

fn commands(conn: &Connection, token: LeaseToken, seen: u64) -> Result<Vec<(u64, Command)>, Fail> {
    let token = token.get();
    let seen = i64::try_from(seen).unwrap_or(i64::MAX);
    conn.prepare_cached("DELETE FROM command WHERE token = ?1 AND number <= ?2")?
        .execute(params![token, seen])?;
    let mut select = conn.prepare_cached(
        "SELECT number, body FROM command WHERE token = ?1 ORDER BY number LIMIT ?2",
    )?;
    let rows = select.query_map(params![token, COMMANDS_PER_BEAT], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?))
    })?;
    let mut commands = Vec::new();
    for row in rows {
        let (number, body) = row?;
        // What cannot be read was written by a newer program: it waits for its worker.
        if let Ok(stored) = serde_json::from_str(&body) {
            commands.push((number.unsigned_abs(), command(stored)));
        }
    }
    if !commands.is_empty() {
        conn.prepare_cached("UPDATE command SET delivered = 1 WHERE token = ?1 AND delivered = 0")?
            .execute([token])?;
    }
    Ok(commands)
}

fn command(stored: Stored) -> Command {
    match stored {
        Stored::Cancel { queue, id } => Command::Cancel { queue, id },
        Stored::Quiet => Command::Quiet,
        Stored::Stop => Command::Stop,
    }
}

/// Writes a command for the holder of a token, once if it waits already, and wakes it.
pub(crate) fn post(
    tx: &mut Tx<'_>,
    token: LeaseToken,
    command: &Command,
    now: Timestamp,
) -> Result<(), Fail> {
    let body = body(command)?;
    let (waiting, same): (i64, bool) = tx
        .conn
        .prepare_cached(
            "SELECT count(*), coalesce(max(body = ?2 AND delivered = 0), 0) FROM command \
             WHERE token = ?1",
        )?
        .query_row(params![token.get(), body], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if waiting >= COMMANDS_MAX {
        let why = format!("could not tell a worker: {waiting} commands wait for it already");
        return Err(Fail::Abort(BrokerError::new(Kind::Busy, why)));
    }
    if !same {
        insert_command(tx.conn, token, now.as_millis() + COMMAND_TTL_MS, &body)?;
    }
    tx.news.command(token);
    Ok(())
}

fn body(command: &Command) -> Result<String, BrokerError> {
    let stored = match command {
        Command::Cancel { queue, id } => Stored::Cancel { queue: queue.clone(), id: id.clone() },
        Command::Quiet => Stored::Quiet,
        Command::Stop => Stored::Stop,
        other => {
            let why = format!("command {other:?} is unknown to this broker");
            return Err(BrokerError::rejected(why));
        }
    };
    serde_json::to_string(&stored)
        .map_err(|error| BrokerError::rejected("could not store a command").with_source(error))
}

fn insert_command(
    conn: &Connection,
    token: LeaseToken,
    expires: i64,
    body: &str,
) -> rusqlite::Result<()> {
    let number: i64 = conn
        .prepare_cached(
            "UPDATE counter SET value = value + 1 WHERE name = 'command' RETURNING value",
        )?
        .query_row([], |row| row.get(0))?;
    conn.prepare_cached(
        "INSERT INTO command (number, token, expires, body) VALUES (?1, ?2, ?3, ?4)",
    )?
    .execute(params![number, token.get(), expires, body])?;
    Ok(())
}

fn upsert_schedule(conn: &Connection, view: &ScheduleView, expires: i64) -> Result<(), Fail> {
    let text = serde_json::to_string(view).map_err(|error| {
        BrokerError::rejected(format!("could not store schedule {:?}", view.name))
            .with_source(error)
    })?;
    conn.prepare_cached(
        "INSERT INTO schedule (name, view, expires) VALUES (?1, ?2, ?3) ON CONFLICT (name) \
         DO UPDATE SET view = excluded.view, expires = excluded.expires",
    )?
    .execute(params![view.name.as_str(), text, expires])?;
    Ok(())
}

/// It is listed for a moment longer at most.
fn end_schedule(conn: &Connection, name: &ScheduleName, listed_until: i64) -> rusqlite::Result<()> {
    conn.prepare_cached("UPDATE schedule SET expires = min(expires, ?2) WHERE name = ?1")?
        .execute(params![name.as_str(), listed_until])?;
    Ok(())
}

fn record_tick(conn: &Connection, tick: &TickRecord) -> Result<(), Fail> {
    let name = tick.schedule.as_str();
    let at = tick.tick.as_millis();
    let added = conn
        .prepare_cached(
            "INSERT OR IGNORE INTO tick (schedule, tick, task, enqueued_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            name,
            at,
            tick.task.as_ref().map(|id| id.as_str()),
            tick.enqueued_at.as_millis()
        ])?;
    if added == 0 {
        return Ok(());
    }
    conn.prepare_cached(
        "INSERT INTO schedule (name, last_tick, expires) VALUES (?1, ?2, ?3) ON CONFLICT (name) \
         DO UPDATE SET last_tick = max(coalesce(last_tick, ?2), ?2)",
    )?
    .execute(params![name, at, tick.enqueued_at.as_millis()])?;
    conn.prepare_cached(
        "DELETE FROM tick WHERE schedule = ?1 AND tick < (SELECT tick FROM tick \
         WHERE schedule = ?1 ORDER BY tick DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![name, TICKS_KEPT.cast_signed() - 1])?;
    Ok(())
}

fn schedule_state(conn: &Connection, name: &ScheduleName) -> Result<ScheduleState, Fail> {
    let found = conn
        .prepare_cached("SELECT paused_since, last_tick FROM schedule WHERE name = ?1")?
        .query_row([name.as_str()], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
        })
        .optional()?;
    let (paused_since, last_tick) = found.unwrap_or((None, None));
    Ok(ScheduleState {
        name: name.clone(),
        paused_since: paused_since.map(Timestamp::from_millis),
        last_tick: last_tick.map(Timestamp::from_millis),
    })
}
