//! The broker without a client and without a worker: the same scripts, driven flat out, or one batch after the other.

use std::sync::Arc;
use std::time::Duration;

use outlast::broker::{
    Beat, Claim, LeaseToken, NewTask, Outcome as TaskOutcome, SessionId, Settlement, Stamp, Want,
    WorkerBeat, session::Session,
};
use outlast::{
    Broker, BrokerError, Clock, Connection, Durability, Kind, PriorityName, QueueName, TaskId,
    TaskType, WorkerStatus, WorkerView, limits,
};

use super::Outcome;
use crate::bench::load::Done;
use crate::bench::{Stopwatch, payload};

/// Batches under way at once: more than that gains nothing on a server that does one thing at a time.
const UNDER_WAY: usize = 8;

/// How long the bare client counts as alive: longer than a measurement takes.
const TTL: Duration = Duration::from_secs(3600);

/// A bare client of one queue.
#[derive(Clone)]
pub(super) struct Bare {
    broker: Arc<dyn Broker>,
    clock: Clock,
    queue: QueueName,
    token: LeaseToken,
    view: WorkerView,
}

impl Bare {
    /// A bare client with a lease token of its own.
    pub(super) async fn new(connection: &Connection, queue: &QueueName) -> Outcome<Self> {
        let (broker, clock) = (connection.broker(), connection.clock().clone());
        let view = WorkerView {
            id: format!("outlast-bench:{}:{}", std::process::id(), uuid::Uuid::new_v4()),
            host: "outlast-bench".to_owned(),
            pid: std::process::id(),
            started_at: clock.now(),
            status: WorkerStatus::Running,
            slots: 1,
            queues: vec![(queue.clone(), 1)],
            priority: PriorityName::Weighted,
            active: 0,
            running: Vec::new(),
        };
        let worker = WorkerBeat { view: view.clone(), token: None, seen: 0 };
        let beat = Beat { worker: Some(worker), ttl: TTL, ..Beat::default() };
        let reply = broker.beat(clock.now(), &beat).await?;
        let token = reply.token.ok_or("the broker handed out no lease token")?;
        Ok(Self { broker, clock, queue: queue.clone(), token, view })
    }

    /// Takes the client's name off the list of workers.
    pub(super) async fn end(self) -> Outcome<()> {
        let view = WorkerView { status: WorkerStatus::Gone, ..self.view };
        let worker = WorkerBeat { view, token: Some(self.token), seen: u64::MAX };
        let beat = Beat { worker: Some(worker), ttl: TTL, ..Beat::default() };
        self.broker.beat(self.clock.now(), &beat).await?;
        Ok(())
    }

    /// The whole life of `count` tasks, `batch` of them at a time, one call after the other.
    pub(super) async fn lives(&self, count: usize, batch: usize) -> Outcome<bool> {
        let (mut enqueues, mut claims, mut settles) = (Lane::new(), Lane::new(), Lane::new());
        let mut run = 0;
        for first in (0..count).step_by(batch) {
            self.enqueue(&mut enqueues, tasks(first..count.min(first + batch))).await?;
            run += self.run(&mut claims, &mut settles, batch).await?;
        }
        Ok(run == count)
    }

    /// How fast tasks number 0 to `count` can go in at all. They are made before.
    pub(super) async fn flood(&self, count: usize) -> Outcome<Done> {
        let firsts = (0..count).step_by(limits::BATCH_TASKS_MAX);
        let batches: Vec<_> =
            firsts.map(|first| tasks(first..count.min(first + limits::BATCH_TASKS_MAX))).collect();
        let begin = Stopwatch::start();
        self.at_once(|bare, nth| {
            let own: Vec<_> = batches.iter().skip(nth).step_by(UNDER_WAY).cloned().collect();
            async move {
                let mut lane = Lane::new();
                for batch in own {
                    bare.enqueue(&mut lane, batch).await?;
                }
                Ok(0)
            }
        })
        .await?;
        Ok(Done { tasks: count, seconds: begin.seconds(), exact: true })
    }

    /// How fast `count` tasks that are there can go out at all.
    pub(super) async fn drain(&self, count: usize) -> Outcome<Done> {
        let begin = Stopwatch::start();
        let run = self.at_once(|bare, _| async move {
            let (mut claims, mut settles, mut own) = (Lane::new(), Lane::new(), 0);
            loop {
                let run = bare.run(&mut claims, &mut settles, limits::BATCH_TASKS_MAX).await?;
                if run == 0 {
                    return Ok(own);
                }
                own += run;
            }
        });
        let run = run.await?;
        Ok(Done { tasks: count, seconds: begin.seconds(), exact: run == count })
    }

    /// Runs this [`UNDER_WAY`] times at once; the sum of the answers.
    async fn at_once<F: Future<Output = Result<usize, BrokerError>> + Send + 'static>(
        &self,
        each: impl Fn(Bare, usize) -> F,
    ) -> Outcome<usize> {
        let mut running = tokio::task::JoinSet::new();
        for nth in 0..UNDER_WAY {
            running.spawn(each(self.clone(), nth));
        }
        let mut sum = 0;
        for answer in running.join_all().await {
            sum += answer?;
        }
        Ok(sum)
    }

    async fn enqueue(&self, lane: &mut Lane, tasks: Arc<[NewTask]>) -> Result<(), BrokerError> {
        let stamp = lane.next()?;
        self.broker.enqueue(&self.queue, stamp, self.clock.now(), tasks).await?;
        lane.done(&stamp);
        Ok(())
    }

    /// Claims and settles one batch; how many there were.
    async fn run(
        &self,
        claims: &mut Lane,
        settles: &mut Lane,
        batch: usize,
    ) -> Result<usize, BrokerError> {
        let want = Want {
            token: self.token,
            tasks_max: batch,
            bytes_max: limits::BATCH_BYTES_MAX,
            lease: limits::LEASE_DEFAULT,
            groups: Arc::new([]),
        };
        let stamp = claims.next()?;
        let claimed = self.broker.claim(&self.queue, stamp, self.clock.now(), &want).await?;
        if claimed.claims.is_empty() {
            return Ok(0);
        }
        claims.done(&stamp);
        let done = |claim| match claim {
            Claim::Task(task) => {
                Some(Settlement { lease: task.lease, outcome: TaskOutcome::Done { result: None } })
            }
            Claim::Group(_) | Claim::Corrupt { .. } => None,
        };
        let settlements: Arc<[Settlement]> = claimed.claims.into_iter().filter_map(done).collect();
        let (count, stamp) = (settlements.len(), settles.next()?);
        self.broker.settle(&self.queue, stamp, self.clock.now(), settlements).await?;
        settles.done(&stamp);
        Ok(count)
    }
}

/// Tasks of these numbers.
fn tasks(numbers: std::ops::Range<usize>) -> Arc<[NewTask]> {
    let task = |n: usize| {
        let id = TaskId::stored(&uuid::Uuid::new_v4().to_string());
        NewTask::new(id, TaskType::stored("bench"), payload(n).into())
    };
    numbers.map(task).collect()
}

/// One lane of a session of its own: one batch after the other.
struct Lane(Session);

impl Lane {
    fn new() -> Self {
        Self(Session::new(SessionId(uuid::Uuid::new_v4().as_u128()), 1))
    }

    fn next(&mut self) -> Result<Stamp, BrokerError> {
        let stamp = self.0.stamp(Durability::Accepted);
        stamp.ok_or_else(|| BrokerError::new(Kind::Busy, "the batch before has not been answered"))
    }

    fn done(&mut self, stamp: &Stamp) {
        self.0.answered(stamp);
    }
}
