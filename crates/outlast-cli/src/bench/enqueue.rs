//! How many tasks a second go in: one awaiting caller, sixty-four, and in bulk.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use outlast::{Client, QueueName, Result, TaskRequest};

use super::report::Figure;
use super::yardstick::Bare;
use super::{Size, Stopwatch, fresh, payload};

/// Awaiting callers of the concurrent figure.
const CALLERS: usize = 64;

/// Tasks in one call of the bulk figure.
const BULK: usize = 4096;

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

pub(super) async fn run(folder: &Path, size: Size, each: &mut impl FnMut(&Figure)) -> Outcome<()> {
    let figure = single(folder, size).await?;
    let bare = Bare::new(folder, "bare-1")?.insert(1, usize::MAX, size.seconds)?;
    each(&figure.against("rusqlite, 1 row a transaction", bare));

    let figure = concurrent(folder, size).await?;
    let bare = Bare::new(folder, "bare-64")?.insert(CALLERS, usize::MAX, size.seconds)?;
    each(&figure.against("rusqlite, 64 rows a transaction", bare));

    let figure = bulk(folder, size).await?;
    let bare = Bare::new(folder, "bare-256")?.insert(256, size.tasks, f64::MAX)?;
    each(&figure.against("rusqlite, 256 rows a transaction", bare));
    Ok(())
}

async fn single(folder: &Path, size: Size) -> Result<Figure> {
    let (_, connection) = fresh(folder, "single").await?;
    let client = connection.client();
    let (begin, mut count) = (Stopwatch::start(), 0);
    while begin.seconds() < size.seconds {
        client.enqueue(request(count)).await?;
        count += 1;
    }
    let rate = count as f64 / begin.seconds();
    let exact = stored(&client).await? == count;
    connection.close().await;
    Ok(Figure::new("enqueue.single", rate, "tasks/s").exact(exact))
}

async fn concurrent(folder: &Path, size: Size) -> Result<Figure> {
    let (_, connection) = fresh(folder, "concurrent").await?;
    let client = connection.client();
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Stopwatch::start();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let (client, next) = (client.clone(), next.clone());
        callers.spawn(async move {
            while begin.seconds() < size.seconds {
                client.enqueue(request(next.fetch_add(1, Ordering::Relaxed))).await?;
            }
            Ok::<_, outlast::Error>(())
        });
    }
    for result in callers.join_all().await {
        result?;
    }
    let count = next.load(Ordering::Relaxed);
    let rate = count as f64 / begin.seconds();
    let exact = stored(&client).await? == count;
    connection.close().await;
    Ok(Figure::new("enqueue.concurrent", rate, "tasks/s").exact(exact))
}

async fn bulk(folder: &Path, size: Size) -> Result<Figure> {
    let (_, connection) = fresh(folder, "bulk").await?;
    let client = connection.client();
    let begin = Stopwatch::start();
    fill(&client, size.tasks).await?;
    let rate = size.tasks as f64 / begin.seconds();
    let exact = stored(&client).await? == size.tasks;
    connection.close().await;
    Ok(Figure::new("enqueue.bulk", rate, "tasks/s").exact(exact))
}

/// Enqueues tasks number 0 to `count`.
pub(super) async fn fill(client: &Client, count: usize) -> Result<()> {
    for first in (0..count).step_by(BULK) {
        client.enqueue_all((first..count.min(first + BULK)).map(request).collect()).await?;
    }
    Ok(())
}

pub(super) fn request(n: usize) -> TaskRequest {
    TaskRequest::raw("bench", payload(n))
}

async fn stored(client: &Client) -> Result<usize> {
    let stats = client.inspector().queue(&QueueName::default_queue()).await?;
    Ok(usize::try_from(stats.pending).unwrap_or(usize::MAX))
}
