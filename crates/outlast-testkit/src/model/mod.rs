//! What does a broker mean? [`ModelBroker`] answers it in memory: a mutex around a few maps, every change
//! of state through [`outlast_core::state::next`], and no cleverness. It is the second oracle: whatever
//! the conformance cases leave open between two brokers, the model decides, and [`crate::random`]
//! compares them.
//!
//! Three things the traits leave to the broker, and what the model does:
//! - Every state has one order. `Entry::place` holds the number it is ordered by (position in
//!   line, due time, time of archiving, expiry, time of joining); equal numbers go by id, as in asynq's
//!   sorted sets.
//! - Tasks that become due stand behind what is pending already, as in asynq.
//! - Locks, `once` keys and signs of life end by the `now` of the calls, never by a clock.

mod claim;
mod enqueue;
mod fate;
mod foreign;
mod inspect;
mod page;
mod people;
mod queue;
mod settle;
mod sweep;
mod wait;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::limits::{BATCH_TASKS_MAX, SWEEP_MAX};
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Epoch, Extended, GroupLooks, Health,
    Hold, Home, Interest, Memory, NewTask, QueueName, Role, Settled, Settlement, Stamp,
    SweepBudget, Swept, Timestamp, Want, Woke,
};
use tokio::sync::Notify;

pub use fate::Saved;
pub use foreign::FOREIGN_LEASE;

use world::{Answer, World};

/// The reference broker. Cloned handles would share nothing; share it by `Arc`.
#[derive(Debug)]
pub struct ModelBroker {
    world: Mutex<World>,
    /// Rung after every change, for the waiters.
    bell: Notify,
    group_looks: GroupLooks,
    /// How often everything was lost.
    flushes: AtomicU64,
    /// How often something older came back.
    restarts: AtomicU64,
}

impl ModelBroker {
    /// An empty broker that keeps up to `archive_max` archived tasks per queue.
    #[must_use]
    pub fn new(archive_max: usize) -> Self {
        Self {
            world: Mutex::new(World::new(archive_max)),
            bell: Notify::new(),
            group_looks: GroupLooks::default(),
            flushes: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("the model does not panic while it holds its lock")
    }
}

fn check_count(what: &str, count: usize, max: usize) -> Result<(), BrokerError> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(BrokerError::rejected(format!("{what} {count} is out of bounds: 1 to {max} are allowed")))
}

/// An empty batch is fine: there is nothing to refuse in it.
fn check_batch(what: &str, count: usize) -> Result<(), BrokerError> {
    check_count(what, count.max(1), BATCH_TASKS_MAX)
}

#[async_trait]
impl Broker for ModelBroker {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        check_batch("batch of tasks", tasks.len())?;
        let answer = self.world().once_per_stamp(queue, stamp, |world| {
            Answer::Enqueue(world.enqueue(queue, now, &tasks))
        })?;
        self.bell.notify_waiters();
        match answer {
            (Answer::Enqueue(verdicts), lost) => Ok(Enqueued { verdicts, lost }),
            _ => Err(world::other_verb(&stamp)),
        }
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        check_count("tasks_max", want.tasks_max, BATCH_TASKS_MAX)?;
        let mut world = self.world();
        let answer = world.once_per_stamp(queue, stamp, |world| {
            let (ids, rest) = world.claim(queue, now, want);
            Answer::Claim(ids, rest)
        })?;
        self.group_looks.looked(queue, now, &want.groups);
        match answer {
            (Answer::Claim(ids, rest), lost) => {
                Ok(Claims { claims: world.claimed(queue, &ids, want.token), rest, lost })
            }
            _ => Err(world::other_verb(&stamp)),
        }
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        check_batch("batch of settlements", settlements.len())?;
        let answer = self.world().once_per_stamp(queue, stamp, |world| {
            Answer::Settle(world.settle(queue, now, &settlements))
        })?;
        self.bell.notify_waiters();
        match answer {
            (Answer::Settle(verdicts), lost) => Ok(Settled { verdicts, lost }),
            _ => Err(world::other_verb(&stamp)),
        }
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        check_batch("batch of holds", holds.len())?;
        let mut world = self.world();
        Ok(holds.iter().map(|hold| world.extend(queue, hold, now.plus(by))).collect())
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        check_count("moves_max", budget.moves_max, SWEEP_MAX)?;
        let swept = self.world().sweep(queue, now, budget);
        self.bell.notify_waiters();
        Ok(swept)
    }

    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        Ok(self.wait_for(interest, now, at_most).await)
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        Ok(self.world().people.beat(now, beat))
    }

    fn home(&self, _queue: &QueueName) -> Home {
        Home("model".into())
    }

    async fn health(&self, _home: &Home, _now: Timestamp) -> Result<Health, BrokerError> {
        Ok(Health {
            role: Role::Primary,
            clock: None,
            epoch: Epoch(format!("model {}", self.world().epoch)),
            run: self.restarts.load(Ordering::Relaxed).to_string(),
            software: format!("model {}", env!("CARGO_PKG_VERSION")),
            memory: Memory::default(),
        })
    }
}
