//! `outlast demo outage`: faults done to a private server, and what became of every task.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Context;
use crate::args::duration;
use crate::demo::{self, Fault, Plan, TASKS_MAX};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format};
use crate::rig::{find_asynq, find_server};

/// Shorter, and a fault is over before anybody has noticed it.
const FOR_MIN: Duration = Duration::from_millis(500);

/// Tasks a second at most: one caller that awaits each of them.
const RATE_MAX: u32 = 1000;

/// The demos.
#[derive(Debug, Subcommand)]
pub(crate) enum DemoCommand {
    /// Kill, freeze, fill and restart a private Redis server while tasks are enqueued and run, and count
    /// every one; exit 1 if one is lost or repeated
    Outage(OutageArgs),
}

/// What to do to the server, and for how long.
#[derive(Args, Debug)]
pub(crate) struct OutageArgs {
    /// How long each fault lasts
    #[arg(long = "for", value_name = "D", default_value = "5s", value_parser = duration)]
    lasts: Duration,
    /// Which faults, in this order
    #[arg(long, value_name = "FAULT", value_delimiter = ',', default_value = "all")]
    fault: Vec<Asked>,
    /// Tasks a second
    #[arg(long, value_name = "N", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(RATE_MAX)))]
    rate: u32,
    /// The server's program; redis-server or valkey-server from the PATH unless given
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// What goes through the same beside us, on a server of its own; its program is where
    /// scripts/install-interop puts it unless named [env: OUTLAST_ASYNQ]
    #[arg(long, value_name = "PEER")]
    against: Option<Peer>,
}

/// One fault, or all of them.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Asked {
    /// The process is killed (SIGKILL), and started again later
    Kill,
    /// The process is stopped where it stands (SIGSTOP), and goes on later
    Freeze,
    /// No memory is left for writes
    Full,
    /// The process is shut down in order (SIGTERM), and started again later
    Restart,
    /// All of these
    All,
}

/// Who else can be put through it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Peer {
    /// Go's hibiken/asynq
    Asynq,
}

impl Asked {
    fn faults(self) -> &'static [Fault] {
        match self {
            Asked::Kill => &[Fault::Kill],
            Asked::Freeze => &[Fault::Freeze],
            Asked::Full => &[Fault::Full],
            Asked::Restart => &[Fault::Restart],
            Asked::All => &[Fault::Kill, Fault::Freeze, Fault::Full, Fault::Restart],
        }
    }
}

impl OutageArgs {
    fn plan(&self) -> Result<Plan, CliError> {
        if self.lasts < FOR_MIN {
            let least = outlast::duration::format(FOR_MIN);
            return Err(CliError::usage(format!("--for is too short: use {least} or more")));
        }
        let asynq = match self.against {
            Some(Peer::Asynq) => Some(find_asynq(None)?),
            None => None,
        };
        let faults = self.fault.iter().flat_map(|asked| asked.faults()).copied().collect();
        let server = find_server(self.server.as_deref(), "name it by --server PATH")?;
        let plan = Plan { faults, lasts: self.lasts, rate: self.rate, server, asynq };
        let tasks = plan.takes().as_secs().saturating_mul(self.rate.into());
        // Half of them: recoveries take their time too.
        if tasks > TASKS_MAX as u64 / 2 {
            return Err(CliError::usage(format!(
                "that would be {tasks} tasks or more, and {} are counted at most: use a shorter --for or a lower --rate",
                TASKS_MAX / 2
            )));
        }
        Ok(plan)
    }
}

pub(crate) async fn run(context: &Context, command: &DemoCommand) -> Outcome {
    let DemoCommand::Outage(args) = command;
    let (reports, strips) = demo::run(&args.plan()?).await?;
    match context.format() {
        Format::Json => output::objects(&reports)?,
        Format::Table => {
            let strips: String = strips.iter().map(demo::Strip::text).collect();
            output::write(format!("{strips}\n{}", demo::table(&reports)).as_bytes())?;
        }
    }
    match reports.iter().all(demo::Report::is_kept) {
        true => Ok(Exit::Done),
        false => Err(CliError::new(Exit::Failed, "a task was lost, repeated or left behind")),
    }
}
