//! How long an idle worker takes to start a task: enqueued in its own process, and in another.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outlast::{Client, RawPayload, TaskRequest, Worker, WorkerControl};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::report::Figure;
use super::{Size, fresh};

/// Time for the last task to be settled: the figure is about an idle worker.
const PAUSE: Duration = Duration::from_millis(5);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

pub(super) async fn run(folder: &Path, size: Size, each: &mut impl FnMut(&Figure)) -> Outcome<()> {
    let (url, connection) = fresh(folder, "pickup").await?;
    let mut idle = Idle::start(&connection.client());
    let mut own = Vec::with_capacity(size.pickups);
    let client = connection.client();
    for _ in 0..size.pickups {
        tokio::time::sleep(PAUSE).await;
        client.enqueue(TaskRequest::raw("pickup", micros_now().to_string())).await?;
        own.push(idle.next().await?);
    }
    own.sort_unstable();
    let exact = own.len() == size.pickups;
    each(&Figure::new("pickup.p50", millis(&own, 50), "ms").exact(exact));
    each(&Figure::new("pickup.p99", millis(&own, 99), "ms").exact(exact));

    let mut other = Vec::with_capacity(size.pickups);
    let mut producer = Producer::start(&url)?;
    for _ in 0..size.pickups {
        tokio::time::sleep(PAUSE).await;
        producer.enqueue()?;
        other.push(idle.next().await?);
    }
    producer.end()?;
    other.sort_unstable();
    let exact = other.len() == size.pickups;
    each(&Figure::new("pickup.other_process.p50", millis(&other, 50), "ms").exact(exact));
    idle.stop().await?;
    connection.close().await;
    Ok(())
}

/// A worker with nothing to do, and the times from enqueue to start in microseconds.
struct Idle {
    control: WorkerControl,
    running: JoinHandle<outlast::Result<outlast::Summary>>,
    times: mpsc::Receiver<u64>,
}

impl Idle {
    fn start(client: &Client) -> Self {
        let (tell, times) = mpsc::channel(16);
        let worker =
            Worker::new(client).handle_type("pickup", move |RawPayload(sent): RawPayload| {
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

    async fn next(&mut self) -> Outcome<u64> {
        let time = tokio::time::timeout(Duration::from_secs(10), self.times.recv()).await?;
        time.ok_or_else(|| "the idle worker has ended".into())
    }

    async fn stop(self) -> Outcome<()> {
        self.control.stop();
        self.running.await??;
        Ok(())
    }
}

/// Another process of this program that enqueues a task for every line it gets.
struct Producer(Child);

impl Producer {
    fn start(url: &str) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "--produce", "--broker", url]);
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
pub(crate) async fn produce(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
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
        client.enqueue(TaskRequest::raw("pickup", micros_now().to_string())).await?;
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the bench measures real time between processes")]
fn micros_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

fn millis(sorted: &[u64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or(f64::NAN, |&micros| micros as f64 / 1000.0)
}
