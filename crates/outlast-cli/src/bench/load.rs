//! The loads that figures are made of, as a user's program brings them about: callers that enqueue, and a worker
//! that drains. The same for all brokers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use outlast::{Client, QueueName, RawPayload, State, TaskRequest, Worker};
use tokio::sync::Notify;

use super::{Outcome, Stopwatch, number, payload};

/// Tasks in one call of the bulk figure.
const BULK: usize = 4096;

/// Slots of the draining worker: enough that trivial handlers never wait for one.
pub(super) const SLOTS: usize = 64;

/// How long a drain may take beyond a millisecond for each of its tasks before it is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a drain looks whether the last settlements have arrived.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// When callers stop.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    /// After so many seconds.
    Seconds(f64),
    /// After so many tasks.
    Tasks(usize),
}

/// What was done, and in what time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    pub(super) tasks: usize,
    pub(super) seconds: f64,
    /// Whether every task was run exactly once, as far as that was looked at.
    pub(super) exact: bool,
}

impl Done {
    pub(super) fn rate(&self) -> f64 {
        self.tasks as f64 / self.seconds
    }
}

/// Task number `n` for a queue.
pub(super) fn request(queue: &QueueName, n: usize) -> TaskRequest {
    TaskRequest::raw("bench", payload(n)).queue(queue.as_str())
}

/// Callers that await each enqueue, of tasks that are numbered from 0 on.
pub(super) async fn enqueue(
    client: &Client,
    queue: &QueueName,
    callers: usize,
    until: Until,
) -> Outcome<Done> {
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Stopwatch::start();
    let is_over = move |n: usize| match until {
        Until::Seconds(seconds) => begin.seconds() >= seconds,
        Until::Tasks(tasks) => n >= tasks,
    };
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (client, queue, next) = (client.clone(), queue.clone(), next.clone());
        running.spawn(async move {
            let mut own = 0;
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if is_over(n) {
                    return Ok::<_, outlast::Error>(own);
                }
                client.enqueue(request(&queue, n)).await?;
                own += 1;
            }
        });
    }
    let mut tasks = 0;
    for own in running.join_all().await {
        tasks += own?;
    }
    Ok(Done { tasks, seconds: begin.seconds(), exact: true })
}

/// Enqueues tasks number 0 to `count` in long lists.
pub(super) async fn fill(
    client: &Client,
    queue: &QueueName,
    count: usize,
) -> outlast::Result<Done> {
    let begin = Stopwatch::start();
    for from in (0..count).step_by(BULK) {
        let numbers = from..count.min(from + BULK);
        client.enqueue_all(numbers.map(|n| request(queue, n)).collect()).await?;
    }
    Ok(Done { tasks: count, seconds: begin.seconds(), exact: true })
}

/// What else is in the queue of a drain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Others {
    /// Tasks that wait behind those to be run.
    pub(super) waiting: usize,
    /// Tasks that are active all the time.
    pub(super) active: usize,
}

/// How often each task was run, and the word when enough were.
struct Runs {
    each: Vec<AtomicU8>,
    left: AtomicUsize,
    all_ran: Notify,
}

/// Runs `count` tasks, which are there and numbered from 0 on, with a trivial handler, and settles them. The clock stops
/// when the broker has none of them left; with others waiting behind them, when so many have run.
pub(super) async fn drain(
    client: &Client,
    queue: &QueueName,
    count: usize,
    others: Others,
) -> Outcome<Done> {
    let runs = Arc::new(Runs {
        each: (0..count + others.waiting).map(|_| AtomicU8::new(0)).collect(),
        left: AtomicUsize::new(count),
        all_ran: Notify::new(),
    });
    let worker = Worker::new(client).queue(queue.as_str(), 1).slots(SLOTS);
    let worker = worker.state(runs.clone()).handle_type("bench", note);
    let control = worker.control();
    let begin = Stopwatch::start();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    let end = async {
        runs.all_ran.notified().await;
        if others.waiting == 0 {
            settled(client, queue, others.active as u64).await?;
        }
        Ok::<_, outlast::Error>(begin.seconds())
    };
    let ended = tokio::time::timeout(PATIENCE + Duration::from_millis(count as u64), end).await;
    control.stop();
    let summary = running.await??;
    let seconds = ended.map_err(|_| {
        let left = runs.left.load(Ordering::Relaxed);
        format!("{left} of {count} tasks had not run when the drain was given up")
    })??;
    let ran = runs.each.iter().map(|runs| u64::from(runs.load(Ordering::Relaxed)));
    let (distinct, all) =
        ran.fold((0, 0), |(distinct, all), runs| (distinct + runs.min(1), all + runs));
    let enough = distinct == count as u64 || (others.waiting > 0 && distinct > count as u64);
    let exact = enough && all == distinct && summary.succeeded == all;
    Ok(Done { tasks: count, seconds, exact })
}

async fn settled(client: &Client, queue: &QueueName, active: u64) -> outlast::Result<()> {
    let inspector = client.inspector();
    loop {
        let stats = inspector.queue(queue).await?;
        if stats.pending == 0 && stats.active <= active {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn note(RawPayload(payload): RawPayload, State(runs): State<Arc<Runs>>) {
    if let Some(each) = number(&payload).and_then(|n| runs.each.get(n))
        && each.fetch_add(1, Ordering::Relaxed) == 0
        && runs.left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        runs.all_ran.notify_one();
    }
}
