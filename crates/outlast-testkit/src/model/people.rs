//! Workers, schedulers and what is asked of them.

use std::collections::BTreeMap;

use outlast_core::inspect::{ScheduleState, TickRecord, WorkerStatus};
use outlast_core::limits::{ENDED_LISTED, TICKS_KEPT};
use outlast_core::{
    Beat, BeatReply, Command, LeaseToken, ScheduleControl, ScheduleName, ScheduleView, Timestamp,
    WorkerBeat, WorkerView,
};

#[derive(Clone, Debug, Default)]
pub(super) struct People {
    workers: BTreeMap<String, Worker>,
    schedules: BTreeMap<ScheduleName, Schedule>,
    /// What workers have not carried out yet, by the token they claim with.
    commands: BTreeMap<LeaseToken, Vec<(u64, Command)>>,
    /// The numbers given out last.
    tokens: u32,
    command_number: u64,
    pub(super) sets: u64,
}

#[derive(Clone, Debug)]
struct Worker {
    view: WorkerView,
    token: LeaseToken,
    until: Timestamp,
}

#[derive(Clone, Debug, Default)]
struct Schedule {
    /// What schedulers say of it, and until when that holds.
    view: Option<(ScheduleView, Timestamp)>,
    paused_since: Option<Timestamp>,
    last_tick: Option<Timestamp>,
    ticks: BTreeMap<Timestamp, TickRecord>,
}

impl People {
    pub(super) fn beat(&mut self, now: Timestamp, beat: &Beat) -> BeatReply {
        let until = now.plus(beat.ttl);
        let token = beat.worker.as_ref().map(|worker| self.worker_beat(worker, until));
        for view in &beat.schedules {
            self.schedules.entry(view.name.clone()).or_default().view = Some((view.clone(), until));
        }
        let listed_until = now.plus(ENDED_LISTED);
        for name in &beat.ended {
            let known = self.schedules.get_mut(name).and_then(|schedule| schedule.view.as_mut());
            known.into_iter().for_each(|(_, until)| *until = listed_until.min(*until));
        }
        for tick in &beat.ticks {
            self.schedules.entry(tick.schedule.clone()).or_default().record(tick);
        }
        BeatReply {
            token,
            commands: token.and_then(|t| self.commands.get(&t).cloned()).unwrap_or_default(),
            schedules: beat.schedules.iter().map(|view| self.state(&view.name)).collect(),
        }
    }

    fn worker_beat(&mut self, beat: &WorkerBeat, until: Timestamp) -> LeaseToken {
        let id = &beat.view.id;
        let known = self.workers.get(id).map(|worker| worker.token);
        let token = beat.token.or(known).unwrap_or_else(|| self.new_token());
        if let Some(unseen) = self.commands.get_mut(&token) {
            unseen.retain(|(number, _)| *number > beat.seen);
        }
        if beat.view.status == WorkerStatus::Gone {
            self.workers.remove(id);
        } else {
            self.workers.insert(id.clone(), Worker { view: beat.view.clone(), token, until });
        }
        token
    }

    fn new_token(&mut self) -> LeaseToken {
        self.tokens += 1;
        LeaseToken::new(self.tokens).expect("no test has a million workers")
    }

    fn state(&self, name: &ScheduleName) -> ScheduleState {
        let known = self.schedules.get(name);
        ScheduleState {
            name: name.clone(),
            paused_since: known.and_then(|schedule| schedule.paused_since),
            last_tick: known.and_then(|schedule| schedule.last_tick),
        }
    }

    pub(super) fn workers(&self, now: Timestamp) -> Vec<WorkerView> {
        let alive = self.workers.values().filter(|worker| worker.until > now);
        alive.map(|worker| worker.view.clone()).collect()
    }

    pub(super) fn tell(&mut self, worker: &str, command: &Command, now: Timestamp) -> bool {
        let alive = self.workers.get(worker).filter(|worker| worker.until > now);
        let Some(token) = alive.map(|worker| worker.token) else { return false };
        self.ask(token, command.clone());
        true
    }

    pub(super) fn ask(&mut self, token: LeaseToken, command: Command) {
        self.command_number += 1;
        self.commands.entry(token).or_default().push((self.command_number, command));
    }

    pub(super) fn has_commands(&self, token: LeaseToken) -> bool {
        self.commands.get(&token).is_some_and(|commands| !commands.is_empty())
    }

    /// Those whose beat holds; and the paused, whose last view is shown, or nobody could resume them.
    pub(super) fn schedules(&self, now: Timestamp) -> Vec<(ScheduleView, ScheduleState)> {
        let shown = self.schedules.iter().filter_map(|(name, schedule)| {
            let (view, until) = schedule.view.as_ref()?;
            let listed = *until > now || schedule.paused_since.is_some();
            listed.then(|| (view.clone(), self.state(name)))
        });
        shown.collect()
    }

    pub(super) fn ticks(&self, schedule: &ScheduleName) -> Vec<TickRecord> {
        let known = self.schedules.get(schedule);
        known.map(|schedule| schedule.ticks.values().rev().cloned().collect()).unwrap_or_default()
    }

    pub(super) fn control(
        &mut self,
        schedule: &ScheduleName,
        control: ScheduleControl,
        now: Timestamp,
    ) -> bool {
        let schedule = self.schedules.entry(schedule.clone()).or_default();
        match (control, schedule.paused_since) {
            (ScheduleControl::Pause, None) => schedule.paused_since = Some(now),
            (ScheduleControl::Resume, Some(_)) => {
                schedule.paused_since = None;
                // The ticks of the pause are not caught up: catching up begins behind this moment.
                schedule.last_tick = schedule.last_tick.max(Some(now));
            }
            (ScheduleControl::Pause, Some(_)) | (ScheduleControl::Resume, None) => return false,
        }
        true
    }
}

impl Schedule {
    fn record(&mut self, tick: &TickRecord) {
        self.ticks.entry(tick.tick).or_insert_with(|| tick.clone());
        self.last_tick = self.last_tick.max(Some(tick.tick));
        while self.ticks.len() > TICKS_KEPT {
            self.ticks.pop_first();
        }
    }
}
