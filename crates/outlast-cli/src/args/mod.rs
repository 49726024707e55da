//! The command line: `outlast <noun> <verb>`. What each command takes is beside the command; here is what
//! all of them share.

use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    bench, completions, config_command as config, demo, fsck, man, migrate, outage, outbox, queue,
    schedule, stats, task, up, work, worker,
};
use crate::config::Asked;
use crate::exit::{CliError, Exit, Outcome};
use crate::output;

mod values;
mod worker_options;

pub(crate) use values::{duration, header, max_retry, on_outage, time};
pub(crate) use worker_options::WorkerOptions;

/// Exit codes, printed below the help of the program and in its man page.
const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 failed, 2 wrong use or input, 3 partly done, 4 broker unavailable, 5 not found, \
6 duplicate or conflict.";

/// Background tasks that are not lost: run workers, enqueue, look and act.
///
/// The broker is the one of --broker, else of OUTLAST_BROKER, else of outlast.toml, else a file of its
/// own whose place `outlast config show` names.
#[derive(Debug, Parser)]
#[command(name = "outlast", version, after_help = EXIT_CODES, propagate_version = true)]
#[command(arg_required_else_help = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// The broker: sqlite://PATH, sqlite::memory: or redis://HOST:PORT [env: OUTLAST_BROKER]
    #[arg(long, global = true, value_name = "URL", help_heading = "Global options")]
    pub(crate) broker: Option<String>,
    /// The configuration file; outlast.toml in the current folder if it is there [env: OUTLAST_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) config: Option<PathBuf>,
    /// The file in which tasks and outcomes wait while a server is away; one of its own beside the
    /// configuration or in the state folder if none is named [env: OUTLAST_SPOOL]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub(crate) spool: Option<PathBuf>,
    /// Print one JSON object a line on stdout; everything else goes to stderr
    #[arg(long, global = true, help_heading = "Global options")]
    pub(crate) json: bool,
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter [env: OUTLAST_LOG]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Global options")]
    pub(crate) log: Option<String>,
}

impl Global {
    /// What the configuration is to be loaded with, for commands that run no worker.
    pub(crate) fn asked(&self) -> Asked {
        let (config, broker) = (self.config.clone(), self.broker.clone());
        Asked { config, broker, spool: self.spool.clone(), ..Asked::default() }
    }
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a worker and the schedules, on the embedded broker unless another one is configured
    Up(up::UpArgs),
    /// Run a worker
    Work(work::WorkArgs),
    /// Enqueue tasks, look at them, and act on them
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// Look at queues, pause and remove them
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// Look at schedules, pause them, run them by hand
    #[command(subcommand)]
    Schedule(schedule::ScheduleCommand),
    /// Look at workers, quieten and stop them
    #[command(subcommand)]
    Worker(worker::WorkerCommand),
    /// How the broker is, and what waits for it on this machine
    Outage(outage::OutageArgs),
    /// Look at what waits for a broker that was away, deliver it, sort out its quarantine
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Print the numbers of all queues together
    Stats(stats::StatsArgs),
    /// Check what a Redis broker holds, while it is in use; exit 1 if something is wrong
    Fsck(fsck::FsckArgs),
    /// Move all tasks to another broker, while both are in use; can be stopped and repeated
    Migrate(migrate::MigrateArgs),
    /// Measure the broker on this machine, beside what its disk can do, or a Redis server beside asynq
    Bench(bench::BenchArgs),
    /// Watch tasks outlive the faults of a private server
    #[command(subcommand)]
    Demo(demo::DemoCommand),
    /// Print or check the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Print the man page, or write one per command into a folder
    Man(man::ManArgs),
}

impl Command {
    /// What is logged unless somebody says otherwise: a worker tells what it does, the others only what is
    /// wrong. In the demo things go wrong on purpose, and its own lines tell of it.
    pub(crate) fn log_level(&self) -> &'static str {
        match self {
            Command::Up(_) | Command::Work(_) => "info",
            Command::Demo(_) => "error",
            _ => "warn",
        }
    }
}

/// Prints what clap has to say: help is an answer, everything else is wrong use.
pub(crate) fn explain(refused: &clap::Error) -> Outcome {
    let text = refused.render();
    if refused.exit_code() == 0 {
        let text = if std::io::stdout().is_terminal() {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        return output::write(text.as_bytes()).map(|()| Exit::Done);
    }
    let text = text.to_string();
    Err(CliError::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
}

/// Options whose value may be any bytes: payloads and paths.
const BYTES_ALLOWED: [&str; 6] =
    ["--payload", "--payload-file", "--file", "--config", "--spool", "--out"];

/// Names the first argument that is not UTF-8 and should be. clap would refuse it too, without saying
/// which.
pub(crate) fn check_utf8(args: &[OsString]) -> Result<(), CliError> {
    let before = |n: usize| n.checked_sub(1).and_then(|n| args.get(n)).and_then(|a| a.to_str());
    for (n, arg) in args.iter().enumerate().skip(1) {
        let option = before(n).filter(|before| before.starts_with("--"));
        if arg.to_str().is_some() || option.is_some_and(|name| BYTES_ALLOWED.contains(&name)) {
            continue;
        }
        if BYTES_ALLOWED.iter().any(|name| starts_with(arg, &format!("{name}="))) {
            continue;
        }
        let what = option.map_or("argument".to_owned(), str::to_owned);
        return Err(CliError::usage(format!("{what} {arg:?} is not valid UTF-8")));
    }
    Ok(())
}

fn starts_with(arg: &OsStr, prefix: &str) -> bool {
    arg.as_encoded_bytes().starts_with(prefix.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_argument_that_is_no_utf8_is_named_and_payloads_may_be_anything() {
        let odd = || OsString::from_vec(b"a\xff".to_vec());
        let args = |option: &str| vec!["outlast".into(), "task".into(), option.into(), odd()];
        let refused = check_utf8(&args("--queue")).expect_err("no UTF-8").to_string();
        assert_eq!(refused, "--queue \"a\\xFF\" is not valid UTF-8");
        assert!(check_utf8(&args("--payload")).is_ok());
        assert!(check_utf8(&args("enqueue")).is_err());
    }
}
