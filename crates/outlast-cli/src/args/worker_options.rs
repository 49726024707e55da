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
            ..global.asked()
        }
    }
}
