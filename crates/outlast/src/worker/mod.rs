//! The consumer's side: claims tasks, runs their handlers, reports how they ended.
//!
//! ```text
//!   claimer ──► executors ──► settler          keeper: beats, extends leases, delivers commands
//!      ▲            │             │             sweeper: moves what time has moved
//!      └── room ◄───┴── settled ◄─┘             scheduler: enqueues ticks
//! ```
//!
//! Each actor is one task with one loop; they share [`Shared`](shared::Shared) and end in the order
//! written in [`life`].

mod claimer;
mod executor;
mod exit;
mod holders;
mod keeper;
mod life;
mod options;
mod settler;
mod shared;
mod skew;
mod sweeper;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::{Backoff, GroupPolicy, QueueName, limits};
use tokio::sync::watch;

pub use life::{Phase, Summary};
pub use options::{GroupBatch, QueueOptions};

use crate::client::{Client, TaskRequest};
use crate::error::{Error, Result};
use crate::handler::{
    Around, Failure, Handler, Next, Reply, Router, Run, RunService, States, TaskInfo,
};
use crate::schedule::{Schedule, Scheduler};
use options::{Group, Hooks, StopWhen};

/// Runs tasks. Made of a client, its queues and its handlers, then run until it is told to stop.
///
/// ```
/// use outlast::{Client, RawPayload, TaskRequest, Worker};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
/// let client = Client::open("sqlite::memory:").await?;
/// client.enqueue(TaskRequest::raw("greet", "world")).await?;
/// let summary = Worker::new(&client)
///     .queue("default", 1)
///     .handle_type("greet", async |RawPayload(name): RawPayload| {
///         println!("hello {}", String::from_utf8_lossy(&name));
///     })
///     .exit_when_empty()
///     .run()
///     .await?;
/// assert_eq!(summary.succeeded, 1);
/// # Ok(()) }
/// ```
#[must_use = "a worker does nothing until it is run"]
pub struct Worker {
    client: Client,
    queues: Vec<(QueueName, QueueOptions)>,
    priority: outlast_core::pick::Priority,
    slots: usize,
    lease: Duration,
    shutdown: Duration,
    router: Router,
    states: States,
    layers: Vec<Box<dyn FnOnce(RunService) -> RunService + Send>>,
    hooks: Hooks,
    groups: Vec<Group>,
    schedules: Vec<Schedule>,
    stop_when: StopWhen,
    control: WorkerControl,
    wrong: Option<Error>,
}

/// Tells a worker what to do, from anywhere in the process.
#[derive(Clone, Debug)]
pub struct WorkerControl {
    phase: Arc<watch::Sender<Phase>>,
    scheduler: Scheduler,
}

impl WorkerControl {
    /// Claim nothing more; what runs goes on.
    pub fn quiet(&self) {
        self.advance(Phase::Quiet);
    }

    /// Shut down within the shutdown timeout.
    pub fn stop(&self) {
        self.advance(Phase::Draining);
    }

    /// Where the worker is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// The worker's schedules: add, remove.
    #[must_use]
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Phases only go forward.
    pub(crate) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let forward = to > *phase;
            *phase = to.max(*phase);
            forward
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }
}

/// Slots of one worker: each is a running future or thread.
const SLOTS_MAX: usize = 65_536;

/// A shutdown that may take as long as it likes takes at most a year.
const SHUTDOWN_MAX: Duration = Duration::from_secs(366 * 24 * 3600);

impl Worker {
    /// A worker that uses the client's connection.
    pub fn new(client: &Client) -> Self {
        let (phase, _) = watch::channel(Phase::Running);
        let control = WorkerControl {
            phase: Arc::new(phase),
            scheduler: Scheduler::new(client.connection()),
        };
        Self {
            client: client.clone(),
            queues: Vec::new(),
            priority: outlast_core::pick::Priority::Weighted,
            slots: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            lease: limits::LEASE_DEFAULT,
            shutdown: Duration::from_secs(8),
            router: Router::default(),
            states: States::default(),
            layers: Vec::new(),
            hooks: Hooks::default(),
            groups: Vec::new(),
            schedules: Vec::new(),
            stop_when: StopWhen::Told,
            control,
            wrong: None,
        }
    }

    /// Also takes tasks from this queue, with this weight (at least 1). Without any, the queue is
    /// `default`.
    pub fn queue(self, queue: &str, weight: u32) -> Self {
        self.queue_with(queue, QueueOptions { weight, ..QueueOptions::default() })
    }

    /// Also takes tasks from this queue.
    pub fn queue_with(mut self, queue: &str, options: QueueOptions) -> Self {
        let name = match QueueName::new(queue) {
            Ok(name) => name,
            Err(error) => return self.mistake(error.into()),
        };
        if options.weight == 0 || options.concurrency == Some(0) {
            return self.mistake(Error::invalid(format!(
                "queue {queue:?} has a weight or concurrency of 0: use 1 or more, or leave the queue out"
            )));
        }
        if self.queues.iter().any(|(known, _)| *known == name) {
            return self.mistake(Error::invalid(format!("queue {queue:?} is given twice")));
        }
        self.queues.push((name, options));
        self
    }

    /// Queues of greater weight come first, always; otherwise weights are shares.
    pub fn strict(mut self) -> Self {
        self.priority = outlast_core::pick::Priority::Strict;
        self
    }

    /// How many tasks run at once; the number of processors unless set.
    pub fn slots(mut self, slots: usize) -> Self {
        if !(1..=SLOTS_MAX).contains(&slots) {
            return self.mistake(Error::invalid(format!(
                "a worker of {slots} slots is none: use 1 to {SLOTS_MAX}"
            )));
        }
        self.slots = slots;
        self
    }

    /// How long a claim holds unless it is extended; 30 s unless set. It is extended four times a lease.
    pub fn lease(mut self, lease: Duration) -> Self {
        if lease < Duration::from_millis(100) {
            let lease = outlast_core::duration::format(lease);
            return self
                .mistake(Error::invalid(format!("lease {lease} is too short: use 100ms or more")));
        }
        self.lease = lease;
        self
    }

    /// How long a shutdown may take: most of it to let handlers finish, the rest to give unfinished
    /// tasks back. 8 s unless set.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown = timeout.min(SHUTDOWN_MAX);
        self
    }

    /// A value that handlers can take as [`State<T>`](crate::State).
    pub fn state<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.states.insert(Arc::new(value));
        self
    }

    /// Binds a handler to the type of its [`Payload<T>`](crate::Payload).
    pub fn handle<A: 'static, H: Handler<A>>(mut self, handler: H) -> Self {
        const {
            assert!(
                H::TASK_TYPE.is_some(),
                "this handler takes no Payload<T>, so its task type is not known: use handle_type"
            );
        }
        if let Some(task_type) = H::TASK_TYPE {
            self.router.bind(task_type, handler);
        }
        self
    }

    /// Binds a handler to a type, or to all types that begin like `image:*`. Exact types win over
    /// prefixes, longer prefixes over shorter.
    pub fn handle_type<A: 'static, H: Handler<A>>(mut self, pattern: &str, handler: H) -> Self {
        self.router.bind(pattern, handler);
        self
    }

    /// Runs `function` around every handler. The first one added is outermost.
    ///
    /// ```
    /// # use outlast::{Client, Next, Reply, Run, Worker};
    /// # fn f(worker: Worker) -> Worker {
    /// worker.around(async |run: Run, next: Next| {
    ///     let id = run.task().id.clone();
    ///     let reply = next.run(run).await;
    ///     println!("{id}: {reply:?}");
    ///     reply
    /// })
    /// # }
    /// ```
    pub fn around<F, Fut>(self, function: F) -> Self
    where
        F: Fn(Run, Next) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Reply> + Send + 'static,
    {
        self.wrap(move |inner| RunService::new(Around { function, inner }))
    }

    /// Puts a tower layer around every handler. The first one added is outermost.
    pub fn layer<L>(self, layer: L) -> Self
    where
        L: tower::Layer<RunService> + Send + 'static,
        L::Service: tower::Service<Run, Response = Reply, Error = std::convert::Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as tower::Service<Run>>::Future: Send,
    {
        self.wrap(move |inner| RunService::new(layer.layer(inner)))
    }

    fn wrap(mut self, layer: impl FnOnce(RunService) -> RunService + Send + 'static) -> Self {
        self.layers.push(Box::new(layer));
        self
    }

    /// How long to wait before retries; asynq's default unless set.
    pub fn backoff(self, backoff: Backoff) -> Self {
        self.retry_with(move |retried, _, _| backoff.delay(retried, rand::random()))
    }

    /// How long to wait before a retry, after so many earlier ones.
    pub fn retry_with<F>(mut self, delay: F) -> Self
    where
        F: Fn(u32, &Failure, &TaskInfo) -> Duration + Send + Sync + 'static,
    {
        self.hooks.delay = Arc::new(delay);
        self
    }

    /// Which failures count: one that does not is retried without spending a retry, as long as retries are
    /// left. All count unless set.
    pub fn is_failure<F>(mut self, counts: F) -> Self
    where
        F: Fn(&Failure) -> bool + Send + Sync + 'static,
    {
        self.hooks.counts = Arc::new(counts);
        self
    }

    /// Called for every failure before it is reported to the broker.
    pub fn on_error<F>(mut self, hear: F) -> Self
    where
        F: Fn(&TaskInfo, &Failure) + Send + Sync + 'static,
    {
        self.hooks.hear = Some(Arc::new(hear));
        self
    }

    /// Makes one task of the tasks that wait together in a group of this queue.
    ///
    /// The new task goes to the same queue, in the transaction that removes the members. If the function
    /// fails, the members go back to their group and are tried again.
    pub fn group<F, Fut>(mut self, queue: &str, policy: GroupPolicy, aggregate: F) -> Self
    where
        F: Fn(GroupBatch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<TaskRequest, Failure>> + Send + 'static,
    {
        match QueueName::new(queue) {
            Ok(queue) => {
                let aggregate =
                    Arc::new(move |batch| Box::pin(aggregate(batch)) as options::Aggregating);
                self.groups.push(Group { queue, policy, aggregate });
                self
            }
            Err(error) => self.mistake(error.into()),
        }
    }

    /// Enqueues tasks by this schedule while the worker runs.
    pub fn schedule(mut self, schedule: Schedule) -> Self {
        self.schedules.push(schedule);
        self
    }

    /// Ends as soon as nothing in its queues is pending, active, due or in retry: for batch jobs.
    pub fn exit_when_empty(mut self) -> Self {
        self.stop_when = StopWhen::Empty;
        self
    }

    /// Ends as soon as nothing can run at the clock's present time, whatever is due later: for tests.
    pub(crate) fn exit_when_idle(mut self) -> Self {
        self.stop_when = StopWhen::Idle;
        self
    }

    /// A handle that can be kept while the worker runs.
    #[must_use]
    pub fn control(&self) -> WorkerControl {
        self.control.clone()
    }

    /// Runs until SIGTERM or SIGINT, or until it is told to stop. SIGTSTP makes it quiet.
    ///
    /// # Errors
    /// See [`run_until`](Self::run_until).
    pub async fn run(self) -> Result<Summary> {
        let control = self.control();
        self.run_until(crate::signal::shutdown_or_quiet(move || control.quiet())).await
    }

    /// Runs until `stop` is ready, or until it is told to stop; then drains.
    ///
    /// Dropping this future drains the worker in the background, within its shutdown timeout.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a mistake made while the worker was put
    /// together; what the broker answers to the first beat. Once it runs, broker errors are waited out.
    pub async fn run_until(self, stop: impl Future<Output = ()>) -> Result<Summary> {
        // Boxed, because it holds the whole worker: callers' futures stay small.
        Box::pin(life::run(self.check()?, stop)).await
    }

    fn mistake(mut self, error: Error) -> Self {
        self.wrong.get_or_insert(error);
        self
    }

    fn check(mut self) -> Result<Self> {
        if let Some(error) = self.wrong.take() {
            return Err(error);
        }
        self.router.check(&self.states)?;
        for schedule in self.schedules.drain(..) {
            self.control.scheduler.add(schedule)?;
        }
        if self.router.is_empty() {
            if !self.groups.is_empty() || self.control.scheduler.names().is_empty() {
                return Err(Error::invalid(
                    "a worker without handlers runs nothing: call handle or handle_type",
                ));
            }
            // It only keeps schedules: claiming tasks would fail them for lack of a handler.
            self.queues.clear();
        } else if self.queues.is_empty() {
            self.queues.push((QueueName::default_queue(), QueueOptions::default()));
        }
        Ok(self)
    }
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("queues", &self.queues)
            .field("slots", &self.slots)
            .finish_non_exhaustive()
    }
}
