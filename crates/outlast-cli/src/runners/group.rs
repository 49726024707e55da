//! Makes one task of the members of a group: its payload is a line of JSON for each.

use outlast::{GroupBatch, TaskRecord, TaskRequest, TaskType, TaskView};
use serde::Serialize;

/// The header in which the new task names the group it came from.
pub(crate) const GROUP_HEADER: &str = "outlast-group";

/// A member.
#[derive(Serialize)]
struct Member {
    id: String,
    #[serde(rename = "type")]
    task_type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl From<&TaskRecord> for Member {
    fn from(task: &TaskRecord) -> Self {
        let TaskView { id, task_type, payload, payload_base64, .. } = TaskView::from(task);
        Self { id, task_type, payload, payload_base64 }
    }
}

/// The task that stands for the members of a group.
pub(crate) fn aggregate(
    task_type: &TaskType,
    batch: &GroupBatch,
) -> Result<TaskRequest, serde_json::Error> {
    let mut payload = Vec::new();
    for task in &batch.tasks {
        serde_json::to_writer(&mut payload, &Member::from(task))?;
        payload.push(b'\n');
    }
    let request = TaskRequest::raw(task_type.as_str(), payload).queue(batch.queue.as_str());
    Ok(request.header(GROUP_HEADER, batch.group.as_str()))
}
