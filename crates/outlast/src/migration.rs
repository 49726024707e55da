//! Moving what a broker holds to another one, while both are in use: the mover between two ends of
//! [`Porter`], which keep what makes it safe to stop and to repeat.
//!
//! ```text
//!   pause, once keys ──► copied first: what must hold before a task arrives
//!   take ─► put ─► read back and compare ─► conclude      until the queue is empty
//!   counters ──► in the last batch, when no task is left
//! ```
//!
//! Nothing is retried here: whatever fails, beginning again goes on where it stopped.

mod queue_move;
mod report;

use std::sync::Arc;

use outlast_core::inspect::{PageRequest, ScheduleControl, ScheduleState, TickRecord};
use outlast_core::limits::{BATCH_TASKS_MAX, PAGE_MAX};
use outlast_core::porter::Conclusion;
use outlast_core::{Beat, Epoch, Porter, QueueName, Timestamp};

use crate::Connection;
use crate::error::{Error, Result};

pub use queue_move::{QueueMove, Step};
pub use report::{Mismatch, Moved, Refused, StateCount};

/// A move from one broker to another.
///
/// ```
/// use outlast::migration::{Migration, Step};
/// use outlast::{Client, Connection, QueueName, TaskRequest};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
/// let (old, new) = (Connection::open("sqlite::memory:").await?, Connection::open("sqlite::memory:").await?);
/// old.client().enqueue(TaskRequest::raw("greet", "world")).await?;
/// let migration = Migration::new(&old, &new).await?;
/// let mut queue = migration.queue(&QueueName::new("default")?);
/// while let Step::Batch(moved) = queue.step().await? {
///     assert_eq!((moved.stored(), moved.refused.len()), (1, 0));
/// }
/// queue.finish().await?;
/// assert_eq!(new.inspector().queues().await?[0].pending, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Migration {
    from: Connection,
    to: Connection,
    source: Arc<dyn Porter>,
    target: Arc<dyn Porter>,
    epoch: Epoch,
}

impl Migration {
    /// A move between these two. Nothing is moved yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if both are the same data, or one cannot be moved;
    /// otherwise what the brokers answer.
    pub async fn new(from: &Connection, to: &Connection) -> Result<Self> {
        let (source, target) = (from.porter()?, to.porter()?);
        let (here, there) = (epoch_of(from).await?, epoch_of(to).await?);
        if here == there {
            return Err(Error::invalid(format!(
                "{} and {} lead to the same tasks: name another broker to move them to",
                from.url(),
                to.url()
            )));
        }
        Ok(Self { from: from.clone(), to: to.clone(), source, target, epoch: there })
    }

    /// The move of one queue, to be done step by step.
    #[must_use]
    pub fn queue(&self, queue: &QueueName) -> QueueMove {
        QueueMove::new(self.clone(), queue.clone())
    }

    /// Copies what is known of the schedules: pauses, ticks, and how far each has come. Repeatable by
    /// itself. A schedule is described by its scheduler, so there is no more to move. Answers how many.
    ///
    /// # Errors
    /// What the brokers answer.
    pub async fn schedules(&self) -> Result<u64> {
        let states = self.source.schedule_states(self.from.clock.now()).await?;
        let count = states.len() as u64;
        for state in states {
            if let Some(since) = state.paused_since {
                let pause = ScheduleControl::Pause;
                self.to.inspect.control_schedule(&state.name, pause, since).await?;
            }
            self.ticks(&state).await?;
        }
        Ok(count)
    }

    /// Copies the history of a schedule, oldest first. Where its last tick is not in it, it is recorded as
    /// one that was skipped, because catching up begins behind it.
    async fn ticks(&self, state: &ScheduleState) -> Result<()> {
        let first = PageRequest::first(PAGE_MAX);
        let mut ticks = self.from.inspect.ticks(&state.name, &first).await?.items;
        ticks.reverse();
        if let Some(last) = state.last_tick
            && ticks.last().is_none_or(|tick| tick.tick < last)
        {
            let schedule = state.name.clone();
            ticks.push(TickRecord { schedule, tick: last, task: None, enqueued_at: last });
        }
        for some in ticks.chunks(BATCH_TASKS_MAX) {
            let beat = Beat { ticks: some.to_vec(), ..Beat::default() };
            self.to.broker.beat(self.to.clock.now(), &beat).await?;
        }
        Ok(())
    }

    /// Why tasks that the target has stored could be lost by a crash of it, after the source has forgotten
    /// them, to be read after "the target "; `None` if they would not be.
    ///
    /// # Errors
    /// What the broker answers.
    pub async fn target_weakness(&self) -> Result<Option<String>> {
        Ok(self.target.weakness().await?)
    }

    fn now(&self) -> Timestamp {
        self.from.clock.now()
    }
}

impl std::fmt::Debug for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Migration").field("from", &self.from).field("to", &self.to).finish()
    }
}

/// Gives the batch of a queue that is on its way back to the source, wherever it was going: for a target
/// that is gone, when no mover runs. Tasks of it that the target has stored are then at both ends. Answers how
/// many there were.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a broker that cannot be moved; otherwise what it
/// answers.
pub async fn give_back(from: &Connection, queue: &QueueName) -> Result<u64> {
    let source = from.porter()?;
    let order = queue_move::order(None, Vec::new());
    let now = from.clock.now();
    let Some(batch) = source.take(queue, &order, now).await? else { return Ok(0) };
    source.conclude(queue, batch.stamp, now, &Conclusion::GivenBack).await?;
    Ok((batch.load.parcels.len() + batch.unreadable.len()) as u64)
}

/// Whether a batch of this queue is on its way, also if the queue is not listed any more.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) for a broker that cannot be moved; otherwise what it
/// answers.
pub async fn is_on_its_way(from: &Connection, queue: &QueueName) -> Result<bool> {
    let order = queue_move::order(None, Vec::new());
    Ok(from.porter()?.take(queue, &order, from.clock.now()).await?.is_some())
}

async fn epoch_of(connection: &Connection) -> Result<Epoch> {
    let home = connection.broker.home(&QueueName::default_queue());
    Ok(connection.broker.health(&home, connection.clock.now()).await?.epoch)
}
