//! The connection that looks into the spool, and the answer to what is asked before every enqueue: is it empty?

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use tokio::time::Instant;

use super::mark::{Mark, Value};

/// How long an unchanged mark is believed: a process that may not write it, or an older program, is seen after this.
const BELIEVED_FOR: Duration = Duration::from_millis(100);

pub(super) struct Reader {
    pub(super) conn: Connection,
    /// `None` where it cannot be opened: then every look goes into the file.
    mark: Option<Arc<Mark>>,
    seen: Option<Look>,
}

/// A look into the file.
struct Look {
    /// The mark before it.
    mark: Value,
    at: Instant,
    /// Whether both stores were empty.
    is_empty: bool,
}

impl Reader {
    pub(super) fn new(conn: Connection, mark: Option<Arc<Mark>>) -> Self {
        Self { conn, mark, seen: None }
    }

    /// Whether both stores are empty, looked up again only when the mark has changed.
    pub(super) fn is_empty(&mut self) -> rusqlite::Result<bool> {
        // Before the look: what is committed during it is looked up again.
        let mark = self.mark.as_ref().and_then(|mark| mark.value());
        let same = self.seen.as_ref().filter(|seen| Some(seen.mark) == mark);
        if let Some(seen) = same.filter(|seen| seen.at.elapsed() < BELIEVED_FOR) {
            return Ok(seen.is_empty);
        }
        let at = Instant::now();
        let is_empty = self
            .conn
            .prepare_cached("SELECT sum(items) = 0 FROM meter WHERE queue = ''")?
            .query_row([], |row| row.get(0))?;
        self.seen = mark.map(|mark| Look { mark, at, is_empty });
        Ok(is_empty)
    }
}

#[cfg(test)]
mod tests {
    use outlast_core::{Durability, QueueName, Timestamp};

    use super::*;
    use crate::spool::{NewItem, Parcel, Spool, SpoolLimits, Store};

    struct World {
        /// Two processes.
        spools: [Spool; 2],
        queue: QueueName,
        _folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("spool.db");
            let open = || Spool::open(&path, SpoolLimits::default()).expect("opens");
            Self { spools: [open(), open()], queue: QueueName::stored("q"), _folder: folder }
        }

        fn sees_tasks(&self) -> bool {
            self.spools[0].has_backlog(Store::Outbox, &self.queue).expect("is readable")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_another_process_has_stored_is_seen_at_once_though_the_spool_was_empty() {
        let world = World::new();
        assert!(!world.sees_tasks());
        let (store, queue, durability) = (Store::Outbox, world.queue.clone(), Durability::Accepted);
        let items = [NewItem { name: "a".into(), record: vec![0; 8] }].into();
        let now = Timestamp::from_seconds(1_800_000_000);
        let parcel = Parcel { store, queue, now, durability, stamp: None, items };
        world.spools[1].store(parcel).await.expect("is stored");
        assert!(world.sees_tasks());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_spool_is_not_looked_into_again_until_somebody_says_so_or_a_moment_has_passed()
    {
        let world = World::new();
        assert!(!world.sees_tasks());
        // As a program does that knows of no mark.
        let conn = Connection::open(world.spools[0].path()).expect("opens");
        let sql = "INSERT INTO item (store, queue, name, durability, stored_at, record)
                   VALUES (0, 'q', 'a', 1, 0, x'00')";
        conn.execute(sql, []).expect("is stored");
        assert!(!world.sees_tasks(), "the mark is what it was");
        tokio::time::advance(BELIEVED_FOR).await;
        assert!(world.sees_tasks());
    }
}
