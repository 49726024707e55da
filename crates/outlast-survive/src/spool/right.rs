//! The right to deliver: one process of a machine has it at a time, as a lock on a file of its own, which the
//! system frees when that process ends.
//!
//! A process that is stopped, or hangs, ends never. So whoever has the right counts in the file, and whoever sees the
//! count stand still delivers beside it. That is safe at any moment: a batch is on the disk under its stamp
//! before it is sent, so two who deliver send the same batches, and the broker applies each once. The
//! right only spares it from hearing everything twice.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::error::{SpoolError, SpoolErrorKind};

/// A count that stands still for so long is that of a process that does not deliver: one that does counts with
/// every batch. As long as a claim waits for the journal.
const FROZEN_AFTER: Duration = Duration::from_secs(5);

/// What was seen of another process that has the right: its count, and since when it is that.
pub(super) type Seen = Option<(u64, Instant)>;

/// The right to deliver, for as long as it lives.
#[derive(Debug)]
pub(crate) struct Deliverer {
    /// `None` for the right of one who delivers beside a process that stands still.
    lock: Option<File>,
    count: AtomicU64,
}

impl Deliverer {
    /// The right, or `None` while another process has it and counts.
    pub(super) fn new(path: &Path, seen: &mut Seen) -> Result<Option<Self>, SpoolError> {
        let failed = |error| {
            let what = format!("could not lock {}", path.display());
            SpoolError::new(SpoolErrorKind::Misconfigured, what).caused_by(error)
        };
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path);
        let file = file.map_err(failed)?;
        let count = count(&file).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {
                *seen = None;
                let right = Self { lock: Some(file), count: AtomicU64::new(count) };
                right.counts();
                Ok(Some(right))
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                let is_still = seen.filter(|(before, _)| *before == count);
                let (_, since) = *seen.insert(is_still.unwrap_or((count, Instant::now())));
                let is_frozen = since.elapsed() >= FROZEN_AFTER;
                Ok(is_frozen.then(|| Self { lock: None, count: AtomicU64::new(count) }))
            }
            Err(std::fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Says that whoever has the right delivers.
    pub(crate) fn counts(&self) {
        let Some(file) = &self.lock else { return };
        let count = self.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if let Err(error) = file.write_all_at(&count.to_le_bytes(), 0) {
            // Then others deliver beside it, which harms nobody.
            tracing::debug!(%error, "could not count in the lock of the spool");
        }
    }
}

/// The count of a file: none has begun in one that is new.
fn count(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 8];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(u64::from_le_bytes(bytes)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error),
    }
}
