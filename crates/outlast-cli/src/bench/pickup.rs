//! How long an idle worker takes to start a task: enqueued in its own process, and in another.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outlast::{Client, QueueName, RawPayload, TaskRequest, Worker, WorkerControl};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Outcome;
use super::report::Figure;

/// Time for the last task to be settled: the figure is about an idle worker.
const PAUSE: Duration = Duration::from_millis(5);

/// How long one task may take to be started.
const PATIENCE: Duration = Duration::from_secs(10);

/// Times from enqueue to the handler's first line, in microseconds, the shortest first.
pub(super) struct Times {
    /// Enqueued in the worker's own process.
    pub(super) own: Vec<u64>,
    /// Enqueued by another process.
    pub(super) other: Vec<u64>,
    samples: usize,
}

impl Times {
    /// The figures they make.
    pub(super) fn figures(&self) -> [Figure; 3] {
        let figure = |name, times: &[u64], percent| {
            let value = millis(times, percent);
            Figure::new(name, value, "ms").exact(times.len() == self.samples)
        };
        [
            figure("pickup.p50", &self.own, 50),
            figure("pickup.p99", &self.own, 99),
            figure("pickup.other_process.p50", &self.other, 50),
        ]
    }
}

/// Times `samples` pickups of either kind on the broker behind `url`, which `client` uses.
pub(super) async fn measure(
    url: &str,
    client: &Client,
    queue: &QueueName,
    samples: usize,
) -> Outcome<Times> {
    let mut idle = Idle::start(client, queue);
    let mut own = Vec::with_capacity(samples);
    for _ in 0..samples {
        tokio::time::sleep(PAUSE).await;
        client.enqueue(sent_now(queue)).await?;
        own.push(idle.next().await?);
    }
    let mut other = Vec::with_capacity(samples);
    let mut producer = Producer::start(url, queue)?;
    for _ in 0..samples {
        tokio::time::sleep(PAUSE).await;
        producer.enqueue()?;
        other.push(idle.next().await?);
    }
    producer.end()?;
    idle.stop().await?;
    own.sort_unstable();
    other.sort_unstable();
    Ok(Times { own, other, samples })
}

/// A worker with nothing to do, and how long after the moment in their payload its tasks start.
pub(super) struct Idle {
    control: WorkerControl,
    running: JoinHandle<outlast::Result<outlast::Summary>>,
    times: mpsc::Receiver<u64>,
}

impl Idle {
    pub(super) fn start(client: &Client, queue: &QueueName) -> Self {
        let (tell, times) = mpsc::channel(16);
        let worker = Worker::new(client).queue(queue.as_str(), 1);
        let worker = worker.handle_type("pickup", move |RawPayload(sent): RawPayload| {
            let tell = tell.clone();
            async move {
                let now = micros_now();
                let sent = std::str::from_utf8(&sent).ok().and_then(|sent| sent.parse().ok());
                let _ = tell.send(now.saturating_sub(sent.unwrap_or(0))).await;
            }
        });
        let control = worker.control();
        Self { control, running: tokio::spawn(worker.run_until(std::future::pending())), times }
    }

    pub(super) async fn next(&mut self) -> Outcome<u64> {
        let time = tokio::time::timeout(PATIENCE, self.times.recv()).await;
        let time = time.map_err(|_| format!("a task was not started within {PATIENCE:?}"))?;
        time.ok_or_else(|| "the idle worker has ended".into())
    }

    pub(super) async fn stop(self) -> Outcome<()> {
        self.control.stop();
        self.running.await??;
        Ok(())
    }
}

/// A task that says when it was meant to start, in microseconds.
pub(super) fn meant_for(queue: &QueueName, micros: u64) -> TaskRequest {
    TaskRequest::raw("pickup", micros.to_string()).queue(queue.as_str())
}

fn sent_now(queue: &QueueName) -> TaskRequest {
    meant_for(queue, micros_now())
}

/// Another process of this program that enqueues a task for every line it gets.
struct Producer(Child);

impl Producer {
    fn start(url: &str, queue: &QueueName) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // By the environment: a URL may hold a password, and arguments are for all to read.
        command.args(["bench", "--produce", queue.as_str()]).env("OUTLAST_BROKER", url);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut producer = Self(child);
        producer.read_line()?;
        Ok(producer)
    }

    fn enqueue(&mut self) -> Outcome<()> {
        let stdin = self.0.stdin.as_mut().ok_or("the producer has no standard input")?;
        stdin.write_all(b"\n")?;
        Ok(stdin.flush()?)
    }

    fn read_line(&mut self) -> Outcome<()> {
        let stdout = self.0.stdout.take().ok_or("the producer has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        Ok(())
    }

    fn end(mut self) -> Outcome<()> {
        drop(self.0.stdin.take());
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The other process: says that it is ready, then enqueues a task for every line on standard input.
pub(crate) async fn produce(client: &Client, queue: &QueueName) -> Outcome<()> {
    println!("ready");
    let (lines, mut wanted) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if line.is_err() || lines.blocking_send(()).is_err() {
                return;
            }
        }
    });
    while wanted.recv().await.is_some() {
        client.enqueue(sent_now(queue)).await?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the bench measures real time between processes")]
pub(super) fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The time below which `percent` of the times are, in milliseconds.
pub(super) fn millis(sorted: &[u64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |&micros| micros as f64 / 1000.0)
}
