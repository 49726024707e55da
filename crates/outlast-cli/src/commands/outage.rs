//! `outlast outage`: how the broker is now, and what waits for it on this machine.

use std::time::Duration;

use clap::Args;
use outlast::broker::Role;
use outlast::survive::{Notice, Spool, Store, Waiting};
use outlast::{Clock, Connection, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use super::outbox::unread;
use super::{Context, open};
use crate::config::masked;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format};

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
    /// Since when, by the process that noticed first; nothing if none on this machine has.
    since: Option<Timestamp>,
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
    /// The processes of this machine for which it is down, or was within the last seconds; not in a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    processes: Option<Vec<Process>>,
    /// The file in which they are.
    spool: Option<String>,
}

/// The outage as another process sees it.
#[derive(Debug, Serialize)]
struct Process {
    pid: u32,
    home: String,
    since: Timestamp,
    kind: String,
    reason: String,
    produce: String,
    consume: String,
    seen_at: Timestamp,
}

impl From<Notice> for Process {
    fn from(notice: Notice) -> Self {
        let Notice { pid, home, since, kind, reason, produce, consume, seen_at } = notice;
        let home = home.0.to_string();
        Self { pid, home, since, kind, reason, produce, consume, seen_at }
    }
}

impl Process {
    fn text(&self) -> String {
        let Self { pid, since, produce, consume, reason, .. } = self;
        format!("process {pid}: down since {since}, enqueues {produce}, claims {consume}: {reason}")
    }
}

/// Exit 0 if the broker takes writes, else 4: a script can ask.
pub(crate) async fn run(context: &Context, _: &OutageArgs) -> Outcome {
    let config = context.load(&context.global.asked())?;
    let reason = match open(&config).await {
        Ok(connection) => why_down(&connection).await,
        Err(error) if error.exit() == Exit::Unavailable => Some(crate::exit::chain(&error)),
        Err(error) => return Err(error),
    };
    let spool = match &config.spool {
        // Looking makes no file.
        Ok(Some(file)) if file.value.exists() => Some(context.spool().await?),
        Ok(_) | Err(_) => None,
    };
    let (outbox, journal) = match &spool {
        Some(spool) => (waiting(spool, Store::Outbox)?, waiting(spool, Store::Journal)?),
        None => (Waiting::default(), Waiting::default()),
    };
    let drain_per_second = match &spool {
        Some(spool) if outbox.items + journal.items > 0 => Some(drain_rate(spool).await?),
        _ => None,
    };
    let processes = match &spool {
        Some(spool) => spool.notices(Clock::system().now()).map_err(unread)?,
        None => Vec::new(),
    };
    let processes: Vec<Process> = processes.into_iter().map(Process::from).collect();
    let left = (outbox.items + journal.items) as f64;
    let eta_seconds = drain_per_second.filter(|rate| *rate > 0.0).map(|rate| tenths(left / rate));
    let state = if reason.is_some() { "down" } else { "up" };
    let mut shown = Outage {
        broker: masked(&config.broker.value),
        state,
        since: processes.first().filter(|_| state == "down").map(|process| process.since),
        reason,
        stored: outbox.items,
        stored_bytes: outbox.bytes,
        oldest: outbox.oldest.into_iter().chain(journal.oldest).min(),
        journaled: journal.items,
        drain_per_second: drain_per_second.map(tenths),
        eta_seconds,
        quarantined: outbox.quarantined + journal.quarantined,
        processes: None,
        spool: config.spool.ok().flatten().map(|spool| spool.value.display().to_string()),
    };
    match context.format() {
        Format::Json => {
            shown.processes = Some(processes);
            output::objects(&[&shown])?;
        }
        Format::Table => {
            output::object(Format::Table, &shown)?;
            processes.iter().try_for_each(|process| output::line(&process.text()))?;
        }
    }
    Ok(if state == "up" { Exit::Done } else { Exit::Unavailable })
}

/// What leaves the file meanwhile: any process of this machine may be the one that delivers.
async fn drain_rate(spool: &Spool) -> Result<f64, CliError> {
    let departed = || spool.departed().map_err(unread);
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
        Ok(health) if health.memory.is_full => Some("it has no memory for new tasks".to_owned()),
        Ok(health) if health.role == Role::Primary => None,
        Ok(_) => Some("it is a replica and takes no writes".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

pub(super) fn waiting(spool: &Spool, store: Store) -> Result<Waiting, CliError> {
    spool.waiting(store).map_err(unread)
}
