//! A broker that stands before another one and changes the verbs it names: the rest is handed through.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Extended, Health, Hold, Home, Interest,
    NewTask, QueueName, Settled, Settlement, Stamp, SweepBudget, Swept, Timestamp, Want, Woke,
};

/// What a test changes.
#[async_trait]
pub(crate) trait StandIn: Send + Sync + 'static {
    fn behind(&self) -> Arc<dyn Broker>;

    /// Before a write is handed on.
    async fn before(&self) {}

    /// Why a write to this queue is not handed on.
    fn forbids(&self, _: &QueueName) -> Option<BrokerError> {
        None
    }

    /// After it was applied.
    async fn after(&self) {}

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        self.behind().health(home, now).await
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        self.behind().sweep(queue, now, budget).await
    }
}

/// The broker that stands in.
pub(crate) struct Before<T>(pub(crate) Arc<T>);

#[async_trait]
impl<T: StandIn> Broker for Before<T> {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        self.0.before().await;
        if let Some(error) = self.0.forbids(queue) {
            return Err(error);
        }
        let answer = self.0.behind().enqueue(queue, stamp, now, tasks).await;
        self.0.after().await;
        answer
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        self.0.behind().claim(queue, stamp, now, want).await
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        self.0.before().await;
        if let Some(error) = self.0.forbids(queue) {
            return Err(error);
        }
        let answer = self.0.behind().settle(queue, stamp, now, settlements).await;
        self.0.after().await;
        answer
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        self.0.behind().extend(queue, now, holds, by).await
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        self.0.sweep(queue, now, budget).await
    }

    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        self.0.behind().wait(interest, now, at_most).await
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        self.0.behind().beat(now, beat).await
    }

    fn home(&self, queue: &QueueName) -> Home {
        self.0.behind().home(queue)
    }

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        self.0.health(home, now).await
    }
}
