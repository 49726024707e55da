//! Files that are not what they should be, and files of earlier versions.

use std::path::Path;

use outlast_core::{Broker, BrokerError, Inspect, Kind, TaskState};
use outlast_sqlite::{Options, SCHEMA_VERSION, SqliteBroker};
use rusqlite::Connection;

use crate::child::{Actor, command};
use crate::kit::*;

fn refused(path: &Path) -> BrokerError {
    let error = SqliteBroker::open(path, Options::default()).expect_err("must not open");
    assert!(error.to_string().contains(&path.display().to_string()), "names the file: {error}");
    error
}

#[test]
fn a_file_that_does_not_exist_is_unavailable_unless_it_may_be_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let options = Options { create: false, ..Options::default() };
    let error = SqliteBroker::open(&file, options).expect_err("must not open");
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(!file.exists());
    assert_eq!(refused(&folder.path().join("no/such/tasks.db")).kind(), Kind::Unavailable);
}

#[test]
fn a_newer_schema_is_refused_and_left_untouched() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    drop(open(&file));
    let newer = SCHEMA_VERSION + 1;
    let conn = Connection::open(&file).expect("opens");
    conn.pragma_update(None, "user_version", newer).expect("writes");
    // A copy that nobody has open: the broker that was dropped may still be writing its log back.
    let file = folder.path().join("newer.db");
    conn.execute("VACUUM INTO ?1", [file.to_str().expect("a plain name")]).expect("copies");
    let before = std::fs::read(&file).expect("reads");
    let error = refused(&file);
    assert_eq!(error.kind(), Kind::Misconfigured);
    let text = error.to_string();
    assert!(text.contains(&format!("version {newer}")), "{text}");
    assert!(text.contains(&format!("knows {SCHEMA_VERSION}")), "{text}");
    assert!(before == std::fs::read(&file).expect("reads"), "the file was changed");
}

#[test]
fn the_database_of_another_program_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("other.db");
    let conn = Connection::open(&file).expect("opens");
    conn.execute_batch("CREATE TABLE notes (text)").expect("writes");
    let error = refused(&file);
    assert_eq!(error.kind(), Kind::Misconfigured);
    assert!(error.to_string().contains("another program"), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_corrupt() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    std::fs::write(&file, "this is a text, and long enough to be one\n".repeat(100))
        .expect("writes");
    assert_eq!(refused(&file).kind(), Kind::Corrupt);
}

#[tokio::test]
async fn a_damaged_page_is_corrupt_and_the_broker_says_so_without_dying() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let broker = open(&file);
    let batch = tasks((0..200).map(|n| n.to_string()));
    broker.enqueue(&queue("q"), stamp(), NOW, batch).await.expect("enqueues");
    broker.close().await;
    damage_index(&file);
    let broker = open(&file);
    let error = broker.enqueue(&queue("q"), stamp(), NOW, tasks(["0".into()])).await;
    let error = error.expect_err("the index of ids is damaged");
    assert_eq!(error.kind(), Kind::Corrupt, "{error}");
    assert!(std::error::Error::source(&error).is_some());
    assert!(broker.queue(&queue("q"), NOW).await.is_ok(), "the rest can be read");
}

/// Writes over the root page of the index of ids.
fn damage_index(file: &Path) {
    let conn = Connection::open(file).expect("opens");
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'task_id'";
    let page: u32 = conn.query_row(sql, [], |row| row.get(0)).expect("is there");
    conn.close().expect("closes");
    use std::os::unix::fs::FileExt;
    let raw = std::fs::OpenOptions::new().write(true).open(file).expect("opens");
    raw.write_all_at(&[0x55; 4096], u64::from(page - 1) * 4096).expect("writes");
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_put_away_and_can_be_looked_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    let broker = open(&file);
    for id in ["1", "2", "3"] {
        put(&broker, "q", task(id)).await;
    }
    let conn = Connection::open(&file).expect("opens");
    conn.execute("UPDATE task SET payload = 7 WHERE id = '2'", []).expect("writes");
    let claims = take(&broker, "q", 1, 10).await;
    assert_eq!(ids(&claims), ["1", "corrupt 2", "3"]);
    let found = broker.task(&queue("q"), &task("2").id, NOW).await.expect("answers");
    let found = found.expect("is kept");
    assert_eq!(found.state, TaskState::Archived);
    let error = found.last_error.expect("says why");
    assert!(error.contains("column payload holds the number 7"), "{error}");
}

#[test]
fn a_file_that_may_not_be_written_is_misconfigured() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tasks.db");
    drop(open(&file));
    let mode = |path: &Path, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, mode).expect("changes the mode");
    };
    mode(&file, 0o444);
    mode(folder.path(), 0o555);
    let mut child = command("open", &file);
    if std::fs::OpenOptions::new().write(true).open(&file).is_ok() {
        // Nothing is denied to root: ask as nobody.
        child.uid(65534);
    }
    let said = Actor::spawn(&mut child).ok().and_then(|mut actor| actor.hear());
    mode(folder.path(), 0o755);
    match said {
        Some(said) => assert!(said.starts_with("misconfigured: "), "{said}"),
        None => println!("skipped: this test binary cannot be run by another user"),
    }
}

/// `fixtures/v1.db` was made by the first release and holds a task in every state, a group, a lock, a
/// paused queue and a schedule. It is never made anew: whatever the schema becomes, it must open.
#[tokio::test]
async fn a_database_of_version_1_opens_with_everything_in_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("v1.db");
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1.db");
    std::fs::copy(fixture, &file).expect("copies");
    let broker = open(&file);
    let stats = broker.queue(&queue("all"), NOW).await.expect("answers").expect("exists");
    for state in TaskState::ALL {
        assert_eq!(stats.count(state), 1, "{state}");
    }
    assert_eq!((stats.groups, stats.processed_total, stats.failed_total), (1, 3, 2));
    let paused = broker.queue(&queue("paused"), NOW).await.expect("answers").expect("exists");
    assert_eq!(paused.paused_since, Some(NOW));
    let found = broker.task(&queue("all"), &task("completed").id, NOW).await.expect("answers");
    assert_eq!(found.expect("is stored").result.as_deref(), Some(&b"the result"[..]));
    assert_eq!(ids(&take(&broker, "all", 2, 10).await), ["pending"]);
    let health = broker.health(&broker.home(&queue("all")), NOW).await.expect("answers");
    assert_eq!(health.epoch.0.len(), 32);
}

/// How `fixtures/v1.db` was made: `OUTLAST_MAKE_FIXTURE=path cargo test … makes_a_fixture`.
#[tokio::test]
async fn makes_a_fixture() {
    let Ok(path) = std::env::var("OUTLAST_MAKE_FIXTURE") else { return };
    let broker = open(Path::new(&path));
    crate::states::one_in_every_state(&broker, "all").await;
    broker.control(&queue("paused"), outlast_core::QueueControl::Pause, NOW).await.expect("pauses");
    broker.close().await;
    let conn = Connection::open(&path).expect("opens");
    conn.execute_batch("PRAGMA journal_mode = DELETE; VACUUM").expect("shrinks");
}
