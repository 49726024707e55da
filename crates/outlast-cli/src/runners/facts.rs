//! What a handler is told about its task: environment variables for commands, headers for endpoints.

use std::ffi::OsString;

use outlast::TaskRecord;

use super::group::GROUP_HEADER;
use super::http::Request;

/// The facts, by the names that both forms are made of.
fn facts(task: &TaskRecord) -> [(&'static str, &'static str, String); 6] {
    // A task that was made of a group is in none itself, and names the one it came from.
    let group = task.group.as_ref().map(ToString::to_string);
    let group = group.or_else(|| task.headers.get(GROUP_HEADER).cloned()).unwrap_or_default();
    let attempt = u64::from(task.retried) + 1;
    [
        ("OUTLAST_TASK_ID", "outlast-task-id", task.id.to_string()),
        ("OUTLAST_TASK_TYPE", "outlast-task-type", task.task_type.to_string()),
        ("OUTLAST_QUEUE", "outlast-queue", task.queue.to_string()),
        ("OUTLAST_ATTEMPT", "outlast-attempt", attempt.to_string()),
        ("OUTLAST_MAX_RETRY", "outlast-max-retry", task.max_retry.to_string()),
        ("OUTLAST_GROUP", "outlast-group", group),
    ]
}

/// A command's environment, beside what it inherits. A header `trace-id` becomes
/// `OUTLAST_HEADER_TRACE_ID`; one whose name has other characters than letters, digits, `-` and `_`, or
/// whose value has a NUL, is left out: it could not be read, or would be read as something else.
pub(super) fn environment(task: &TaskRecord) -> Vec<(String, OsString)> {
    let facts = facts(task).into_iter().map(|(name, _, value)| (name.to_owned(), value.into()));
    let headers =
        task.headers.iter().filter(|(name, value)| is_plain(name) && !value.contains('\0'));
    let headers = headers.map(|(name, value)| {
        let name = name.to_ascii_uppercase().replace('-', "_");
        (format!("OUTLAST_HEADER_{name}"), value.into())
    });
    facts.chain(headers).collect()
}

fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// An endpoint's request.
pub(super) fn request(task: &TaskRecord) -> Request {
    Request {
        payload: task.payload.clone(),
        facts: facts(task).into_iter().map(|(_, name, value)| (name, value)).collect(),
        headers: task.headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outlast::{QueueName, TaskId, TaskType};

    #[test]
    fn a_command_is_told_the_facts_and_the_plain_headers() {
        let (id, kind) = (TaskId::stored("42"), TaskType::stored("a"));
        let mut task = TaskRecord::new(QueueName::stored("q"), id, kind, "".into());
        for (name, value) in [("trace-id", "t"), ("odd=name", "x"), ("nul", "a\0b")] {
            task.headers.insert(name.into(), value.into());
        }
        let told = environment(&task);
        let names: Vec<&str> = told.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), 7);
        assert!(told.contains(&("OUTLAST_ATTEMPT".into(), "1".into())));
        assert!(told.contains(&("OUTLAST_HEADER_TRACE_ID".into(), "t".into())));
    }
}
