//! A server's process, by way of the shell that watches over it; `server.rs` tells why there is one.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::RedisServer;
use super::start::{StartError, io_error};

/// A server process, by way of the shell that watches over it.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) shell: Child,
    pub(super) pid: Pid,
    /// The shell kills the server when this closes. Kept apart, because `Child::wait` would close it.
    _lifeline: ChildStdin,
}

impl Running {
    pub(super) fn spawn(server: &RedisServer) -> Result<Self, StartError> {
        // A Ctrl-C at the terminal is for the test; what follows from it, the watchdog sees.
        let shell = Command::new("sh")
            .args(["-c", include_str!("watchdog.sh"), "watchdog"])
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

    pub(super) fn is_alive(&mut self) -> bool {
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
