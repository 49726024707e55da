//! One queue on its way: a batch at a time, each read back from the target before the source forgets it.

use std::time::Duration;

use outlast_core::broker::Recovery;
use outlast_core::limits::{BATCH_BYTES_MAX, BATCH_TASKS_MAX, SWEEP_MAX};
use outlast_core::porter::{
    Batch, Concluded, Conclusion, Delivered, Found, MOVE_TTL, Order, Parcel, PutVerdict,
    REFUSED_MAX,
};
use outlast_core::{
    Cursor, Epoch, QueueControl, QueueName, QueueStats, SessionId, SweepBudget, TaskId, TaskState,
    Timestamp,
};

use super::Migration;
use super::report::{Mismatch, Moved, Refused};
use crate::error::{Error, Result};

/// A batch that was taken longer ago is asked for again before it is put: longer than a mover that is well has
/// one in its hands before that, and short beside the time that a person takes to give one back.
const FRESH: Duration = Duration::from_secs(2);

/// The move of one queue. Dropped anywhere, another one goes on where it stopped.
#[derive(Debug)]
pub struct QueueMove {
    migration: Migration,
    queue: QueueName,
    is_begun: bool,
    /// Tasks that were refused: passed over from then on.
    refused: Vec<(TaskId, Option<TaskState>)>,
}

/// What a step of a move has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// A batch was moved; there may be more.
    Batch(Moved),
    /// There is nothing to move at the moment.
    Rest {
        /// Tasks that are running, and members of groups that are being aggregated: they stay until that is
        /// over.
        active: u64,
    },
}

/// What a batch is asked for: `target` as [`Order::target`].
pub(super) fn order(target: Option<Epoch>, except: Vec<TaskId>) -> Order {
    Order {
        target,
        session: SessionId(uuid::Uuid::new_v4().as_u128()),
        tasks_max: BATCH_TASKS_MAX,
        bytes_max: BATCH_BYTES_MAX,
        except,
    }
}

impl QueueMove {
    pub(super) fn new(migration: Migration, queue: QueueName) -> Self {
        Self { migration, queue, is_begun: false, refused: Vec::new() }
    }

    /// The queue.
    #[must_use]
    pub fn queue(&self) -> &QueueName {
        &self.queue
    }

    /// Moves one batch, of at most [`BATCH_TASKS_MAX`] tasks, and reads it back. The first step also
    /// pauses the queue in the target, if it is paused in the source, and copies its `once` keys.
    ///
    /// # Errors
    /// What the brokers answer; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a batch is on its way to
    /// another target, if it was begun so long ago that the target no longer knows it, if too many tasks were
    /// refused, if somebody else has ended the batch meanwhile, or if what was read back is not what was put: then
    /// the source still has it.
    pub async fn step(&mut self) -> Result<Step> {
        if !self.is_begun {
            self.copy_pause().await?;
            self.copy_once_keys().await?;
            self.is_begun = true;
        }
        let except: Vec<TaskId> = self.refused.iter().map(|(id, _)| id.clone()).collect();
        if except.len() > REFUSED_MAX {
            return Err(Error::invalid(format!(
                "queue {}: the target has refused {} tasks, more than the {REFUSED_MAX} that a move passes \
                 over",
                self.queue,
                except.len()
            )));
        }
        let migration = &self.migration;
        let order = order(Some(migration.epoch.clone()), except);
        let batch = migration.source.take(&self.queue, &order, migration.now()).await?;
        match batch {
            Some(batch) => Ok(Step::Batch(self.carry(&batch).await?)),
            None => self.rest().await,
        }
    }

    /// Takes expired leases back at the source and makes due tasks pending, as its workers would: for a
    /// source whose workers are gone.
    ///
    /// # Errors
    /// What the broker answers.
    pub async fn sweep(&self) -> Result<()> {
        let (from, now) = (&self.migration.from, self.migration.now());
        let budget =
            SweepBudget { moves_max: SWEEP_MAX, recovery: Recovery::Allowed, vanished: None };
        while from.broker.sweep(&self.queue, now, budget).await?.more {}
        Ok(())
    }

    /// Copies once more what may have changed while tasks moved: a pause, and `once` keys that were used.
    ///
    /// # Errors
    /// What the brokers answer.
    pub async fn finish(&self) -> Result<()> {
        self.copy_pause().await?;
        self.copy_once_keys().await
    }

    async fn copy_pause(&self) -> Result<()> {
        let (from, to) = (&self.migration.from, &self.migration.to);
        let stats = from.inspect.queue(&self.queue, self.migration.now()).await?;
        // The moment of the pause is the one of the source; a pause that is there already stays.
        if let Some(since) = stats.and_then(|stats| stats.paused_since) {
            to.inspect.control(&self.queue, QueueControl::Pause, since).await?;
        }
        Ok(())
    }

    async fn copy_once_keys(&self) -> Result<()> {
        let (migration, mut cursor): (_, Option<Cursor>) = (&self.migration, None);
        loop {
            let now = migration.now();
            let page = migration.source.once_keys(&self.queue, cursor.as_ref(), now).await?;
            for keys in page.items.chunks(BATCH_TASKS_MAX) {
                migration.target.hold_once(&self.queue, keys, now).await?;
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    async fn rest(&self) -> Result<Step> {
        let stats = self.migration.from.inspect.queue(&self.queue, self.migration.now()).await?;
        let in_sets = |stats: &QueueStats| {
            let waits = |state: &Option<TaskState>| *state == Some(TaskState::Aggregating);
            let refused = self.refused.iter().filter(|(_, state)| waits(state)).count() as u64;
            stats.aggregating.saturating_sub(refused)
        };
        Ok(Step::Rest { active: stats.map_or(0, |stats| stats.active + in_sets(&stats)) })
    }

    /// Brings a batch to the target, reads it back, and ends it at the source.
    async fn carry(&mut self, batch: &Batch) -> Result<Moved> {
        let (migration, now) = (&self.migration, self.migration.now());
        if now.since(batch.taken_at) > MOVE_TTL {
            return Err(Error::invalid(format!(
                "queue {} has a batch on its way since {}, and the target no longer knows whether it has \
                 stored it: compare the two, and give the batch back",
                self.queue, batch.taken_at
            )));
        }
        if now.since(batch.taken_at) > FRESH {
            self.check_is_on_its_way(batch).await?;
        }
        let delivered = migration.target.put(&self.queue, batch.stamp, now, &batch.load).await?;
        let mut moved = judged(batch, &delivered);
        self.verify(batch, &delivered, &mut moved).await?;
        let ids = stored_of(batch, &delivered).map(|parcel| parcel.task.id.clone()).collect();
        let end = Conclusion::Stored { ids };
        let now = migration.now();
        match migration.source.conclude(&self.queue, batch.stamp, now, &end).await? {
            Concluded::Ended => {}
            Concluded::NotOnItsWay => return Err(ended_elsewhere(&self.queue, AtTarget::Stored)),
        }
        for task in &moved.refused {
            if self.refused.iter().any(|(id, _)| *id == task.id) {
                return Err(Error::invalid(format!(
                    "queue {}: task {} {}, and cannot be passed over by its id",
                    self.queue, task.id, task.why
                )));
            }
            self.refused.push((task.id.clone(), task.state));
        }
        Ok(moved)
    }

    /// Asks again for a batch that was not taken just now: it may have been given back since.
    async fn check_is_on_its_way(&self, batch: &Batch) -> Result<()> {
        let (migration, asked) = (&self.migration, order(None, Vec::new()));
        let now = migration.now();
        let found = migration.source.take(&self.queue, &asked, now).await?;
        match found.filter(|found| found.stamp == batch.stamp) {
            Some(_) => Ok(()),
            None => Err(ended_elsewhere(&self.queue, AtTarget::NotStored)),
        }
    }

    /// Reads back what was stored. What differs stays at the source, which then still has the batch.
    async fn verify(&self, batch: &Batch, delivered: &Delivered, moved: &mut Moved) -> Result<()> {
        let stored: Vec<&Parcel> = stored_of(batch, delivered).collect();
        if stored.is_empty() {
            return Ok(());
        }
        let ids: Vec<TaskId> = stored.iter().map(|parcel| parcel.task.id.clone()).collect();
        let to = &self.migration.to;
        let now = to.clock.now();
        let is_paused = to.inspect.queue(&self.queue, now).await?;
        let is_paused = is_paused.is_some_and(|stats| stats.paused_since.is_some());
        let found = self.migration.target.parcels(&self.queue, &ids, now).await?;
        for (put, found) in stored.into_iter().zip(found) {
            let count = moved.of(put.task.state);
            match found {
                Found::Parcel(found) => match put.difference(&found) {
                    // The target's record says that it was stored: what it is now is what became of it.
                    Some(_) if delivered.is_repeat => count.changed += 1,
                    Some(what) => return Err(differs(&self.queue, &put.task.id, what)),
                    None if put.has_gone_on(&found) => count.gone += 1,
                    None => count.verified += 1,
                },
                Found::Unreadable(_) if delivered.is_repeat => count.changed += 1,
                Found::Unreadable(why) => {
                    let what = format!("record, which cannot be read: {why}");
                    return Err(differs(&self.queue, &put.task.id, &what));
                }
                Found::Missing => {
                    count.gone += 1;
                    if !(delivered.is_repeat || may_be_gone(put, is_paused, now)) {
                        let (id, state) = (put.task.id.clone(), put.task.state);
                        moved.mismatches.push(Mismatch { id, state });
                        moved.mismatched += 1;
                    }
                }
            }
        }
        Ok(())
    }
}

fn differs(queue: &QueueName, id: &TaskId, what: &str) -> Error {
    Error::invalid(format!(
        "task {id} of queue {queue} differs in the target from what was put there (its {what}): the source \
         still has the batch; look at the task there: moving on takes it as it is there, and giving the batch \
         back leaves the tasks at both ends"
    ))
}

/// Whether a batch had been put when it turned out that it was ended.
#[derive(Clone, Copy)]
enum AtTarget {
    Stored,
    NotStored,
}

fn ended_elsewhere(queue: &QueueName, at_target: AtTarget) -> Error {
    let (when, what) = match at_target {
        AtTarget::Stored => (
            "after the target had stored it",
            "if that was another mover, all is well; if it was given back, its tasks are at both ends now",
        ),
        AtTarget::NotStored => ("before this one had put it", "nothing of it was put"),
    };
    Error::invalid(format!("queue {queue}: the batch was ended by somebody else {when}: {what}"))
}

/// What the target says to a batch.
fn judged(batch: &Batch, delivered: &Delivered) -> Moved {
    let mut moved = Moved {
        runs: batch.load.counts.processed,
        target_lost: !delivered.is_repeat && delivered.known < batch.previous,
        ..Moved::default()
    };
    for (parcel, verdict) in batch.load.parcels.iter().zip(&delivered.verdicts) {
        let (id, state) = (parcel.task.id.clone(), parcel.task.state);
        let count = moved.of(state);
        count.taken += 1;
        let why = match verdict {
            PutVerdict::Stored => {
                count.stored += 1;
                continue;
            }
            PutVerdict::IdConflict => {
                "is there already: the target has a task of this id".to_owned()
            }
            PutVerdict::Duplicate { of } => {
                format!("is unique, and task {of} of the target holds its lock")
            }
        };
        count.refused += 1;
        moved.refused.push(Refused { id, state: Some(state), why });
    }
    for (id, why) in &batch.unreadable {
        let why = format!("cannot be read: {why}");
        moved.refused.push(Refused { id: id.clone(), state: None, why });
    }
    moved
}

fn stored_of<'a>(
    batch: &'a Batch,
    delivered: &'a Delivered,
) -> impl Iterator<Item = &'a Parcel> + 'a {
    let pairs = batch.load.parcels.iter().zip(&delivered.verdicts);
    pairs.filter(|(_, verdict)| **verdict == PutVerdict::Stored).map(|(parcel, _)| parcel)
}

/// Whether a task may have run or been forgotten between being stored and being read back.
fn may_be_gone(put: &Parcel, is_paused: bool, now: Timestamp) -> bool {
    match put.task.state {
        TaskState::Pending | TaskState::Aggregating => !is_paused,
        TaskState::Scheduled | TaskState::Retry => !is_paused && put.at <= now,
        TaskState::Completed => put.at <= now,
        TaskState::Archived | TaskState::Active => false,
    }
}
