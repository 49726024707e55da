//! A schedule as people see it: when it ticks, and what it enqueues.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{GroupName, Headers, QueueName, ScheduleName, TaskType, Timestamp};

/// A schedule as its schedulers describe it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleView {
    /// Its name.
    pub name: ScheduleName,
    /// Its cron specification, as written.
    pub cron: String,
    /// The IANA name of its time zone.
    pub timezone: String,
    /// The type of its tasks.
    #[serde(rename = "type")]
    pub task_type: TaskType,
    /// Their payload.
    #[serde(with = "payload_text")]
    pub payload: Bytes,
    /// Their queue.
    pub queue: QueueName,
    /// What is done about ticks that were missed: `skip`, `once` or `all`.
    pub missed: String,
    /// The next tick.
    pub next_at: Option<Timestamp>,
    /// The options of its tasks.
    #[serde(default)]
    pub options: ScheduleOptions,
}

/// The options of a schedule's tasks, as far as they are the same for each: whoever runs it by hand
/// enqueues a task like those of its ticks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScheduleOptions {
    /// Retries after the first run.
    pub max_retry: u32,
    /// How long one run may take, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u64>,
    /// How long a task is kept after its success, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention_s: Option<u64>,
    /// How long a duplicate is refused, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unique_s: Option<u64>,
    /// The group in which they are aggregated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// Their headers.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers,
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self {
            max_retry: crate::limits::MAX_RETRY_DEFAULT,
            timeout_s: None,
            retention_s: None,
            unique_s: None,
            group: None,
            headers: Headers::new(),
        }
    }
}

/// Payloads in views: text where they are UTF-8, else lossless base64 is the caller's affair, so views
/// carry bytes as a JSON array only in this one case.
pub(super) mod payload_text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form<'a> {
        Text(std::borrow::Cow<'a, str>),
        Raw(Vec<u8>),
    }

    pub(in crate::inspect) fn serialize<S: Serializer>(
        payload: &Bytes,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(payload) {
            Ok(text) => Form::Text(text.into()).serialize(serializer),
            Err(_) => Form::Raw(payload.to_vec()).serialize(serializer),
        }
    }

    pub(in crate::inspect) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Bytes, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Text(text) => Bytes::from(text.into_owned()),
            Form::Raw(raw) => Bytes::from(raw),
        })
    }
}
