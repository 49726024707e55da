//! One side of the demo: a server, the door to it, a producer, a worker, and what they went through.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outlast::{Connection, ErrorKind, PageRequest, QueueName, Selector, TaskState, limits};
use serde::Serialize;
use tokio::sync::{Barrier, watch};
use tokio::time::{Instant, sleep};

use super::asynq::{AsynqClient, AsynqWorker};
use super::ours::Ours;
use super::producer::{Producer, Sender};
use super::report::{Met, Report};
use super::tally::Tally;
use super::{CALM, Fault, Plan, WARM};
use crate::exit::CliError;
use crate::rig::{Door, Keeps, Server};

/// How long the demo waits for a backlog before the next fault. Ours takes a second or two.
const RECOVERY_MAX: Duration = Duration::from_secs(8);

/// How long it waits at the end for tasks that have not run.
const SETTLE_MAX: Duration = Duration::from_secs(10);

/// How long a producer's last call may take, and a worker's shutdown.
const STOP_MAX: Duration = Duration::from_secs(15);

/// How often it is looked whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Whose client and worker they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Whose {
    Outlast,
    Asynq,
}

impl Whose {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Whose::Outlast => "outlast",
            Whose::Asynq => "asynq",
        }
    }
}

/// What is seen of a side while it runs.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) whose: Whose,
    pub(crate) tally: Arc<Tally>,
    pub(crate) fault: watch::Receiver<Option<Fault>>,
}

/// A side that runs.
pub(crate) struct Side {
    seen: Seen,
    fault: watch::Sender<Option<Fault>>,
    server: Server,
    door: Door,
    work: Option<(Producer, Worker)>,
}

enum Worker {
    Outlast(Ours),
    Asynq(AsynqWorker),
}

impl Side {
    /// Starts server, worker and producer. All that they keep is in a folder of their own below `folder`.
    pub(crate) async fn start(whose: Whose, plan: &Plan, folder: &Path) -> Result<Self, CliError> {
        let folder = folder.join(whose.as_str());
        std::fs::create_dir(&folder)
            .map_err(|error| CliError::failed("could not make a folder for the server", error))?;
        let server = Server::start(&plan.server, folder.clone(), Keeps::Everything).await?;
        let door = Door::to(server.addr().to_string()).await;
        let door = door.map_err(|error| CliError::failed("could not open a port", error))?;
        let (fault, seen) = watch::channel(None);
        let tally = Arc::new(Tally::default());
        let seen = Seen { whose, tally: tally.clone(), fault: seen };
        let redis = door.addr().to_string();
        let (sender, worker) = match (whose, &plan.asynq) {
            (Whose::Asynq, Some(program)) => {
                let worker = AsynqWorker::start(program, &redis, tally.clone()).await?;
                let client = AsynqClient::start(program, &redis)?;
                (Sender::Asynq(Box::new(client)), Worker::Asynq(worker))
            }
            (Whose::Outlast | Whose::Asynq, _) => {
                let url = format!("redis://{redis}");
                let ours = Ours::start(&url, &folder, tally.clone()).await?;
                (Sender::Outlast(ours.client()), Worker::Outlast(ours))
            }
        };
        let producer = Producer::start(sender, plan.rate, tally);
        Ok(Self { seen, fault, server, door, work: Some((producer, worker)) })
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// Goes through all faults, lets everything finish, and counts. Sides wait for each other before each fault, so
    /// that all of them are offered as many tasks in the same time.
    pub(crate) async fn go_through(
        &mut self,
        plan: &Plan,
        together: &Barrier,
    ) -> Result<Report, CliError> {
        sleep(WARM).await;
        let mut faults = Vec::new();
        for fault in &plan.faults {
            together.wait().await;
            faults.push(self.meet(*fault, plan.lasts).await?);
            sleep(CALM).await;
        }
        together.wait().await;
        self.finish().await?;
        let left = self.seen.tally.left(&self.kept().await?);
        Ok(Report::new(self.seen.whose, self.seen.tally.sum(), left, faults))
    }

    async fn meet(&mut self, fault: Fault, lasts: Duration) -> Result<Met, CliError> {
        self.fault.send_replace(Some(fault));
        let before = self.door.sent();
        fault.begin(&mut self.server).await?;
        sleep(lasts).await;
        let sent = self.door.sent().since(before);
        fault.end(&mut self.server).await?;
        self.fault.send_replace(None);
        let recovery = self.seen.tally.recovery(RECOVERY_MAX).await;
        Ok(Met::new(fault, lasts, sent, recovery))
    }

    async fn finish(&mut self) -> Result<(), CliError> {
        let Some((producer, worker)) = self.work.take() else { return Ok(()) };
        producer.stop(STOP_MAX).await?;
        let begun = Instant::now();
        while begun.elapsed() < SETTLE_MAX {
            if self.seen.tally.unrun() == 0 && worker.is_settled()? {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        match worker {
            Worker::Outlast(ours) => ours.stop(STOP_MAX).await,
            Worker::Asynq(asynq) => asynq.stop(STOP_MAX).await,
        }
    }

    /// The ids that the server still has: both sides keep tasks alike, so one way to look serves for both.
    async fn kept(&self) -> Result<Vec<String>, CliError> {
        let url = format!("redis://{}", self.server.addr());
        let inspector = Connection::without_spool(&url).await?.inspector();
        let (queue, mut kept) = (QueueName::default_queue(), Vec::new());
        for state in TaskState::ALL {
            let (select, mut page) = (Selector::state(state), PageRequest::first(limits::PAGE_MAX));
            loop {
                let found = match inspector.tasks(&queue, &select, &page).await {
                    Ok(found) => found,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    Err(error) => return Err(error.into()),
                };
                kept.extend(found.items.into_iter().map(|task| task.id.to_string()));
                match found.next {
                    Some(cursor) => page.cursor = Some(cursor),
                    None => break,
                }
            }
        }
        Ok(kept)
    }

    /// Ends the server and whatever still runs; for demos that were stopped half-way, too.
    pub(crate) async fn end(mut self) -> Result<(), CliError> {
        if let Some((producer, worker)) = self.work.take() {
            producer.abort().await;
            match worker {
                Worker::Outlast(ours) => ours.abort().await,
                // Killed when it is dropped.
                Worker::Asynq(asynq) => drop(asynq),
            }
        }
        self.server.stop().await
    }
}

impl Worker {
    fn is_settled(&self) -> Result<bool, CliError> {
        match self {
            Worker::Outlast(ours) => ours.is_settled(),
            Worker::Asynq(_) => Ok(true),
        }
    }
}
