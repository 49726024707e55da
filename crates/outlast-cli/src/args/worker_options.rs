//! What `up` and `work` share.

use clap::Args;

use super::Global;
use crate::config::Asked;

/// How the worker works.
#[derive(Args, Debug)]
pub(crate) struct WorkerOptions {
    /// Tasks that run at once; one a core unless configured [env: OUTLAST_SLOTS]
    #[arg(long, value_name = "N")]
    pub(crate) slots: Option<u32>,
    /// Queues to serve, with weights: mail=6,default; those of outlast.toml unless given
    #[arg(long, value_name = "QUEUES")]
    pub(crate) queues: Option<String>,
    /// How long running tasks may go on after SIGTERM or SIGINT [env: OUTLAST_SHUTDOWN]
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
