//! What could not be delivered, on disk: one SQLite file, shared by all processes of a machine.
//!
//! A call answers once its change is fsynced. Items of a queue keep their order. What is sent is first
//! formed into a batch, numbered, and fsynced: form → number → fsync → send. Whoever is killed between any
//! two steps leaves a batch that is repeated under its own stamp, and the broker knows whether it had it.

mod error;
mod line;
mod losses;
mod mark;
mod notices;
mod open;
mod owner;
mod people;
mod reader;
mod right;
mod tasks;
mod writer;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::limits::BATCH_TASKS_MAX;
use outlast_core::{Durability, QueueName, SessionId, Stamp, Timestamp};
use rusqlite::{Connection, params};
use tokio::sync::{Notify, watch};

pub use error::{SpoolError, SpoolErrorKind};
pub(crate) use line::{Dropped, PutAway};
pub(crate) use losses::Loss;
pub use notices::Notice;
pub use people::{Quarantined, Stored, Waiting};
pub use tasks::{Shelf, StoredTask};

use mark::Mark;
use reader::Reader;
pub(crate) use right::Deliverer;
use writer::Writer;

/// Which of the two stores an item is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Store {
    /// Tasks that could not be enqueued.
    Outbox,
    /// Settlements that could not be applied.
    Journal,
}

impl Store {
    /// The store's name, as logs and messages have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Store::Outbox => "outbox",
            Store::Journal => "journal",
        }
    }

    /// As the file has it.
    fn number(self) -> i64 {
        match self {
            Store::Outbox => 0,
            Store::Journal => 1,
        }
    }
}

/// How large each store may become, and what happens then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpoolLimits {
    /// Items at most: a million tasks are an hour of outage at 280 a second.
    pub items_max: u64,
    /// Bytes of records at most.
    pub bytes_max: u64,
    /// A task that is older is not sent any more but put into quarantine. `once` keys must be remembered
    /// longer than this, or a late delivery would be a second one. Outcomes have no age.
    pub age_max: Duration,
    /// What happens when there is no room.
    pub when_full: WhenFull,
}

impl Default for SpoolLimits {
    fn default() -> Self {
        Self {
            items_max: 1_000_000,
            bytes_max: 1 << 30,
            age_max: Duration::from_secs(7 * 24 * 3600),
            when_full: WhenFull::Reject,
        }
    }
}

/// What happens to a task for which the outbox has no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenFull {
    /// It is refused, with a typed error.
    #[default]
    Reject,
    /// Its caller waits for room, this long at most, and is refused then.
    Block(Duration),
    /// The oldest tasks are dropped, counted and reported. Only for whoever prefers new tasks to old ones.
    DropOldest,
}

/// An item to be stored.
#[derive(Clone, Debug)]
pub(crate) struct NewItem {
    /// The task's id.
    pub(crate) name: String,
    pub(crate) record: Vec<u8>,
}

/// Items to be stored, in this order.
#[derive(Clone, Debug)]
pub(crate) struct Parcel {
    pub(crate) store: Store,
    pub(crate) queue: QueueName,
    pub(crate) now: Timestamp,
    pub(crate) durability: Durability,
    /// The stamp under which they may have reached the broker; `None` if nothing has.
    pub(crate) stamp: Option<Stamp>,
    pub(crate) items: Arc<[NewItem]>,
}

/// A batch to be sent exactly as it is.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) id: i64,
    pub(crate) stamp: Stamp,
    pub(crate) stamped_at: Timestamp,
    /// It was formed just now: nobody has sent it.
    pub(crate) is_fresh: bool,
    pub(crate) items: Vec<Item>,
}

/// An item of a batch.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) record: Vec<u8>,
}

/// What a call that stored a parcel has done.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The parcel's batch, if it came with a stamp.
    pub(crate) batch: Option<i64>,
    /// The number of its last item.
    pub(crate) last: i64,
    /// Names of those that were dropped to make room.
    pub(crate) dropped: Vec<String>,
}

/// One open spool. Cheap to clone; clones share it.
#[derive(Clone)]
pub struct Spool {
    writer: Writer,
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    /// Whose tasks it may store and deliver; `None` for one that is only looked at.
    broker: Option<String>,
    limits: SpoolLimits,
    reader: Mutex<Reader>,
    /// Batches that this process is sending itself: the drain leaves them alone.
    own: Mutex<HashSet<i64>>,
    /// What was seen of a process that delivers.
    seen: Mutex<right::Seen>,
    /// Rung when something was stored.
    stored: Notify,
    /// Rung when something has left.
    room: Notify,
    /// How much that need not be there is still on its way into the file, or out of it again.
    forgetting: watch::Sender<usize>,
}

impl std::fmt::Debug for Spool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Spool {
    /// Opens a spool to be looked at, whosever it is, and makes it if it is not there. Its folder must exist. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`SpoolErrorKind::Misconfigured`] for a file that may not be written or is not ours.
    pub fn open(path: impl Into<PathBuf>, limits: SpoolLimits) -> Result<Self, SpoolError> {
        Self::open_as(path.into(), limits, None)
    }

    /// Opens a spool for the broker of this name; [`SpoolErrorKind::OtherBroker`] if it keeps something of another one.
    pub(crate) fn open_for(
        path: PathBuf,
        limits: SpoolLimits,
        broker: String,
    ) -> Result<Self, SpoolError> {
        Self::open_as(path, limits, Some(broker))
    }

    fn open_as(
        path: PathBuf,
        limits: SpoolLimits,
        broker: Option<String>,
    ) -> Result<Self, SpoolError> {
        let mut conn = open::writer(&path)?;
        if let Some(broker) = &broker {
            owner::open(&mut conn, &path, broker)?;
        }
        let mark = Mark::open(&path).map(Arc::new);
        let mark = mark
            .inspect_err(|error| tracing::warn!(%error, "could not open the mark of the spool"))
            .ok();
        let writer = Writer::start(path.clone(), conn, mark.clone())?;
        let reader = Mutex::new(Reader::new(open::reader(&path)?, mark));
        let (stored, room) = (Notify::new(), Notify::new());
        let (own, seen) = (Mutex::default(), Mutex::default());
        let forgetting = watch::channel(0).0;
        let shared = Shared { path, broker, limits, reader, own, seen, stored, room, forgetting };
        Ok(Self { writer, shared: Arc::new(shared) })
    }

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Its limits.
    #[must_use]
    pub fn limits(&self) -> SpoolLimits {
        self.shared.limits
    }

    /// Stores a parcel: on the disk when this answers. A full store refuses it, whatever its policy.
    pub(crate) async fn store(&self, parcel: Parcel) -> Result<Kept, SpoolError> {
        let shared = self.shared.clone();
        let store = move |conn: &Connection| match shared.take(conn)? {
            Ok(()) => line::store(conn, &shared.limits, &parcel),
            Err(other) => Ok(Err(other)),
        };
        let kept = self.writer.call(store).await?;
        self.shared.stored.notify_waiters();
        Ok(kept)
    }

    /// Marks a batch as being sent by whoever has stored it, until the mark is dropped. Another process's drain
    /// may send it all the same, under the same stamp.
    pub(crate) fn own(&self, batch: i64) -> Own {
        self.owned().insert(batch);
        Own { spool: self.clone(), batch }
    }

    /// True while somebody in this process is sending the batch.
    pub(crate) fn is_owned(&self, batch: i64) -> bool {
        self.owned().contains(&batch)
    }

    fn owned(&self) -> MutexGuard<'_, HashSet<i64>> {
        self.shared.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next batch of a queue: the one that was numbered before, or a new one under `fresh`. Items for
    /// which `unfit` has a reason go into quarantine instead, and are returned.
    pub(crate) async fn next(
        &self,
        (store, queue): (Store, &QueueName),
        fresh: Stamp,
        now: Timestamp,
        unfit: line::Unfit,
    ) -> Result<(Option<Batch>, PutAway), SpoolError> {
        let (queue, shared) = (queue.clone(), self.shared.clone());
        let next = move |conn: &Connection| match shared.take(conn)? {
            Ok(()) => {
                let (queue, limits) = (&queue, &shared.limits);
                line::next(conn, &line::Form { store, queue, fresh, now, limits, unfit })
            }
            Err(other) => Ok(Err(other)),
        };
        self.writer.call(next).await
    }

    /// The batch was answered: it goes, but for the items that go into quarantine with a reason. False if
    /// somebody else was answered before. With what was dropped of the quarantine.
    pub(crate) async fn answered(
        &self,
        batch: i64,
        now: Timestamp,
        refused: Vec<(i64, String)>,
    ) -> Result<(bool, Dropped), SpoolError> {
        let limits = self.shared.limits;
        let answered =
            move |conn: &Connection| line::answered(conn, &limits, (batch, now), &refused);
        let done = self.writer.call(answered).await?;
        self.shared.room.notify_waiters();
        Ok(done)
    }

    /// The batch was refused as a whole and nothing of it applied: each of its items goes alone next.
    pub(crate) async fn dissolve(&self, batch: i64) -> Result<(), SpoolError> {
        self.writer.call(move |conn| line::dissolve(conn, batch)).await
    }

    /// True if items of this queue wait. Reads some bytes while the spool is empty: cheap enough to ask before
    /// every enqueue, and true of what other processes have stored.
    pub(crate) fn has_backlog(&self, store: Store, queue: &QueueName) -> Result<bool, SpoolError> {
        let mut reader = self.reader();
        let failed = |error| SpoolError::sqlite("could not look into the spool", error);
        if reader.is_empty().map_err(failed)? {
            return Ok(false);
        }
        let sql = "SELECT EXISTS (SELECT 1 FROM meter WHERE store = ?1 AND queue = ?2)";
        let mut statement = reader.conn.prepare_cached(sql).map_err(failed)?;
        statement
            .query_row(params![store.number(), queue.as_str()], |row| row.get(0))
            .map_err(failed)
    }

    /// True if an item of this queue, up to this one, is still there.
    pub(crate) fn holds(
        &self,
        store: Store,
        queue: &QueueName,
        last: i64,
    ) -> Result<bool, SpoolError> {
        let sql = "SELECT EXISTS
                   (SELECT 1 FROM item WHERE store = ?1 AND queue = ?2 AND id <= ?3)";
        let reader = self.reader();
        let found = reader.conn.prepare_cached(sql).and_then(|mut statement| {
            statement.query_row(params![store.number(), queue.as_str(), last], |row| row.get(0))
        });
        found.map_err(|error| SpoolError::sqlite("could not look into the spool", error))
    }

    /// The last item of every queue of a store.
    pub(crate) fn last_items(&self, store: Store) -> Result<HashMap<QueueName, i64>, SpoolError> {
        let sql = "SELECT queue, max(id) FROM item WHERE store = ?1 GROUP BY queue";
        let reader = self.reader();
        let list = || -> rusqlite::Result<HashMap<QueueName, i64>> {
            let mut statement = reader.conn.prepare_cached(sql)?;
            let rows = statement.query_map([store.number()], |row| {
                Ok((QueueName::stored(&row.get::<_, String>(0)?), row.get(1)?))
            })?;
            rows.collect()
        };
        list().map_err(|error| SpoolError::sqlite("could not look into the spool", error))
    }

    /// The queues of a store that have something, in the order of their names.
    pub(crate) fn queues(&self, store: Store) -> Result<Vec<QueueName>, SpoolError> {
        let failed = |error| SpoolError::sqlite("could not look into the spool", error);
        let mut reader = self.reader();
        if reader.is_empty().map_err(failed)? {
            return Ok(Vec::new());
        }
        let sql = "SELECT queue FROM meter WHERE store = ?1 AND queue <> '' ORDER BY queue";
        let mut statement = reader.conn.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map([store.number()], |row| row.get::<_, String>(0));
        let names: rusqlite::Result<Vec<String>> = rows.and_then(Iterator::collect);
        Ok(names.map_err(failed)?.iter().map(|name| QueueName::stored(name)).collect())
    }

    /// Waits until something is stored by this process, or `at_most`.
    pub(crate) async fn stored(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.shared.stored.notified()).await;
    }

    /// Waits until this process has delivered something, or `at_most`.
    pub(crate) async fn room(&self, at_most: Duration) {
        let _ = tokio::time::timeout(at_most, self.shared.room.notified()).await;
    }

    /// Takes something out of the file that need not be there, in the background.
    pub(crate) fn forgets(&self, what: impl Future<Output = ()> + Send + 'static) {
        let shared = self.shared.clone();
        shared.forgetting.send_modify(|count| *count += 1);
        tokio::spawn(async move {
            what.await;
            shared.forgetting.send_modify(|count| *count -= 1);
        });
    }

    /// Waits until that is done, or `at_most`.
    pub(crate) async fn forgotten(&self, at_most: Duration) {
        let mut forgetting = self.shared.forgetting.subscribe();
        let _ = tokio::time::timeout(at_most, forgetting.wait_for(|count| *count == 0)).await;
    }

    /// Becomes the one process that delivers, or `None` while another one does.
    pub(crate) fn deliverer(&self) -> Result<Option<Deliverer>, SpoolError> {
        let mut name = self.shared.path.clone().into_os_string();
        name.push(".drain");
        let mut seen = self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Deliverer::new(Path::new(&name), &mut seen)
    }

    fn reader(&self) -> MutexGuard<'_, Reader> {
        self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Makes sure that the spool is this broker's, inside a transaction.
    fn take(&self, conn: &Connection) -> rusqlite::Result<Result<(), SpoolError>> {
        self.broker.as_ref().map_or(Ok(Ok(())), |broker| owner::take(conn, &self.path, broker))
    }
}

/// See [`Spool::own`].
pub(crate) struct Own {
    spool: Spool,
    batch: i64,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.spool.owned().remove(&self.batch);
        // The drain passed it over, and may take it now.
        self.spool.shared.stored.notify_waiters();
    }
}

/// Most items of one formed batch.
const ITEMS_MAX: usize = BATCH_TASKS_MAX;

fn durability_number(durability: Durability) -> i64 {
    match durability {
        Durability::Memory => 0,
        Durability::Accepted => 1,
        Durability::Synced => 2,
        Durability::Replicated(replicas) => 100 + i64::from(replicas),
        // A level of a newer core: what the broker promises by itself is never less.
        _ => 1,
    }
}

fn durability_of(number: i64) -> Durability {
    match number {
        0 => Durability::Memory,
        2 => Durability::Synced,
        100..=355 => Durability::Replicated(u8::try_from(number - 100).unwrap_or(u8::MAX)),
        _ => Durability::Accepted,
    }
}

fn session_of(bytes: [u8; 16]) -> SessionId {
    SessionId(u128::from_be_bytes(bytes))
}
