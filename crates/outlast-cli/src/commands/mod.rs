//! The commands: one file per noun, each with what it takes and what it does.

use std::ffi::OsString;

use outlast::{Client, Connection, Error, ErrorKind, Inspector, Kind};

use crate::args::{Cli, Command, Global};
use crate::config::{self, Asked, Config};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::Format;

mod act;
pub(crate) mod bench;
mod bulk;
pub(crate) mod completions;
pub(crate) mod config_command;
mod enqueue;
pub(crate) mod fsck;
mod lines;
mod list;
pub(crate) mod man;
mod progress;
pub(crate) mod queue;
mod rate;
pub(crate) mod schedule;
mod selection;
pub(crate) mod stats;
pub(crate) mod task;
pub(crate) mod up;
mod watch;
pub(crate) mod work;
pub(crate) mod worker;

/// Runs the command.
pub(crate) async fn run(cli: Cli) -> Outcome {
    let context = Context { global: cli.global };
    match cli.command {
        Command::Up(args) => up::run(&context, &args).await,
        Command::Work(args) => work::run(&context, &args).await,
        Command::Task(command) => task::run(&context, command).await,
        Command::Queue(command) => queue::run(&context, command).await,
        Command::Schedule(command) => schedule::run(&context, command).await,
        Command::Worker(command) => worker::run(&context, command).await,
        Command::Stats(args) => stats::run(&context, &args).await,
        Command::Fsck(args) => fsck::run(&context, &args).await,
        Command::Bench(args) => bench::run(&context, &args).await,
        Command::Config(command) => config_command::run(&context, &command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// What every command is given.
pub(crate) struct Context {
    pub(crate) global: Global,
}

impl Context {
    pub(crate) fn format(&self) -> Format {
        if self.global.json { Format::Json } else { Format::Table }
    }

    /// The configuration with what the command line asks for.
    pub(crate) fn load(&self, asked: &Asked) -> Result<Config, CliError> {
        Ok(config::load(asked, &|name: &str| -> Option<OsString> { std::env::var_os(name) })?)
    }

    /// The broker of the configuration.
    pub(crate) async fn connect(&self) -> Result<Connection, CliError> {
        let config = self.load(&self.global.asked())?;
        open(&config).await
    }

    pub(crate) async fn inspector(&self) -> Result<Inspector, CliError> {
        Ok(self.connect().await?.inspector())
    }

    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        Ok(self.connect().await?.client())
    }
}

/// Opens the configured broker.
pub(crate) async fn open(config: &Config) -> Result<Connection, CliError> {
    config::make_folder(config)?;
    let url = &config.broker.value;
    Connection::open(url).await.map_err(|error| {
        let exit = match error.kind() {
            ErrorKind::Invalid => Exit::Usage,
            // Whatever else is wrong with it, this broker cannot be used.
            _ => Exit::Unavailable,
        };
        CliError::new(exit, "could not open the broker").with_source(error)
    })
}

impl From<Error> for CliError {
    fn from(error: Error) -> Self {
        let exit = match error.kind() {
            ErrorKind::Invalid | ErrorKind::Broker(Kind::Rejected) => Exit::Usage,
            ErrorKind::NotFound => Exit::NotFound,
            ErrorKind::Duplicate => Exit::Conflict,
            ErrorKind::Broker(
                Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured,
            ) => Exit::Unavailable,
            _ => Exit::Failed,
        };
        CliError::new(exit, error.to_string()).with_source(error)
    }
}
