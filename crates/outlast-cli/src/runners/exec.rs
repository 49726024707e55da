//! Runs a command for a task: payload on stdin, facts in the environment, stdout kept as the result.
//!
//! Promises: the command and everything it started is gone when a run ends, however it ends; a command
//! that prints too much, reads nothing, hangs or ignores SIGTERM harms nobody but itself. One run costs
//! its fork and exec, three pipes and no thread.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::pipes::Pipes;

/// How long a command may go on after SIGTERM before it gets SIGKILL. At the end of a short shutdown it is
/// less: the worker drops the run in time to report it, and with the run goes the command's group.
pub(crate) const TERM_GRACE: Duration = Duration::from_secs(2);

/// How long the output is read on after the command has ended. Its process group is gone by then; only
/// something that left the group can still hold the pipes open, and it is not waited for.
const DRAIN: Duration = Duration::from_secs(1);

/// What stands for the payload in an argument.
const PLACEHOLDER: &str = "{payload}";

/// A command, ready to run for any task.
#[derive(Debug)]
pub(crate) struct Exec {
    /// The program, found once: a run searches no folders.
    pub(crate) program: PathBuf,
    /// Its arguments as written; `{payload}` stands for the payload.
    pub(crate) args: Vec<String>,
    /// Bytes of stdout that are kept.
    pub(crate) output_max: usize,
}

/// What a run is told.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) payload: Bytes,
    pub(crate) env: Vec<(String, OsString)>,
}

/// How a run went.
#[derive(Debug)]
pub(crate) struct Ran<S> {
    pub(crate) end: End<S>,
    /// The beginning of stdout.
    pub(crate) stdout: Bytes,
    /// All bytes of stdout, if that is more than was kept.
    pub(crate) cut_from: Option<u64>,
    /// The end of stderr.
    pub(crate) stderr: String,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End<S> {
    /// By itself, with this code.
    Exit(i32),
    /// By this signal, which the runner did not send.
    Signal(i32),
    /// It was stopped, for this reason.
    Stopped(S),
}

/// A command that could not even be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The payload cannot be an argument, now or later.
    #[error("payload cannot be an argument of {program}: {why}")]
    Payload { program: String, why: &'static str },
    /// The system would not start it.
    #[error("could not run {program}")]
    Spawn { program: String, source: std::io::Error },
}

impl StartError {
    /// True if the same task would fail the same way forever.
    pub(crate) fn is_final(&self) -> bool {
        use std::io::ErrorKind::{ArgumentListTooLong, InvalidInput};
        match self {
            StartError::Payload { .. } => true,
            StartError::Spawn { source, .. } => {
                matches!(source.kind(), ArgumentListTooLong | InvalidInput)
            }
        }
    }
}

impl Exec {
    /// Runs the command to its end, or until `stop` is ready.
    pub(crate) async fn run<S>(
        &self,
        input: Input,
        stop: impl Future<Output = S>,
    ) -> Result<Ran<S>, StartError> {
        let (mut child, group) = self.start(&input)?;
        let mut pipes = Pipes::new(&mut child, input.payload, self.output_max);
        let end = watch(&mut child, &group, &mut pipes, stop).await;
        // Whatever the command left behind goes with it. The group is not empty while one of its
        // processes lives, so its number cannot have been given to somebody else; if it is empty, there
        // is nothing to kill and nearly no time for a new group of that number to appear.
        group.kill(Signal::KILL);
        drop(group);
        let _ = timeout(DRAIN, pipes.drive()).await;
        let end = end.map_err(|source| self.spawn_error(source))?;
        Ok(Ran {
            end,
            cut_from: pipes.stdout.cut_from(),
            stdout: pipes.stdout.into_bytes(),
            stderr: pipes.stderr.into_text(),
        })
    }

    fn start(&self, input: &Input) -> Result<(Child, Group), StartError> {
        let mut command = Command::new(&self.program);
        for arg in &self.args {
            command.arg(self.argument(arg, &input.payload)?);
        }
        command.envs(input.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that its children can be stopped with it and so that Ctrl-C at the
        // worker's terminal lets it finish.
        command.process_group(0);
        let child = command.spawn().map_err(|source| self.spawn_error(source))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok((child, Group(id)))
    }

    fn argument(&self, arg: &str, payload: &Bytes) -> Result<OsString, StartError> {
        if !arg.contains(PLACEHOLDER) {
            return Ok(arg.into());
        }
        if payload.contains(&0) {
            let program = self.program.display().to_string();
            return Err(StartError::Payload { program, why: "it holds a NUL byte" });
        }
        let parts: Vec<&[u8]> = arg.split(PLACEHOLDER).map(str::as_bytes).collect();
        Ok(OsString::from_vec(parts.join(OsStr::from_bytes(payload).as_bytes())))
    }

    fn spawn_error(&self, source: std::io::Error) -> StartError {
        StartError::Spawn { program: self.program.display().to_string(), source }
    }
}

/// Waits for the end, moving the output on the way; if `stop` comes first, sees to the end.
async fn watch<S>(
    child: &mut Child,
    group: &Group,
    pipes: &mut Pipes,
    stop: impl Future<Output = S>,
) -> std::io::Result<End<S>> {
    tokio::pin!(stop);
    tokio::select! {
        status = wait(child, pipes) => Ok(ended(status?)),
        why = &mut stop => {
            group.kill(Signal::TERM);
            if timeout(TERM_GRACE, wait(child, pipes)).await.is_err() {
                group.kill(Signal::KILL);
                wait(child, pipes).await?;
            }
            Ok(End::Stopped(why))
        }
    }
}

async fn wait(child: &mut Child, pipes: &mut Pipes) -> std::io::Result<ExitStatus> {
    tokio::select! {
        // The exit first: output that is still in the pipes is read afterwards.
        biased;
        status = child.wait() => status,
        never = pipes.drive_forever() => match never {},
    }
}

fn ended<S>(status: ExitStatus) -> End<S> {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exit(code),
        (None, signal) => End::Signal(signal.unwrap_or_default()),
    }
}

/// The process group of a command. Dropped in the middle of a run, it takes the group with it.
struct Group(Option<Pid>);

impl Group {
    fn kill(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // An error means that nobody is left to kill.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill(Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn sh(script: &str) -> Exec {
        let args = vec!["-c".into(), script.into(), "sh".into(), "{payload}".into()];
        Exec { program: "/bin/sh".into(), args, output_max: 1024 }
    }

    fn input(payload: &'static str) -> Input {
        Input { payload: Bytes::from_static(payload.as_bytes()), env: Vec::new() }
    }

    async fn run(script: &str, payload: &'static str) -> Ran<()> {
        sh(script).run(input(payload), pending()).await.expect("sh starts")
    }

    #[tokio::test]
    async fn a_payload_reaches_stdin_and_arguments_and_stdout_comes_back() {
        let ran = run("printf '%s|' \"$1\"; cat", "a b$(x)").await;
        assert_eq!((ran.end, &ran.stdout[..]), (End::Exit(0), &b"a b$(x)|a b$(x)"[..]));
    }

    #[tokio::test]
    async fn codes_signals_and_the_end_of_stderr_are_kept() {
        let ran = run("seq 1 10000 >&2; exit 3", "").await;
        assert_eq!(ran.end, End::Exit(3));
        assert!(ran.stderr.ends_with("9999\n10000\n") && ran.stderr.len() <= 4096);
        assert_eq!(run("kill -9 $$", "").await.end, End::Signal(9));
    }

    #[tokio::test]
    async fn a_command_that_reads_nothing_and_prints_much_comes_to_its_end() {
        let payload = "x".repeat(1 << 20).leak();
        let ran = run("head -c 100000000 /dev/zero", "").await;
        assert_eq!(
            (ran.end, ran.stdout.len(), ran.cut_from),
            (End::Exit(0), 1024, Some(100_000_000))
        );
        let deaf = Exec { program: "/bin/true".into(), args: Vec::new(), output_max: 0 };
        let ran: Ran<()> = deaf.run(input(payload), pending()).await.expect("true starts");
        assert_eq!(ran.end, End::Exit(0));
    }

    #[tokio::test]
    async fn what_ignores_sigterm_is_killed_with_its_children() {
        let script = "trap '' TERM; sleep 1000 & echo $! ; echo ready >&2; wait; sleep 1000";
        let ran = sh(script).run(input(""), ready("timeout")).await.expect("sh starts");
        assert_eq!(ran.end, End::Stopped("timeout"));
    }

    #[tokio::test]
    async fn children_left_behind_are_killed() {
        let ran = run("sleep 1000 & echo $!", "").await;
        assert_eq!(ran.end, End::Exit(0));
        let pid: i32 = String::from_utf8_lossy(&ran.stdout).trim().parse().expect("a pid");
        // Killed: gone, or waiting to be reaped by whoever adopted it. On a busy machine that takes a
        // while after the signal was sent.
        let is_gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        };
        assert!(std::iter::repeat_with(is_gone).take(200_000).any(|is_gone| is_gone));
    }

    #[tokio::test]
    async fn what_cannot_be_started_says_so() {
        let missing = Exec { program: "/no/such/program".into(), args: Vec::new(), output_max: 0 };
        let error = missing.run(input(""), pending::<()>()).await.expect_err("is missing");
        assert!(!error.is_final());
        assert_eq!(error.to_string(), "could not run /no/such/program");
        let nul = sh("true").run(input("a\0b"), pending::<()>()).await.expect_err("holds a NUL");
        assert!(nul.is_final());
        let long = "x".repeat(1 << 20).leak();
        let long = sh("true").run(input(long), pending::<()>()).await.expect_err("is too long");
        assert!(long.is_final(), "{long:?}");
    }
}
