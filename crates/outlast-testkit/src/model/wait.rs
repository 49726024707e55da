//! Waiting for work. The only place where the model lets real time pass, because a wait is real time.

use std::time::Duration;

use outlast_core::{Interest, QueueName, TaskState, Timestamp, Woke};
use tokio::time::Instant;

use super::ModelBroker;
use super::world::World;

impl ModelBroker {
    pub(super) async fn wait_for(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Woke {
        let started = Instant::now();
        loop {
            // Armed before the look, so that a change between the look and the wait is not missed.
            let mut rung = std::pin::pin!(self.bell.notified());
            rung.as_mut().enable();
            let elapsed = started.elapsed();
            let moment = now.plus(elapsed);
            let group_look = |queue: &QueueName| self.group_looks.next(queue, moment);
            let (woke, next_due) = self.world().look(interest, moment, group_look);
            let left = at_most.saturating_sub(elapsed);
            if woke != Woke::default() || left.is_zero() {
                return woke;
            }
            let until_due = next_due.map(|due| due.since(moment));
            let pause = until_due.map_or(left, |due| due.max(Duration::from_millis(1)).min(left));
            // Rung or over: either way the next look tells.
            let _ = tokio::time::timeout(pause, rung).await;
        }
    }
}

impl World {
    /// What there is for a waiter now, and when the next task of its queues is due.
    fn look(
        &self,
        interest: &Interest,
        now: Timestamp,
        group_look: impl Fn(&QueueName) -> Option<Timestamp>,
    ) -> (Woke, Option<Timestamp>) {
        let open = |name: &&QueueName| {
            self.queues.get(*name).is_some_and(|queue| queue.paused_since.is_none())
        };
        let open: Vec<&QueueName> = interest.queues.iter().filter(open).collect();
        let next_due = |name: &QueueName| {
            let queue = &self.queues[name];
            let groups = group_look(name).filter(|_| !queue.groups().is_empty());
            [queue.next_due(), groups].into_iter().flatten().min()
        };
        let has_work = |name: &&&QueueName| {
            let queue = &self.queues[**name];
            queue.tasks.values().any(|entry| entry.record.state == TaskState::Pending)
                || next_due(name).is_some_and(|due| due <= now)
        };
        let queues = open.iter().filter(has_work).map(|name| (*name).clone()).collect();
        let commands = interest.token.is_some_and(|token| self.people.has_commands(token));
        let next_due = open.iter().filter_map(|name| next_due(name)).min();
        (Woke { queues, commands }, next_due)
    }
}
