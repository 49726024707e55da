//! Go's asynq in the demo: its client and its server, by the program that `scripts/install-interop` builds. Both are
//! processes that end with the demo, because their input closes.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::tally::{Answer, Tally, id};
use super::{RUN, SLOTS};
use crate::exit::{CliError, Exit};

/// How long its server may take to start.
const START_MAX: Duration = Duration::from_secs(15);

/// asynq's client.
pub(crate) struct AsynqClient {
    // Killed when it is dropped.
    _child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    task_type: String,
}

impl AsynqClient {
    pub(crate) fn start(program: &Path, redis: &str) -> Result<Self, CliError> {
        let (child, input, output) = spawn(program, &["enqueue", "-redis", redis])?;
        // The type says what the handler does.
        let task_type = format!("sleep:{}", RUN.as_millis());
        Ok(Self { _child: child, input, output, task_type })
    }

    /// Enqueues one task and says what its caller was told.
    pub(crate) async fn enqueue(&mut self, number: usize) -> Result<Answer, CliError> {
        let request = json!({"type": self.task_type, "options": {"task_id": id(number)}});
        let sent = self.input.write_all(format!("{request}\n").as_bytes()).await;
        sent.map_err(|error| CliError::failed("could not ask asynq's client", error))?;
        let answer = next(&mut self.output).await?;
        let answer = answer
            .ok_or_else(|| CliError::new(Exit::Failed, "asynq's client has ended by itself"))?;
        Ok(if answer["ok"] == true { Answer::Accepted } else { Answer::Refused })
    }
}

/// asynq's server: what we call a worker.
pub(crate) struct AsynqWorker {
    child: Child,
    // It ends when this closes.
    _input: ChildStdin,
    hears: JoinHandle<Result<(), CliError>>,
}

impl AsynqWorker {
    /// Starts it, and counts what it runs.
    pub(crate) async fn start(
        program: &Path,
        redis: &str,
        tally: Arc<Tally>,
    ) -> Result<Self, CliError> {
        let slots = SLOTS.to_string();
        let args = ["work", "-until-eof", "-redis", redis, "-concurrency", &slots];
        let (child, input, mut output) = spawn(program, &args)?;
        let ready = timeout(START_MAX, next(&mut output)).await;
        match ready.map_err(|late| CliError::failed("asynq's server does not start", late))?? {
            Some(event) if event["event"] == "ready" => {}
            _ => return Err(CliError::new(Exit::Failed, "asynq's server did not start")),
        }
        let hears = tokio::spawn(async move {
            while let Some(event) = next(&mut output).await? {
                if let (Some("started"), Some(id)) = (event["event"].as_str(), event["id"].as_str())
                {
                    tally.run(id);
                }
            }
            Ok(())
        });
        Ok(Self { child, _input: input, hears })
    }

    /// Lets it finish and report.
    pub(crate) async fn stop(mut self, at_most: Duration) -> Result<(), CliError> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        let gone = || CliError::new(Exit::Failed, "asynq's server has ended by itself");
        kill_process(pid.ok_or_else(gone)?, Signal::TERM)
            .map_err(|error| CliError::failed("could not stop asynq's server", error))?;
        let ended = timeout(at_most, self.child.wait()).await;
        let ended = ended.map_err(|late| CliError::failed("asynq's server does not end", late))?;
        ended.map_err(|error| CliError::failed("could not wait for asynq's server", error))?;
        self.hears
            .await
            .map_err(|error| CliError::failed("could not hear asynq's server", error))?
    }
}

type Running = (Child, ChildStdin, Lines<BufReader<ChildStdout>>);

fn spawn(program: &Path, args: &[&str]) -> Result<Running, CliError> {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // Its log is as long as the outage; what it means is in its answers.
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let what = || format!("could not start {}", program.display());
    let mut child = child.map_err(|error| CliError::failed(what(), error))?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(CliError::new(Exit::Failed, what()));
    };
    Ok((child, input, BufReader::new(output).lines()))
}

async fn next(output: &mut Lines<BufReader<ChildStdout>>) -> Result<Option<Value>, CliError> {
    let line = output.next_line().await;
    let line = line.map_err(|error| CliError::failed("could not read what asynq says", error))?;
    let parsed = line.map(|line| serde_json::from_str(&line)).transpose();
    parsed.map_err(|error| CliError::failed("asynq said something else than JSON", error))
}
