//! Runs tasks by what the configuration binds to their types: commands and HTTP endpoints, so that
//! handlers can be written in any language.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlast::{
    Cancel, CancelReason, Failure, Phase, Reply, Run as TaskRun, TaskRecord, WorkerControl,
    duration,
};
use rustix::process::Signal;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{HandlerConfig, Run, find_program};

mod exec;
mod facts;
pub(crate) mod group;
mod http;
mod pipes;

use exec::{End, Exec, Input, Ran};
use http::{Answer, Http};

/// How long a task waits in its slot for a handler that is busy: enough for tasks of short runs to follow
/// each other, and so short that tasks of other types hardly notice.
const BUSY_WAIT: Duration = Duration::from_millis(50);

/// How long a task sleeps at least that found its handler busy. It sleeps up to twice as long, or tasks
/// that were turned away together would come back together.
const BUSY_SNOOZE: Duration = Duration::from_millis(500);

/// How long a run that died of somebody's SIGTERM or SIGINT waits for the worker to hear of the same
/// signal: it was sent to both at once, but nobody says who gets it first.
const NEWS_WAIT: Duration = Duration::from_millis(200);

/// How often it looks.
const NEWS_EVERY: Duration = Duration::from_millis(5);

/// The same where tasks are given back instead: they are claimed again at once.
const BUSY_WAIT_LONG: Duration = Duration::from_secs(1);

/// What becomes of a task that found its handler busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Busy {
    /// It sleeps, so that tasks of other types run.
    Snooze,
    /// It is given back: a worker that ends when nothing is left would take a task that sleeps for one
    /// that is scheduled, and end without it.
    Release,
}

/// A handler of the configuration, ready to run tasks.
#[derive(Debug)]
pub(crate) struct Runner {
    how: How,
    timeout: Option<Duration>,
    snooze: Duration,
    /// A permit for each task that may run at once, where that is limited.
    limit: Option<Arc<Semaphore>>,
    busy: Busy,
}

#[derive(Debug)]
enum How {
    Command(Exec),
    Http(Http),
}

/// Why a run is broken off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// The handler's own timeout.
    Timeout(Duration),
    /// What the worker says: the task's timeout, a cancel, a lost lease, a shutdown.
    Cancelled(CancelReason),
}

impl Runner {
    /// The runner of a handler.
    ///
    /// # Errors
    /// A program that cannot be found; the text says why.
    pub(crate) fn new(
        handler: &HandlerConfig,
        client: &reqwest::Client,
        config: Option<&Path>,
        path: Option<&OsStr>,
        busy: Busy,
    ) -> Result<Self, String> {
        let output_max = handler.output_max.value;
        let how = match &handler.run.value {
            Run::Command(words) => {
                let (program, args) = words.split_first().ok_or("command is empty")?;
                let program = find_program(program, config, path)?;
                How::Command(Exec { program, args: args.to_vec(), output_max })
            }
            Run::Url(url) => How::Http(Http::new(client.clone(), url.clone(), output_max)),
        };
        let permits = handler.concurrency.as_ref().map(|most| most.value as usize);
        Ok(Self {
            how,
            timeout: handler.timeout.as_ref().map(|timeout| timeout.value),
            snooze: handler.snooze.value,
            limit: permits.map(|most| Arc::new(Semaphore::new(most))),
            busy,
        })
    }

    /// Runs one task.
    pub(crate) async fn run(&self, run: TaskRun, cancel: Cancel, worker: &WorkerControl) -> Reply {
        let Ok(_permit) = self.permit(&cancel).await else {
            return Reply::Failed(match self.busy {
                Busy::Snooze => Failure::snooze(busy_snooze()),
                Busy::Release => Failure::release(),
            });
        };
        let stop = async {
            tokio::select! {
                reason = cancel.cancelled() => Stop::Cancelled(reason),
                limit = elapsed(self.timeout) => Stop::Timeout(limit),
            }
        };
        match &self.how {
            How::Command(exec) => self.command(exec, run.task(), stop, worker).await,
            How::Http(http) => self.post(http, run.task(), stop).await,
        }
    }

    /// Waits a while for the right to run; `Err` if the handler stays busy, or the run is cancelled.
    async fn permit(&self, cancel: &Cancel) -> Result<Option<OwnedSemaphorePermit>, ()> {
        let Some(limit) = &self.limit else { return Ok(None) };
        let wait = match self.busy {
            Busy::Snooze => BUSY_WAIT,
            Busy::Release => BUSY_WAIT_LONG,
        };
        let free = tokio::time::timeout(wait, limit.clone().acquire_owned());
        tokio::select! {
            permit = free => permit.map_err(|_| ())?.map(Some).map_err(|_| ()),
            _ = cancel.cancelled() => Err(()),
        }
    }

    async fn command(
        &self,
        exec: &Exec,
        task: &TaskRecord,
        stop: impl Future<Output = Stop>,
        worker: &WorkerControl,
    ) -> Reply {
        let input = Input { payload: task.payload.clone(), env: facts::environment(task) };
        let ran = match exec.run(input, stop).await {
            Ok(ran) => ran,
            Err(error) if error.is_final() => return Reply::Failed(Failure::archive(error)),
            Err(error) => return Reply::Failed(Failure::retry(error)),
        };
        if let Some(total) = ran.cut_from {
            let (id, kept) = (&task.id, ran.stdout.len());
            tracing::warn!(%id, total, kept, "the command printed more than is kept as the result");
        }
        // A signal for the worker's whole group hits a command that has no group of its own yet.
        let is_end = |signal: i32| [Signal::TERM, Signal::INT].iter().any(|s| s.as_raw() == signal);
        match ran.end {
            End::Signal(signal) if is_end(signal) && shuts_down(worker).await => {
                Reply::Failed(Failure::release())
            }
            _ => self.command_reply(ran),
        }
    }

    fn command_reply(&self, ran: Ran<Stop>) -> Reply {
        let Ran { end, stdout, stderr, .. } = ran;
        let said = |what: String| match stderr.trim() {
            "" => what,
            stderr => format!("{what}: {stderr}"),
        };
        match end {
            End::Exit(0) => Reply::Done(Some(stdout).filter(|stdout| !stdout.is_empty())),
            End::Exit(65) => Reply::Failed(Failure::archive(said("exit status 65".into()))),
            End::Exit(66) => Reply::Failed(Failure::revoke()),
            End::Exit(75) => Reply::Failed(Failure::snooze(self.snooze)),
            End::Exit(code) => Reply::Failed(Failure::retry(said(format!("exit status {code}")))),
            End::Signal(signal) => {
                Reply::Failed(Failure::retry(said(format!("killed by signal {signal}"))))
            }
            End::Stopped(stop) => stopped(stop, said),
        }
    }

    async fn post(
        &self,
        http: &Http,
        task: &TaskRecord,
        stop: impl Future<Output = Stop>,
    ) -> Reply {
        let answer = tokio::select! {
            answer = http.call(facts::request(task)) => answer,
            stop = stop => return stopped(stop, |what| what),
        };
        match answer {
            Answer::Done { body, is_cut } => {
                if is_cut {
                    let (id, kept) = (&task.id, body.len());
                    tracing::warn!(%id, kept, "the endpoint answered more than is kept as the result");
                }
                Reply::Done(Some(body).filter(|body| !body.is_empty()))
            }
            Answer::Archive { error } => Reply::Failed(Failure::archive(error)),
            Answer::Retry { error, after: None } => Reply::Failed(Failure::retry(error)),
            Answer::Retry { error, after: Some(after) } => {
                Reply::Failed(Failure::retry_in(after, error))
            }
        }
    }
}

/// What becomes of a task whose run was broken off. Why it was cancelled is the worker's to say; it puts
/// its reason before our text.
fn stopped(stop: Stop, said: impl Fn(String) -> String) -> Reply {
    Reply::Failed(match stop {
        Stop::Cancelled(CancelReason::Shutdown) => Failure::release(),
        Stop::Cancelled(_) => Failure::retry(said("the handler was stopped".into())),
        Stop::Timeout(limit) => {
            Failure::retry(said(format!("timed out after {}", duration::format(limit))))
        }
    })
}

/// Between [`BUSY_SNOOZE`] and twice as long. The keys of a hash map are random enough for that.
fn busy_snooze() -> Duration {
    let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    // The upper half of the bits, so that it fits and keeps 32 of them.
    let share = (random >> 32) as f64 / f64::from(u32::MAX);
    BUSY_SNOOZE + BUSY_SNOOZE.mul_f64(share)
}

/// Whether the worker shuts down, or begins to within a moment.
async fn shuts_down(worker: &WorkerControl) -> bool {
    let draining = async {
        while worker.phase() < Phase::Draining {
            tokio::time::sleep(NEWS_EVERY).await;
        }
    };
    tokio::time::timeout(NEWS_WAIT, draining).await.is_ok()
}

async fn elapsed(limit: Option<Duration>) -> Duration {
    match limit {
        Some(limit) => {
            tokio::time::sleep(limit).await;
            limit
        }
        None => std::future::pending().await,
    }
}

/// The HTTP client that all endpoints share.
pub(crate) fn http_client() -> Result<reqwest::Client, reqwest::Error> {
    http::client()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_were_turned_away_together_come_back_one_after_another() {
        let snoozes: Vec<Duration> = std::iter::repeat_with(busy_snooze).take(20).collect();
        assert!(snoozes.iter().all(|snooze| (BUSY_SNOOZE..=2 * BUSY_SNOOZE).contains(snooze)));
        assert!(snoozes.iter().any(|snooze| *snooze != snoozes[0]), "{snoozes:?}");
    }
}
