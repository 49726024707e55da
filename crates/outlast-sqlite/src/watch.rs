//! Seeing that another process has written: the write-ahead log is watched (inotify), and each change
//! makes the writer compare `PRAGMA data_version`, which its own commits do not move.
//!
//! Where no watcher can be had, waiters ask the writer to compare every [`POLL`].

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// How often a waiter without a watcher has the writer look.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// After each look the watcher rests: under load every commit changes the log, and one look covers all
/// that happened in between.
const REST: Duration = Duration::from_millis(2);

/// A watch on the log of a database, until it is dropped.
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches a log, calling `look` after changes. `None` if the system allows no more watchers.
    pub(crate) fn start(log: &Path, look: Box<dyn Fn() + Send + Sync>) -> Option<Self> {
        let on_change = move |event: notify::Result<notify::Event>| {
            // An error may mean that events were lost: look as well.
            if event.map_or(true, |event| !event.kind.is_access()) {
                look();
                std::thread::sleep(REST);
            }
        };
        let started = notify::recommended_watcher(on_change).and_then(|mut watcher| {
            watcher.watch(log, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => Some(Self { _watcher: watcher }),
            Err(error) => {
                tracing::warn!(%error, log = %log.display(), "could not watch for other processes");
                None
            }
        }
    }
}
