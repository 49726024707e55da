//! How many tasks a second go out: claimed, run by a trivial handler, settled.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use outlast::{QueueName, RawPayload, State, Worker};

use super::report::Figure;
use super::yardstick::Bare;
use super::{Size, Stopwatch, enqueue, fresh, number};

/// Slots of the worker: enough that trivial handlers never wait for one.
const SLOTS: usize = 64;

pub(super) async fn run(
    folder: &Path,
    size: Size,
    each: &mut impl FnMut(&Figure),
) -> Result<(), Box<dyn std::error::Error>> {
    let (_, connection) = fresh(folder, "drain").await?;
    let client = connection.client();
    enqueue::fill(&client, size.tasks).await?;
    let runs: Arc<Vec<AtomicU8>> = Arc::new((0..size.tasks).map(|_| AtomicU8::new(0)).collect());
    let begin = Stopwatch::start();
    let summary = Worker::new(&client)
        .slots(SLOTS)
        .state(runs.clone())
        .handle_type("bench", count)
        .exit_when_empty()
        .run()
        .await?;
    let rate = size.tasks as f64 / begin.seconds();
    let once = runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1);
    let left = client.inspector().queue(&QueueName::default_queue()).await?.size();
    let exact = once && left == 0 && summary.succeeded == size.tasks as u64;
    connection.close().await;

    let mut bare = Bare::new(folder, "bare-drain")?;
    bare.insert(256, size.tasks, f64::MAX)?;
    let peer = bare.drain(256)?;
    let figure = Figure::new("drain", rate, "tasks/s").exact(exact);
    each(&figure.against("rusqlite, take 256 and delete 256, a transaction each", peer));
    Ok(())
}

async fn count(RawPayload(payload): RawPayload, State(runs): State<Arc<Vec<AtomicU8>>>) {
    if let Some(runs) = number(&payload).and_then(|n| runs.get(n)) {
        runs.fetch_add(1, Ordering::Relaxed);
    }
}
