//! The common suite, and random comparison with the model, on a file of their own each.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{Broker, Inspect, Kind, Porter, QueueName, TaskId};
use outlast_sqlite::{Options, SqliteBroker};
use outlast_testkit::conformance::{Differences, Fixture, Handle, Provoked, Skip};
use outlast_testkit::random;
use rusqlite::Connection;
use tempfile::TempDir;

const ARCHIVE_MAX: usize = 20;

struct SqliteFixture {
    broker: SqliteBroker,
    folder: TempDir,
}

impl SqliteFixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { broker: open(folder.path().join("tasks.db")), folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tasks.db")
    }
}

fn open(path: PathBuf) -> SqliteBroker {
    let busy_timeout = Duration::from_millis(50);
    let options = Options { archive_max: ARCHIVE_MAX, busy_timeout, ..Options::default() };
    SqliteBroker::open(path, options).expect("the file opens")
}

fn handle(broker: SqliteBroker) -> Handle {
    Handle { broker: Arc::new(broker.clone()), inspect: Arc::new(broker) }
}

#[async_trait]
impl Fixture for SqliteFixture {
    fn broker(&self) -> Arc<dyn Broker> {
        Arc::new(self.broker.clone())
    }

    fn inspect(&self) -> Arc<dyn Inspect> {
        Arc::new(self.broker.clone())
    }

    fn porter(&self) -> Result<Arc<dyn Porter>, Skip> {
        Ok(Arc::new(self.broker.clone()))
    }

    fn other(&self) -> Result<Box<dyn Fixture>, Skip> {
        Ok(Box::new(SqliteFixture::new()))
    }

    fn differences(&self) -> Differences {
        Differences { archive_max: ARCHIVE_MAX, ..Differences::default() }
    }

    async fn second_handle(&self) -> Result<Handle, Skip> {
        Ok(handle(open(self.path())))
    }

    async fn provoke(&self, kind: Kind) -> Result<Provoked, Skip> {
        match kind {
            Kind::Busy => {
                let other = Connection::open(self.path()).expect("the file opens");
                other.execute_batch("BEGIN IMMEDIATE").expect("the file is free");
                let heal = Box::new(move || other.execute_batch("ROLLBACK").expect("it was begun"));
                Ok(Provoked {
                    handle: handle(self.broker.clone()),
                    heal: Some(heal),
                    guard: Box::new(()),
                })
            }
            Kind::Unavailable => {
                let closed = open(self.path());
                closed.close().await;
                Ok(Provoked { handle: handle(closed), heal: None, guard: Box::new(()) })
            }
            // What a file can do to these kinds is in tests/it/files.rs, each with its own story.
            kind => Err(Skip(format!("{kind} needs a file that is damaged, foreign or read-only"))),
        }
    }

    async fn corrupt(&self, queue: &QueueName, id: &TaskId) -> Result<(), Skip> {
        let sql = "UPDATE task SET headers = '{' WHERE id = ?1
                   AND queue = (SELECT qid FROM queue WHERE name = ?2)";
        let other = Connection::open(self.path()).expect("the file opens");
        let changed = other.execute(sql, [id.as_str(), queue.as_str()]).expect("the file is free");
        assert_eq!(changed, 1, "the task is there");
        Ok(())
    }
}

outlast_testkit::conformance!(SqliteFixture::new());

#[test]
fn random_sequences_of_verbs_end_as_in_the_model() {
    random::check(40, || async { SqliteFixture::new() });
}
