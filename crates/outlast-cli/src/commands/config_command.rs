//! `outlast config`: every value with where it came from, and everything that is wrong.

use clap::Subcommand;

use super::Context;
use crate::config::{self, Problems, Setting};
use crate::exit::{Exit, Outcome};
use crate::output::{self, Row};

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every value and where it came from
    Show,
    /// Check the configuration, and that every handler's program is there
    Check,
}

impl Row for Setting {
    const HEAD: &'static [&'static str] = &["key", "value", "from"];
    fn cells(&self) -> Vec<String> {
        vec![self.key.clone(), self.value.clone(), self.origin.clone()]
    }
}

/// What a good configuration amounts to.
#[derive(serde::Serialize)]
struct Checked {
    config: Option<String>,
    queues: usize,
    handlers: usize,
    schedules: usize,
    groups: usize,
}

pub(crate) fn run(context: &Context, command: &ConfigCommand) -> Outcome {
    let config = context.load(&context.global.asked())?;
    if let ConfigCommand::Show = command {
        output::rows(context.format(), &config::settings(&config))?;
        return Ok(Exit::Done);
    }
    let problems = config::programs(&config, std::env::var_os("PATH").as_deref());
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    for warning in config::unserved(&config) {
        eprintln!("outlast: warning: {warning}");
    }
    let checked = Checked {
        config: config.path().map(|file| file.display().to_string()),
        queues: config.queues.len(),
        handlers: config.handlers.len(),
        schedules: config.schedules.len(),
        groups: config.groups.len(),
    };
    output::object(context.format(), &checked)?;
    Ok(Exit::Done)
}
