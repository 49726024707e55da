//! Ends a worker that is to end by itself: when its queues are empty, or when nothing can run now.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::{BrokerError, GroupStats, Inspect, QueueStats, Timestamp};

use super::life::Phase;
use super::options::StopWhen;
use super::shared::{Shared, WorkerQueue};
use crate::Connection;

/// How often to look while other workers still have tasks of these queues.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Stops the worker when it is time to.
pub(super) async fn run(shared: Arc<Shared>, connection: Connection, when: StopWhen) {
    let mut phase = shared.phase();
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            () = shared.idle.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        // Twice: queues are read one after the other, and a task of a later one may have enqueued into
        // an earlier one meanwhile.
        if shared.held() == 0
            && nothing_left(&shared, &connection, when).await
            && nothing_left(&shared, &connection, when).await
        {
            return shared.control.stop();
        }
    }
}

async fn nothing_left(shared: &Shared, connection: &Connection, when: StopWhen) -> bool {
    for queue in &shared.queues {
        // A broker that is away is not asked ten times a second whether it has anything left.
        if connection.survivor().is_some_and(|survivor| !survivor.is_claimable(&queue.name)) {
            return false;
        }
        match is_empty(shared, &*connection.inspect, queue, when).await {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                tracing::warn!(queue = %queue.name, kind = %error.kind(), %error, "could not look");
                return false;
            }
        }
    }
    true
}

async fn is_empty(
    shared: &Shared,
    inspect: &dyn Inspect,
    queue: &WorkerQueue,
    when: StopWhen,
) -> Result<bool, BrokerError> {
    let now = shared.clock.now();
    let Some(stats) = inspect.queue(&queue.name, now).await? else { return Ok(true) };
    if !is_over(&stats, now, when) {
        return Ok(false);
    }
    // Groups that this worker aggregates are work to come; others may wait for somebody else.
    if when == StopWhen::Empty && stats.aggregating > 0 && stats.paused_since.is_none() {
        let groups = inspect.groups(&queue.name).await?;
        let own = |group: &GroupStats| queue.policies.iter().any(|p| p.matches(&group.group));
        return Ok(!groups.iter().any(own));
    }
    Ok(true)
}

fn is_over(stats: &QueueStats, now: Timestamp, when: StopWhen) -> bool {
    // A paused queue hands out nothing, so waiting for it would not end.
    if stats.paused_since.is_some() {
        return stats.active == 0;
    }
    let due = stats.next_due.is_some_and(|at| at <= now);
    let retry = stats.retry > 0 && when == StopWhen::Empty;
    !(stats.pending > 0 || stats.active > 0 || due || retry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast_core::QueueName;

    #[test]
    fn retries_keep_a_batch_job_alive_but_tasks_for_later_do_not() {
        let now = Timestamp::from_seconds(100);
        let later = Timestamp::from_seconds(200);
        let stats = |change: fn(&mut QueueStats)| {
            let mut stats = QueueStats::empty(QueueName::stored("q"));
            change(&mut stats);
            stats
        };
        let over = |stats: &QueueStats, when| is_over(stats, now, when);
        assert!(over(&stats(|_| {}), StopWhen::Empty));
        assert!(!over(&stats(|s| s.pending = 1), StopWhen::Empty));
        assert!(!over(&stats(|s| s.active = 1), StopWhen::Idle));
        assert!(!over(&stats(|s| s.retry = 1), StopWhen::Empty));
        assert!(over(&stats(|s| s.retry = 1), StopWhen::Idle));
        let mut scheduled = stats(|s| s.scheduled = 1);
        scheduled.next_due = Some(later);
        assert!(over(&scheduled, StopWhen::Empty));
        scheduled.next_due = Some(now);
        assert!(!over(&scheduled, StopWhen::Empty));
    }
}
