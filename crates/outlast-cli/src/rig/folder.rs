//! A folder of one's own that is gone when its owner is.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a removal is tried, and after how long again.
const REMOVALS_MAX: u32 = 50;
const REMOVE_EVERY: Duration = Duration::from_millis(10);

/// A folder that is removed with everything in it. Nobody else on the machine may look into it.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// Makes `NAME-PID` below `parent`; one that is there already is an error.
    pub(crate) fn new(parent: &Path, name: &str) -> io::Result<Self> {
        let path = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// What was written here by a thread that is just ending makes a removal fail: it is tried for half a second.
impl Drop for Folder {
    fn drop(&mut self) {
        for _ in 1..REMOVALS_MAX {
            if std::fs::remove_dir_all(&self.0).is_ok() {
                return;
            }
            std::thread::park_timeout(REMOVE_EVERY);
        }
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::error!(%error, folder = %self.0.display(), "could not remove a folder");
        }
    }
}
