//! The commands: one file per noun, each with what it takes and what it does.

use std::ffi::OsString;
use std::time::Duration;

use outlast::survive::Spool;
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
pub(crate) mod demo;
mod enqueue;
pub(crate) mod fsck;
mod lines;
mod list;
pub(crate) mod man;
pub(crate) mod migrate;
pub(crate) mod outage;
pub(crate) mod outbox;
mod outbox_task;
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
        Command::Outage(args) => outage::run(&context, &args).await,
        Command::Outbox(command) => outbox::run(&context, command).await,
        Command::Stats(args) => stats::run(&context, &args).await,
        Command::Fsck(args) => fsck::run(&context, &args).await,
        Command::Migrate(args) => migrate::run(&context, &args).await,
        Command::Bench(args) => bench::run(&context, &args).await,
        Command::Demo(command) => demo::run(&context, &command).await,
        Command::Config(command) => config_command::run(&context, &command),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => man::run(&args),
    }
}

/// How long a command waits for the broker before its tasks are stored: it connects first, and what it stores
/// is delivered by somebody else. A program that goes on waits for less.
const COMMAND_PATIENCE: Duration = Duration::from_secs(2);

/// The same for a worker, whose outcomes and ticks are delivered by itself.
pub(crate) const WORKER_PATIENCE: Duration = Duration::from_millis(250);

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

    /// A client whose tasks wait on this machine's disk while a server is away.
    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        let config = self.load(&self.global.asked())?;
        Ok(surviving(&config, COMMAND_PATIENCE).await?.client())
    }

    /// What waits for the configured broker.
    pub(crate) async fn spool(&self) -> Result<Spool, CliError> {
        let config = self.load(&self.global.asked())?;
        let Some(spool) = config.spool.as_ref().map_err(|why| *why)? else {
            return Err(CliError::usage(
                "the embedded broker has no outbox: its file is on the same disk; name a server by --broker",
            ));
        };
        config::make_spool_folder(spool)?;
        let (path, limits) = (spool.value.clone(), config.survive.limits());
        let opened = tokio::task::spawn_blocking(move || Spool::open(path, limits));
        let opened =
            opened.await.map_err(|error| CliError::failed("could not open the outbox", error))?;
        opened.map_err(|error| CliError::failed("could not open the outbox", error))
    }
}

/// Opens the configured broker so that its outages are outlived, where it may be away.
pub(crate) async fn surviving(config: &Config, patience: Duration) -> Result<Connection, CliError> {
    let spool = config.spool.as_ref().map_err(|why| *why)?;
    let Some(spool) = spool else { return open(config).await };
    config::make_spool_folder(spool)?;
    let survive = config.survive.survive(spool, patience);
    Connection::surviving(&config.broker.value, survive).await.map_err(cannot_open)
}

/// Opens the configured broker.
pub(crate) async fn open(config: &Config) -> Result<Connection, CliError> {
    config::make_folder(config)?;
    let url = &config.broker.value;
    Connection::without_spool(url).await.map_err(cannot_open)
}

fn cannot_open(error: Error) -> CliError {
    let (exit, what) = match error.kind() {
        ErrorKind::Invalid => (Exit::Usage, "could not open the broker"),
        ErrorKind::Spool(_) => (Exit::Failed, "could not open the outbox"),
        // Whatever else is wrong with it, this broker cannot be used.
        _ => (Exit::Unavailable, "could not open the broker"),
    };
    CliError::new(exit, what).with_source(error)
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
