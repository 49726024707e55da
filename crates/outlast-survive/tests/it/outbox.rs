//! The outbox: what was accepted while the broker was away reaches it, in order, once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use outlast_core::{EnqueueVerdict, Kind};
use outlast_survive::{Event, NotStored, Shelf, SpoolError, SpoolErrorKind, Store, WhenFull};
use outlast_testkit::fault::{Fault, Verb};

use crate::kit::*;

const HOUR_MS: i64 = 3_600_000;

#[tokio::test]
async fn while_the_broker_is_well_nothing_is_stored_and_its_answers_are_handed_through() {
    let bed = Bed::new();
    let verdicts = bed.enqueue(&["a", "b", "a"]).await.expect("answers");
    assert!(matches!(verdicts[0], EnqueueVerdict::Accepted { .. }), "{verdicts:?}");
    assert_eq!(verdicts[2], EnqueueVerdict::IdConflict);
    assert_eq!(bed.status().counts.stored, 0);
    assert_eq!(bed.pending().await, ["a", "b"]);
}

#[tokio::test]
async fn a_process_that_lingers_delivers_what_others_have_left_and_ends_soon_while_the_broker_is_away()
 {
    // After an outage each short-lived producer stored its task behind the others and ended: nobody delivered them.
    let bed = Bed::new();
    bed.down(Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a", "b"]).await.expect("is stored");
    let begun = tokio::time::Instant::now();
    bed.survivor.linger(SOON).await.expect("the spool is readable");
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    assert_eq!(bed.status().outbox.items, 2);
    bed.survivor.stop().await;
    bed.faults.heal();
    let next = bed.neighbour();
    next.linger(SOON).await.expect("the spool is readable");
    assert_eq!(bed.status().outbox.items, 0);
    assert_eq!(bed.pending().await, ["a", "b"]);
}

#[tokio::test]
async fn tasks_of_an_outage_are_stored_and_reach_the_broker_once_and_in_order() {
    for kind in [Kind::Unavailable, Kind::Busy, Kind::Misconfigured, Kind::Ambiguous] {
        let bed = Bed::new();
        bed.down(Fault::Before(kind));
        let ids: Vec<String> = (0..20).map(|n| format!("t{n:02}")).collect();
        for id in &ids {
            let verdicts = bed.enqueue(&[id]).await.expect("is stored");
            assert_eq!(verdicts, [EnqueueVerdict::Stored], "{kind}");
        }
        assert_eq!(bed.status().outbox.items, 20, "{kind}");
        assert!(bed.pending().await.is_empty());
        bed.faults.heal();
        bed.delivered().await;
        assert_eq!(bed.pending().await, ids, "{kind}");
        bed.until("all are counted", |status| status.counts.delivered == 20).await;
    }
}

#[tokio::test]
async fn a_task_whose_reply_was_lost_is_not_stored_twice_nor_called_a_conflict() {
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, [Some(Fault::After)]);
    assert_eq!(bed.enqueue(&["a"]).await.expect("is stored"), [EnqueueVerdict::Stored]);
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a"]);
    bed.until("it is counted", |status| status.counts.delivered == 1).await;
    assert_eq!(bed.status().counts.id_conflicts, 0);
}

#[tokio::test]
async fn a_task_that_ran_before_its_lost_reply_was_repeated_does_not_run_again() {
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, [Some(Fault::After)]);
    bed.faults.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a"]).await.expect("is stored");
    let claimed = bed.claim(1).await;
    bed.done(&claimed[0]).await;
    bed.faults.heal();
    bed.delivered().await;
    assert!(bed.pending().await.is_empty(), "it is done and gone");
    assert_eq!(bed.status().counts.id_conflicts, 0);
}

#[tokio::test]
async fn an_enqueue_that_takes_too_long_is_stored_and_leaves_the_spool_when_it_answers() {
    let bed = Bed::with(|config| config.patience = Duration::from_millis(20));
    bed.faults.script(Verb::Enqueue, [Some(Fault::Hang)]);
    assert_eq!(bed.enqueue(&["a"]).await.expect("is stored"), [EnqueueVerdict::Stored]);
    assert_eq!(bed.status().outbox.items, 1);
    // The drain delivered it as well while the call was under way: a slow broker got everything twice.
    let begun = tokio::time::Instant::now();
    bed.until("a drain would be there", |_| begun.elapsed() > Duration::from_millis(200)).await;
    bed.faults.release();
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a"]);
    assert_eq!(bed.faults.calls(Verb::Enqueue), 1);
}

#[tokio::test]
async fn a_task_never_overtakes_one_that_another_process_has_stored() {
    let bed = Bed::new();
    let other = bed.neighbour();
    bed.faults.script(Verb::Enqueue, [Some(Fault::Before(Kind::Unavailable))]);
    let hold = bed.survivor.spool().path().with_extension("db.drain");
    // Nobody drains while the test holds the right to.
    let right = std::fs::File::create(hold).expect("opens");
    right.lock().expect("is free");
    enqueue(&*other.broker(), "q", bed.now(), &["first"]).await.expect("is stored");
    let second = bed.enqueue(&["second"]).await.expect("is stored");
    assert_eq!(second, [EnqueueVerdict::Stored], "though the broker is well");
    drop(right);
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["first", "second"]);
    assert!(matches!(
        bed.enqueue(&["third"]).await.expect("answers")[0],
        EnqueueVerdict::Accepted { .. }
    ));
}

#[tokio::test]
async fn what_was_stored_outlives_the_process() {
    let bed = Bed::new();
    bed.down(Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a", "b"]).await.expect("is stored");
    let Bed { faults, model, survivor, time, folder } = bed;
    drop(survivor);
    faults.heal();
    let bed =
        Bed { survivor: Bed::reopen(&faults, folder.path(), &time), faults, model, time, folder };
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a", "b"]);
}

#[tokio::test]
async fn duplicates_conflicts_and_refused_tasks_are_told_one_by_one() {
    let bed = Bed::new();
    bed.enqueue(&["taken"]).await.expect("answers");
    let mut events = bed.survivor.events();
    bed.down(Fault::Before(Kind::Unavailable));
    bed.enqueue(&["taken", "fine"]).await.expect("is stored");
    bed.faults.heal();
    let id = event(&mut events, |event| match event {
        Event::IdConflict { id, .. } => Some(id),
        _ => None,
    });
    assert_eq!(id.await, "taken");
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["taken", "fine"]);
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_is_delivered_but_for_its_bad_task() {
    let bed = Bed::new();
    bed.down(Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a", "b", "c"]).await.expect("is stored");
    bed.faults.heal();
    // The whole batch, then the first alone; the others pass.
    let refused = Some(Fault::Before(Kind::Rejected));
    bed.faults.script(Verb::Enqueue, [refused, refused, None, None]);
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["b", "c"]);
    let put_away =
        bed.survivor.spool().quarantine(outlast_survive::Store::Outbox, 10).expect("lists");
    assert_eq!(put_away.iter().map(|item| item.name.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(bed.survivor.spool().retry(put_away[0].id, bed.now()).await.expect("is there"));
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["b", "c", "a"]);
}

#[tokio::test]
async fn a_task_whose_deadline_passed_in_the_outbox_is_told_and_kept_but_not_delivered() {
    let bed = Bed::new();
    bed.down(Fault::Before(Kind::Unavailable));
    let mut late = outlast_testkit::conformance::task("late");
    late.deadline = Some(NOW.plus(Duration::from_secs(5)));
    let broker = bed.survivor.broker();
    broker.enqueue(&queue("q"), stamp(), NOW, [late].into()).await.expect("is stored");
    bed.enqueue(&["in time"]).await.expect("is stored");
    bed.time.fetch_add(60_000, std::sync::atomic::Ordering::SeqCst);
    let mut events = bed.survivor.events();
    bed.faults.heal();
    let why = event(&mut events, |event| match event {
        Event::Quarantined { id, why, .. } if id == "late" => Some(why),
        _ => None,
    });
    assert!(why.await.contains("has passed"));
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["in time"]);
    assert_eq!(bed.status().outbox.quarantined, 1);
}

fn source(error: &dyn std::error::Error) -> Option<SpoolErrorKind> {
    let not_stored = error.source()?.downcast_ref::<NotStored>()?;
    Some(SpoolError::kind(&not_stored.spool))
}

#[tokio::test]
async fn a_full_outbox_refuses_with_the_brokers_kind_and_its_own_reason() {
    let bed = Bed::with(|config| config.limits.items_max = 2);
    bed.down(Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a", "b"]).await.expect("is stored");
    let error = bed.enqueue(&["c"]).await.expect_err("there is no room");
    assert_eq!(source(&error), Some(SpoolErrorKind::Full), "{error}");
    assert!(error.to_string().contains("2 items of"), "{error}");
    bed.faults.heal();
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a", "b"]);
}

#[tokio::test]
async fn an_outbox_that_may_wait_has_room_once_something_was_delivered() {
    let bed = Bed::with(|config| {
        config.limits.items_max = 1;
        config.limits.when_full = WhenFull::Block(SOON);
    });
    bed.down(Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a"]).await.expect("is stored");
    let waiting = bed.enqueue(&["b"]);
    let healing = async {
        bed.faults.heal();
    };
    let (waited, ()) = tokio::join!(waiting, healing);
    assert_eq!(waited.expect("found room"), [EnqueueVerdict::Stored]);
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a", "b"]);
}

#[tokio::test]
async fn an_outbox_that_may_drop_its_oldest_tasks_says_which() {
    let bed = Bed::with(|config| {
        config.limits.items_max = 20;
        config.limits.when_full = WhenFull::DropOldest;
    });
    bed.broken().await;
    let mut events = bed.survivor.events();
    for n in 0..21 {
        bed.enqueue(&[&format!("t{n}")]).await.expect("is stored");
    }
    let ids = event(&mut events, |event| match event {
        Event::Dropped { ids, .. } => Some(ids),
        _ => None,
    });
    assert_eq!(ids.await[0], "t0");
    assert_eq!(bed.status().counts.dropped + bed.status().outbox.items, 21);
}

#[tokio::test]
async fn a_batch_whose_stamp_is_twelve_hours_old_is_sent_all_the_same_and_counted_as_a_possible_repeat()
 {
    let bed = Bed::new();
    // It may have arrived, and the broker forgets the stamp that would tell after a day.
    bed.faults.script(Verb::Enqueue, [Some(Fault::After)]);
    bed.faults.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
    bed.enqueue(&["a"]).await.expect("is stored");
    bed.time.fetch_add(12 * HOUR_MS, Ordering::SeqCst);
    bed.enqueue(&["b"]).await.expect("is stored");
    let mut events = bed.survivor.events();
    bed.time.fetch_add(1, Ordering::SeqCst);
    bed.faults.heal();
    let told = event(&mut events, |event| match event {
        Event::PossibleRepeat { store, count, .. } => Some((store, count)),
        _ => None,
    });
    assert_eq!(told.await, (Store::Outbox, 1));
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a", "b"], "the broker still knew the stamp");
    assert_eq!(bed.status().counts.possible_repeats, 1, "the younger one is none");
}

#[tokio::test]
async fn a_task_that_has_waited_longer_than_the_age_limit_is_put_away_and_a_younger_one_delivered()
{
    let bed = Bed::with(|config| config.limits.age_max = Duration::from_secs(3600));
    bed.down(Fault::Before(Kind::Unavailable));
    // What was numbered goes as it is, however old: nothing is, while the test holds the right to deliver.
    let right = std::fs::File::create(bed.survivor.spool().path().with_extension("db.drain"));
    let right = right.expect("opens");
    right.lock().expect("is free");
    bed.enqueue(&["old"]).await.expect("is stored");
    bed.time.fetch_add(HOUR_MS / 2, Ordering::SeqCst);
    bed.enqueue(&["young"]).await.expect("is stored");
    let mut events = bed.survivor.events();
    bed.time.fetch_add(HOUR_MS / 2 + 1, Ordering::SeqCst);
    bed.faults.heal();
    drop(right);
    let told = event(&mut events, |event| match event {
        Event::Quarantined { id, why, .. } => Some((id, why)),
        _ => None,
    });
    assert_eq!(told.await, ("old".into(), "older than 1h".into()));
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["young"]);
    // Whoever looks at it may still want it.
    let put_away = bed.survivor.spool().quarantine(Store::Outbox, 10).expect("lists");
    assert!(bed.survivor.spool().retry(put_away[0].id, bed.now()).await.expect("is there"));
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["young", "old"]);
}

#[tokio::test]
async fn a_neighbour_sees_what_waits_page_by_page_and_how_much_has_left() {
    let bed = Bed::new();
    bed.broken().await;
    let before = bed.survivor.spool().departed().expect("readable");
    for id in ["a", "b", "c"] {
        bed.enqueue(&[id]).await.expect("is stored");
    }
    let neighbour = bed.neighbour();
    let spool = neighbour.spool();
    let page = spool.tasks(Shelf::Line, 0, 2).expect("readable");
    let rest = spool.tasks(Shelf::Line, page[1].id, 2).expect("readable");
    let names: Vec<&str> = page.iter().chain(&rest).map(|task| task.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let task = page[0].task.as_ref().expect("can be read");
    assert_eq!((task.id.as_str(), &page[0].put_away), ("a", &None));
    assert_eq!(spool.find("b", 10).expect("readable").len(), 1);
    assert_eq!(spool.departed().expect("readable"), before);
    bed.faults.heal();
    bed.delivered().await;
    assert_eq!(spool.departed().expect("readable"), before + 3);
}

#[tokio::test]
async fn an_outbox_drops_nothing_for_a_batch_that_has_no_room_in_it_at_all() {
    // The oldest were deleted one after another before the batch was refused, and nobody was told.
    let bed = Bed::with(|config| {
        config.limits.items_max = 4;
        config.limits.when_full = WhenFull::DropOldest;
    });
    bed.broken().await;
    bed.enqueue(&["a", "b", "c", "d"]).await.expect("is stored");
    let before = bed.status();
    let error = bed.enqueue(&["1", "2", "3", "4", "5"]).await.expect_err("there is no room");
    assert_eq!(source(&error), Some(SpoolErrorKind::Full), "{error}");
    let after = bed.status();
    assert_eq!((after.outbox.items, after.counts.dropped), (4, before.counts.dropped));
    bed.faults.heal();
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["a", "b", "c", "d"]);
}

#[tokio::test]
async fn a_batch_that_may_be_applied_is_not_taken_apart_for_one_damaged_record() {
    // One flipped bit made the others of its batch go alone, under fresh numbers: what had run ran again.
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, [Some(Fault::After)]);
    bed.faults.always(Verb::Enqueue, Fault::Before(Kind::Unavailable));
    bed.enqueue(&["task-a", "task-b", "task-c"]).await.expect("is stored");
    let claimed = bed.claim(1).await;
    bed.done(&claimed[0]).await;
    let conn = rusqlite::Connection::open(bed.survivor.spool().path()).expect("opens");
    let sql =
        "UPDATE item SET record = CAST(replace(CAST(record AS TEXT), 'task-b', 'tAsk-b') AS BLOB)
               WHERE name = 'task-b'";
    assert_eq!(conn.execute(sql, []).expect("runs"), 1);
    drop(conn);
    bed.faults.heal();
    bed.delivered().await;
    assert_eq!(bed.pending().await, ["task-b", "task-c"]);
    bed.until("two are counted", |status| status.counts.delivered == 2).await;
    let status = bed.status();
    assert_eq!((status.outbox.quarantined, status.counts.id_conflicts), (1, 0));
}

#[tokio::test]
async fn a_batch_that_may_be_applied_and_is_refused_later_is_counted_as_a_possible_repeat() {
    let bed = Bed::new();
    bed.faults.script(Verb::Enqueue, [Some(Fault::After)]);
    bed.faults.script(Verb::Enqueue, [Some(Fault::Before(Kind::Rejected))]);
    bed.enqueue(&["a", "b"]).await.expect("is stored");
    bed.delivered().await;
    assert_eq!(bed.status().counts.possible_repeats, 2);
}

/// Tasks that wait are as old as the clock says, and clocks are set: at the first start of a machine without a battery, by years.
#[tokio::test]
async fn a_clock_that_is_set_loses_nothing_that_waits() {
    const DAY_MS: i64 = 24 * HOUR_MS;
    for (days, is_put_away) in [(-1, false), (-4000, false), (6, false), (8, true), (4000, true)] {
        let bed = Bed::new();
        bed.broken().await;
        bed.enqueue(&["a", "b"]).await.expect("is stored");
        bed.time.fetch_add(days * DAY_MS, Ordering::SeqCst);
        bed.faults.heal();
        bed.until("all have left the line", |status| status.outbox.items == 0).await;
        let spool = bed.survivor.spool();
        let put_away = spool.quarantine(outlast_survive::Store::Outbox, 10).expect("lists");
        assert_eq!(put_away.len(), if is_put_away { 2 } else { 0 }, "{days} days");
        for item in put_away {
            assert!(item.why.starts_with("older than"), "{}", item.why);
            assert!(spool.retry(item.id, bed.now()).await.expect("is there"));
        }
        bed.until("all is delivered", |status| status.counts.delivered >= 2).await;
        assert_eq!(bed.pending().await, ["a", "b"], "{days} days");
    }
}
