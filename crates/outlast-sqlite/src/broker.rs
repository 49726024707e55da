//! The broker: each verb of [`Broker`] on its way to the writer or the readers.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Durability, Enqueued, Epoch, Extended,
    GroupLooks, Health, Hold, Home, Interest, Memory, NewTask, QueueName, Role, Settled,
    Settlement, Stamp, SweepBudget, Swept, Timestamp, Want, Woke,
};
use rusqlite::Connection;

use crate::error::{self, Fail};
use crate::gate::Gate;
use crate::hub::Hub;
use crate::live::Live;
use crate::open::{self, Options, Site, Synchronous};
use crate::reader::Readers;
use crate::watch::Watch;
use crate::writer::{self, Disk, Tx, Writer};
use crate::{beat, claim, enqueue, extend, settle, sweep, wait};

/// A broker in one SQLite file, or in memory. Clones share it; several processes may open one file.
///
/// ```
/// use outlast_sqlite::SqliteBroker;
/// let broker = SqliteBroker::memory()?;
/// assert!(broker.path().is_none());
/// # Ok::<(), outlast_core::BrokerError>(())
/// ```
#[derive(Clone)]
pub struct SqliteBroker {
    inner: Arc<Inner>,
}

struct Inner {
    site: Option<Site>,
    home: Home,
    level: Durability,
    archive_max: usize,
    epoch: String,
    writer: Writer,
    peek: Box<dyn Fn() + Send + Sync>,
    /// `None` in memory: there everything goes through the writer's connection.
    readers: Option<Readers>,
    hub: Arc<Hub>,
    group_looks: Arc<GroupLooks>,
    watch: OnceLock<Option<Watch>>,
}

impl std::fmt::Debug for SqliteBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteBroker").field("home", &self.inner.home).finish_non_exhaustive()
    }
}

impl SqliteBroker {
    /// Opens a database file, `:memory:` included. Blocks for a few system calls.
    ///
    /// # Errors
    /// Unavailable if the file cannot be opened, misconfigured if it may not be written or is of a newer
    /// version or another program, corrupt if it is no database, busy if others keep it locked or the
    /// disk is full.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, BrokerError> {
        let path = path.as_ref();
        if path == Path::new(":memory:") {
            return Self::start(open::open_memory()?, None, None, Durability::Memory, &options);
        }
        let (conn, site) = open::open_file(path, &options)?;
        let gate = Gate::open(&site.beside(".lock"), site.options.busy_timeout)
            .map_err(|error| error::from_io("could not open the write gate", error))?;
        let level = match options.synchronous {
            Synchronous::Full => Durability::Synced,
            Synchronous::Normal => Durability::Accepted,
        };
        Self::start(conn, Some(site), Some(gate), level, &options)
    }

    /// A database in memory, gone with its last clone: for tests.
    ///
    /// # Errors
    /// If SQLite is too old or a thread cannot be started.
    pub fn memory() -> Result<Self, BrokerError> {
        Self::open(":memory:", Options::default())
    }

    fn start(
        conn: Connection,
        site: Option<Site>,
        gate: Option<Gate>,
        level: Durability,
        options: &Options,
    ) -> Result<Self, BrokerError> {
        let epoch = open::epoch(&conn)
            .map_err(|error| error::from_sqlite("could not read the epoch", error))?;
        let home = match &site {
            Some(site) => Home(format!("sqlite://{}", site.name()).into()),
            None => Home(format!("sqlite::memory:#{epoch}").into()),
        };
        let hub = Arc::new(Hub::default());
        let live = site.as_ref().map(|site| Live::new(site.beside(".live")));
        let readers = site.as_ref().map(Readers::start).transpose()?;
        let writer = Writer::start(conn, gate, live, Arc::clone(&hub))?;
        let peek = writer.peek();
        let (group_looks, watch) = (Arc::default(), OnceLock::new());
        let archive_max = options.archive_max;
        let inner = Inner {
            site,
            home,
            level,
            archive_max,
            epoch,
            writer,
            peek,
            readers,
            hub,
            group_looks,
            watch,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The file, or `None` in memory.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        self.inner.site.as_ref().map(|site| site.file.clone())
    }

    /// Answers what is queued, writes the log back and ends the writer. Every later call of any clone
    /// answers [`Unavailable`](outlast_core::Kind::Unavailable).
    pub async fn close(&self) {
        // The writer last: the last connection to go writes the log back and removes it.
        if let Some(readers) = &self.inner.readers {
            readers.close().await;
        }
        self.inner.writer.close().await;
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.inner.hub
    }

    pub(crate) fn group_looks(&self) -> &Arc<GroupLooks> {
        &self.inner.group_looks
    }

    pub(crate) fn peek(&self) {
        (self.inner.peek)();
    }

    /// Watches for other processes from the first waiter on; false if waiters have to poll.
    pub(crate) fn watch(&self) -> bool {
        let Some(site) = &self.inner.site else { return true };
        let start = || Watch::start(&site.beside(".lock"), self.inner.writer.peek());
        self.inner.watch.get_or_init(start).is_some()
    }

    /// Runs a verb in the writer.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        what: &'static str,
        weight: usize,
        work: impl FnMut(&mut Tx<'_>) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.inner.writer.call(what, (weight, Disk::Now), work).await
    }

    /// Runs a verb in the writer that a power cut may undo, see [`Disk::Later`].
    async fn write_later<T: Send + 'static>(
        &self,
        what: &'static str,
        weight: usize,
        work: impl FnMut(&mut Tx<'_>) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, BrokerError> {
        self.inner.writer.call(what, (weight, Disk::Later), work).await
    }

    /// Runs a question beside the writer, or within it where there is but one connection.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&Connection) -> Result<T, Fail> + Send + 'static,
    ) -> Result<T, BrokerError> {
        match &self.inner.readers {
            Some(readers) => readers.read(what, work).await,
            None => {
                let within = move |tx: &mut Tx<'_>| {
                    // What the verbs before this one have counted belongs to the picture.
                    tx.tally.flush(tx.conn)?;
                    work(tx.conn)
                };
                self.inner.writer.call(what, (1, Disk::Later), within).await
            }
        }
    }
}

#[async_trait]
impl Broker for SqliteBroker {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let (queue, level) = (queue.clone(), self.inner.level);
        let weight = writer::weight(tasks.len(), enqueue::bytes(&tasks));
        self.write("could not enqueue", weight, move |tx| {
            enqueue::enqueue(tx, &queue, &stamp, now, &tasks, level)
        })
        .await
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        let (queue, want) = (queue.clone(), want.clone());
        let weight = writer::weight(want.tasks_max, 0);
        let group_looks = Arc::clone(&self.inner.group_looks);
        self.write_later("could not claim", weight, move |tx| {
            group_looks.looked(&queue, now, &want.groups);
            claim::claim(tx, &queue, &stamp, now, &want)
        })
        .await
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let queue = queue.clone();
        self.write("could not settle", settlements.len(), move |tx| {
            settle::settle(tx, &queue, &stamp, now, &settlements)
        })
        .await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        let queue = queue.clone();
        self.write_later("could not extend", holds.len(), move |tx| {
            extend::extend(tx, &queue, now, &holds, by)
        })
        .await
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        let queue = queue.clone();
        let (weight, archive_max) = (budget.moves_max, self.inner.archive_max);
        self.write("could not sweep", weight, move |tx| {
            sweep::sweep(tx, &queue, now, budget, archive_max)
        })
        .await
    }

    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        wait::wait(self, interest, now, at_most).await
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        let (beat, weight) = (beat.clone(), 1 + beat.schedules.len() + beat.ticks.len());
        self.write("could not beat", weight, move |tx| beat::beat(tx, now, &beat)).await
    }

    fn home(&self, _queue: &QueueName) -> Home {
        self.inner.home.clone()
    }

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        if *home != self.inner.home {
            let what = format!("home {:?} is not this broker's {:?}", home.0, self.inner.home.0);
            return Err(BrokerError::rejected(what));
        }
        let probe = self.write("could not write a probe", 1, move |tx| probe(tx, now)).await;
        let role = match probe {
            Ok(()) => Role::Primary,
            Err(error) if error::is_read_only(&error) => Role::Replica,
            Err(error) => return Err(error),
        };
        let epoch = Epoch(self.inner.epoch.clone());
        let software = format!("sqlite {}", rusqlite::version());
        let (run, memory) = (String::new(), Memory::default());
        Ok(Health { role, clock: None, epoch, run, software, memory })
    }
}

fn probe(tx: &mut Tx<'_>, now: Timestamp) -> Result<(), Fail> {
    tx.conn
        .prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES ('probe', ?1)")?
        .execute([now.as_millis().to_string()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SQLite's name for the level of the running transaction: 1 normal, 2 full.
    fn level(tx: &mut Tx<'_>) -> Result<i64, Fail> {
        Ok(tx.conn.query_row("PRAGMA synchronous", [], |row| row.get(0))?)
    }

    #[tokio::test]
    async fn whoever_waits_for_the_disk_gets_it_also_after_one_who_does_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let broker = SqliteBroker::open(folder.path().join("t.db"), Options::default());
        let broker = broker.expect("opens");
        for _ in 0..2 {
            assert_eq!(broker.write("could not look", 1, level).await.ok(), Some(2));
            assert_eq!(broker.write_later("could not look", 1, level).await.ok(), Some(1));
        }
        let (full, later) = tokio::join!(
            broker.write("could not look", 1, level),
            broker.write_later("could not look", 1, level),
        );
        assert_eq!(full.ok(), Some(2));
        assert!(later.is_ok_and(|level| level >= 1), "it may share the other's transaction");
    }

    #[tokio::test]
    async fn an_owner_who_chose_less_is_never_made_to_wait() {
        let folder = tempfile::tempdir().expect("a folder");
        let less = Options { synchronous: Synchronous::Normal, ..Options::default() };
        let broker = SqliteBroker::open(folder.path().join("t.db"), less).expect("opens");
        assert_eq!(broker.write_later("could not look", 1, level).await.ok(), Some(1));
        assert_eq!(broker.write("could not look", 1, level).await.ok(), Some(1));
    }
}
