//! `outlast outage`: how the broker is now, and what waits for it on this machine.

use std::time::Duration;

use clap::Args;
use outlast::broker::Role;
use outlast::survive::{Spool, Store, Waiting};
use outlast::{Connection, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use super::{Context, open};
use crate::config::masked;
use crate::exit::{CliError, Exit, Outcome};
use crate::output;

/// How long a drain is watched: several batches of one that has just begun, at 500 items a second.
const WATCH: Duration = Duration::from_millis(600);

/// Nothing to say yet but what every command takes.
#[derive(Args, Debug)]
pub(crate) struct OutageArgs {}

/// What is printed.
#[derive(Debug, Serialize)]
struct Outage {
    broker: String,
    /// `up` or `down`.
    state: &'static str,
    reason: Option<String>,
    /// Tasks in the outbox.
    stored: u64,
    stored_bytes: u64,
    oldest: Option<Timestamp>,
    /// Outcomes in the journal.
    journaled: u64,
    /// Items a second that leave the file, whoever delivers them; nothing if none wait.
    drain_per_second: Option<f64>,
    /// How long the rest takes at that rate; nothing if none leave.
    eta_seconds: Option<f64>,
    quarantined: u64,
    /// The file in which they are.
    spool: Option<String>,
}

/// Exit 0 if the broker takes writes, else 4: a script can ask.
pub(crate) async fn run(context: &Context, _: &OutageArgs) -> Outcome {
    let config = context.load(&context.global.asked())?;
    let reason = match open(&config).await {
        Ok(connection) => why_down(&connection).await,
        Err(error) if error.exit() == Exit::Unavailable => Some(crate::exit::chain(&error)),
        Err(error) => return Err(error),
    };
    let spool = match config.spool {
        Some(_) => Some(context.spool().await?),
        None => None,
    };
    let (outbox, journal) = match &spool {
        Some(spool) => (waiting(spool, Store::Outbox)?, waiting(spool, Store::Journal)?),
        None => (Waiting::default(), Waiting::default()),
    };
    let drain_per_second = match &spool {
        Some(spool) if outbox.items + journal.items > 0 => Some(drain_rate(spool).await?),
        _ => None,
    };
    let left = (outbox.items + journal.items) as f64;
    let eta_seconds = drain_per_second.filter(|rate| *rate > 0.0).map(|rate| tenths(left / rate));
    let state = if reason.is_some() { "down" } else { "up" };
    let shown = Outage {
        broker: masked(&config.broker.value),
        state,
        reason,
        stored: outbox.items,
        stored_bytes: outbox.bytes,
        oldest: outbox.oldest.into_iter().chain(journal.oldest).min(),
        journaled: journal.items,
        drain_per_second: drain_per_second.map(tenths),
        eta_seconds,
        quarantined: outbox.quarantined + journal.quarantined,
        spool: spool.map(|spool| spool.path().display().to_string()),
    };
    output::object(context.format(), &shown)?;
    Ok(if state == "up" { Exit::Done } else { Exit::Unavailable })
}

/// What leaves the file meanwhile: any process of this machine may be the one that delivers.
async fn drain_rate(spool: &Spool) -> Result<f64, CliError> {
    let departed =
        || spool.departed().map_err(|error| CliError::failed("could not read the outbox", error));
    let (before, begun) = (departed()?, Instant::now());
    tokio::time::sleep(WATCH).await;
    Ok((departed()?.saturating_sub(before)) as f64 / begun.elapsed().as_secs_f64())
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// A ping would not tell: the probe writes.
async fn why_down(connection: &Connection) -> Option<String> {
    match connection.health().await {
        Ok(health) if health.role == Role::Primary => None,
        Ok(_) => Some("it is a replica and takes no writes".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

pub(super) fn waiting(spool: &Spool, store: Store) -> Result<Waiting, CliError> {
    spool.waiting(store).map_err(|error| CliError::failed("could not read the outbox", error))
}
