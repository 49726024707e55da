//! One run of a task, as its handler and the middleware see it.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use outlast_core::{TaskRecord, Timestamp, limits};
use tokio_util::sync::CancellationToken;

use super::reply::Failure;

/// A run: the task, its deadline, and the ways to hear about cancellation and to write results. Cheap to
/// clone.
#[derive(Clone, Debug)]
pub struct Run {
    pub(crate) inner: Arc<RunInner>,
}

pub(crate) struct RunInner {
    pub(crate) task: TaskRecord,
    pub(crate) deadline: Timestamp,
    pub(crate) cancel: CancellationToken,
    pub(crate) reason: Mutex<Option<CancelReason>>,
    pub(crate) listens: AtomicBool,
    pub(crate) written: Written,
    pub(crate) states: Arc<States>,
    /// Held by blocking handlers beyond the end of the run, so that a slot is not given away while its
    /// thread still works.
    pub(crate) slot: Mutex<Option<Arc<dyn Any + Send + Sync>>>,
}

impl std::fmt::Debug for RunInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Run").field("task", &self.task.id).field("queue", &self.task.queue).finish()
    }
}

/// Why a run was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// Its timeout or deadline is over.
    Deadline,
    /// Somebody cancelled it.
    Remote,
    /// Its lease is lost: another worker may run it by now.
    LeaseLost,
    /// The worker shuts down and will not wait any longer; the task is given back.
    Shutdown,
}

impl CancelReason {
    /// The error text that is stored, asynq's where it has one (contract §4.3).
    pub(crate) fn text(self) -> &'static str {
        match self {
            CancelReason::Deadline => "context deadline exceeded",
            CancelReason::Remote => "context canceled",
            CancelReason::LeaseLost => "task lease expired",
            CancelReason::Shutdown => "worker is shutting down",
        }
    }
}

impl Run {
    pub(crate) fn new(task: TaskRecord, now: Timestamp, states: Arc<States>) -> Self {
        let deadline = task.run_deadline(now);
        let inner = RunInner {
            task,
            deadline,
            cancel: CancellationToken::new(),
            reason: Mutex::new(None),
            listens: AtomicBool::new(false),
            written: Written::default(),
            states,
            slot: Mutex::new(None),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The task as the broker handed it out.
    #[must_use]
    pub fn task(&self) -> &TaskRecord {
        &self.inner.task
    }

    /// When this run must be over.
    #[must_use]
    pub fn deadline(&self) -> Timestamp {
        self.inner.deadline
    }

    /// Which run this is, from 1. Lost leases do not count.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.task.retried.saturating_add(1)
    }

    /// Why the run was cancelled, if it was.
    #[must_use]
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        *lock(&self.inner.reason)
    }

    /// Cancels the run; the first reason stays.
    pub(crate) fn cancel(&self, reason: CancelReason) {
        lock(&self.inner.reason).get_or_insert(reason);
        self.inner.cancel.cancel();
    }

    /// True if the handler asked for [`Cancel`](super::Cancel): it wants to end by itself.
    pub(crate) fn listens(&self) -> bool {
        self.inner.listens.load(Ordering::Relaxed)
    }
}

/// What a handler has written and the keeper has not stored yet.
#[derive(Default)]
pub(crate) struct Written {
    latest: Mutex<Latest>,
}

#[derive(Default)]
struct Latest {
    bytes: Option<Bytes>,
    stored: bool,
}

impl Written {
    /// Replaces what was written before.
    pub(crate) fn write(&self, bytes: Bytes) -> Result<(), Failure> {
        if bytes.len() > limits::RESULT_BYTES_MAX {
            let (got, max) = (bytes.len(), limits::RESULT_BYTES_MAX);
            return Err(Failure::retry(format!(
                "result of {got} bytes is too large: at most {max}"
            )));
        }
        *lock(&self.latest) = Latest { bytes: Some(bytes), stored: false };
        Ok(())
    }

    /// What is to be stored now, if anything is.
    pub(crate) fn take_unstored(&self) -> Option<Bytes> {
        let mut latest = lock(&self.latest);
        if latest.stored {
            return None;
        }
        latest.stored = true;
        latest.bytes.clone()
    }

    /// The last thing written, for the settlement.
    pub(crate) fn latest(&self) -> Option<Bytes> {
        lock(&self.latest).bytes.clone()
    }
}

/// Values that handlers share, one per type.
#[derive(Default)]
pub(crate) struct States(HashMap<TypeId, Arc<dyn Any + Send + Sync>>);

impl States {
    pub(crate) fn insert<T: Send + Sync + 'static>(&mut self, value: Arc<T>) {
        self.0.insert(TypeId::of::<T>(), value);
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get(&TypeId::of::<T>()).cloned().and_then(|value| value.downcast().ok())
    }
}

/// A lock that survives a panic elsewhere: every value behind these locks is whole after each step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
