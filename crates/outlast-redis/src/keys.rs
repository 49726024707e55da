//! The names of keys: asynq's own (contract §1) and ours (`docs/redis-keys.md`). Nothing else in this crate
//! puts a key together.

use outlast_core::{QueueName, SessionId, TaskId, Timestamp};

/// The root of all keys of one system: `asynq`, or the namespace of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root(String);

/// asynq's own root.
pub(crate) const ASYNQ: &str = "asynq";

impl Root {
    pub(crate) fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The set of queues.
    pub(crate) fn queues(&self) -> String {
        format!("{}:queues", self.0)
    }

    /// One of asynq's keys that belong to no queue: `servers`, `workers`, `schedulers`, `cancel`.
    pub(crate) fn global(&self, name: &str) -> String {
        format!("{}:{name}", self.0)
    }

    /// A key of one process. All keys with one tag are in one slot.
    pub(crate) fn tagged(&self, name: &str, tag: &str) -> String {
        format!("{}:{name}:{{{tag}}}", self.0)
    }

    /// A key of our own that belongs to no queue.
    pub(crate) fn own(&self, name: &str) -> String {
        format!("{}:outlast:{name}", self.0)
    }

    /// The keys of one queue.
    pub(crate) fn queue(&self, queue: &QueueName) -> Keys {
        Keys { prefix: format!("{}:{{{queue}}}:", self.0) }
    }
}

/// The keys of one queue.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    prefix: String,
}

impl Keys {
    /// What all of them begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// One of asynq's keys by its last part: `pending`, `lease`, …
    pub(crate) fn key(&self, name: &str) -> String {
        let mut key = String::with_capacity(self.prefix.len() + name.len());
        key.push_str(&self.prefix);
        key.push_str(name);
        key
    }

    /// What the hashes of all tasks begin with.
    pub(crate) fn tasks(&self) -> String {
        self.key("t:")
    }

    /// The hash of a task.
    pub(crate) fn task(&self, id: &TaskId) -> String {
        let mut key = String::with_capacity(self.prefix.len() + 2 + id.as_str().len());
        key.push_str(&self.prefix);
        key.push_str("t:");
        key.push_str(id.as_str());
        key
    }

    /// A counter of the day of `now` in UTC.
    pub(crate) fn day(&self, counter: &str, now: Timestamp) -> String {
        format!("{}{counter}:{}", self.prefix, now.date())
    }

    /// The record of a session.
    pub(crate) fn session(&self, session: SessionId) -> String {
        format!("{}outlast:s:{:032x}", self.prefix, session.0)
    }

    /// A `once` key.
    pub(crate) fn once(&self, key: &str) -> String {
        format!("{}outlast:once:{key}", self.prefix)
    }
}
