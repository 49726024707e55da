//! `outlast queue`: queues in numbers; pause, resume, remove.

use clap::{Args, Subcommand};
use outlast::{
    Clock, Controlled, DayStats, Inspector, QueueControl, QueueName, QueueStats, duration, limits,
};
use serde::Serialize;

use super::Context;
use super::rate::Rates;
use super::watch::{self, Watch};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Row};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// List all queues
    List(ListArgs),
    /// Print everything about a queue
    Show(Named),
    /// Print a queue's days, newest first
    History(HistoryArgs),
    /// Hand out no more tasks of a queue; it need not exist yet
    Pause(Named),
    /// Hand out tasks of a queue again
    Resume(Named),
    /// Remove a queue that holds no tasks, or with --force one that does
    Remove(RemoveArgs),
}

/// How to list.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    watch: Watch,
}

/// Which queue.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The queue
    #[arg(value_name = "QUEUE")]
    queue: String,
}

impl Named {
    fn name(&self) -> Result<QueueName, CliError> {
        Ok(QueueName::new(&self.queue).map_err(outlast::Error::from)?)
    }
}

/// Which days.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    queue: Named,
    /// Days, today included
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=i64::from(limits::STATS_DAYS)))]
    days: u32,
}

/// Which queue, and what of its tasks.
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    queue: Named,
    /// Delete its tasks too; refused while one of them runs
    #[arg(long)]
    force: bool,
}

/// A queue as a row.
#[derive(Debug, Serialize)]
pub(crate) struct QueueRow {
    #[serde(flatten)]
    stats: QueueStats,
    /// How long the next task to run has waited.
    latency: Option<String>,
    /// Runs that ended per second, since the last look.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
}

impl QueueRow {
    fn new(stats: QueueStats, clock: &Clock, rate: Option<f64>) -> Self {
        let waits = stats.oldest_pending.map(|_| stats.latency(clock.now()));
        Self { latency: waits.map(duration::format), stats, rate }
    }
}

impl Row for QueueRow {
    const HEAD: &'static [&'static str] = &[
        "queue",
        "pending",
        "active",
        "scheduled",
        "retry",
        "archived",
        "completed",
        "grouped",
        "done today",
        "failed today",
        "oldest",
        "rate/s",
        "paused since",
    ];
    fn cells(&self) -> Vec<String> {
        let QueueRow { stats, latency, rate } = self;
        let counts = [
            stats.pending,
            stats.active,
            stats.scheduled,
            stats.retry,
            stats.archived,
            stats.completed,
            stats.aggregating,
            stats.processed_today,
            stats.failed_today,
        ];
        let mut cells = vec![stats.queue.to_string()];
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(latency.clone().unwrap_or_default());
        cells.push(rate.map(|rate| format!("{rate:.0}")).unwrap_or_default());
        cells.push(output::time(stats.paused_since));
        cells
    }
}

impl Row for DayStats {
    const HEAD: &'static [&'static str] = &["queue", "date", "processed", "failed"];
    fn cells(&self) -> Vec<String> {
        let counts = [self.processed.to_string(), self.failed.to_string()];
        [vec![self.queue.to_string(), self.date.clone()], counts.to_vec()].concat()
    }
}

/// What a verb did to a queue.
#[derive(Debug, Serialize)]
struct Told {
    queue: QueueName,
    state: &'static str,
    changed: bool,
}

pub(crate) async fn run(context: &Context, command: QueueCommand) -> Outcome {
    match command {
        QueueCommand::List(args) => list(context, &args).await,
        QueueCommand::Show(queue) => show(context, &queue.name()?).await,
        QueueCommand::History(args) => {
            let days = context.inspector().await?.history(&args.queue.name()?, args.days).await?;
            output::rows(context.format(), &days)?;
            Ok(Exit::Done)
        }
        QueueCommand::Pause(queue) => {
            let queue = queue.name()?;
            let changed = context.inspector().await?.pause(&queue).await?;
            told(context, Told { queue, state: "paused", changed })
        }
        QueueCommand::Resume(queue) => {
            let queue = queue.name()?;
            let changed = context.inspector().await?.resume(&queue).await?;
            told(context, Told { queue, state: "running", changed })
        }
        QueueCommand::Remove(args) => remove(context, &args).await,
    }
}

async fn list(context: &Context, args: &ListArgs) -> Outcome {
    let connection = context.connect().await?;
    let inspector = connection.inspector();
    let mut rates = Rates::default();
    watch::rows(context.format(), args.watch, async || {
        let queues = inspector.queues().await?;
        let mut row = |stats: QueueStats| {
            let rate =
                rates.of(stats.queue.as_str(), stats.processed_total, connection.clock().now());
            QueueRow::new(stats, connection.clock(), rate)
        };
        Ok(queues.into_iter().map(&mut row).collect::<Vec<_>>())
    })
    .await?;
    Ok(Exit::Done)
}

async fn show(context: &Context, queue: &QueueName) -> Outcome {
    let connection = context.connect().await?;
    let stats = connection.inspector().queue(queue).await?;
    output::object(context.format(), &QueueRow::new(stats, connection.clock(), None))?;
    Ok(Exit::Done)
}

async fn remove(context: &Context, args: &RemoveArgs) -> Outcome {
    let queue = args.queue.name()?;
    let control = match args.force {
        true => QueueControl::RemoveWithTasks,
        false => QueueControl::RemoveIfEmpty,
    };
    let inspector: Inspector = context.inspector().await?;
    let in_the_way = match inspector.remove(&queue, control).await? {
        Controlled::NotEmpty { tasks } => {
            format!("queue {queue} holds {tasks} tasks: add --force to delete them too")
        }
        Controlled::Active { tasks } => {
            format!("queue {queue} has {tasks} tasks that run: wait for them, or cancel them")
        }
        _ => return told(context, Told { queue, state: "removed", changed: true }),
    };
    Err(CliError::new(Exit::Conflict, in_the_way))
}

fn told(context: &Context, told: Told) -> Outcome {
    match context.format() {
        output::Format::Json => output::objects(&[told])?,
        output::Format::Table if told.changed => {
            output::line(&format!("{} is {}", told.queue, told.state))?;
        }
        output::Format::Table => {
            output::line(&format!("{} was {} already", told.queue, told.state))?;
        }
    }
    Ok(Exit::Done)
}
