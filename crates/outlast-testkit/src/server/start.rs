//! How a test's server is to be started: its settings, the binary, a free port, and why it may fail.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::RedisServer;

/// Names the server binary to test with.
pub const SERVER_ENV: &str = "OUTLAST_TEST_SERVER";

/// Set to 1 where a missing server must fail the tests.
pub const REQUIRE_ENV: &str = "OUTLAST_REQUIRE_SERVERS";

/// How many ports are tried: between the kernel's answer and the server's bind, another process may take one.
const PORTS_MAX: u32 = 5;

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

pub(super) fn io_error(what: &str) -> impl FnOnce(io::Error) -> StartError {
    let what = what.to_owned();
    move |source| StartError::Io { what, source }
}
