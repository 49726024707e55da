//! While the broker is away: how fast tasks are stored, what memory that takes, and how fast all of them are delivered
//! afterwards. Each is counted by its number at the end, so that a stored one is one that has arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Bench, Enqueued, Expect, PRODUCERS, enqueue};
use crate::bench::{Figure, Outcome, Stopwatch};

/// How often memory is weighed.
const WEIGH_EVERY: Duration = Duration::from_millis(20);

/// How often is looked how much has been delivered.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How long nothing may be delivered before the drain is given up.
const STUCK_AFTER: f64 = 60.0;

impl Bench {
    pub(super) async fn away(&mut self, each: &mut impl FnMut(Figure)) -> Outcome<()> {
        let (timed, megabytes) = self.store().await?;
        let rate = self.deliver().await?;
        let exact = timed.as_expected && self.site.holds(self.plan.stored).await?;
        let mut counted = |figure: Figure| each(figure.exact(exact));
        counted(Figure::new("stored.p50", timed.percentile(50) / 1000.0, "ms"));
        counted(Figure::new("stored.p99", timed.percentile(99) / 1000.0, "ms"));
        counted(Figure::new("stored.rate", timed.rate(), "tasks/s"));
        counted(
            Figure::new("stored.memory", megabytes, "MB more")
                .beside("tasks stored", self.plan.stored as f64),
        );
        counted(Figure::new("drain.outbox", rate, "tasks/s"));
        Ok(())
    }

    /// Stores all tasks; answers with those that were timed, and by how much the process grew over all of them.
    async fn store(&mut self) -> Outcome<(Enqueued, f64)> {
        self.door.shut();
        let connection = self.surviving(&self.door_url, "away").await?;
        let (client, queue, plan) = (connection.client(), &self.site.queue, self.plan);
        let before = resident().await?;
        let highest = Arc::new(AtomicU64::new(before));
        let weighing = tokio::spawn(weigh(highest.clone()));
        let mut timed = enqueue(&client, queue, PRODUCERS, 0..plan.timed, Expect::Stored).await?;
        // In parts, so that what is noted of each is no memory that counts.
        for from in (plan.timed..plan.stored).step_by(plan.timed) {
            let numbers = from..plan.stored.min(from + plan.timed);
            let more = enqueue(&client, queue, PRODUCERS, numbers, Expect::Stored).await?;
            timed.as_expected &= more.as_expected;
        }
        weighing.abort();
        highest.fetch_max(resident().await?, Ordering::Relaxed);
        connection.close().await;
        let grown = highest.load(Ordering::Relaxed).saturating_sub(before);
        Ok((timed, grown as f64 / f64::from(1 << 20)))
    }

    /// Delivers all; answers with the rate of the second half, when the drain has found its pace.
    async fn deliver(&mut self) -> Outcome<f64> {
        let connection = self.surviving(&self.url, "away").await?;
        let survivor = connection.survivor().ok_or("the connection has no outbox")?;
        let half = self.plan.stored as u64 / 2;
        let (mut at_half, mut last, mut moved) = (None, 0, Stopwatch::start());
        let rate = loop {
            let status = survivor.status()?;
            let delivered = status.counts.delivered;
            if delivered != last {
                (last, moved) = (delivered, Stopwatch::start());
            }
            if at_half.is_none() && delivered >= half {
                at_half = Some((delivered, Stopwatch::start()));
            }
            if let (Some((from, since)), 0) = (&at_half, status.outbox.items) {
                break (delivered - from) as f64 / since.seconds();
            }
            if moved.seconds() > STUCK_AFTER {
                return Err(
                    format!("{} stored tasks are not delivered", status.outbox.items).into()
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        connection.close().await;
        Ok(rate)
    }
}

async fn weigh(highest: Arc<AtomicU64>) {
    loop {
        match resident().await {
            Ok(bytes) => highest.fetch_max(bytes, Ordering::Relaxed),
            Err(error) => return tracing::warn!(%error, "could not weigh this process"),
        };
        tokio::time::sleep(WEIGH_EVERY).await;
    }
}

/// Bytes of memory that this process has: from the system where it says so in a file, else from `ps`.
async fn resident() -> Outcome<u64> {
    let kilobytes = match std::fs::read_to_string("/proc/self/status") {
        Ok(status) => {
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok())
        }
        Err(_) => {
            let process = std::process::id().to_string();
            let mut ps = tokio::process::Command::new("ps");
            let said = ps.args(["-o", "rss=", "-p", &process]).output().await?;
            String::from_utf8_lossy(&said.stdout).trim().parse().ok()
        }
    };
    Ok(1024 * kilobytes.ok_or("the system does not say how much memory a process has")?)
}
