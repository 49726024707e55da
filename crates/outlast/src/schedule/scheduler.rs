//! Enqueues what is due, round by round, and shows the schedules to whoever looks.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast_core::broker::Beat;
use outlast_core::inspect::{ScheduleState, ScheduleView, TickRecord};
use outlast_core::schedule::DueTicks;
use outlast_core::{QueueName, ScheduleName, TaskId, Timestamp, limits};
use tokio::sync::Notify;

use super::entry::Entry;
use super::{Look, Schedule};
use crate::client::Client;
use crate::error::{Error, Result};
use crate::handler::lock;
use crate::{Connection, Receipt, Verdict};

/// How often schedules are shown, and how soon a pause from outside is noticed.
const BEAT_EVERY: Duration = Duration::from_secs(5);

/// How long an entry stays listed after the last beat.
const BEAT_TTL: Duration = Duration::from_secs(20);

/// How long a scheduler that ends may take to say so.
const SIGN_OFF_PATIENCE: Duration = Duration::from_secs(1);

/// How long to leave a broker in peace after an error.
const ERROR_PAUSE: Duration = Duration::from_secs(1);

/// Schedules of one scheduler: more is a mistake in a loop.
const SCHEDULES_MAX: usize = 10_000;

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
    /// Removed, and perhaps still listed.
    ended: Mutex<BTreeSet<ScheduleName>>,
    changed: Notify,
}

/// What one run remembers from round to round.
#[derive(Debug, Default)]
struct Rounds {
    /// Ticks that are enqueued but not in the history yet.
    done: Vec<TickRecord>,
    /// When the schedules were shown last.
    shown_at: Option<Timestamp>,
    /// Since when ticks have been waiting for this scheduler, which was up: its broker has been failing,
    /// or has been slow. `None` while it sleeps until the next tick: what passes in a sleep that lasts
    /// too long, because the machine slept as well, is missed.
    late_since: Option<Timestamp>,
}

impl Scheduler {
    /// A scheduler without schedules.
    #[must_use]
    pub fn new(connection: &Connection) -> Self {
        let inner = Inner {
            connection: connection.clone(),
            entries: Mutex::default(),
            ended: Mutex::default(),
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
        entries.insert(name, Entry::new(schedule));
        drop(entries);
        self.inner.changed.notify_one();
        Ok(())
    }

    /// Removes a schedule; `false` if there was none of this name. Its enqueued ticks stay. A scheduler that runs takes it off
    /// the list.
    pub fn remove(&self, name: &ScheduleName) -> bool {
        let removed = lock(&self.inner.entries).remove(name).is_some();
        if removed {
            self.end(name.clone());
        }
        self.inner.changed.notify_one();
        removed
    }

    fn end(&self, name: ScheduleName) {
        let mut ended = lock(&self.inner.ended);
        // Of more, the last beat ends by itself.
        if ended.len() < SCHEDULES_MAX {
            ended.insert(name);
        }
    }

    /// The names of its schedules.
    #[must_use]
    pub fn names(&self) -> Vec<ScheduleName> {
        lock(&self.inner.entries).keys().cloned().collect()
    }

    /// Enqueues ticks until `stop` is ready, and then takes its schedules off the list, where the broker lets it within a
    /// second. Dropped, it leaves that to the end of its last beat, 20 s later at most.
    pub async fn run_until(&self, stop: impl Future<Output = ()>) {
        self.run_while(stop).await;
    }

    pub(crate) async fn run_while<T>(&self, stop: impl Future<Output = T>) {
        tokio::select! {
            _ = stop => {}
            () = self.run() => {}
        }
        match tokio::time::timeout(SIGN_OFF_PATIENCE, self.sign_off()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "could not take schedules off the list"),
            Err(_) => tracing::debug!("could not take schedules off the list in time"),
        }
    }

    /// Whoever wants to know what was enqueued still finds it: other schedulers of the same schedules go on with it.
    async fn sign_off(&self) -> Result<()> {
        let mut ended = lock(&self.inner.ended).clone();
        ended.extend(lock(&self.inner.entries).keys().cloned());
        if ended.is_empty() {
            return Ok(());
        }
        let beat = Beat { ended: ended.into_iter().collect(), ttl: BEAT_TTL, ..Beat::default() };
        self.inner.connection.broker.beat(self.now(), &beat).await?;
        lock(&self.inner.ended).clear();
        Ok(())
    }

    async fn run(&self) {
        let client = self.inner.connection.client();
        let mut rounds = Rounds::default();
        loop {
            let pause = match self.round(&client, &mut rounds).await {
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

    /// Beats if it is time, enqueues what is due, and says how long to sleep.
    async fn round(&self, client: &Client, rounds: &mut Rounds) -> Result<Duration> {
        if lock(&self.inner.entries).is_empty() {
            rounds.late_since = None;
            if !lock(&self.inner.ended).is_empty() {
                self.show(rounds, Vec::new()).await?;
            }
            return Ok(BEAT_EVERY);
        }
        let late_since = *rounds.late_since.get_or_insert(self.now());
        self.beat_if_due(rounds).await?;
        let now = self.now();
        let look = Look { now, late_by: now.since(late_since) };
        let soonest = self.look(client, look, rounds).await?;
        let beat_at = rounds.shown_at.map_or(now, |shown| shown.plus(BEAT_EVERY));
        let pause = soonest.map_or(beat_at, |tick| tick.min(beat_at)).since(self.now());
        // Without a sleep, the next look is as late for the ticks in between as this one took.
        rounds.late_since = pause.is_zero().then_some(now);
        Ok(pause)
    }

    /// Enqueues what is due, and answers when the next tick is. A schedule whose queue fails holds up no
    /// other, except those of the same queue: they would wait for the same error.
    async fn look(
        &self,
        client: &Client,
        look: Look,
        rounds: &mut Rounds,
    ) -> Result<Option<Timestamp>> {
        let entries: Vec<Entry> = lock(&self.inner.entries).values().cloned().collect();
        let (mut soonest, mut first_error) = (None, None);
        let mut failed: BTreeSet<QueueName> = BTreeSet::new();
        for entry in entries.iter().filter(|entry| entry.position.is_some()) {
            let queue = entry.schedule.request.queue_name();
            if failed.contains(queue) {
                continue;
            }
            match self.decide(client, entry, look, &mut rounds.done).await {
                Ok(next) => soonest = [soonest, next].into_iter().flatten().min(),
                Err(error) => {
                    failed.insert(queue.clone());
                    first_error.get_or_insert(error);
                }
            }
        }
        if !rounds.done.is_empty()
            && let Err(error) = self.show(rounds, Vec::new()).await
        {
            first_error.get_or_insert(error);
        }
        first_error.map_or(Ok(soonest), Err)
    }

    /// Deals with the ticks of one schedule up to now, and answers when the next one is.
    async fn decide(
        &self,
        client: &Client,
        entry: &Entry,
        look: Look,
        done: &mut Vec<TickRecord>,
    ) -> Result<Option<Timestamp>> {
        let Some(position) = entry.position else { return Ok(None) };
        let (schedule, now) = (&entry.schedule, look.now);
        if entry.paused {
            // Ticks that pass while it is paused are nobody's.
            self.moved(&schedule.name, now);
            return Ok(schedule.next(now));
        }
        let due = schedule.due(position, look);
        enqueue(client, schedule, &due, done).await?;
        self.moved(&schedule.name, Timestamp::from_jiff(due.position));
        Ok(if due.more { Some(now) } else { schedule.next(now) })
    }

    /// Shows the schedules and learns their state: every few seconds, and at once if there is one whose
    /// state nobody has asked for yet. Ticks that could not be recorded are recorded first.
    async fn beat_if_due(&self, rounds: &mut Rounds) -> Result<()> {
        let now = self.now();
        let is_recent = |shown: Timestamp| shown <= now && now.since(shown) < BEAT_EVERY;
        let views: Vec<ScheduleView> = {
            let entries = lock(&self.inner.entries);
            // Whoever has ended leaves the list by being no longer in it.
            let is_new =
                entries.values().any(Entry::is_unknown) || !lock(&self.inner.ended).is_empty();
            match rounds.shown_at.is_some_and(is_recent) && !is_new {
                true => Vec::new(),
                false => entries.values().map(|entry| entry.schedule.view(now)).collect(),
            }
        };
        if views.is_empty() && rounds.done.is_empty() {
            return Ok(());
        }
        self.show(rounds, views).await
    }

    /// Beats. Where outages are outlived ticks do not wait for it: they go through the outbox, and what could
    /// not be shown or recorded is later. Schedules that nobody could ask for begin now.
    async fn show(&self, rounds: &mut Rounds, schedules: Vec<ScheduleView>) -> Result<()> {
        // Before the broker is asked: a tick that passes meanwhile is not missed.
        let asked_at = self.now();
        let beaten = self.beat(rounds, schedules).await;
        let (Err(error), Some(_)) = (&beaten, &self.inner.connection.survivor) else {
            return beaten;
        };
        tracing::debug!(%error, "could not show schedules");
        rounds.shown_at = Some(self.now());
        lock(&self.inner.entries).values_mut().for_each(|entry| entry.assume(asked_at));
        // The history of one schedule keeps no more.
        let beyond = rounds.done.len().saturating_sub(limits::TICKS_KEPT);
        rounds.done.drain(..beyond);
        Ok(())
    }

    /// Brings ticks into the history, and shows schedules.
    async fn beat(&self, rounds: &mut Rounds, schedules: Vec<ScheduleView>) -> Result<()> {
        let now = self.now();
        // What was recorded before comes first: afterwards nobody could say what was missed until today.
        let is_asking = lock(&self.inner.entries).values().any(|entry| entry.assumed.is_some());
        let ticks = if is_asking { Vec::new() } else { rounds.done.clone() };
        let recorded = ticks.len();
        let beat =
            Beat { ended: self.ended(&schedules), schedules, ticks, ttl: BEAT_TTL, worker: None };
        let reply = self.inner.connection.broker.beat(now, &beat).await?;
        rounds.done.drain(..recorded);
        lock(&self.inner.ended).retain(|name| !beat.ended.contains(name));
        if !beat.schedules.is_empty() {
            rounds.shown_at = Some(now);
        }
        let mut entries = lock(&self.inner.entries);
        let learn = |state: ScheduleState| entries.get_mut(&state.name)?.learn(state, now);
        let begun: Vec<TickRecord> = reply.schedules.into_iter().filter_map(learn).collect();
        rounds.done.splice(..0, begun);
        Ok(())
    }

    /// What a beat that shows these takes off the list: nothing, if there are others that it does not show. What was removed
    /// and added again has not ended.
    fn ended(&self, shown: &[ScheduleView]) -> Vec<ScheduleName> {
        let entries = lock(&self.inner.entries);
        let mut ended = lock(&self.inner.ended);
        ended.retain(|name| !entries.contains_key(name));
        match shown.is_empty() && !entries.is_empty() {
            true => Vec::new(),
            false => ended.iter().cloned().collect(),
        }
    }

    fn now(&self) -> Timestamp {
        self.inner.connection.clock.now()
    }

    fn moved(&self, name: &ScheduleName, position: Timestamp) {
        if let Some(entry) = lock(&self.inner.entries).get_mut(name) {
            entry.position = entry.position.max(Some(position));
        }
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
        let task = task_of(receipt);
        done.push(TickRecord { schedule: schedule.name.clone(), tick, task, enqueued_at: now });
    }
    Ok(())
}

/// The task that stands for a tick, whoever enqueued it; `None` if there never was one.
fn task_of(receipt: Receipt) -> Option<TaskId> {
    match receipt.verdict {
        Verdict::Accepted { .. } | Verdict::Stored | Verdict::IdConflict => Some(receipt.id),
        // Of another task: the one of an earlier tick has not run yet, and holds the unique lock.
        Verdict::Duplicate { of } => of.is_none_or(|of| of == receipt.id).then_some(receipt.id),
        Verdict::Rejected(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::hourly;
    use super::*;
    use crate::{Clock, TaskRequest};
    use outlast_core::broker::Broker;
    use outlast_core::{Inspect, Kind, PageRequest, Selector, TaskState};
    use outlast_testkit::fault::{Fault, FaultBroker, Verb};
    use outlast_testkit::model::ModelBroker;

    const MINUTE: Duration = Duration::from_secs(60);

    /// One scheduler on a clock that stands still, run round by round.
    struct World {
        faults: Arc<FaultBroker>,
        model: Arc<ModelBroker>,
        clock: Clock,
        client: Client,
        scheduler: Scheduler,
        rounds: Rounds,
    }

    impl World {
        fn new(schedules: Vec<Schedule>) -> Self {
            let model = Arc::new(ModelBroker::new(1000));
            let faults = Arc::new(FaultBroker::new(model.clone()));
            let clock = Clock::manual(Timestamp::from_seconds(1_893_499_200));
            let broker: Arc<dyn Broker> = faults.clone();
            let connection =
                Connection::of_halves("model:", broker, model.clone()).with_clock(clock.clone());
            let scheduler = Scheduler::new(&connection);
            for schedule in schedules {
                scheduler.add(schedule).expect("a name of its own");
            }
            let (client, rounds) = (connection.client(), Rounds::default());
            Self { faults, model, clock, client, scheduler, rounds }
        }

        async fn round(&mut self) -> Result<Duration> {
            self.scheduler.round(&self.client, &mut self.rounds).await
        }

        async fn pending(&self, queue: &str) -> usize {
            let (queue, select) = (QueueName::stored(queue), Selector::state(TaskState::Pending));
            let (page, now) = (PageRequest::first(1000), self.clock.now());
            self.model.tasks(&queue, &select, &page, now).await.expect("answered").items.len()
        }

        /// The ticks in the history, the beginning of the schedule not among them.
        async fn ticks(&self, name: &str) -> Vec<TickRecord> {
            let page = PageRequest::first(1000);
            let name = ScheduleName::stored(name);
            let mut ticks = self.model.ticks(&name, &page).await.expect("answered").items;
            ticks.pop();
            ticks
        }
    }

    #[tokio::test]
    async fn a_schedule_whose_queue_fails_holds_up_no_other() {
        // The round ended at the first error, so that one sick queue stopped all schedules behind it.
        let mut world = World::new(vec![hourly("a"), hourly("b")]);
        world.round().await.expect("learnt");
        world.clock.advance(60 * MINUTE);
        world.faults.script(Verb::Enqueue, [Some(Fault::Before(Kind::Unavailable)), None]);
        world.round().await.expect_err("the first queue failed");
        assert_eq!((world.pending("a").await, world.pending("b").await), (0, 1));
        assert_eq!(world.ticks("b").await.len(), 1, "what was enqueued is recorded all the same");
        world.round().await.expect("healed");
        assert_eq!((world.pending("a").await, world.pending("b").await), (1, 1));
    }

    #[tokio::test]
    async fn a_tick_that_falls_into_an_outage_of_the_broker_is_not_missed() {
        // After ten seconds of outage it counted as one that nobody ran, and the nightly report of a
        // scheduler that had been up all the time was skipped.
        for verb in [Verb::Enqueue, Verb::Beat] {
            let mut world = World::new(vec![hourly("a")]);
            world.round().await.expect("learnt");
            world.clock.advance(59 * MINUTE);
            world.round().await.expect("nothing is due");
            world.clock.advance(MINUTE);
            world.faults.always(verb, Fault::Before(Kind::Unavailable));
            for _ in 0..5 {
                world.round().await.expect_err("an outage");
                world.clock.advance(MINUTE);
            }
            world.faults.heal();
            world.round().await.expect("healed");
            assert_eq!(world.pending("a").await, 1, "{verb:?}");
        }
    }

    #[tokio::test]
    async fn a_tick_that_passes_while_the_scheduler_sleeps_too_long_is_missed() {
        let mut world = World::new(vec![hourly("a")]);
        assert!(world.round().await.expect("learnt") > Duration::ZERO);
        world.clock.advance(65 * MINUTE);
        world.round().await.expect("awake again");
        assert_eq!(world.pending("a").await, 0);
    }

    #[tokio::test]
    async fn a_tick_that_was_refused_has_no_task() {
        // Its record named a task that never was.
        let too_large = TaskRequest::raw("tick", vec![0; limits::PAYLOAD_BYTES_DEFAULT + 1]);
        let schedule = Schedule::new("large", "@hourly", too_large).expect("right so far");
        let mut world = World::new(vec![schedule]);
        world.round().await.expect("learnt");
        world.clock.advance(60 * MINUTE);
        world.round().await.expect("refused is dealt with");
        let ticks = world.ticks("large").await;
        assert_eq!(ticks.iter().map(|tick| tick.task.clone()).collect::<Vec<_>>(), [None]);
    }

    #[tokio::test]
    async fn a_tick_writes_itself_and_not_every_schedule() {
        // Each tick brought two beats with all schedules in them.
        let every_second = TaskRequest::raw("tick", "").queue("a");
        let schedule = Schedule::new("a", "@every 1s", every_second).expect("right");
        let mut world = World::new(vec![schedule, hourly("b")]);
        world.round().await.expect("learnt");
        let (shown, beats) = (world.clock.now(), world.faults.calls(Verb::Beat));
        for _ in 0..4 {
            world.clock.advance(Duration::from_secs(1));
            world.round().await.expect("a tick");
        }
        assert_eq!(world.ticks("a").await.len(), 4);
        assert_eq!(world.faults.calls(Verb::Beat) - beats, 4, "one beat a tick");
        let gone = world.model.schedules(shown.plus(BEAT_TTL)).await.expect("answered");
        assert!(gone.is_empty(), "shown again: {gone:?}");
        world.clock.advance(Duration::from_secs(1));
        world.round().await.expect("the next beat");
        let shown = world.model.schedules(shown.plus(BEAT_TTL)).await.expect("answered");
        assert_eq!(shown.len(), 2);
    }
}
