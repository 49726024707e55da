//! `outlast schedule`: what is enqueued when, and what was.

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use outlast::{
    Cron, Inspector, PageRequest, ScheduleName, ScheduleState, ScheduleView, TickRecord, Timestamp,
    limits,
};
use serde::Serialize;

use super::Context;
use super::enqueue::ReceiptRow;
use super::watch::{self, Watch};
use crate::args::time;
use crate::config::zone_hint;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};
use crate::suggest;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// List the schedules that some worker runs, and the paused ones
    List(ListArgs),
    /// Print what a schedule has enqueued, newest first
    History(HistoryArgs),
    /// Enqueue no more ticks of a schedule
    Pause(Named),
    /// Enqueue ticks again; those that passed meanwhile are not caught up
    Resume(Named),
    /// Enqueue a schedule's task now, beside its ticks
    Run(Named),
    /// Print when a cron spec ticks next; needs no broker
    Next(NextArgs),
}

/// How to list.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    watch: Watch,
}

/// Which schedule.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The schedule's name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Named {
    fn name(&self) -> Result<ScheduleName, CliError> {
        Ok(ScheduleName::new(&self.name).map_err(outlast::Error::from)?)
    }
}

/// Which ticks of which schedule.
#[derive(Args, Debug)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    schedule: Named,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=limits::PAGE_MAX as u64))]
    limit: u64,
}

/// Which ticks of which spec.
#[derive(Args, Debug)]
pub(crate) struct NextArgs {
    /// Five fields, @daily and the like, or @every 1h30m; TZ=Europe/Berlin may stand before it
    #[arg(value_name = "SPEC")]
    spec: String,
    /// The time zone of a spec that names none
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    tz: String,
    /// Ticks after this moment [default: now]
    #[arg(long, value_name = "T", value_parser = time)]
    from: Option<Timestamp>,
    /// How many
    #[arg(long, short = 'n', value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    count: u32,
}

/// A schedule as a row.
#[derive(Debug, Serialize)]
struct ScheduleRow {
    #[serde(flatten)]
    view: ScheduleView,
    paused_since: Option<Timestamp>,
    last_tick: Option<Timestamp>,
}

impl ScheduleRow {
    fn new((view, state): (ScheduleView, ScheduleState)) -> Self {
        Self { view, paused_since: state.paused_since, last_tick: state.last_tick }
    }
}

impl Row for ScheduleRow {
    const HEAD: &'static [&'static str] =
        &["name", "cron", "timezone", "type", "queue", "missed", "next", "last", "paused since"];
    fn cells(&self) -> Vec<String> {
        let view = &self.view;
        vec![
            view.name.to_string(),
            view.cron.clone(),
            view.timezone.clone(),
            view.task_type.to_string(),
            view.queue.to_string(),
            view.missed.clone(),
            output::time(view.next_at),
            output::time(self.last_tick),
            output::time(self.paused_since),
        ]
    }
}

impl Row for TickRecord {
    const HEAD: &'static [&'static str] = &["tick", "task", "enqueued at"];
    fn cells(&self) -> Vec<String> {
        // The record without a task is no tick: from that moment on the schedule's ticks count.
        let task = self.task.as_ref().map_or("registered".to_owned(), ToString::to_string);
        vec![self.tick.to_string(), task, output::time(Some(self.enqueued_at))]
    }
}

/// A moment at which a spec ticks.
#[derive(Debug, Serialize)]
struct Tick {
    tick: Timestamp,
}

/// What a verb did to a schedule.
#[derive(Debug, Serialize)]
struct Told {
    schedule: ScheduleName,
    state: &'static str,
    changed: bool,
}

pub(crate) async fn run(context: &Context, command: ScheduleCommand) -> Outcome {
    match command {
        ScheduleCommand::List(args) => list(context, &args).await,
        ScheduleCommand::History(args) => history(context, &args).await,
        ScheduleCommand::Pause(named) => {
            let schedule = named.name()?;
            let changed = context.inspector().await?.pause_schedule(&schedule).await?;
            told(context, Told { schedule, state: "paused", changed })
        }
        ScheduleCommand::Resume(named) => {
            let schedule = named.name()?;
            let changed = context.inspector().await?.resume_schedule(&schedule).await?;
            told(context, Told { schedule, state: "running", changed })
        }
        ScheduleCommand::Run(named) => {
            let receipt = context.inspector().await?.run_schedule(&named.name()?).await?;
            output::rows(context.format(), &[ReceiptRow::from(&receipt)])?;
            Ok(if receipt.is_accepted() { Exit::Done } else { Exit::Conflict })
        }
        ScheduleCommand::Next(args) => next(context.format(), &args),
    }
}

async fn list(context: &Context, args: &ListArgs) -> Outcome {
    let inspector = context.inspector().await?;
    watch::rows(context.format(), args.watch, async || {
        let schedules = inspector.schedules().await?;
        Ok(schedules.into_iter().map(ScheduleRow::new).collect())
    })
    .await?;
    Ok(Exit::Done)
}

async fn history(context: &Context, args: &HistoryArgs) -> Outcome {
    let schedule = args.schedule.name()?;
    let limit = usize::try_from(args.limit).unwrap_or(limits::PAGE_MAX);
    let inspector = context.inspector().await?;
    let ticks = inspector.ticks(&schedule, &PageRequest::first(limit)).await?.items;
    if ticks.is_empty() {
        known(&inspector, &schedule).await?;
    }
    output::rows(context.format(), &ticks)?;
    Ok(Exit::Done)
}

/// Refuses a schedule that nobody runs. Asked only where there is no history: a schedule that was taken
/// away is known by what it has enqueued.
async fn known(inspector: &Inspector, schedule: &ScheduleName) -> Result<(), CliError> {
    let all = inspector.schedules().await?;
    let mut names = all.iter().map(|(view, _)| view.name.as_str());
    if names.clone().any(|name| name == schedule.as_str()) {
        return Ok(());
    }
    let hint = suggest::hint(schedule.as_str(), &mut names);
    Err(CliError::not_found(format!("no schedule {schedule}{hint}")))
}

fn told(context: &Context, told: Told) -> Outcome {
    match context.format() {
        Format::Json => output::objects(&[told])?,
        Format::Table if told.changed => {
            output::line(&format!("{} is {}", told.schedule, told.state))?;
        }
        Format::Table => {
            output::line(&format!("{} was {} already", told.schedule, told.state))?;
        }
    }
    Ok(Exit::Done)
}

fn next(format: Format, args: &NextArgs) -> Outcome {
    let zone = TimeZone::get(&args.tz).map_err(|error| {
        CliError::usage(format!("time zone {:?} is unknown{}", args.tz, zone_hint(&args.tz)))
            .with_source(error)
    })?;
    let cron =
        Cron::parse(&args.spec, &zone).map_err(|error| CliError::usage(error.to_string()))?;
    let from = args.from.unwrap_or_else(|| outlast::Clock::system().now());
    let ticks = cron.ticks_after(from.to_jiff()).take(args.count as usize);
    let ticks: Vec<Tick> = ticks.map(|at| Tick { tick: Timestamp::from_jiff(at) }).collect();
    if ticks.is_empty() {
        eprintln!("outlast: cron spec {:?} never ticks after {from}", args.spec);
    }
    match format {
        Format::Json => output::objects(&ticks)?,
        Format::Table => {
            let lines: String = ticks.iter().map(|tick| format!("{}\n", tick.tick)).collect();
            output::write(lines.as_bytes())?;
        }
    }
    Ok(Exit::Done)
}
