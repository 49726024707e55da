//! Handler arguments: each says how it is made from a run.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use outlast_core::{GroupName, Headers, QueueName, TaskId, TaskType, Timestamp};
use serde::de::DeserializeOwned;

use super::reply::Failure;
use super::run::{CancelReason, Run, States};
use crate::client::Task;

/// A handler argument.
///
/// Implement it for types of your own to hand them to handlers:
///
/// ```
/// use outlast::{Failure, FromRun, Run};
/// struct Tenant(String);
/// impl FromRun for Tenant {
///     fn from_run(run: &Run) -> Result<Self, Failure> {
///         let tenant = run.task().headers.get("tenant");
///         tenant.map(|t| Tenant(t.clone())).ok_or_else(|| Failure::archive("no header tenant"))
///     }
/// }
/// async fn handler(Tenant(tenant): Tenant) {
///     println!("for {tenant}");
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler argument",
    label = "handlers cannot take a `{Self}`",
    note = "handlers take Payload<T>, Json<T>, RawPayload, State<T>, TaskInfo, TaskId, Attempt, TaskHeaders, Cancel, ResultWriter, Run, or a type of yours that implements outlast::FromRun"
)]
pub trait FromRun: Sized {
    /// The task type that the argument implies, so that [`Worker::handle`](crate::Worker::handle) needs
    /// none.
    const TASK_TYPE: Option<&'static str> = None;

    /// Makes the argument. A failure ends the run before the handler is called.
    ///
    /// # Errors
    /// The failure that becomes the run's reply.
    fn from_run(run: &Run) -> Result<Self, Failure>;

    /// What the argument lacks in this worker, found out when the worker starts.
    #[doc(hidden)]
    fn missing(_: &Needs<'_>) -> Option<String> {
        None
    }
}

/// What a worker offers to its handlers' arguments.
#[doc(hidden)]
pub struct Needs<'a>(pub(crate) &'a States);

/// The payload of a typed task. A payload that does not fit archives the task: it will not fit tomorrow.
#[derive(Clone, Debug)]
pub struct Payload<T>(pub T);

impl<T: Task> FromRun for Payload<T> {
    const TASK_TYPE: Option<&'static str> = Some(T::TYPE);

    fn from_run(run: &Run) -> Result<Self, Failure> {
        from_json(run).map(Payload)
    }
}

/// The payload of any task, read as JSON.
#[derive(Clone, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned> FromRun for Json<T> {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        from_json(run).map(Json)
    }
}

fn from_json<T: DeserializeOwned>(run: &Run) -> Result<T, Failure> {
    let task = run.task();
    serde_json::from_slice(&task.payload).map_err(|error| {
        Failure::archive(format!(
            "payload of {} is not what {} takes: {error}",
            task.id, task.task_type
        ))
    })
}

/// The payload as it was enqueued.
#[derive(Clone, Debug)]
pub struct RawPayload(pub Bytes);

impl FromRun for RawPayload {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(Self(run.task().payload.clone()))
    }
}

/// A value given to the worker with [`Worker::state`](crate::Worker::state). A worker does not start
/// while a handler asks for one that was not given.
#[derive(Debug)]
pub struct State<T>(pub Arc<T>);

impl<T: Send + Sync + 'static> FromRun for State<T> {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        run.inner.states.get().map(State).ok_or_else(|| Failure::retry(lacks::<T>()))
    }

    fn missing(needs: &Needs<'_>) -> Option<String> {
        needs.0.get::<T>().is_none().then(lacks::<T>)
    }
}

fn lacks<T>() -> String {
    let name = std::any::type_name::<T>();
    format!("State<{name}> was not given: call .state(value) on the worker")
}

/// Facts about the run, to be kept as long as one likes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskInfo {
    /// The task's id.
    pub id: TaskId,
    /// Its queue.
    pub queue: QueueName,
    /// Its type.
    pub task_type: TaskType,
    /// Which run this is, from 1.
    pub attempt: u32,
    /// Retries before it is archived.
    pub max_retry: u32,
    /// The group it came from.
    pub group: Option<GroupName>,
    /// Its headers.
    pub headers: Headers,
    /// When the run must be over.
    pub deadline: Timestamp,
}

impl TaskInfo {
    pub(crate) fn of(run: &Run) -> Self {
        let task = run.task();
        Self {
            id: task.id.clone(),
            queue: task.queue.clone(),
            task_type: task.task_type.clone(),
            attempt: run.attempt(),
            max_retry: task.max_retry,
            group: task.group.clone(),
            headers: task.headers.clone(),
            deadline: run.deadline(),
        }
    }
}

impl FromRun for TaskInfo {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(Self::of(run))
    }
}

impl FromRun for TaskId {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(run.task().id.clone())
    }
}

/// The whole run. Taking it is not listening: a handler that wants time to end by itself takes
/// [`Cancel`] too.
impl FromRun for Run {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(run.clone())
    }
}

/// Which run of the task this is, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt(pub u32);

impl FromRun for Attempt {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(Self(run.attempt()))
    }
}

/// The task's headers.
#[derive(Clone, Debug)]
pub struct TaskHeaders(pub Headers);

impl FromRun for TaskHeaders {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(Self(run.task().headers.clone()))
    }
}

/// Hears about cancellation. A handler that takes this is given a few seconds to end by itself after its
/// deadline, a remote cancel or a lost lease; one that does not is dropped at its next await.
#[derive(Clone, Debug)]
pub struct Cancel(Run);

impl Cancel {
    /// Waits until the run is cancelled.
    pub async fn cancelled(&self) -> CancelReason {
        self.0.inner.cancel.cancelled().await;
        self.0.cancel_reason().unwrap_or(CancelReason::Remote)
    }

    /// True if it has been.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.inner.cancel.is_cancelled()
    }

    /// Why it was cancelled, if it was.
    #[must_use]
    pub fn reason(&self) -> Option<CancelReason> {
        self.0.cancel_reason()
    }
}

impl FromRun for Cancel {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        run.inner.listens.store(true, Ordering::Relaxed);
        Ok(Self(run.clone()))
    }
}

/// Writes progress or a result while the handler runs. What was written last is the task's result,
/// unless the handler returns one. It is stored within about a second, and before the outcome of a run that ends earlier, be it
/// a success or not. While the broker is away, only that of a success is kept.
#[derive(Clone, Debug)]
pub struct ResultWriter(Run);

impl ResultWriter {
    /// Replaces what was written before.
    ///
    /// # Errors
    /// If it exceeds [`RESULT_BYTES_MAX`](outlast_core::limits::RESULT_BYTES_MAX).
    pub fn write(&self, result: impl Into<Bytes>) -> Result<(), Failure> {
        self.0.inner.written.write(result.into())
    }
}

impl FromRun for ResultWriter {
    fn from_run(run: &Run) -> Result<Self, Failure> {
        Ok(Self(run.clone()))
    }
}
