//! A private Redis or Valkey server for a test: its own process, port and folder, gone when the test is.
//!
//! The binary is the one that `OUTLAST_TEST_SERVER` names, else the `redis-server` on the PATH. Without one,
//! [`StartError::Missing`] lets a test say that it was skipped ([`RedisServer::or_skip`] does); where the servers
//! have to be there, `OUTLAST_REQUIRE_SERVERS=1` makes the same a failure.
//!
//! # How a server ends with its test, however the test ends
//!
//! A dropped [`RedisServer`] kills its process. A test process that is itself killed drops nothing, nor does a
//! `static`. So a small shell, `server/watchdog.sh`, stands between the two: it starts the server, says its pid,
//! waits for it, and holds the reading end of a pipe whose only writing end is ours. However this process ends,
//! the kernel closes that end; the shell reads the end of the file, kills the server and removes the folder.
//! Nothing else can hold the pipe open: Rust opens it close-on-exec. (The parent-death signal of Linux would need
//! unsafe code, and follows the thread that started the child, not the process.) As the shell is the parent that reaps
//! the server, and ends right after, a living shell means that the pid is still the server's.

mod process;
mod start;

use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::resp::{CommandError, Connection, Reply};
use process::Running;
pub use start::{Builder, REQUIRE_ENV, SERVER_ENV, StartError, Tls};

/// How often a start looks whether the server answers, and how long it waits between two looks: 30 s in all, for
/// the busiest of build machines. An idle one takes about 20 ms.
const LOOKS_MAX: u32 = 3000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How much of a server's log goes into an error.
const LOG_LINES_MAX: usize = 12;

/// A server of this test alone. Its methods take `&self`: clients may be busy in other threads meanwhile.
#[derive(Debug)]
pub struct RedisServer {
    binary: PathBuf,
    login: Option<(String, String)>,
    port: u16,
    tls_port: Option<u16>,
    // Before `dir`: the process goes first.
    running: Mutex<Option<Running>>,
    dir: TempDir,
}

impl RedisServer {
    /// A server to be configured.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts a server that keeps everything in memory.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start() -> Result<Self, StartError> {
        Self::builder().start()
    }

    /// The one server of this test process, for suites whose cases keep apart by namespace: never flush it, never
    /// kill it. The watchdog ends it after the process.
    ///
    /// # Errors
    ///
    /// See [`StartError`]; a failed start is not tried again.
    pub fn shared() -> Result<&'static Self, &'static StartError> {
        static SHARED: OnceLock<Result<RedisServer, StartError>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// For the first line of a test: the server, or none and a line that says so when there is no binary.
    ///
    /// # Panics
    ///
    /// When the server should be there and is not, or does not start.
    #[track_caller]
    #[must_use]
    pub fn or_skip<T, E: std::borrow::Borrow<StartError>>(started: Result<T, E>) -> Option<T> {
        let error = match started {
            Ok(server) => return Some(server),
            Err(error) => error,
        };
        match error.borrow() {
            missing @ StartError::Missing { .. } => {
                // Not through eprintln!, whose words are kept from the terminal when a test passes. A line that
                // cannot be written changes nothing about the test.
                let test = thread::current().name().unwrap_or("a test").to_owned();
                let _ = writeln!(io::stderr(), "skipped: {test}: {missing}");
                None
            }
            failed => panic!("{failed}{}", cause(failed)),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The port of [`addr`](Self::addr).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port with TLS, if it has one.
    #[must_use]
    pub fn tls_port(&self) -> Option<u16> {
        self.tls_port
    }

    /// `redis://127.0.0.1:PORT`, without a password.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Where the Unix socket is, if it was asked for.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("server.sock")
    }

    /// Its folder: configuration, log, data.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.alive().map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Kills it as a power cut would (SIGKILL), and waits until it is gone. Nothing happens if it has gone already.
    pub fn kill9(&self) {
        *self.running() = None;
    }

    /// Starts it again on the same port and with what it has kept; kills it first if it runs.
    ///
    /// # Errors
    ///
    /// See [`StartError`]. The port may have gone to another process meanwhile: that is [`StartError::Failed`].
    pub fn restart(&self) -> Result<(), StartError> {
        self.kill9();
        self.run()
    }

    /// Stops its process where it stands (SIGSTOP): connections stay open, and nobody answers.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// A new connection, logged in.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or refuses the login.
    pub fn connect(&self) -> Result<Connection, CommandError> {
        let mut connection = Connection::open(self.addr())?;
        if let Some((user, password)) = &self.login {
            connection.command(&["AUTH", user, password])?;
        }
        Ok(connection)
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or answers with an error.
    pub fn command(&self, words: &[&str]) -> Result<Reply, CommandError> {
        self.connect()?.command(words)
    }

    /// What it is: `redis 7.0.15`, `valkey 8.1.1`.
    ///
    /// # Errors
    ///
    /// As [`command`](Self::command).
    pub fn version(&self) -> Result<String, CommandError> {
        let page = self.command(&["INFO", "server"])?.text().unwrap_or_default();
        let field = |name: &str| {
            let value = page.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim_start_matches(':').to_owned())
        };
        let valkey = field("valkey_version").map(|version| format!("valkey {version}"));
        Ok(valkey.unwrap_or_else(|| {
            format!("redis {}", field("redis_version").unwrap_or_else(|| "unknown".to_owned()))
        }))
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self.alive() {
            Some(pid) => Ok(kill_process(pid, signal)?),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "the server does not run")),
        }
    }

    /// The pid, while it is the server's.
    fn alive(&self) -> Option<Pid> {
        let mut running = self.running();
        running.as_mut().and_then(|running| running.is_alive().then_some(running.pid))
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        // Tests panic; the server must still be killed.
        self.running.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn config_path(&self) -> PathBuf {
        self.dir().join("server.conf")
    }

    fn log_path(&self) -> PathBuf {
        self.dir().join("server.log")
    }

    /// Starts the process and waits until it answers.
    fn run(&self) -> Result<(), StartError> {
        let mut running = Running::spawn(self)?;
        for _ in 0..LOOKS_MAX {
            if let Ok(Some(status)) = running.shell.try_wait() {
                return Err(self.failed(format!("ended by itself ({status})")));
            }
            if self.answers() {
                *self.running() = Some(running);
                return Ok(());
            }
            thread::park_timeout(LOOK_EVERY);
        }
        Err(self.failed(format!("did not answer on port {} in time", self.port)))
    }

    /// Whether this very server answers. Its log is asked first: on a port that was lost, somebody else's would answer.
    fn answers(&self) -> bool {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        if !log.contains("Ready to accept connections") {
            return false;
        }
        match Connection::open(self.addr()).and_then(|mut server| server.command(&["PING"])) {
            Ok(_) => true,
            // NOAUTH and the like are answers too; while it loads its data it is not there yet.
            Err(CommandError::Refused { message, .. }) => !message.starts_with("LOADING"),
            Err(CommandError::Io { .. }) => false,
        }
    }

    fn failed(&self, what: String) -> StartError {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n");
        StartError::Failed { binary: self.binary.clone(), what, log }
    }
}

fn cause(error: &StartError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}
