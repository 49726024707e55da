//! `outlast up`: everything in one process: the embedded broker unless another one is configured, a
//! worker, and the schedules.

use clap::Args;
use serde::Serialize;

use super::work::{nothing_to_run, runners, schedule, work, worker};
use super::{Context, WORKER_PATIENCE, surviving};
use crate::args::WorkerOptions;
use crate::config::{Config, Origin, masked};
use crate::exit::{CliError, Outcome};
use crate::output::{self, Format};
use crate::runners::Busy;

/// How to work.
#[derive(Args, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    options: WorkerOptions,
}

/// What is up.
#[derive(Debug, Serialize)]
struct Up {
    version: &'static str,
    broker: String,
    slots: u32,
    queues: Vec<String>,
    handlers: Vec<String>,
    schedules: Vec<String>,
}

pub(crate) async fn run(context: &Context, args: &UpArgs) -> Outcome {
    let config = context.load(&args.options.asked(&context.global))?;
    if config.handlers.is_empty() && config.groups.is_empty() && config.schedules.is_empty() {
        return Err(nothing_to_run(&config));
    }
    let runners = runners(&config, Busy::Snooze)?;
    let client = surviving(&config, WORKER_PATIENCE).await?.client();
    let mut worker = worker(&config, &client, runners);
    for own in &config.schedules {
        worker = worker.schedule(schedule(own)?);
    }
    announce(context, &config)?;
    work(context.format(), worker, client).await
}

fn announce(context: &Context, config: &Config) -> Result<(), CliError> {
    let up = Up {
        version: env!("CARGO_PKG_VERSION"),
        broker: masked(&config.broker.value),
        slots: config.worker.slots.value,
        queues: config.queues.iter().map(|queue| queue.name.to_string()).collect(),
        handlers: config.handlers.iter().map(|handler| handler.pattern.value.clone()).collect(),
        schedules: config
            .schedules
            .iter()
            .map(|schedule| schedule.name.value.to_string())
            .collect(),
    };
    match context.format() {
        Format::Json => output::objects(&[up]),
        Format::Table => output::line(&format!("{}\n{}", up.text(), next_step(config))),
    }
}

impl Up {
    fn text(&self) -> String {
        let list = |what: &str, names: &[String]| match names.is_empty() {
            true => String::new(),
            false => format!("  {what} {}", names.join(", ")),
        };
        format!(
            "outlast {}  broker {}  worker {} slots on {}{}{}",
            self.version,
            self.broker,
            self.slots,
            self.queues.join(", "),
            list("handlers", &self.handlers),
            list("schedules", &self.schedules),
        )
    }
}

/// What to type next, in another terminal: it must reach the same broker.
fn next_step(config: &Config) -> String {
    let options = match (&config.broker.origin, config.path()) {
        (Origin::Flag(_), _) => format!(" --broker {}", masked(&config.broker.value)),
        (_, Some(file)) if file.as_os_str() != "outlast.toml" => {
            format!(" --config {}", file.display())
        }
        _ => String::new(),
    };
    let look = format!("outlast queue list --watch{options}");
    let Some(handler) = config.handlers.first() else { return format!("try:  {look}") };
    let task_type = handler.pattern.value.replace('*', "example");
    let queue = match config.queues.iter().any(|queue| queue.name.as_str() == "default") {
        true => String::new(),
        false => config.queues.first().map(|q| format!(" --queue {}", q.name)).unwrap_or_default(),
    };
    let enqueue = format!("outlast task enqueue {task_type}{queue}");
    // A type about files is best tried on the files that are here.
    let first = match task_type.starts_with("file:") {
        true => format!("find \"$PWD\" -type f | {enqueue} --from-lines --retention 24h{options}"),
        false => format!("{enqueue} --payload hello{options}"),
    };
    format!("try:  {first}\n      {look}")
}
