//! The configuration in two stages: what was written ([`raw`]), then what is meant ([`Config`]: every
//! value valid, and each with its [`Origin`]).
//!
//! Flags come before the environment, the environment before the file, the file before the defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use outlast::{QueueName, TaskType};

mod check;
mod groups;
mod handlers;
mod load;
mod origin;
mod place;
mod problem;
mod queues;
mod raw;
mod resolve;
mod schedules;
mod show;
mod survive;

pub(crate) use check::{find_program, programs, unserved};
pub(crate) use load::{Asked, load};
pub(crate) use origin::{Origin, Sourced};
pub(crate) use place::{NoPlace, make_folder, make_spool_folder, masked};
pub(crate) use problem::Problems;
pub(crate) use schedules::{ScheduleConfig, zone_hint};
pub(crate) use show::{Setting, settings};
pub(crate) use survive::SurviveConfig;

/// What is meant.
#[derive(Debug)]
pub(crate) struct Config {
    /// The file that was read, if there is one.
    pub(crate) file: Option<Sourced<PathBuf>>,
    pub(crate) broker: Sourced<String>,
    /// Where tasks wait for a broker that is away; `None` for the embedded one. No place for it concerns only who stores tasks:
    /// whoever looks at the broker needs none.
    pub(crate) spool: Result<Option<Sourced<PathBuf>>, NoPlace>,
    pub(crate) survive: SurviveConfig,
    pub(crate) worker: WorkerConfig,
    pub(crate) queues: Vec<QueueConfig>,
    pub(crate) handlers: Vec<HandlerConfig>,
    pub(crate) schedules: Vec<ScheduleConfig>,
    pub(crate) groups: Vec<GroupConfig>,
}

/// How a worker works.
#[derive(Debug)]
pub(crate) struct WorkerConfig {
    /// Tasks that run at once.
    pub(crate) slots: Sourced<u32>,
    /// How long running tasks may go on after a shutdown was asked for.
    pub(crate) shutdown: Sourced<Duration>,
    /// How long a claim holds before it must be extended.
    pub(crate) lease: Sourced<Duration>,
}

/// A queue that the worker serves.
#[derive(Debug)]
pub(crate) struct QueueConfig {
    pub(crate) name: QueueName,
    pub(crate) weight: Sourced<u32>,
    pub(crate) concurrency: Option<Sourced<u32>>,
}

impl Config {
    /// The path of the file that was read.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.value.as_path())
    }
}

/// What runs the tasks of a type.
#[derive(Debug)]
pub(crate) struct HandlerConfig {
    /// A task type, or its beginning followed by `*`.
    pub(crate) pattern: Sourced<String>,
    pub(crate) run: Sourced<Run>,
    /// How long one run may take, if the task allows as much.
    pub(crate) timeout: Option<Sourced<Duration>>,
    pub(crate) concurrency: Option<Sourced<u32>>,
    pub(crate) snooze: Sourced<Duration>,
    /// Bytes of output that are kept as the result.
    pub(crate) output_max: Sourced<usize>,
}

/// A command or an endpoint.
#[derive(Clone, Debug)]
pub(crate) enum Run {
    Command(Vec<String>),
    Url(reqwest::Url),
}

/// Which groups become one task, when, and of which type.
#[derive(Debug)]
pub(crate) struct GroupConfig {
    pub(crate) queue: Sourced<QueueName>,
    /// A group's name, or its beginning followed by `*`.
    pub(crate) pattern: Sourced<String>,
    pub(crate) task_type: Sourced<TaskType>,
    pub(crate) grace: Sourced<Duration>,
    pub(crate) max_delay: Option<Sourced<Duration>>,
    pub(crate) max_size: Option<Sourced<usize>>,
}
