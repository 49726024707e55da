//! `outlast man`: the man page on stdout, or one page per command in a folder.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::args::Cli;
use crate::exit::{CliError, Exit, Outcome};
use crate::output;

/// Where to.
#[derive(Args, Debug)]
pub(crate) struct ManArgs {
    /// Write outlast.1, outlast-task.1, … into this folder instead
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

pub(crate) fn run(args: &ManArgs) -> Outcome {
    if let Some(folder) = &args.out {
        let message = || format!("could not write man pages into {}", folder.display());
        std::fs::create_dir_all(folder)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
            .map_err(|error| CliError::failed(message(), error))?;
        return Ok(Exit::Done);
    }
    let mut text = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut text)
        .map_err(|error| CliError::failed("could not write the man page", error))?;
    output::write(&text)?;
    Ok(Exit::Done)
}
