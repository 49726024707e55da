//! How fast is this broker on this machine, and compared with what its disk can do?
//!
//! Absolute rates swing by a factor of two to three on shared machines, so every figure comes with a
//! yardstick taken in the same run on the same disk: appends with `fdatasync`, and the same rows through
//! a bare `rusqlite` loop. The ratio is the promise. Every task is counted by its number: a rate with a
//! task lost or run twice would be worthless, and says `exact: false`.

mod drain;
mod enqueue;
mod idle;
mod pickup;
mod report;
mod yardstick;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use outlast::{Connection, Result};

pub(crate) use pickup::produce;
pub(crate) use report::Figure;

/// Bytes of a task's payload: a small JSON object.
const PAYLOAD_BYTES: usize = 200;

/// How much to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// How long each rate is measured, roughly.
    pub(crate) seconds: f64,
    /// Tasks of the bulk and drain figures.
    pub(crate) tasks: usize,
    /// Pickups that are timed.
    pub(crate) pickups: usize,
    /// How long the idle worker is watched.
    pub(crate) idle: Duration,
}

impl Size {
    /// Ends within a minute on a slow machine.
    pub(crate) const QUICK: Size =
        Size { seconds: 1.0, tasks: 40_000, pickups: 100, idle: Duration::from_secs(3) };
    /// For figures to be quoted.
    pub(crate) const FULL: Size =
        Size { seconds: 5.0, tasks: 400_000, pickups: 1_000, idle: Duration::from_secs(20) };
}

/// Runs every figure in a folder of its own below `dir`, which is removed at the end; `each` gets the
/// figures as they come.
pub(crate) async fn run(
    dir: &Path,
    size: Size,
    mut each: impl FnMut(&Figure),
) -> Result<(), Box<dyn std::error::Error>> {
    let folder = Folder::new(dir)?;
    let disk = yardstick::appends(&folder.0, size)?;
    each(&Figure::yardstick(
        "yardstick.append",
        disk,
        "appends/s",
        "write + fdatasync of 200 bytes",
    ));
    enqueue::run(&folder.0, size, &mut each).await?;
    drain::run(&folder.0, size, &mut each).await?;
    pickup::run(&folder.0, size, &mut each).await?;
    idle::run(&folder.0, size, &mut each).await?;
    Ok(())
}

/// Real time from its start: what a bench is about.
#[derive(Clone, Copy)]
struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "a bench measures real time")]
    fn start() -> Self {
        Self(Instant::now())
    }

    fn seconds(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn new(dir: &Path) -> std::io::Result<Self> {
        let path = dir.join(format!(".outlast-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "could not remove the bench's folder");
        }
    }
}

/// A fresh broker of its own for one figure.
async fn fresh(folder: &Path, name: &str) -> Result<(String, Connection)> {
    let url = format!("sqlite://{}", folder.join(format!("{name}.db")).display());
    let connection = Connection::open(&url).await?;
    Ok((url, connection))
}

/// Task number `n`, padded to the payload's size.
fn payload(n: usize) -> String {
    format!("{{\"n\":{n:010},\"fill\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 26))
}

/// The number of a payload.
fn number(payload: &[u8]) -> Option<usize> {
    std::str::from_utf8(payload.get(5..15)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_has_the_promised_size_and_gives_its_number_back() {
        for n in [0, 7, 9_999_999] {
            assert_eq!(payload(n).len(), PAYLOAD_BYTES);
            assert_eq!(number(payload(n).as_bytes()), Some(n));
        }
        assert_eq!(number(b"short"), None);
    }
}
