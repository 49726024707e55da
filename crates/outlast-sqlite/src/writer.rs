//! The one thread that writes, and its group commit: it takes every verb that waits, runs them in one
//! transaction, commits once, and then answers them all. Sixty-four callers share one fsync.
//!
//! A verb that fails changes nothing while the others go on: the shared transaction is rolled back and
//! each verb runs again in a transaction of its own. That is rare (a full disk, a damaged page), and
//! cheaper than a savepoint around each verb, which would be paid every time. So a verb may run twice,
//! but is committed at most once, and keeps nothing from the run that was rolled back.

use std::sync::Arc;

use outlast_core::{BrokerError, Kind, QueueName};
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{self, Fail};
use crate::gate::{Gate, Held};
use crate::housekeeping::Rounds;
use crate::hub::{Hub, News};
use crate::live::Live;
use crate::schema;
use crate::tally::Tally;

/// Verbs that wait for the writer before callers are made to wait: more would only be memory.
const WAITING_MAX: usize = 1024;

/// Where a shared transaction is closed, in tasks (512 bytes of payload count as one more): about
/// 10 ms of work, and what one transaction keeps in memory before it is written.
const GROUP_WEIGHT_MAX: usize = 8192;

/// How often the writer looks again, giving way in between, before it begins with a group that is
/// smaller than the last one: about 10 µs on an idle machine, a tenth of a commit.
const GATHER_MOMENTS: usize = 20;

/// What a verb sees of the running transaction.
pub(crate) struct Tx<'a> {
    pub(crate) conn: &'a Connection,
    pub(crate) tally: Tally,
    pub(crate) news: News,
    pub(crate) live: Option<&'a Live>,
    pub(crate) rounds: &'a mut Rounds,
}

/// When a verb must be on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disk {
    /// Before it is answered.
    Now,
    /// With the next verb that must be: a power cut may undo it, a killed process does not. For claims and
    /// extensions: undone, a task is pending again, and whoever had claimed it is gone with the power. Its
    /// settlement syncs the log up to and with the claim.
    Later,
}

/// A verb on its way to the writer.
trait Work: Send {
    /// Runs the verb and keeps its answer. An error asks for a rollback.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Fail>;
    /// Answers the caller: the kept answer, or why the transaction failed.
    fn answer(self: Box<Self>, committed: Result<(), BrokerError>);
    fn weight(&self) -> usize;
    fn disk(&self) -> Disk;
    fn what(&self) -> &'static str;
}

enum Job {
    Verb(Box<dyn Work>),
    /// Look whether another process has committed.
    Peek,
    Close,
}

/// The way to the writer thread.
pub(crate) struct Writer {
    jobs: mpsc::Sender<Job>,
    ended: watch::Receiver<bool>,
}

/// The broker was closed by this process.
#[derive(Debug, thiserror::Error)]
#[error("broker is closed")]
struct Closed;

struct Call<T, F> {
    what: &'static str,
    weight: usize,
    disk: Disk,
    work: F,
    result: Option<Result<T, BrokerError>>,
    reply: oneshot::Sender<Result<T, BrokerError>>,
}

impl<T, F> Work for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Result<T, Fail> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), Fail> {
        self.result = None;
        match (self.work)(tx) {
            Ok(value) => self.result = Some(Ok(value)),
            Err(Fail::Refused(error)) => self.result = Some(Err(error)),
            Err(failed) => return Err(failed),
        }
        Ok(())
    }

    fn answer(self: Box<Self>, committed: Result<(), BrokerError>) {
        let answer = match (committed, self.result) {
            // A refusal wrote nothing, so it stands whatever became of the transaction.
            (_, Some(Err(refused))) => Err(refused),
            (Ok(()), Some(Ok(value))) => Ok(value),
            (Ok(()), None) => Err(BrokerError::new(Kind::Unavailable, "could not run the verb")),
            (Err(error), _) => Err(error),
        };
        // A caller that no longer listens has dropped its future: the verb is applied all the same.
        let _ = self.reply.send(answer);
    }

    fn weight(&self) -> usize {
        self.weight
    }

    fn disk(&self) -> Disk {
        self.disk
    }

    fn what(&self) -> &'static str {
        self.what
    }
}

impl Writer {
    /// Starts the thread. It ends when the last [`Writer`] is gone or closed.
    pub(crate) fn start(
        conn: Connection,
        gate: Option<Gate>,
        live: Option<Live>,
        hub: Arc<Hub>,
    ) -> Result<Self, BrokerError> {
        let (jobs, inbox) = mpsc::channel(WAITING_MAX);
        let (end, ended) = watch::channel(false);
        let rounds = Rounds::default();
        let is_full = gate.is_some() && is_full(&conn);
        let (gathered, version, disk) = (0, None, Disk::Now);
        let thread =
            Thread { conn, gate, live, hub, inbox, rounds, gathered, version, is_full, disk };
        let run = move || {
            thread.run();
            // Seen by `close`; without a closer nobody listens.
            let _ = end.send(true);
        };
        std::thread::Builder::new()
            .name("outlast-sqlite-writer".into())
            .spawn(run)
            .map_err(|error| error::from_io("could not start the writer thread", error))?;
        Ok(Self { jobs, ended })
    }

    /// Runs a verb in the next transaction and answers after its commit. Dropping the future is safe:
    /// the verb is then applied or not, but never in part.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        (weight, disk): (usize, Disk),
        work: impl FnMut(&mut Tx<'_>) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, BrokerError> {
        let (reply, answer) = oneshot::channel();
        let call = Call { what, weight, disk, work, result: None, reply };
        if self.jobs.send(Job::Verb(Box::new(call))).await.is_err() {
            return Err(BrokerError::new(Kind::Unavailable, what).with_source(Closed));
        }
        answer.await.unwrap_or_else(|_| {
            let why = format!("{what}: the writer ended before it answered");
            Err(BrokerError::new(Kind::Ambiguous, why))
        })
    }

    /// Asks the writer to look for commits of other processes, unless it is busy anyway: it looks at
    /// the beginning of every transaction.
    pub(crate) fn peek(&self) -> Box<dyn Fn() + Send + Sync> {
        let jobs = self.jobs.downgrade();
        Box::new(move || {
            if let Some(jobs) = jobs.upgrade() {
                let _ = jobs.try_send(Job::Peek);
            }
        })
    }

    /// Answers what is queued, checkpoints and ends the thread.
    pub(crate) async fn close(&self) {
        let _ = self.jobs.send(Job::Close).await;
        let mut ended = self.ended.clone();
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

struct Thread {
    conn: Connection,
    gate: Option<Gate>,
    live: Option<Live>,
    hub: Arc<Hub>,
    inbox: mpsc::Receiver<Job>,
    rounds: Rounds,
    /// How many verbs were in the last group.
    gathered: usize,
    version: Option<i64>,
    /// The file is to be synced at all; in memory, and where its owner chose less, nothing is.
    is_full: bool,
    /// What the connection is set to.
    disk: Disk,
}

/// Why a transaction was not committed.
enum Trouble {
    /// No verb can be named: the lock could not be had, or the outcome of the commit is open.
    All(BrokerError),
    /// A verb failed, or there was no room at the commit; everything was rolled back.
    Verb(Fail),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Trouble::Verb(Fail::Sql(error))
    }
}

impl Thread {
    fn run(mut self) {
        let mut open = true;
        while open && let Some(job) = self.inbox.blocking_recv() {
            let mut group = Group::default();
            open = group.add(job);
            open = open && self.gather(&mut group);
            self.gathered = group.verbs.len();
            self.serve(group);
        }
        self.end();
    }

    /// Takes every verb that waits. The callers of the last group are about to send their next ones:
    /// so a group that is smaller than the last one gives them a moment. A caller that is alone never
    /// waits. False if the broker is to be closed.
    fn gather(&mut self, group: &mut Group) -> bool {
        let mut moments = 0;
        loop {
            while group.weight < GROUP_WEIGHT_MAX
                && let Ok(job) = self.inbox.try_recv()
            {
                if !group.add(job) {
                    return false;
                }
                moments = 0;
            }
            let is_full = group.weight >= GROUP_WEIGHT_MAX;
            if is_full || group.verbs.len() >= self.gathered || moments >= GATHER_MOMENTS {
                return true;
            }
            moments += 1;
            std::thread::yield_now();
        }
    }

    fn serve(&mut self, group: Group) {
        if group.verbs.is_empty() {
            if group.peek {
                self.look_around();
            }
            return;
        }
        self.apply(group.verbs);
    }

    /// Runs verbs in one transaction, or each in its own if one of them fails, and answers them.
    fn apply(&mut self, mut verbs: Vec<Box<dyn Work>>) {
        match self.transact(&mut verbs) {
            Ok(()) => verbs.into_iter().for_each(|verb| verb.answer(Ok(()))),
            Err(Trouble::All(error)) => {
                verbs.into_iter().for_each(|verb| verb.answer(Err(error.clone())));
            }
            Err(Trouble::Verb(error)) => match <[_; 1]>::try_from(verbs) {
                Ok([verb]) => {
                    let error = error.into_error(verb.what());
                    verb.answer(Err(error));
                }
                Err(verbs) => verbs.into_iter().for_each(|verb| self.apply(vec![verb])),
            },
        }
    }

    fn transact(&mut self, verbs: &mut [Box<dyn Work>]) -> Result<(), Trouble> {
        let held = self.enter()?;
        let result = self.run_all(verbs);
        if result.is_err() && !self.conn.is_autocommit() {
            // If even the rollback fails, the next BEGIN says so.
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        if let (Some(gate), Some(held)) = (&self.gate, held) {
            if result.as_ref().is_ok_and(News::is_for_others) {
                gate.ring();
            }
            gate.leave(held);
        }
        self.hub.publish(&result?);
        Ok(())
    }

    fn enter(&mut self) -> Result<Option<Held>, Trouble> {
        let Some(gate) = &mut self.gate else { return Ok(None) };
        match gate.enter() {
            Ok(Some(held)) => Ok(Some(held)),
            Ok(None) => {
                let what = "could not begin a write: another process keeps the database locked";
                let source = std::io::Error::from(std::io::ErrorKind::WouldBlock);
                Err(Trouble::All(BrokerError::new(Kind::Busy, what).with_source(source)))
            }
            Err(error) => Err(Trouble::All(error::from_io("could not lock the write gate", error))),
        }
    }

    /// Tells SQLite whether the next commit waits for the disk.
    fn set_disk(&mut self, verbs: &[Box<dyn Work>]) -> Result<(), Trouble> {
        let wanted = match verbs.iter().any(|verb| verb.disk() == Disk::Now) {
            true => Disk::Now,
            false => Disk::Later,
        };
        if self.is_full && wanted != self.disk {
            execute(
                &self.conn,
                match wanted {
                    Disk::Now => "PRAGMA synchronous = FULL",
                    Disk::Later => "PRAGMA synchronous = NORMAL",
                },
            )?;
            self.disk = wanted;
        }
        Ok(())
    }

    fn run_all(&mut self, verbs: &mut [Box<dyn Work>]) -> Result<News, Trouble> {
        self.set_disk(verbs)?;
        execute(&self.conn, "BEGIN IMMEDIATE")
            .map_err(|e| Trouble::All(error::from_sqlite("could not begin a write", e)))?;
        let foreign = self.version_changed().map_err(Trouble::from)?;
        if foreign {
            // A newer program may have brought the file to its schema while we had it open.
            schema::check(&self.conn).map_err(Trouble::All)?;
        }
        let mut tx = Tx {
            conn: &self.conn,
            tally: Tally::default(),
            news: News::new(foreign),
            live: self.live.as_ref(),
            rounds: &mut self.rounds,
        };
        for verb in verbs {
            verb.run(&mut tx).map_err(Trouble::Verb)?;
        }
        tx.tally.flush(&self.conn).map_err(Trouble::from)?;
        let news = tx.news;
        execute(&self.conn, "COMMIT").map_err(|error| {
            if error::kind_of_commit(&error) == Kind::Ambiguous {
                Trouble::All(error::from_commit(error))
            } else {
                Trouble::from(error)
            }
        })?;
        Ok(news)
    }

    /// True if another connection has committed since the last look. The first look cannot know.
    fn version_changed(&mut self) -> Result<bool, rusqlite::Error> {
        let version = self
            .conn
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get::<_, i64>(0))?;
        let before = self.version.replace(version);
        Ok(before != Some(version))
    }

    fn look_around(&mut self) {
        match self.version_changed() {
            Ok(false) => {}
            Ok(true) => self.hub.publish(&News::new(true)),
            // Looked too early is harmless, slept too long is not.
            Err(error) => {
                tracing::warn!(%error, "could not see whether others have written");
                self.hub.publish(&News::new(true));
            }
        }
    }

    fn end(mut self) {
        self.refuse_the_rest();
        if let Some(live) = &self.live {
            live.end(|instance| self.has_workers(instance));
        }
        if self.gate.is_some() {
            let checkpoint = self.conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
            if let Err(error) = checkpoint {
                tracing::warn!(%error, "could not checkpoint while closing");
            }
        }
        if let Err((_, error)) = self.conn.close() {
            tracing::warn!(%error, "could not close the database");
        }
    }
}

impl Thread {
    /// What came after the close was never begun, and is told so.
    fn refuse_the_rest(&mut self) {
        self.inbox.close();
        while let Ok(job) = self.inbox.try_recv() {
            if let Job::Verb(verb) = job {
                let closed = format!("{}: broker is closed", verb.what());
                verb.answer(Err(BrokerError::new(Kind::Unavailable, closed)));
            }
        }
    }

    /// True if workers of this instance have not said that they are gone: then the free lock is what
    /// tells the others.
    fn has_workers(&self, instance: &str) -> bool {
        let found = self.conn.query_row(
            "SELECT EXISTS (SELECT 1 FROM worker WHERE instance = ?1 AND gone = 0)",
            [instance],
            |row| row.get(0),
        );
        found.unwrap_or(true)
    }
}

#[derive(Default)]
struct Group {
    verbs: Vec<Box<dyn Work>>,
    weight: usize,
    peek: bool,
}

impl Group {
    /// Takes a job; false if it is the last one.
    fn add(&mut self, job: Job) -> bool {
        match job {
            Job::Verb(verb) => {
                self.weight += verb.weight();
                self.verbs.push(verb);
                true
            }
            Job::Peek => {
                self.peek = true;
                true
            }
            Job::Close => false,
        }
    }
}

/// True if commits on this connection wait for the disk.
fn is_full(conn: &Connection) -> bool {
    conn.query_row("PRAGMA synchronous", [], |row| row.get::<_, i64>(0))
        .is_ok_and(|level| level >= 2)
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(|_| ())
}

/// The weight of tasks with `bytes` of payload, see [`GROUP_WEIGHT_MAX`].
pub(crate) fn weight(tasks: usize, bytes: usize) -> usize {
    tasks + bytes / 512
}

impl Tx<'_> {
    /// The queue has something to claim, unless it is paused.
    pub(crate) fn ready(&mut self, queue: &QueueName) {
        if !self.tally.is_paused(queue) {
            self.news.ready(queue);
        }
    }

    /// The queue has something due at `at`, unless it is paused.
    pub(crate) fn due(&mut self, queue: &QueueName, at: i64) {
        if !self.tally.is_paused(queue) {
            self.news.due(queue, at);
        }
    }
}
