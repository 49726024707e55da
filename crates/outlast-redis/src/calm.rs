//! Queues in which a sweep would find nothing: known by what the server tells, so that sweeping an idle
//! queue costs no command.

use std::time::Duration;

use outlast_core::limits::ARCHIVE_AGE;
use outlast_core::{BrokerError, QueueName, Swept, Timestamp};
use redis::Value;

use crate::answer;
use crate::broker::Inner;
use crate::hub::{Seen, Subject};
use crate::wait::{PROBE_EVERY, head};

/// How long a queue is believed to be calm: a net, and what a sweep heals (contract §5.4) changes no key
/// that is watched.
const CALM_MAX: Duration = Duration::from_secs(300);

/// The same where a worker holds leases: that it extends them no more is what no server tells.
const HELD_MAX: Duration = Duration::from_secs(2);

impl Inner {
    /// What a sweep at `now` would answer, if it is known that it would find nothing. What is known is true while the connection
    /// is alive that would tell otherwise: where nobody waits, the sweep itself makes sure of that.
    pub(crate) async fn calm_sweep(&self, queue: &QueueName, now: Timestamp) -> Option<Swept> {
        self.known_calm(queue, now)?;
        self.watch.probe(PROBE_EVERY).await;
        self.known_calm(queue, now)
    }

    fn known_calm(&self, queue: &QueueName, now: Timestamp) -> Option<Swept> {
        match self.hub.known(&Subject::Sweep(queue.clone()))? {
            Seen::Calm { since, until, next_due } if since <= now && now < until => {
                Some(Swept { next_due, ..Swept::default() })
            }
            _ => None,
        }
    }

    /// A sweep has found nothing: asks when the next one might, and to be told if that changes. Errors are
    /// of no account; the next sweep is then a real one.
    pub(crate) async fn look_for_calm(&self, queue: &QueueName, now: Timestamp) {
        let subject = Subject::Sweep(queue.clone());
        let mark = self.hub.mark(&subject);
        if !matches!(self.watch.is_told().await, Ok(true)) {
            return;
        }
        match self.calm_of(queue, now).await {
            Ok(seen) => {
                self.hub.keep(&subject, mark, seen);
            }
            Err(error) => {
                tracing::debug!(%queue, kind = %error.kind(), %error, "could not look for calm");
            }
        }
    }

    async fn calm_of(&self, queue: &QueueName, now: Timestamp) -> Result<Seen, BrokerError> {
        let keys = self.root.queue(queue);
        let mut pipe = redis::pipe();
        for set in ["lease", "completed", "aggregation_sets", "scheduled", "retry", "archived"] {
            pipe.cmd("ZRANGE").arg(keys.key(set)).arg(0).arg(0).arg("WITHSCORES");
        }
        pipe.cmd("ZCARD").arg(keys.key("archived"));
        let mut answers = self.watch.run_all(&pipe).await?.into_iter();
        let mut next = || -> Value { answers.next().unwrap_or_default() };
        let [lease, completed, sets] = [head(next())?, head(next())?, head(next())?];
        let [scheduled, retry, archived] = [head(next())?, head(next())?, head(next())?];
        let archived_count = answer::int(next())?;
        let next_due = scheduled.into_iter().chain(retry).min();
        let too_old = archived.map(|at| at.plus(ARCHIVE_AGE));
        let most = if lease.is_some() { HELD_MAX } else { CALM_MAX };
        let moments = [lease, completed, sets, next_due, too_old, Some(now.plus(most))];
        let is_full = usize::try_from(archived_count).is_ok_and(|n| n > self.options.archive_max);
        let until = moments.into_iter().flatten().min().filter(|_| !is_full).unwrap_or(now);
        Ok(Seen::Calm { since: now, until, next_due })
    }
}
