//! The world of a simulation: one server, machines with a disk each, their processes, foreign workers, and the plan that spoils it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlast::survive::{CircuitState, Event};
use outlast::{QueueName, Timestamp};
use outlast_core::{Kind, TaskId};
use outlast_testkit::fault::{Dice, Fault as Spoiled, Verb};
use outlast_testkit::laws::{self, Recorded};
use outlast_testkit::model::{ModelBroker, Saved};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;

use crate::history::History;
use crate::peer::Peer;
use crate::plan::{Fault, Plan, Step, Trouble};
use crate::process::{Count, Process, TICK};
use crate::work;

/// When every simulation begins.
const BEGIN: Timestamp = Timestamp::from_seconds(1_893_499_200);

/// By when everything must be done, after the last fault: asynq takes up to two minutes to find a lost task, and its retry waits.
const DONE_WITHIN: Duration = Duration::from_secs(300);

/// How long producers go on after the last fault.
const PRODUCE_ON: Duration = Duration::from_secs(5);

/// What every command to the server is; a wait is none, because it only listens.
const COMMANDS: [Verb; 7] =
    [Verb::Enqueue, Verb::Health, Verb::Claim, Verb::Settle, Verb::Extend, Verb::Sweep, Verb::Beat];

/// The commands of producers, the probes, and the commands of workers: each has its own two a second (law L9).
const CLASSES: [&[Verb]; 3] = {
    let (produce, others) = COMMANDS.split_at(1);
    let (probe, consume) = others.split_at(1);
    [produce, probe, consume]
};

/// A place for a process: who it is, and what is left of it when it is killed.
struct Seat {
    name: String,
    machine: usize,
    ahead: i64,
    works: bool,
    count: Count,
    process: Option<Process>,
    /// Time that it has not seen while it stood still.
    missed: Duration,
    is_frozen: bool,
    events: Option<Receiver<Event>>,
    is_down: bool,
    /// Since when its breakers have been open, and what it had sent then.
    open: Option<(Duration, [u64; 3])>,
}

pub(crate) struct World {
    plan: Plan,
    now: Duration,
    model: Arc<ModelBroker>,
    answers: Arc<laws::History>,
    history: Arc<History>,
    seats: Vec<Seat>,
    peers: Vec<Peer>,
    active: Vec<(Step, Option<Saved>)>,
    stop: Arc<AtomicBool>,
    folder: TempDir,
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let (model, history) = (Arc::new(ModelBroker::new(10_000)), Arc::new(History::default()));
        let seat = |(n, machine): (usize, &usize)| Seat {
            name: format!("p{n}"),
            machine: *machine,
            ahead: plan.ahead[n],
            works: n < plan.workers,
            count: Count::default(),
            process: None,
            missed: Duration::ZERO,
            is_frozen: false,
            events: None,
            is_down: false,
            open: None,
        };
        let seats = plan.machines.iter().enumerate().map(seat).collect();
        let queues: Vec<_> =
            work::QUEUES.iter().map(|queue| QueueName::new(queue).unwrap()).collect();
        let peer = |n| {
            Peer::new(format!("peer{n}"), (model.clone(), history.clone()), queues.clone(), BEGIN)
        };
        let peers = (0..plan.peers).map(peer).collect();
        let memory = PathBuf::from("/dev/shm");
        let folder =
            tempfile::tempdir_in(if memory.is_dir() { memory } else { std::env::temp_dir() });
        Self {
            plan,
            now: Duration::ZERO,
            model,
            answers: Arc::default(),
            history,
            seats,
            peers,
            active: Vec::new(),
            stop: Arc::default(),
            folder: folder.unwrap(),
        }
    }

    /// Runs the plan, and says what was wrong.
    pub(crate) fn run(mut self) -> Result<String, String> {
        (0..self.seats.len()).for_each(|n| self.start(n));
        let mut steps = self.plan.steps.clone().into_iter().peekable();
        let healed_at = self.plan.healed_at();
        let last = healed_at + DONE_WITHIN;
        while self.now < last {
            while let Some(step) = steps.next_if(|step| step.at <= self.now) {
                self.begin(step);
            }
            self.end_faults();
            self.turn();
            let is_over = self.now > healed_at + PRODUCE_ON;
            self.stop.store(is_over, Ordering::Relaxed);
            if is_over && self.now.subsec_millis() == 0 && self.is_done() {
                break;
            }
        }
        self.judge()
    }

    fn time(&self) -> Timestamp {
        BEGIN.plus(self.now)
    }

    fn turn(&mut self) {
        self.now += TICK;
        self.history.tick(self.now);
        let time = self.time();
        for seat in &mut self.seats {
            let Some(process) = &seat.process else { continue };
            if seat.is_frozen {
                seat.missed += TICK;
                continue;
            }
            process.way.says(time);
            process.turn(TICK + std::mem::take(&mut seat.missed));
            seat.look(self.now, &self.history);
        }
        let reaches = !self.active.iter().any(|(step, _)| step.is_felt_by_peers());
        self.peers.iter_mut().for_each(|peer| peer.turn(time, reaches));
    }

    fn start(&mut self, n: usize) {
        let seat = &self.seats[n];
        let recorded = Recorded::new(self.model.clone(), self.answers.clone());
        let spool = self.folder.path().join(format!("m{}.db", seat.machine));
        let ahead = Duration::from_millis(seat.ahead.unsigned_abs());
        let time = match seat.ahead {
            0.. => self.time().plus(ahead),
            _ => self.time().minus(ahead),
        };
        let process = Process::start(&spool, time, (Arc::new(recorded), self.model.clone()));
        process.way.says(self.time());
        let (client, history, name) = (&process.client, &self.history, &seat.name);
        let pace = (seat.count.clone(), self.plan.pause, self.stop.clone());
        process.spawn(work::produce(client.clone(), history.clone(), name.clone(), pace));
        if seat.works {
            process.spawn(work::work(client.clone(), history.clone(), name.clone()));
        }
        history.started(name, seat.machine);
        let seat = &mut self.seats[n];
        (seat.is_down, seat.open, seat.missed) = (false, None, Duration::ZERO);
        seat.events = Some(process.survivor().events());
        seat.process = Some(process);
        self.spoil(n);
    }

    fn begin(&mut self, step: Step) {
        self.history.note(format!("begins: {:?}, for {:?}", step.fault, step.lasts));
        let mut saved = None;
        match step.fault {
            Fault::Kill(n) => {
                if let Some(process) = self.seats[n].process.take() {
                    process.kill();
                    self.history.killed(&self.seats[n].name);
                }
            }
            Fault::Freeze(n) => self.seats[n].is_frozen = true,
            Fault::KillPeer(n) => {
                let queues = work::QUEUES.map(|queue| QueueName::new(queue).unwrap()).to_vec();
                let shared = (self.model.clone(), self.history.clone());
                self.peers[n] =
                    Peer::new(format!("peer{n}"), shared, queues, self.time().plus(step.lasts));
            }
            Fault::Rollback => saved = Some(self.model.save()),
            Fault::Flush => {
                self.model.flush();
                self.history.forgot("all");
            }
            Fault::Server(_) | Fault::Way(..) => {}
        }
        let whole = (step.at, step.at + step.lasts);
        match step.fault {
            Fault::Way(n, _) | Fault::Freeze(n) => {
                self.history.away(&self.seats[n].name, whole, true);
            }
            // Who comes back from an outage of all may report before anybody takes its tasks.
            Fault::Server(_) => {
                self.seats.iter().for_each(|seat| self.history.away(&seat.name, whole, false));
            }
            _ => {}
        }
        self.active.push((step, saved));
        (0..self.seats.len()).for_each(|n| self.spoil(n));
    }

    fn end_faults(&mut self) {
        let now = self.now;
        let over: Vec<_> =
            self.active.extract_if(.., |(step, _)| step.at + step.lasts <= now).collect();
        let mut is_renewed = false;
        for (step, saved) in over {
            self.history.note(format!("is over: {:?}", step.fault));
            match (step.fault, saved) {
                (Fault::Kill(n), _) if self.seats[n].process.is_none() => self.start(n),
                (Fault::Freeze(n), _) => self.seats[n].is_frozen = false,
                (Fault::Rollback, Some(saved)) => {
                    self.model.restore(saved);
                    self.history.forgot(&format!("the last {:?}", step.lasts));
                    is_renewed = true;
                }
                _ => {}
            }
            (0..self.seats.len()).for_each(|n| self.spoil(n));
        }
        if is_renewed {
            self.drop_connections();
        }
    }

    /// Nobody gets a restarted server's data through a connection to the one before it.
    fn drop_connections(&self) {
        for process in self.seats.iter().filter_map(|seat| seat.process.as_ref()) {
            for verb in COMMANDS {
                process.way.script(verb, [Some(Spoiled::Before(Kind::Unavailable))]);
            }
        }
    }

    /// Makes a process's way what the active faults say.
    fn spoil(&self, n: usize) {
        let Some(process) = &self.seats[n].process else { return };
        let way = &process.way;
        way.heal();
        way.release();
        if !self.plan.latency.is_zero() {
            COMMANDS.iter().for_each(|verb| way.always(*verb, Spoiled::Slow(self.plan.latency)));
        }
        for (step, _) in &self.active {
            match step.fault {
                Fault::Server(trouble) => trouble.spoil(way, self.plan.seed),
                Fault::Way(which, trouble) if which == n => trouble.spoil(way, self.plan.seed),
                _ => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        let is_empty = |seat: &Seat| {
            let status = seat.process.as_ref().map(|process| process.survivor().status().unwrap());
            status.is_none_or(|status| status.outbox.items + status.journal.items == 0)
        };
        self.history.is_complete()
            && self.model.census().is_empty()
            && self.seats.iter().all(is_empty)
    }

    /// Tasks of one producer and queue that overtook each other on the way to the server.
    fn disorder(&self) -> Vec<String> {
        let mut last = BTreeMap::<(String, QueueName), TaskId>::new();
        let mut wrong = Vec::new();
        for (queue, id) in self.answers.taken() {
            let producer = id.as_str().split('-').next().unwrap_or_default().to_owned();
            if let Some(before) =
                last.insert((producer, queue), id.clone()).filter(|last| *last > id)
            {
                wrong.push(format!("order: {before} came before {id}"));
            }
        }
        wrong
    }

    fn judge(self) -> Result<String, String> {
        let mut wrong = self.history.verdict();
        let left = self.model.census();
        let seen: BTreeSet<_> = left.iter().map(|task| format!("{}", task.state)).collect();
        if !left.is_empty() {
            wrong.push(format!(
                "late: {} tasks are left ({seen:?}), such as {}",
                left.len(),
                left[0].id
            ));
        }
        for seat in &self.seats {
            let Some(process) = &seat.process else { continue };
            let status = process.survivor().status().unwrap();
            let counts = status.counts;
            if status.outbox.items + status.journal.items + counts.quarantined + counts.dropped > 0
            {
                wrong.push(format!("{}: left on the disk: {status:?}", seat.name));
            }
        }
        if !self.plan.forgets() {
            wrong.extend(self.disorder());
        }
        if !self.plan.forgets() && self.plan.peers == 0 {
            let mut kept = BTreeMap::<QueueName, BTreeSet<_>>::new();
            for task in left {
                kept.entry(task.queue).or_default().insert(task.id);
            }
            let broken = self.answers.violations(&kept);
            wrong.extend(broken.iter().map(ToString::to_string));
        }
        let (tasks, runs) = self.history.size();
        let size = format!("{tasks} tasks, {runs} runs, {:.0} s", self.now.as_secs_f64());
        if wrong.is_empty() {
            return Ok(size);
        }
        let all = wrong.iter().take(20).map(|what| format!("  {what}\n")).collect::<String>();
        let (plan, story) = (&self.plan, self.history.story(&wrong[..wrong.len().min(3)]));
        Err(format!(
            "OUTLAST_SEED={}\n{size}; {} wrong:\n{all}{plan}\n{story}",
            plan.seed,
            wrong.len()
        ))
    }
}

impl Seat {
    /// Laws that show from outside, at any moment.
    fn look(&mut self, now: Duration, history: &History) {
        let Some(process) = &self.process else { return };
        let homes = process.survivor().homes();
        let count = |verbs: &[Verb]| verbs.iter().map(|verb| process.way.calls(*verb)).sum();
        let sent: [u64; 3] = CLASSES.map(count);
        let is_open = homes.iter().any(|home| {
            home.produce != CircuitState::Closed && home.consume != CircuitState::Closed
        });
        match self.open {
            _ if !is_open => self.open = None,
            None => self.open = Some((now, sent)),
            Some((since, before)) => {
                let lasts = (now - since).as_secs_f64();
                let more = std::iter::zip(sent, before).map(|(sent, before)| sent - before);
                let more: Vec<u64> = more.collect();
                // What was under way when it opened, and a trial beside a probe.
                if more.iter().any(|more| *more as f64 > 2.0 * lasts + 8.0) {
                    history.wrong(format!("L9: {} sent {more:?} in {lasts:.1} s", self.name));
                    self.open = None;
                }
            }
        }
        while let Some(Ok(event)) = self.events.as_mut().map(Receiver::try_recv) {
            history.note(format!("{} tells: {event:?}", self.name));
            let (is_down, is_up) =
                (matches!(event, Event::Down { .. }), matches!(event, Event::Up { .. }));
            if (is_down && self.is_down) || (is_up && !self.is_down) {
                history.wrong(format!("L10: {} tells {event:?} twice", self.name));
            }
            self.is_down = is_down || (self.is_down && !is_up);
        }
    }
}

impl Step {
    fn is_felt_by_peers(&self) -> bool {
        matches!(
            self.fault,
            Fault::Server(Trouble::Refuses(_) | Trouble::Silent | Trouble::Swallows)
        )
    }
}

impl Trouble {
    fn spoil(self, way: &outlast_testkit::fault::FaultBroker, seed: u64) {
        let all = |fault| {
            COMMANDS.iter().chain([&Verb::Wait]).for_each(|verb| way.always(*verb, fault));
        };
        match self {
            Trouble::Refuses(kind) => all(Spoiled::Before(kind)),
            Trouble::Swallows => all(Spoiled::After),
            Trouble::Silent => all(Spoiled::Hang),
            Trouble::Slow(by) => all(Spoiled::Slow(by)),
            Trouble::Flaky(per_mille) => way.roll(Dice { seed, per_mille }),
            Trouble::Full => [Verb::Enqueue, Verb::Health]
                .iter()
                .for_each(|verb| way.always(*verb, Spoiled::Before(Kind::Busy))),
        }
    }
}
