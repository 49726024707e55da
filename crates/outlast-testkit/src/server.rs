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

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::resp::{CommandError, Connection, Reply};

/// Names the server binary to test with.
pub const SERVER_ENV: &str = "OUTLAST_TEST_SERVER";

/// Set to 1 where a missing server must fail the tests.
pub const REQUIRE_ENV: &str = "OUTLAST_REQUIRE_SERVERS";

/// How often a start looks whether the server answers, and how long it waits between two looks: 30 s in all, for
/// the busiest of build machines. An idle one takes about 20 ms.
const LOOKS_MAX: u32 = 3000;
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How many ports are tried: between the kernel's answer and the server's bind, another process may take one.
const PORTS_MAX: u32 = 5;

/// How much of a server's log goes into an error.
const LOG_LINES_MAX: usize = 12;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no such binary on this machine: a reason to skip a test.
    #[error("no server to test with: there is no {}", binary.display())]
    Missing {
        /// What was looked for.
        binary: PathBuf,
    },
    /// As `Missing`, but `OUTLAST_REQUIRE_SERVERS=1` says that it has to be there.
    #[error("{REQUIRE_ENV}=1, but there is no {}", binary.display())]
    Required {
        /// What was looked for.
        binary: PathBuf,
    },
    /// A line of configuration that is more than one line.
    #[error("the setting {name} has a line break in its name or value: {value:?}")]
    Setting {
        /// The setting.
        name: String,
        /// Its value.
        value: String,
    },
    /// The folder, the file or the process could not be made.
    #[error("could not {what}")]
    Io {
        /// What was tried.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The server ended by itself, or never answered.
    #[error("{} {what}; its log ends in:\n{log}", binary.display())]
    Failed {
        /// The server's binary.
        binary: PathBuf,
        /// What it did or did not do.
        what: String,
        /// Its last lines.
        log: String,
    },
}

/// How to start a server. Nothing is written to disk unless a setting says so.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    binary: Option<PathBuf>,
    settings: Vec<(String, String)>,
    login: Option<(String, String)>,
    unix_socket: bool,
    tls: Option<Tls>,
}

/// Certificate files in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The server's certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signed it.
    pub ca: PathBuf,
}

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

/// A server process, by way of the shell that watches over it.
#[derive(Debug)]
struct Running {
    shell: Child,
    pid: Pid,
    /// The shell kills the server when this closes. Kept apart, because `Child::wait` would close it.
    _lifeline: ChildStdin,
}

impl Builder {
    /// Uses this binary, whatever the environment says.
    #[must_use]
    pub fn binary(mut self, path: impl Into<PathBuf>) -> Self {
        self.binary = Some(path.into());
        self
    }

    /// Adds a line of configuration, such as `maxmemory` and `10mb`. Later lines win. `port`, `dir` and `logfile` are
    /// this module's own, and so is `loglevel`: the start waits for a line of the log.
    #[must_use]
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Keeps what was acknowledged over [`RedisServer::kill9`] and [`RedisServer::restart`]: an append-only file,
    /// synced at every write.
    #[must_use]
    pub fn persistent(self) -> Self {
        self.set("appendonly", "yes").set("appendfsync", "always")
    }

    /// Limits memory, in bytes, and refuses writes beyond it, which is asynq's advice.
    #[must_use]
    pub fn maxmemory(self, bytes: u64) -> Self {
        self.set("maxmemory", &bytes.to_string()).set("maxmemory-policy", "noeviction")
    }

    /// Asks every client for this password. [`RedisServer::command`] uses it too.
    #[must_use]
    pub fn requirepass(self, password: &str) -> Self {
        self.set("requirepass", password).login("default", password)
    }

    /// Adds an ACL user: `name` and its rules, such as `on >secret ~* +@all`.
    #[must_use]
    pub fn user(self, name: &str, rules: &str) -> Self {
        self.set("user", &format!("{name} {rules}"))
    }

    /// Reads ACL users from a file.
    #[must_use]
    pub fn aclfile(self, path: &Path) -> Self {
        self.set("aclfile", &path.display().to_string())
    }

    /// The user as whom [`RedisServer::command`] comes.
    #[must_use]
    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Listens on a Unix socket too: [`RedisServer::socket`].
    #[must_use]
    pub fn unix_socket(mut self) -> Self {
        self.unix_socket = true;
        self
    }

    /// Listens with TLS too, on a port of its own: [`RedisServer::tls_port`]. Clients need no certificate.
    #[must_use]
    pub fn tls(mut self, files: Tls) -> Self {
        self.tls = Some(files);
        self
    }

    /// Follows another server.
    #[must_use]
    pub fn replica_of(self, primary: &RedisServer) -> Self {
        self.set("replicaof", &format!("127.0.0.1 {}", primary.port()))
    }

    /// Allows DEBUG, to local connections as to all others.
    #[must_use]
    pub fn debug_commands(self) -> Self {
        self.set("enable-debug-command", "yes")
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    ///
    /// See [`StartError`].
    pub fn start(&self) -> Result<RedisServer, StartError> {
        let binary = find_binary(self.binary.as_deref())?;
        let dir = tempfile::Builder::new().prefix("outlast-server-").tempdir();
        let dir = dir.map_err(io_error("make a folder for the server"))?;
        let mut server = RedisServer {
            binary,
            login: self.login.clone(),
            port: 0,
            tls_port: None,
            running: Mutex::new(None),
            dir,
        };
        let mut left = PORTS_MAX;
        loop {
            left -= 1;
            server.port = free_port()?;
            server.tls_port = self.tls.as_ref().map(|_| free_port()).transpose()?;
            let config = self.config(&server)?;
            fs::write(server.config_path(), config).map_err(io_error("write a configuration"))?;
            match server.run() {
                Err(error) if left > 0 && error.is_port_taken() => {}
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    fn config(&self, server: &RedisServer) -> Result<String, StartError> {
        let dir = server.dir().display();
        let mut config = format!(
            "bind 127.0.0.1\nport {}\ndir \"{dir}\"\nsave \"\"\nappendonly no\nlogfile \"\"\n\
            repl-diskless-sync-delay 0\n",
            server.port
        );
        if self.unix_socket {
            config.push_str(&format!("unixsocket \"{}\"\n", server.socket().display()));
        }
        if let (Some(tls), Some(port)) = (&self.tls, server.tls_port) {
            let (cert, key, ca) = (tls.cert.display(), tls.key.display(), tls.ca.display());
            config.push_str(&format!("tls-port {port}\ntls-auth-clients no\n"));
            config.push_str(&format!(
                "tls-cert-file \"{cert}\"\ntls-key-file \"{key}\"\ntls-ca-cert-file \"{ca}\"\n"
            ));
        }
        for (name, value) in &self.settings {
            if [name, value].iter().any(|text| text.contains(['\r', '\n'])) {
                return Err(StartError::Setting { name: name.clone(), value: value.clone() });
            }
            config.push_str(&format!("{name} {value}\n"));
        }
        Ok(config)
    }
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
                eprintln!("skipped: {missing}");
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

impl Running {
    fn spawn(server: &RedisServer) -> Result<Self, StartError> {
        // A Ctrl-C at the terminal is for the test; what follows from it, the watchdog sees.
        let shell = Command::new("sh")
            .args(["-c", include_str!("server/watchdog.sh"), "watchdog"])
            .args([server.dir().as_os_str(), server.log_path().as_os_str()])
            .args([server.binary.as_os_str(), server.config_path().as_os_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let mut shell = shell.map_err(io_error("start the watchdog's shell"))?;
        let (lifeline, said) = (shell.stdin.take(), shell.stdout.take());
        let mut line = String::new();
        if let Some(said) = said {
            BufReader::new(said).read_line(&mut line).map_err(io_error("read the server's pid"))?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        match (pid, lifeline) {
            (Some(pid), Some(lifeline)) => Ok(Self { shell, pid, _lifeline: lifeline }),
            _ => Err(server.failed("was not started by the watchdog".to_owned())),
        }
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(None))
    }
}

/// Kills the server and waits for its end; the shell ends with it.
impl Drop for Running {
    fn drop(&mut self) {
        if self.is_alive() {
            // Fails only when it has just ended by itself.
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = self.shell.wait();
        }
    }
}

impl StartError {
    fn is_port_taken(&self) -> bool {
        matches!(self, Self::Failed { log, .. } if log.contains("Address already in use"))
    }
}

/// The binary to run: as given, or by the environment, or `redis-server`; a bare name is looked for on the PATH.
fn find_binary(given: Option<&Path>) -> Result<PathBuf, StartError> {
    let named = || std::env::var_os(SERVER_ENV).filter(|name| !name.is_empty());
    let wanted = given.map(|path| path.as_os_str().to_owned()).or_else(named);
    let wanted = PathBuf::from(wanted.unwrap_or_else(|| OsString::from("redis-server")));
    let found = match wanted.components().count() {
        1 => {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).map(|dir| dir.join(&wanted)).find(|path| path.is_file())
        }
        _ => Some(wanted.clone()).filter(|path| path.is_file()),
    };
    let required = std::env::var_os(REQUIRE_ENV).as_deref() == Some(OsStr::new("1"));
    found.ok_or(match required {
        true => StartError::Required { binary: wanted },
        false => StartError::Missing { binary: wanted },
    })
}

/// A port of the loopback that is free now.
fn free_port() -> Result<u16, StartError> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let addr = bound.and_then(|listener| listener.local_addr());
    addr.map(|addr| addr.port()).map_err(io_error("find a free port"))
}

fn io_error(what: &str) -> impl FnOnce(io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Io { what, source }
}

fn cause(error: &StartError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}
