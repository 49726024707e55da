//! Keeps what the worker holds: extends leases first, then beats, then carries out commands.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlast_core::broker::{Beat, Command, Extended, Hold, WorkerBeat};
use outlast_core::inspect::{WorkerStatus, WorkerView};
use outlast_core::{Interest, limits};
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

use super::life::Phase;
use super::shared::Shared;
use crate::handler::CancelReason;

/// How often a worker shows itself (asynq's interval, contract §4.6).
pub(super) const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long a beat holds: asynq's twice the interval, so that a beat may be late by more than four seconds.
pub(super) const BEAT_TTL: Duration = Duration::from_secs(10);

/// How often progress is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

const WAIT_MAX: Duration = Duration::from_secs(15);

/// The pause before commands are waited for again where a beat has brought none although the broker spoke of them:
/// what it knew was a moment old. Well below the 50 ms in which a cancel has to arrive.
const NOTHING_PAUSE: Duration = Duration::from_millis(20);

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
        let commands = Arc::new(Commands::default());
        // Ends with this keeper, however that ends.
        let _listener =
            AbortOnDropHandle::new(tokio::spawn(listen(self.shared.clone(), commands.clone())));
        let mut phase = self.shared.phase();
        let mut look = tokio::time::interval(LOOK_EVERY.min(self.extend_every));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (mut beat, mut is_asked) = (false, false);
            tokio::select! {
                _ = look.tick() => {}
                () = commands.wait.notified() => is_asked = true,
                changed = phase.changed() => beat = changed.is_ok(),
            }
            if *phase.borrow() >= Phase::Gone {
                break;
            }
            self.extend().await;
            if is_asked {
                self.fetch(&commands).await;
            } else if beat || self.beaten_at.elapsed() >= BEAT_EVERY {
                self.beat().await;
            }
        }
    }

    /// Extends every lease when it is time to, and between those times the ones with progress to store.
    /// What could not be extended is tried again at the next look.
    async fn extend(&mut self) {
        let all = self.extended_at.elapsed() >= self.extend_every;
        let now = self.shared.clock.now();
        let mut holds: HashMap<usize, Vec<(u64, Hold)>> = HashMap::new();
        self.shared.for_each_held(|key, held| {
            let result = held.run.as_ref().and_then(|run| run.inner.written.take_unstored());
            if all || result.is_some() {
                let hold = Hold { lease: held.lease.clone(), result };
                holds.entry(held.queue).or_default().push((key, hold));
            }
        });
        let mut is_whole = true;
        for (queue, holds) in holds {
            for batch in holds.chunks(limits::BATCH_TASKS_MAX) {
                is_whole &= self.extend_batch(queue, batch).await;
            }
        }
        if all && is_whole {
            self.extended_at = Instant::now();
            self.shared.extended(now);
        }
    }

    async fn extend_batch(&self, queue: usize, batch: &[(u64, Hold)]) -> bool {
        let shared = &self.shared;
        let queue = &shared.queues[queue];
        let name = &queue.name;
        let holds = batch.iter().map(|(_, hold)| hold.clone()).collect();
        let lease = shared.lease + queue.skew.behind();
        match shared.broker.extend(name, shared.clock.now(), holds, lease).await {
            Ok(verdicts) => {
                let lost: Vec<u64> = std::iter::zip(batch, verdicts)
                    .filter(|(_, verdict)| *verdict == Extended::Lost)
                    .map(|((key, _), _)| *key)
                    .collect();
                self.lost(&lost);
                true
            }
            // A broker that is away cancels no handler: the lease is judged when it is back.
            Err(error) => {
                self.shared.failed("extend leases", Some(name), &error);
                self.not_stored(batch);
                false
            }
        }
    }

    /// Progress that was taken for a batch which failed is due again.
    fn not_stored(&self, batch: &[(u64, Hold)]) {
        let keys: Vec<u64> =
            batch.iter().filter(|(_, hold)| hold.result.is_some()).map(|(key, _)| *key).collect();
        self.shared.for_each_held(|key, held| {
            if let Some(run) = held.run.as_ref().filter(|_| keys.contains(&key)) {
                run.inner.written.not_stored();
            }
        });
    }

    fn lost(&self, keys: &[u64]) {
        self.shared.for_each_held(|key, held| {
            if let Some(run) = held.run.as_ref().filter(|_| keys.contains(&key)) {
                // A run that has just been settled looks lost, too; cancelling it does nothing.
                run.cancel(CancelReason::LeaseLost);
            }
        });
    }

    /// Carries out the commands that wait. The next beat makes the broker forget them: until then it would speak of
    /// them again.
    async fn fetch(&mut self, commands: &Commands) {
        let has_brought = self.beat().await > 0;
        if has_brought {
            self.beat().await;
        }
        commands.has_brought.store(has_brought, Ordering::Relaxed);
        commands.fetched.notify_one();
    }

    /// How many commands it brought.
    async fn beat(&mut self) -> usize {
        let shared = &self.shared;
        self.view.status = match *shared.phase().borrow() {
            Phase::Running => WorkerStatus::Running,
            Phase::Quiet => WorkerStatus::Quiet,
            Phase::Draining | Phase::Releasing | Phase::GivingBack | Phase::Flushing => {
                WorkerStatus::Draining
            }
            Phase::Gone => WorkerStatus::Gone,
        };
        self.view.active = u32::try_from(shared.unfinished()).unwrap_or(u32::MAX);
        self.view.running = shared.running();
        let worker =
            WorkerBeat { view: self.view.clone(), token: Some(shared.token), seen: self.seen };
        let beat = Beat { worker: Some(worker), ttl: BEAT_TTL, ..Beat::default() };
        match shared.broker.beat(shared.clock.now(), &beat).await {
            Ok(reply) => {
                self.beaten_at = Instant::now();
                for (number, command) in &reply.commands {
                    self.seen = self.seen.max(*number);
                    self.carry_out(command);
                }
                reply.commands.len()
            }
            Err(error) => {
                self.shared.failed("beat", None, &error);
                // A command that waits would ask for the next beat at once.
                tokio::time::sleep(LOOK_EVERY).await;
                0
            }
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

/// Between the keeper and its listener.
#[derive(Default)]
struct Commands {
    /// To the keeper: commands wait.
    wait: Notify,
    /// To the listener: they were fetched.
    fetched: Notify,
    has_brought: AtomicBool,
}

/// Waits for commands beside the work, so that a full worker hears them too.
async fn listen(shared: Arc<Shared>, commands: Arc<Commands>) {
    let interest = Interest { queues: Vec::new(), token: Some(shared.token) };
    loop {
        match shared.broker.wait(&interest, shared.clock.now(), WAIT_MAX).await {
            Ok(woke) if woke.commands => {
                commands.wait.notify_one();
                // Asking before they were fetched would find the same.
                commands.fetched.notified().await;
                if !commands.has_brought.load(Ordering::Relaxed) {
                    tokio::time::sleep(NOTHING_PAUSE).await;
                }
            }
            Ok(_) => {}
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
}
