//! Periodic tasks without a leader: every scheduler computes the same ticks and offers the same task
//! ids; the broker takes each once (ADR 0005).

mod entry;
mod scheduler;

use std::time::Duration;

use outlast_core::broker::tick_id;
use outlast_core::inspect::ScheduleView;
use outlast_core::schedule::{CatchUp, Cron, DueTicks, Missed, due_ticks};
use outlast_core::{ScheduleName, Timestamp, limits};

pub use scheduler::Scheduler;

use crate::client::TaskRequest;
use crate::error::{Error, Result};

/// How long a tick's key is remembered: longer than any spool keeps a tick that could not be delivered.
const ONCE_TTL: Duration = Duration::from_secs(8 * 24 * 3600);

/// A task that is enqueued again and again.
///
/// ```
/// use outlast::{Missed, Schedule, TaskRequest};
/// let nightly = Schedule::new("nightly", "30 2 * * MON-FRI", TaskRequest::raw("report:nightly", ""))?
///     .timezone("Europe/Berlin")?
///     .missed(Missed::Once);
/// assert_eq!(nightly.name().as_str(), "nightly");
/// # Ok::<(), outlast::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Schedule {
    name: ScheduleName,
    spec: String,
    zone: String,
    cron: Cron,
    request: TaskRequest,
    missed: Missed,
}

impl Schedule {
    /// A schedule in UTC. `cron` has five fields as in Go's robfig/cron v3, or is `@every 5m`, `@daily`
    /// and the like; a prefix `TZ=Europe/Berlin` sets the time zone too.
    ///
    /// # Errors
    /// A blank name or one over 234 bytes, a task whose options are wrong, or a specification that is; the
    /// error names the field and the character.
    pub fn new(name: &str, cron: &str, request: TaskRequest) -> Result<Self> {
        request.check_options()?;
        Ok(Self {
            name: parse_name(name)?,
            spec: cron.to_owned(),
            zone: "UTC".to_owned(),
            cron: parse(cron, "UTC")?,
            request,
            missed: Missed::default(),
        })
    }

    /// In this time zone, by its IANA name.
    ///
    /// # Errors
    /// A zone that nobody knows.
    pub fn timezone(mut self, zone: &str) -> Result<Self> {
        self.cron = parse(&self.spec, zone)?;
        self.zone = zone.to_owned();
        Ok(self)
    }

    /// What to do about ticks that pass while no scheduler runs. They are skipped unless set.
    #[must_use]
    pub fn missed(mut self, missed: Missed) -> Self {
        self.missed = missed;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &ScheduleName {
        &self.name
    }

    fn view(&self, now: Timestamp) -> ScheduleView {
        let missed = match self.missed {
            Missed::Skip => "skip",
            Missed::Once => "once",
            Missed::All => "all",
        };
        ScheduleView {
            name: self.name.clone(),
            cron: self.spec.clone(),
            timezone: self.zone.clone(),
            task_type: self.request.task_type().cloned().unwrap_or_else(blank_type),
            payload: self.request.payload().cloned().unwrap_or_default(),
            queue: self.request.queue_name().clone(),
            missed: missed.to_owned(),
            next_at: self.next(now),
            options: self.request.schedule_options(),
        }
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.tick_after(after.to_jiff()).map(Timestamp::from_jiff)
    }

    fn due(&self, position: Timestamp, at: Look) -> DueTicks {
        // A scheduler that was up and could not reach its broker has missed nothing for its user: the
        // latest tick runs late. Not all of them: a schedule of seconds would make thousands.
        let missed = match self.missed {
            Missed::Skip if !at.late_by.is_zero() => Missed::Once,
            missed => missed,
        };
        let catch_up = CatchUp { missed, ..CatchUp::default() };
        due_ticks(&self.cron, Some(position.to_jiff()), at.now.to_jiff(), &catch_up)
    }

    fn request_for(&self, tick: Timestamp) -> TaskRequest {
        let id = tick_id(&self.name, tick);
        self.request.clone().id(id.as_str()).once(id.as_str(), ONCE_TTL)
    }
}

/// A request that passed `check_options` has a type.
fn blank_type() -> outlast_core::TaskType {
    outlast_core::TaskType::stored("")
}

/// A name that leaves room for the time of a tick in the id of its task.
fn parse_name(name: &str) -> Result<ScheduleName> {
    let name = ScheduleName::new(name)?;
    let tick = tick_id(&name, Timestamp::from_seconds(0)).as_str().len() - name.as_str().len();
    let (bytes, most) = (name.as_str().len(), limits::NAME_BYTES_MAX - tick);
    if bytes > most {
        let start: String = name.as_str().chars().take(32).collect();
        return Err(Error::invalid(format!(
            "schedule name {start:?}… has {bytes} bytes: at most {most} are allowed, because the id of \
             each task is the name and the time of its tick"
        )));
    }
    Ok(name)
}

fn parse(spec: &str, zone: &str) -> Result<Cron> {
    let zone = jiff::tz::TimeZone::get(zone)
        .map_err(|error| Error::invalid(format!("time zone {zone:?} is not known: {error}")))?;
    Cron::parse(spec, &zone).map_err(|error| Error::invalid(error.to_string()))
}

/// One look at the schedules.
#[derive(Clone, Copy, Debug)]
struct Look {
    now: Timestamp,
    /// How much later than usual a tick may be seen and still be on time.
    late_by: Duration,
}

#[cfg(test)]
fn hourly(name: &str) -> Schedule {
    let request = TaskRequest::raw("tick", "").queue(name);
    Schedule::new(name, "@hourly", request).expect("right")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leaves_no_room_for_its_ticks_is_refused() {
        // It was accepted, and each of its ticks was rejected for an id that is too long.
        let named = |bytes: usize| {
            Schedule::new(&"n".repeat(bytes), "@hourly", TaskRequest::raw("tick", ""))
        };
        let tick = tick_id(named(234).expect("fits").name(), Timestamp::from_seconds(0));
        assert_eq!(tick.as_str().len(), limits::NAME_BYTES_MAX);
        let error = named(235).expect_err("too long").to_string();
        assert!(error.contains("has 235 bytes: at most 234 are allowed"), "{error}");
    }
}
