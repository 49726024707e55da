//! The verbs, each in its class.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::broker::Recovery;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Extended, Health, Hold, Home, Interest,
    Kind, NewTask, QueueName, Settled, Settlement, Stamp, SweepBudget, Swept, Timestamp, Want,
    Woke,
};

use super::{About, Breaker, CALL_MAX, Class, SLOW};

#[async_trait]
impl Broker for Breaker {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let home = self.below.home(queue);
        if let Some(used) = self.held_back(&home, queue) {
            let what = format!(
                "broker {} uses {used} % of its memory: tasks of queue {queue} are held back",
                home.0
            );
            return Err(BrokerError::new(Kind::Busy, what));
        }
        let about = About { home: &home, class: Class::Produce, queue: Some(queue) };
        self.through(about, (SLOW, CALL_MAX), self.below.enqueue(queue, stamp, now, tasks)).await
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        self.consume(queue, self.below.claim(queue, stamp, now, want)).await
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        self.consume(queue, self.below.settle(queue, stamp, now, settlements)).await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        self.consume(queue, self.below.extend(queue, now, holds, by)).await
    }

    /// Expired leases are left alone in an outage, and for a grace period after it and after the first look at a home
    /// (law L8).
    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        let home = self.below.home(queue);
        let budget = if self.is_in_grace(&home) { withheld(budget) } else { budget };
        self.consume(queue, self.below.sweep(queue, now, budget)).await
    }

    /// While the home is down this waits for it, instead of failing at once: waking early is allowed. It also ends when the home goes
    /// down meanwhile: whoever waits on a sick home asks it something now and then (law L9).
    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        let home = interest.queues.first().map(|queue| self.below.home(queue));
        let home = home.or_else(|| self.homes().keys().next().cloned());
        let Some(home) = home else { return self.below.wait(interest, now, at_most).await };
        // Before the look: a change right after it wakes, too.
        let mut changes = self.changes.subscribe();
        if !self.is_closed(&home, Class::Consume) {
            let _ = tokio::time::timeout(at_most, changes.changed()).await;
            return Ok(Woke::default());
        }
        // Of several queues it does not say which is refused: the next claim will.
        let call = async {
            match self.below.wait(interest, now, at_most).await {
                Err(error) if error.concerns_its_queue() => Ok(Err(error)),
                answer => answer.map(Ok),
            }
        };
        let about = About { home: &home, class: Class::Consume, queue: None };
        let limit = (at_most + SLOW, at_most + CALL_MAX);
        let goes_down = async {
            while self.is_closed(&home, Class::Consume) && changes.changed().await.is_ok() {}
        };
        tokio::select! {
            biased;
            answer = self.through(about, limit, call) => answer.flatten(),
            () = goes_down => Ok(Woke::default()),
        }
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        let home = self.home_of_beat(beat);
        let about = About { home: &home, class: Class::Consume, queue: None };
        self.through(about, (SLOW, CALL_MAX), self.below.beat(now, beat)).await
    }

    fn home(&self, queue: &QueueName) -> Home {
        self.below.home(queue)
    }

    /// Passes always: it is how one looks after a home that is down.
    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        let health = self.below.health(home, now).await?;
        self.saw(home, &health);
        Ok(health)
    }
}

impl Breaker {
    async fn consume<T>(
        &self,
        queue: &QueueName,
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        let home = self.below.home(queue);
        let about = About { home: &home, class: Class::Consume, queue: Some(queue) };
        self.through(about, (SLOW, CALL_MAX), call).await
    }
}

fn withheld(budget: SweepBudget) -> SweepBudget {
    SweepBudget { recovery: Recovery::Withheld, ..budget }
}
