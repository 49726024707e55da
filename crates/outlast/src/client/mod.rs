//! The producer's side: enqueue one task or many, and get a receipt for each.

mod alone;
mod batcher;
mod receipt;
mod request;

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;

use outlast_core::broker::EnqueueVerdict;
use outlast_core::{NewTask, QueueName, TaskId, TaskState, Timestamp, limits};
use outlast_survive::OnOutage;

pub use receipt::{Receipt, Verdict};
pub use request::{Task, TaskRequest};

use crate::error::{Error, Result};
use crate::{Clock, Connection, Inspector};
use batcher::{Batcher, Job};

/// Enqueues tasks. Cheap to clone; the calls of all clones coalesce into batches.
///
/// ```
/// use outlast::{Client, TaskRequest};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
/// let client = Client::open("sqlite::memory:").await?;
/// let receipt = client.enqueue(TaskRequest::raw("email:welcome", r#"{"user":42}"#)).await?;
/// assert!(receipt.is_accepted());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    batchers: Arc<Batchers>,
    payload_max: usize,
    on_outage: OnOutage,
}

impl Client {
    /// Opens the broker behind `url` and makes a client of it.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    ///
    /// # Errors
    /// See [`Connection::open`].
    pub async fn open(url: &str) -> Result<Self> {
        Ok(Self::new(&Connection::open(url).await?))
    }

    /// A client of an open connection. Its calls are gathered by a task of the runtime it is made in; when
    /// that runtime ends, they answer [`ErrorKind::Stopped`](crate::ErrorKind::Stopped).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn new(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            batchers: Arc::new(Batchers::new(connection)),
            payload_max: limits::PAYLOAD_BYTES_DEFAULT,
            on_outage: OnOutage::Store,
        }
    }

    /// The same client with another answer to an outage, for tasks that say nothing themselves
    /// ([`OnOutage::Store`] unless set). On a connection that keeps nothing on the disk
    /// ([`Connection::without_spool`](crate::Connection::without_spool)) tasks fail, whatever this says.
    #[must_use]
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = on_outage;
        self
    }

    /// The same client with another payload limit (1 MiB unless set, at most
    /// [`PAYLOAD_BYTES_MAX`](limits::PAYLOAD_BYTES_MAX)).
    #[must_use]
    pub fn payload_max(mut self, bytes: usize) -> Self {
        self.payload_max = bytes.min(limits::PAYLOAD_BYTES_MAX);
        self
    }

    /// The connection it uses.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The read-and-administer side of the same broker.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        self.connection.inspector()
    }

    /// Enqueues a task when awaited; options can be set before.
    ///
    /// Dropping the future after it was polled may leave the task enqueued.
    pub fn enqueue(&self, task: impl Into<TaskRequest>) -> Enqueue {
        Enqueue { client: self.clone(), request: task.into() }
    }

    /// Enqueues many tasks and answers with one receipt each, in order. A task that is wrong in itself
    /// is [`Verdict::Rejected`] and does not hold up the others. A clone of a request has the same id: see
    /// [`TaskRequest::fresh_id`] for a list of tasks that are alike.
    ///
    /// # Errors
    /// What the broker answers for the first batch that failed, once all of them have been answered.
    /// The list travels in batches of at most 256 tasks of one queue, and each is stored as a whole or not
    /// at all, so the others may well have been stored.
    ///
    /// The list can be enqueued again, from a clone made before: what was stored is then an
    /// [`IdConflict`](Verdict::IdConflict), because the ids are the same. That holds while the first task
    /// is in the queue, [retention](TaskRequest::retention) included; one that may be done and gone by
    /// then runs once more, unless it carries a [`once`](TaskRequest::once) key. Dropping the future
    /// leaves open which batches are stored, too.
    pub async fn enqueue_all(&self, requests: Vec<TaskRequest>) -> Result<Vec<Receipt>> {
        let now = self.connection.clock.now();
        let mut receipts: Vec<Option<Receipt>> = Vec::with_capacity(requests.len());
        let mut parts: Vec<Part> = Vec::new();
        for (place, request) in requests.into_iter().enumerate() {
            let (id, queue) = (request.task_id().cloned(), request.queue_name().clone());
            let on_outage = request.outage_answer().unwrap_or(self.on_outage);
            match request.resolve(now, self.payload_max) {
                Ok((queue, task)) => {
                    receipts.push(None);
                    add(&mut parts, (queue, on_outage), place, task);
                }
                Err(error) => receipts.push(Some(Receipt::rejected(id, queue, &error))),
            }
        }
        self.send(parts, now, &mut receipts).await?;
        Ok(receipts.into_iter().flatten().collect())
    }

    /// Hands every part to the batcher at once, then collects all their answers: after an error nothing
    /// is under way any more that could meet its own repetition.
    async fn send(
        &self,
        parts: Vec<Part>,
        now: Timestamp,
        receipts: &mut [Option<Receipt>],
    ) -> Result<()> {
        let (mut waiting, mut failed) = (Vec::with_capacity(parts.len()), None);
        for part in parts {
            let shown: Vec<Shown> = part.tasks.iter().map(|task| Shown::of(task, now)).collect();
            let (job, answer) = Job::new(part.line.clone(), part.tasks);
            if let Err(error) = self.batchers.of(part.line.1).submit(job).await? {
                failed.get_or_insert(Error::from(error));
                continue;
            }
            waiting.push((part.line.0, part.places, shown, answer));
        }
        for (queue, places, shown, answer) in waiting {
            let verdicts = match answer.get().await? {
                Ok(verdicts) => verdicts,
                Err(error) => {
                    failed.get_or_insert(Error::from(error));
                    continue;
                }
            };
            for ((place, shown), verdict) in places.into_iter().zip(shown).zip(verdicts) {
                receipts[place] = Some(shown.receipt(queue.clone(), verdict));
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Who waits for a broker that is away keeps a lane all that time: those who do not wait have lanes of their own.
#[derive(Debug)]
struct Batchers {
    prompt: Batcher,
    patient: Batcher,
}

impl Batchers {
    fn new(connection: &Connection) -> Self {
        let batcher = || Batcher::new(connection.clone());
        Self { prompt: batcher(), patient: batcher() }
    }

    fn of(&self, on_outage: OnOutage) -> &Batcher {
        match on_outage {
            OnOutage::Wait(_) => &self.patient,
            _ => &self.prompt,
        }
    }
}

/// Tasks of one queue that travel together, with their places in the caller's list.
struct Part {
    line: (QueueName, OnOutage),
    tasks: Vec<NewTask>,
    places: Vec<usize>,
    bytes: usize,
}

/// Adds a task to the last open part of its queue, or opens a new one: a part is one batch at most.
fn add(parts: &mut Vec<Part>, line: (QueueName, OnOutage), place: usize, task: NewTask) {
    let size = task.payload.len();
    let open = parts.iter_mut().rev().take(OPEN_PARTS).find(|part| {
        part.line == line
            && part.tasks.len() < limits::BATCH_TASKS_MAX
            && part.bytes + size <= limits::BATCH_BYTES_MAX
    });
    match open {
        Some(part) => {
            part.tasks.push(task);
            part.places.push(place);
            part.bytes += size;
        }
        None => parts.push(Part { line, tasks: vec![task], places: vec![place], bytes: size }),
    }
}

/// How far back a part may be found open: a list that alternates among more queues than this makes
/// smaller batches, and the search stays short.
const OPEN_PARTS: usize = 32;

/// What a receipt shows of a task that has been handed over.
struct Shown {
    id: TaskId,
    state: TaskState,
    due: Option<Timestamp>,
}

impl Shown {
    fn of(task: &NewTask, now: Timestamp) -> Self {
        Self { id: task.id.clone(), state: task.first_state(now), due: task.due }
    }

    fn receipt(self, queue: QueueName, verdict: EnqueueVerdict) -> Receipt {
        let verdict = Verdict::from(verdict);
        let accepted = matches!(verdict, Verdict::Accepted { .. } | Verdict::Stored);
        let due = self.due.filter(|_| accepted && self.state == TaskState::Scheduled);
        Receipt { id: self.id, queue, state: accepted.then_some(self.state), due, verdict }
    }
}

/// A task about to be enqueued: set options, then await it.
///
/// ```
/// # use outlast::{Client, TaskRequest};
/// # use std::time::Duration;
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
/// # let client = Client::open("sqlite::memory:").await?;
/// let receipt = client
///     .enqueue(TaskRequest::raw("report", ""))
///     .with(|request| request.queue("reports").delay(Duration::from_secs(60)))
///     .await?;
/// assert_eq!(receipt.queue.as_str(), "reports");
/// # Ok(()) }
/// ```
#[must_use = "nothing is enqueued until this is awaited"]
#[derive(Debug)]
pub struct Enqueue {
    client: Client,
    request: TaskRequest,
}

impl Enqueue {
    /// Sets options by [`TaskRequest`]'s own methods.
    pub fn with(mut self, set: impl FnOnce(TaskRequest) -> TaskRequest) -> Self {
        self.request = set(self.request);
        self
    }

    /// See [`TaskRequest::queue`].
    pub fn queue(self, queue: &str) -> Self {
        self.with(|request| request.queue(queue))
    }

    /// See [`TaskRequest::id`].
    pub fn id(self, id: &str) -> Self {
        self.with(|request| request.id(id))
    }

    /// See [`TaskRequest::delay`].
    pub fn delay(self, delay: std::time::Duration) -> Self {
        self.with(|request| request.delay(delay))
    }

    /// See [`TaskRequest::at`].
    pub fn at(self, due: Timestamp) -> Self {
        self.with(|request| request.at(due))
    }

    /// See [`TaskRequest::on_outage`].
    pub fn on_outage(self, on_outage: OnOutage) -> Self {
        self.with(|request| request.on_outage(on_outage))
    }

    /// See [`TaskRequest::unique`].
    pub fn unique(self, ttl: std::time::Duration) -> Self {
        self.with(|request| request.unique(ttl))
    }

    async fn send(self) -> Result<Receipt> {
        let now = self.client.connection.clock.now();
        let on_outage = self.request.outage_answer().unwrap_or(self.client.on_outage);
        let (queue, task) = self.request.resolve(now, self.client.payload_max)?;
        let shown = Shown::of(&task, now);
        let line = (queue, on_outage);
        let verdict = self.client.batchers.of(on_outage).enqueue(&line, task).await?;
        Ok(shown.receipt(line.0, verdict))
    }
}

impl IntoFuture for Enqueue {
    type Output = Result<Receipt>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Receipt>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

/// The clock is the connection's; a client that outlives a test's clock would tell another time.
impl AsRef<Clock> for Client {
    fn as_ref(&self) -> &Clock {
        self.connection.clock()
    }
}
