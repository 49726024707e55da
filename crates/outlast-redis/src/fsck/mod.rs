//! Checking what the server holds while it is in use: each collection is walked, each key of the queue is
//! looked at, in short steps; and what looks wrong is decided by a script, for that task or key alone, at
//! one moment. So nothing that merely moved meanwhile is taken for lost.
//!
//! The walks come first. They remember (by a hash) which ids are in the lists, for a list cannot be asked
//! for one of its members at a fair price; a task that became pending after the check began is left to the
//! next one.

mod decide;
mod scan;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use outlast_core::{
    BrokerError, Defect, Finding, Fsck, FsckStep, QueueName, Repair, TaskId, Timestamp,
};
use redis::Value;

use crate::answer;
use crate::broker::{Inner, RedisBroker};
use crate::keys::Keys;

pub(crate) use scan::{escaped, scan_of, scanned};

/// Ids or keys that one command reads.
const STEP: i64 = 500;

/// The longest list that is searched for one id: some 10 ms of the server's time. Of a longer one so much is searched at
/// either end; the walk has met what is between.
const LINE_MAX: i64 = 100_000;

/// Ids that are remembered of each list. Of a longer one nobody knows what its walk has met: what is missing from it is counted
/// as undecided.
const SEEN_MAX: usize = 10_000_000;

/// Findings that are remembered, so that none is told twice. Beyond it one may be.
const TOLD_MAX: usize = 1_000_000;

impl RedisBroker {
    /// A check of one queue; see [`Fsck`].
    #[must_use]
    pub fn fsck(&self, queue: &QueueName, repair: Repair) -> Box<dyn Fsck> {
        Box::new(Check::new(&self.inner, queue, repair))
    }

    /// The queues that are listed, and those that are not and have keys all the same. Passes over all keys
    /// of the server, in short steps.
    ///
    /// # Errors
    /// What the server or the network answers.
    pub async fn fsck_queues(&self) -> Result<Vec<QueueName>, BrokerError> {
        self.inner.queues_with_keys().await
    }
}

/// A check that is under way.
struct Check {
    inner: Arc<Inner>,
    queue: QueueName,
    keys: Keys,
    repair: Repair,
    /// [`LINE_MAX`].
    line_max: i64,
    began: Option<Timestamp>,
    work: VecDeque<Work>,
    pending: HashSet<u64>,
    active: HashSet<u64>,
    /// The last id of the latest stretch of a list that stays there.
    latest: Option<Bytes>,
    /// The first id of the list that is walked, while nothing of it can have been passed over.
    newest: Option<Bytes>,
    /// The same of the lists whose walks are over.
    walked: HashMap<&'static str, Bytes>,
    told: HashSet<u64>,
}

/// What is still to do.
#[derive(Clone, Debug)]
enum Work {
    /// Whether the collections are of the right kinds.
    Kinds,
    /// A list, from a place on, counted from the left: what comes in there moves it to the right, so that
    /// something may be seen again. What is taken out of the middle moves it to the left: each stretch begins with the last id of
    /// the one before, or else the walk counts as one that may have passed over something.
    Line { place: &'static str, from: i64 },
    /// A sorted set whose members should be in a state.
    Sorted { place: Bytes, state: &'static str, cursor: Bytes },
    /// The groups that are listed.
    Groups { cursor: Bytes },
    /// The sets that are listed.
    Sets { cursor: Bytes },
    /// All keys of the queue.
    Keys { cursor: Bytes },
}

/// A task that may be wrong.
#[derive(Clone, Debug, Default)]
struct Suspect {
    id: Bytes,
    /// The collection in which it was met, if it was met in one.
    met: Bytes,
    /// The message that cannot be read, and why.
    unreadable: Option<(Bytes, String)>,
}

#[async_trait]
impl Fsck for Check {
    async fn step(&mut self, now: Timestamp) -> Result<Option<FsckStep>, BrokerError> {
        self.began.get_or_insert(now);
        let Some(work) = self.work.pop_front() else { return Ok(None) };
        let mut step = FsckStep::default();
        let done = match work.clone() {
            Work::Kinds => self.kinds(&mut step).await,
            Work::Line { place, from } => self.line(place, from, now, &mut step).await,
            Work::Sorted { place, state, cursor } => {
                self.sorted(place, state, cursor, now, &mut step).await
            }
            Work::Groups { cursor } => self.groups(cursor, &mut step).await,
            Work::Sets { cursor } => self.sets(cursor, &mut step).await,
            Work::Keys { cursor } => self.scan(cursor, now, &mut step).await,
        };
        if let Err(error) = done {
            self.work.push_front(work);
            return Err(error);
        }
        Ok(Some(step))
    }
}

impl Check {
    fn new(inner: &Arc<Inner>, queue: &QueueName, repair: Repair) -> Self {
        Self {
            keys: inner.root.queue(queue),
            inner: inner.clone(),
            queue: queue.clone(),
            repair,
            line_max: LINE_MAX,
            began: None,
            work: VecDeque::from([Work::Kinds]),
            pending: HashSet::new(),
            active: HashSet::new(),
            latest: None,
            newest: None,
            walked: HashMap::new(),
            told: HashSet::new(),
        }
    }

    /// Looks at the kinds of the collections, and plans the rest.
    async fn kinds(&mut self, step: &mut FsckStep) -> Result<(), BrokerError> {
        let expected = [
            ("pending", "list"),
            ("active", "list"),
            ("lease", "zset"),
            ("scheduled", "zset"),
            ("retry", "zset"),
            ("archived", "zset"),
            ("completed", "zset"),
            ("groups", "set"),
            ("aggregation_sets", "zset"),
            ("outlast:groups", "set"),
        ];
        let mut asked = redis::pipe();
        for (name, _) in expected {
            asked.cmd("TYPE").arg(self.keys.key(name));
        }
        let kinds = self.inner.admin.run_all(&asked).await?;
        for ((name, kind), found) in expected.into_iter().zip(kinds) {
            let found = answer::text(found)?;
            if found != kind && found != "none" {
                let what =
                    format!("is a {found} and not a {kind}; the queue is not checked further");
                let key = self.keys.key(name);
                self.tell(step, Defect::ForeignKey, None, key, what);
            }
        }
        if step.findings.is_empty() {
            let zero = || Bytes::from_static(b"0");
            self.work.extend(["pending", "active"].map(|place| Work::Line { place, from: 0 }));
            let sorted = [
                ("lease", "active"),
                ("scheduled", "scheduled"),
                ("retry", "retry"),
                ("archived", "archived"),
                ("completed", "completed"),
            ];
            self.work.extend(sorted.map(|(place, state)| Work::Sorted {
                place: place.into(),
                state,
                cursor: zero(),
            }));
            self.work.extend([
                Work::Groups { cursor: zero() },
                Work::Sets { cursor: zero() },
                Work::Keys { cursor: zero() },
            ]);
        }
        Ok(())
    }

    /// Adds a finding, unless it has been told.
    fn tell(
        &mut self,
        step: &mut FsckStep,
        defect: Defect,
        id: Option<TaskId>,
        key: String,
        what: String,
    ) {
        if self.told.len() >= TOLD_MAX {
            self.told.clear();
        }
        if self.told.insert(hash_of(&(defect, &key, &what))) {
            let repaired = self.repair == Repair::Yes && defect != Defect::ForeignKey;
            step.findings.push(Finding {
                queue: self.queue.clone(),
                defect,
                id,
                key,
                what,
                repaired,
            });
        }
    }

    fn repair_flag(&self) -> &'static str {
        if self.repair == Repair::Yes { "1" } else { "" }
    }

    /// A key of the queue by its last part, which may be any bytes.
    fn shown_key(&self, name: &[u8]) -> String {
        self.keys.key(&String::from_utf8_lossy(name))
    }
}

fn hash_of(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn all_bytes(value: Value) -> Result<Vec<Bytes>, BrokerError> {
    let items = answer::list(value)?.into_iter();
    items.map(|item| Ok(answer::bytes(item)?.unwrap_or_default())).collect()
}
