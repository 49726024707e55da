//! The spool's file: what it does when it is damaged, foreign, cut off, or when there is no room on the disk.

use std::process::Stdio;
use std::sync::Arc;

use outlast_core::{EnqueueVerdict, Kind};
use outlast_survive::{
    Clock, Config, NotStored, Spool, SpoolError, SpoolErrorKind, SpoolLimits, Store, Survivor, wrap,
};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

use crate::child::{Actor, command};
use crate::kit::*;

fn open(path: &std::path::Path) -> Result<Spool, SpoolErrorKind> {
    Spool::open(path, SpoolLimits::default()).map_err(|error| error.kind())
}

#[test]
fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("notes.txt");
    std::fs::write(&text, "not a database, but somebody's notes\n".repeat(40)).expect("writes");
    assert_eq!(open(&text).err(), Some(SpoolErrorKind::Damaged));
    let foreign = folder.path().join("foreign.db");
    drop(outlast_sqlite::SqliteBroker::open(&foreign, outlast_sqlite::Options::default()));
    assert_eq!(open(&foreign).err(), Some(SpoolErrorKind::Misconfigured));
    let nowhere = folder.path().join("no/such/folder/spool.db");
    assert_eq!(open(&nowhere).err(), Some(SpoolErrorKind::Misconfigured));
}

/// Of two producers that opened a new spool at once one was now and then told that it belonged to another program, as it
/// had looked at a file that was half made, or that it was locked: the switch to the write-ahead log does not wait.
#[test]
fn those_who_make_a_new_spool_at_once_all_open_it() {
    let folder = tempfile::tempdir().expect("a folder");
    for round in 0..40 {
        let file = folder.path().join(format!("{round}.db"));
        let all_at_once = std::sync::Barrier::new(6);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    all_at_once.wait();
                    Spool::open(&file, SpoolLimits::default()).expect("opens");
                });
            }
        });
    }
}

/// Another broker with the same spool, under a name of its own.
fn stranger(bed: &Bed) -> Result<Survivor, SpoolError> {
    let config = Config::new(bed.folder.path().join("spool.db"), Clock::new(|| NOW));
    let config = Config { broker: Some("the other one".into()), ..config };
    wrap(Arc::new(FaultBroker::new(Arc::new(ModelBroker::new(10)))), config)
}

#[tokio::test]
async fn what_waits_for_one_broker_is_not_delivered_to_another_that_opens_its_spool() {
    let bed = Bed::new();
    bed.broken().await;
    bed.enqueue(&["a"]).await.expect("is stored");
    let error = stranger(&bed).expect_err("is not its own");
    assert_eq!(error.kind(), SpoolErrorKind::OtherBroker);
    for word in ["\"model\"", "\"the other one\"", "spool.db", "name another file"] {
        assert!(error.to_string().contains(word), "{error}");
    }
    bed.faults.heal();
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a"]);
    stranger(&bed).expect("an empty spool goes over to whoever opens it");
}

#[tokio::test]
async fn a_spool_that_went_over_to_another_broker_stores_and_delivers_nothing_for_the_first() {
    let bed = Bed::new();
    let other = stranger(&bed).expect("it is empty");
    bed.broken().await;
    enqueue(&*bed.survivor.broker(), "q", NOW, &["ours"]).await.expect("it is empty: ours again");
    let theirs = other.spool().path().to_owned();
    let right = std::fs::File::create(theirs.with_extension("db.drain")).expect("opens");
    // Not by a lock that waits: the drain that may have it for a moment runs on this thread, and both would wait for ever.
    while right.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    // The other one is well, but its queue of the same name seems to have a backlog.
    let error = enqueue(&*other.broker(), "q", NOW, &["theirs"]).await.expect_err("not its own");
    let source = std::error::Error::source(&error).expect("has a source");
    let not_stored = source.downcast_ref::<NotStored>().expect("says why");
    assert_eq!(not_stored.spool.kind(), SpoolErrorKind::OtherBroker, "{error}");
    drop(right);
    bed.faults.heal();
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["ours"]);
    assert_eq!(other.status().expect("readable").counts.delivered, 0);
}

#[tokio::test]
async fn what_is_in_quarantine_still_belongs_to_its_broker() {
    let bed = Bed::new();
    bed.broken().await;
    bed.enqueue(&["bad"]).await.expect("is stored");
    bed.faults.heal();
    bed.faults.script(Verb::Enqueue, vec![Some(Fault::Before(Kind::Rejected)); 2]);
    bed.delivered().await;
    let put_away = bed.survivor.spool().quarantine(Store::Outbox, 10).expect("lists");
    let error = stranger(&bed).expect_err("is not its own");
    assert_eq!(error.kind(), SpoolErrorKind::OtherBroker);
    assert!(bed.survivor.spool().drop_quarantined(put_away[0].id).await.expect("is there"));
    stranger(&bed).expect("nothing is kept any more");
}

/// Stores three tasks, closes the spool, changes its file, and delivers what is left of it.
async fn delivered_after(change: impl FnOnce(&std::path::Path)) -> (Vec<String>, u64) {
    let bed = Bed::new();
    bed.broken().await;
    for id in ["first-task", "second-task", "third-task"] {
        bed.enqueue(&[id]).await.expect("is stored");
    }
    let Bed { faults, model, survivor, time, folder } = bed;
    drop(survivor);
    change(&folder.path().join("spool.db"));
    faults.heal();
    let survivor = Bed::reopen(&faults, folder.path(), &time);
    let bed = Bed { faults, model, survivor, time, folder };
    bed.delivered().await;
    (bed.pending().await, bed.status().outbox.quarantined)
}

#[tokio::test]
async fn a_record_whose_bits_have_flipped_goes_into_quarantine_and_the_others_are_delivered() {
    let flipped = delivered_after(|path| {
        let conn = rusqlite::Connection::open(path).expect("opens");
        let sql = "UPDATE item SET record = CAST(replace(CAST(record AS TEXT), 'second', 'sEcond') AS BLOB)
                   WHERE name = 'second-task'";
        assert_eq!(conn.execute(sql, []).expect("runs"), 1);
    });
    assert_eq!(flipped.await, (vec!["first-task".into(), "third-task".into()], 1));
}

#[tokio::test]
async fn a_log_whose_tail_is_torn_is_cut_at_the_last_whole_commit() {
    let bed = Bed::new();
    bed.broken().await;
    for id in ["first", "second", "third"] {
        bed.enqueue(&[id]).await.expect("is stored");
    }
    // What a crash in the middle of the last write leaves on the disk.
    let crashed = tempfile::tempdir().expect("a folder");
    for file in ["spool.db", "spool.db-wal"] {
        let to = crashed.path().join(file);
        std::fs::copy(bed.folder.path().join(file), to).expect("copies");
    }
    let log = std::fs::File::options().write(true).open(crashed.path().join("spool.db-wal"));
    let log = log.expect("opens");
    log.set_len(log.metadata().expect("is there").len() - 100).expect("cuts");
    bed.faults.heal();
    let survivor = Bed::reopen(&bed.faults, crashed.path(), &bed.time);
    until(&survivor, "all is delivered", |status| status.outbox.items == 0).await;
    until(&survivor, "two are counted", |status| status.counts.delivered == 2).await;
}

#[tokio::test]
async fn a_damaged_file_is_a_typed_error_and_not_a_task_that_was_stored() {
    let bed = Bed::new();
    bed.broken().await;
    for n in 0..200 {
        let id = format!("task-{n}-{}", "x".repeat(200));
        bed.enqueue(&[&id]).await.expect("is stored");
    }
    let path = bed.folder.path().join("spool.db");
    let conn = rusqlite::Connection::open(&path).expect("opens");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("runs");
    drop(conn);
    let damaged = tempfile::tempdir().expect("a folder");
    let mut bytes = std::fs::read(&path).expect("reads");
    bytes[8 * 4096..].fill(0xa5);
    std::fs::write(damaged.path().join("spool.db"), bytes).expect("writes");
    let survivor = Bed::reopen(&bed.faults, damaged.path(), &bed.time);
    let error = enqueue(&*survivor.failing(), "q", NOW, &["a"]).await.expect_err("it is down");
    assert_eq!(error.kind(), Kind::Unavailable);
    let error = enqueue(&*survivor.broker(), "q", NOW, &["a"]).await.expect_err("it is damaged");
    let source = std::error::Error::source(&error).expect("has a source");
    let not_stored = source.downcast_ref::<NotStored>().expect("says why");
    assert_eq!(not_stored.spool.kind(), SpoolErrorKind::Damaged, "{error}");
}

#[test]
fn a_full_disk_is_a_typed_error_and_the_spool_takes_tasks_again_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let mount = "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\"";
    let Some(mut cramped) = within("unshare", &["-m", "sh", "-c", mount], folder.path()) else {
        println!("skipped: this user may not mount a small file system");
        return;
    };
    assert_eq!(cramped.hear().as_deref(), Some("refused: disk-full"));
    assert_eq!(cramped.hear().as_deref(), Some("all that was acknowledged is there"));
    assert_eq!(cramped.hear().as_deref(), Some("takes tasks again"));
}

#[test]
fn a_device_that_refuses_to_write_is_a_typed_error_and_takes_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let limited = "trap '' XFSZ; ulimit -f 1000; exec \"$@\"";
    let limited = within("sh", &["-c", limited], folder.path());
    let mut limited = limited.expect("every shell has limits");
    assert_eq!(limited.hear().as_deref(), Some("refused: failing"));
    assert_eq!(limited.hear().as_deref(), Some("all that was acknowledged is there"));
}

/// A child that fills its spool, started by another program; `None` if that fails.
fn within(program: &str, arguments: &[&str], folder: &std::path::Path) -> Option<Actor> {
    let child = command("cramped", folder);
    let mut command = std::process::Command::new(program);
    command.args(arguments).arg(folder).arg(child.get_program()).args(child.get_args());
    for (name, value) in child.get_envs() {
        command.env(name, value?);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut actor = Actor::spawn(&mut command);
    (actor.hear()? == "begins").then_some(actor)
}

#[tokio::test]
async fn a_spool_that_may_not_be_written_any_more_stops_nothing_while_the_broker_is_well() {
    let bed = Bed::new();
    std::fs::remove_file(bed.folder.path().join("spool.db")).expect("is there");
    let verdicts = bed.enqueue(&["a"]).await.expect("the broker takes it");
    assert!(matches!(verdicts[0], EnqueueVerdict::Accepted { .. }));
}
