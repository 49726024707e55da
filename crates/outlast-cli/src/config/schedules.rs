//! `[[schedule]]`: which task is enqueued when.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use outlast::{Cron, Missed, QueueName, ScheduleName, TaskType};
use toml::Spanned;

use super::raw::RawSchedule;
use super::resolve::Resolver;
use super::{Origin, Sourced};

/// A task that is enqueued again and again.
#[derive(Debug)]
pub(crate) struct ScheduleConfig {
    pub(crate) name: Sourced<ScheduleName>,
    pub(crate) cron: Sourced<String>,
    pub(crate) timezone: Sourced<String>,
    pub(crate) task_type: Sourced<TaskType>,
    pub(crate) payload: Sourced<String>,
    pub(crate) queue: Sourced<QueueName>,
    pub(crate) missed: Sourced<Missed>,
}

impl Resolver<'_> {
    pub(super) fn schedules(&mut self, written: &[Spanned<RawSchedule>]) -> Vec<ScheduleConfig> {
        let mut first: HashMap<ScheduleName, Origin> = HashMap::new();
        let mut schedules = Vec::new();
        for entry in written {
            let Some(schedule) = self.schedule(entry) else { continue };
            let name = schedule.name.value.clone();
            let origin = Origin::File(self.path(), self.line(entry));
            if let Some(before) = first.get(&name) {
                self.wrong(
                    entry,
                    format!("schedule {name} is there twice, first at {before}: give each a name"),
                );
            }
            first.entry(name).or_insert(origin);
            schedules.push(schedule);
        }
        schedules
    }

    fn schedule(&mut self, entry: &Spanned<RawSchedule>) -> Option<ScheduleConfig> {
        let raw = entry.get_ref();
        let timezone = self.timezone(raw.timezone.as_ref());
        let cron = self.cron(entry);
        let Some(task_type) = &raw.task_type else {
            self.wrong(entry, "schedule has no type: say which type of task it enqueues");
            return None;
        };
        let task_type = self.sourced("schedule type", task_type, |text| TaskType::new(text))?;
        let queue = match &raw.queue {
            None => Sourced::default(QueueName::default_queue()),
            Some(queue) => self.sourced("schedule queue", queue, |text| QueueName::new(text))?,
        };
        let missed = match &raw.missed {
            None => Sourced::default(Missed::default()),
            Some(written) => self.missed(written)?,
        };
        let cron = cron?;
        let name = match &raw.name {
            None => Sourced::default(default_name(&task_type, &cron)),
            Some(name) => self.sourced("schedule name", name, |text| ScheduleName::new(text))?,
        };
        let payload = match &raw.payload {
            None => Sourced::default(String::new()),
            Some(payload) => Sourced::new(payload.get_ref().clone(), self.origin(payload)),
        };
        Some(ScheduleConfig { name, cron, timezone: timezone?, task_type, payload, queue, missed })
    }

    fn timezone(&mut self, written: Option<&Spanned<String>>) -> Option<Sourced<String>> {
        let Some(written) = written else { return Some(Sourced::default("UTC".to_owned())) };
        match TimeZone::get(written.get_ref()) {
            Ok(_) => Some(Sourced::new(written.get_ref().clone(), self.origin(written))),
            Err(error) => {
                let zone = written.get_ref();
                let hint = zone_hint(zone);
                self.wrong_with(written, format!("timezone {zone:?} is unknown{hint}"), error);
                None
            }
        }
    }

    /// The spec as written, once it is known to be right.
    fn cron(&mut self, entry: &Spanned<RawSchedule>) -> Option<Sourced<String>> {
        let Some(written) = &entry.get_ref().cron else {
            self.wrong(
                entry,
                "schedule has no cron: say when, such as cron = \"30 2 * * MON-FRI\"",
            );
            return None;
        };
        match Cron::parse(written.get_ref(), &TimeZone::UTC) {
            Ok(_) => Some(Sourced::new(written.get_ref().clone(), self.origin(written))),
            Err(error) => {
                self.wrong(written, error.to_string());
                None
            }
        }
    }

    fn missed(&mut self, written: &Spanned<String>) -> Option<Sourced<Missed>> {
        let missed = match written.get_ref().as_str() {
            "skip" => Missed::Skip,
            "once" => Missed::Once,
            "all" => Missed::All,
            other => {
                self.wrong(written, format!("missed {other:?} is none of skip, once, all"));
                return None;
            }
        };
        Some(Sourced::new(missed, self.origin(written)))
    }
}

/// The zone that was meant by one that is unknown.
pub(crate) fn zone_hint(zone: &str) -> String {
    let known: Vec<String> = jiff::tz::db().available().map(|name| name.to_string()).collect();
    crate::suggest::hint(zone, known.iter().map(String::as_str))
}

/// A schedule without a name is called after its type and a number made of its type and cron: the same
/// in every process and after every restart, because the ids of its tasks begin with it.
fn default_name(task_type: &TaskType, cron: &str) -> ScheduleName {
    // FNV-1a, 32 bits: enough to tell the schedules of one file apart, and written down here so that it
    // never changes.
    let text = task_type.as_str().bytes().chain([0]).chain(cron.bytes());
    let number =
        text.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let kind: String = task_type.as_str().chars().take(48).collect();
    ScheduleName::stored(&format!("{kind}-{number:08x}"))
}

/// The policy as it is written.
pub(crate) fn missed_text(missed: Missed) -> &'static str {
    match missed {
        Missed::Skip => "skip",
        Missed::Once => "once",
        Missed::All => "all",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schedule_without_a_name_always_gets_the_same_one() {
        let nightly = TaskType::stored("report:nightly");
        let name = default_name(&nightly, "30 2 * * MON-FRI");
        assert_eq!(name.as_str(), "report:nightly-1af0d9bd");
        assert_ne!(name, default_name(&nightly, "31 2 * * MON-FRI"));
    }
}
