//! `outlast outbox`: what waits on this machine for a broker that was away.

use std::time::Duration;

use clap::{Args, Subcommand};
use outlast::Timestamp;
use outlast::survive::{Spool, SpoolError, Status, Store};
use serde::Serialize;

use super::outage::waiting;
use super::outbox_task::{self, ExportArgs, ShowArgs};
use super::{Context, WORKER_PATIENCE, progress, surviving};
use crate::args::duration;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};

/// Rows of a list; `--limit` asks for others.
const ROWS: u32 = 100;

/// How often `flush` looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum OutboxCommand {
    /// List what waits, oldest first
    List(ListArgs),
    /// Print a task with all that was handed in, whether it waits or is in quarantine
    Show(ShowArgs),
    /// Print all tasks as lines that `outlast task enqueue --file` reads; they stay where they are
    Export(ExportArgs),
    /// Deliver what waits, and wait until it is done; exit 4 if it is not in time
    Flush(FlushArgs),
    /// Put items of the quarantine back in line
    Retry(ItemArgs),
    /// Delete items of the quarantine for good
    Drop(ItemArgs),
}

/// What is listed.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// The quarantine: what will not be delivered, and why
    #[arg(long)]
    quarantine: bool,
    /// Outcomes of runs instead of tasks
    #[arg(long)]
    journal: bool,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = ROWS)]
    limit: u32,
}

/// How long to flush.
#[derive(Args, Debug)]
pub(crate) struct FlushArgs {
    /// How long to wait
    #[arg(long, value_name = "D", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// Which items.
#[derive(Args, Debug)]
pub(crate) struct ItemArgs {
    /// Their numbers in `outlast outbox list --quarantine`
    #[arg(value_name = "NUMBER", required_unless_present = "all")]
    numbers: Vec<i64>,
    /// All of them
    #[arg(long, conflicts_with = "numbers")]
    all: bool,
}

/// An item as it is printed.
#[derive(Debug, Serialize)]
struct Item {
    number: i64,
    store: &'static str,
    queue: String,
    id: String,
    stored_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl Row for Item {
    const HEAD: &'static [&'static str] = &["number", "store", "queue", "id", "stored", "why"];
    const WIDE: Option<usize> = Some(5);
    fn cells(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.store.to_owned(),
            self.queue.clone(),
            self.id.clone(),
            output::time(Some(self.stored_at)),
            self.why.clone().unwrap_or_default(),
        ]
    }
}

pub(crate) async fn run(context: &Context, command: OutboxCommand) -> Outcome {
    match command {
        OutboxCommand::List(args) => list(context, &args).await,
        OutboxCommand::Show(args) => outbox_task::show(context, &args).await,
        OutboxCommand::Export(args) => outbox_task::export(context, &args).await,
        OutboxCommand::Flush(args) => flush(context, &args).await,
        OutboxCommand::Retry(args) => each(context, &args, Change::Retry).await,
        OutboxCommand::Drop(args) => each(context, &args, Change::Drop).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Outcome {
    let spool = context.spool().await?;
    let store = if args.journal { Store::Journal } else { Store::Outbox };
    let rows: Vec<Item> = if args.quarantine {
        let items = spool.quarantine(store, args.limit).map_err(unread)?.into_iter();
        items
            .map(|item| {
                shown(&item.id, store, &item.queue, item.name, item.stored_at, Some(item.why))
            })
            .collect()
    } else {
        let items = spool.items(store, args.limit).map_err(unread)?.into_iter();
        items
            .map(|item| shown(&item.id, store, &item.queue, item.name, item.stored_at, None))
            .collect()
    };
    output::rows(context.format(), &rows)?;
    Ok(Exit::Done)
}

fn shown(
    number: &i64,
    store: Store,
    queue: &outlast::QueueName,
    id: String,
    stored_at: Timestamp,
    why: Option<String>,
) -> Item {
    Item { number: *number, store: store.as_str(), queue: queue.to_string(), id, stored_at, why }
}

/// What `flush` came to.
#[derive(Serialize)]
struct Flushed {
    delivered: u64,
    waiting: u64,
    quarantined: u64,
}

async fn flush(context: &Context, args: &FlushArgs) -> Outcome {
    let before = context.spool().await?;
    let quarantined = waiting(&before, Store::Outbox)?.quarantined;
    drop(before);
    let config = context.load(&context.global.asked())?;
    let connection = surviving(&config, WORKER_PATIENCE).await?;
    let Some(survivor) = connection.survivor() else {
        return Err(CliError::usage("this broker has no outbox"));
    };
    let status = || survivor.status().map_err(unread);
    let bar = progress::counter("delivered");
    let done = |status: &Status| status.outbox.items + status.journal.items == 0;
    let emptied = async {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            look.tick().await;
            let status = status()?;
            bar.set_position(status.counts.delivered + status.counts.applied);
            if done(&status) {
                return Ok::<(), CliError>(());
            }
        }
    };
    let in_time = tokio::time::timeout(args.timeout, emptied).await;
    bar.finish_and_clear();
    if let Ok(failed @ Err(_)) = in_time {
        failed?;
    }
    let status = status()?;
    let flushed = Flushed {
        delivered: status.counts.delivered + status.counts.applied,
        waiting: status.outbox.items + status.journal.items,
        quarantined: status.outbox.quarantined.saturating_sub(quarantined),
    };
    connection.clone().close().await;
    match context.format() {
        Format::Json => output::objects(&[&flushed])?,
        Format::Table => output::line(&format!(
            "{} delivered, {} wait, {} put into quarantine",
            flushed.delivered, flushed.waiting, flushed.quarantined
        ))?,
    }
    Ok(match (flushed.waiting, flushed.quarantined) {
        (0, 0) => Exit::Done,
        (0, _) => Exit::Partly,
        _ => Exit::Unavailable,
    })
}

/// What is done to an item of the quarantine.
#[derive(Clone, Copy)]
enum Change {
    Retry,
    Drop,
}

async fn each(context: &Context, args: &ItemArgs, change: Change) -> Outcome {
    let spool = context.spool().await?;
    let numbers = if args.all { all(&spool)? } else { args.numbers.clone() };
    let (mut changed, mut missing) = (0_u64, Vec::new());
    for number in numbers {
        let done = match change {
            Change::Retry => spool.retry(number, outlast::Clock::system().now()).await,
            Change::Drop => spool.drop_quarantined(number).await,
        };
        match done.map_err(|error| CliError::failed("could not change the outbox", error))? {
            true => changed += 1,
            false => missing.push(number.to_string()),
        }
    }
    let what = match change {
        Change::Retry => "back in line",
        Change::Drop => "deleted",
    };
    match context.format() {
        Format::Json => output::objects(&[serde_json::json!({ "changed": changed })])?,
        Format::Table => output::line(&format!("{changed} {what}"))?,
    }
    match missing.is_empty() {
        true => Ok(Exit::Done),
        false => Err(CliError::not_found(format!("not in quarantine: {}", missing.join(", ")))),
    }
}

fn all(spool: &Spool) -> Result<Vec<i64>, CliError> {
    let mut numbers = Vec::new();
    for store in [Store::Outbox, Store::Journal] {
        let items = spool.quarantine(store, u32::MAX).map_err(unread)?;
        numbers.extend(items.into_iter().map(|item| item.id));
    }
    Ok(numbers)
}

pub(super) fn unread(error: SpoolError) -> CliError {
    CliError::failed("could not read the outbox", error)
}
