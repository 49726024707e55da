//! Keeps what the worker holds: extends leases first, then beats, then carries out commands.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::broker::{Beat, Command, Extended, Hold, WorkerBeat};
use outlast_core::inspect::{WorkerStatus, WorkerView};
use outlast_core::{Interest, limits};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use super::life::Phase;
use super::shared::Shared;
use crate::handler::CancelReason;

/// How often a worker shows itself (asynq's interval, contract §4.6).
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long a beat holds: a worker is gone after missing two and a half.
pub(super) const BEAT_TTL: Duration = Duration::from_secs(12);

/// How often progress is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const WAIT_MAX: Duration = Duration::from_secs(15);

pub(super) struct Keeper {
    shared: Arc<Shared>,
    view: WorkerView,
    seen: u64,
    extend_every: Duration,
    extended_at: Instant,
    beaten_at: Instant,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, view: WorkerView) -> Self {
        let extend_every = (shared.lease / 4).min(BEAT_EVERY);
        let now = Instant::now();
        Self { shared, view, seen: 0, extend_every, extended_at: now, beaten_at: now }
    }

    /// Keeps until the worker is flushed; the last beat is the life cycle's.
    pub(super) async fn run(mut self) {
        let commands = Arc::new(Notify::new());
        let listener = tokio::spawn(listen(self.shared.clone(), commands.clone()));
        let mut phase = self.shared.phase();
        let mut look = tokio::time::interval(LOOK_EVERY.min(self.extend_every));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut beat = false;
            tokio::select! {
                _ = look.tick() => {}
                () = commands.notified() => beat = true,
                changed = phase.changed() => beat = changed.is_ok(),
            }
            if *phase.borrow() >= Phase::Gone {
                break;
            }
            self.extend().await;
            if beat || self.beaten_at.elapsed() >= BEAT_EVERY {
                self.beat().await;
            }
        }
        listener.abort();
    }

    /// Extends every lease when it is time to, and between those times the ones with progress to store.
    async fn extend(&mut self) {
        let all = self.extended_at.elapsed() >= self.extend_every;
        let mut holds: HashMap<usize, Vec<(u64, Hold)>> = HashMap::new();
        self.shared.for_each_held(|key, held| {
            let result = held.run.as_ref().and_then(|run| run.inner.written.take_unstored());
            if all || result.is_some() {
                let hold = Hold { lease: held.lease.clone(), result };
                holds.entry(held.queue).or_default().push((key, hold));
            }
        });
        if all {
            self.extended_at = Instant::now();
        }
        for (queue, holds) in holds {
            for batch in holds.chunks(limits::BATCH_TASKS_MAX) {
                self.extend_batch(queue, batch).await;
            }
        }
    }

    async fn extend_batch(&self, queue: usize, batch: &[(u64, Hold)]) {
        let shared = &self.shared;
        let name = &shared.queues[queue].name;
        let holds = batch.iter().map(|(_, hold)| hold.clone()).collect();
        match shared.broker.extend(name, shared.clock.now(), holds, shared.lease).await {
            Ok(verdicts) => {
                let lost: Vec<u64> = std::iter::zip(batch, verdicts)
                    .filter(|(_, verdict)| *verdict == Extended::Lost)
                    .map(|((key, _), _)| *key)
                    .collect();
                self.lost(&lost);
            }
            // A broker that is away cancels no handler: the lease is judged when it is back.
            Err(error) => {
                tracing::warn!(queue = %name, kind = %error.kind(), %error, "could not extend leases");
            }
        }
    }

    fn lost(&self, keys: &[u64]) {
        self.shared.for_each_held(|key, held| {
            if let Some(run) = held.run.as_ref().filter(|_| keys.contains(&key)) {
                // A run that has just been settled looks lost, too; cancelling it does nothing.
                run.cancel(CancelReason::LeaseLost);
            }
        });
    }

    async fn beat(&mut self) {
        let shared = &self.shared;
        self.view.status = match *shared.phase().borrow() {
            Phase::Running => WorkerStatus::Running,
            Phase::Quiet => WorkerStatus::Quiet,
            Phase::Draining | Phase::Releasing | Phase::Flushing => WorkerStatus::Draining,
            Phase::Gone => WorkerStatus::Gone,
        };
        self.view.active = u32::try_from(shared.busy()).unwrap_or(u32::MAX);
        self.view.running = shared.running();
        let worker =
            WorkerBeat { view: self.view.clone(), token: Some(shared.token), seen: self.seen };
        let beat = Beat { worker: Some(worker), ttl: BEAT_TTL, ..Beat::default() };
        match shared.broker.beat(shared.clock.now(), &beat).await {
            Ok(reply) => {
                self.beaten_at = Instant::now();
                for (number, command) in reply.commands {
                    self.seen = self.seen.max(number);
                    self.carry_out(&command);
                }
            }
            Err(error) => tracing::warn!(kind = %error.kind(), %error, "could not beat"),
        }
    }

    fn carry_out(&self, command: &Command) {
        match command {
            Command::Cancel { queue, id } => {
                for run in self.shared.find_runs(queue, id) {
                    tracing::info!(%queue, %id, "cancelled from outside");
                    run.cancel(CancelReason::Remote);
                }
            }
            Command::Quiet => self.shared.control.quiet(),
            Command::Stop => self.shared.control.stop(),
            unknown => tracing::warn!(?unknown, "a command that this version does not know"),
        }
    }
}

/// Waits for commands beside the work, so that a full worker hears them too.
async fn listen(shared: Arc<Shared>, commands: Arc<Notify>) {
    let interest = Interest { queues: Vec::new(), token: Some(shared.token) };
    loop {
        match shared.broker.wait(&interest, shared.clock.now(), WAIT_MAX).await {
            Ok(woke) if woke.commands => {
                commands.notify_one();
                // The beat that fetches them is under way; asking again at once would find the same.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
