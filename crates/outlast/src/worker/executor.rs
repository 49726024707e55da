//! Runs one handler, with its deadline, its cancellation and its panics, and says what becomes of the
//! task.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use outlast_core::broker::{ClaimedGroup, Hold};
use outlast_core::{Attempt, Lease, Outcome, Settlement, limits};
use tower::ServiceExt;

use super::life::Phase;
use super::options::GroupBatch;
use super::shared::{Finished, Room, Shared};
use crate::handler::{CancelReason, Failure, Reply, Run, TaskInfo, Then, lock};

/// How long a handler that listens to [`Cancel`](crate::Cancel) may take to end by itself.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// How long a task waits here for a slot before it is given back: it was claimed ahead because runs were
/// short, and then one was not.
const SLOT_PATIENCE: Duration = Duration::from_millis(500);

/// How long what a handler has written may hold up the outcome of its run.
const WRITTEN_PATIENCE: Duration = Duration::from_secs(1);

/// How long one aggregation may take (asynq's, contract §3.0).
const AGGREGATE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long the members of a group are held after their aggregation failed.
const AGGREGATE_PAUSE: Duration = Duration::from_secs(5);

/// Runs a claimed task to its settlement, whatever its handler does.
pub(super) async fn run_task(shared: Arc<Shared>, key: u64, run: Run, room: Room) {
    let whole = AssertUnwindSafe(run_to_outcome(&shared, &run, room)).catch_unwind().await;
    // Not the handler itself, which is caught below: an error's Display, or a destructor.
    let outcome = whole.unwrap_or_else(|panic| Some(panicked(&shared, &run, panic_text(&*panic))));
    let Some(outcome) = outcome.filter(|_| !run.is_superseded()) else {
        shared.counters.lost.fetch_add(1, Ordering::Relaxed);
        return shared.drop_held(key);
    };
    let task = run.task();
    let lease = Lease { id: task.id.clone(), token: shared.token, until: run.deadline() };
    let queue = shared.queues.iter().position(|queue| queue.name == task.queue).unwrap_or(0);
    // A success carries it; a revoked task is gone.
    if !matches!(outcome, Outcome::Done { .. } | Outcome::Revoke) {
        store_written(&shared, &run, queue, &lease).await;
    }
    hand_over(&shared, Finished { key, queue, settlement: Settlement { lease, outcome } }).await;
}

/// Stores what the handler wrote and the keeper has not stored yet: after the outcome it could not be. A broker that does not
/// take it soon holds up no outcome.
async fn store_written(shared: &Shared, run: &Run, queue: usize, lease: &Lease) {
    let Some(result) = run.inner.written.take_unstored() else { return };
    let (queue, now) = (&shared.queues[queue], shared.clock.now());
    let holds = [Hold { lease: lease.clone(), result: Some(result) }].into();
    let by = shared.lease + queue.skew.behind();
    let stored = shared.broker.extend(&queue.name, now, holds, by);
    let mut phase = shared.phase();
    tokio::select! {
        biased;
        _ = phase.wait_for(|phase| *phase >= Phase::GivingBack) => {}
        stored = tokio::time::timeout(WRITTEN_PATIENCE, stored) => {
            if let Ok(Err(error)) = stored {
                shared.failed("store what a handler wrote", Some(&queue.name), &error);
            }
        }
    }
}

/// What becomes of a task whose failure could not even be read.
fn panicked(shared: &Shared, run: &Run, text: &str) -> Outcome {
    let (task, error) = (run.task(), format!("panic: {text}"));
    if task.retried >= task.max_retry {
        return Outcome::Archive { error };
    }
    let delay = outlast_core::Backoff::Asynq.delay(task.retried, rand::random());
    Outcome::Retry { at: shared.clock.now().plus(delay), error, attempt: Attempt::Spent }
}

/// Waits for a slot, runs the handler in it, and says what becomes of the task.
async fn run_to_outcome(shared: &Arc<Shared>, run: &Run, room: Room) -> Option<Outcome> {
    let mut phase = shared.phase();
    let permit = tokio::select! {
        biased;
        // Claimed ahead of a slot and never started: others can have it at once.
        _ = phase.wait_for(|phase| *phase >= Phase::Draining) => None,
        () = run.inner.cancel.cancelled() => None,
        permit = shared.permits.clone().acquire_owned() => permit.ok(),
        () = tokio::time::sleep(SLOT_PATIENCE) => {
            shared.crowded(SLOT_PATIENCE);
            None
        }
    };
    let Some(permit) = permit else { return unstarted(shared, run) };
    *lock(&run.inner.slot) = Some(Arc::new(room.with(permit)));
    run.begin(shared.clock.now());
    let begin = tokio::time::Instant::now();
    let reply = reply(shared, run).await;
    lock(&run.inner.slot).take();
    shared.took(begin.elapsed());
    outcome(shared, run, reply)
}

/// What becomes of a task that was claimed and not started.
fn unstarted(shared: &Shared, run: &Run) -> Option<Outcome> {
    match run.cancel_reason() {
        Some(CancelReason::LeaseLost) => None,
        Some(reason @ CancelReason::Remote) => {
            outcome(shared, run, Reply::Failed(Failure::retry(reason.text())))
        }
        Some(CancelReason::Deadline | CancelReason::Shutdown) | None => Some(Outcome::Release),
    }
}

/// Gives an outcome to the settler, and only then says that the run has ended: the settler closes its
/// inbox when nothing runs any more, and what came later would be lost.
async fn hand_over(shared: &Shared, finished: Finished) {
    let key = finished.key;
    // The channel holds more than the books do, so there is always room.
    if shared.finished.send(finished).await.is_err() {
        tracing::error!("an outcome came after the worker was flushed; its task runs again");
    }
    shared.ended(key);
}

/// Calls the handler and waits for its reply, its deadline or its cancellation.
async fn reply(shared: &Shared, run: &Run) -> Reply {
    let now = shared.clock.now();
    if run.deadline() <= now {
        run.cancel(CancelReason::Deadline);
        return Reply::Failed(Failure::retry(CancelReason::Deadline.text()));
    }
    let call = AssertUnwindSafe(shared.service.clone().oneshot(run.clone())).catch_unwind();
    let mut call = std::pin::pin!(async move {
        match call.await {
            Ok(Ok(reply)) => reply,
            Ok(Err(never)) => match never {},
            Err(panic) => Reply::Failed(Failure::retry(format!("panic: {}", panic_text(&*panic)))),
        }
    });
    tokio::select! {
        reply = &mut call => return ended(run, reply),
        () = run.inner.cancel.cancelled() => {}
        () = tokio::time::sleep(run.deadline().since(now)) => run.cancel(CancelReason::Deadline),
    }
    let late = match run.listens() {
        true => grace(shared, call).await,
        // One more look, or a success that became ready together with the cancellation would be run
        // again.
        false => call.now_or_never(),
    };
    cancelled(run, late)
}

/// Lets a cancelled handler end by itself, but not beyond the point where its outcome could no longer be
/// reported.
async fn grace(shared: &Shared, call: impl Future<Output = Reply>) -> Option<Reply> {
    let mut phase = shared.phase();
    tokio::select! {
        reply = call => Some(reply),
        () = tokio::time::sleep(CANCEL_GRACE) => None,
        _ = phase.wait_for(|phase| *phase >= Phase::GivingBack) => None,
    }
}

/// A handler that listens may answer a cancellation before the worker has looked.
fn ended(run: &Run, reply: Reply) -> Reply {
    match run.cancel_reason() {
        None => reply,
        Some(_) => cancelled(run, Some(reply)),
    }
}

/// The reply of a run that was cancelled: a success that came all the same counts, and so does a way
/// out that the handler named; anything else is the cancellation.
fn cancelled(run: &Run, late: Option<Reply>) -> Reply {
    let reason = run.cancel_reason().unwrap_or(CancelReason::Remote);
    match late {
        Some(Reply::Done(result)) => Reply::Done(result),
        Some(Reply::Failed(failure)) if failure.then != Then::Retry => Reply::Failed(failure),
        _ if reason == CancelReason::Shutdown => Reply::Failed(Failure::release()),
        Some(Reply::Failed(failure)) => {
            Reply::Failed(Failure::retry(format!("{}: {failure}", reason.text())))
        }
        _ => Reply::Failed(Failure::retry(reason.text())),
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&'static str>().copied()).unwrap_or("(no message)")
}

/// What becomes of the task. `None`: nothing is reported, because the lease is lost.
fn outcome(shared: &Shared, run: &Run, reply: Reply) -> Option<Outcome> {
    let failure = match reply {
        // Reported even if the lease is lost: it may be adopted.
        Reply::Done(result) => {
            let result = result.or_else(|| run.inner.written.latest());
            return Some(done(result));
        }
        Reply::Failed(failure) => failure,
    };
    if run.cancel_reason() == Some(CancelReason::LeaseLost) {
        return None;
    }
    let info = TaskInfo::of(run);
    if !matches!(failure.then, Then::Snooze(_) | Then::Revoke | Then::Release) {
        hear(shared, &info, &failure);
    }
    Some(failed(shared, run, &info, &failure))
}

/// A result that is too large fails the run for good: it would be too large again.
fn done(result: Option<bytes::Bytes>) -> Outcome {
    match result {
        Some(bytes) if bytes.len() > limits::RESULT_BYTES_MAX => Outcome::Archive {
            error: format!(
                "result of {} bytes is too large: at most {} are kept",
                bytes.len(),
                limits::RESULT_BYTES_MAX
            ),
        },
        result => Outcome::Done { result },
    }
}

fn failed(shared: &Shared, run: &Run, info: &TaskInfo, failure: &Failure) -> Outcome {
    let now = shared.clock.now();
    let at = match failure.then {
        Then::Snooze(delay) => return Outcome::Snooze { until: now.plus(delay) },
        Then::Revoke => return Outcome::Revoke,
        Then::Release => return Outcome::Release,
        Then::Archive => return Outcome::Archive { error: error_text(failure) },
        _ if run.task().retried >= run.task().max_retry => {
            return Outcome::Archive { error: error_text(failure) };
        }
        Then::RetryAt(at) => at,
        Then::RetryIn(delay) => now.plus(delay),
        Then::Retry => now.plus(delay(shared, run, info, failure)),
    };
    let attempt = match guard("is_failure", || (shared.hooks.counts)(failure)) {
        Some(false) => Attempt::Kept,
        Some(true) | None => Attempt::Spent,
    };
    Outcome::Retry { at, error: error_text(failure), attempt }
}

fn delay(shared: &Shared, run: &Run, info: &TaskInfo, failure: &Failure) -> Duration {
    let retried = run.task().retried;
    guard("retry_with", || (shared.hooks.delay)(retried, failure, info))
        .unwrap_or_else(|| outlast_core::Backoff::Asynq.delay(retried, 0.5))
}

fn hear(shared: &Shared, info: &TaskInfo, failure: &Failure) {
    if let Some(hear) = &shared.hooks.hear {
        guard("on_error", || hear(info, failure));
    }
}

/// A user's function that panics must not take the worker with it.
fn guard<T>(name: &'static str, call: impl FnOnce() -> T) -> Option<T> {
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(call));
    outcome
        .inspect_err(|panic| tracing::error!(panic = panic_text(&**panic), "{name} panicked"))
        .ok()
}

/// An error text that every store accepts: without NUL, not longer than the limit.
fn error_text(failure: &Failure) -> String {
    let text = failure.text().replace('\0', "\u{fffd}");
    limits::beginning(&text, limits::ERROR_BYTES_MAX).to_owned()
}

/// Aggregates a claimed group to its settlement.
pub(super) async fn run_group(shared: Arc<Shared>, key: u64, room: Room, group: ClaimedGroup) {
    let ClaimedGroup { group: name, tasks, lease } = group;
    let queue = room.queue();
    let batch = GroupBatch { group: name.clone(), queue: shared.queues[queue].name.clone(), tasks };
    let made = aggregate(&shared, queue, batch).await;
    // Tasks may have the room while a failed aggregation pauses.
    drop(room);
    let outcome = match made {
        Ok(into) => Outcome::Aggregated { into: Box::new(into) },
        Err(failure) => {
            let queue = &shared.queues[queue].name;
            tracing::warn!(%queue, group = %name, error = %failure, "could not aggregate");
            // Held a while, or a function that always fails would be called without a pause.
            let mut phase = shared.phase();
            let stopping = phase.wait_for(|phase| *phase >= Phase::Draining);
            let _ = tokio::time::timeout(AGGREGATE_PAUSE, stopping).await;
            Outcome::Release
        }
    };
    hand_over(&shared, Finished { key, queue, settlement: Settlement { lease, outcome } }).await;
}

/// Calls the user's function, which may panic, hang or be overtaken by the worker's end.
async fn aggregate(
    shared: &Shared,
    queue: usize,
    batch: GroupBatch,
) -> Result<outlast_core::NewTask, Failure> {
    let name = &shared.queues[queue].name;
    let own =
        shared.groups.iter().find(|own| own.queue == *name && own.policy.matches(&batch.group));
    let group = own.ok_or_else(|| Failure::retry("no policy matches the group"))?;
    let call = AssertUnwindSafe(async { (group.aggregate)(batch).await }).catch_unwind();
    let mut phase = shared.phase();
    let made = tokio::select! {
        made = call => made,
        () = tokio::time::sleep(AGGREGATE_TIMEOUT) => {
            return Err(Failure::retry("the aggregation took longer than two minutes"));
        }
        _ = phase.wait_for(|phase| *phase >= Phase::Releasing) => {
            return Err(Failure::retry(CancelReason::Shutdown.text()));
        }
    };
    let request = match made {
        Ok(request) => request?,
        Err(panic) => return Err(Failure::retry(format!("panic: {}", panic_text(&*panic)))),
    };
    let (_, task) = request.resolve(shared.clock.now(), limits::PAYLOAD_BYTES_MAX)?;
    Ok(task)
}
