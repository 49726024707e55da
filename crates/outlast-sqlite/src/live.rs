//! Proof of life between processes: a worker's process holds a file lock as long as it lives, and the
//! kernel frees it when the process is gone, however it went. So a killed worker is noticed by the
//! next sweep of anybody, long before its leases end.
//!
//! Only a lock that was *seen free* proves a death. A file that is missing proves nothing (somebody may
//! have cleaned up), and then the leases decide. Children of a worker inherit nothing: the standard
//! library opens every file close-on-exec.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock files of the processes on one database.
pub(crate) struct Live {
    folder: PathBuf,
    mine: Mutex<Option<Mine>>,
}

struct Mine {
    instance: String,
    /// Held for the lock.
    _file: File,
}

/// What a lock file says about its process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sign {
    Alive,
    Dead,
    Unknown,
}

impl Live {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, mine: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Mine>> {
        self.mine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of this broker's lock file, which is made and locked if it is not there yet; `fresh`
    /// is its name then. `None` if that is impossible: then only leases tell of this process's death.
    pub(crate) fn instance(&self, fresh: &str) -> Option<String> {
        let mut mine = self.lock();
        if mine.is_none() {
            match self.make(fresh) {
                Ok(made) => *mine = Some(made),
                Err(error) => {
                    tracing::warn!(%error, folder = %self.folder.display(),
                        "could not make a lock file; a death of this process is noticed late");
                }
            }
        }
        mine.as_ref().map(|mine| mine.instance.clone())
    }

    /// True if the instance is this broker itself.
    pub(crate) fn is_mine(&self, instance: &str) -> bool {
        self.lock().as_ref().is_some_and(|mine| mine.instance == instance)
    }

    /// Locked under another name first: whoever sees a file under its final name sees it locked.
    fn make(&self, instance: &str) -> io::Result<Mine> {
        std::fs::create_dir_all(&self.folder)?;
        let early = self.folder.join(format!("{instance}.new"));
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&early)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::Error::from(io::ErrorKind::ResourceBusy),
        })?;
        std::fs::rename(&early, self.folder.join(instance))?;
        Ok(Mine { instance: instance.to_owned(), _file: file })
    }

    /// Looks whether the process of an instance lives.
    pub(crate) fn look(&self, instance: &str) -> Sign {
        // The name comes from the database: it must not lead out of the folder.
        if instance.is_empty() || !instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Sign::Unknown;
        }
        let Ok(file) = OpenOptions::new().write(true).open(self.folder.join(instance)) else {
            return Sign::Unknown;
        };
        match file.try_lock() {
            Ok(()) => Sign::Dead,
            Err(TryLockError::WouldBlock) => Sign::Alive,
            Err(TryLockError::Error(_)) => Sign::Unknown,
        }
    }

    /// Removes the file of a dead process.
    pub(crate) fn bury(&self, instance: &str) {
        if instance.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            // If it stays, it is only litter.
            let _ = std::fs::remove_file(self.folder.join(instance));
        }
    }

    /// Files of processes that are gone, of which `is_known` says false: at most `limit` are removed.
    pub(crate) fn tidy(&self, limit: usize, is_known: impl Fn(&str) -> bool) {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return };
        for entry in entries.flatten().take(limit) {
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if !self.is_mine(name) && !is_known(name) && self.look(name) == Sign::Dead {
                self.bury(name);
            }
        }
    }

    /// Ends this broker's proof of life; with nothing left to prove the file goes too.
    pub(crate) fn end(&self, is_needed: impl Fn(&str) -> bool) {
        if let Some(mine) = self.lock().take()
            && !is_needed(&mine.instance)
        {
            self.bury(&mine.instance);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_dead_only_if_its_lock_was_seen_free() {
        let folder = tempfile::tempdir().expect("a folder");
        let other = Live::new(folder.path().join("live"));
        let me = Live::new(folder.path().join("live"));
        assert_eq!(me.look("ab"), Sign::Unknown, "no file proves nothing");
        assert_eq!(other.instance("ab").as_deref(), Some("ab"));
        assert_eq!(me.look("ab"), Sign::Alive);
        other.end(|_| true);
        assert_eq!(me.look("ab"), Sign::Dead);
        assert_eq!(me.look("../live/ab"), Sign::Unknown, "a name that leads elsewhere");
        me.tidy(10, |_| false);
        assert_eq!(me.look("ab"), Sign::Unknown, "tidied away");
    }
}
