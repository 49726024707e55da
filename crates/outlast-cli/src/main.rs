//! The program `outlast`: reads the command line, runs the command, answers with an exit code.

mod args;
mod bench;
mod commands;
mod config;
mod demo;
mod exit;
mod log;
mod output;
mod rig;
mod runners;
mod suggest;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::args::Cli;
use crate::exit::{CliError, Outcome};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let outcome = args::check_utf8(&args).and_then(|()| match Cli::try_parse_from(args) {
        Ok(cli) => run(cli),
        Err(refused) => args::explain(&refused),
    });
    exit::report(outcome)
}

fn run(cli: Cli) -> Outcome {
    log::start(&cli.global, cli.command.log_level())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed("could not start the runtime", error))?;
    let outcome = runtime.block_on(commands::run(cli));
    // Nobody waits for a thread that still reads a terminal.
    runtime.shutdown_background();
    outcome
}
