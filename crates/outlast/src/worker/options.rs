//! What a worker is put together from.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::{Backoff, GroupName, GroupPolicy, QueueName, TaskRecord};

use crate::client::TaskRequest;
use crate::handler::{Failure, TaskInfo};

/// How a worker treats one of its queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Its share, or its rank where priorities are strict; at least 1.
    pub weight: u32,
    /// How many of its tasks this worker runs at once; `None` for as many as there are slots.
    pub concurrency: Option<usize>,
}

impl Default for QueueOptions {
    fn default() -> Self {
        Self { weight: 1, concurrency: None }
    }
}

/// The tasks of a group that are to become one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupBatch {
    /// The group.
    pub group: GroupName,
    /// Its queue, to which the new task goes too.
    pub queue: QueueName,
    /// Its members, oldest first.
    pub tasks: Vec<TaskRecord>,
}

/// A running aggregation.
pub(super) type Aggregating = Pin<Box<dyn Future<Output = Result<TaskRequest, Failure>> + Send>>;

/// A policy with the function that makes one task of many.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) queue: QueueName,
    pub(super) policy: GroupPolicy,
    pub(super) aggregate: Arc<dyn Fn(GroupBatch) -> Aggregating + Send + Sync>,
}

type Delay = dyn Fn(u32, &Failure, &TaskInfo) -> Duration + Send + Sync;
type Counts = dyn Fn(&Failure) -> bool + Send + Sync;
type Hear = dyn Fn(&TaskInfo, &Failure) + Send + Sync;

/// What the user may decide about failures.
pub(super) struct Hooks {
    pub(super) delay: Arc<Delay>,
    pub(super) counts: Arc<Counts>,
    pub(super) hear: Option<Arc<Hear>>,
}

impl Default for Hooks {
    fn default() -> Self {
        Self {
            delay: Arc::new(|retried, _, _| Backoff::Asynq.delay(retried, rand::random())),
            counts: Arc::new(|_| true),
            hear: None,
        }
    }
}

/// When a worker ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopWhen {
    /// Never.
    Told,
    /// When nothing is pending, active, due or in retry.
    Empty,
    /// When nothing is pending, active or due now.
    Idle,
}
