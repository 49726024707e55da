//! Periodic tasks without a leader: every scheduler computes the same ticks and offers the same task
//! ids; the broker takes each once (ADR 0005).

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast_core::broker::{Beat, tick_id};
use outlast_core::inspect::{ScheduleState, ScheduleView, TickRecord};
use outlast_core::schedule::{CatchUp, Cron, DueTicks, Missed, due_ticks};
use outlast_core::{ScheduleName, Timestamp};
use tokio::sync::Notify;

use crate::client::{Client, TaskRequest};
use crate::error::{Error, Result};
use crate::handler::lock;
use crate::{Connection, Verdict};

/// How often schedules are shown, and how soon a pause from outside is noticed.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long an entry stays listed after the last beat.
const BEAT_TTL: Duration = Duration::from_secs(20);

/// How long a tick's key is remembered: longer than any spool keeps a tick that could not be delivered.
const ONCE_TTL: Duration = Duration::from_secs(8 * 24 * 3600);

/// How long to leave a broker in peace after an error.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Schedules of one scheduler: more is a mistake in a loop.
const SCHEDULES_MAX: usize = 10_000;

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
    /// A blank name, a task whose options are wrong, or a specification that is; the error names the
    /// field and the character.
    pub fn new(name: &str, cron: &str, request: TaskRequest) -> Result<Self> {
        request.check_options()?;
        Ok(Self {
            name: ScheduleName::new(name)?,
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
        }
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.cron.tick_after(after.to_jiff()).map(Timestamp::from_jiff)
    }

    fn due(&self, position: Timestamp, now: Timestamp) -> DueTicks {
        let catch_up = CatchUp { missed: self.missed, ..CatchUp::default() };
        due_ticks(&self.cron, Some(position.to_jiff()), now.to_jiff(), &catch_up)
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

fn parse(spec: &str, zone: &str) -> Result<Cron> {
    let zone = jiff::tz::TimeZone::get(zone)
        .map_err(|error| Error::invalid(format!("time zone {zone:?} is not known: {error}")))?;
    Cron::parse(spec, &zone).map_err(|error| Error::invalid(error.to_string()))
}

/// Enqueues the ticks of its schedules while it runs. Any number may run, in any number of processes:
/// each tick is enqueued once.
///
/// A worker has one of its own: [`Worker::schedule`](crate::Worker::schedule). Clones share their
/// schedules, so that they can be added and removed while it runs.
#[derive(Clone, Debug)]
pub struct Scheduler {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connection: Connection,
    entries: Mutex<BTreeMap<ScheduleName, Entry>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
struct Entry {
    schedule: Schedule,
    /// Every tick up to here has been dealt with. `None` until the broker was asked.
    position: Option<Timestamp>,
    paused: bool,
}

impl Scheduler {
    /// A scheduler without schedules.
    #[must_use]
    pub fn new(connection: &Connection) -> Self {
        let inner = Inner {
            connection: connection.clone(),
            entries: Mutex::default(),
            changed: Notify::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Adds a schedule, also while it runs.
    ///
    /// # Errors
    /// A second schedule of the same name, or too many of them.
    pub fn add(&self, schedule: Schedule) -> Result<()> {
        let mut entries = lock(&self.inner.entries);
        if entries.len() >= SCHEDULES_MAX {
            return Err(Error::invalid(format!(
                "{SCHEDULES_MAX} schedules are the most there can be"
            )));
        }
        let name = schedule.name.clone();
        if entries.contains_key(&name) {
            return Err(Error::invalid(format!("schedule {:?} is given twice", name.as_str())));
        }
        entries.insert(name, Entry { schedule, position: None, paused: false });
        drop(entries);
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Removes a schedule; `false` if there was none of this name. Its enqueued ticks stay.
    pub fn remove(&self, name: &ScheduleName) -> bool {
        let removed = lock(&self.inner.entries).remove(name).is_some();
        self.inner.changed.notify_one();
        removed
    }

    /// The names of its schedules.
    #[must_use]
    pub fn names(&self) -> Vec<ScheduleName> {
        lock(&self.inner.entries).keys().cloned().collect()
    }

    /// Enqueues ticks until `stop` is ready.
    pub async fn run_until(&self, stop: impl Future<Output = ()>) {
        self.run_while(stop).await;
    }

    pub(crate) async fn run_while<T>(&self, stop: impl Future<Output = T>) {
        tokio::select! {
            _ = stop => {}
            () = self.run() => {}
        }
    }

    async fn run(&self) {
        let client = self.inner.connection.client();
        let mut done = Vec::new();
        loop {
            let pause = match self.round(&client, &mut done).await {
                Ok(pause) => pause,
                Err(error) => {
                    tracing::warn!(%error, "could not enqueue ticks yet");
                    ERROR_PAUSE
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.inner.changed.notified() => {}
            }
        }
    }

    /// Beats, enqueues what is due, and says how long to sleep. `done` holds ticks that are enqueued
    /// but not in the history yet.
    async fn round(&self, client: &Client, done: &mut Vec<TickRecord>) -> Result<Duration> {
        if lock(&self.inner.entries).is_empty() {
            return Ok(BEAT_EVERY);
        }
        self.beat(done).await?;
        let now = self.inner.connection.clock.now();
        let entries: Vec<Entry> = lock(&self.inner.entries).values().cloned().collect();
        let mut next = now.plus(BEAT_EVERY);
        for entry in entries {
            let Some(position) = entry.position else { continue };
            let due = match entry.paused {
                // Ticks that pass while it is paused are nobody's.
                true => {
                    DueTicks { ticks: Vec::new(), skipped: 0, position: now.to_jiff(), more: false }
                }
                false => entry.schedule.due(position, now),
            };
            enqueue(client, &entry.schedule, &due, done).await?;
            self.moved(&entry.schedule.name, Timestamp::from_jiff(due.position));
            let soonest = if due.more { Some(now) } else { entry.schedule.next(now) };
            next = soonest.map_or(next, |soonest| next.min(soonest));
        }
        if !done.is_empty() {
            self.beat(done).await?;
        }
        Ok(next.since(self.inner.connection.clock.now()))
    }

    async fn beat(&self, done: &mut Vec<TickRecord>) -> Result<()> {
        let now = self.inner.connection.clock.now();
        let schedules: Vec<ScheduleView> =
            lock(&self.inner.entries).values().map(|entry| entry.schedule.view(now)).collect();
        let beat = Beat { schedules, ticks: done.clone(), ttl: BEAT_TTL, ..Beat::default() };
        let reply = self.inner.connection.broker.beat(now, &beat).await?;
        done.clear();
        let mut entries = lock(&self.inner.entries);
        for state in reply.schedules {
            if let Some(entry) = entries.get_mut(&state.name) {
                done.extend(entry.learn(state, now));
            }
        }
        Ok(())
    }

    fn moved(&self, name: &ScheduleName, position: Timestamp) {
        if let Some(entry) = lock(&self.inner.entries).get_mut(name) {
            entry.position = entry.position.max(Some(position));
        }
    }
}

impl Entry {
    /// Takes over what the broker knows. A schedule that was never seen begins now, and the beginning is
    /// recorded: its first tick may be missed, too.
    fn learn(&mut self, state: ScheduleState, now: Timestamp) -> Option<TickRecord> {
        self.paused = state.paused_since.is_some();
        self.position = self.position.max(state.last_tick);
        if self.position.is_some() {
            return None;
        }
        self.position = Some(now);
        Some(TickRecord { schedule: state.name, tick: now, task: None, enqueued_at: now })
    }
}

/// Enqueues the due ticks. A tick that another scheduler has enqueued is as good as our own.
async fn enqueue(
    client: &Client,
    schedule: &Schedule,
    due: &DueTicks,
    done: &mut Vec<TickRecord>,
) -> Result<()> {
    if due.skipped > 0 {
        let (name, skipped) = (&schedule.name, due.skipped);
        tracing::warn!(schedule = %name, skipped, "ticks were missed and are skipped");
    }
    if due.ticks.is_empty() {
        return Ok(());
    }
    let ticks: Vec<Timestamp> = due.ticks.iter().copied().map(Timestamp::from_jiff).collect();
    let requests = ticks.iter().map(|&tick| schedule.request_for(tick)).collect();
    let receipts = client.enqueue_all(requests).await?;
    let now = client.connection().clock.now();
    for (tick, receipt) in ticks.into_iter().zip(receipts) {
        if let Verdict::Rejected(why) = &receipt.verdict {
            tracing::error!(schedule = %schedule.name, %tick, %why, "a tick was refused");
        }
        let task = Some(receipt.id);
        done.push(TickRecord { schedule: schedule.name.clone(), tick, task, enqueued_at: now });
    }
    Ok(())
}
