//! Signs of life of workers and schedulers: what is kept of them for Go's programs and for ours, tokens,
//! commands and the history of schedules. `people` reads all of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::inspect::{ScheduleState, TickRecord, WorkerStatus};
use outlast_core::limits::{
    BEAT_RUNNING_MAX, DURATION_MAX, ENDED_LISTED, LEASE_TOKEN_MAX, TICKS_KEPT,
};
use outlast_core::{
    Beat, BeatReply, BrokerError, Command, Kind, LeaseToken, ScheduleName, ScheduleView, Timestamp,
    WorkerBeat, WorkerView,
};
use serde::Serialize;
use uuid::Uuid;

use crate::answer;
use crate::broker::Inner;
use crate::command;
use crate::conn::Call;
use crate::scripts::{PEOPLE_BEAT, PEOPLE_ENDED, PEOPLE_SCHEDULES, PEOPLE_TICKS, PEOPLE_TOKEN};
use crate::shown;

/// Commands handed out by one beat; the next one brings the rest.
const COMMANDS_PER_BEAT: i64 = 1000;

/// Tokens that are looked at for one that no live worker holds.
const TOKEN_TRIES: i64 = 1000;

/// How long what is dead stays in an index, for clocks that differ. Go's own listing removes it at once.
const INDEX_ALLOWANCE: Duration = Duration::from_secs(3600);

/// Schedules written by one call, and ticks: more go on in a next one, so that nobody waits for long.
const SCHEDULES_PER_CALL: usize = 200;
const TICKS_PER_CALL: usize = 200;

/// How long a history is kept after its last tick: longer than the year between two ticks.
const TICKS_TTL: Duration = Duration::from_secs(400 * 86_400);

/// The same for asynq's form of it, which Go's programs never remove.
const EVENTS_TTL: Duration = Duration::from_secs(90 * 86_400);

/// Workers and schedules that are remembered here. Beyond that what is remembered begins anew: tasks of a
/// worker that has become idle are then listed by Go until they expire, a last tick as "never" once.
const REMEMBERED_MAX: usize = 10_000;

/// What a broker remembers of the beats that went through it.
#[derive(Debug)]
pub(crate) struct Presence {
    /// The name under which schedules are shown to Go: asynq's form, one per broker.
    scheduler: String,
    /// Workers that ran tasks when they last beat: idle ones have no list of tasks to clear.
    busy: Mutex<HashSet<String>>,
    /// The last ticks of the schedules that were shown.
    last_ticks: Mutex<HashMap<ScheduleName, Timestamp>>,
}

impl Default for Presence {
    fn default() -> Self {
        let scheduler = format!("outlast:{}:{}", std::process::id(), Uuid::new_v4());
        Self { scheduler, busy: Mutex::default(), last_ticks: Mutex::default() }
    }
}

impl Presence {
    fn busy(&self) -> MutexGuard<'_, HashSet<String>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_ticks(&self) -> MutexGuard<'_, HashMap<ScheduleName, Timestamp>> {
        self.last_ticks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn was_busy(&self, worker: &str) -> bool {
        self.busy().contains(worker)
    }

    fn has_beaten(&self, view: &WorkerView) {
        let mut busy = self.busy();
        if view.running.is_empty() || view.status == WorkerStatus::Gone {
            busy.remove(&view.id);
        } else if !busy.contains(&view.id) {
            if busy.len() >= REMEMBERED_MAX {
                busy.clear();
            }
            busy.insert(view.id.clone());
        }
    }

    fn learn(&self, states: &[ScheduleState]) {
        let mut known = self.last_ticks();
        if known.len() + states.len() > REMEMBERED_MAX {
            known.clear();
        }
        let ticked = states.iter().filter_map(|state| Some((state.name.clone(), state.last_tick?)));
        known.extend(ticked);
    }
}

/// How long a beat holds, as the server counts it: whole seconds, at least one.
fn ttl_seconds(ttl: Duration) -> i64 {
    ttl.min(DURATION_MAX).as_secs().max(1).cast_signed()
}

fn json<T: Serialize>(what: &str, name: &str, value: &T) -> Result<String, BrokerError> {
    serde_json::to_string(value).map_err(|error| {
        BrokerError::rejected(format!("could not store {what} {name:?}")).with_source(error)
    })
}

fn until_text(now: Timestamp, ttl: Duration) -> String {
    now.plus(ttl.min(DURATION_MAX)).as_seconds().to_string()
}

fn forgotten_text(now: Timestamp) -> String {
    format!("({}", now.minus(INDEX_ALLOWANCE).as_seconds())
}

impl Inner {
    /// Takes a sign of life; see [`outlast_core::Broker::beat`]. Repeating it changes nothing.
    pub(crate) async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        let mut reply = BeatReply::default();
        if let Some(worker) = &beat.worker {
            let (token, commands) = self.worker_beat(now, worker, beat.ttl).await?;
            (reply.token, reply.commands) = (Some(token), commands);
        }
        for ticks in beat.ticks.chunks(TICKS_PER_CALL) {
            self.record_ticks(ticks).await?;
        }
        for (nth, schedules) in beat.schedules.chunks(SCHEDULES_PER_CALL).enumerate() {
            let states = self.show_schedules(now, schedules, beat.ttl, nth == 0).await?;
            reply.schedules.extend(states);
        }
        for ended in beat.ended.chunks(SCHEDULES_PER_CALL) {
            self.end_schedules(ended, beat.schedules.is_empty()).await?;
        }
        self.presence.learn(&reply.schedules);
        Ok(reply)
    }

    async fn worker_beat(
        &self,
        now: Timestamp,
        worker: &WorkerBeat,
        ttl: Duration,
    ) -> Result<(LeaseToken, Vec<(u64, Command)>), BrokerError> {
        let mut view = worker.view.clone();
        view.running.truncate(BEAT_RUNNING_MAX);
        let text = json("the view of worker", &view.id, &view)?;
        let token = match worker.token {
            Some(token) => token,
            None => self.token_for(now, &view, &text, ttl).await?,
        };
        let tag = shown::tag(&view);
        let commands = self.root.own(&format!("commands:{}", token.get()));
        let keys = vec![
            self.root.global("servers"),
            self.root.global("workers"),
            self.root.tagged("servers", &tag),
            self.root.tagged("workers", &tag),
            self.root.tagged("outlast:worker", &tag),
            commands.clone(),
        ];
        let mut call = Call::new(&PEOPLE_BEAT, keys);
        call.text(until_text(now, ttl)).int(ttl_seconds(ttl));
        call.fixed(if view.status == WorkerStatus::Gone { "gone" } else { "" });
        let writes_tasks = !view.running.is_empty() || self.presence.was_busy(&view.id);
        call.fixed(if writes_tasks { "1" } else { "" });
        call.text(worker.seen.to_string()).int(COMMANDS_PER_BEAT);
        call.bytes(shown::server_info(&view).encode()).text(format!("{} {text}", token.get()));
        for info in shown::worker_infos(&view) {
            call.text(info.task_id.as_str()).bytes(info.encode());
        }
        let waiting = answer::list(self.consume.script(&call).await?)?;
        self.presence.has_beaten(&view);
        Ok((token, self.read_commands(&view.id, &commands, waiting).await?))
    }

    /// The token of a worker in its first beat, which writes its record: whoever repeats the beat finds it.
    async fn token_for(
        &self,
        now: Timestamp,
        view: &WorkerView,
        text: &str,
        ttl: Duration,
    ) -> Result<LeaseToken, BrokerError> {
        let keys = vec![
            self.root.tagged("outlast:worker", &shown::tag(view)),
            self.root.own("tokens"),
            self.root.global("servers"),
            self.root.global("workers"),
        ];
        let mut call = Call::new(&PEOPLE_TOKEN, keys);
        call.text(self.root.global("servers:")).text(self.root.own("worker:"));
        call.text(self.root.own("commands:")).int(i64::from(LEASE_TOKEN_MAX));
        call.int(i64::from(rand::random_range(0..LEASE_TOKEN_MAX))).int(TOKEN_TRIES);
        call.text(forgotten_text(now)).int(ttl_seconds(ttl)).text(text);
        let token = answer::int(self.consume.script(&call).await?)?;
        u32::try_from(token).ok().and_then(LeaseToken::new).ok_or_else(|| {
            let what = format!("could not give a token to worker {:?}: all are in use", view.id);
            BrokerError::new(Kind::Busy, what)
        })
    }

    /// Commands with their numbers. One that cannot be read was written by a newer program: it is removed,
    /// or its worker would be woken for it again and again.
    async fn read_commands(
        &self,
        worker: &str,
        key: &str,
        waiting: Vec<redis::Value>,
    ) -> Result<Vec<(u64, Command)>, BrokerError> {
        let mut commands = Vec::with_capacity(waiting.len());
        for value in waiting {
            let text = answer::text(value)?;
            let read = text.split_once(' ').and_then(|(number, body)| {
                Some((number.parse::<u64>().ok()?, command::decode(body)?))
            });
            if let Some(read) = read {
                commands.push(read);
                continue;
            }
            tracing::warn!(worker, command = text, "a command that cannot be read is dropped");
            let mut remove = redis::cmd("LREM");
            self.consume.run(remove.arg(key).arg(1).arg(&text)).await?;
        }
        Ok(commands)
    }

    async fn record_ticks(&self, ticks: &[TickRecord]) -> Result<(), BrokerError> {
        let mut call = Call::new(&PEOPLE_TICKS, vec![self.root.own("schedules")]);
        call.text(self.root.own("ticks:")).text(self.root.global("scheduler_history:"));
        call.int(TICKS_KEPT.cast_signed() as i64);
        call.text(TICKS_TTL.as_secs().to_string()).text(EVENTS_TTL.as_secs().to_string());
        for tick in ticks {
            let name = tick.schedule.as_str();
            call.text(name).int(tick.tick.as_millis()).text(json("a tick of", name, tick)?);
            call.bytes(shown::enqueue_event(tick).map(|event| event.encode()).unwrap_or_default());
            call.int(tick.enqueued_at.as_seconds());
        }
        self.consume.script(&call).await?;
        Ok(())
    }

    async fn show_schedules(
        &self,
        now: Timestamp,
        schedules: &[ScheduleView],
        ttl: Duration,
        is_first: bool,
    ) -> Result<Vec<ScheduleState>, BrokerError> {
        let keys = vec![
            self.root.own("schedules"),
            self.root.global("schedulers"),
            self.root.tagged("schedulers", &self.presence.scheduler),
        ];
        let mut call = Call::new(&PEOPLE_SCHEDULES, keys);
        call.text(self.root.own("schedule:")).text(until_text(now, ttl));
        call.int(now.plus(ttl).as_millis()).int(ttl_seconds(ttl));
        call.fixed(if is_first { "1" } else { "" }).text(forgotten_text(now));
        for view in schedules {
            let last = self.presence.last_ticks().get(&view.name).copied();
            call.text(view.name.as_str()).text(json("schedule", view.name.as_str(), view)?);
            call.bytes(shown::scheduler_entry(view, last).encode());
        }
        let states = answer::list(self.consume.script(&call).await?)?;
        let states: Result<Vec<String>, _> = states.into_iter().map(answer::text).collect();
        let states = states?;
        let each = schedules.iter().zip(states.chunks_exact(2)).map(|(view, state)| {
            let name = view.name.clone();
            ScheduleState { name, paused_since: moment(&state[0]), last_tick: moment(&state[1]) }
        });
        Ok(each.collect())
    }

    async fn end_schedules(
        &self,
        ended: &[ScheduleName],
        keeps_none: bool,
    ) -> Result<(), BrokerError> {
        let entries = self.root.tagged("schedulers", &self.presence.scheduler);
        let mut call = Call::new(&PEOPLE_ENDED, vec![self.root.global("schedulers"), entries]);
        call.text(self.root.own("schedule:")).int(ttl_seconds(ENDED_LISTED));
        call.fixed(if keeps_none { "1" } else { "" });
        for name in ended {
            call.text(name.as_str());
        }
        self.consume.script(&call).await?;
        Ok(())
    }
}

/// A moment in a schedule's state: milliseconds, or `-`.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    text.parse().ok().map(Timestamp::from_millis)
}
