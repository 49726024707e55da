//! What is a process here? A runtime of its own with a clock that stands still until it is moved, the real spool on a real
//! disk, and a way to the broker that can be spoiled. Killed, it is dropped with all its tasks wherever they wait.
//!
//! All processes live on one thread and take turns, a tick of virtual time each. The one thing that does not stand still with
//! them is the thread that writes the spool: at the end of a turn the process waits until that thread rests, so that a write to the
//! disk takes less than a tick, and no time passes while it is under way.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use outlast::survive::{Survive, Survivor};
use outlast::{Client, Clock, Connection, Timestamp};
use outlast_core::Broker;
use outlast_testkit::fault::FaultBroker;
use outlast_testkit::model::ModelBroker;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;

/// How far time moves in one turn of all processes.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// How often a process runs until it rests, in one tick: what the disk has answered is heard in the same tick, and what follows
/// from it.
const RESTS: usize = 3;

pub(crate) struct Process {
    runtime: Runtime,
    /// Rung whenever nothing is left to do but wait.
    rests: Arc<Notify>,
    writer: Thread,
    clock: Clock,
    pub(crate) client: Client,
    pub(crate) way: Arc<FaultBroker>,
}

impl Process {
    /// Starts a process of the machine whose spool this is.
    pub(crate) fn start(
        spool: &Path,
        now: Timestamp,
        (broker, model): (Arc<dyn Broker>, Arc<ModelBroker>),
    ) -> Self {
        let rests = Arc::new(Notify::new());
        let writer = Arc::new(OnceLock::<Thread>::new());
        let (rung, written) = (rests.clone(), writer.clone());
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || {
                if let Some(writer) = written.get() {
                    writer.until_it_rests();
                }
                rung.notify_waiters();
            })
            .build()
            .unwrap();
        let way = Arc::new(FaultBroker::new(broker));
        let clock = Clock::manual(now);
        let connection = Connection::of_halves("model:", way.clone(), model);
        let connection = connection.with_clock(clock.clone());
        let before = Thread::all();
        let opened = runtime.block_on(connection.survive(Survive::new(spool)));
        let client = {
            let _entered = runtime.enter();
            opened.unwrap().client()
        };
        let thread = Thread::beside(&before);
        writer.set(thread.clone()).unwrap();
        Self { runtime, rests, writer: thread, clock, client, way }
    }

    pub(crate) fn survivor(&self) -> &Survivor {
        self.client.connection().survivor().unwrap()
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(task);
    }

    /// Its turn: everything that can happen in this time happens.
    pub(crate) fn turn(&self, time: Duration) {
        self.clock.advance(time);
        self.runtime.block_on(async {
            tokio::time::advance(time).await;
            for _ in 0..RESTS {
                self.rests.notified().await;
            }
        });
    }

    /// SIGKILL: nothing more is said or written, but what the disk already has.
    pub(crate) fn kill(self) {
        let Self { runtime, client, writer, .. } = self;
        drop(runtime);
        drop(client);
        // What the disk had been told before is written; nobody is left to tell it more.
        writer.until_it_rests();
    }
}

/// A thread that writes a spool, as the system shows it.
#[derive(Clone, Debug, PartialEq)]
struct Thread(PathBuf);

impl Thread {
    fn all() -> Vec<Self> {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
        let writes = |task: &PathBuf| {
            fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == "outlast-spool")
        };
        tasks.filter(writes).map(Self).collect()
    }

    /// The one that is new: it says its name a moment after it has begun.
    fn beside(before: &[Self]) -> Self {
        loop {
            if let Some(thread) = Self::all().into_iter().find(|thread| !before.contains(thread)) {
                return thread;
            }
            std::thread::yield_now();
        }
    }

    /// `pid (name) S …` is a thread that waits to be told something.
    fn until_it_rests(&self) {
        let rests =
            |stat: String| stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with('S'));
        while !fs::read_to_string(self.0.join("stat")).is_ok_and(rests) && self.0.exists() {
            std::thread::yield_now();
        }
    }
}

/// Numbers that go on when a process is killed: whoever comes after it counts from there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Count(Arc<AtomicU64>);

impl Count {
    pub(crate) fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

/// Lets virtual time pass.
pub(crate) async fn pass(time: Duration) {
    let _ = tokio::time::timeout(time, std::future::pending::<()>()).await;
}
