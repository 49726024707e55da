//! Sleeping until there is something to do. The order is what matters: register first, then look, then
//! sleep. Whatever commits after the registration is told, whatever committed before is seen.

use std::time::Duration;

use outlast_core::{BrokerError, GroupLooks, Interest, LeaseToken, QueueName, Timestamp, Woke};
use rusqlite::{Connection, OptionalExtension};
use tokio::time::Instant;

use crate::broker::SqliteBroker;
use crate::error::Fail;
use crate::hub::Waiter;
use crate::{groups, sweep, watch};

/// Between two looks of a waiter that other processes' commits make look: a foreign queue under load
/// shall not cost this process more than a fraction of a core.
const LOOK_EVERY: Duration = Duration::from_millis(4);

/// The longest sleep between two looks: a process that is killed between its commit and its ring tells
/// nobody.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What a look has found.
#[derive(Debug, Default)]
struct Seen {
    woke: Woke,
    /// The earliest due time, and whose.
    next: Option<(i64, QueueName)>,
}

/// Waits; see [`outlast_core::Broker::wait`].
pub(crate) async fn wait(
    broker: &SqliteBroker,
    interest: &Interest,
    now: Timestamp,
    at_most: Duration,
) -> Result<Woke, BrokerError> {
    let waiter = broker.hub().register(interest);
    let watched = broker.watch();
    // Nobody tells of new groups.
    let look_every = broker.group_looks().every(&interest.queues).unwrap_or(SLEEP_MAX);
    let began = Instant::now();
    loop {
        let seen = look(broker, interest, now.plus(began.elapsed())).await?;
        let looked = Instant::now();
        if seen.woke != Woke::default() {
            return Ok(seen.woke);
        }
        let left = at_most.saturating_sub(began.elapsed());
        let until_due = seen
            .next
            .as_ref()
            .map(|(at, _)| Timestamp::from_millis(*at).since(now).saturating_sub(began.elapsed()));
        let sleep = until_due.unwrap_or(SLEEP_MAX).min(SLEEP_MAX).min(look_every).min(left);
        match rest(broker, &waiter, sleep, watched).await {
            Rested::Told(woke) => return Ok(woke),
            // Looking too often is what a busy neighbour would make us do.
            Rested::Look => tokio::time::sleep_until(looked + LOOK_EVERY.min(left)).await,
            Rested::Over if until_due.is_some_and(|due| due == sleep) => {
                let queues = seen.next.into_iter().map(|(_, queue)| queue).collect();
                return Ok(Woke { queues, commands: false });
            }
            Rested::Over if sleep == left => return Ok(Woke::default()),
            Rested::Over => {}
        }
    }
}

enum Rested {
    Told(Woke),
    Look,
    Over,
}

/// Sleeps until something is told or the time is over.
async fn rest(broker: &SqliteBroker, waiter: &Waiter, sleep: Duration, watched: bool) -> Rested {
    let end = Instant::now() + sleep;
    loop {
        let step = if watched { end } else { end.min(Instant::now() + watch::POLL) };
        match tokio::time::timeout_at(step, waiter.told()).await {
            Ok(told) if !told.ready.is_empty() || told.commands => {
                return Rested::Told(Woke { queues: told.ready, commands: told.commands });
            }
            Ok(told) if told.look => return Rested::Look,
            Ok(_) => {}
            Err(_) if step == end => return Rested::Over,
            Err(_) => broker.peek(),
        }
    }
}

async fn look(
    broker: &SqliteBroker,
    interest: &Interest,
    now: Timestamp,
) -> Result<Seen, BrokerError> {
    let (interest, group_looks) = (interest.clone(), broker.group_looks().clone());
    let look = move |conn: &Connection| seen(conn, &interest, &group_looks, now);
    broker.read("could not look for work", look).await
}

fn seen(
    conn: &Connection,
    interest: &Interest,
    group_looks: &GroupLooks,
    now: Timestamp,
) -> Result<Seen, Fail> {
    let mut seen = Seen::default();
    for queue in &interest.queues {
        let Some((qid, pending)) = open_queue(conn, queue)? else { continue };
        let group_look = match group_looks.next(queue, now) {
            Some(at) if groups::any_waits(conn, qid)? => Some(at.as_millis()),
            _ => None,
        };
        let due = [sweep::next_due(conn, qid)?, group_look].into_iter().flatten().min();
        if pending > 0 || due.is_some_and(|due| due <= now.as_millis()) {
            seen.woke.queues.push(queue.clone());
        } else if let Some(due) = due
            && seen.next.as_ref().is_none_or(|(earliest, _)| due < *earliest)
        {
            seen.next = Some((due, queue.clone()));
        }
    }
    if let Some(token) = interest.token {
        seen.woke.commands = has_command(conn, token)?;
    }
    Ok(seen)
}

/// A queue that is not paused, and how many tasks are pending in it.
fn open_queue(conn: &Connection, queue: &QueueName) -> rusqlite::Result<Option<(i64, i64)>> {
    conn.prepare_cached("SELECT qid, pending FROM queue WHERE name = ?1 AND paused_since IS NULL")?
        .query_row([queue.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

fn has_command(conn: &Connection, token: LeaseToken) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM command WHERE token = ?1 AND delivered = 0)")?
        .query_row([token.get()], |row| row.get(0))
}
