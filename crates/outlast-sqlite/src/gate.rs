//! The queue of processes before the write lock: `flock` on `<db>.lock` around every write.
//!
//! SQLite alone lets a waiting process sleep and look again, and while two busy writers alternate it
//! looks in vain: measured, a third process got one write in four seconds. The kernel wakes the waiters
//! of a file lock itself, and frees the lock of a process that was killed.
//!
//! A process that was *stopped* (Ctrl-Z) keeps the lock, so nobody may wait for it without end. File
//! locks have no timeout; therefore a contended lock is waited for by a helper thread, and the writer
//! waits for the helper, with patience that ends.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The gate of one broker.
pub(crate) struct Gate {
    own: File,
    helper: Arc<Helper>,
    started: bool,
    patience: Duration,
}

/// Which of the two handles holds the lock. They are two open files: a lock belongs to the open file,
/// so with one the helper's late success could not be told from the writer's own lock.
#[derive(Clone, Copy)]
pub(crate) enum Held {
    Own,
    Helper,
}

struct Helper {
    file: File,
    turn: Mutex<Turn>,
    changed: Condvar,
}

/// Where the helper is. `Wanted → Held` when it got the lock; `Abandoned` when the writer gave up first.
#[derive(Clone, Copy, PartialEq)]
enum Turn {
    Idle,
    Wanted,
    Held,
    Abandoned,
    Ended,
}

impl Gate {
    pub(crate) fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        let open = || OpenOptions::new().create(true).truncate(false).write(true).open(path);
        let helper =
            Helper { file: open()?, turn: Mutex::new(Turn::Idle), changed: Condvar::new() };
        Ok(Self { own: open()?, helper: Arc::new(helper), started: false, patience })
    }

    /// Takes the lock, or `None` if another process kept it for longer than the patience.
    pub(crate) fn enter(&mut self) -> io::Result<Option<Held>> {
        match self.own.try_lock() {
            Ok(()) => Ok(Some(Held::Own)),
            Err(TryLockError::Error(error)) => Err(error),
            Err(TryLockError::WouldBlock) => self.wait(),
        }
    }

    /// Gives the lock back.
    pub(crate) fn leave(&self, held: Held) {
        let done = match held {
            Held::Own => self.own.unlock(),
            Held::Helper => {
                let done = self.helper.file.unlock();
                self.helper.set(Turn::Idle);
                done
            }
        };
        if let Err(error) = done {
            tracing::warn!(%error, "could not unlock the write gate");
        }
    }

    /// Tells the watchers of all processes that something was committed which creates work.
    pub(crate) fn ring(&self) {
        let rung = (&self.own).seek(SeekFrom::Start(0)).and_then(|_| (&self.own).write(b"."));
        if let Err(error) = rung {
            // The others look by themselves within a second.
            tracing::warn!(%error, "could not ring for other processes");
        }
    }

    fn wait(&mut self) -> io::Result<Option<Held>> {
        self.start()?;
        self.helper.set(Turn::Wanted);
        let turn = self.helper.lock();
        let (mut turn, _) = self
            .helper
            .changed
            .wait_timeout_while(turn, self.patience, |turn| *turn == Turn::Wanted)
            .unwrap_or_else(PoisonError::into_inner);
        if *turn == Turn::Held {
            return Ok(Some(Held::Helper));
        }
        *turn = Turn::Abandoned;
        Ok(None)
    }

    fn start(&mut self) -> io::Result<()> {
        if !self.started {
            let helper = Arc::clone(&self.helper);
            std::thread::Builder::new()
                .name("outlast-sqlite-gate".into())
                .spawn(move || helper.run())?;
            self.started = true;
        }
        Ok(())
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.helper.set(Turn::Ended);
    }
}

impl Helper {
    fn lock(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, turn: Turn) {
        *self.lock() = turn;
        self.changed.notify_all();
    }

    fn run(&self) {
        while self.is_wanted() {
            if let Err(error) = self.file.lock() {
                tracing::warn!(%error, "could not wait for the write gate");
                self.set(Turn::Abandoned);
                continue;
            }
            self.hand_over();
        }
    }

    /// Waits until somebody wants the lock; false at the end.
    fn is_wanted(&self) -> bool {
        let waits = |turn: &mut Turn| !matches!(turn, Turn::Wanted | Turn::Ended);
        let turn =
            self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        *turn == Turn::Wanted
    }

    fn hand_over(&self) {
        let mut turn = self.lock();
        if *turn == Turn::Wanted {
            *turn = Turn::Held;
        } else {
            // The writer gave up, or the broker ended: whoever is next shall have it.
            let _ = self.file.unlock();
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_kept_is_given_up_on_and_had_later() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("db.lock");
        let mut first = Gate::open(&path, Duration::from_secs(5)).expect("opens");
        let mut second = Gate::open(&path, Duration::from_millis(10)).expect("opens");
        let held = first.enter().expect("no error").expect("free");
        assert!(second.enter().expect("no error").is_none(), "kept by the first");
        first.leave(held);
        second.patience = Duration::from_secs(5);
        let held = second.enter().expect("no error").expect("free again");
        second.leave(held);
        let held = first.enter().expect("no error").expect("free again");
        first.leave(held);
    }
}
