//! Outlast in the demo: a client and a worker on one connection that outlives outages, as in any program that uses
//! the library.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlast::survive::Survive;
use outlast::{Client, Connection, Run, Summary, TaskRequest, Verdict, Worker, WorkerControl};
use tokio::task::JoinHandle;

use super::tally::{Answer, Tally, id};
use super::{RUN, SLOTS};
use crate::exit::CliError;

/// The type of the tasks.
const TYPE: &str = "demo";

/// A connection and the worker on it.
pub(crate) struct Ours {
    connection: Connection,
    control: WorkerControl,
    worker: JoinHandle<outlast::Result<Summary>>,
}

impl Ours {
    /// Starts a worker on the server behind `url`; what the server cannot take waits in `folder`.
    pub(crate) async fn start(
        url: &str,
        folder: &Path,
        tally: Arc<Tally>,
    ) -> Result<Self, CliError> {
        let survive = Survive::new(folder.join("outbox.db"));
        let connection = Connection::surviving(url, survive).await?;
        let worker = Worker::new(&connection.client()).slots(SLOTS);
        let worker = worker.handle_type(TYPE, move |run: Run| {
            tally.run(run.task().id.as_str());
            tokio::time::sleep(RUN)
        });
        let control = worker.control();
        Ok(Self { connection, control, worker: tokio::spawn(worker.run()) })
    }

    pub(crate) fn client(&self) -> Client {
        self.connection.client()
    }

    /// True if nothing waits on this machine's disk.
    pub(crate) fn is_settled(&self) -> Result<bool, CliError> {
        let Some(survivor) = self.connection.survivor() else { return Ok(true) };
        let status = survivor.status();
        let status =
            status.map_err(|error| CliError::failed("could not read the outbox", error))?;
        Ok(status.outbox.items + status.journal.items == 0)
    }

    /// Lets the worker finish and report.
    pub(crate) async fn stop(self, at_most: Duration) -> Result<(), CliError> {
        self.control.stop();
        let stopped = tokio::time::timeout(at_most, self.worker).await;
        let ended = stopped.map_err(|late| CliError::failed("the worker does not end", late))?;
        ended.map_err(|error| CliError::failed("the worker broke down", error))??;
        self.connection.close().await;
        Ok(())
    }

    /// Ends it wherever it is, so that nothing is written to its folder any more.
    pub(crate) async fn abort(self) {
        self.worker.abort();
        // What it answers is that it was aborted.
        let _ = self.worker.await;
        self.connection.close().await;
    }
}

/// Enqueues one task and says what its caller was told.
pub(crate) async fn enqueue(client: &Client, number: usize) -> Answer {
    match client.enqueue(TaskRequest::raw(TYPE, "").id(&id(number))).await {
        Ok(receipt) if receipt.verdict == Verdict::Stored => Answer::Stored,
        Ok(receipt) if receipt.is_accepted() => Answer::Accepted,
        Ok(receipt) => {
            tracing::error!(%receipt, "an enqueue was refused");
            Answer::Refused
        }
        Err(error) => {
            tracing::error!(%error, "an enqueue failed");
            Answer::Refused
        }
    }
}
