//! Recording what a broker answers.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Extended, Health, Hold, Home, Inspect,
    Interest, NewTask, QueueName, Settled, Settlement, Stamp, SweepBudget, Swept, TaskState,
    Timestamp, Want, Woke,
};

use super::{Event, History};

/// Stands before a broker and writes down what it answers. Errors are not written: nothing is known to
/// have been applied, and what was is seen when the batch is repeated.
pub struct Recorded {
    behind: Arc<dyn Broker>,
    history: Arc<History>,
    /// Where to look for the states before and after a settlement.
    watch: Option<Arc<dyn Inspect>>,
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorded").field("events", &self.history.len()).finish_non_exhaustive()
    }
}

impl Recorded {
    /// Records into `history`, which several recorders may share.
    #[must_use]
    pub fn new(behind: Arc<dyn Broker>, history: Arc<History>) -> Self {
        Self { behind, history, watch: None }
    }

    /// Looks at every task before and after it is settled, so that transitions can be checked (L5). Only
    /// where nobody else acts at the same time, as in a simulation on one thread.
    #[must_use]
    pub fn watching(mut self, inspect: Arc<dyn Inspect>) -> Self {
        self.watch = Some(inspect);
        self
    }

    async fn states(
        &self,
        queue: &QueueName,
        settlements: &[Settlement],
        now: Timestamp,
    ) -> Result<Vec<Option<TaskState>>, BrokerError> {
        let mut states = Vec::new();
        if let Some(inspect) = &self.watch {
            for settlement in settlements {
                let task = inspect.task(queue, &settlement.lease.id, now).await?;
                states.push(task.map(|task| task.state));
            }
        }
        Ok(states)
    }
}

#[async_trait]
impl Broker for Recorded {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let answer = self.behind.enqueue(queue, stamp, now, tasks.clone()).await?;
        let verdicts = answer.verdicts.clone();
        self.history.push(queue, Event::Enqueue { stamp, tasks, verdicts });
        Ok(answer)
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        let answer = self.behind.claim(queue, stamp, now, want).await?;
        self.history.push(queue, Event::Claim { stamp, claims: answer.claims.clone() });
        Ok(answer)
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        let before = self.states(queue, &settlements, now).await?;
        let answer = self.behind.settle(queue, stamp, now, settlements.clone()).await?;
        let after = self.states(queue, &settlements, now).await?;
        let moves = before.into_iter().zip(after).collect();
        let verdicts = answer.verdicts.clone();
        self.history.push(queue, Event::Settle { stamp, settlements, verdicts, moves });
        Ok(answer)
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        let extended = self.behind.extend(queue, now, holds.clone(), by).await?;
        self.history.push(queue, Event::Extend { holds, extended: extended.clone() });
        Ok(extended)
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        let swept = self.behind.sweep(queue, now, budget).await?;
        self.history.push(queue, Event::Sweep { now, swept: swept.clone() });
        Ok(swept)
    }

    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        self.behind.wait(interest, now, at_most).await
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        self.behind.beat(now, beat).await
    }

    fn home(&self, queue: &QueueName) -> Home {
        self.behind.home(queue)
    }

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        self.behind.health(home, now).await
    }
}
