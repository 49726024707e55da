//! What happens to tasks when their server is killed, frozen, filled up and restarted?
//!
//! The demo starts a server of its own and does all of that to it, while a producer enqueues numbered tasks and a
//! worker runs them, both by the public library. Every task is counted by its number. On request Go's asynq goes
//! through the same beside it, on a second server.

mod asynq;
mod ours;
mod producer;
mod report;
mod side;
mod tally;
mod view;

use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::sync::Barrier;

pub(crate) use report::{Report, table};
pub(crate) use tally::TASKS_MAX;
pub(crate) use view::Strip;

use crate::exit::{CliError, Exit};
use crate::rig::{Folder, Server};
use side::{Side, Whose};

/// What each task takes, so that some are under way whenever a fault begins.
const RUN: Duration = Duration::from_millis(20);

/// Tasks that a worker runs at once.
const SLOTS: usize = 8;

/// How long all is well before the first fault.
const WARM: Duration = Duration::from_secs(2);

/// How long all is well again between two faults.
const CALM: Duration = Duration::from_secs(1);

/// What is done to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// Its process is killed (SIGKILL), and started again later.
    Kill,
    /// Its process is stopped where it stands (SIGSTOP), and goes on later.
    Freeze,
    /// It has no memory left for writes.
    Full,
    /// It is shut down in order (SIGTERM), and started again later.
    Restart,
}

impl Fault {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Fault::Kill => "kill",
            Fault::Freeze => "freeze",
            Fault::Full => "full",
            Fault::Restart => "restart",
        }
    }

    /// Does it to a server.
    async fn begin(self, server: &mut Server) -> Result<(), CliError> {
        match self {
            Fault::Kill => server.stop().await,
            Fault::Restart => server.shut_down().await,
            Fault::Freeze => server.freeze(),
            // One byte: every server is beyond it.
            Fault::Full => server.limit_memory(1).await,
        }
    }

    /// Undoes it; afterwards the server works as before.
    async fn end(self, server: &mut Server) -> Result<(), CliError> {
        match self {
            Fault::Kill | Fault::Restart => server.run().await,
            Fault::Freeze => server.thaw(),
            Fault::Full => server.limit_memory(0).await,
        }
    }
}

/// What is to happen.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// In this order.
    pub(crate) faults: Vec<Fault>,
    /// How long each of them lasts.
    pub(crate) lasts: Duration,
    /// Tasks a second.
    pub(crate) rate: u32,
    /// The server's program.
    pub(crate) server: PathBuf,
    /// The program that runs asynq, if it is to run too.
    pub(crate) asynq: Option<PathBuf>,
}

impl Plan {
    /// How long it takes if every recovery is quick.
    pub(crate) fn takes(&self) -> Duration {
        let faults = u32::try_from(self.faults.len()).unwrap_or(u32::MAX);
        WARM + (self.lasts + CALM).saturating_mul(faults)
    }
}

/// Runs the demo until it is over or somebody asks it to end; either way its servers are gone afterwards.
pub(crate) async fn run(plan: &Plan) -> Result<(Vec<Report>, Vec<Strip>), CliError> {
    let folder = Folder::new(&std::env::temp_dir(), "outlast-demo")
        .map_err(|error| CliError::failed("could not make a folder for the demo", error))?;
    let mut sides = Vec::new();
    let ran = tokio::select! {
        ran = go_through(plan, &folder, &mut sides) => ran,
        () = outlast::shutdown_signal() => {
            Err(CliError::new(Exit::Failed, "the demo was stopped before its end"))
        }
    };
    for side in sides {
        side.end().await?;
    }
    ran
}

async fn go_through(
    plan: &Plan,
    folder: &Folder,
    sides: &mut Vec<Side>,
) -> Result<(Vec<Report>, Vec<Strip>), CliError> {
    sides.push(Side::start(Whose::Outlast, plan, folder.path()).await?);
    if plan.asynq.is_some() {
        sides.push(Side::start(Whose::Asynq, plan, folder.path()).await?);
    }
    let mut view = view::View::new(sides.iter().map(Side::seen).collect(), plan);
    let together = Barrier::new(sides.len());
    let reports = try_join_all(sides.iter_mut().map(|side| side.go_through(plan, &together)));
    tokio::select! {
        reports = reports => Ok((reports?, view.end())),
        never = view.watch() => match never {},
    }
}
