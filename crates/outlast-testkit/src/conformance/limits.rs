//! Law L6: everything has a limit, and reaching it is answered, never swallowed.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::sync::Arc;

use outlast_core::limits::{
    ACT_MAX, BATCH_TASKS_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, LANES_MAX, PAGE_MAX, STATS_DAYS,
    SWEEP_MAX,
};
use outlast_core::{
    Action, EnqueueVerdict, Headers, Hold, Kind, NewTask, PageRequest, Selector, Settlement,
    TaskState,
};

use super::case::Case;
use super::words::{budget, done, is_accepted, secs, stamp, t, task, with};

fn too_many() -> Vec<NewTask> {
    (0..=BATCH_TASKS_MAX).map(|n| task(&format!("{n:03}"))).collect()
}

pub async fn a_batch_of_too_many_tasks_is_rejected_as_a_whole(c: &Case) {
    let refused = c.broker.enqueue(&c.queue, stamp(1, 0, 1), t(0), too_many().into()).await;
    assert_eq!(refused.expect_err("too long").kind(), Kind::Rejected);
    assert_eq!(c.inspect.queue(&c.queue, t(0)).await.expect("answered"), None);
}

pub async fn a_batch_of_too_many_settlements_is_rejected_as_a_whole(c: &Case) {
    let lease = c.running(t(0), task("a")).await.lease;
    let one = Settlement { lease, outcome: done() };
    let batch: Arc<[_]> = std::iter::repeat_n(one, BATCH_TASKS_MAX + 1).collect();
    let refused = c.broker.settle(&c.queue, stamp(1, 0, 1), t(0), batch).await;
    assert_eq!(refused.expect_err("too long").kind(), Kind::Rejected);
    assert_eq!(c.state("a").await, Some(TaskState::Active));
}

pub async fn a_batch_of_too_many_holds_is_rejected_as_a_whole(c: &Case) {
    let lease = c.running(t(0), task("a")).await.lease;
    let until = lease.until;
    let batch: Arc<[_]> =
        std::iter::repeat_n(Hold { lease, result: None }, BATCH_TASKS_MAX + 1).collect();
    let refused = c.broker.extend(&c.queue, t(5), batch, secs(500)).await;
    assert_eq!(refused.expect_err("too long").kind(), Kind::Rejected);
    assert_eq!(c.record("a", t(5)).await.lease_until, Some(until));
}

pub async fn the_greatest_batch_of_every_verb_is_taken(c: &Case) {
    let mut all = too_many();
    all.truncate(BATCH_TASKS_MAX);
    c.accept(t(0), all).await;
    let claimed = c.claim(t(1), BATCH_TASKS_MAX).await;
    assert_eq!(claimed.len(), BATCH_TASKS_MAX);
    let hold = |lease: &outlast_core::Lease| Hold { lease: lease.clone(), result: None };
    let holds: Arc<[_]> = claimed.iter().map(|claimed| hold(&claimed.lease)).collect();
    let held = c.broker.extend(&c.queue, t(2), holds, secs(60)).await.expect("answered");
    assert_eq!(held.len(), BATCH_TASKS_MAX);
    let verdicts = c.settle_all(t(3), claimed.iter().map(|one| (&one.lease, done()))).await;
    assert!(verdicts.iter().all(|verdict| *verdict == outlast_core::SettleVerdict::Applied));
    assert_eq!(c.stats(t(3)).await.processed_total, BATCH_TASKS_MAX as u64);
}

pub async fn the_greatest_page_sweep_and_action_are_taken(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let select = Selector::state(TaskState::Pending);
    let page = PageRequest::first(PAGE_MAX);
    let listed = c.inspect.tasks(&c.queue, &select, &page, t(0)).await.expect("answered");
    assert_eq!(listed.items.len(), 1);
    c.sweep_once(t(0), budget(SWEEP_MAX)).await;
    assert_eq!(c.act(&Action::Archive, &select, t(0), ACT_MAX).await.changed, 1);
}

pub async fn too_many_headers_or_bytes_in_them_are_rejected(c: &Case) {
    let many: Headers = (0..=HEADERS_MAX).map(|n| (n.to_string(), String::new())).collect();
    let large = Headers::from([("name".into(), "v".repeat(HEADERS_BYTES_MAX))]);
    let fits: Headers = (0..HEADERS_MAX).map(|n| (format!("{n:02}"), "v".repeat(200))).collect();
    let batch = [(many, "many"), (large, "large"), (fits, "fits")]
        .map(|(headers, name)| with(task(name), |task| task.headers = headers));
    let verdicts = c.enqueue(t(0), batch).await;
    assert!(matches!(verdicts[..2], [EnqueueVerdict::Rejected(_), EnqueueVerdict::Rejected(_)]));
    assert!(is_accepted(&verdicts[2]), "{verdicts:?}");
    assert_eq!(c.record("fits", t(0)).await.headers.len(), HEADERS_MAX);
}

pub async fn options_that_asynq_could_not_store_are_rejected(c: &Case) {
    let half = std::time::Duration::from_millis(1500);
    let fractions = [
        with(task("timeout"), |task| task.timeout = Some(half)),
        with(task("retention"), |task| task.retention = half),
        with(super::words::unique("unique", "d", 1), |task| {
            task.unique.as_mut().expect("it is unique").ttl = half;
        }),
        with(super::words::once("once", "key", 1), |task| {
            task.once.as_mut().expect("it has a key").ttl = std::time::Duration::ZERO;
        }),
    ];
    for verdict in c.enqueue(t(0), fractions).await {
        assert!(matches!(verdict, EnqueueVerdict::Rejected(_)), "{verdict:?}");
    }
}

pub async fn every_lane_up_to_the_limit_can_be_used(c: &Case) {
    for lane in 0..LANES_MAX {
        let batch: Arc<[NewTask]> = [task(&lane.to_string())].into();
        let answer = c.broker.enqueue(&c.queue, stamp(1, lane, 1), t(0), batch).await;
        assert_eq!(answer.expect("answered").lost, None, "lane {lane}");
    }
    assert_eq!(c.stats(t(0)).await.pending, u64::from(LANES_MAX));
}

pub async fn history_goes_back_as_far_as_statistics_are_kept(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    for days in [1, STATS_DAYS] {
        let history = c.inspect.history(&c.queue, t(0), days).await.expect("answered");
        assert_eq!(history.len(), days as usize);
    }
}

pub async fn many_tasks_are_enqueued_claimed_and_settled_to_the_last_one(c: &Case) {
    let count = 2000;
    for batch in 0..count / 200 {
        let names = (0..200).map(|n| task(&format!("{:05}", batch * 200 + n)));
        c.accept(t(0), names).await;
    }
    let mut seen = Vec::new();
    loop {
        let claimed = c.claim(t(1), 150).await;
        if claimed.is_empty() {
            break;
        }
        c.settle_all(t(2), claimed.iter().map(|one| (&one.lease, done()))).await;
        seen.extend(claimed.into_iter().map(|one| one.task.id.to_string()));
    }
    assert_eq!(seen, (0..count).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    let stats = c.stats(t(3)).await;
    assert_eq!((stats.size(), stats.processed_total), (0, 2000));
}
