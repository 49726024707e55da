//! `[[group]]`: which groups of tasks become one task.

use std::time::Duration;

use outlast::{GroupName, GroupPolicy, QueueName, TaskType, limits};
use toml::Spanned;

use super::GroupConfig;
use super::raw::RawGroup;
use super::resolve::Resolver;

/// How long a group waits for another member unless configured.
const GRACE_DEFAULT: Duration = Duration::from_secs(60);

impl Resolver<'_> {
    pub(super) fn groups(&mut self, written: &[Spanned<RawGroup>]) -> Vec<GroupConfig> {
        written.iter().filter_map(|entry| self.group(entry)).collect()
    }

    fn group(&mut self, entry: &Spanned<RawGroup>) -> Option<GroupConfig> {
        let raw = entry.get_ref();
        let Some(task_type) = &raw.task_type else {
            self.wrong(entry, "group has no type: say which type of task its members become");
            return None;
        };
        let task_type = self.name("group type", task_type, |text| TaskType::new(text))?;
        let queue = match &raw.queue {
            None => QueueName::default_queue(),
            Some(queue) => self.name("group queue", queue, |text| QueueName::new(text))?,
        };
        let grace = match &raw.grace {
            None => GRACE_DEFAULT,
            Some(grace) => self.positive("grace", grace)?.value,
        };
        let max_delay = match &raw.max_delay {
            None => None,
            Some(delay) => Some(self.positive("max_delay", delay)?.value),
        };
        let max_size = match &raw.max_size {
            None => None,
            Some(size) => Some(self.group_size(size)?),
        };
        let pattern = match &raw.name {
            None => "*".to_owned(),
            Some(name) => {
                self.name("group name", name, |text| GroupName::new(text))?;
                name.get_ref().clone()
            }
        };
        let policy = GroupPolicy { pattern, grace, max_delay, max_size };
        Some(GroupConfig { queue, policy, task_type, origin: self.origin(entry) })
    }

    fn group_size(&mut self, written: &Spanned<u32>) -> Option<usize> {
        let size = usize::try_from(*written.get_ref()).unwrap_or(usize::MAX);
        if !(1..=limits::GROUP_SIZE_MAX).contains(&size) {
            let most = limits::GROUP_SIZE_MAX;
            self.wrong(written, format!("max_size {size} is not between 1 and {most}"));
            return None;
        }
        Some(size)
    }
}
