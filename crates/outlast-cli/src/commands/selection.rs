//! Which tasks: what `task list` and the actions share.

use std::time::Duration;

use clap::Args;
use outlast::{GroupName, Selector, TaskState, Timestamp};

use crate::args::duration;
use crate::exit::CliError;

/// Narrows a selection; all that is given must hold.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Selection {
    /// In this state: active, pending, aggregating, scheduled, retry, archived or completed
    #[arg(long, value_name = "STATE")]
    pub(crate) state: Option<TaskState>,
    /// Of this type; image:* is every type that begins like this
    #[arg(long = "type", value_name = "TYPE")]
    task_type: Option<String>,
    /// Of this group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// With this text in the payload or the last error
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
    /// Accepted longer ago than this
    #[arg(long, value_name = "D", value_parser = duration)]
    older_than: Option<Duration>,
}

impl Selection {
    /// True if nothing narrows it.
    pub(crate) fn is_everything(&self) -> bool {
        let Self { state, task_type, group, text, older_than } = self;
        state.is_none()
            && task_type.is_none()
            && group.is_none()
            && text.is_none()
            && older_than.is_none()
    }

    /// The selector for one state.
    pub(crate) fn selector(&self, state: TaskState, now: Timestamp) -> Result<Selector, CliError> {
        let group = self.group.as_deref().map(GroupName::new).transpose();
        let mut selector = Selector::state(state);
        selector.task_type.clone_from(&self.task_type);
        selector.group = group.map_err(outlast::Error::from)?;
        selector.text.clone_from(&self.text);
        selector.before = self.older_than.map(|age| now.minus(age));
        Ok(selector)
    }
}
