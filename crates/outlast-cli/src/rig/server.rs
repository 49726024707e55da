//! A server of one's own: a process on a free port of the loopback, in a folder of its own, that can be killed, frozen,
//! filled and restarted.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::exit::{CliError, Exit};

/// What is looked for on the PATH, the first one first.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// How long a start may take, on the busiest of machines; an idle one takes 20 ms.
const START_MAX: Duration = Duration::from_secs(15);

/// How often a server that starts is asked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long an answer may take; the loopback needs less than a millisecond.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Lines of a server's log that an error shows.
const LOG_LINES_MAX: usize = 5;

/// What a server keeps on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Every write is synced before it is answered: what the server has acknowledged it has after a kill too, so that a task
    /// that is lost was lost by somebody else.
    Everything,
    Nothing,
}

/// A process that holds the tasks, or will again.
#[derive(Debug)]
pub(crate) struct Server {
    binary: PathBuf,
    dir: PathBuf,
    port: u16,
    keeps: Keeps,
    child: Option<Child>,
}

/// The server's program: the one that was named, else one from the PATH. A bare name is looked for there too. `remedy` says how
/// one is named.
pub(crate) fn find(named: Option<&Path>, remedy: &str) -> Result<PathBuf, CliError> {
    let names = match named {
        None => NAMES.map(PathBuf::from).to_vec(),
        Some(name) if name.components().count() == 1 => vec![name.to_owned()],
        Some(path) => return absolute(path),
    };
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let files = names.iter().flat_map(|name| folders.iter().map(move |dir| dir.join(name)));
    files.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let names: Vec<_> = names.iter().map(|name| name.display().to_string()).collect();
        let message = format!(
            "a server of its own is needed, and there is no {} on the PATH: install one (apt install redis-server, brew \
             install redis), or {remedy}",
            names.join(" or ")
        );
        CliError::new(Exit::NotFound, message)
    })
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    if !path.is_file() {
        return Err(CliError::usage(format!("--server {} is no file", path.display())));
    }
    std::path::absolute(path).map_err(|error| CliError::failed("could not find --server", error))
}

impl Server {
    /// Starts a server in `dir`, which must exist.
    pub(crate) async fn start(binary: &Path, dir: PathBuf, keeps: Keeps) -> Result<Self, CliError> {
        let (binary, port) = (binary.to_owned(), free_port()?);
        let mut server = Self { binary, dir, port, keeps, child: None };
        server.run().await?;
        Ok(server)
    }

    /// Its address, past every door.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    pub(crate) async fn shut_down(&mut self) -> Result<(), CliError> {
        self.signal(Signal::TERM)?;
        self.ended().await
    }

    /// Stops it where it stands (SIGSTOP).
    pub(crate) fn freeze(&self) -> Result<(), CliError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on (SIGCONT).
    pub(crate) fn thaw(&self) -> Result<(), CliError> {
        self.signal(Signal::CONT)
    }

    /// Limits its memory; zero bytes are no limit.
    pub(crate) async fn limit_memory(&self, bytes: u64) -> Result<(), CliError> {
        self.ask(&format!("CONFIG SET maxmemory {bytes}"), "+OK").await
    }

    /// Kills it, and waits until it is gone. Nothing happens if it has gone already.
    pub(crate) async fn stop(&mut self) -> Result<(), CliError> {
        if let Some(mut child) = self.child.take() {
            child
                .kill()
                .await
                .map_err(|error| CliError::failed("could not kill the server", error))?;
        }
        Ok(())
    }

    /// Starts it, again on its port, and waits until it answers.
    pub(crate) async fn run(&mut self) -> Result<(), CliError> {
        let port = self.port.to_string();
        let append: &[&str] = match self.keeps {
            Keeps::Everything => &["--appendonly", "yes", "--appendfsync", "always"],
            Keeps::Nothing => &["--appendonly", "no"],
        };
        let child = Command::new(&self.binary)
            .args(["--bind", "127.0.0.1", "--port", &port, "--save", ""])
            .args(append)
            .args(["--logfile", "server.log"])
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal is for its owner, who ends it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn();
        let what = format!("could not start {}", self.binary.display());
        self.child = Some(child.map_err(|error| CliError::failed(what, error))?);
        let begun = Instant::now();
        loop {
            if self.ask("PING", "+PONG").await.is_ok() {
                return Ok(());
            }
            let child = self.child.as_mut();
            let ended = child.is_none_or(|child| !matches!(child.try_wait(), Ok(None)));
            if ended || begun.elapsed() > START_MAX {
                return Err(self.not_started());
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn not_started(&self) -> CliError {
        let log = std::fs::read_to_string(self.dir.join("server.log"));
        let log = log.unwrap_or_else(|error| format!("could not read its log: {error}"));
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
        let what = format!("{} did not start: {last}", self.binary.display());
        CliError::new(Exit::Failed, what)
    }

    fn signal(&self, signal: Signal) -> Result<(), CliError> {
        let pid = self.child.as_ref().and_then(Child::id);
        let pid = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let gone = || CliError::new(Exit::Failed, "the server has ended by itself");
        kill_process(pid.ok_or_else(gone)?, signal)
            .map_err(|error| CliError::failed("could not signal the server", error))
    }

    async fn ended(&mut self) -> Result<(), CliError> {
        let Some(child) = &mut self.child else { return Ok(()) };
        match timeout(START_MAX, child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(CliError::failed("could not wait for the server", error)),
            Err(late) => Err(CliError::failed("the server does not end", late)),
        }
    }

    /// Sends one command on a connection of its own, past every door.
    async fn ask(&self, command: &str, wanted: &str) -> Result<(), CliError> {
        let answer = timeout(ANSWER_MAX, async {
            let mut server = BufReader::new(TcpStream::connect(self.addr()).await?);
            server.write_all(format!("{command}\r\n").as_bytes()).await?;
            let mut answer = String::new();
            server.read_line(&mut answer).await.map(|_| answer)
        });
        let what = || format!("could not send {command} to the server");
        let answer = answer.await.map_err(|late| CliError::failed(what(), late))?;
        let answer = answer.map_err(|error| CliError::failed(what(), error))?;
        match answer.trim_end() == wanted {
            true => Ok(()),
            false => Err(CliError::new(Exit::Failed, format!("{}: {answer}", what()))),
        }
    }
}

/// A port of the loopback that is free now. Should another process be quicker, the server says so and does not start.
fn free_port() -> Result<u16, CliError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let addr = bound.and_then(|listener| listener.local_addr());
    addr.map(|addr| addr.port()).map_err(|error| CliError::failed("could not find a port", error))
}
