//! Every value of the configuration as text, with where it came from: what `config show` prints.

use outlast::{QueueName, TaskType, duration, limits};

use super::schedules::missed_text;
use super::survive::{SurviveConfig, journal_text, when_full_text};
use super::{Config, GroupConfig, HandlerConfig, Origin, Run, ScheduleConfig, Sourced, masked};

/// One value.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Setting {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) origin: String,
}

/// All of them, in the order of the file.
pub(crate) fn settings(config: &Config) -> Vec<Setting> {
    let mut list = List(Vec::new());
    match &config.file {
        Some(file) => list.sourced("config", file, |file| file.display().to_string()),
        None => list.push("config", "none".to_owned(), &Origin::Default),
    }
    list.push("broker", masked(&config.broker.value), &config.broker.origin);
    match &config.spool {
        Ok(Some(spool)) => list.sourced("spool", spool, |path| path.display().to_string()),
        Ok(None) => list.push("spool", "none".to_owned(), &Origin::Default),
        Err(why) => list.push("spool", why.to_string(), &Origin::Default),
    }
    list.survive(&config.survive);
    let worker = &config.worker;
    list.sourced("worker.slots", &worker.slots, u32::to_string);
    list.sourced("worker.shutdown", &worker.shutdown, |value| duration::format(*value));
    list.sourced("worker.lease", &worker.lease, |value| duration::format(*value));
    for queue in &config.queues {
        list.sourced(&format!("queues.{}.weight", queue.name), &queue.weight, u32::to_string);
        if let Some(most) = &queue.concurrency {
            list.sourced(&format!("queues.{}.concurrency", queue.name), most, u32::to_string);
        }
    }
    config.handlers.iter().for_each(|handler| list.handler(handler));
    config.schedules.iter().for_each(|schedule| list.schedule(schedule));
    config.groups.iter().for_each(|group| list.group(group));
    list.0
}

struct List(Vec<Setting>);

impl List {
    fn push(&mut self, key: &str, value: String, origin: &Origin) {
        self.0.push(Setting { key: key.to_owned(), value, origin: origin.to_string() });
    }

    fn sourced<T>(&mut self, key: &str, value: &Sourced<T>, show: impl Fn(&T) -> String) {
        self.push(key, show(&value.value), &value.origin);
    }

    fn survive(&mut self, survive: &SurviveConfig) {
        self.sourced("survive.journal", &survive.journal, |mode| journal_text(*mode).to_owned());
        match &survive.patience {
            Some(patience) => {
                self.sourced("survive.patience", patience, |value| duration::format(*value));
            }
            None => {
                let value = "250ms in a worker, 2s in a command".to_owned();
                self.push("survive.patience", value, &Origin::Default);
            }
        }
        self.sourced("survive.items_max", &survive.items_max, u64::to_string);
        self.sourced("survive.bytes_max", &survive.bytes_max, u64::to_string);
        self.sourced("survive.age_max", &survive.age_max, |value| duration::format(*value));
        self.sourced("survive.when_full", &survive.when_full, |value| when_full_text(*value));
        self.sourced("survive.keep_for", &survive.keep_for, |value| duration::format(*value));
        self.sourced("survive.keep_bytes", &survive.keep_bytes, usize::to_string);
    }

    fn handler(&mut self, handler: &HandlerConfig) {
        let key = |name: &str| format!("handler.{}.{name}", handler.pattern.value);
        match &handler.run.value {
            Run::Command(words) => {
                self.push(&key("command"), format!("{words:?}"), &handler.run.origin);
            }
            Run::Url(url) => self.push(&key("url"), masked(url.as_str()), &handler.run.origin),
        }
        match &handler.timeout {
            Some(timeout) => self.sourced(&key("timeout"), timeout, |t| duration::format(*t)),
            None => self.push(&key("timeout"), "as the task says".into(), &Origin::Default),
        }
        match &handler.concurrency {
            Some(most) => self.sourced(&key("concurrency"), most, u32::to_string),
            None => self.push(&key("concurrency"), "all slots".into(), &Origin::Default),
        }
        self.sourced(&key("snooze"), &handler.snooze, |snooze| duration::format(*snooze));
        self.sourced(&key("output_max"), &handler.output_max, usize::to_string);
    }

    fn schedule(&mut self, schedule: &ScheduleConfig) {
        let key = |name: &str| format!("schedule.{}.{name}", schedule.name.value);
        self.sourced(&key("cron"), &schedule.cron, String::clone);
        self.sourced(&key("timezone"), &schedule.timezone, String::clone);
        self.sourced(&key("type"), &schedule.task_type, TaskType::to_string);
        self.sourced(&key("payload"), &schedule.payload, String::clone);
        self.sourced(&key("queue"), &schedule.queue, QueueName::to_string);
        self.sourced(&key("missed"), &schedule.missed, |missed| missed_text(*missed).to_owned());
    }

    fn group(&mut self, group: &GroupConfig) {
        let key =
            |name: &str| format!("group.{}.{}.{name}", group.queue.value, group.pattern.value);
        self.sourced(&key("type"), &group.task_type, TaskType::to_string);
        self.sourced(&key("grace"), &group.grace, |grace| duration::format(*grace));
        match &group.max_delay {
            Some(delay) => self.sourced(&key("max_delay"), delay, |delay| duration::format(*delay)),
            None => self.push(&key("max_delay"), "no limit".into(), &Origin::Default),
        }
        match &group.max_size {
            Some(size) => self.sourced(&key("max_size"), size, usize::to_string),
            None => {
                self.push(&key("max_size"), limits::GROUP_SIZE_MAX.to_string(), &Origin::Default);
            }
        }
    }
}
