//! A server of one's own, a producer, a worker, and what is counted: every task by its id.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast::survive::{Status, Survive};
use outlast::{Connection, Run, Summary, TaskRequest, Worker};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Longer than any recovery, on the busiest of build machines.
const AT_LAST: Duration = Duration::from_secs(60);

/// One outage.
pub(crate) struct World {
    pub(crate) server: RedisServer,
    pub(crate) connection: Connection,
    accepted: Arc<Mutex<BTreeSet<String>>>,
    runs: Arc<Mutex<BTreeMap<String, u32>>>,
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
        Self { server, connection, accepted: Arc::default(), runs: Arc::default(), folder }
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
        let (client, accepted) = (self.connection.client(), self.accepted.clone());
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
                match client.enqueue(TaskRequest::raw("count", "").id(&id)).await {
                    Ok(receipt) => {
                        assert!(receipt.is_accepted(), "{receipt}");
                        produced.stored += u64::from(receipt.verdict == outlast::Verdict::Stored);
                        accepted.lock().unwrap().insert(id);
                    }
                    Err(_) => produced.refused += 1,
                }
                produced.longest = produced.longest.max(begun.elapsed());
            }
            produced
        });
        Producing { stop, task }
    }

    /// Works until it is told to stop, and counts.
    pub(crate) fn work(&self) -> Working {
        let runs = self.runs.clone();
        let worker = Worker::new(&self.connection.client()).slots(8);
        let worker = worker.handle_type("count", move |run: Run| {
            *runs.lock().unwrap().entry(run.task().id.to_string()).or_default() += 1;
            async {}
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

    /// Waits until every accepted task has run and nothing is left on the disk, then counts.
    pub(crate) async fn check(&self) {
        let all_ran = |world: &Self| {
            let accepted = world.accepted.lock().unwrap();
            let runs = world.runs.lock().unwrap();
            let status = world.status();
            accepted.iter().all(|id| runs.contains_key(id))
                && status.outbox.items + status.journal.items == 0
        };
        self.until("every accepted task has run", all_ran).await;
        let runs = self.runs.lock().unwrap();
        let repeated: Vec<_> = runs.iter().filter(|(_, runs)| **runs > 1).collect();
        assert!(repeated.is_empty(), "{} of {}: {repeated:?}", repeated.len(), runs.len());
        let counts = self.status().counts;
        assert_eq!(counts.quarantined + counts.dropped + counts.lease_lost, 0, "{counts:?}");
        assert!(self.folder.path().exists());
    }

    pub(crate) fn accepted(&self) -> usize {
        self.accepted.lock().unwrap().len()
    }
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
