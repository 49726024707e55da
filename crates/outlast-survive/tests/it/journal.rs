//! The journal: what finished while the broker was away is reported afterwards, before anything is claimed.

use std::time::Duration;

use outlast_core::{Kind, Outcome, SettleVerdict, Settlement};
use outlast_survive::{CircuitState, JournalMode};
use outlast_testkit::fault::{Fault, Verb};

use crate::kit::*;

#[tokio::test]
async fn outcomes_of_an_outage_are_journaled_and_applied_before_the_next_claim() {
    for kind in [Kind::Unavailable, Kind::Busy, Kind::Ambiguous] {
        let bed = Bed::new();
        bed.enqueue(&["a", "b", "c"]).await.expect("answers");
        let claimed = bed.claim(2).await;
        bed.down(Fault::Before(kind));
        for task in &claimed {
            assert_eq!(bed.done(task).await, SettleVerdict::Journaled, "{kind}");
        }
        assert_eq!(bed.status().journal.items, 2);
        bed.faults.heal();
        bed.until("the breaker lets claims pass", |status| {
            status.homes.iter().all(|home| home.outage.is_none())
        })
        .await;
        let next = bed.claim(10).await;
        assert_eq!(bed.status().journal.items, 0, "{kind}: reported before the claim");
        let ids: Vec<_> = next.iter().map(|claimed| claimed.task.id.as_str()).collect();
        assert_eq!(ids, ["c"], "{kind}");
        bed.until("both are counted", |status| status.counts.applied == 2).await;
    }
}

#[tokio::test]
async fn an_outcome_whose_reply_was_lost_is_applied_once_and_is_no_lost_lease() {
    let bed = Bed::new();
    bed.enqueue(&["a"]).await.expect("answers");
    let claimed = bed.claim(1).await;
    bed.faults.script(Verb::Settle, [Some(Fault::After)]);
    assert_eq!(bed.done(&claimed[0]).await, SettleVerdict::Journaled);
    bed.delivered().await;
    bed.until("it is counted", |status| status.counts.applied == 1).await;
    assert_eq!(bed.status().counts.lease_lost, 0);
}

#[tokio::test]
async fn outcomes_that_are_journaled_first_open_the_breaker_when_their_broker_is_silent() {
    // They were given up before they counted as slow, or in the same moment, and the breaker heard nothing of them.
    let bed = Bed::new();
    bed.enqueue(&["a", "b", "c", "d", "e"]).await.expect("answers");
    let leaving = bed.survivor.leaving(Duration::from_millis(50));
    let claimed = bed.claim(5).await;
    bed.faults.always(Verb::Settle, Fault::Hang);
    for task in &claimed {
        let settlement =
            Settlement { lease: task.lease.clone(), outcome: Outcome::Done { result: None } };
        let settled = leaving.settle(&queue("q"), stamp(), bed.now(), [settlement].into()).await;
        assert_eq!(settled.expect("is journaled").verdicts, [SettleVerdict::Journaled]);
    }
    bed.until("the breaker opens", |status| status.homes[0].consume != CircuitState::Closed).await;
    bed.faults.heal();
    bed.faults.release();
    bed.delivered().await;
    bed.until("each is applied", |status| status.counts.applied == 5).await;
}

#[tokio::test]
async fn an_outcome_that_is_journaled_first_leaves_the_journal_when_it_is_applied() {
    let bed = Bed::with(|config| config.journal = JournalMode::Always);
    bed.enqueue(&["a", "b"]).await.expect("answers");
    let claimed = bed.claim(2).await;
    assert_eq!(bed.done(&claimed[0]).await, SettleVerdict::Applied);
    assert_eq!(bed.status().journal.items, 0);
    bed.down(Fault::Before(Kind::Unavailable));
    assert_eq!(bed.done(&claimed[1]).await, SettleVerdict::Journaled);
    bed.faults.heal();
    bed.delivered().await;
    assert!(bed.pending().await.is_empty());
    bed.until("it is counted", |status| status.counts.applied == 1).await;
}

#[tokio::test]
async fn an_outcome_is_reported_however_long_the_outage_was() {
    // The age limit of tasks held for outcomes too: what finished went into quarantine, and ran again.
    let bed = Bed::new();
    bed.enqueue(&["a"]).await.expect("answers");
    let claimed = bed.claim(1).await;
    bed.down(Fault::Before(Kind::Unavailable));
    assert_eq!(bed.done(&claimed[0]).await, SettleVerdict::Journaled);
    let age_max = bed.survivor.spool().limits().age_max.as_millis() as i64;
    bed.time.fetch_add(2 * age_max, std::sync::atomic::Ordering::SeqCst);
    bed.faults.heal();
    bed.delivered().await;
    bed.until("it is counted", |status| status.counts.applied == 1).await;
    assert_eq!(bed.status().journal.quarantined, 0);
    assert!(bed.pending().await.is_empty());
}

#[tokio::test]
async fn an_outcome_that_may_be_applied_keeps_its_stamp_though_a_later_attempt_failed_cleanly() {
    // The first attempt found the journal full and left its caller with it; the second one was stored without
    // a number, and came to the broker as another batch.
    let bed = Bed::with(|config| config.limits.items_max = 1);
    bed.enqueue(&["a", "b"]).await.expect("answers");
    let claimed = bed.claim(2).await;
    bed.down(Fault::Before(Kind::Unavailable));
    assert_eq!(bed.done(&claimed[1]).await, SettleVerdict::Journaled);
    let lease = claimed[0].lease.clone();
    let done =
        outlast_core::Settlement { lease, outcome: outlast_core::Outcome::Done { result: None } };
    let (broker, stamp, q) = (bed.survivor.broker(), stamp(), queue("q"));
    let settle = || broker.settle(&q, stamp, NOW, [done.clone()].into());
    bed.faults.script(Verb::Settle, [Some(Fault::After)]);
    let error = settle().await.expect_err("the journal is full");
    assert_eq!(error.kind(), Kind::Ambiguous);
    let conn = rusqlite::Connection::open(bed.survivor.spool().path()).expect("opens");
    assert_eq!(conn.execute("DELETE FROM item", []).expect("runs"), 1);
    drop(conn);
    assert_eq!(settle().await.expect("is stored").verdicts, [SettleVerdict::Journaled]);
    bed.faults.heal();
    bed.delivered().await;
    bed.until("it is counted", |status| status.counts.applied == 1).await;
    assert_eq!(bed.status().counts.lease_lost, 0);
}
