//! The mark of a spool: bytes in a file of their own that are others after every commit, whoever has made it.
//!
//! Whether tasks wait must be known before every enqueue, of all processes (a task never overtakes a stored one), and asking
//! SQLite takes ten times as long as reading these bytes. They are written before a commit is answered: who is told that
//! his task is stored knows that everybody sees it. Whoever is killed between the two has told nobody.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Who has written it last, and for the how many-th time: no two writes are alike.
pub(super) type Value = [u8; 16];

pub(super) struct Mark {
    file: File,
    me: u64,
}

impl Mark {
    /// The mark beside a spool. Whoever may write the spool may write it.
    pub(super) fn open(spool: &Path) -> io::Result<Self> {
        let mut path = spool.to_owned().into_os_string();
        path.push(".mark");
        let is_new = !Path::new(&path).exists();
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        if is_new {
            file.set_permissions(spool.metadata()?.permissions())?;
        }
        let mark = Self { file, me: rand::random() };
        if mark.value().is_none() {
            mark.change(0)?;
        }
        Ok(mark)
    }

    /// Makes it another one; `count` is another one each time.
    pub(super) fn change(&self, count: u64) -> io::Result<()> {
        let mut value = Value::default();
        value[..8].copy_from_slice(&self.me.to_le_bytes());
        value[8..].copy_from_slice(&count.to_le_bytes());
        self.file.write_all_at(&value, 0)
    }

    /// What it is now; `None` if it cannot be read.
    pub(super) fn value(&self) -> Option<Value> {
        let mut value = Value::default();
        self.file.read_exact_at(&mut value, 0).ok().map(|()| value)
    }
}
