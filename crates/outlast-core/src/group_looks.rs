//! When are groups looked at again? A group becomes ready by time alone, which no broker tells: somebody has to claim now and
//! then. A broker remembers here which queues were claimed from with policies, and wakes its waiters for these, one look
//! after the other, as long as there are groups in them. A queue without groups is left in peace.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::{GroupPolicy, QueueName, Timestamp};

/// How long a look at groups holds: half the shortest calm time, so that a set is late by half of it at most, within
/// these bounds.
const LOOK_MIN: Duration = Duration::from_millis(100);
/// See [`LOOK_MIN`].
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The latest looks at the groups of queues, one for each queue that a worker of this process aggregates groups of.
#[derive(Debug, Default)]
pub struct GroupLooks {
    looks: Mutex<HashMap<QueueName, Look>>,
}

#[derive(Clone, Copy, Debug)]
struct Look {
    at: Timestamp,
    every: Duration,
}

impl GroupLooks {
    fn looks(&self) -> MutexGuard<'_, HashMap<QueueName, Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A claim with these policies has looked at the queue's groups. Without policies it has not.
    pub fn looked(&self, queue: &QueueName, now: Timestamp, policies: &[GroupPolicy]) {
        let soonest = policies.iter().map(|policy| policy.grace / 2).min();
        let Some(every) = soonest.map(|half| half.clamp(LOOK_MIN, LOOK_MAX)) else { return };
        self.looks().insert(queue.clone(), Look { at: now, every });
    }

    /// When groups of the queue are to be looked at again; `None` if nobody aggregates any. A clock that went back knows
    /// nothing of earlier looks.
    #[must_use]
    pub fn next(&self, queue: &QueueName, now: Timestamp) -> Option<Timestamp> {
        let look = self.looks().get(queue).copied()?;
        Some(if now < look.at { now } else { look.at.plus(look.every) })
    }

    /// How long a look at these queues holds, where their broker does not tell of new groups; `None` if nobody aggregates any.
    #[must_use]
    pub fn every(&self, queues: &[QueueName]) -> Option<Duration> {
        let looks = self.looks();
        queues.iter().filter_map(|queue| looks.get(queue)).map(|look| look.every).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(grace_ms: u64) -> GroupPolicy {
        let grace = Duration::from_millis(grace_ms);
        GroupPolicy { pattern: "*".into(), grace, max_delay: None, max_size: None }
    }

    #[test]
    fn a_look_holds_for_half_the_shortest_calm_time_within_bounds() {
        let at = |ms: i64| Timestamp::from_millis(1_000_000 + ms);
        let queue = QueueName::default_queue();
        let looks = GroupLooks::default();
        for (graces, holds) in
            [(vec![600, 5000], 300), (vec![50], 100), (vec![0], 100), (vec![3_600_000], 1000)]
        {
            let policies: Vec<_> = graces.into_iter().map(policy).collect();
            looks.looked(&queue, at(0), &policies);
            assert_eq!(looks.next(&queue, at(5)), Some(at(holds)));
        }
        looks.looked(&queue, at(700), &[]);
        assert_eq!(
            looks.next(&queue, at(700)),
            Some(at(1000)),
            "a claim without policies is no look"
        );
        assert_eq!(looks.next(&queue, at(-5)), Some(at(-5)), "a clock that went back");
        assert_eq!(looks.every(std::slice::from_ref(&queue)), Some(LOOK_MAX));
    }

    #[test]
    fn a_queue_of_which_nobody_aggregates_groups_has_no_look() {
        let (looks, queue) = (GroupLooks::default(), QueueName::default_queue());
        looks.looked(&queue, Timestamp::from_millis(7), &[]);
        assert_eq!(looks.next(&queue, Timestamp::from_millis(7)), None);
        assert_eq!(looks.every(&[queue]), None);
    }
}
