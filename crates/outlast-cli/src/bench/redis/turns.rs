//! What the two sides do in turns, and how each task is counted.

use super::asynq::Asynq;
use super::bare::Bare;
use super::gauge::Gauge;
use super::ours::Ours;
use super::plan::Plan;
use super::site::Site;
use super::tally::{Sample, Side, Tally};
use super::{Bench, Outcome, cost};
use crate::bench::load::{Done, Others, SLOTS};
use crate::bench::report::Figure;

/// Callers that fill asynq's queue, which takes one task a call.
pub(super) const FILLERS: usize = 64;

/// Queues of the idle worker.
const IDLE_QUEUES: usize = 20;

/// Tasks that are due in each second of the lateness figure.
const LATE_OF_EACH: usize = 20;

/// Something that both sides do in turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// So many callers that await each enqueue.
    Awaiting { figure: &'static str, callers: usize, count: usize },
    /// Long lists; asynq has no call for many.
    Bulk,
    /// A worker's work on a queue of its own.
    Drain,
    /// The same among tasks that are active all the time.
    DrainAmongActive,
    /// Both with tasks waiting behind.
    BeforeWaiting { count: usize },
    /// From enqueue to start.
    Pickup,
    /// From a due time to start.
    Lateness,
    /// Commands of a worker without work.
    Idle,
    /// Bytes of a pending task.
    Memory,
    /// The server's time for a task.
    Cost,
}

/// All of them, in order, each with what its figures begin with.
pub(super) fn of(plan: Plan) -> Vec<(&'static str, Turn)> {
    let awaiting = |figure, callers, count| (figure, Turn::Awaiting { figure, callers, count });
    let mut turns = vec![
        awaiting("enqueue.single", 1, plan.single),
        awaiting("enqueue.concurrent16", 16, plan.concurrent),
        awaiting("enqueue.concurrent", 64, plan.concurrent),
        ("enqueue.bulk", Turn::Bulk),
        ("drain", Turn::Drain),
        ("pickup", Turn::Pickup),
        ("scheduled.lateness", Turn::Lateness),
        ("idle.commands", Turn::Idle),
        ("memory.per_task", Turn::Memory),
        ("redis.cpu_per_task", Turn::Cost),
        ("drain.active10k", Turn::DrainAmongActive),
    ];
    turns.extend(plan.waiting.map(|count| ("drain.waiting1m", Turn::BeforeWaiting { count })));
    turns
}

impl Turn {
    /// What asynq does, where it is not the same.
    fn peer(self) -> &'static str {
        match self {
            Turn::Bulk => "asynq, 64 callers: it has no call for many",
            Turn::Cost => "asynq, one by one",
            Turn::Awaiting { .. }
            | Turn::Drain
            | Turn::DrainAmongActive
            | Turn::BeforeWaiting { .. }
            | Turn::Pickup
            | Turn::Lateness
            | Turn::Idle
            | Turn::Memory => "asynq",
        }
    }

    /// How often it is done: what takes long and hardly differs is done once.
    fn rounds(self, plan: Plan) -> usize {
        match self {
            Turn::Lateness | Turn::Idle | Turn::Memory => 1,
            Turn::Awaiting { .. }
            | Turn::Bulk
            | Turn::Drain
            | Turn::DrainAmongActive
            | Turn::BeforeWaiting { .. }
            | Turn::Pickup
            | Turn::Cost => plan.rounds,
        }
    }
}

impl Bench {
    /// Lets both sides do it in turns, each being first in every other round.
    pub(super) async fn take_turns(&mut self, turn: Turn) -> Outcome<Vec<Figure>> {
        self.prepare(turn).await?;
        let mut tally = Tally::default();
        for round in 0..turn.rounds(self.plan) {
            let sides = [Side::Ours, Side::Asynq];
            for side in [sides[round % 2], sides[(round + 1) % 2]] {
                for sample in self.samples(side, turn).await? {
                    tally.add(side, sample);
                }
            }
        }
        self.ours.site.empty().await?;
        if let Some((_, site)) = &mut self.asynq {
            site.empty().await?;
        }
        self.end(turn).await?;
        Ok(beside_ceilings(tally.figures(turn.peer())))
    }

    /// Puts the others in place.
    async fn prepare(&mut self, turn: Turn) -> Outcome<()> {
        let (count, activate) = match turn {
            Turn::DrainAmongActive => (self.plan.active, true),
            Turn::BeforeWaiting { count } => (count, false),
            Turn::Awaiting { .. }
            | Turn::Bulk
            | Turn::Drain
            | Turn::Pickup
            | Turn::Lateness
            | Turn::Idle
            | Turn::Memory
            | Turn::Cost => return Ok(()),
        };
        let now = self.ours.connection.clock().now().as_seconds();
        self.ours.fill(count).await?;
        if let Some((asynq, site)) = &mut self.asynq {
            asynq.enqueue(site, FILLERS, count).await?;
            if activate {
                site.activate(count, now).await?;
            }
        }
        if activate {
            self.ours.site.activate(count, now).await?;
        }
        Ok(())
    }

    /// Takes away what [`prepare`](Self::prepare) made active.
    async fn end(&mut self, turn: Turn) -> Outcome<()> {
        if turn != Turn::DrainAmongActive {
            return Ok(());
        }
        self.ours.site.clear().await?;
        match &mut self.asynq {
            Some((_, site)) => site.clear().await,
            None => Ok(()),
        }
    }

    async fn samples(&mut self, side: Side, turn: Turn) -> Outcome<Vec<Sample>> {
        let plan = self.plan;
        match (side, &mut self.asynq) {
            (Side::Ours, _) => ours(&mut self.ours, &mut self.gauge, plan, turn).await,
            (Side::Asynq, Some((asynq, site))) => {
                asynqs(asynq, site, &mut self.gauge, plan, turn).await
            }
            (Side::Asynq, None) => Ok(Vec::new()),
        }
    }
}

fn rate(figure: &'static str, done: Done, exact: bool) -> Sample {
    Sample::new(figure, done.rate(), "tasks/s").exact(done.exact && exact)
}

async fn ours(ours: &mut Ours, gauge: &mut Gauge, plan: Plan, turn: Turn) -> Outcome<Vec<Sample>> {
    Ok(match turn {
        Turn::Awaiting { figure, callers, count } => {
            let done = ours.enqueue(callers, count).await?;
            vec![rate(figure, done, stored(&mut ours.site, count).await?)]
        }
        Turn::Bulk => {
            let done = ours.fill(plan.bulk).await?;
            let bulk = rate("enqueue.bulk", done, stored(&mut ours.site, plan.bulk).await?);
            let bare = Bare::new(&ours.connection, &ours.site.queue).await?;
            let done = bare.flood(plan.bulk).await?;
            bare.end().await?;
            let stored = stored(&mut ours.site, plan.bulk).await?;
            vec![bulk, rate("ceiling.enqueue", done, stored)]
        }
        Turn::Drain => {
            let bare = Bare::new(&ours.connection, &ours.site.queue).await?;
            ours.fill(plan.drain).await?;
            let stored = ours.site.holds(plan.drain).await?;
            let done = bare.drain(plan.drain).await?;
            bare.end().await?;
            let ceiling = rate("ceiling.drain", done, stored && ours.site.is_drained(0).await?);
            vec![drained(ours, plan, "drain", 0).await?, ceiling]
        }
        Turn::DrainAmongActive => vec![drained(ours, plan, "drain.active10k", plan.active).await?],
        Turn::BeforeWaiting { .. } => {
            let (before, count) = (ours.site.waiting().await?, plan.concurrent);
            let more = ours.enqueue(FILLERS, count).await?;
            let stored = ours.site.waiting().await? == before + count;
            let done = ours.drain(count, Others { waiting: before, active: 0 }).await?;
            vec![rate("enqueue.waiting1m", more, stored), rate("drain.waiting1m", done, true)]
        }
        Turn::Pickup => {
            let figures = ours.pickup(plan.pickups).await?.figures();
            let sample = |figure: Figure| Sample {
                exact: figure.exact,
                ..Sample::new(figure.figure, figure.value, figure.unit)
            };
            figures.into_iter().map(sample).collect()
        }
        Turn::Lateness => {
            let late = ours.lateness(plan.lateness, LATE_OF_EACH).await?;
            vec![Sample::new("scheduled.lateness.p99", late, "ms")]
        }
        Turn::Idle => {
            let watch = watch(gauge, plan);
            let commands = ours.idle(&idle_queues(&ours.site), watch).await?;
            vec![Sample::new("idle.commands", commands, "commands/s on 20 queues")]
        }
        Turn::Memory => {
            let before = gauge.memory().await?;
            ours.fill(plan.memory).await?;
            let bytes = gauge.memory().await?.saturating_sub(before);
            let stored = stored(&mut ours.site, plan.memory).await?;
            vec![memory(bytes, plan).exact(stored)]
        }
        Turn::Cost => cost::ours(ours, gauge, plan).await?,
    })
}

async fn asynqs(
    asynq: &Asynq,
    site: &mut Site,
    gauge: &mut Gauge,
    plan: Plan,
    turn: Turn,
) -> Outcome<Vec<Sample>> {
    Ok(match turn {
        Turn::Awaiting { figure, callers, count } => {
            let done = asynq.enqueue(site, callers, count).await?;
            vec![rate(figure, done, stored(site, count).await?)]
        }
        Turn::Bulk => {
            let done = asynq.enqueue(site, FILLERS, plan.concurrent).await?;
            vec![rate("enqueue.bulk", done, stored(site, plan.concurrent).await?)]
        }
        Turn::Drain | Turn::DrainAmongActive => {
            let (figure, active) = match turn == Turn::DrainAmongActive {
                true => ("drain.active10k", plan.active),
                false => ("drain", 0),
            };
            asynq.enqueue(site, FILLERS, plan.drain_asynq).await?;
            let stored = site.holds(plan.drain_asynq).await?;
            let done =
                asynq.drain(site, SLOTS, plan.drain_asynq, Others { active, waiting: 0 }).await?;
            vec![rate(figure, done, stored && site.is_drained(active).await?)]
        }
        Turn::BeforeWaiting { .. } => {
            let (before, more) = (site.waiting().await?, plan.concurrent);
            let enqueued = asynq.enqueue(site, FILLERS, more).await?;
            let stored = site.waiting().await? == before + more;
            let waiting = before + more - plan.drain_asynq;
            let done =
                asynq.drain(site, SLOTS, plan.drain_asynq, Others { waiting, active: 0 }).await?;
            vec![rate("enqueue.waiting1m", enqueued, stored), rate("drain.waiting1m", done, true)]
        }
        Turn::Pickup => {
            let [p50, p99] = asynq.pickup(site, plan.pickups_asynq).await?;
            let sample = |figure, value| Sample::new(figure, value, "ms");
            vec![sample("pickup.p50", p50), sample("pickup.p99", p99)]
        }
        Turn::Lateness => {
            let late = asynq.lateness(site, plan.lateness, LATE_OF_EACH).await?;
            vec![Sample::new("scheduled.lateness.p99", late, "ms")]
        }
        Turn::Idle => {
            let server = asynq.idle(&idle_queues(site)).await?;
            let commands = watch(gauge, plan).await;
            server.stop().await?;
            vec![Sample::new("idle.commands", commands?, "commands/s on 20 queues")]
        }
        Turn::Memory => {
            let before = gauge.memory().await?;
            asynq.enqueue(site, FILLERS, plan.memory).await?;
            let bytes = gauge.memory().await?.saturating_sub(before);
            let stored = stored(site, plan.memory).await?;
            vec![memory(bytes, plan).exact(stored)]
        }
        Turn::Cost => cost::asynqs(asynq, site, gauge, plan).await?,
    })
}

async fn drained(
    ours: &mut Ours,
    plan: Plan,
    figure: &'static str,
    active: usize,
) -> Outcome<Sample> {
    ours.fill(plan.drain).await?;
    let stored = ours.site.holds(plan.drain).await?;
    let done = ours.drain(plan.drain, Others { active, waiting: 0 }).await?;
    Ok(rate(figure, done, stored && ours.site.is_drained(active).await?))
}

/// Counts the tasks of an enqueue, and takes them away.
async fn stored(site: &mut Site, count: usize) -> Outcome<bool> {
    let stored = site.holds(count).await?;
    site.empty().await?;
    Ok(stored)
}

async fn watch(gauge: &Gauge, plan: Plan) -> Outcome<f64> {
    tokio::time::sleep(plan.settle).await;
    Ok(gauge.commands(plan.idle).await? as f64 / plan.idle.as_secs_f64())
}

fn idle_queues(site: &Site) -> Vec<String> {
    (0..IDLE_QUEUES).map(|nth| format!("{}-{nth}", site.queue)).collect()
}

fn memory(bytes: u64, plan: Plan) -> Sample {
    Sample::new("memory.per_task", bytes as f64 / plan.memory as f64, "bytes, 200 of them payload")
}

/// Puts beside each ceiling what was reached below it in the same rounds.
fn beside_ceilings(mut figures: Vec<Figure>) -> Vec<Figure> {
    for (ceiling, below, what) in [
        ("ceiling.enqueue", "enqueue.bulk", "reached by enqueue.bulk"),
        ("ceiling.drain", "drain", "reached by drain"),
    ] {
        let value = figures.iter().find(|figure| figure.figure == below).map(|figure| figure.value);
        let ceiling = figures.iter_mut().find(|figure| figure.figure == ceiling);
        if let (Some(ceiling), Some(value)) = (ceiling, value) {
            *ceiling = ceiling.clone().reached(what, value);
        }
    }
    figures
}

/// How much of a figure is kept among others: of its ratio to asynq, or of its rate where that did not run.
pub(super) fn kept(figures: &[Figure]) -> Vec<Figure> {
    let find = |name: &str| figures.iter().find(|figure| figure.figure == name);
    let kept = |(name, among, alone): (&'static str, &str, &str)| {
        let (among, alone) = (find(among)?, find(alone)?);
        Some(match (among.ratio, alone.ratio) {
            (Some(among), Some(alone)) => Figure::new(name, among / alone, "of the ratio without"),
            _ => Figure::new(name, among.value / alone.value, "of the rate without"),
        })
    };
    let all = [
        ("drain.active10k.kept", "drain.active10k", "drain"),
        ("enqueue.waiting1m.kept", "enqueue.waiting1m", "enqueue.concurrent"),
        ("drain.waiting1m.kept", "drain.waiting1m", "drain"),
    ];
    all.into_iter().filter_map(kept).collect()
}
