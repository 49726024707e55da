//! Ends a worker that is to end by itself: when its queues are empty, or when nothing can run now.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::{Inspect, QueueStats, Timestamp};

use super::life::Phase;
use super::options::StopWhen;
use super::shared::Shared;

/// How often to look while other workers still have tasks of these queues.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Stops the worker when it is time to.
pub(super) async fn run(shared: Arc<Shared>, inspect: Arc<dyn Inspect>, when: StopWhen) {
    let mut phase = shared.phase();
    loop {
        tokio::select! {
            _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return,
            () = shared.idle.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        if shared.held() == 0 && nothing_left(&shared, &*inspect, when).await {
            return shared.control.stop();
        }
    }
}

async fn nothing_left(shared: &Shared, inspect: &dyn Inspect, when: StopWhen) -> bool {
    for queue in &shared.queues {
        let now = shared.clock.now();
        match inspect.queue(&queue.name, now).await {
            Ok(None) => {}
            Ok(Some(stats)) if is_over(&stats, now, when, queue.policies.is_empty()) => {}
            Ok(Some(_)) => return false,
            Err(error) => {
                tracing::warn!(queue = %queue.name, kind = %error.kind(), %error, "could not look");
                return false;
            }
        }
    }
    true
}

fn is_over(stats: &QueueStats, now: Timestamp, when: StopWhen, no_groups: bool) -> bool {
    let due = stats.next_due.is_some_and(|at| at <= now);
    // A paused queue hands out nothing, so waiting for it would not end.
    let waiting = stats.pending > 0 && stats.paused_since.is_none();
    let grouped = stats.aggregating > 0 && !no_groups && when == StopWhen::Empty;
    let retry = stats.retry > 0 && when == StopWhen::Empty;
    !(waiting || stats.active > 0 || due || retry || grouped)
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
        let over = |stats: &QueueStats, when| is_over(stats, now, when, true);
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
