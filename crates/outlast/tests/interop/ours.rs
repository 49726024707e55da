//! A worker of ours that does what a task's type asks for, as Go's does, and remembers what it was handed.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast::{
    Cancel, CancelReason, Client, Clock, Failure, ResultWriter, Run, State, Summary, TaskRecord,
    Timestamp, Worker, WorkerControl,
};
use tokio::task::JoinHandle;

use super::world::until;

/// A running worker.
pub(crate) struct Ours {
    pub(crate) control: WorkerControl,
    pub(crate) seen: Seen,
    running: JoinHandle<outlast::Result<Summary>>,
}

/// What its handlers saw.
#[derive(Clone)]
pub(crate) struct Seen {
    runs: Arc<Mutex<Vec<Ran>>>,
    clock: Clock,
}

/// One run of a task.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) task: TaskRecord,
    pub(crate) attempt: u32,
    pub(crate) deadline: Timestamp,
    pub(crate) at: Timestamp,
    pub(crate) cancelled: Option<(Timestamp, CancelReason)>,
}

impl Ours {
    pub(crate) fn start(
        client: &Client,
        clock: &Clock,
        with: impl FnOnce(Worker) -> Worker,
    ) -> Self {
        let seen = Seen { runs: Arc::default(), clock: clock.clone() };
        let worker = Worker::new(client)
            .slots(10)
            .shutdown_timeout(Duration::from_secs(1))
            .retry_with(|_, _, _| Duration::from_secs(1))
            .state(seen.clone())
            .handle_type("*", behave)
            .handle_type("listen", listen);
        let worker = with(worker);
        let control = worker.control();
        let running = tokio::spawn(worker.run_until(std::future::pending()));
        Self { control, seen, running }
    }

    /// The first run of a task that `fits`.
    pub(crate) async fn run_when(&self, id: &str, fits: impl Fn(&Ran) -> bool) -> Ran {
        until(&format!("our run of {id}"), async || {
            let runs = self.seen.runs.lock().unwrap();
            runs.iter().find(|ran| ran.task.id.as_str() == id && fits(ran)).cloned()
        })
        .await
    }

    /// The first run of a task.
    pub(crate) async fn run(&self, id: &str) -> Ran {
        self.run_when(id, |_| true).await
    }

    /// All runs so far.
    pub(crate) fn runs(&self) -> Vec<Ran> {
        self.seen.runs.lock().unwrap().clone()
    }

    /// Ends it and says what it did.
    pub(crate) async fn stop(self) -> Summary {
        self.control.stop();
        self.running.await.unwrap().unwrap()
    }
}

impl Seen {
    fn begins(&self, run: &Run) {
        let ran = Ran {
            task: run.task().clone(),
            attempt: run.attempt(),
            deadline: run.deadline(),
            at: self.clock.now(),
            cancelled: None,
        };
        self.runs.lock().unwrap().push(ran);
    }

    fn is_cancelled(&self, run: &Run, why: CancelReason) {
        let mut runs = self.runs.lock().unwrap();
        let ran = runs.iter_mut().rev().find(|ran| ran.task.id == run.task().id).unwrap();
        ran.cancelled = Some((self.clock.now(), why));
    }
}

/// `VERB:ARGUMENT`, as in `interop/README.md`.
async fn behave(State(seen): State<Seen>, run: Run, writer: ResultWriter) -> Result<(), Failure> {
    seen.begins(&run);
    let kind = run.task().task_type.as_str();
    let (verb, argument) = kind.split_once(':').unwrap_or((kind, ""));
    match verb {
        "fail" => Err(Failure::retry(argument)),
        "panic" => panic!("{argument}"),
        "skip_retry" => Err(Failure::archive(argument)),
        "revoke" => Err(Failure::revoke()),
        "flaky" if run.task().retried < argument.parse().unwrap() => Err(Failure::retry("flaky")),
        "hang" => std::future::pending().await,
        "write_result" => writer.write(argument.to_owned()),
        "echo" => writer.write(run.task().payload.clone()),
        _ => Ok(()),
    }
}

/// Runs until it is cancelled, and says when it heard of it.
async fn listen(State(seen): State<Seen>, run: Run, cancel: Cancel) -> Result<(), Failure> {
    seen.begins(&run);
    let why = cancel.cancelled().await;
    seen.is_cancelled(&run, why);
    Err(Failure::retry("told"))
}
