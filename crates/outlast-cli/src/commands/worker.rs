//! `outlast worker`: who works, and asking them to stop.

use clap::{Args, Subcommand};
use outlast::WorkerView;
use serde::Serialize;

use super::Context;
use super::watch::{self, Watch};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Row};
use crate::suggest;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkerCommand {
    /// List the workers that are alive
    List(ListArgs),
    /// Ask a worker to claim nothing more and to finish what runs
    Quiet(Named),
    /// Ask a worker to shut down
    Stop(Named),
}

/// How to list.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    watch: Watch,
}

/// Which worker.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The worker's id, as `worker list` prints it
    #[arg(value_name = "ID")]
    id: String,
}

impl Row for WorkerView {
    const HEAD: &'static [&'static str] =
        &["id", "host", "pid", "status", "slots", "active", "queues", "started at"];
    const WIDE: Option<usize> = Some(6);
    fn cells(&self) -> Vec<String> {
        let queues = self.queues.iter().map(|(name, weight)| format!("{name}={weight}"));
        vec![
            self.id.clone(),
            self.host.clone(),
            self.pid.to_string(),
            format!("{:?}", self.status).to_lowercase(),
            self.slots.to_string(),
            self.active.to_string(),
            queues.collect::<Vec<_>>().join(","),
            output::time(Some(self.started_at)),
        ]
    }
}

/// What a worker was asked.
#[derive(Debug, Serialize)]
struct Asked {
    worker: String,
    asked_to: &'static str,
}

pub(crate) async fn run(context: &Context, command: WorkerCommand) -> Outcome {
    let inspector = context.inspector().await?;
    let (named, asked_to) = match command {
        WorkerCommand::List(args) => {
            let look = async || Ok(inspector.workers().await?);
            watch::rows(context.format(), args.watch, look).await?;
            return Ok(Exit::Done);
        }
        WorkerCommand::Quiet(named) => (named, "quiet"),
        WorkerCommand::Stop(named) => (named, "stop"),
    };
    let told = match asked_to {
        "quiet" => inspector.quiet(&named.id).await,
        _ => inspector.stop(&named.id).await,
    };
    if let Err(error) = told {
        let error = CliError::from(error);
        if error.exit() != Exit::NotFound {
            return Err(error);
        }
        let alive = inspector.workers().await?;
        let hint = suggest::hint(&named.id, alive.iter().map(|worker| worker.id.as_str()));
        return Err(CliError::not_found(format!("{error}{hint}")));
    }
    let asked = Asked { worker: named.id, asked_to };
    match context.format() {
        output::Format::Json => output::objects(&[asked])?,
        output::Format::Table => {
            output::line(&format!("{} was asked to {asked_to}", asked.worker))?;
        }
    }
    Ok(Exit::Done)
}
