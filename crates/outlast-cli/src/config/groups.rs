//! `[[group]]`: which groups of tasks become one task.

use std::collections::HashMap;
use std::time::Duration;

use outlast::{GroupName, GroupPolicy, QueueName, TaskType, limits};
use toml::Spanned;

use super::raw::RawGroup;
use super::resolve::Resolver;
use super::{GroupConfig, Origin, Sourced};

/// How long a group waits for another member unless configured.
const GRACE_DEFAULT: Duration = Duration::from_secs(60);

impl GroupConfig {
    /// When its groups are ready.
    pub(crate) fn policy(&self) -> GroupPolicy {
        GroupPolicy {
            pattern: self.pattern.value.clone(),
            grace: self.grace.value,
            max_delay: self.max_delay.as_ref().map(|delay| delay.value),
            max_size: self.max_size.as_ref().map(|size| size.value),
        }
    }
}

impl Resolver<'_> {
    pub(super) fn groups(&mut self, written: &[Spanned<RawGroup>]) -> Vec<GroupConfig> {
        let mut first: HashMap<(QueueName, String), Origin> = HashMap::new();
        let mut groups = Vec::new();
        for entry in written {
            let Some(group) = self.group(entry) else { continue };
            let key = (group.queue.value.clone(), group.pattern.value.clone());
            let origin = self.origin(entry);
            if let Some(before) = first.get(&key) {
                let (queue, pattern) = &key;
                let message =
                    format!("group {pattern:?} of queue {queue} is there twice, first at {before}");
                self.wrong_at(&origin, message);
            }
            first.entry(key).or_insert(origin);
            groups.push(group);
        }
        groups
    }

    fn group(&mut self, entry: &Spanned<RawGroup>) -> Option<GroupConfig> {
        let raw = entry.get_ref();
        let Some(task_type) = &raw.task_type else {
            self.wrong(entry, "group has no type: say which type of task its members become");
            return None;
        };
        let queue = match &raw.queue {
            None => Sourced::default(QueueName::default_queue()),
            Some(queue) => self.sourced("group queue", queue, |text| QueueName::new(text))?,
        };
        let grace = match &raw.grace {
            None => Sourced::default(GRACE_DEFAULT),
            Some(grace) => self.positive("grace", grace)?,
        };
        let max_delay = match &raw.max_delay {
            None => None,
            Some(delay) => Some(self.positive("max_delay", delay)?),
        };
        let max_size = match &raw.max_size {
            None => None,
            Some(size) => Some(self.group_size(size)?),
        };
        let task_type = self.sourced("group type", task_type, |text| TaskType::new(text))?;
        let pattern = self.group_pattern(raw.name.as_ref())?;
        Some(GroupConfig { queue, pattern, task_type, grace, max_delay, max_size })
    }

    /// A name, or its beginning followed by `*`.
    fn group_pattern(&mut self, written: Option<&Spanned<String>>) -> Option<Sourced<String>> {
        let Some(written) = written else { return Some(Sourced::default("*".to_owned())) };
        let text = written.get_ref();
        self.name("group name", written, |text| GroupName::new(text))?;
        if text.strip_suffix('*').unwrap_or(text).contains('*') {
            let why = "has a * that is not at its end: give a name, or its beginning and a *";
            self.wrong(written, format!("group name {text:?} {why}"));
            return None;
        }
        Some(Sourced::new(text.clone(), self.origin(written)))
    }

    fn group_size(&mut self, written: &Spanned<u32>) -> Option<Sourced<usize>> {
        let size = usize::try_from(*written.get_ref()).unwrap_or(usize::MAX);
        if !(1..=limits::GROUP_SIZE_MAX).contains(&size) {
            let most = limits::GROUP_SIZE_MAX;
            self.wrong(written, format!("max_size {size} is not between 1 and {most}"));
            return None;
        }
        Some(Sourced::new(size, self.origin(written)))
    }
}
