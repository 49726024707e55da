//! What `up` and `work` share.

use clap::Args;

use super::Global;
use crate::config::Asked;

/// How the worker works.
#[derive(Args, Debug)]
pub(crate) struct WorkerOptions {
    /// Tasks that run at once [default: that of outlast.toml, else one a core] [env: OUTLAST_SLOTS]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<u32>,
    /// Queues to serve, with weights: mail=6,default [default: those of outlast.toml, else default]
    #[arg(long, value_name = "QUEUES")]
    pub(crate) queues: Option<String>,
    /// When outcomes are journaled, on_failure or always [default: that of outlast.toml, else on_failure] [env: OUTLAST_JOURNAL]
    #[arg(long, value_name = "MODE")]
    pub(crate) journal: Option<String>,
    /// From SIGTERM or SIGINT to the end [default: that of outlast.toml, else 8s] [env: OUTLAST_SHUTDOWN]
    #[arg(long, value_name = "D")]
    pub(crate) shutdown: Option<String>,
}

impl WorkerOptions {
    pub(crate) fn asked(&self, global: &Global) -> Asked {
        Asked {
            slots: self.slots,
            queues: self.queues.clone(),
            shutdown: self.shutdown.clone(),
            journal: self.journal.clone(),
            ..global.asked()
        }
    }
}
