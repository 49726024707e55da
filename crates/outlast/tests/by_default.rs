//! What a connection does without being told to: it outlives outages, in a file that is the user's. Each case is this binary,
//! run again in an environment of its own: a test never writes into the home of whoever runs it.

#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]
#![cfg(feature = "redis")]

use std::path::{Path, PathBuf};
use std::process::Command;

use outlast::survive::{SpoolErrorKind, Survive, default_spool};
use outlast::{Client, Connection, ErrorKind, TaskRequest, Verdict};

/// Set in the process that plays a case.
const PLAYS: &str = "OUTLAST_TEST_PLAYS";

/// Nobody listens there.
const AWAY: &str = "redis://127.0.0.1:1";

/// True in a process of its own, whose state folder is this one; else runs the test there, and says that it did.
fn is_in(test: &str, state: &Path) -> bool {
    if std::env::var_os(PLAYS).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PLAYS, "1");
    command.env("XDG_STATE_HOME", state).env("HOME", state).env_remove("OUTLAST_SPOOL");
    assert!(command.status().unwrap().success(), "{test}");
    false
}

/// What a state folder holds of ours, name by name.
fn files(state: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(state.join("outlast"));
    let names = folder.into_iter().flatten().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|kind| kind == "db")).collect()
}

#[tokio::test]
async fn a_task_for_a_server_that_is_away_is_stored_where_the_program_looks_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let test = "a_task_for_a_server_that_is_away_is_stored_where_the_program_looks_for_it";
    if is_in(test, folder.path()) {
        let client = Client::open("redis://queue:secret@127.0.0.1:1/0").await.unwrap();
        let receipt = client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
        assert_eq!(receipt.verdict, Verdict::Stored);
        let other = Client::open("redis://127.0.0.1:1/5").await.unwrap();
        other.enqueue(TaskRequest::raw("t", "")).await.unwrap();
        return;
    }
    let env = |name: &str| (name == "XDG_STATE_HOME").then(|| folder.path().into());
    let mut expected =
        [AWAY, "redis://127.0.0.1:1/5"].map(|url| default_spool(url, env).unwrap().unwrap());
    let mut files = files(folder.path());
    files.sort();
    expected.sort();
    assert_eq!(files, expected);
}

#[tokio::test]
async fn who_only_looks_and_who_has_a_file_of_its_own_leaves_nothing_in_the_home() {
    let folder = tempfile::tempdir().unwrap();
    let test = "who_only_looks_and_who_has_a_file_of_its_own_leaves_nothing_in_the_home";
    if is_in(test, folder.path()) {
        let own = tempfile::tempdir().unwrap();
        let survive = Survive::new(own.path().join("outbox.db"));
        let connection = Connection::surviving(AWAY, survive.clone()).await.unwrap();
        let twice = connection.survive(survive).await.unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Invalid, "{twice}");
        Connection::open("sqlite::memory:").await.unwrap();
        Connection::without_spool(AWAY).await.unwrap_err();
        let wrong = Connection::open("redis://h/x").await.unwrap_err();
        assert_eq!(wrong.kind(), ErrorKind::Invalid, "{wrong}");
        return;
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_home_that_cannot_be_written_is_told_with_its_path_and_what_can_be_done() {
    let folder = tempfile::tempdir().unwrap();
    let no_folder = folder.path().join("file");
    std::fs::write(&no_folder, "").unwrap();
    let test = "a_home_that_cannot_be_written_is_told_with_its_path_and_what_can_be_done";
    if is_in(test, &no_folder) {
        let error = Connection::open(AWAY).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Spool(SpoolErrorKind::Misconfigured));
        let (said, state) = (error.to_string(), std::env::var("XDG_STATE_HOME").unwrap());
        assert!(said.contains(&state) && said.contains("name a file by OUTLAST_SPOOL"), "{said}");
    }
}
