//! What the actors of one worker share: the leases it holds, its room for more, its phase.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use outlast_core::inspect::RunningTask;
use outlast_core::{
    Broker, BrokerError, GroupPolicy, Kind, Lease, LeaseToken, QueueName, Settlement, TaskId,
    Timestamp, limits,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::options::{Group, Hooks, QueueOptions};
use super::skew::Skew;
use super::{Phase, WorkerControl};
use crate::Clock;
use crate::handler::{Run, RunService, States, lock};
use crate::survive::Survivor;

/// Tasks that may be claimed ahead of a free slot. Only handlers that are over in a moment get any: see
/// [`Shared::prefetch`].
pub(super) const PREFETCH_MAX: usize = limits::BATCH_TASKS_MAX;

/// How much work may wait in the worker for a slot: small against the 2 s within which a dead worker is
/// noticed, large against one round trip to the broker.
const PREFETCH_WORK: Duration = Duration::from_millis(10);

/// Outcomes that may wait for the broker beyond the slots (law L2): two batches under way and one that
/// fills.
const UNSETTLED_MAX: usize = 3 * limits::BATCH_TASKS_MAX;

/// One of the worker's queues.
pub(super) struct WorkerQueue {
    pub(super) name: QueueName,
    pub(super) options: QueueOptions,
    pub(super) policies: Arc<[GroupPolicy]>,
    /// Of the worker's clock, against that of the queue's home.
    pub(super) skew: Skew,
    /// Tasks of this queue that take up room.
    busy: AtomicUsize,
}

impl WorkerQueue {
    pub(super) fn new(name: QueueName, options: QueueOptions, groups: &[Group]) -> Self {
        let own = groups.iter().filter(|group| group.queue == name);
        let policies = own.map(|group| group.policy.clone()).collect();
        Self { name, options, policies, skew: Skew::default(), busy: AtomicUsize::new(0) }
    }

    fn room(&self) -> usize {
        let busy = self.busy.load(Ordering::SeqCst);
        self.options.concurrency.map_or(usize::MAX, |most| most.saturating_sub(busy))
    }
}

/// A lease this worker holds, from claim to settlement.
pub(super) struct Held {
    pub(super) queue: usize,
    pub(super) lease: Lease,
    /// The run; an aggregation has none.
    pub(super) run: Option<Run>,
    pub(super) started_at: Timestamp,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Claimed, not ended.
    Busy,
    /// Ended; the outcome is on its way to the broker.
    Unsettled,
}

/// Room for one task: a place among the busy ones, and a slot once it runs. Given back when the last
/// holder drops it, which for a blocking handler is its thread.
pub(super) struct Room {
    shared: Arc<Shared>,
    queue: usize,
    permit: Option<OwnedSemaphorePermit>,
}

impl Room {
    /// The place of its queue among the worker's.
    pub(super) fn queue(&self) -> usize {
        self.queue
    }

    /// The same room with the slot in which the task runs.
    pub(super) fn with(mut self, permit: OwnedSemaphorePermit) -> Self {
        self.permit = Some(permit);
        self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.permit.take();
        self.shared.busy.fetch_sub(1, Ordering::SeqCst);
        self.shared.queues[self.queue].busy.fetch_sub(1, Ordering::SeqCst);
        self.shared.room.notify_one();
    }
}

/// A finished run on its way to the settler.
pub(super) struct Finished {
    pub(super) key: u64,
    pub(super) queue: usize,
    pub(super) settlement: Settlement,
}

/// How runs ended, for the summary.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) released: AtomicU64,
    pub(super) lost: AtomicU64,
}

pub(super) struct Shared {
    pub(super) broker: Arc<dyn Broker>,
    /// Takes outcomes from the drain phase on, where outages are outlived.
    pub(super) leaving: Option<Arc<dyn Broker>>,
    /// Where outages are outlived: they have lines of their own in the log.
    survivor: Option<Arc<Survivor>>,
    pub(super) clock: Clock,
    pub(super) control: WorkerControl,
    pub(super) token: LeaseToken,
    pub(super) lease: Duration,
    pub(super) queues: Vec<WorkerQueue>,
    pub(super) priority: outlast_core::pick::Priority,
    pub(super) slots: usize,
    pub(super) permits: Arc<Semaphore>,
    pub(super) service: RunService,
    pub(super) states: Arc<States>,
    pub(super) hooks: Hooks,
    pub(super) groups: Vec<Group>,
    pub(super) counters: Counters,
    /// Told whenever room may have appeared.
    pub(super) room: Notify,
    /// Told when the claimer has found nothing anywhere.
    pub(super) idle: Notify,
    pub(super) finished: mpsc::Sender<Finished>,
    held: Mutex<HashMap<u64, Held>>,
    next_key: AtomicU64,
    /// Tasks that take up room: those that run or wait for a slot.
    busy: AtomicUsize,
    /// When all leases were extended last, by the clock that leases are judged by.
    extended_at: AtomicI64,
    /// Smoothed time of a run in microseconds.
    run_micros: AtomicU64,
}

/// What `life` gives a new worker's shared state.
pub(super) struct Parts {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) leaving: Option<Arc<dyn Broker>>,
    pub(super) survivor: Option<Arc<Survivor>>,
    pub(super) clock: Clock,
    pub(super) control: WorkerControl,
    pub(super) token: LeaseToken,
    pub(super) lease: Duration,
    pub(super) queues: Vec<(QueueName, QueueOptions)>,
    pub(super) priority: outlast_core::pick::Priority,
    pub(super) slots: usize,
    pub(super) service: RunService,
    pub(super) states: Arc<States>,
    pub(super) hooks: Hooks,
    pub(super) groups: Vec<Group>,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> (Arc<Self>, mpsc::Receiver<Finished>) {
        let (finished, inbox) = mpsc::channel(parts.slots + UNSETTLED_MAX);
        let own = |(name, options)| WorkerQueue::new(name, options, &parts.groups);
        let queues = parts.queues.into_iter().map(own).collect();
        let extended_at = AtomicI64::new(parts.clock.now().as_millis());
        let shared = Self {
            broker: parts.broker,
            leaving: parts.leaving,
            survivor: parts.survivor,
            clock: parts.clock,
            control: parts.control,
            token: parts.token,
            lease: parts.lease,
            queues,
            priority: parts.priority,
            slots: parts.slots,
            permits: Arc::new(Semaphore::new(parts.slots)),
            service: parts.service,
            states: parts.states,
            hooks: parts.hooks,
            groups: parts.groups,
            counters: Counters::default(),
            room: Notify::new(),
            idle: Notify::new(),
            finished,
            held: Mutex::default(),
            next_key: AtomicU64::new(0),
            busy: AtomicUsize::new(0),
            extended_at,
            run_micros: AtomicU64::new(u64::MAX),
        };
        (Arc::new(shared), inbox)
    }

    /// Says that the broker did not do something. In an outage that is told as such it is a detail: one line
    /// going down and one coming up are enough (law L10).
    pub(super) fn failed(&self, what: &str, queue: Option<&QueueName>, error: &BrokerError) {
        let (queue, kind) = (queue.map(QueueName::as_str), error.kind());
        let is_outage = kind.is_transient() || kind == Kind::Misconfigured;
        match self.survivor.is_some() && is_outage {
            true => tracing::debug!(queue, %kind, %error, "could not {what}"),
            false => tracing::warn!(queue, %kind, %error, "could not {what}"),
        }
    }

    /// True unless claims of this queue are known to be refused, or its home to be away: then it is not asked anything
    /// beside the verbs either (law L9).
    pub(super) fn is_claimable(&self, queue: &QueueName) -> bool {
        self.survivor.as_ref().is_none_or(|survivor| survivor.is_claimable(queue))
    }

    /// True while nothing of the queue may be claimed, because outcomes of it wait in the journal: its claim would hold
    /// up the other queues. If that cannot be seen, the claim says why.
    pub(super) fn owes(&self, queue: &QueueName) -> bool {
        self.survivor.as_ref().is_some_and(|survivor| survivor.owes(queue).unwrap_or(false))
    }

    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.control.watch()
    }

    /// How many tasks of a queue may be claimed now.
    pub(super) fn room_for(&self, queue: &WorkerQueue) -> usize {
        let busy = self.busy.load(Ordering::SeqCst);
        let held = lock(&self.held).len();
        let run = (self.slots + self.prefetch()).saturating_sub(busy);
        let settle = (self.slots + UNSETTLED_MAX).saturating_sub(held);
        run.min(settle).min(queue.room()).min(limits::BATCH_TASKS_MAX)
    }

    /// How many tasks may wait in the worker for a slot: as many as all slots get through in
    /// [`PREFETCH_WORK`]. Handlers that take longer get none, so that no task waits here while another
    /// worker is free.
    fn prefetch(&self) -> usize {
        let micros = self.run_micros.load(Ordering::Relaxed);
        if micros == u64::MAX {
            return 0;
        }
        let work = u64::try_from(PREFETCH_WORK.as_micros()).unwrap_or(u64::MAX);
        let tasks = work.saturating_mul(self.slots as u64) / micros.max(1);
        usize::try_from(tasks).unwrap_or(PREFETCH_MAX).min(PREFETCH_MAX)
    }

    /// Learns how long a run took; recent runs count more.
    pub(super) fn took(&self, run: Duration) {
        let micros = u64::try_from(run.as_micros()).unwrap_or(u64::MAX - 1).max(1);
        let before = self.run_micros.load(Ordering::Relaxed);
        let smooth = if before == u64::MAX { micros } else { before - before / 8 + micros / 8 };
        self.run_micros.store(smooth.max(1), Ordering::Relaxed);
    }

    /// A task has waited for a slot for too long: runs are not as short as they were.
    pub(super) fn crowded(&self, waited: Duration) {
        let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX - 1);
        self.run_micros.store(micros, Ordering::Relaxed);
    }

    /// All leases have been extended.
    pub(super) fn extended(&self, now: Timestamp) {
        self.extended_at.store(now.as_millis(), Ordering::Relaxed);
    }

    /// When all leases were extended last.
    pub(super) fn extended_at(&self) -> Timestamp {
        Timestamp::from_millis(self.extended_at.load(Ordering::Relaxed))
    }

    /// Room for one task of a queue, taken until it is dropped.
    pub(super) fn take_room(self: &Arc<Self>, queue: usize) -> Room {
        self.busy.fetch_add(1, Ordering::SeqCst);
        self.queues[queue].busy.fetch_add(1, Ordering::SeqCst);
        Room { shared: self.clone(), queue, permit: None }
    }

    /// Takes a claim into the books.
    pub(super) fn hold(&self, queue: usize, lease: Lease, run: Option<Run>, now: Timestamp) -> u64 {
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let held = Held { queue, lease, run, started_at: now, stage: Stage::Busy };
        lock(&self.held).insert(key, held);
        key
    }

    /// A run has ended; its outcome is not yet settled.
    pub(super) fn ended(&self, key: u64) {
        if let Some(held) = lock(&self.held).get_mut(&key) {
            held.stage = Stage::Unsettled;
        }
        self.room.notify_one();
    }

    /// A claim leaves the books: settled, or lost.
    pub(super) fn drop_held(&self, key: u64) {
        lock(&self.held).remove(&key);
        self.room.notify_one();
    }

    /// Runs that have not ended. A thread that goes on after its run has ended is none.
    pub(super) fn unfinished(&self) -> usize {
        lock(&self.held).values().filter(|held| held.stage == Stage::Busy).count()
    }

    /// Leases that are held, ended runs included.
    pub(super) fn held(&self) -> usize {
        lock(&self.held).len()
    }

    /// The run of a task that was handed out to this worker once more, which can only be because its
    /// lease was lost meanwhile. (An outcome on its way is no run: its task may be due again already.)
    pub(super) fn former_run(&self, queue: usize, id: &TaskId) -> Option<Run> {
        let held = lock(&self.held);
        let mut own = held.values().filter(|held| {
            held.stage == Stage::Busy && held.queue == queue && held.lease.id == *id
        });
        own.next().and_then(|held| held.run.clone())
    }

    /// Looks at every lease that is held.
    pub(super) fn for_each_held(&self, mut look: impl FnMut(u64, &mut Held)) {
        for (key, held) in lock(&self.held).iter_mut() {
            look(*key, held);
        }
    }

    /// The runs that a cancel command means.
    pub(super) fn find_runs(&self, queue: &QueueName, id: &TaskId) -> Vec<Run> {
        let held = lock(&self.held);
        let own =
            held.values().filter(|h| self.queues[h.queue].name == *queue && h.lease.id == *id);
        own.filter_map(|h| h.run.clone()).collect()
    }

    /// What runs now, for the beat.
    pub(super) fn running(&self) -> Vec<RunningTask> {
        let held = lock(&self.held);
        let busy = held.values().filter(|held| held.stage == Stage::Busy);
        let mut left = limits::BEAT_PAYLOADS_MAX;
        let shown = busy.filter_map(|held| {
            let run = held.run.as_ref()?;
            Some(RunningTask {
                queue: self.queues[held.queue].name.clone(),
                id: held.lease.id.clone(),
                task_type: run.task().task_type.clone(),
                started_at: held.started_at,
                deadline: run.deadline(),
                payload: shown_payload(&run.task().payload, &mut left),
            })
        });
        shown.take(limits::BEAT_RUNNING_MAX).collect()
    }
}

/// A payload as a beat shows it, if there is room for it.
fn shown_payload(payload: &Bytes, left: &mut usize) -> Bytes {
    let rest =
        left.checked_sub(payload.len()).filter(|_| payload.len() <= limits::BEAT_PAYLOAD_MAX);
    let Some(rest) = rest else { return Bytes::new() };
    *left = rest;
    payload.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_shows_short_payloads_as_long_as_there_is_room() {
        let bytes = |length: usize| Bytes::from(vec![b'x'; length]);
        let (longest, mut left) = (limits::BEAT_PAYLOAD_MAX, limits::BEAT_PAYLOADS_MAX);
        assert!(shown_payload(&bytes(longest + 1), &mut left).is_empty());
        for _ in 0..limits::BEAT_PAYLOADS_MAX / longest {
            assert_eq!(shown_payload(&bytes(longest), &mut left).len(), longest);
        }
        assert!(shown_payload(&bytes(1), &mut left).is_empty());
    }
}
