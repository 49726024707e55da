//! Tasks as people and programs see them: the field names that scripts rely on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use outlast_core::{Headers, TaskRecord, TaskState, Timestamp, duration};
use serde::Serialize;

/// A task in the form that the program and the dashboard print as JSON.
///
/// Payload and result appear as text where they are UTF-8, else under `payload_base64` and
/// `result_base64`. Times are RFC 3339 in UTC, durations such as `1h30m`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// Its type.
    #[serde(rename = "type")]
    pub task_type: String,
    /// Its queue.
    pub queue: String,
    /// Where it is in its life.
    pub state: TaskState,
    /// Its payload, if it is text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// Its payload, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
    /// Failed runs so far.
    pub retried: u32,
    /// Retries before it is archived.
    pub max_retry: u32,
    /// The last error.
    pub last_error: Option<String>,
    /// When that was.
    pub last_failed_at: Option<Timestamp>,
    /// When it runs next.
    pub next_at: Option<Timestamp>,
    /// How long a run may take.
    pub timeout: Option<String>,
    /// When every run must be over.
    pub deadline: Option<Timestamp>,
    /// Its group.
    pub group: Option<String>,
    /// Its headers.
    pub headers: Headers,
    /// Its result, if it is text.
    pub result: Option<String>,
    /// Its result, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_base64: Option<String>,
    /// When it succeeded.
    pub completed_at: Option<Timestamp>,
    /// How long it is kept after success.
    pub retention: Option<String>,
    /// When it was accepted.
    pub enqueued_at: Option<Timestamp>,
    /// When its present run began.
    pub started_at: Option<Timestamp>,
    /// Until when that run's lease holds.
    pub lease_until: Option<Timestamp>,
    /// Leases it has lost.
    pub losses: u32,
}

impl From<&TaskRecord> for TaskView {
    fn from(task: &TaskRecord) -> Self {
        let (payload, payload_base64) = text_or_base64(&task.payload);
        let (result, result_base64) = task.result.as_ref().map_or((None, None), text_or_base64);
        Self {
            id: task.id.to_string(),
            task_type: task.task_type.to_string(),
            queue: task.queue.to_string(),
            state: task.state,
            payload,
            payload_base64,
            retried: task.retried,
            max_retry: task.max_retry,
            last_error: task.last_error.clone(),
            last_failed_at: task.last_failed_at,
            next_at: task.next_at,
            timeout: task.timeout.map(duration::format),
            deadline: task.deadline,
            group: task.group.as_ref().map(ToString::to_string),
            headers: task.headers.clone(),
            result,
            result_base64,
            completed_at: task.completed_at,
            retention: Some(task.retention).filter(|kept| !kept.is_zero()).map(duration::format),
            enqueued_at: task.enqueued_at,
            started_at: task.started_at,
            lease_until: task.lease_until,
            losses: task.losses,
        }
    }
}

fn text_or_base64(bytes: &Bytes) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}
