//! Workers and schedules, Go's and ours: who is there, and what is asked of them. `beat` writes what is
//! read here.
//!
//! Everything is read in pipelines of plain commands, each of one key, so that a great fleet holds up no
//! server and a Cluster can answer them apart.

#[cfg(test)]
mod kit;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use outlast_core::inspect::{ScheduleState, TickRecord};
use outlast_core::limits::{PAGE_MAX, check_count};
use outlast_core::{
    BrokerError, Command, Cursor, Kind, LeaseToken, Page, PageRequest, ScheduleControl,
    ScheduleName, ScheduleView, Timestamp, WorkerView,
};
use redis::{Pipeline, Value};

use crate::answer;
use crate::beat::moment;
use crate::broker::Inner;
use crate::command;
use crate::conn::Call;
use crate::proto::{SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo};
use crate::scripts::{PEOPLE_CONTROL, PEOPLE_FORGET, PEOPLE_TELL};
use crate::shown;

/// Workers and schedulers that are listed: those with the latest beats.
const LISTED_MAX: isize = 10_000;

/// Keys that are read by one pipeline.
const KEYS_PER_CALL: usize = 200;

/// Ticks that Go keeps of a schedule.
const EVENTS_MAX: isize = 1000;

/// A schedule that nobody has mentioned for so long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(400 * 86_400);

/// A worker, and its token if it is one of ours: Go's have none.
struct Present {
    view: WorkerView,
    token: Option<LeaseToken>,
}

/// The state of a schedule as it is stored.
struct Known {
    until: Option<Timestamp>,
    paused_since: Option<Timestamp>,
    last_tick: Option<Timestamp>,
}

impl Known {
    fn read(text: &str) -> Self {
        let mut parts = text.split(' ').map(moment);
        let mut next = || parts.next().flatten();
        Self { until: next(), paused_since: next(), last_tick: next() }
    }

    fn is_forgotten(&self, now: Timestamp) -> bool {
        let latest = self.until.max(self.last_tick);
        self.paused_since.is_none()
            && latest.is_none_or(|latest| latest.plus(FORGOTTEN_AFTER) < now)
    }
}

impl Inner {
    /// The workers whose beat holds, by name. The server counts how long that is.
    pub(crate) async fn workers(&self, _: Timestamp) -> Result<Vec<WorkerView>, BrokerError> {
        let mut views: Vec<_> = self.present().await?.into_iter().map(|one| one.view).collect();
        views.sort_by(|one, two| one.id.cmp(&two.id));
        Ok(views)
    }

    /// Asks something of a worker; false if no such worker is alive.
    ///
    /// # Errors
    /// Rejected for what a Go worker cannot be asked; Busy if too many commands wait already.
    pub(crate) async fn tell(
        &self,
        worker: &str,
        command: &Command,
        _: Timestamp,
    ) -> Result<bool, BrokerError> {
        let present = self.present().await?.into_iter().find(|one| one.view.id == worker);
        let Some(Present { token, .. }) = present else { return Ok(false) };
        let Some(token) = token else { return self.tell_go(worker, command).await };
        let text = command::encode(command);
        if command::decode(&text).is_none() {
            let what = format!("command {command:?} is unknown to this broker");
            return Err(BrokerError::rejected(what));
        }
        let mut call = Call::new(&PEOPLE_TELL, Vec::new());
        call.text(self.root.as_str()).text(token.get().to_string()).text(text);
        if answer::int(self.admin.script(&call).await?)? == 1 {
            return Ok(true);
        }
        let what = format!("could not tell worker {worker:?}: too many commands wait for it");
        Err(BrokerError::new(Kind::Busy, what))
    }

    /// asynq's workers listen for one thing: the id of a task to cancel.
    async fn tell_go(&self, worker: &str, command: &Command) -> Result<bool, BrokerError> {
        let Command::Cancel { id, .. } = command else {
            return Err(BrokerError::rejected(format!(
                "worker {worker:?} is a Go process of asynq, which can only be asked to cancel a task, \
                 not {command:?}: send its process a signal"
            )));
        };
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(self.root.global("cancel")).arg(id.as_str());
        self.admin.run(&publish).await?;
        Ok(true)
    }

    async fn present(&self) -> Result<Vec<Present>, BrokerError> {
        let prefix = self.root.global("servers:");
        let tags = self.tags("servers", &prefix).await?;
        let (mut present, mut foreign) = (Vec::new(), Vec::new());
        for some in tags.chunks(KEYS_PER_CALL) {
            let mut asked = redis::pipe();
            for tag in some {
                // Ours is read last, and it lives longest: a worker of ours is never taken for one of Go's.
                asked.cmd("GET").arg(format!("{prefix}{tag}"));
                asked.cmd("GET").arg(self.root.own(&format!("worker:{tag}")));
            }
            let found = self.ask(&asked).await?;
            for (tag, pair) in some.iter().zip(found.chunks_exact(2)) {
                let info = answer::bytes(pair[0].clone())?.map(|bytes| read_server(tag, &bytes));
                let own = answer::bytes(pair[1].clone())?.and_then(|bytes| read_own(tag, &bytes));
                match (own, info.flatten()) {
                    (Some((token, Some(view))), _) => {
                        present.push(Present { view, token: Some(token) });
                    }
                    (Some((token, None)), Some(info)) => foreign.push((tag, info, Some(token))),
                    (None, Some(info)) => foreign.push((tag, info, None)),
                    (_, None) => {}
                }
            }
        }
        for some in foreign.chunks(KEYS_PER_CALL) {
            let mut asked = redis::pipe();
            for (tag, ..) in some {
                asked.cmd("HVALS").arg(format!("{}{tag}", self.root.global("workers:")));
            }
            let found = self.ask(&asked).await?;
            for ((tag, info, token), tasks) in some.iter().zip(found) {
                let view = shown::worker_view(info.clone(), &read_tasks(tag, tasks)?);
                present.push(Present { view, token: *token });
            }
        }
        Ok(present)
    }

    /// What the members of an index end with, those with the latest beats.
    async fn tags(&self, index: &str, prefix: &str) -> Result<Vec<String>, BrokerError> {
        let mut range = redis::cmd("ZREVRANGE");
        range.arg(self.root.global(index)).arg(0).arg(LISTED_MAX - 1);
        let members = answer::list(self.admin.run(&range).await?)?;
        let mut tags = Vec::with_capacity(members.len());
        for member in members {
            let member = answer::text(member)?;
            match member.strip_prefix(prefix) {
                Some(tag) => tags.push(tag.to_owned()),
                None => {
                    tracing::warn!(index, member, "a member of the index is no key of its kind");
                }
            }
        }
        Ok(tags)
    }

    async fn ask(&self, pipeline: &Pipeline) -> Result<Vec<Value>, BrokerError> {
        if pipeline.is_empty() { Ok(Vec::new()) } else { self.admin.run_all(pipeline).await }
    }

    /// The schedules whose beat holds, and those that are paused, by name. Those of Go are among them.
    pub(crate) async fn schedules(
        &self,
        now: Timestamp,
    ) -> Result<Vec<(ScheduleView, ScheduleState)>, BrokerError> {
        let known = self.known(now).await?;
        let names: Vec<&String> = known.keys().collect();
        let mut listed = BTreeMap::new();
        for some in names.chunks(KEYS_PER_CALL) {
            let mut asked = redis::pipe();
            for name in some {
                asked.cmd("GET").arg(self.root.own(&format!("schedule:{name}")));
            }
            for (name, value) in some.iter().zip(self.ask(&asked).await?) {
                let Some(text) = answer::bytes(value)? else { continue };
                let view: ScheduleView = match serde_json::from_slice(&text) {
                    Ok(view) => view,
                    Err(error) => {
                        tracing::warn!(%name, %error, "a schedule cannot be read and is not listed");
                        continue;
                    }
                };
                let Known { paused_since, last_tick, .. } = known[*name];
                let name = view.name.clone();
                listed
                    .insert(name.clone(), (view, ScheduleState { name, paused_since, last_tick }));
            }
        }
        for entry in self.entries().await? {
            // Ours are in Go's lists, too, with less about them.
            if !known.contains_key(&entry.id) {
                let (view, state) = shown::schedule_view(entry);
                listed.entry(view.name.clone()).or_insert((view, state));
            }
        }
        Ok(listed.into_values().collect())
    }

    /// What is known of our schedules, by name; forgets those that nobody has mentioned for long.
    async fn known(&self, now: Timestamp) -> Result<BTreeMap<String, Known>, BrokerError> {
        let mut all = redis::cmd("HGETALL");
        let fields = pairs(self.admin.run(all.arg(self.root.own("schedules"))).await?)?;
        let mut forget = Call::new(&PEOPLE_FORGET, vec![self.root.own("schedules")]);
        let (mut known, mut forgotten) = (BTreeMap::new(), 0);
        for (name, text) in fields {
            let state = Known::read(&text);
            if !state.is_forgotten(now) {
                known.insert(name, state);
            } else if forgotten < KEYS_PER_CALL {
                forgotten += 1;
                forget.text(name).text(text);
            }
        }
        if forgotten > 0 {
            self.admin.script(&forget).await?;
        }
        Ok(known)
    }

    /// What is known of all our schedules, also of those that no scheduler lists.
    pub(crate) async fn schedule_states(
        &self,
        now: Timestamp,
    ) -> Result<Vec<ScheduleState>, BrokerError> {
        let known = self.known(now).await?.into_iter();
        let state = |(name, known): (String, Known)| ScheduleState {
            name: ScheduleName::stored(&name),
            paused_since: known.paused_since,
            last_tick: known.last_tick,
        };
        Ok(known.map(state).collect())
    }

    /// The entries of all schedulers, Go's and ours.
    async fn entries(&self) -> Result<Vec<SchedulerEntry>, BrokerError> {
        let prefix = self.root.global("schedulers:");
        let (mut entries, mut seen) = (Vec::new(), BTreeSet::new());
        for some in self.tags("schedulers", &prefix).await?.chunks(KEYS_PER_CALL) {
            let mut asked = redis::pipe();
            for tag in some {
                asked.cmd("LRANGE").arg(format!("{prefix}{tag}")).arg(0).arg(LISTED_MAX - 1);
            }
            for (tag, list) in some.iter().zip(self.ask(&asked).await?) {
                for bytes in answer::list(list)? {
                    let bytes = answer::bytes(bytes)?.unwrap_or_default();
                    match SchedulerEntry::decode(&bytes) {
                        Ok(entry) if seen.insert(entry.id.clone()) => entries.push(entry),
                        Ok(_) => {}
                        Err(error) => {
                            tracing::warn!(%tag, %error, "an entry of a scheduler cannot be read");
                        }
                    }
                }
            }
        }
        Ok(entries)
    }

    /// What a schedule has enqueued, newest first.
    pub(crate) async fn ticks(
        &self,
        schedule: &ScheduleName,
        page: &PageRequest,
    ) -> Result<Page<TickRecord>, BrokerError> {
        check_count("page limit", page.limit, PAGE_MAX)?;
        let after = page.cursor.as_ref().map(After::parse).transpose()?;
        if let Some(After::Event(key)) = after {
            return self.events(schedule, page.limit, Some(key)).await;
        }
        let key = self.root.own(&format!("ticks:{schedule}"));
        let highest = match after {
            Some(After::Tick(moment)) => format!("({moment}"),
            _ => "+inf".to_owned(),
        };
        let mut range = redis::cmd("ZREVRANGEBYSCORE");
        range.arg(&key).arg(highest).arg("-inf").arg("LIMIT").arg(0).arg(page.limit + 1);
        let members = answer::list(self.admin.run(&range).await?)?;
        if members.is_empty() && after.is_none() {
            return self.events(schedule, page.limit, None).await;
        }
        let mut items = Vec::with_capacity(members.len());
        let has_more = members.len() > page.limit;
        for member in members.into_iter().take(page.limit) {
            let text = answer::bytes(member)?.unwrap_or_default();
            let tick: TickRecord = serde_json::from_slice(&text).map_err(|error| {
                BrokerError::new(Kind::Corrupt, format!("a tick of schedule {schedule:?} in {key}"))
                    .with_source(error)
            })?;
            items.push(tick);
        }
        let last = items.last().filter(|_| has_more);
        let next = last.map(|last| After::Tick(last.tick.as_millis()).cursor());
        Ok(Page { items, next })
    }

    /// The history of a Go schedule: short enough to be read whole.
    async fn events(
        &self,
        schedule: &ScheduleName,
        limit: usize,
        after: Option<EventKey>,
    ) -> Result<Page<TickRecord>, BrokerError> {
        let mut range = redis::cmd("ZREVRANGE");
        let key = self.root.global(&format!("scheduler_history:{schedule}"));
        range.arg(key).arg(0).arg(EVENTS_MAX - 1);
        let mut events = Vec::new();
        for member in answer::list(self.admin.run(&range).await?)? {
            let bytes = answer::bytes(member)?.unwrap_or_default();
            match SchedulerEnqueueEvent::decode(&bytes) {
                Ok(event) => events.push((EventKey::of(&event), event)),
                Err(error) => tracing::warn!(%schedule, %error, "an event cannot be read"),
            }
        }
        events.sort_by(|one, two| two.0.cmp(&one.0));
        let mut rest = events.iter().filter(|(key, _)| after.as_ref().is_none_or(|old| key < old));
        let shown: Vec<_> = rest.by_ref().take(limit).collect();
        let last = shown.last().filter(|_| rest.next().is_some());
        let next = last.map(|(key, _)| After::Event(key.clone()).cursor());
        let items = shown.iter().map(|(_, event)| shown::tick_record(schedule, event)).collect();
        Ok(Page { items, next })
    }

    /// Pauses or resumes a schedule; false if it was so already.
    ///
    /// # Errors
    /// Rejected for a schedule of a Go scheduler, which knows no pause.
    pub(crate) async fn control_schedule(
        &self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> Result<bool, BrokerError> {
        let states = self.root.own("schedules");
        if control == ScheduleControl::Pause {
            let mut exists = redis::cmd("HEXISTS");
            exists.arg(&states).arg(schedule.as_str());
            let is_ours = answer::int(self.admin.run(&exists).await?)? == 1;
            let is_entry = |entry: &SchedulerEntry| entry.id == schedule.as_str();
            if !is_ours && self.entries().await?.iter().any(is_entry) {
                return Err(BrokerError::rejected(format!(
                    "schedule {schedule:?} is one of a Go scheduler, which cannot be asked to pause it"
                )));
            }
        }
        let view = self.root.own(&format!("schedule:{schedule}"));
        let mut call = Call::new(&PEOPLE_CONTROL, vec![states, view]);
        call.text(schedule.as_str());
        call.fixed(match control {
            ScheduleControl::Pause => "pause",
            ScheduleControl::Resume => "resume",
        });
        call.int(now.as_millis());
        Ok(answer::int(self.admin.script(&call).await?)? == 1)
    }
}

/// The order of Go's events: seconds, nanoseconds, id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EventKey(i64, i32, String);

impl EventKey {
    fn of(event: &SchedulerEnqueueEvent) -> Self {
        let at = event.enqueue_time;
        Self(at.seconds, at.nanos, event.task_id.clone())
    }
}

/// Where a page of ticks ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum After {
    /// Our own history, at this tick in milliseconds.
    Tick(i64),
    /// A Go scheduler's.
    Event(EventKey),
}

impl After {
    fn parse(cursor: &Cursor) -> Result<Self, BrokerError> {
        let read = || match cursor.0.split_once(' ') {
            Some(("t", moment)) => moment.parse().ok().map(Self::Tick),
            Some(("g", key)) => {
                let mut parts = key.splitn(3, ' ');
                let mut next = || parts.next();
                let (seconds, nanos, id) = (next()?, next()?, next()?);
                let key = EventKey(seconds.parse().ok()?, nanos.parse().ok()?, id.to_owned());
                Some(Self::Event(key))
            }
            _ => None,
        };
        read().ok_or_else(|| {
            BrokerError::rejected(format!("cursor {:?} is none of a list of ticks", cursor.0))
        })
    }

    fn cursor(&self) -> Cursor {
        Cursor(match self {
            Self::Tick(moment) => format!("t {moment}"),
            Self::Event(EventKey(seconds, nanos, id)) => format!("g {seconds} {nanos} {id}"),
        })
    }
}

fn read_server(tag: &str, bytes: &[u8]) -> Option<ServerInfo> {
    let read = ServerInfo::decode(bytes);
    let log = |error| tracing::warn!(tag, %error, "a worker cannot be read");
    read.map_err(log).ok()
}

/// Our record of a worker: its token, and its view unless a newer program wrote it in another way.
fn read_own(tag: &str, bytes: &[u8]) -> Option<(LeaseToken, Option<WorkerView>)> {
    let record = std::str::from_utf8(bytes).ok().and_then(|text| text.split_once(' '));
    let read = record.and_then(|(token, view)| {
        let token = token.parse().ok().and_then(LeaseToken::new)?;
        Some((token, serde_json::from_str(view).ok()))
    });
    if read.as_ref().is_none_or(|(_, view)| view.is_none()) {
        tracing::warn!(
            tag,
            "what a worker tells of itself cannot be read: only asynq's part is shown"
        );
    }
    read
}

fn read_tasks(tag: &str, tasks: Value) -> Result<Vec<WorkerInfo>, BrokerError> {
    let mut read = Vec::new();
    for task in answer::list(tasks)? {
        match WorkerInfo::decode(&answer::bytes(task)?.unwrap_or_default()) {
            Ok(task) => read.push(task),
            Err(error) => tracing::warn!(tag, %error, "a running task cannot be read"),
        }
    }
    Ok(read)
}

/// The fields of a hash: a map, or a flat list before RESP3.
pub(crate) fn pairs(value: Value) -> Result<Vec<(String, String)>, BrokerError> {
    let flat = match value {
        Value::Map(pairs) => pairs.into_iter().flat_map(|(name, value)| [name, value]).collect(),
        other => answer::list(other)?,
    };
    let texts: Result<Vec<String>, _> = flat.into_iter().map(answer::text).collect();
    let texts = texts?;
    Ok(texts.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}
