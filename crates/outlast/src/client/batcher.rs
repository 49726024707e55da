//! Concurrent enqueues become batches: one broker call carries what many callers handed over.
//!
//! Nothing waits for a clock to fill a batch. A task that meets no other leaves at once, in its caller's own task
//! (`alone.rs`); what arrives while the lanes of its queue are under way leaves together when one comes back. So a lone caller
//! gets the latency of one call, and sixty-four callers get the throughput of large batches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use outlast_core::broker::{EnqueueVerdict, Enqueued};
use outlast_core::{BrokerError, Kind, NewTask, QueueName, Stamp, limits};
use outlast_survive::OnOutage;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::alone::{Calls, landed};
use crate::Connection;
use crate::error::{Error, Result};

/// Jobs that may wait to be taken; further callers wait for a place.
const JOBS_WAITING_MAX: usize = 1024;

/// Tasks and payload bytes that may wait for a lane. When either is reached, jobs stay where they are and
/// their callers wait; the job that reaches it is taken whole, so that one may go beyond.
const TASKS_WAITING_MAX: usize = 16 * limits::BATCH_TASKS_MAX;
/// See [`TASKS_WAITING_MAX`].
const BYTES_WAITING_MAX: usize = 16 * limits::BATCH_BYTES_MAX;

/// Batches under way per queue. One leaves the broker idle while an answer travels; beyond four nothing
/// was gained (measured on SQLite with 64 callers: 36,000 tasks a second with one lane, 41,000 with four,
/// 43,000 with eight).
pub(super) const LANES: u16 = 4;

/// How much longer than was said a caller waits for the answer of a call that ends in that moment.
const ANSWER_MARGIN: Duration = Duration::from_millis(100);

/// How often it is looked, where there is no room, whether callers have given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) type Answer = std::result::Result<Vec<EnqueueVerdict>, BrokerError>;

/// What travels together: tasks of one queue whose callers want the same in an outage.
pub(super) type Line = (QueueName, OnOutage);

/// Tasks of one queue that one caller handed over, and where to answer. At most one batch of them.
#[derive(Debug)]
pub(super) struct Job {
    line: Line,
    tasks: Vec<NewTask>,
    /// Of all payloads together.
    bytes: usize,
    answer: oneshot::Sender<Answer>,
    fate: Arc<AtomicU8>,
}

/// What has become of a job: it waits, it leaves, or its caller has given it up. Whoever is first decides.
const WAITS: u8 = 0;
/// See [`WAITS`].
const LEAVES: u8 = 1;
/// See [`WAITS`].
const GIVEN_UP: u8 = 2;

fn decide(fate: &AtomicU8, what: u8) -> bool {
    fate.compare_exchange(WAITS, what, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

impl Job {
    pub(super) fn new(line: Line, tasks: Vec<NewTask>) -> (Self, Pending) {
        let (answer, receiver) = oneshot::channel();
        let bytes = tasks.iter().map(|task| task.payload.len()).sum();
        let (fate, begun) = (Arc::new(AtomicU8::new(WAITS)), Instant::now());
        let (wait, fate_seen) = (wait_of(&line), fate.clone());
        let pending = Pending { wait, begun, receiver, fate: fate_seen };
        (Self { line, tasks, bytes, answer, fate }, pending)
    }

    /// True for one whose caller has waited long enough: it never leaves.
    fn is_given_up(&self) -> bool {
        matches!(self.line.1, OnOutage::Wait(_)) && self.answer.is_closed()
    }
}

/// The answer to a job, to come.
#[derive(Debug)]
pub(super) struct Pending {
    /// How long its caller waits for the broker, if it does.
    wait: Option<(QueueName, Duration)>,
    begun: Instant,
    receiver: oneshot::Receiver<Answer>,
    fate: Arc<AtomicU8>,
}

impl Pending {
    /// Whoever waits for the broker waits no longer than was said, also where others wait before.
    pub(super) async fn get(mut self) -> Result<Answer> {
        let Some((queue, at_most)) = self.wait else {
            return self.receiver.await.map_err(|_| gone());
        };
        // The call itself knows better what has become of it, and answers at the same moment.
        let left = patience(at_most).saturating_sub(self.begun.elapsed());
        if let Ok(answer) = tokio::time::timeout(left, &mut self.receiver).await {
            return answer.map_err(|_| gone());
        }
        let has_stayed = decide(&self.fate, GIVEN_UP);
        let kind = if has_stayed { Kind::Unavailable } else { Kind::Ambiguous };
        Ok(Err(in_vain(kind, &queue, at_most)))
    }
}

/// The queue of a line whose callers wait for the broker, and how long they do.
fn wait_of((queue, on_outage): &Line) -> Option<(QueueName, Duration)> {
    match on_outage {
        OnOutage::Wait(at_most) => Some((queue.clone(), *at_most)),
        _ => None,
    }
}

/// How long a caller waits for its answer that waits so long for the broker.
fn patience(at_most: Duration) -> Duration {
    at_most.saturating_add(ANSWER_MARGIN)
}

fn in_vain(kind: Kind, queue: &QueueName, at_most: Duration) -> BrokerError {
    let waited = outlast_core::duration::format(at_most);
    let what = format!("queue {queue}: waited {waited} behind others for the broker, in vain");
    BrokerError::new(kind, what)
}

/// The callers' half.
#[derive(Debug)]
pub(super) struct Batcher {
    jobs: mpsc::Sender<Job>,
    calls: Calls,
}

impl Batcher {
    /// Starts the batching task; it ends when the last client is dropped and all is answered.
    pub(super) fn new(connection: Connection) -> Self {
        let (jobs, inbox) = mpsc::channel(JOBS_WAITING_MAX);
        let calls = Calls::new(connection);
        tokio::spawn(Loop::new(calls.clone(), inbox).run());
        Self { jobs, calls }
    }

    /// Enqueues one task: at once if nothing of its queue is under way, else with others.
    pub(super) async fn enqueue(&self, line: &Line, task: NewTask) -> Result<EnqueueVerdict> {
        let verdicts = match self.calls.alone(line) {
            Some(stamp) => self.calls.call(line, stamp, task).answer().await,
            None => {
                let (job, answer) = Job::new(line.clone(), vec![task]);
                self.submit(job).await??;
                answer.get().await?
            }
        };
        verdicts?.into_iter().next().ok_or_else(gone)
    }

    /// Hands a job over; the broker's error if there was no room for it as long as its caller waits.
    pub(super) async fn submit(&self, job: Job) -> Result<std::result::Result<(), BrokerError>> {
        let gone = |_| Error::stopped("the client's runtime has been shut down");
        let Some((queue, at_most)) = wait_of(&job.line) else {
            return self.jobs.send(job).await.map(Ok).map_err(gone);
        };
        match tokio::time::timeout(patience(at_most), self.jobs.send(job)).await {
            Ok(handed) => handed.map(Ok).map_err(gone),
            Err(_) => Ok(Err(in_vain(Kind::Unavailable, &queue, at_most))),
        }
    }
}

/// A batch that came back.
struct Back {
    queue: QueueName,
    stamp: Stamp,
    result: std::result::Result<Enqueued, BrokerError>,
    /// How many tasks each caller had in it, in order.
    callers: Vec<(usize, oneshot::Sender<Answer>)>,
}

struct Loop {
    calls: Calls,
    inbox: mpsc::Receiver<Job>,
    waiting: HashMap<Line, VecDeque<Job>>,
    tasks_waiting: usize,
    bytes_waiting: usize,
    under_way: FuturesUnordered<BoxFuture<'static, Back>>,
}

impl Loop {
    fn new(calls: Calls, inbox: mpsc::Receiver<Job>) -> Self {
        Self {
            calls,
            inbox,
            waiting: HashMap::new(),
            tasks_waiting: 0,
            bytes_waiting: 0,
            under_way: FuturesUnordered::new(),
        }
    }

    async fn run(mut self) {
        let mut open = true;
        while open || !self.under_way.is_empty() || !self.waiting.is_empty() {
            if !self.has_room() {
                self.let_go();
            }
            let room = open && self.has_room();
            tokio::select! {
                biased;
                Some(back) = self.under_way.next() => self.answer(back),
                job = self.inbox.recv(), if room => match job {
                    Some(job) => self.take(job),
                    None => open = false,
                },
                () = self.calls.landed(), if !self.waiting.is_empty() => {}
                () = tokio::time::sleep(LOOK_EVERY), if open && !room => {}
            }
            if self.calls.is_crowded() {
                // Callers who were answered together are ready to run together: they hand over what they have first.
                tokio::task::yield_now().await;
            }
            self.take_ready();
            self.send_ready();
        }
    }

    /// Makes room by what nobody waits for any more.
    fn let_go(&mut self) {
        for jobs in self.waiting.values_mut() {
            jobs.retain(|job| {
                let stays = !job.is_given_up();
                if !stays {
                    self.tasks_waiting -= job.tasks.len();
                    self.bytes_waiting -= job.bytes;
                }
                stays
            });
        }
        self.waiting.retain(|_, jobs| !jobs.is_empty());
    }

    fn has_room(&self) -> bool {
        self.tasks_waiting < TASKS_WAITING_MAX && self.bytes_waiting < BYTES_WAITING_MAX
    }

    /// Takes whatever else is ready and has room, so that it travels together.
    fn take_ready(&mut self) {
        while self.has_room()
            && let Ok(job) = self.inbox.try_recv()
        {
            self.take(job);
        }
    }

    fn take(&mut self, job: Job) {
        self.tasks_waiting += job.tasks.len();
        self.bytes_waiting += job.bytes;
        self.waiting.entry(job.line.clone()).or_default().push_back(job);
    }

    fn send_ready(&mut self) {
        let lines: Vec<Line> = self.waiting.keys().cloned().collect();
        for line in lines {
            while self.waiting.get(&line).is_some_and(|jobs| !jobs.is_empty()) {
                let Some(stamp) = self.calls.lanes().stamp(&line.0) else { break };
                self.send(&line, stamp);
            }
        }
        // Queue names may be many and short-lived; an empty entry would stay forever.
        self.waiting.retain(|_, jobs| !jobs.is_empty());
    }

    fn send(&mut self, line: &Line, stamp: Stamp) {
        let Some(jobs) = self.waiting.get_mut(line) else { return };
        let Batch { tasks, taken_tasks, taken_bytes, callers, .. } = fill(jobs);
        self.tasks_waiting -= taken_tasks;
        self.bytes_waiting -= taken_bytes;
        if tasks.is_empty() {
            self.calls.lanes().empty(&line.0, &stamp);
            return;
        }
        let (connection, (queue, on_outage)) = (self.calls.connection().clone(), line.clone());
        self.under_way.push(Box::pin(async move {
            let result = connection.enqueue(on_outage, (&queue, stamp), tasks.into()).await;
            Back { queue, stamp, result, callers }
        }));
    }

    fn answer(&mut self, back: Back) {
        landed(&mut self.calls.lanes(), &back.queue, &back.stamp, &back.result);
        self.calls.set_crowded(back.callers.len() > 1);
        // A caller that has gone away does not want its answer.
        match back.result {
            Ok(enqueued) => {
                let mut verdicts = enqueued.verdicts.into_iter();
                for (count, answer) in back.callers {
                    let _ = answer.send(Ok(verdicts.by_ref().take(count).collect()));
                }
            }
            Err(error) => {
                for (_, answer) in back.callers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }
}

/// What travels in one call.
#[derive(Default)]
struct Batch {
    tasks: Vec<NewTask>,
    bytes: usize,
    /// What has left the line, with those whose callers have gone.
    taken_tasks: usize,
    taken_bytes: usize,
    /// How many tasks each caller has in it, in order.
    callers: Vec<(usize, oneshot::Sender<Answer>)>,
}

/// One batch's worth of jobs, oldest first.
fn fill(jobs: &mut VecDeque<Job>) -> Batch {
    let mut batch = Batch::default();
    while let Some(job) = jobs.front() {
        let full = batch.tasks.len() + job.tasks.len() > limits::BATCH_TASKS_MAX
            || batch.bytes + job.bytes > limits::BATCH_BYTES_MAX;
        if full && !batch.tasks.is_empty() {
            break;
        }
        let Some(mut job) = jobs.pop_front() else { break };
        batch.taken_tasks += job.tasks.len();
        batch.taken_bytes += job.bytes;
        if job.is_given_up() || !decide(&job.fate, LEAVES) {
            continue;
        }
        batch.bytes += job.bytes;
        batch.callers.push((job.tasks.len(), job.answer));
        batch.tasks.append(&mut job.tasks);
    }
    batch
}

pub(super) fn gone() -> Error {
    Error::stopped("the client has been stopped before the broker answered")
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use outlast_core::{TaskId, TaskType};
    use outlast_testkit::fault::{Fault, FaultBroker, Verb};
    use outlast_testkit::model::ModelBroker;

    use super::*;

    fn job(tasks: usize, bytes: usize) -> Job {
        let task = |n: usize| {
            let id = TaskId::stored(&n.to_string());
            NewTask::new(id, TaskType::stored("t"), vec![0; bytes].into())
        };
        let line = (QueueName::stored("q"), OnOutage::Store);
        Job::new(line, (0..tasks).map(task).collect()).0
    }

    #[test]
    fn a_batch_ends_before_the_limit_of_tasks_or_bytes() {
        let mut jobs: VecDeque<Job> = [job(200, 1), job(56, 1), job(1, 1)].into();
        assert_eq!(fill(&mut jobs).tasks.len(), 256);
        assert_eq!(fill(&mut jobs).tasks.len(), 1);
        let mut jobs: VecDeque<Job> = (0..3).map(|_| job(1, limits::BATCH_BYTES_MAX / 2)).collect();
        assert_eq!(fill(&mut jobs).tasks.len(), 2);
    }

    /// A loop whose inbox holds as many of these jobs as it can, with no lane free.
    fn flooded(tasks: usize, bytes: usize) -> Loop {
        let (sender, inbox) = mpsc::channel(JOBS_WAITING_MAX);
        while sender.try_send(job(tasks, bytes)).is_ok() {}
        Loop::new(Calls::new(Connection::custom("model:", ModelBroker::new(1000))), inbox)
    }

    #[tokio::test]
    async fn a_flood_stays_with_its_callers_once_the_waiting_limit_is_reached() {
        // Every batch that came back took in another thousand jobs, of 256 tasks each, room or not: a
        // slow broker and a fast producer filled the memory.
        let mut flooded_by_tasks = flooded(limits::BATCH_TASKS_MAX, 1);
        for _ in 0..3 {
            flooded_by_tasks.take_ready();
            assert_eq!(flooded_by_tasks.tasks_waiting, TASKS_WAITING_MAX);
        }
        let mut flooded_by_bytes = flooded(1, limits::BATCH_BYTES_MAX / 16);
        for _ in 0..3 {
            flooded_by_bytes.take_ready();
            assert_eq!(flooded_by_bytes.bytes_waiting, BYTES_WAITING_MAX);
        }
    }

    #[tokio::test]
    async fn what_was_sent_makes_room_again() {
        let mut flooded = flooded(limits::BATCH_TASKS_MAX, 1);
        flooded.take_ready();
        flooded.send_ready();
        let sent = usize::from(LANES) * limits::BATCH_TASKS_MAX;
        assert_eq!(flooded.tasks_waiting, TASKS_WAITING_MAX - sent);
        assert_eq!(flooded.bytes_waiting, TASKS_WAITING_MAX - sent);
        flooded.take_ready();
        assert_eq!(flooded.tasks_waiting, TASKS_WAITING_MAX);
    }

    #[test]
    fn a_task_larger_than_a_batch_travels_alone() {
        let mut jobs: VecDeque<Job> = [job(1, limits::BATCH_BYTES_MAX + 1), job(1, 1)].into();
        assert_eq!(fill(&mut jobs).tasks.len(), 1);
        assert_eq!(fill(&mut jobs).tasks.len(), 1);
    }

    fn faulty() -> (Arc<FaultBroker>, Arc<Batcher>) {
        let model = Arc::new(ModelBroker::new(1000));
        let faults = Arc::new(FaultBroker::new(model.clone()));
        let connection = Connection::of_halves("model:", faults.clone(), model);
        (faults, Arc::new(Batcher::new(connection)))
    }

    fn task(id: usize) -> NewTask {
        NewTask::new(TaskId::stored(&id.to_string()), TaskType::stored("t"), "".into())
    }

    #[tokio::test]
    async fn what_waits_behind_a_lone_task_leaves_when_that_has_come_back() {
        let (faults, batcher) = faulty();
        let line = (QueueName::stored("q"), OnOutage::Store);
        faults.script(Verb::Enqueue, [Some(Fault::Hang)]);
        let mut lone = Box::pin(batcher.enqueue(&line, task(1)));
        assert!(poll!(&mut lone).is_pending());
        // The other lanes are taken for good.
        while batcher.calls.lanes().stamp(&line.0).is_some() {}
        let mut second = Box::pin(batcher.enqueue(&line, task(2)));
        assert!(poll!(&mut second).is_pending());
        faults.release();
        let both = async { tokio::join!(lone, second) };
        let (first, second) =
            tokio::time::timeout(Duration::from_secs(10), both).await.expect("both are answered");
        let is_accepted = |verdict| matches!(verdict, EnqueueVerdict::Accepted { .. });
        assert!(is_accepted(first.unwrap()) && is_accepted(second.unwrap()));
    }

    #[tokio::test]
    async fn callers_who_were_answered_together_travel_together() {
        let (faults, batcher) = faulty();
        faults.script(Verb::Enqueue, [Some(Fault::Hang), Some(Fault::Hang)]);
        let mut callers = tokio::task::JoinSet::new();
        for id in 0..16 {
            let batcher = batcher.clone();
            callers.spawn(async move {
                let line = (QueueName::stored("q"), OnOutage::Store);
                batcher.enqueue(&line, task(id)).await.unwrap();
                batcher.enqueue(&line, task(16 + id)).await.unwrap();
            });
        }
        while faults.calls(Verb::Enqueue) < 2 {
            tokio::task::yield_now().await;
        }
        faults.release();
        callers.join_all().await;
        assert_eq!(faults.calls(Verb::Enqueue), 3, "one alone, fifteen, and then all sixteen");
    }
}
