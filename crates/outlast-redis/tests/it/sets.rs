//! Sets that are larger than one call should carry, and leases whose task is gone.

use std::sync::Arc;

use outlast_core::{Broker, Claim, Outcome, Rest, SettleVerdict, Want};
use outlast_testkit::conformance::words::{budget, grouped, policy, retry, stamp, t, task};

use crate::kit::{Place, settle, settlement, shared, want};

/// One claim read every member of up to sixteen sets of a thousand, whatever their size.
#[tokio::test]
async fn a_set_ends_where_the_bytes_that_are_wanted_are_spent() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    let large = |n: usize| {
        let mut task = grouped(&format!("m{n}"), "g");
        task.payload = vec![b'x'; 1000].into();
        task
    };
    place.accept(&broker, (0..5).map(large).collect()).await;
    let groups = Arc::new([policy("g", 0)]);
    let want = Want { bytes_max: 2500, groups, ..want(10) };
    let mut sizes = Vec::new();
    for seq in 1..=3 {
        let claims = broker.claim(&place.queue, stamp(9, 0, seq), t(60), &want).await;
        let claims = claims.expect("the claim is answered");
        let [Claim::Group(group)] = &claims.claims[..] else { panic!("one set: {claims:?}") };
        sizes.push((group.tasks.len(), claims.rest));
    }
    assert_eq!(sizes, [(2, Rest::More), (2, Rest::More), (1, Rest::Empty)]);
}

/// A set of asynq's has no greatest size; all of its members were moved by one script.
#[tokio::test]
async fn a_large_set_of_asynqs_is_given_back_in_steps_and_in_its_order() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    let set = place.key("g:g:a-set-of-asynqs");
    let fill = "for n = 1, 2500 do redis.call('ZADD', KEYS[1], n, 'm' .. n) end";
    place.raw(&["EVAL", fill, "1", &set]);
    place.raw(&["ZADD", &place.key("aggregation_sets"), "100", &set]);
    let mut more = Vec::new();
    for _ in 0..3 {
        let swept = broker.sweep(&place.queue, t(0), budget(1000)).await.expect("answered");
        more.push((swept.reclaimed, swept.more));
    }
    assert_eq!(more, [(0, true), (0, true), (1, false)]);
    assert_eq!(place.count("ZCARD", "g:g"), 2500);
    assert_eq!(
        (place.count("EXISTS", "g:g:a-set-of-asynqs"), place.count("SCARD", "groups")),
        (0, 1)
    );
}

/// A failure was written to a hash that was no longer there: a ghost that blocked its id for ever.
#[tokio::test]
async fn an_outcome_of_a_task_whose_record_is_gone_leaves_no_ghost() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    place.accept(&broker, vec![task("a"), task("b"), task("c")]).await;
    let claimed = place.claim(&broker, 3).await;
    for id in ["a", "b", "c"] {
        place.raw(&["DEL", &place.key(&format!("t:{id}"))]);
    }
    let outcomes = [retry(t(50)), Outcome::Release, Outcome::Snooze { until: t(70) }];
    let settlements = claimed.iter().zip(outcomes);
    let batch: Vec<_> = settlements.map(|(one, outcome)| settlement(&one.lease, outcome)).collect();
    let verdicts = settle(&broker, &place.queue, stamp(8, 0, 1), &batch).await;
    assert_eq!(verdicts.expect("answered"), vec![SettleVerdict::LeaseLost; 3]);
    assert_eq!((place.count("LLEN", "active"), place.count("ZCARD", "lease")), (0, 0));
    assert!(place.tasks().is_empty(), "{:?}", place.tasks());
}
