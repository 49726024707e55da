//! How many tasks a second go in: one awaiting caller, sixty-four, and in bulk.

use std::path::Path;

use outlast::Client;

use super::yardstick::Bare;
use super::{Figure, Outcome, Size, fresh, queue};
use crate::bench::load::{self, Done, Until};

/// Awaiting callers of the concurrent figure.
const CALLERS: usize = 64;

pub(super) async fn run(folder: &Path, size: Size, each: &mut impl FnMut(&Figure)) -> Outcome<()> {
    let figure = awaiting(folder, "enqueue.single", 1, size).await?;
    let bare = Bare::new(folder, "bare-1")?.insert(1, usize::MAX, size.seconds)?;
    each(&figure.against("rusqlite, 1 row a transaction", bare));

    let figure = awaiting(folder, "enqueue.concurrent", CALLERS, size).await?;
    let bare = Bare::new(folder, "bare-64")?.insert(CALLERS, usize::MAX, size.seconds)?;
    each(&figure.against("rusqlite, 64 rows a transaction", bare));

    let (_, connection) = fresh(folder, "bulk").await?;
    let done = load::fill(&connection.client(), &queue(), size.tasks).await?;
    let figure = counted("enqueue.bulk", &connection.client(), done).await?;
    connection.close().await;
    let bare = Bare::new(folder, "bare-256")?.insert(256, size.tasks, f64::MAX)?;
    each(&figure.against("rusqlite, 256 rows a transaction", bare));
    Ok(())
}

async fn awaiting(
    folder: &Path,
    name: &'static str,
    callers: usize,
    size: Size,
) -> Outcome<Figure> {
    let (_, connection) = fresh(folder, name).await?;
    let client = connection.client();
    let until = Until::Seconds(size.seconds);
    let done = load::enqueue(&client, &queue(), callers, until).await?;
    let figure = counted(name, &client, done).await?;
    connection.close().await;
    Ok(figure)
}

async fn counted(name: &'static str, client: &Client, done: Done) -> Outcome<Figure> {
    let stored = client.inspector().queue(&queue()).await?.pending;
    Ok(Figure::new(name, done.rate(), "tasks/s").exact(stored == done.tasks as u64))
}
