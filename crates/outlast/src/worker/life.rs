//! The life of a worker, in order. Each phase ends before the next begins, and each has a bound:
//!
//! ```text
//!   Running     claims and runs
//!   Quiet       claims nothing more; what runs goes on, for as long as it likes
//!   Draining    as Quiet, but only for the larger part of the shutdown timeout; tasks that were claimed
//!               ahead of a slot are given back at once
//!   Releasing   what still runs is cancelled and given back
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

use super::claimer::Claimer;
use super::keeper::{BEAT_TTL, Keeper};
use super::options::StopWhen;
use super::settler::Settler;
use super::shared::{Parts, Shared};
use super::{Worker, exit, sweeper};
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

/// Runs a checked worker to its end.
pub(super) async fn run(worker: Worker, stop: impl Future<Output = ()>) -> Result<Summary> {
    let (shutdown, stop_when) = (worker.shutdown, worker.stop_when);
    let inspect = worker.client.connection().inspect.clone();
    let (shared, actors, view) = start(worker).await?;
    if stop_when != StopWhen::Told {
        tokio::spawn(exit::run(shared.clone(), inspect, stop_when));
    }
    let mut phase = shared.phase();
    tokio::select! {
        () = stop => {}
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => {}
    }
    Ok(end(&shared, actors, view, shutdown).await)
}

/// The actors that are waited for at the end.
struct Actors {
    claimer: tokio::task::JoinHandle<()>,
    settler: tokio::task::JoinHandle<()>,
    keeper: tokio::task::JoinHandle<()>,
    others: Vec<tokio::task::JoinHandle<()>>,
    settler_stop: CancellationToken,
}

async fn start(mut worker: Worker) -> Result<(Arc<Shared>, Actors, WorkerView)> {
    let view = view(&worker);
    let connection = worker.client.connection().clone();
    let token = first_beat(&connection, &view).await?;
    let mut service = RunService::new(Service(Arc::new(std::mem::take(&mut worker.router))));
    for layer in worker.layers.drain(..).rev() {
        service = layer(service);
    }
    let (shared, inbox) = Shared::new(Parts {
        broker: connection.broker.clone(),
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
    for schedule in worker.schedules {
        worker.control.scheduler.add(schedule)?;
    }
    let settler_stop = CancellationToken::new();
    let scheduler = worker.control.scheduler.clone();
    let mut draining = shared.phase();
    let schedules = async move {
        let stop = draining.wait_for(|phase| *phase >= Phase::Draining);
        scheduler.run_while(stop).await;
    };
    let actors = Actors {
        claimer: tokio::spawn(Claimer::new(shared.clone()).run()),
        settler: tokio::spawn(Settler::new(shared.clone(), inbox).run(settler_stop.clone())),
        keeper: tokio::spawn(Keeper::new(shared.clone(), view.clone()).run()),
        others: vec![tokio::spawn(sweeper::run(shared.clone())), tokio::spawn(schedules)],
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

/// The first beat hands out the lease token: without it nothing can be claimed.
async fn first_beat(connection: &Connection, view: &WorkerView) -> Result<LeaseToken> {
    let first = WorkerBeat { view: view.clone(), token: None, seen: 0 };
    let beat = Beat { worker: Some(first), ttl: BEAT_TTL, ..Beat::default() };
    let reply = connection.broker.beat(connection.clock.now(), &beat).await?;
    reply.token.ok_or_else(|| {
        let kind = ErrorKind::Broker(Kind::Corrupt);
        Error::new(kind, format!("broker {} handed out no lease token", connection.url()))
    })
}

/// Goes through the last phases, each within its share of the shutdown timeout.
async fn end(
    shared: &Arc<Shared>,
    actors: Actors,
    view: WorkerView,
    shutdown: Duration,
) -> Summary {
    let begin = Instant::now();
    let (drained, released, flushed) = {
        let reserve = reserve(shutdown);
        (begin + shutdown - reserve, begin + shutdown - reserve / 3, begin + shutdown)
    };
    shared.control.advance(Phase::Draining);
    let claimer = actors.claimer.abort_handle();
    if timeout_at(drained, actors.claimer).await.is_err() {
        claimer.abort();
    }
    if timeout_at(drained, nothing_runs(shared)).await.is_err() {
        shared.control.advance(Phase::Releasing);
        shared.for_each_held(|_, held| {
            if let Some(run) = &held.run {
                run.cancel(CancelReason::Shutdown);
            }
        });
        let _ = timeout_at(released, nothing_runs(shared)).await;
    }
    shared.control.advance(Phase::Flushing);
    actors.settler_stop.cancel();
    let settler = actors.settler.abort_handle();
    if timeout_at(flushed, actors.settler).await.is_err() {
        settler.abort();
    }
    let unsettled = shared.held();
    shared.control.advance(Phase::Gone);
    last_beat(shared, view, flushed).await;
    actors.keeper.abort();
    for actor in actors.others {
        actor.abort();
    }
    summary(shared, unsettled)
}

async fn nothing_runs(shared: &Shared) {
    loop {
        let changed = shared.room.notified();
        if shared.busy() == 0 {
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
        Ok(Err(error)) => tracing::warn!(kind = %error.kind(), %error, "could not sign off"),
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
