//! `outlast work`: a worker with the handlers of the configuration.

use std::sync::Arc;

use clap::Args;
use outlast::{Client, Failure, QueueOptions, Schedule, Summary, TaskRequest, Worker};
use serde::Serialize;

use super::{Context, WORKER_PATIENCE, surviving};
use crate::args::WorkerOptions;
use crate::config::{self, Config, Problems, ScheduleConfig};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format};
use crate::runners::{self, Busy, Runner, group};

/// How to work.
#[derive(Args, Debug)]
pub(crate) struct WorkArgs {
    #[command(flatten)]
    options: WorkerOptions,
    /// End with 0 as soon as nothing is pending, active, due or in retry
    #[arg(long)]
    exit_when_empty: bool,
}

pub(crate) async fn run(context: &Context, args: &WorkArgs) -> Outcome {
    let config = context.load(&args.options.asked(&context.global))?;
    if config.handlers.is_empty() && config.groups.is_empty() {
        return Err(nothing_to_run(&config));
    }
    let busy = if args.exit_when_empty { Busy::Release } else { Busy::Snooze };
    let runners = runners(&config, busy)?;
    if !config.schedules.is_empty() {
        let schedules = config.schedules.len();
        tracing::info!(schedules, "schedules are run by `outlast up`, not by `outlast work`");
    }
    let client = surviving(&config, WORKER_PATIENCE).await?.client();
    let mut worker = worker(&config, &client, runners);
    if args.exit_when_empty {
        worker = worker.exit_when_empty();
    }
    work(context.format(), worker, client).await
}

/// The error of a worker without anything to run, with what to do about it.
pub(super) fn nothing_to_run(config: &Config) -> CliError {
    CliError::usage(match config.path() {
        Some(file) => format!("no handlers: {} has no [[handler]]", file.display()),
        None => {
            "no handlers: there is no outlast.toml here; write one, or name one by --config".into()
        }
    })
}

/// Runs the worker to its end, and says what it did.
pub(super) async fn work(format: Format, worker: Worker, client: Client) -> Outcome {
    let summary = worker.run().await?;
    let connection = client.connection().clone();
    drop(client);
    connection.close().await;
    let did = Did::from(&summary);
    match format {
        Format::Json => output::objects(&[&did])?,
        Format::Table => output::line(&did.text())?,
    }
    Ok(if did.unsettled > 0 { Exit::Partly } else { Exit::Done })
}

/// What a worker did, as an object.
#[derive(Serialize)]
struct Did {
    succeeded: u64,
    failed: u64,
    released: u64,
    lost: u64,
    unsettled: u64,
}

impl From<&Summary> for Did {
    fn from(summary: &Summary) -> Self {
        let Summary { succeeded, failed, released, lost, unsettled, .. } = *summary;
        Self { succeeded, failed, released, lost, unsettled }
    }
}

impl Did {
    fn text(&self) -> String {
        let mut text = format!("{} succeeded, {} failed", self.succeeded, self.failed);
        let others = [
            (self.released, "given back or snoozed"),
            (self.lost, "lost to other workers"),
            (self.unsettled, "not reported in time: they run again"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(", {count} {what}"));
        }
        text
    }
}

/// A runner for each handler, with the pattern it is bound to; or all the programs that are missing.
pub(super) fn runners(config: &Config, busy: Busy) -> Result<Vec<(String, Arc<Runner>)>, CliError> {
    let path = std::env::var_os("PATH");
    let missing = config::programs(config, path.as_deref());
    if !missing.is_empty() {
        return Err(Problems(missing).into());
    }
    for warning in config::unserved(config) {
        tracing::warn!("{warning}");
    }
    let http = runners::http_client()
        .map_err(|error| CliError::failed("could not make an HTTP client", error))?;
    let runner = |handler: &config::HandlerConfig| {
        let runner = Runner::new(handler, &http, config.path(), path.as_deref(), busy);
        runner.map(|runner| (handler.pattern.value.clone(), Arc::new(runner)))
    };
    let runners: Result<Vec<_>, String> = config.handlers.iter().map(runner).collect();
    runners.map_err(CliError::usage)
}

/// The worker that the configuration describes, without its schedules.
pub(super) fn worker(
    config: &Config,
    client: &Client,
    runners: Vec<(String, Arc<Runner>)>,
) -> Worker {
    let mut worker = Worker::new(client)
        .slots(config.worker.slots.value as usize)
        .lease(config.worker.lease.value)
        .shutdown_timeout(config.worker.shutdown.value);
    for queue in &config.queues {
        let concurrency = queue.concurrency.as_ref().map(|most| most.value as usize);
        let options = QueueOptions { weight: queue.weight.value, concurrency };
        worker = worker.queue_with(queue.name.as_str(), options);
    }
    for (pattern, runner) in runners {
        let control = worker.control();
        worker = worker.handle_type(&pattern, move |run: outlast::Run, cancel: outlast::Cancel| {
            let (runner, control) = (runner.clone(), control.clone());
            async move { runner.run(run, cancel, &control).await }
        });
    }
    for own in &config.groups {
        let task_type = own.task_type.value.clone();
        worker = worker.group(own.queue.as_str(), own.policy(), move |batch| {
            let made = group::aggregate(&task_type, &batch).map_err(Failure::retry);
            std::future::ready(made)
        });
    }
    worker
}

/// A schedule of the configuration for a worker.
pub(super) fn schedule(own: &ScheduleConfig) -> Result<Schedule, CliError> {
    let request = TaskRequest::raw(own.task_type.as_str(), own.payload.value.clone())
        .queue(own.queue.as_str());
    let schedule = Schedule::new(own.name.value.as_str(), &own.cron.value, request)?;
    Ok(schedule.timezone(&own.timezone.value)?.missed(own.missed.value))
}
