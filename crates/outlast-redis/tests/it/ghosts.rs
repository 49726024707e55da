//! Ids whose tasks are gone, after others have met them: they leave no record behind, and can be enqueued again.

use outlast_core::{Broker, Hold, Settlement};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{
    budget, due, grouped, policy, retry, secs, stamp, t, tasks,
};

use crate::kit::{Place, settle, settlement, shared, want};

/// A queue of its own, and a broker on it.
fn scene() -> Option<(Place, RedisBroker)> {
    let server = shared()?;
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    Some((place, broker))
}

/// What asynq's dequeue makes of the id at the head of the line (contract §3.2), whether or not it has a task.
fn dequeue_as_go_does(place: &Place) {
    let id = place.raw(&["RPOPLPUSH", &place.key("pending"), &place.key("active")]).text();
    let id = id.expect("something waits");
    let task = place.key(&format!("t:{id}"));
    place.raw(&["HSET", &task, "state", "active"]);
    place.raw(&["HDEL", &task, "pending_since"]);
    place.raw(&["ZADD", &place.key("lease"), &t(30).as_seconds().to_string(), &id]);
}

/// Nothing is left of these ids, and the next task of that name is stored.
async fn is_forgotten(place: &Place, broker: &RedisBroker, names: &[&str]) {
    assert_eq!(place.tasks(), Vec::<String>::new());
    for (command, name) in [("LLEN", "pending"), ("LLEN", "active"), ("ZCARD", "lease")] {
        assert_eq!(place.count(command, name), 0, "{name}");
    }
    place.accept(broker, tasks(names)).await;
}

/// Go's dequeue makes `{state: active}` of an id without a task. The sweep took such an id out of the active ones and left that
/// record: the id was a conflict for ever.
#[tokio::test]
async fn an_id_without_a_task_that_go_has_dequeued_can_be_enqueued_again() {
    let Some((place, broker)) = scene() else { return };
    place.raw(&["LPUSH", &place.key("pending"), "gone"]);
    dequeue_as_go_does(&place);
    let swept = broker.sweep(&place.queue, t(100), budget(100)).await.expect("answered");
    assert_eq!((swept.recovered, swept.given_up), (0, 0), "there is no task that was lost");
    is_forgotten(&place, &broker, &["gone"]).await;
}

/// `RunAll` of asynq's makes `{state: pending}` of an id whose archived task it has trimmed: a claim took the id out of the line,
/// and left the record. The same of a result that was written after its task had gone.
#[tokio::test]
async fn a_record_without_its_message_goes_when_it_is_claimed() {
    let Some((place, broker)) = scene() else { return };
    for names in [&["trimmed"][..], &["trimmed", "late"]] {
        for name in names {
            let field = if *name == "late" { "result" } else { "state" };
            place.raw(&["HSET", &place.key(&format!("t:{name}")), field, "pending"]);
            place.raw(&["LPUSH", &place.key("pending"), name]);
        }
        assert!(place.claim(&broker, names.len()).await.is_empty());
        is_forgotten(&place, &broker, names).await;
        place.run_all_as_go_does();
    }
}

#[tokio::test]
async fn a_record_without_its_message_goes_when_it_is_due_or_grouped() {
    let Some((place, broker)) = scene() else { return };
    let late = vec![due("late", t(5)), grouped("member", "g"), grouped("whole", "g")];
    place.accept(&broker, late).await;
    place.raw(&["HDEL", &place.key("t:late"), "msg", "state"]);
    place.raw(&["HSET", &place.key("t:late"), "result", "42"]);
    place.raw(&["HDEL", &place.key("t:member"), "msg"]);
    let grouping = outlast_core::Want { groups: [policy("*", 0)].into(), ..want(10) };
    let claims = broker.claim(&place.queue, stamp(1, 0, 1), t(9), &grouping).await;
    assert_eq!(claims.expect("answered").claims.len(), 1, "the group, without its ghost");
    assert_eq!(place.tasks(), ["whole"]);
    assert_eq!(place.count("ZCARD", "archived"), 0, "there is no empty task to be listed");
}

/// A worker that reported progress, or a failure, of a task that had been deleted meanwhile made a record of that alone.
#[tokio::test]
async fn what_a_run_says_of_a_task_that_is_gone_leaves_no_record() {
    let Some((place, broker)) = scene() else { return };
    place.accept(&broker, tasks(&["a", "b"])).await;
    let running = place.claim(&broker, 2).await;
    place.raw(&["DEL", &place.key("t:a")]);
    place.raw(&["HDEL", &place.key("t:b"), "msg"]);
    let hold =
        |lease: &outlast_core::Lease| Hold { lease: lease.clone(), result: Some("half".into()) };
    let holds: Vec<Hold> = running.iter().map(|claimed| hold(&claimed.lease)).collect();
    broker.extend(&place.queue, t(9), holds.into(), secs(30)).await.expect("answered");
    assert_eq!(place.tasks(), ["b"]);
    let failed: Vec<Settlement> =
        running.iter().map(|claimed| settlement(&claimed.lease, retry(t(90)))).collect();
    settle(&broker, &place.queue, stamp(1, 0, 1), &failed).await.expect("answered");
    assert_eq!(place.count("ZCARD", "retry"), 0);
    is_forgotten(&place, &broker, &["a", "b"]).await;
}
