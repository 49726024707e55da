//! Every kind of error, provoked where the fixture can, with what it promises about the batch.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::error::Error;
use std::sync::Arc;

use outlast_core::{BrokerError, Claim, Enqueued, Kind, NewTask, Stamp, TaskState};

use super::case::Case;
use super::fixture::{Handle, Provoked};
use super::words::{id, is_accepted, stamp, t, tasks};

async fn offer(c: &Case, to: &Handle, stamp: Stamp) -> Result<Enqueued, BrokerError> {
    let batch: Arc<[NewTask]> = tasks(&["a", "b"]).into();
    to.broker.enqueue(&c.queue, stamp, t(0), batch).await
}

/// Provokes `kind`, checks the answer, ends the trouble and sends the same batch again: whatever the
/// first call did, the effect is that of one.
async fn is_provoked(c: &Case, kind: Kind) {
    let Some(provoked) = c.unless_skipped(c.fixture.provoke(kind).await) else { return };
    let Provoked { handle, heal, guard } = provoked;
    let error = offer(c, &handle, stamp(77, 0, 1)).await.expect_err("it was provoked");
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.source().is_some(), "the error below it is kept: {error}");
    assert!(!error.to_string().is_empty());
    if let Some(heal) = heal {
        heal();
        let answer = offer(c, &handle, stamp(77, 0, 1)).await.expect("the trouble is over");
        assert!(answer.verdicts.iter().all(is_accepted), "{answer:?}");
        assert_eq!(answer.lost, None);
        let stats = handle.inspect.queue(&c.queue, t(1)).await.expect("answered").expect("known");
        assert_eq!(stats.pending, 2, "the batch was applied once");
    }
    drop(guard);
}

pub async fn a_broker_that_cannot_be_reached_is_unavailable(c: &Case) {
    is_provoked(c, Kind::Unavailable).await;
}

pub async fn a_broker_that_does_not_answer_leaves_the_batch_ambiguous(c: &Case) {
    is_provoked(c, Kind::Ambiguous).await;
}

pub async fn a_broker_that_asks_for_patience_is_busy(c: &Case) {
    is_provoked(c, Kind::Busy).await;
}

pub async fn a_broker_that_somebody_must_set_right_is_misconfigured(c: &Case) {
    is_provoked(c, Kind::Misconfigured).await;
}

pub async fn a_broker_that_cannot_read_its_data_is_corrupt(c: &Case) {
    is_provoked(c, Kind::Corrupt).await;
}

pub async fn a_request_that_is_wrong_is_rejected_with_what_is_wrong(c: &Case) {
    let batch: Arc<[NewTask]> = (0..257).map(|n| super::words::task(&n.to_string())).collect();
    let error = c.broker.enqueue(&c.queue, stamp(1, 0, 1), t(0), batch).await;
    let error = error.expect_err("too long a batch");
    assert_eq!(error.kind(), Kind::Rejected);
    let text = error.to_string();
    assert!(text.contains("257") && text.contains("256"), "value and limit: {text}");
}

pub async fn a_ghost_is_superseded(c: &Case) {
    let handle = Handle { broker: c.broker.clone(), inspect: c.inspect.clone() };
    offer(c, &handle, stamp(1, 0, 1)).await.expect("answered");
    let next: Arc<[NewTask]> = tasks(&["c"]).into();
    c.broker.enqueue(&c.queue, stamp(1, 0, 2), t(0), next).await.expect("answered");
    let error = offer(c, &handle, stamp(1, 0, 1)).await.expect_err("answered long ago");
    assert_eq!(error.kind(), Kind::Superseded);
    assert!(!error.kind().is_transient());
}

pub async fn a_record_that_cannot_be_read_does_not_hold_up_the_others(c: &Case) {
    c.accept(t(0), tasks(&["a", "bad", "z"])).await;
    let corrupted = c.fixture.corrupt(&c.queue, &id("bad")).await;
    if c.unless_skipped(corrupted).is_none() {
        return;
    }
    let claims = c.claims(t(1), &c.want(10).await).await.claims;
    let mut whole = Vec::new();
    let mut corrupt = Vec::new();
    for claim in claims {
        match claim {
            Claim::Task(task) => whole.push(task.task.id.to_string()),
            Claim::Corrupt { id, why } => corrupt.push((id.to_string(), why.is_empty())),
            Claim::Group(group) => panic!("nothing was grouped: {group:?}"),
        }
    }
    assert_eq!(whole, ["a", "z"]);
    assert_eq!(corrupt, [("bad".to_owned(), false)], "with the reason");
    assert_eq!(c.stats(t(1)).await.count(TaskState::Archived), 1);
    assert!(c.claim(t(2), 10).await.is_empty(), "it is reported once");
}

pub async fn a_broker_tells_its_home_and_its_health(c: &Case) {
    let home = c.broker.home(&c.queue);
    assert_eq!(home, c.broker.home(&c.queue));
    let health = c.broker.health(&home, t(0)).await.expect("answered");
    assert_eq!(health.role, outlast_core::Role::Primary);
    assert!(!health.software.is_empty() && !health.epoch.0.is_empty());
}

pub async fn the_epoch_is_that_of_the_data_on_every_connection(c: &Case) {
    let home = c.broker.home(&c.queue);
    let first = c.broker.health(&home, t(0)).await.expect("answered").epoch;
    c.accept(t(1), tasks(&["a"])).await;
    assert_eq!(c.broker.health(&home, t(2)).await.expect("answered").epoch, first);
    let Some(other) = c.unless_skipped(c.fixture.second_handle().await) else { return };
    let there = other.broker.home(&c.queue);
    assert_eq!(other.broker.health(&there, t(3)).await.expect("answered").epoch, first);
}
