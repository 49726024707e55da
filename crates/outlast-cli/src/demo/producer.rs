//! The producer of one side: a task at a time, at a steady pace, each call awaited and timed as a request handler would.

use std::sync::Arc;
use std::time::Duration;

use outlast::Client;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;

use super::asynq::AsynqClient;
use super::ours;
use super::tally::{Answer, Tally};
use crate::exit::CliError;

/// Whose client it is.
pub(crate) enum Sender {
    Outlast(Client),
    Asynq(Box<AsynqClient>),
}

impl Sender {
    async fn enqueue(&mut self, number: usize) -> Result<Answer, CliError> {
        match self {
            Sender::Outlast(client) => Ok(ours::enqueue(client, number).await),
            Sender::Asynq(client) => client.enqueue(number).await,
        }
    }
}

/// A producer that runs.
pub(crate) struct Producer {
    stop: CancellationToken,
    task: JoinHandle<Result<(), CliError>>,
}

impl Producer {
    /// Enqueues so many tasks a second. What a slow call delays is caught up with: both sides of the demo offer as
    /// many tasks, as far as their callers are not held up for good.
    pub(crate) fn start(mut sender: Sender, rate: u32, tally: Arc<Tally>) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let mut pace = interval(Duration::from_secs(1) / rate);
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return Ok(()),
                    _ = pace.tick() => {}
                }
                let Some(number) = tally.offer() else { return Ok(()) };
                let begun = Instant::now();
                let answer = sender.enqueue(number).await?;
                tally.answer(number, answer, begun.elapsed());
            }
        });
        Self { stop, task }
    }

    /// Waits for the call that is under way, so long at most.
    pub(crate) async fn stop(self, at_most: Duration) -> Result<(), CliError> {
        self.stop.cancel();
        let abort = self.task.abort_handle();
        match timeout(at_most, self.task).await {
            Ok(ended) => {
                ended.map_err(|error| CliError::failed("the producer broke down", error))?
            }
            // Its caller still waits: the task has no answer, and is counted as offered only.
            Err(_) => {
                abort.abort();
                Ok(())
            }
        }
    }

    /// Ends it wherever it is.
    pub(crate) async fn abort(self) {
        self.task.abort();
        // What it answers is that it was aborted.
        let _ = self.task.await;
    }
}
