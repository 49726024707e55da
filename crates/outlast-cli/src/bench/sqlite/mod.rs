//! The figures of the embedded broker, each beside a yardstick on the same disk: appends with `fdatasync`, and the same
//! rows through a bare `rusqlite` loop.

mod enqueue;
mod idle;
mod yardstick;

use std::path::Path;
use std::time::Duration;

use outlast::{Connection, QueueName};

use self::yardstick::Bare;
use super::load::{self, Others};
use super::report::Figure;
use super::{Extent, FOLDER, Outcome, PAYLOAD_BYTES, Stopwatch, payload, pickup};
use crate::rig::Folder;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// How long each rate is measured, roughly.
    seconds: f64,
    /// Tasks of the bulk and drain figures.
    tasks: usize,
    /// Pickups that are timed.
    pickups: usize,
    /// How long the idle worker is watched.
    idle: Duration,
}

impl Size {
    pub(crate) fn of(extent: Extent) -> Self {
        match extent {
            Extent::Tiny => {
                Size { seconds: 0.05, tasks: 500, pickups: 5, idle: Duration::from_millis(100) }
            }
            Extent::Quick => {
                Size { seconds: 1.0, tasks: 40_000, pickups: 100, idle: Duration::from_secs(3) }
            }
            Extent::Usual | Extent::Full => {
                Size { seconds: 5.0, tasks: 400_000, pickups: 1_000, idle: Duration::from_secs(20) }
            }
        }
    }
}

/// Runs every figure in a folder of its own below `dir`, which is removed at the end; `each` gets the
/// figures as they come.
pub(crate) async fn run(dir: &Path, size: Size, mut each: impl FnMut(&Figure)) -> Outcome<()> {
    let folder = Folder::new(dir, FOLDER)?;
    let disk = yardstick::appends(folder.path(), size)?;
    let what = "write + fdatasync of 200 bytes";
    each(&Figure::new("yardstick.append", disk, "appends/s").mode(what));
    enqueue::run(folder.path(), size, &mut each).await?;
    drain(folder.path(), size, &mut each).await?;
    let (url, connection) = fresh(folder.path(), "pickup").await?;
    let times = pickup::measure(&url, &connection.client(), &queue(), size.pickups).await?;
    times.figures().iter().for_each(&mut each);
    connection.close().await;
    idle::run(folder.path(), size, &mut each).await
}

/// How many tasks a second go out: claimed, run by a trivial handler, settled.
async fn drain(folder: &Path, size: Size, each: &mut impl FnMut(&Figure)) -> Outcome<()> {
    let (_, connection) = fresh(folder, "drain").await?;
    let client = connection.client();
    load::fill(&client, &queue(), size.tasks).await?;
    let done = load::drain(&client, &queue(), size.tasks, Others::default()).await?;
    let left = client.inspector().queue(&queue()).await?.size();
    connection.close().await;
    let mut bare = Bare::new(folder, "bare-drain")?;
    bare.insert(256, size.tasks, f64::MAX)?;
    let peer = bare.drain(256)?;
    let figure = Figure::new("drain", done.rate(), "tasks/s").exact(done.exact && left == 0);
    each(&figure.against("rusqlite, take 256 and delete 256, a transaction each", peer));
    Ok(())
}

/// A fresh broker of its own for one figure.
async fn fresh(folder: &Path, name: &str) -> outlast::Result<(String, Connection)> {
    let url = format!("sqlite://{}", folder.join(format!("{name}.db")).display());
    let connection = Connection::open(&url).await?;
    Ok((url, connection))
}

fn queue() -> QueueName {
    QueueName::default_queue()
}
