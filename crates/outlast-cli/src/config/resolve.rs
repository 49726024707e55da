//! Stage two of the configuration: from what was written to what is meant. Every mistake is collected,
//! none ends the search for others.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use outlast::{ErrorKind, duration, limits};
use toml::Spanned;

use super::load::Asked;
use super::place::NoPlace;
use super::problem::{Problem, Problems};
use super::raw::{RawConfig, RawSurvive, RawWorker, line_of};
use super::{Config, Origin, Sourced, WorkerConfig, place};

/// Slots beyond this are a slip: each may be a process of its own.
const SLOTS_MAX: u32 = 100_000;

/// How long running tasks may go on after a shutdown was asked for (asynq's default).
const SHUTDOWN_DEFAULT: Duration = Duration::from_secs(8);

/// The shortest lease: extending it more often would be all that a worker does.
const LEASE_MIN: Duration = Duration::from_secs(1);

/// Reads the stage-one values of one file, and keeps what is wrong with them.
pub(super) struct Resolver<'a> {
    path: Arc<PathBuf>,
    text: String,
    env: &'a dyn Fn(&str) -> Option<OsString>,
    problems: Vec<Problem>,
}

impl<'a> Resolver<'a> {
    pub(super) fn new(
        path: Arc<PathBuf>,
        text: String,
        env: &'a dyn Fn(&str) -> Option<OsString>,
    ) -> Self {
        Self { path, text, env, problems: Vec::new() }
    }

    /// The configuration, if nothing is wrong.
    pub(super) fn finish(self, config: Option<Config>) -> Result<Config, Problems> {
        match config {
            Some(config) if self.problems.is_empty() => Ok(config),
            _ => Err(Problems(self.problems)),
        }
    }

    /// `None` only together with a problem.
    pub(super) fn resolve(
        &mut self,
        raw: RawConfig,
        file: Option<Sourced<PathBuf>>,
        asked: &Asked,
    ) -> Option<Config> {
        let path = file.as_ref().map(|file| file.value.as_path());
        let broker = self.broker(raw.broker.as_ref(), path, asked);
        let survive = self.survive(&raw.survive, asked);
        let worker = self.worker(&raw.worker, asked);
        let queues = self.queues(raw.queues.into_iter().collect(), asked);
        let handlers = self.handlers(&raw.handler);
        let schedules = self.schedules(&raw.schedule);
        let groups = self.groups(&raw.group);
        let broker = broker?;
        let spool = self.spool(&broker.value, &raw.survive, asked);
        let (survive, worker) = (survive?, worker?);
        Some(Config { file, broker, spool, survive, worker, queues, handlers, schedules, groups })
    }

    pub(super) fn path(&self) -> Arc<PathBuf> {
        self.path.clone()
    }

    pub(super) fn line<T>(&self, value: &Spanned<T>) -> usize {
        line_of(&self.text, value.span().start)
    }

    /// Where in the file a value is.
    pub(super) fn origin<T>(&self, value: &Spanned<T>) -> Origin {
        Origin::File(self.path(), self.line(value))
    }

    /// Notes that the value at `place` is wrong.
    pub(super) fn wrong<T>(&mut self, place: &Spanned<T>, message: impl Into<String>) {
        let line = self.line(place);
        self.problems.push(Problem::at(&self.path, Some(line), message));
    }

    /// Notes that the value from `origin` is wrong.
    pub(super) fn wrong_at(&mut self, origin: &Origin, message: impl Into<String>) {
        let line = match origin {
            Origin::File(_, line) => Some(*line),
            Origin::Flag(_) | Origin::Env(_) | Origin::Default => None,
        };
        self.problems.push(Problem::at(&self.path, line, message));
    }

    /// The same, with the error below.
    pub(super) fn wrong_with<T>(
        &mut self,
        place: &Spanned<T>,
        message: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) {
        let line = self.line(place);
        self.problems.push(Problem::at(&self.path, Some(line), message).with_source(source));
    }

    pub(super) fn outside(&mut self, message: String) {
        self.problems.push(Problem::outside(message));
    }

    /// The environment variable `name`, if it is set to something.
    pub(super) fn env(&mut self, name: &'static str) -> Option<String> {
        let value = (self.env)(name).filter(|value| !value.is_empty())?;
        match value.into_string() {
            Ok(text) => Some(text),
            Err(raw) => {
                self.outside(format!("{name} {raw:?} is not valid UTF-8"));
                None
            }
        }
    }

    fn broker(
        &mut self,
        written: Option<&Spanned<String>>,
        file: Option<&std::path::Path>,
        asked: &Asked,
    ) -> Option<Sourced<String>> {
        let found = if let Some(url) = &asked.broker {
            Ok(Sourced::new(url.clone(), Origin::Flag("--broker")))
        } else if let Some(url) = self.env("OUTLAST_BROKER") {
            Ok(Sourced::new(url, Origin::Env("OUTLAST_BROKER")))
        } else if let Some(url) = written {
            let origin = self.origin(url);
            place::beside(&self.path, url.get_ref()).map(|url| Sourced::new(url, origin))
        } else {
            place::embedded_broker(file, |name| (self.env)(name)).map(Sourced::default)
        };
        match found {
            Ok(broker) if broker.trim().is_empty() => {
                self.outside(format!("broker {:?} ({}) is blank", broker.value, broker.origin));
                None
            }
            Ok(broker) => Some(broker),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn spool(
        &mut self,
        broker: &str,
        raw: &RawSurvive,
        asked: &Asked,
    ) -> Result<Option<Sourced<PathBuf>>, NoPlace> {
        if let Some(path) = &asked.spool {
            return Ok(Some(Sourced::new(path.clone(), Origin::Flag("--spool"))));
        }
        // An embedded broker has none, as in the library; only who names one for this broker in particular gets it.
        let is_embedded = broker.starts_with("sqlite:");
        let variable = (self.env)("OUTLAST_SPOOL").filter(|path| !path.is_empty() && !is_embedded);
        if let Some(path) = variable {
            return Ok(Some(Sourced::new(path.into(), Origin::Env("OUTLAST_SPOOL"))));
        }
        if raw.spool.is_some() {
            return Ok(self.named_spool(raw));
        }
        // The library's own place: a service and `outlast outbox` look into the same file.
        match outlast::survive::default_spool(broker, |name| (self.env)(name)) {
            Ok(path) => Ok(path.map(Sourced::default)),
            Err(error) if matches!(error.kind(), ErrorKind::Spool(_)) => Err(NoPlace),
            Err(error) => {
                self.problems.push(Problem::outside(error.to_string()));
                Ok(None)
            }
        }
    }

    fn worker(&mut self, raw: &RawWorker, asked: &Asked) -> Option<WorkerConfig> {
        let slots = self.slots(raw, asked);
        let shutdown = self.shutdown(raw, asked);
        let lease = match &raw.lease {
            None => Some(Sourced::default(limits::LEASE_DEFAULT)),
            Some(written) => self.lease(written),
        };
        Some(WorkerConfig { slots: slots?, shutdown: shutdown?, lease: lease? })
    }

    fn slots(&mut self, raw: &RawWorker, asked: &Asked) -> Option<Sourced<u32>> {
        let slots = if let Some(slots) = asked.slots {
            Sourced::new(slots, Origin::Flag("--slots"))
        } else if let Some(text) = self.env("OUTLAST_SLOTS") {
            let Ok(slots) = text.trim().parse() else {
                self.outside(format!("OUTLAST_SLOTS {text:?} is no number of slots"));
                return None;
            };
            Sourced::new(slots, Origin::Env("OUTLAST_SLOTS"))
        } else if let Some(written) = &raw.slots {
            Sourced::new(*written.get_ref(), self.origin(written))
        } else {
            // One a core, as asynq does.
            let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
            Sourced::default(u32::try_from(cores).unwrap_or(SLOTS_MAX))
        };
        if !(1..=SLOTS_MAX).contains(&slots.value) {
            let Sourced { value, origin } = slots;
            self.outside(format!("slots {value} ({origin}) is not between 1 and {SLOTS_MAX}"));
            return None;
        }
        Some(slots)
    }

    fn lease(&mut self, written: &Spanned<String>) -> Option<Sourced<Duration>> {
        let lease = self.duration("lease", written)?;
        if lease.value < LEASE_MIN {
            self.wrong(
                written,
                format!("lease {:?} is too short: use 1s or more", written.get_ref()),
            );
            return None;
        }
        Some(lease)
    }

    fn shutdown(&mut self, raw: &RawWorker, asked: &Asked) -> Option<Sourced<Duration>> {
        let outside = match &asked.shutdown {
            Some(text) => Some((text.clone(), Origin::Flag("--shutdown"))),
            None => self.env("OUTLAST_SHUTDOWN").map(|t| (t, Origin::Env("OUTLAST_SHUTDOWN"))),
        };
        match (outside, &raw.shutdown) {
            (Some((text, origin)), _) => match duration::parse(&text) {
                Ok(value) => Some(Sourced::new(value, origin)),
                Err(error) => {
                    self.outside(format!("shutdown ({origin}): {error}"));
                    None
                }
            },
            (None, Some(written)) => self.duration("shutdown", written),
            (None, None) => Some(Sourced::default(SHUTDOWN_DEFAULT)),
        }
    }

    /// A duration, or a problem that names the key.
    pub(super) fn duration(
        &mut self,
        key: &str,
        written: &Spanned<String>,
    ) -> Option<Sourced<Duration>> {
        match duration::parse(written.get_ref()) {
            Ok(value) => Some(Sourced::new(value, self.origin(written))),
            Err(error) => {
                self.wrong_with(written, format!("{key} is wrong"), error);
                None
            }
        }
    }

    /// A duration of more than nothing, or a problem.
    pub(super) fn positive(
        &mut self,
        key: &str,
        written: &Spanned<String>,
    ) -> Option<Sourced<Duration>> {
        let value = self.duration(key, written)?;
        if value.is_zero() {
            self.wrong(
                written,
                format!("{key} {:?} is too short: use more than 0", written.get_ref()),
            );
            return None;
        }
        Some(value)
    }

    /// A name made by `parse`, or a problem.
    pub(super) fn name<T, E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        key: &str,
        written: &Spanned<String>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(written.get_ref()) {
            Ok(name) => Some(name),
            Err(error) => {
                self.wrong_with(written, format!("{key} is wrong"), error);
                None
            }
        }
    }

    /// The same, with where it is.
    pub(super) fn sourced<T, E: std::error::Error + Send + Sync + 'static>(
        &mut self,
        key: &str,
        written: &Spanned<String>,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<Sourced<T>> {
        self.name(key, written, parse).map(|name| Sourced::new(name, self.origin(written)))
    }
}
