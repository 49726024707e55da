//! The server has done it, and its reply is lost: the same call again has the effect of one.

use outlast_core::{
    Action, Broker, Claim, EnqueueVerdict, Extended, Hold, Inspect, Kind, Outcome, PageRequest,
    Selector, SettleVerdict, Settlement, TaskState,
};
use outlast_testkit::conformance::words::{
    beat, budget, done, done_with, due, grouped, id, ids_of, kept, once, policy, retry, secs,
    stamp, t, task, tasks, tasks_of, unique, worker,
};

use crate::kit::{Lossy, enqueue, failed, settle, settlement, shared, want};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("task-{n:03}")).collect()
}

fn is_accepted(verdict: &EnqueueVerdict) -> bool {
    matches!(verdict, EnqueueVerdict::Accepted { .. })
}

async fn lossy() -> Option<Lossy> {
    Some(Lossy::new(shared()?).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enqueue_whose_reply_is_lost_stores_its_tasks_once() {
    for count in [1, 100] {
        let Some(l) = lossy().await else { return };
        let verdicts = l
            .repeated(async |broker| {
                let batch = names(count).iter().map(|name| task(name)).collect();
                enqueue(&broker, &l.place.queue, stamp(1, 0, 1), batch).await
            })
            .await;
        assert!(verdicts.iter().all(is_accepted) && verdicts.len() == count, "{verdicts:?}");
        assert_eq!(l.place.pending(), i64::try_from(count).expect("small"));
    }
}

/// Law L4: whether a call is repeated is decided above, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_reply_is_lost_is_not_sent_again_by_the_broker() {
    let Some(l) = lossy().await else { return };
    let offer = async |broker, seq| {
        enqueue(&broker, &l.place.queue, stamp(1, 0, seq), vec![task(&seq.to_string())]).await
    };
    offer(l.through.clone(), 1).await.expect("the script is known from here on");
    let before = l.proxy.seen("EVALSHA");
    l.lose(|broker| offer(broker, 2)).await;
    assert_eq!(l.proxy.seen("EVALSHA"), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mixed_enqueue_whose_reply_is_lost_says_of_each_task_what_became_of_it() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, vec![task("taken"), unique("holder", "d", 1000)]).await;
    let verdicts = l
        .repeated(async |broker| {
            let batch = vec![
                task("a"),
                task("taken"),
                unique("dup", "d", 60),
                once("b", "key", 1000),
                due("later", t(500)),
                grouped("g1", "g"),
            ];
            enqueue(&broker, &l.place.queue, stamp(1, 3, 1), batch).await
        })
        .await;
    assert_eq!(verdicts[1], EnqueueVerdict::IdConflict);
    assert_eq!(verdicts[2], EnqueueVerdict::Duplicate { of: Some(id("holder")) });
    for nth in [0, 3, 4, 5] {
        assert!(is_accepted(&verdicts[nth]), "{nth}: {verdicts:?}");
    }
    assert_eq!(l.place.pending(), 4);
    assert_eq!((l.place.count("ZCARD", "scheduled"), l.place.count("ZCARD", "g:g")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_whose_reply_is_lost_hands_out_the_same_tasks_and_no_more() {
    for count in [1, 50] {
        let Some(l) = lossy().await else { return };
        let batch = names(count + 3).iter().map(|name| task(name)).collect();
        l.place.accept(&l.other, batch).await;
        let claims = l
            .repeated(async |broker| {
                broker.claim(&l.place.queue, stamp(1, 0, 1), t(1), &want(count)).await
            })
            .await;
        assert_eq!(ids_of(&tasks_of(claims)), names(count));
        assert_eq!(l.place.pending(), 3);
        let held = i64::try_from(count).expect("small");
        assert_eq!(l.place.count("LLEN", "active"), held);
        assert_eq!(l.place.count("ZCARD", "lease"), held);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_of_a_group_whose_reply_is_lost_hands_out_the_same_set() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, vec![grouped("a", "g"), grouped("b", "g")]).await;
    let mut want = want(1);
    want.groups = [policy("g", 0)].into();
    let claims = l
        .repeated(async |broker| broker.claim(&l.place.queue, stamp(1, 0, 1), t(9), &want).await)
        .await;
    assert!(matches!(&claims.claims[..], [Claim::Group(group)] if group.tasks.len() == 2));
    assert_eq!(l.place.count("ZCARD", "aggregation_sets"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_success_whose_reply_is_lost_is_counted_once() {
    for count in [1, 50] {
        let Some(l) = lossy().await else { return };
        l.place.accept(&l.other, names(count).iter().map(|name| task(name)).collect()).await;
        // By the broker that settles, so that it takes the short way.
        let claimed = l.place.claim(&l.through, count).await;
        let batch: Vec<Settlement> =
            claimed.iter().map(|claimed| settlement(&claimed.lease, done())).collect();
        let verdicts = l
            .repeated(async |broker| settle(&broker, &l.place.queue, stamp(1, 0, 1), &batch).await)
            .await;
        assert_eq!(verdicts, vec![SettleVerdict::Applied; count]);
        let processed = l.place.raw(&["GET", &l.place.key("processed")]).int();
        assert_eq!(processed, i64::try_from(count).ok());
        assert_eq!((l.place.tasks().len(), l.place.count("ZCARD", "lease")), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_outcomes_whose_reply_is_lost_are_applied_once() {
    let Some(l) = lossy().await else { return };
    let batch =
        vec![kept("a", 100), task("b"), task("c"), task("d"), task("e"), task("f"), task("g")];
    l.place.accept(&l.other, batch).await;
    let claimed = l.place.claim(&l.other, 7).await;
    let outcomes = [
        done_with("result"),
        retry(t(50)),
        Outcome::Snooze { until: t(60) },
        Outcome::Archive { error: "broken".into() },
        Outcome::Revoke,
        Outcome::Release,
    ];
    let mut batch: Vec<Settlement> =
        claimed.iter().zip(outcomes).map(|(c, outcome)| settlement(&c.lease, outcome)).collect();
    let mut gone = claimed[6].lease.clone();
    gone.id = id("nobody");
    batch.push(settlement(&gone, done()));
    let verdicts = l
        .repeated(async |broker| settle(&broker, &l.place.queue, stamp(1, 0, 1), &batch).await)
        .await;
    assert_eq!(verdicts[..6], vec![SettleVerdict::Applied; 6]);
    assert_eq!(verdicts[6], SettleVerdict::LeaseLost);
    for (command, key, count) in [
        ("ZCARD", "completed", 1),
        ("ZCARD", "retry", 1),
        ("ZCARD", "scheduled", 1),
        ("ZCARD", "archived", 1),
        ("LLEN", "pending", 1),
        ("LLEN", "active", 1),
    ] {
        assert_eq!(l.place.count(command, key), count, "{key}");
    }
    assert_eq!(l.place.raw(&["GET", &l.place.key("processed")]).int(), Some(4));
    assert_eq!(l.place.raw(&["GET", &l.place.key("failed")]).int(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aggregation_whose_reply_is_lost_makes_one_task() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, vec![grouped("a", "g"), grouped("b", "g")]).await;
    let mut want = want(1);
    want.groups = [policy("g", 0)].into();
    let claims = l.other.claim(&l.place.queue, stamp(9, 0, 1), t(9), &want).await;
    let claims = claims.expect("answered");
    let [Claim::Group(group)] = &claims.claims[..] else { panic!("{claims:?}") };
    let outcome = Outcome::Aggregated { into: Box::new(task("both")) };
    let batch = [settlement(&group.lease, outcome)];
    let verdicts = l
        .repeated(async |broker| settle(&broker, &l.place.queue, stamp(1, 0, 1), &batch).await)
        .await;
    assert_eq!(verdicts, [SettleVerdict::Applied]);
    assert_eq!((l.place.tasks(), l.place.pending()), (vec!["both".to_owned()], 1));
    assert_eq!(l.place.count("ZCARD", "aggregation_sets"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_extension_whose_reply_is_lost_holds_the_lease_once_more_and_no_longer() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, tasks(&["a", "b"])).await;
    let claimed = l.place.claim(&l.other, 2).await;
    let holds: Vec<Hold> = claimed
        .iter()
        .map(|c| Hold { lease: c.lease.clone(), result: Some("50 %".into()) })
        .collect();
    let extended = l
        .repeated(async |broker| {
            broker.extend(&l.place.queue, t(10), holds.clone().into(), secs(30)).await
        })
        .await;
    assert_eq!(extended, [Extended::Until(t(40)), Extended::Until(t(40))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_beat_whose_reply_is_lost_hands_out_one_token() {
    let Some(l) = lossy().await else { return };
    let reply =
        l.repeated(async |broker| broker.beat(t(0), &beat(worker("w"), None, 30)).await).await;
    assert!(reply.token.is_some(), "{reply:?}");
    let workers = l.other.workers(t(1)).await.expect("answered");
    assert_eq!(workers.len(), 1, "{workers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_whose_reply_is_lost_moves_each_task_once() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, vec![due("a", t(5)), due("b", t(6)), task("lost")]).await;
    l.place.claim(&l.other, 1).await;
    l.lose(async |broker| broker.sweep(&l.place.queue, t(100), budget(100)).await).await;
    let again = l.through.sweep(&l.place.queue, t(100), budget(100)).await.expect("answered");
    assert_eq!((again.due, again.recovered), (0, 0), "the first one did it");
    assert_eq!((l.place.pending(), l.place.count("ZCARD", "retry")), (2, 1));
    let lost = l.place.raw(&["HGET", &l.place.key("t:lost"), "o:lost"]);
    assert_eq!(lost.int(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_whose_reply_is_lost_is_done_once() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, tasks(&["a", "b"])).await;
    let act = async |broker: outlast_redis::RedisBroker| {
        let select = Selector::id(id("a"));
        let page = PageRequest::first(10);
        broker.act(&l.place.queue, &Action::Archive, &select, &page, t(1)).await
    };
    l.lose(act).await;
    let again = act(l.through.clone()).await.expect("answered");
    assert_eq!((again.changed, again.refused.len()), (0, 1), "it is archived already: {again:?}");
    let found = l.other.task(&l.place.queue, &id("a"), t(1)).await.expect("answered");
    assert_eq!(found.map(|task| task.state), Some(TaskState::Archived));
    assert_eq!((l.place.pending(), l.place.count("ZCARD", "archived")), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_go_worker_has_run_meanwhile_does_not_come_back_with_the_repeat() {
    let Some(l) = lossy().await else { return };
    let send = async |broker: outlast_redis::RedisBroker| {
        let batch = names(20).iter().map(|name| task(name)).collect();
        enqueue(&broker, &l.place.queue, stamp(1, 0, 1), batch).await
    };
    l.lose(send).await;
    assert_eq!(l.place.run_all_as_go_does(), names(20), "the server had them all");
    for broker in [&l.through, &l.other] {
        let verdicts = send(broker.clone()).await.expect("answered");
        assert!(verdicts.iter().all(is_accepted), "accepted, not a conflict: {verdicts:?}");
    }
    assert_eq!((l.place.tasks().len(), l.place.pending()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_that_a_go_worker_has_run_meanwhile_does_not_come_back_with_the_repeat() {
    let Some(l) = lossy().await else { return };
    l.place.accept(&l.other, tasks(&["a"])).await;
    let claimed = l.place.claim(&l.other, 1).await;
    let batch = [settlement(&claimed[0].lease, retry(t(5)))];
    let send = async |broker: outlast_redis::RedisBroker| {
        settle(&broker, &l.place.queue, stamp(1, 0, 1), &batch).await
    };
    l.lose(send).await;
    l.other.sweep(&l.place.queue, t(6), budget(10)).await.expect("answered");
    assert_eq!(l.place.run_all_as_go_does(), ["a"]);
    assert_eq!(send(l.through.clone()).await.expect("answered"), [SettleVerdict::Applied]);
    assert_eq!((l.place.tasks().len(), l.place.count("ZCARD", "retry")), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_arrives_after_the_next_one_is_a_ghost_and_changes_nothing() {
    let Some(l) = lossy().await else { return };
    l.lose(async |broker| enqueue(&broker, &l.place.queue, stamp(1, 0, 1), tasks(&["a"])).await)
        .await;
    for seq in 1..=3 {
        let batch = tasks(&[["a", "b", "c"][seq - 1]]);
        let seq = u64::try_from(seq).expect("small");
        enqueue(&l.other, &l.place.queue, stamp(1, 0, seq), batch).await.expect("answered");
    }
    let before = l.place.everything();
    let queue = &l.place.queue;
    for seq in [1, 2] {
        let stamp = stamp(1, 0, seq);
        failed(enqueue(&l.through, queue, stamp, tasks(&["x"])).await, Kind::Superseded);
        let mixed = vec![due("x", t(50))];
        failed(enqueue(&l.through, queue, stamp, mixed).await, Kind::Superseded);
        failed(l.through.claim(queue, stamp, t(1), &want(5)).await, Kind::Superseded);
        failed(settle(&l.through, queue, stamp, &[]).await, Kind::Superseded);
    }
    assert_eq!(l.place.everything(), before);
}
