//! What is logged, and where: to stderr, so that stdout holds nothing but the answer.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::args::Global;
use crate::exit::CliError;

/// Starts logging as `--log` says, else `OUTLAST_LOG`, else what suits the command.
pub(crate) fn start(global: &Global, suits: &str) -> Result<(), CliError> {
    let set = || std::env::var("OUTLAST_LOG").ok().filter(|value| !value.is_empty());
    let (origin, level) = match (&global.log, set()) {
        (Some(level), _) => ("--log", level.clone()),
        (None, Some(level)) => ("OUTLAST_LOG", level),
        (None, None) => ("default", suits.to_owned()),
    };
    let filter = EnvFilter::builder().parse(&level).map_err(|error| {
        CliError::usage(format!("{origin} {level:?} is no log level")).with_source(error)
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|error| CliError::usage(format!("could not start logging: {error}")))
}
