//! The life of a worker, in order. Each phase ends before the next begins, and each has a bound:
//!
//! ```text
//!   Running     claims and runs
//!   Quiet       claims nothing more; what runs goes on, for as long as it likes
//!   Draining    as Quiet, but only for the larger part of the shutdown timeout; tasks that were claimed
//!               ahead of a slot are given back at once
//!   Releasing   what still runs is cancelled and given back
//!   GivingBack  handlers that were still ending by themselves are dropped, their tasks given back
//!   Flushing    outcomes that are under way reach the broker
//!   Gone        the worker takes its name off the list
//! ```
//!
//! The order matters: claims stop before slots are waited for, or draining would never end; executors
//! end before the settler, because they are its senders; the keeper extends leases until everything is
//! settled; the last beat comes last, because it says that this worker holds nothing more.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use outlast_core::broker::{Beat, WorkerBeat};
use outlast_core::inspect::{WorkerStatus, WorkerView};
use outlast_core::{Kind, LeaseToken};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::claimer::Claimer;
use super::keeper::{BEAT_TTL, Keeper};
use super::options::StopWhen;
use super::settler::Settler;
use super::shared::{Parts, Shared};
use super::{Worker, exit, skew, sweeper};
use crate::Connection;
use crate::error::{Error, ErrorKind, Result};
use crate::handler::{CancelReason, RunService, Service};

/// Where a worker is in its life. Phases only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Phase {
    /// Claims and runs.
    Running,
    /// Claims nothing more.
    Quiet,
    /// Waits for what runs, for a while.
    Draining,
    /// Cancels what still runs and gives it back.
    Releasing,
    /// Drops what has still not ended and gives it back.
    GivingBack,
    /// Waits until the broker has every outcome.
    Flushing,
    /// Is over.
    Gone,
}

/// What a worker did in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Runs that ended well, aggregations and revoked tasks included.
    pub succeeded: u64,
    /// Runs that failed.
    pub failed: u64,
    /// Tasks given back or snoozed.
    pub released: u64,
    /// Runs whose lease was lost before their outcome was applied.
    pub lost: u64,
    /// Outcomes that the broker did not take in time; their tasks run again when their leases are over.
    pub unsettled: u64,
}

/// The part of the shutdown timeout that is kept for giving back and flushing.
fn reserve(shutdown: Duration) -> Duration {
    (shutdown / 4).min(Duration::from_secs(4))
}

/// How long the broker has to answer an outcome of a worker that ends: half of the last phase, so that in a silent
/// outage a second round of outcomes still finds its way to the disk.
fn last_patience(shutdown: Duration) -> Duration {
    reserve(shutdown) / 12
}

/// Runs a checked worker to its end.
pub(super) async fn run(worker: Worker, stop: impl Future<Output = ()>) -> Result<Summary> {
    let (shutdown, stop_when) = (worker.shutdown, worker.stop_when);
    let connection = worker.client.connection().clone();
    let (mut stop, mut phase) = (std::pin::pin!(stop), worker.control.watch());
    // On a connection that survives, the broker may be a long time coming.
    let (shared, actors, view) = tokio::select! {
        started = start(worker) => started?,
        () = &mut stop => return Ok(Summary::default()),
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => return Ok(Summary::default()),
    };
    let mut alive = Alive(Some((shared.clone(), actors, view, shutdown)));
    if stop_when != StopWhen::Told {
        tokio::spawn(exit::run(shared.clone(), connection, stop_when));
    }
    tokio::select! {
        () = stop => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
        () = alive.broken() => {}
    }
    match alive.0.take() {
        Some((shared, actors, view, shutdown)) => Ok(end(&shared, actors, view, shutdown).await),
        None => Ok(Summary::default()),
    }
}

/// A worker that has begun and not ended. Dropping it, with the future that ran it, drains the worker in
/// the background: its actors are tasks of their own and would go on for ever.
struct Alive(Option<(Arc<Shared>, Actors, WorkerView, Duration)>);

impl Alive {
    /// Waits until an actor ends that should not: it has panicked, or its broker has.
    async fn broken(&mut self) {
        let Some((_, actors, ..)) = &mut self.0 else { return };
        let who = tokio::select! {
            _ = &mut actors.settler => "settler",
            _ = &mut actors.keeper => "keeper",
        };
        tracing::error!("the worker's {who} has ended by itself: the worker shuts down");
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let Some((shared, actors, view, shutdown)) = self.0.take() else { return };
        shared.control.stop();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { end(&shared, actors, view, shutdown).await });
        }
    }
}

/// The actors that are waited for at the end.
struct Actors {
    claimer: tokio::task::JoinHandle<()>,
    settler: tokio::task::JoinHandle<()>,
    keeper: tokio::task::JoinHandle<()>,
    schedules: AbortOnDropHandle<()>,
    others: Vec<AbortOnDropHandle<()>>,
    settler_stop: CancellationToken,
}

/// Keeps the schedules of a worker until it drains, and then takes them off the list.
fn keep_schedules(worker: &Worker) -> AbortOnDropHandle<()> {
    let (scheduler, mut phase) = (worker.control.scheduler.clone(), worker.control.watch());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let stop = phase.wait_for(|phase| *phase >= Phase::Draining);
        scheduler.run_while(stop).await;
    }))
}

async fn start(mut worker: Worker) -> Result<(Arc<Shared>, Actors, WorkerView)> {
    let view = view(&worker);
    // Ticks of an outage go through the outbox: they do not wait for the first beat.
    let schedules = keep_schedules(&worker);
    let connection = worker.client.connection().clone();
    let token = first_beat(&connection, &view).await?;
    let mut service = RunService::new(Service(Arc::new(std::mem::take(&mut worker.router))));
    for layer in worker.layers.drain(..).rev() {
        service = layer(service);
    }
    let patience = last_patience(worker.shutdown);
    let (shared, inbox) = Shared::new(Parts {
        broker: connection.broker.clone(),
        leaving: connection.survivor.as_ref().map(|survivor| survivor.leaving(patience)),
        survivor: connection.survivor.clone(),
        clock: connection.clock.clone(),
        control: worker.control.clone(),
        token,
        lease: worker.lease,
        queues: worker.queues,
        priority: worker.priority,
        slots: worker.slots,
        service,
        states: Arc::new(worker.states),
        hooks: worker.hooks,
        groups: worker.groups,
    });
    // Before the first lease is written.
    skew::measure(&shared).await;
    let settler_stop = CancellationToken::new();
    let actors = Actors {
        claimer: tokio::spawn(Claimer::new(shared.clone()).run()),
        settler: tokio::spawn(Settler::new(shared.clone(), inbox).run(settler_stop.clone())),
        keeper: tokio::spawn(Keeper::new(shared.clone(), view.clone()).run()),
        schedules,
        others: vec![AbortOnDropHandle::new(tokio::spawn(sweeper::run(shared.clone())))],
        settler_stop,
    };
    Ok((shared, actors, view))
}

fn view(worker: &Worker) -> WorkerView {
    let pid = std::process::id();
    let host = crate::host::name();
    let id = format!("{host}:{pid}:{}", uuid::Uuid::new_v4());
    WorkerView {
        id,
        host,
        pid,
        started_at: worker.client.connection().clock.now(),
        status: WorkerStatus::Running,
        slots: u32::try_from(worker.slots).unwrap_or(u32::MAX),
        queues: worker
            .queues
            .iter()
            .map(|(name, options)| (name.clone(), options.weight))
            .collect(),
        priority: worker.priority.into(),
        active: 0,
        running: Vec::new(),
    }
}

/// The first beat hands out the lease token: without it nothing can be claimed. A connection that survives
/// waits for its broker here.
async fn first_beat(connection: &Connection, view: &WorkerView) -> Result<LeaseToken> {
    let first = WorkerBeat { view: view.clone(), token: None, seen: 0 };
    let beat = Beat { worker: Some(first), ttl: BEAT_TTL, ..Beat::default() };
    let reply = match &connection.survivor {
        Some(survivor) => survivor.sign_on(&beat).await?,
        None => connection.broker.beat(connection.clock.now(), &beat).await?,
    };
    reply.token.ok_or_else(|| {
        let kind = ErrorKind::Broker(Kind::Corrupt);
        Error::new(kind, format!("broker {} handed out no lease token", connection.url()))
    })
}

/// When the last phases are over.
struct Times {
    drained: Instant,
    released: Instant,
    given_back: Instant,
    flushed: Instant,
}

impl Times {
    fn from(begin: Instant, shutdown: Duration) -> Self {
        let flushed = begin + shutdown;
        let reserve = reserve(shutdown);
        Self {
            drained: flushed - reserve,
            released: flushed - reserve / 3,
            given_back: flushed - reserve / 6,
            flushed,
        }
    }
}

/// Goes through the last phases, each within its share of the shutdown timeout.
async fn end(
    shared: &Arc<Shared>,
    mut actors: Actors,
    view: WorkerView,
    shutdown: Duration,
) -> Summary {
    let times = Times::from(Instant::now(), shutdown);
    shared.control.advance(Phase::Draining);
    if timeout_at(times.drained, &mut actors.claimer).await.is_err() {
        actors.claimer.abort();
        // Until it is gone it may still hand out what it has claimed.
        let _ = (&mut actors.claimer).await;
    }
    if timeout_at(times.drained, nothing_runs(shared)).await.is_err() {
        give_back(shared, &times).await;
    }
    shared.control.advance(Phase::Flushing);
    actors.settler_stop.cancel();
    if !actors.settler.is_finished()
        && timeout_at(times.flushed, &mut actors.settler).await.is_err()
    {
        actors.settler.abort();
    }
    let unsettled = shared.held();
    shared.control.advance(Phase::Gone);
    // A beat of the keeper after the last one would bring the worker back to life.
    if !actors.keeper.is_finished() {
        let a_moment = times.flushed.max(Instant::now() + Duration::from_millis(100));
        if timeout_at(a_moment, &mut actors.keeper).await.is_err() {
            actors.keeper.abort();
        }
    }
    last_beat(shared, view, times.flushed).await;
    // They have signed off since the worker began to drain, within a second of their own.
    let a_moment = times.flushed.max(Instant::now() + Duration::from_millis(100));
    let _ = timeout_at(a_moment, &mut actors.schedules).await;
    drop(actors.others);
    summary(shared, unsettled)
}

/// Cancels what still runs, lets it end by itself for a moment, and then takes it away.
async fn give_back(shared: &Shared, times: &Times) {
    shared.control.advance(Phase::Releasing);
    shared.for_each_held(|_, held| {
        if let Some(run) = &held.run {
            run.cancel(CancelReason::Shutdown);
        }
    });
    if timeout_at(times.released, nothing_runs(shared)).await.is_err() {
        shared.control.advance(Phase::GivingBack);
        let _ = timeout_at(times.given_back, nothing_runs(shared)).await;
    }
}

async fn nothing_runs(shared: &Shared) {
    loop {
        let changed = shared.room.notified();
        if shared.unfinished() == 0 {
            return;
        }
        // A look now and then, because the claimer listens to the same notice.
        let _ = tokio::time::timeout(Duration::from_millis(20), changed).await;
    }
}

async fn last_beat(shared: &Shared, mut view: WorkerView, until: Instant) {
    view.status = WorkerStatus::Gone;
    let worker = WorkerBeat { view, token: Some(shared.token), seen: u64::MAX };
    let beat = Beat { worker: Some(worker), ttl: BEAT_TTL, ..Beat::default() };
    let until = until.max(Instant::now() + Duration::from_millis(100));
    match timeout_at(until, shared.broker.beat(shared.clock.now(), &beat)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => shared.failed("sign off", None, &error),
        Err(_) => tracing::warn!("could not sign off in time"),
    }
}

fn summary(shared: &Shared, unsettled: usize) -> Summary {
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let counters = &shared.counters;
    if unsettled > 0 {
        tracing::error!(
            unsettled,
            "the broker did not take these outcomes in time; their tasks run again"
        );
    }
    Summary {
        succeeded: read(&counters.succeeded),
        failed: read(&counters.failed),
        released: read(&counters.released),
        lost: read(&counters.lost),
        unsettled: unsettled as u64,
    }
}
