//! Hearing that another process has created work: whoever commits some writes a byte to the gate's file
//! (the bell, see [`crate::gate::Gate::ring`]), and every process watches that file (inotify). Each ring
//! makes the writer compare `PRAGMA data_version`, which its own commits do not move.
//!
//! The log itself cannot be watched instead (tried): it is written before the commit becomes visible,
//! so whoever looks at once sees nothing, and nobody writes a second time.
//!
//! Where no watcher can be had, waiters ask the writer to compare every [`POLL`].

use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};

/// How often a waiter without a watcher has the writer look.
pub(crate) const POLL: Duration = Duration::from_millis(5);

/// After each look the watcher rests: under load every commit rings, and one look covers all that
/// happened in between.
const REST: Duration = Duration::from_millis(2);

/// A watch on the bell of a database, until it is dropped.
pub(crate) struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches a bell, calling `look` after rings. `None` if the system allows no more watchers.
    pub(crate) fn start(bell: &Path, look: Box<dyn Fn() + Send + Sync>) -> Option<Self> {
        let on_change = move |event: notify::Result<notify::Event>| {
            // An error may mean that events were lost: look as well.
            if event.map_or(true, |event| event.kind.is_modify()) {
                look();
                rest();
            }
        };
        let started = notify::recommended_watcher(on_change).and_then(|mut watcher| {
            watcher.watch(bell, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match started {
            Ok(watcher) => Some(Self { _watcher: watcher }),
            Err(error) => {
                tracing::warn!(%error, bell = %bell.display(), "could not watch for other processes");
                None
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the watcher's own thread: nobody else waits for it")]
fn rest() {
    std::thread::sleep(REST);
}
