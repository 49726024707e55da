//! A server of one's own, a producer, a worker, and what is counted: every task by its id.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use outlast::survive::{Status, Survive};
use outlast::{Client, Connection, PageRequest, QueueName, Repair, Run, Selector, Summary};
use outlast::{TaskRequest, TaskState, Worker};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::history::{History, Step};

/// Longer than any recovery, on the busiest of build machines.
const AT_LAST: Duration = Duration::from_secs(60);

/// How long the broker shows that a task was done: longer than any test.
const SHOWN: Duration = Duration::from_secs(3600);

/// Runs whose outcomes are on their way at a moment: those of the worker's slots, and as many again.
const UNREPORTED: usize = 16;

/// Tasks that are read at a time.
const PAGE: usize = 500;

/// One outage.
pub(crate) struct World {
    pub(crate) server: RedisServer,
    pub(crate) connection: Connection,
    /// One that goes on, as a process has: its lanes tell of what the server has forgotten.
    pub(crate) client: Client,
    pub(crate) history: Arc<History>,
    /// The server comes back without what it had acknowledged. Runs that it had not been told of are repeated then.
    pub(crate) forgets: bool,
    /// Tasks that the server cannot take, whatever happens.
    pub(crate) unfit: u64,
    folder: TempDir,
}

/// What a producer met.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Produced {
    pub(crate) longest: Duration,
    pub(crate) stored: u64,
    pub(crate) refused: u64,
}

impl World {
    /// A world on the address of the server, or on another one before it.
    pub(crate) async fn at(server: RedisServer, url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let survive = Survive::new(folder.path().join("outbox.db"));
        let connection = Connection::surviving(url, survive).await.unwrap();
        let client = connection.client();
        Self {
            server,
            connection,
            client,
            history: Arc::default(),
            forgets: false,
            unfit: 0,
            folder,
        }
    }

    pub(crate) async fn new() -> Option<Self> {
        let server = RedisServer::or_skip(RedisServer::builder().persistent().start())?;
        let url = server.url();
        Some(Self::at(server, &url).await)
    }

    /// A world that reaches its server through a proxy, which counts what is sent. What the test itself asks of the server does not
    /// pass there.
    pub(crate) async fn behind_a_proxy() -> Option<(Self, TcpProxy)> {
        let server = RedisServer::or_skip(RedisServer::builder().persistent().start())?;
        let proxy = TcpProxy::start(server.addr()).await.unwrap();
        let world = Self::at(server, &proxy.url()).await;
        Some((world, proxy))
    }

    pub(crate) fn status(&self) -> Status {
        self.connection.survivor().unwrap().status().unwrap()
    }

    /// Enqueues a task every five milliseconds until it is told to stop.
    pub(crate) fn produce(&self, name: &'static str) -> Producing {
        let (client, history) = (self.connection.client(), self.history.clone());
        let (stop, mut stopped) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(async move {
            let (mut produced, mut pace) = (Produced::default(), every(Duration::from_millis(5)));
            for n in 0_u32.. {
                tokio::select! {
                    _ = &mut stopped => break,
                    _ = pace.tick() => {}
                }
                let id = format!("{name}-{n}");
                let begun = Instant::now();
                history.add(&id, Step::Invoked);
                let request = TaskRequest::raw("count", "").id(&id).retention(SHOWN);
                let told = Step::told(&client.enqueue(request).await);
                history.add(&id, told);
                produced.stored += u64::from(told == Step::Stored);
                produced.refused += u64::from(matches!(told, Step::Refused | Step::Unclear));
                produced.longest = produced.longest.max(begun.elapsed());
            }
            produced
        });
        Producing { stop, task }
    }

    /// Works until it is told to stop, and counts.
    pub(crate) fn work(&self) -> Working {
        let history = self.history.clone();
        let worker = Worker::new(&self.connection.client()).slots(8);
        let worker = worker.handle_type("count", move |run: Run| {
            let (history, id) = (history.clone(), run.task().id.to_string());
            history.add(&id, Step::Begun);
            async move { history.add(&id, Step::Ended) }
        });
        let control = worker.control();
        Working { control, task: tokio::spawn(worker.run()) }
    }

    /// Waits for something to become true, and says how long it took.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        let mut look = every(Duration::from_millis(5));
        while !is(self) {
            look.tick().await;
            assert!(begun.elapsed() < AT_LAST, "{what}: {:?}", self.status());
        }
        begun.elapsed()
    }

    /// Lets time pass, as outages do.
    pub(crate) async fn pass(&self, time: Duration) {
        let mut pass = interval(time);
        pass.tick().await;
        pass.tick().await;
    }

    /// Waits until every accepted task has run and nothing is left on the disk, then holds the invariants against what happened.
    pub(crate) async fn check(&self) {
        let is_over = |world: &Self| {
            let status = world.status();
            world.history.is_done() && status.outbox.items + status.journal.items == 0
        };
        self.until("every accepted task has run", is_over).await;
        let left = self.left().await;
        let mut violations = self.history.violations(&left);
        if self.forgets {
            let (repeats, others): (Vec<_>, Vec<_>) =
                violations.into_iter().partition(|said| said.starts_with("I3"));
            assert!(repeats.len() <= UNREPORTED, "{}: {repeats:?}", repeats.len());
            violations = others;
        }
        assert!(
            violations.is_empty(),
            "{}: {:#?}",
            violations.len(),
            &violations[..violations.len().min(5)]
        );
        let counts = self.status().counts;
        assert!(counts.quarantined <= self.unfit && counts.dropped == 0, "{counts:?}");
        // An outcome that is offered again to a server that has forgotten the task as well finds no lease.
        assert!(self.forgets || counts.lease_lost == 0, "{counts:?}");
        self.assert_sound().await;
    }

    /// What the broker still has, once none of it is under way: outcomes are applied a moment after a run has ended.
    async fn left(&self) -> BTreeMap<String, TaskState> {
        let begun = Instant::now();
        loop {
            let left = self.tasks().await;
            let is_over = left
                .values()
                .all(|state| matches!(state, TaskState::Completed | TaskState::Archived));
            if is_over || begun.elapsed() > AT_LAST {
                return left;
            }
            self.pass(Duration::from_millis(100)).await;
        }
    }

    async fn tasks(&self) -> BTreeMap<String, TaskState> {
        let (inspector, mut found) = (self.connection.inspector(), BTreeMap::new());
        for state in TaskState::ALL {
            let select = Selector::state(state);
            let mut page = PageRequest::first(PAGE);
            loop {
                let tasks = inspector.tasks(&QueueName::default_queue(), &select, &page).await;
                let tasks = tasks.unwrap();
                found.extend(tasks.items.into_iter().map(|task| (task.id.to_string(), task.state)));
                match tasks.next {
                    Some(next) => page.cursor = Some(next),
                    None => break,
                }
            }
        }
        found
    }

    /// I7: what the server holds is sound.
    pub(crate) async fn assert_sound(&self) {
        let now = || self.connection.clock().now();
        for queue in self.connection.fsck_queues().await.unwrap() {
            let mut check = self.connection.fsck(&queue, Repair::No).unwrap();
            while let Some(step) = check.step(now()).await.unwrap() {
                assert!(step.findings.is_empty(), "I7: {:?}", step.findings);
            }
        }
        assert!(self.folder.path().exists());
    }

    pub(crate) fn accepted(&self) -> usize {
        self.history.sum().accepted
    }
}

/// Waits as a bound on failure, never as a way to pass.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(AT_LAST, future).await.ok()
}

pub(crate) fn every(time: Duration) -> tokio::time::Interval {
    let mut every = interval(time);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

pub(crate) struct Producing {
    stop: tokio::sync::oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Produced>,
}

impl Producing {
    pub(crate) async fn stop(self) -> Produced {
        let _ = self.stop.send(());
        self.task.await.unwrap()
    }
}

pub(crate) struct Working {
    control: outlast::WorkerControl,
    task: tokio::task::JoinHandle<outlast::Result<Summary>>,
}

impl Working {
    pub(crate) async fn stop(self) -> Summary {
        self.control.stop();
        tokio::time::timeout(AT_LAST, self.task).await.unwrap().unwrap().unwrap()
    }
}
