//! Moving a broker's tasks to another one, with faults at every call and work at both ends.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use outlast::broker::porter::{
    Batch, Concluded, Conclusion, Delivered, Found, Load, OnceKey, Order,
};
use outlast::broker::{Porter, Stamp};
use outlast::migration::{self, Migration, Moved, Step};
use outlast::{
    Action, BrokerError, Clock, Connection, Cursor, ErrorKind, Kind, Missed, Page, PageRequest,
    QueueName, Schedule, ScheduleName, ScheduleState, Scheduler, Selector, TaskId, TaskInfo,
    TaskRequest, TaskState, TickRecord, Timestamp, Worker,
};
use outlast_testkit::server::RedisServer;

use super::soon;

const TASKS: usize = 10;

/// Which call of both ends together fails, and whether the broker has done by then what was asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Before(usize),
    After(usize),
}

/// An end of a move that fails once.
struct Faulty {
    inner: Arc<dyn Porter>,
    fault: Fault,
    calls: Arc<AtomicUsize>,
    trick: Trick,
}

/// What an end does that it should not.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trick {
    None,
    /// Finds nothing of what it has stored.
    IsBlind,
    /// Cannot read what it has stored.
    Garbles,
    /// Stores something else than it was given.
    Forges,
    /// Gives a batch back before it is concluded, as somebody else may.
    GivesBack,
}

fn tricky(at: &Connection, trick: Trick) -> Connection {
    let (inner, calls) = (at.porter().unwrap(), Arc::default());
    at.clone().with_porter(Arc::new(Faulty { inner, fault: NEVER, calls, trick }))
}

/// No call of this number is ever made.
const NEVER: Fault = Fault::Before(usize::MAX);

impl Faulty {
    fn enter(&self) -> Result<usize, BrokerError> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst);
        self.check(Fault::Before(call)).map(|()| call)
    }

    fn check(&self, here: Fault) -> Result<(), BrokerError> {
        if self.fault == here {
            return Err(BrokerError::new(Kind::Ambiguous, format!("killed {here:?}")));
        }
        Ok(())
    }

    fn leave<T>(&self, call: usize, answer: T) -> Result<T, BrokerError> {
        self.check(Fault::After(call)).map(|()| answer)
    }
}

#[async_trait]
impl Porter for Faulty {
    async fn take(
        &self,
        queue: &QueueName,
        order: &Order,
        now: Timestamp,
    ) -> Result<Option<Batch>, BrokerError> {
        let call = self.enter()?;
        // Small batches: more places at which to fail.
        let order = Order { tasks_max: 4, ..order.clone() };
        self.leave(call, self.inner.take(queue, &order, now).await?)
    }

    async fn put(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        load: &Load,
    ) -> Result<Delivered, BrokerError> {
        let call = self.enter()?;
        let mut load = load.clone();
        if self.trick == Trick::Forges {
            load.parcels.iter_mut().for_each(|parcel| parcel.task.payload = "forged".into());
        }
        self.leave(call, self.inner.put(queue, stamp, now, &load).await?)
    }

    async fn conclude(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        end: &Conclusion,
    ) -> Result<Concluded, BrokerError> {
        let call = self.enter()?;
        if self.trick == Trick::GivesBack {
            self.inner.conclude(queue, stamp, now, &Conclusion::GivenBack).await?;
        }
        let concluded = self.inner.conclude(queue, stamp, now, end).await?;
        self.leave(call, concluded)
    }

    async fn parcels(
        &self,
        queue: &QueueName,
        ids: &[TaskId],
        now: Timestamp,
    ) -> Result<Vec<Found>, BrokerError> {
        let call = self.enter()?;
        let found = self.inner.parcels(queue, ids, now).await?;
        if self.trick == Trick::Garbles {
            return Ok(vec![Found::Unreadable("field msg is cut off".into()); ids.len()]);
        }
        self.leave(
            call,
            if self.trick == Trick::IsBlind { vec![Found::Missing; found.len()] } else { found },
        )
    }

    async fn once_keys(
        &self,
        queue: &QueueName,
        cursor: Option<&Cursor>,
        now: Timestamp,
    ) -> Result<Page<OnceKey>, BrokerError> {
        let call = self.enter()?;
        self.leave(call, self.inner.once_keys(queue, cursor, now).await?)
    }

    async fn hold_once(
        &self,
        queue: &QueueName,
        keys: &[OnceKey],
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        let call = self.enter()?;
        self.inner.hold_once(queue, keys, now).await?;
        self.leave(call, ())
    }

    async fn weakness(&self) -> Result<Option<String>, BrokerError> {
        self.inner.weakness().await
    }

    async fn schedule_states(&self, now: Timestamp) -> Result<Vec<ScheduleState>, BrokerError> {
        self.inner.schedule_states(now).await
    }
}

fn queue() -> QueueName {
    QueueName::default_queue()
}

async fn memory() -> Connection {
    Connection::without_spool("sqlite::memory:").await.unwrap()
}

async fn space(server: &RedisServer) -> Connection {
    let url = format!("{}/0?namespace=t{}", server.url(), uuid::Uuid::new_v4().simple());
    Connection::without_spool(&url).await.unwrap()
}

/// Moves the queue until nothing is left to be moved.
async fn move_all(from: &Connection, to: &Connection) -> outlast::Result<Moved> {
    let migration = Migration::new(from, to).await?;
    let mut lane = migration.queue(&queue());
    let mut moved = Moved::default();
    while let Step::Batch(batch) = lane.step().await? {
        moved.add(batch);
    }
    lane.finish().await?;
    Ok(moved)
}

type Runs = Arc<Mutex<BTreeMap<String, usize>>>;

/// Runs everything that is at a broker.
async fn work(at: &Connection, runs: &Runs) {
    let runs = runs.clone();
    let worker = Worker::new(&at.client()).handle_type("t", move |info: TaskInfo| {
        let runs = runs.clone();
        async move {
            *runs.lock().unwrap().entry(info.id.to_string()).or_default() += 1;
        }
    });
    soon("the queue is empty", worker.exit_when_empty().run()).await.unwrap();
}

/// A move that fails at `fault`; the target runs what it has by then; and again until it is through.
/// Answers false if the fault was never met.
async fn survives(from: Connection, to: Connection, fault: Fault) -> bool {
    let request = |n: usize| TaskRequest::raw("t", n.to_string()).id(&n.to_string());
    from.client().enqueue_all((0..TASKS).map(request).collect()).await.unwrap();
    let taken = to.client().enqueue(TaskRequest::raw("t", "theirs").id("3")).await.unwrap();
    assert!(taken.is_accepted());
    let calls = Arc::new(AtomicUsize::new(0));
    let faulty = |at: &Connection| {
        let inner = at.porter().unwrap();
        let faulty = Faulty { inner, fault, calls: calls.clone(), trick: Trick::None };
        at.clone().with_porter(Arc::new(faulty))
    };
    let first = move_all(&faulty(&from), &faulty(&to)).await;
    let runs = Runs::default();
    work(&to, &runs).await;
    let second = move_all(&from, &to).await.unwrap();
    assert!(second.mismatches.is_empty() && !second.target_lost, "{fault:?}: {second:?}");
    work(&to, &runs).await;
    work(&from, &runs).await;
    let runs = runs.lock().unwrap().clone();
    // The task with the id that was taken runs for both, or once at the end that has kept it.
    assert_eq!(runs.len(), TASKS, "{fault:?}: none is lost: {runs:?}");
    let twice = runs.iter().filter(|(id, times)| **times != if *id == "3" { 2 } else { 1 });
    assert_eq!(twice.count(), 0, "{fault:?}: {runs:?}");
    for end in [from, to] {
        let stats = end.inspector().queue(&queue()).await.unwrap();
        assert_eq!(stats.size(), 0, "{fault:?}: {stats:?}");
    }
    first.is_err()
}

/// Every call of a move fails once, before and after it was done.
async fn survives_everywhere(ends: impl AsyncFn() -> (Connection, Connection)) {
    let mut met = 0;
    for call in 0..1000 {
        let mut any = false;
        for fault in [Fault::Before(call), Fault::After(call)] {
            let (from, to) = ends().await;
            any |= survives(from, to, fault).await;
        }
        if !any {
            break;
        }
        met = call + 1;
    }
    assert!((12..1000).contains(&met), "{met} calls failed");
}

#[tokio::test]
async fn a_move_that_is_killed_at_any_call_runs_every_task_once() {
    survives_everywhere(async || (memory().await, memory().await)).await;
}

#[tokio::test]
async fn a_move_to_redis_that_is_killed_at_any_call_runs_every_task_once() {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    survives_everywhere(async || (memory().await, space(&server).await)).await;
}

#[tokio::test]
async fn a_move_from_redis_that_is_killed_at_any_call_runs_every_task_once() {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    survives_everywhere(async || (space(&server).await, memory().await)).await;
}

#[tokio::test]
async fn producers_and_workers_go_on_while_their_queue_moves() {
    const MANY: usize = 400;
    let (from, to) = (memory().await, memory().await);
    let (client, runs) = (from.client(), Runs::default());
    let produce = async {
        for n in 0..MANY {
            client.enqueue(TaskRequest::raw("t", "x").id(&n.to_string())).await.unwrap();
        }
    };
    let seen = runs.clone();
    let worker = Worker::new(&to.client()).handle_type("t", move |info: TaskInfo| {
        let runs = seen.clone();
        async move {
            *runs.lock().unwrap().entry(info.id.to_string()).or_default() += 1;
        }
    });
    let stop = worker.control();
    let working = tokio::spawn(worker.run());
    let moving = async {
        while runs.lock().unwrap().len() < MANY {
            move_all(&from, &to).await.unwrap();
        }
    };
    soon("all have moved and run", async { tokio::join!(produce, moving) }).await;
    stop.stop();
    working.await.unwrap().unwrap();
    assert!(runs.lock().unwrap().values().all(|times| *times == 1), "each once");
}

#[tokio::test]
async fn a_queue_that_is_paused_is_paused_before_its_tasks_arrive() {
    let (from, to) = (memory().await, memory().await);
    from.client().enqueue(TaskRequest::raw("t", "x")).await.unwrap();
    from.inspector().pause(&queue()).await.unwrap();
    let migration = Migration::new(&from, &to).await.unwrap();
    let mut lane = migration.queue(&queue());
    let paused = async |at: &Connection| at.inspector().queue(&queue()).await.unwrap().paused_since;
    let Step::Batch(moved) = lane.step().await.unwrap() else { panic!("there is a task") };
    assert_eq!(moved.stored(), 1);
    assert!(paused(&to).await.is_some());
    assert_eq!(paused(&to).await, paused(&from).await);
}

/// Runs a scheduler until it is known at the broker and `ticks` of it have been enqueued.
async fn schedule_until(at: &Connection, ticks: usize) {
    let schedule = Schedule::new("hourly", "0 * * * *", TaskRequest::raw("t", "")).unwrap();
    let scheduler = Scheduler::new(at);
    scheduler.add(schedule.missed(Missed::All)).unwrap();
    let wait = async {
        while history(at).await.len() < ticks
            || at.inspector().schedules().await.unwrap().is_empty()
        {
            tokio::task::yield_now().await;
        }
    };
    soon("the ticks", scheduler.run_until(wait)).await;
}

async fn history(at: &Connection) -> Vec<TickRecord> {
    let name = ScheduleName::new("hourly").unwrap();
    at.inspector().ticks(&name, &PageRequest::first(100)).await.unwrap().items
}

#[tokio::test]
async fn a_schedule_goes_on_at_the_target_where_it_was_at_the_source() {
    let clock = Clock::manual(Timestamp::from_seconds(1_795_521_660));
    let (from, to) =
        (memory().await.with_clock(clock.clone()), memory().await.with_clock(clock.clone()));
    // The first record says from where on ticks count.
    schedule_until(&from, 1).await;
    clock.advance(Duration::from_secs(3 * 3600));
    schedule_until(&from, 4).await;
    let migration = Migration::new(&from, &to).await.unwrap();
    for _ in 0..2 {
        assert_eq!(migration.schedules().await.unwrap(), 1);
        assert_eq!(history(&to).await, history(&from).await);
    }
    clock.advance(Duration::from_secs(2 * 3600));
    schedule_until(&to, 6).await;
    let ticks = history(&to).await.into_iter().filter(|tick| tick.task.is_some());
    let ticks: Vec<_> = ticks.map(|tick| tick.tick.as_seconds()).collect();
    assert_eq!(ticks.len(), 5, "two were missed and caught up: {ticks:?}");
    assert!(ticks.windows(2).all(|pair| pair[0] - pair[1] == 3600), "{ticks:?}");
}

#[tokio::test]
async fn a_schedule_that_is_paused_stays_so_at_the_target() {
    let clock = Clock::manual(Timestamp::from_seconds(1_795_521_660));
    let from = memory().await.with_clock(clock.clone());
    let to = memory().await.with_clock(clock.clone());
    schedule_until(&from, 1).await;
    let name = ScheduleName::new("hourly").unwrap();
    from.inspector().pause_schedule(&name).await.unwrap();
    clock.advance(Duration::from_secs(60));
    Migration::new(&from, &to).await.unwrap().schedules().await.unwrap();
    schedule_until(&to, 1).await;
    let states = to.inspector().schedules().await.unwrap();
    let since: Vec<_> = states.iter().map(|(_, state)| state.paused_since).collect();
    assert_eq!(since, [Some(Timestamp::from_seconds(1_795_521_660))]);
}

#[tokio::test]
async fn a_batch_whose_target_is_gone_is_given_back() {
    let (from, gone, to) = (memory().await, memory().await, memory().await);
    for id in ["a", "b"] {
        from.client().enqueue(TaskRequest::raw("t", "x").id(id)).await.unwrap();
    }
    let calls = Arc::default();
    let faulty = Faulty {
        inner: gone.porter().unwrap(),
        fault: Fault::Before(1),
        calls,
        trick: Trick::None,
    };
    let failed = move_all(&from, &gone.with_porter(Arc::new(faulty))).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Broker(Kind::Ambiguous));
    let refused = move_all(&from, &to).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Broker(Kind::Rejected));
    assert!(refused.to_string().contains("on its way to another broker"), "{refused}");
    assert_eq!(migration::give_back(&from, &queue()).await.unwrap(), 2);
    assert_eq!(migration::give_back(&from, &queue()).await.unwrap(), 0);
    assert_eq!(move_all(&from, &to).await.unwrap().stored(), 2);
}

#[tokio::test]
async fn a_target_that_lost_what_it_had_stored_is_told_of() {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    let (from, to) = (memory().await, Connection::without_spool(&server.url()).await.unwrap());
    let request = |n: usize| TaskRequest::raw("t", "x").id(&n.to_string());
    from.client().enqueue_all((0..600).map(request).collect()).await.unwrap();
    let mut lane = Migration::new(&from, &to).await.unwrap().queue(&queue());
    for is_lost in [false, true] {
        let Step::Batch(moved) = lane.step().await.unwrap() else { panic!("there are tasks") };
        assert_eq!(moved.target_lost, is_lost);
        server.command(&["FLUSHALL"]).unwrap();
    }
}

/// Stores a scheduled task `a` in the target, whose source is not told.
async fn stored_and_not_told(from: &Connection, to: &Connection) {
    let later = TaskRequest::raw("t", "mine").id("a").delay(Duration::from_secs(600));
    from.client().enqueue(later).await.unwrap();
    let inner = from.porter().unwrap();
    let (fault, calls) = (Fault::Before(2), Arc::default());
    let faulty = Faulty { inner, fault, calls, trick: Trick::None };
    move_all(&from.clone().with_porter(Arc::new(faulty)), to).await.unwrap_err();
}

async fn act(at: &Connection, action: Action) {
    let selector = Selector::id(TaskId::new("a").unwrap());
    at.inspector().act(&queue(), &action, &selector, &PageRequest::first(1)).await.unwrap();
}

async fn payload(at: &Connection) -> Vec<u8> {
    at.inspector().task(&queue(), &TaskId::new("a").unwrap()).await.unwrap().payload.to_vec()
}

/// A move that went on took a new payload for damage, and stood still: what it asked for, to delete the task there or
/// to give the batch back, lost the change or had the task twice.
#[tokio::test]
async fn what_was_changed_in_the_target_since_it_was_stored_stays_changed() {
    let (from, to) = (memory().await, memory().await);
    stored_and_not_told(&from, &to).await;
    act(&to, Action::SetPayload("changed".into())).await;
    let moved = move_all(&from, &to).await.unwrap();
    let count = moved.states[&TaskState::Scheduled];
    assert_eq!((count.stored, count.verified, count.changed), (1, 0, 1));
    assert_eq!(payload(&to).await, b"changed");
    assert_eq!(from.inspector().queue(&queue()).await.unwrap().size(), 0);
}

#[tokio::test]
async fn a_task_of_the_same_id_that_came_after_the_stored_one_stops_no_move() {
    let (from, to) = (memory().await, memory().await);
    stored_and_not_told(&from, &to).await;
    act(&to, Action::Delete).await;
    to.client().enqueue(TaskRequest::raw("another", "theirs").id("a")).await.unwrap();
    assert_eq!(move_all(&from, &to).await.unwrap().states[&TaskState::Scheduled].changed, 1);
    assert_eq!(payload(&to).await, b"theirs");
    assert_eq!(from.inspector().queue(&queue()).await.unwrap().size(), 0);
}

#[tokio::test]
async fn a_task_that_is_not_stored_as_it_was_put_is_not_forgotten_by_the_source() {
    let (from, to) = (memory().await, memory().await);
    from.client().enqueue(TaskRequest::raw("t", "mine").id("a")).await.unwrap();
    let differs = move_all(&from, &tricky(&to, Trick::Forges)).await.unwrap_err();
    assert!(differs.to_string().contains("task a of queue default differs"), "{differs}");
    assert!(differs.to_string().contains("its payload"), "{differs}");
    assert_eq!(migration::give_back(&from, &queue()).await.unwrap(), 1);
    assert_eq!(payload(&from).await, b"mine");
}

/// It was counted as started by a worker, and forgotten by the source.
#[tokio::test]
async fn a_task_that_cannot_be_read_where_it_was_put_is_not_forgotten_by_the_source() {
    let (from, to) = (memory().await, memory().await);
    from.client().enqueue(TaskRequest::raw("t", "mine").id("a")).await.unwrap();
    let differs = move_all(&from, &tricky(&to, Trick::Garbles)).await.unwrap_err();
    assert!(differs.to_string().contains("cannot be read: field msg is cut off"), "{differs}");
    assert_eq!(migration::give_back(&from, &queue()).await.unwrap(), 1);
}

/// The mover went on as if it had ended the batch itself, and said that all was well: the tasks were at both ends.
#[tokio::test]
async fn a_batch_that_is_given_back_under_its_mover_fails_the_move() {
    let (from, to) = (memory().await, memory().await);
    from.client().enqueue(TaskRequest::raw("t", "mine").id("a")).await.unwrap();
    let failed = move_all(&tricky(&from, Trick::GivesBack), &to).await.unwrap_err();
    assert!(failed.to_string().contains("was ended by somebody else"), "{failed}");
}

#[tokio::test]
async fn what_is_stored_and_cannot_be_found_is_named_unless_it_may_have_run() {
    let (from, to) = (memory().await, memory().await);
    let client = from.client();
    client.enqueue(TaskRequest::raw("t", "x").id("now")).await.unwrap();
    let later = TaskRequest::raw("t", "x").id("later").delay(Duration::from_secs(600));
    client.enqueue(later).await.unwrap();
    let moved = move_all(&from, &tricky(&to, Trick::IsBlind)).await.unwrap();
    let missing: Vec<_> = moved.mismatches.iter().map(|task| task.id.as_str()).collect();
    assert_eq!((missing, moved.mismatched), (vec!["later"], 1));
    assert_eq!(moved.stored(), 2);
}

#[tokio::test]
async fn a_broker_is_not_moved_onto_itself() {
    let from = memory().await;
    let refused = Migration::new(&from, &from.clone()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("lead to the same tasks"), "{refused}");
}
