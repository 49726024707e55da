//! A key of ours that holds what another program has put there: the error says so, and nothing is half done.

use outlast_core::{
    Action, Broker, BrokerError, Claim, Hold, Inspect, Kind, NewTask, Outcome, PageRequest,
    Selector, SettleVerdict, Want,
};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{
    budget, done, due, grouped, id, kept, once, policy, retry, secs, stamp, t, task, tasks, unique,
};

use crate::kit::{Place, enqueue, failed, settle, settlement, shared, want};

/// A session for what is tried, so that its key is known.
const TRIED: u128 = 0x7777;

/// A queue with something of everything: pending, due, grouped and running tasks, one of them kept.
struct Scene {
    place: Place,
    broker: RedisBroker,
    running: Vec<outlast_core::Lease>,
    set: outlast_core::Lease,
}

impl Scene {
    async fn new() -> Option<Self> {
        let server = shared()?;
        let place = Place::new(server);
        let broker = place.broker(&server.url());
        place.accept(&broker, vec![task("r1"), kept("r2", 100)]).await;
        let running = place.claim(&broker, 2).await;
        let running = running.into_iter().map(|claimed| claimed.lease).collect();
        place.accept(&broker, vec![grouped("s1", "set"), grouped("s2", "set")]).await;
        let claims = broker.claim(&place.queue, stamp(5, 0, 1), t(1), &grouping()).await;
        let claims = claims.expect("answered");
        let [Claim::Group(group)] = &claims.claims[..] else { panic!("{claims:?}") };
        let set = group.lease.clone();
        place.accept(&broker, vec![task("p1"), task("p2"), task("p3")]).await;
        place.accept(&broker, vec![due("d1", t(5)), due("d2", t(6)), grouped("g1", "g")]).await;
        let mut late = grouped("g2", "g");
        late.due = Some(t(7));
        place.accept(&broker, vec![late, unique("u1", "digest", 1000)]).await;
        Some(Self { place, broker, running, set })
    }

    /// Puts a value of a wrong kind at a key, calls, and compares what was there with what is.
    async fn check<T: std::fmt::Debug>(
        &self,
        key: &str,
        verb: &str,
        call: impl AsyncFn(&RedisBroker) -> Result<T, BrokerError>,
    ) {
        let key = if key.contains(':') && key.starts_with(&self.place.namespace) {
            key.to_owned()
        } else {
            self.place.key(key)
        };
        let aside = format!("{key}:aside");
        let was_there = self.place.try_raw(&["RENAME", &key, &aside]).is_ok();
        // A stream is nothing that we ever store.
        self.place.raw(&["XADD", &key, "1-1", "of", "another program"]);
        let before = self.place.everything();
        let answer = call(&self.broker).await;
        assert!(answer.is_err(), "{verb} with a wrong {key}: {answer:?}");
        let said = failed(answer, Kind::Corrupt);
        assert!(said.contains("redis://127.0.0.1"), "{said}");
        let after = self.place.everything();
        let changed = || after.iter().filter(|row| !before.contains(row)).collect::<Vec<_>>();
        assert!(after == before, "{verb} with a wrong {key} has changed {:?}", changed());
        self.place.raw(&["DEL", &key]);
        if was_there {
            self.place.raw(&["RENAME", &aside, &key]);
        }
    }
}

fn grouping() -> Want {
    Want { groups: [policy("*", 0)].into(), ..want(5) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_enqueue_that_meets_a_foreign_key_stores_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let session = scene.place.session_key(TRIED);
    let queues = format!("{}:queues", scene.place.namespace);
    let queue = scene.place.queue.clone();
    for key in [session.as_str(), "pending", queues.as_str()] {
        let plain = || vec![task("new-1"), task("new-2")];
        scene
            .check(key, "enqueue", async |broker| {
                enqueue(broker, &queue, stamp(TRIED, 0, 1), plain()).await
            })
            .await;
    }
    let mixed = || -> Vec<NewTask> {
        let later = due("new-2", t(900));
        vec![
            task("new-1"),
            later,
            grouped("new-3", "g"),
            once("new-4", "k", 9),
            unique("new-5", "x", 9),
        ]
    };
    let lock = scene.place.raw(&["HGET", &scene.place.key("t:u1"), "unique_key"]).text();
    let lock = lock.expect("it has a lock").replace("digest", "x");
    for key in [
        session.as_str(),
        "pending",
        queues.as_str(),
        "scheduled",
        "groups",
        "g:g",
        "outlast:groups",
        "outlast:once:k",
        lock.as_str(),
    ] {
        scene
            .check(key, "mixed enqueue", async |broker| {
                enqueue(broker, &queue, stamp(TRIED, 0, 1), mixed()).await
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_meets_a_foreign_key_takes_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let session = scene.place.session_key(TRIED);
    let queue = scene.place.queue.clone();
    for key in [
        session.as_str(),
        "pending",
        "active",
        "lease",
        "scheduled",
        "retry",
        "groups",
        "aggregation_sets",
    ] {
        scene
            .check(key, "claim", async |broker| {
                broker.claim(&queue, stamp(TRIED, 0, 1), t(50), &grouping()).await
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_meets_a_foreign_key_ends_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let session = scene.place.session_key(TRIED);
    let queue = scene.place.queue.clone();
    let today = format!("processed:{}", t(2).date());
    let plain = [settlement(&scene.running[0], done())];
    for key in [session.as_str(), "active", "lease", "processed", today.as_str()] {
        scene
            .check(key, "settle", async |broker| {
                settle(broker, &queue, stamp(TRIED, 0, 1), &plain).await
            })
            .await;
    }
    let released =
        [settlement(&scene.running[0], done()), settlement(&scene.set, Outcome::Release)];
    scene
        .check("g:set", "release", async |broker| {
            settle(broker, &queue, stamp(TRIED, 0, 1), &released).await
        })
        .await;
    let failed_today = format!("failed:{}", t(2).date());
    let into = Outcome::Aggregated { into: Box::new(once("whole", "k", 9)) };
    let mixed = [
        settlement(&scene.running[0], retry(t(90))),
        settlement(&scene.running[1], done()),
        settlement(&scene.set, into),
    ];
    for key in [
        session.as_str(),
        "active",
        "lease",
        "pending",
        "scheduled",
        "retry",
        "archived",
        "completed",
        "groups",
        "aggregation_sets",
        "processed",
        "failed",
        today.as_str(),
        failed_today.as_str(),
        "t:r2",
        "outlast:once:k",
    ] {
        scene
            .check(key, "mixed settle", async |broker| {
                settle(broker, &queue, stamp(TRIED, 0, 1), &mixed).await
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_meets_a_foreign_key_changes_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let queue = scene.place.queue.clone();
    let select = Selector { ids: vec![id("p1"), id("d1"), id("g1")], ..Selector::default() };
    let states =
        ["pending", "active", "lease", "scheduled", "retry", "archived", "completed", "groups"];
    for key in states {
        for action in [Action::Archive, Action::Delete, Action::Run] {
            let page = PageRequest::first(10);
            scene
                .check(key, "act", async |broker| {
                    broker.act(&queue, &action, &select, &page, t(1)).await
                })
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extensions_and_sweeps_that_meet_a_foreign_key_change_nothing() {
    let Some(scene) = Scene::new().await else { return };
    let queue = scene.place.queue.clone();
    let holds: Vec<Hold> =
        scene.running.iter().map(|lease| Hold { lease: lease.clone(), result: None }).collect();
    for key in ["lease", "aggregation_sets"] {
        scene
            .check(key, "extend", async |broker| {
                broker.extend(&queue, t(9), holds.clone().into(), secs(30)).await
            })
            .await;
    }
    let queues = format!("{}:queues", scene.place.namespace);
    for key in [
        "pending",
        "active",
        "lease",
        "scheduled",
        "retry",
        "archived",
        "completed",
        "groups",
        "outlast:groups",
        "aggregation_sets",
        queues.as_str(),
    ] {
        scene
            .check(key, "sweep", async |broker| broker.sweep(&queue, t(500), budget(100)).await)
            .await;
    }
}

/// A counter was taken for one if Lua could read it as a number: `1e5` passed, INCRBY refused it when the task was deleted already,
/// and the repeat of a run that had ended was told that its lease was lost.
#[tokio::test]
async fn a_counter_that_cannot_be_counted_on_ends_nothing() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    let today = format!("processed:{}", t(2).date());
    for (nth, (key, value)) in
        [("processed", "1e5"), ("processed", "1.5"), (today.as_str(), "9223372036854775807")]
            .into_iter()
            .enumerate()
    {
        let names = [format!("a{nth}"), format!("b{nth}")];
        place.accept(&broker, tasks(&[&names[0], &names[1]])).await;
        let running = place.claim(&broker, 2).await;
        let [first, second] = &running[..] else { panic!("{running:?}") };
        place.raw(&["SET", &place.key(key), value]);
        let before = place.everything();
        let one = [settlement(&first.lease, done())];
        let two = [settlement(&first.lease, done()), settlement(&second.lease, done())];
        let mixed = [settlement(&first.lease, retry(t(90))), settlement(&second.lease, done())];
        for (lane, batch) in [&one[..], &two, &mixed].into_iter().enumerate() {
            let lane = u16::try_from(lane).expect("three lanes");
            let said =
                settle(&broker, &place.queue, stamp(TRIED + nth as u128, lane, 1), batch).await;
            failed(said, Kind::Corrupt);
            assert!(place.everything() == before, "{key} {value}: {} settled", batch.len());
        }
        place.raw(&["DEL", &place.key(key)]);
        let session = stamp(TRIED + nth as u128, 9, 1);
        let said = settle(&broker, &place.queue, session, &two).await.expect("applied");
        assert_eq!(said, [SettleVerdict::Applied, SettleVerdict::Applied]);
    }
}
