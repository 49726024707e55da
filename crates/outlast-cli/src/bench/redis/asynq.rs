//! The other side: Go's asynq, by the program that `scripts/install-interop` builds. Every figure is a run of it, a
//! process of its own, which answers with a line of JSON.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use outlast::limits;
use redis::{ConnectionAddr, ConnectionInfo};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Outcome;
use super::site::Site;
use crate::bench::PAYLOAD_BYTES;
use crate::bench::load::{Done, Others};
use crate::exit::CliError;

/// How a password reaches it.
const PASSWORD_ENV: &str = "OUTLAST_INTEROP_PASSWORD";

/// Bytes of its log that an error shows.
const LOG_BYTES_MAX: usize = 2000;

/// How to run it.
#[derive(Clone, Debug)]
pub(super) struct Asynq {
    program: PathBuf,
    /// Where the server is, as the program's flags say it.
    server: Vec<String>,
    password: Option<String>,
}

impl Asynq {
    /// The program on this server, which has to be one that it can reach: by TCP, without TLS.
    pub(super) fn new(program: &Path, info: &ConnectionInfo) -> Result<Self, CliError> {
        let ConnectionAddr::Tcp(host, port) = info.addr() else {
            return Err(CliError::usage("asynq is compared over redis:// only"));
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let login = info.redis_settings();
        let mut server = vec!["-redis".to_owned(), format!("{host}:{port}")];
        server.extend(["-db".to_owned(), login.db().to_string()]);
        if let Some(user) = login.username() {
            server.extend(["-user".to_owned(), user.to_owned()]);
        }
        let password = login.password().map(str::to_owned);
        Ok(Self { program: program.to_owned(), server, password })
    }

    /// PINGs a second of Go's client, by connections.
    pub(super) async fn ping(&self, seconds: f64) -> Outcome<[f64; 2]> {
        let lines = self.run(&["ping"], &[("-t", format!("{seconds}s"))]).await?;
        let mut rates = [f64::NAN; 2];
        for (rate, line) in rates.iter_mut().zip(lines) {
            *rate = float(&line, "per_second")?;
        }
        Ok(rates)
    }

    /// Enqueues tasks number 0 to `count`.
    pub(super) async fn enqueue(&self, site: &Site, callers: usize, count: usize) -> Outcome<Done> {
        let flags = [("-c", callers.to_string()), ("-n", count.to_string()), sized(), at(site)];
        let line = self.one(&["bench", "enqueue"], &flags).await?;
        Ok(Done { tasks: count, seconds: float(&line, "seconds")?, exact: true })
    }

    /// Runs tasks number 0 to `count`, which are there, so many at once.
    pub(super) async fn drain(
        &self,
        site: &Site,
        slots: usize,
        count: usize,
        others: Others,
    ) -> Outcome<Done> {
        let flags = [
            ("-c", slots.to_string()),
            ("-n", count.to_string()),
            ("-fill", "false".to_owned()),
            ("-waiting", others.waiting.to_string()),
            ("-active", others.active.to_string()),
            sized(),
            at(site),
        ];
        let line = self.one(&["bench", "drain"], &flags).await?;
        let (distinct, executions) = (&line["distinct"], &line["executions"]);
        let once = distinct.as_u64() == Some(count as u64) && distinct == executions;
        let exact = once || others.waiting > 0;
        Ok(Done { tasks: count, seconds: float(&line, "seconds")?, exact })
    }

    /// The p50 and p99 of its pickups in milliseconds.
    pub(super) async fn pickup(&self, site: &Site, samples: usize) -> Outcome<[f64; 2]> {
        let flags = [("-n", samples.to_string()), at(site)];
        let line = self.one(&["bench", "pickup"], &flags).await?;
        Ok([float(&line, "p50_ms")?, float(&line, "p99_ms")?])
    }

    /// The p99 of how late scheduled tasks start, in milliseconds.
    pub(super) async fn lateness(
        &self,
        site: &Site,
        seconds: usize,
        of_each: usize,
    ) -> Outcome<f64> {
        let flags = [("-seconds", seconds.to_string()), ("-each", of_each.to_string()), at(site)];
        float(&self.one(&["bench", "lateness"], &flags).await?, "p99_ms")
    }

    /// A server of it that has nothing to do, on queues that are empty; it ends when it is dropped.
    pub(super) async fn idle(&self, queues: &[String]) -> Outcome<IdleServer> {
        let queues = queues.join(",");
        let mut command = self.command(&["work"], &[("-queues", queues)]);
        let mut child =
            command.arg("-until-eof").stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or("asynq has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).await?;
        if !line.contains("ready") {
            return Err("asynq's work did not start".into());
        }
        Ok(IdleServer(child))
    }

    async fn one(&self, words: &[&str], flags: &[(&str, String)]) -> Outcome<Value> {
        let mut lines = self.run(words, flags).await?;
        lines.pop().ok_or_else(|| format!("asynq's {} answered nothing", words.join(" ")).into())
    }

    async fn run(&self, words: &[&str], flags: &[(&str, String)]) -> Outcome<Vec<Value>> {
        let ended = self.command(words, flags).output().await?;
        if !ended.status.success() {
            let log = String::from_utf8_lossy(&ended.stderr);
            let log = limits::beginning(log.trim(), LOG_BYTES_MAX);
            return Err(format!("asynq's {} failed: {log}", words.join(" ")).into());
        }
        let text = String::from_utf8(ended.stdout)?;
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    fn command(&self, words: &[&str], flags: &[(&str, String)]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).args(&self.server);
        for (flag, value) in flags {
            command.arg(format!("{flag}={value}"));
        }
        if let Some(password) = &self.password {
            command.env(PASSWORD_ENV, password);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }
}

/// A running server of asynq.
pub(super) struct IdleServer(Child);

impl IdleServer {
    /// Ends it as it should end, so that it takes its name off the list.
    pub(super) async fn stop(mut self) -> Outcome<()> {
        drop(self.0.stdin.take());
        self.0.wait().await?;
        Ok(())
    }
}

fn at(site: &Site) -> (&'static str, String) {
    ("-queue", site.queue.to_string())
}

fn sized() -> (&'static str, String) {
    ("-payload-bytes", PAYLOAD_BYTES.to_string())
}

fn float(line: &Value, name: &str) -> Outcome<f64> {
    line[name].as_f64().ok_or_else(|| format!("asynq's answer has no {name}: {line}").into())
}
