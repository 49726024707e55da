//! What is under way for a client, and the call of a task that meets no other: it is made in its caller's own task.
//!
//! By the batching task such a call would pass five times from one task of the runtime to the next. After three times in a row
//! the runtime wakes another thread to help, which costs more than all the rest of the client's work
//! (`docs/adr/0023-a-lone-task-is-sent-by-its-caller.md`).

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use outlast_core::broker::{EnqueueVerdict, Enqueued};
use outlast_core::{BrokerError, Kind, NewTask, QueueName, Stamp};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::batcher::{Answer, LANES, Line};
use crate::Connection;
use crate::lanes::Lanes;

/// The lanes of a client, from which batches and lone tasks leave. Clones are the same lanes.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    connection: Connection,
    runtime: Handle,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    lanes: Mutex<Lanes>,
    /// A lone task has come back: its lane is free for what waits.
    landed: Notify,
    /// The latest batch that came back was of several callers: they will all be here again soon.
    is_crowded: AtomicBool,
}

impl Calls {
    pub(super) fn new(connection: Connection) -> Self {
        let shared = Shared {
            lanes: Mutex::new(Lanes::new(LANES)),
            landed: Notify::new(),
            is_crowded: AtomicBool::new(false),
        };
        Self { connection, runtime: Handle::current(), shared: Arc::new(shared) }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.shared.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether several callers are at work: then they travel together.
    pub(super) fn is_crowded(&self) -> bool {
        self.shared.is_crowded.load(Ordering::Relaxed)
    }

    pub(super) fn set_crowded(&self, is_crowded: bool) {
        self.shared.is_crowded.store(is_crowded, Ordering::Relaxed);
    }

    /// Waits until a lone task has come back. Safe to drop.
    pub(super) async fn landed(&self) {
        self.shared.landed.notified().await;
    }

    /// A stamp if nothing of this line's queue is under way, and nobody else is expected. The broker is only called from the client's own runtime, which
    /// its connections belong to.
    pub(super) fn alone(&self, (queue, _): &Line) -> Option<Stamp> {
        if self.is_crowded() {
            return None;
        }
        let is_at_home = Handle::try_current().is_ok_and(|here| here.id() == self.runtime.id());
        let mut lanes = self.lanes();
        if is_at_home && lanes.is_idle(queue) { lanes.stamp(queue) } else { None }
    }

    /// The call for one task. Its lane is free again when it has been answered.
    pub(super) fn call(&self, line: &Line, stamp: Stamp, task: NewTask) -> LoneCall {
        let (queue, on_outage) = line.clone();
        let flight = Flight { calls: self.clone(), queue, stamp, has_landed: false };
        let call = async move {
            let (connection, queue) = (&flight.calls.connection, &flight.queue);
            let result = connection.enqueue(on_outage, (queue, stamp), Arc::new([task])).await;
            flight.landed(&result);
            result.map(|enqueued| enqueued.verdicts)
        };
        LoneCall { call: Some(Box::pin(call)), runtime: self.runtime.clone() }
    }
}

/// The lane that a call has taken. A call that ends without an answer, because something below it panicked or its runtime has
/// ended, gives it back as one whose fate is open: else its queue would have one lane less for ever.
struct Flight {
    calls: Calls,
    queue: QueueName,
    stamp: Stamp,
    has_landed: bool,
}

impl Flight {
    fn landed(mut self, result: &Result<Enqueued, BrokerError>) {
        self.has_landed = true;
        self.give_back(result);
    }

    fn give_back(&self, result: &Result<Enqueued, BrokerError>) {
        landed(&mut self.calls.lanes(), &self.queue, &self.stamp, result);
        self.calls.shared.landed.notify_one();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.has_landed {
            self.give_back(&Err(BrokerError::new(Kind::Ambiguous, "the call was given up")));
        }
    }
}

/// A call that is on its way. Dropped, it goes on in a task of the client's runtime: a caller that goes away leaves no batch
/// behind whose fate nobody knows, because such a batch costs a session.
pub(super) struct LoneCall {
    call: Option<BoxFuture<'static, Answer>>,
    runtime: Handle,
}

impl LoneCall {
    pub(super) async fn answer(mut self) -> Answer {
        let Some(call) = &mut self.call else { return Ok(Vec::new()) };
        let answer = call.await;
        self.call = None;
        answer
    }
}

impl Drop for LoneCall {
    fn drop(&mut self) {
        // One that has panicked must not be asked again; its `Flight` has given its lane back.
        if let Some(call) = self.call.take()
            && !std::thread::panicking()
        {
            self.runtime.spawn(call);
        }
    }
}

/// Takes note of what became of a batch.
pub(super) fn landed(
    lanes: &mut Lanes,
    queue: &QueueName,
    stamp: &Stamp,
    result: &Result<Enqueued, BrokerError>,
) {
    match result {
        Ok(enqueued) if enqueued.verdicts.contains(&EnqueueVerdict::Stored) => {
            lanes.left_open(queue);
        }
        result => lanes.back(queue, stamp, result.as_ref().err()),
    }
    if let Ok(Enqueued { lost: Some(lost), .. }) = result {
        tracing::error!(%queue, after = lost.after_seq, "the broker has forgotten acknowledged batches");
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use outlast_core::{TaskId, TaskType};
    use outlast_survive::OnOutage;
    use outlast_testkit::fault::{Fault, FaultBroker, Verb};
    use outlast_testkit::model::ModelBroker;

    use super::*;

    fn line() -> Line {
        (QueueName::stored("q"), OnOutage::Store)
    }

    fn calls() -> (Arc<FaultBroker>, Calls) {
        let model = Arc::new(ModelBroker::new(1000));
        let faults = Arc::new(FaultBroker::new(model.clone()));
        (faults.clone(), Calls::new(Connection::of_halves("model:", faults, model)))
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_its_lane_as_after_an_answer() {
        let (faults, calls) = calls();
        faults.script(Verb::Enqueue, [Some(Fault::Hang)]);
        let stamp = calls.alone(&line()).expect("nothing is under way");
        let task = NewTask::new(TaskId::stored("1"), TaskType::stored("t"), "".into());
        let mut answer = Box::pin(calls.call(&line(), stamp, task).answer());
        assert!(poll!(&mut answer).is_pending());
        drop(answer);
        assert!(calls.alone(&line()).is_none(), "it goes on without its caller");
        faults.release();
        calls.landed().await;
        let next = calls.alone(&line()).expect("nothing is under way again");
        assert_eq!((next.session, next.seq), (stamp.session, stamp.seq + 1));
    }

    /// It was started once more, which panicked again, and its lane never came back.
    #[tokio::test]
    async fn a_call_that_panics_gives_its_lane_back() {
        let (_, calls) = calls();
        let stamp = calls.alone(&line()).expect("nothing is under way");
        let flight = Flight { calls: calls.clone(), queue: line().0, stamp, has_landed: false };
        let call = async move {
            // All of it, as a call has it: one field alone would be a copy.
            let flight = flight;
            assert!(flight.has_landed, "something below the call is broken");
            Ok(Vec::new())
        };
        let call = LoneCall { call: Some(Box::pin(call)), runtime: Handle::current() };
        assert!(tokio::spawn(call.answer()).await.is_err_and(|error| error.is_panic()));
        let next = calls.alone(&line()).expect("nothing is under way again");
        assert_ne!(next.session, stamp.session, "nobody knows what became of the batch");
    }

    #[tokio::test]
    async fn outside_the_clients_runtime_no_caller_calls_the_broker_itself() {
        let (_, calls) = calls();
        let elsewhere = calls.clone();
        let stamp = std::thread::spawn(move || elsewhere.alone(&line())).join();
        assert_eq!(stamp.expect("no panic"), None);
        assert!(calls.alone(&line()).is_some());
    }
}
