//! The spool, at each of its writes to the disk: its process dies there, or the disk says no.
//!
//! The system calls are spoiled from outside (`strace`), so that it is the real file on a real disk. Where that is not possible the tests
//! say that they are skipped.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use outlast_survive::{Spool, SpoolLimits, Store, wrap};

use crate::child::{Actor, broker, command, config};
use crate::kit::*;

/// All by which the spool changes its files.
const WRITES: &str = "pwrite64,write,ftruncate,fdatasync,fsync,unlink";

/// What a process said that stored tasks, until it died or was done.
struct Saved {
    stored: Vec<String>,
    refused: Vec<String>,
    is_done: bool,
}

/// Runs a process that stores tasks, and spoils these calls of its spool. `None` where nobody may do that.
fn save(folder: &Path, calls: &str, how: &str) -> Option<Saved> {
    let role = command("saver", folder);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o"]).arg(folder.join("trace")).arg(format!("-etrace={calls}"));
    // Of the files of the spool alone: a process writes lines and wakes itself, too.
    for name in ["spool.db", "spool.db-wal", "spool.db.mark"] {
        traced.arg("-P").arg(folder.join(name));
    }
    traced.arg(format!("-einject={calls}:{how}")).arg(role.get_program()).args(role.get_args());
    for (name, value) in role.get_envs() {
        traced.env(name, value?);
    }
    traced.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    if Command::new("strace").args(["-qq", "-etrace=none", "true"]).status().ok()?.code() != Some(0)
    {
        return None;
    }
    let mut saver = Actor::spawn(&mut traced);
    let mut saved = Saved { stored: Vec::new(), refused: Vec::new(), is_done: false };
    while let Some(line) = saver.hear() {
        match line.split_once(' ') {
            Some(("stored", id)) => saved.stored.push(id.to_owned()),
            Some((_, kind)) => saved.refused.push(kind.to_owned()),
            None => saved.is_done = true,
        }
    }
    Some(saved)
}

/// A folder with a spool that the same broker has had before: opening it writes nothing.
fn fresh() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    drop(wrap(Arc::new(broker(folder.path())), config(folder.path())).expect("opens"));
    folder
}

/// Whatever was said to be stored reaches the broker, and the spool takes tasks as ever.
async fn check(folder: &Path, saved: &Saved, what: &str) {
    let spool = Spool::open(folder.join("spool.db"), SpoolLimits::default()).expect(what);
    let there = spool.items(Store::Outbox, 100).expect(what);
    let there: Vec<String> = there.into_iter().map(|item| item.name).collect();
    let lost: Vec<_> = saved.stored.iter().filter(|id| !there.contains(id)).collect();
    assert!(lost.is_empty(), "{what}: {lost:?} of {:?} is gone, {there:?} is there", saved.stored);
    assert!(there.is_sorted(), "{what}: {there:?}");
    let survivor = wrap(Arc::new(broker(folder)), config(folder)).expect(what);
    until(&survivor, what, |status| status.outbox.items == 0).await;
    assert_eq!(survivor.status().expect(what).outbox.quarantined, 0, "{what}");
    let tasks = broker(folder);
    assert_eq!(pending(&tasks, "q", NOW).await, there, "{what}");
}

#[tokio::test]
async fn a_process_that_is_killed_at_any_of_its_writes_has_stored_what_it_said() {
    let mut kills = 0;
    loop {
        let (folder, nth) = (fresh(), kills + 1);
        let how = format!("signal=SIGKILL:when={nth}");
        let Some(saved) = save(folder.path(), WRITES, &how) else {
            return println!("skipped: system calls cannot be spoiled here");
        };
        check(folder.path(), &saved, &format!("killed at write {nth}")).await;
        if saved.is_done {
            break;
        }
        kills = nth;
    }
    assert!(kills >= 6 * 3, "each task is a write, a sync and a mark: only {kills}");
}

#[tokio::test]
async fn a_sync_that_fails_is_a_typed_error_and_takes_nothing_that_was_acknowledged() {
    // Before the fifth failure nothing is said of an outage to other processes, which would be a sync of its own.
    for nth in 1..=4 {
        let folder = fresh();
        // Nobody drains meanwhile, which takes syncs, too.
        let right = std::fs::File::create(folder.path().join("spool.db.drain")).expect("opens");
        right.lock().expect("is free");
        let how = format!("error=EIO:when={nth}");
        let Some(saved) = save(folder.path(), "fdatasync,fsync", &how) else {
            return println!("skipped: system calls cannot be spoiled here");
        };
        drop(right);
        let what = format!("sync {nth} fails");
        assert!(saved.is_done, "{what}");
        assert_eq!(saved.refused, ["failing"], "{what}");
        assert_eq!(saved.stored.len(), 5, "{what}: it goes on with the next task");
        check(folder.path(), &saved, &what).await;
    }
}
