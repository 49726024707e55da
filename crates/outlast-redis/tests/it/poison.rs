//! One task whose key holds data of another program is that task's trouble: its queue goes on.

use outlast_core::{
    Broker, Claim, Controlled, Inspect, PageRequest, QueueControl, Rest, Selector, Swept, TaskState,
};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{
    budget, done, due, grouped, policy, retry, stamp, t, task, tasks, tasks_of,
};

use crate::kit::{Place, settle, settlement, shared, want};

/// A queue of its own, and a broker on it.
struct Scene {
    place: Place,
    broker: RedisBroker,
}

impl Scene {
    fn new() -> Option<Self> {
        let server = shared()?;
        let place = Place::new(server);
        let broker = place.broker(&server.url());
        Some(Self { place, broker })
    }

    /// Another program writes over a task.
    fn poison(&self, id: &str) {
        let key = self.place.key(&format!("t:{id}"));
        self.place.raw(&["DEL", &key]);
        self.place.raw(&["RPUSH", &key, "of", "another program"]);
    }

    /// What the other program has written is as it was.
    fn is_untouched(&self, id: &str) -> bool {
        self.place.count("LLEN", &format!("t:{id}")) == 2
    }

    async fn sweep(&self, now: i64) -> Swept {
        self.broker.sweep(&self.place.queue, t(now), budget(100)).await.expect("answered")
    }
}

/// What was claimed: the tasks, and those that cannot be read.
fn sorted_out(claims: Vec<Claim>) -> (Vec<String>, Vec<String>) {
    let (mut whole, mut corrupt) = (Vec::new(), Vec::new());
    for claim in claims {
        match claim {
            Claim::Task(task) => whole.push(task.task.id.to_string()),
            Claim::Corrupt { id, why } => {
                assert!(why.contains("another program"), "{why}");
                corrupt.push(id.to_string());
            }
            Claim::Group(group) => whole.extend(group.tasks.iter().map(|task| task.id.to_string())),
        }
    }
    (whole, corrupt)
}

/// A list at the key of one waiting task made every claim of its queue fail, for good: the queue stood still
/// until somebody deleted it by hand.
#[tokio::test]
async fn a_foreign_key_in_the_line_does_not_hold_up_the_others() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    scene.place.accept(&scene.broker, tasks(&["a", "bad", "z"])).await;
    scene.poison("bad");
    let claim = async |seq| {
        let want = want(10);
        scene.broker.claim(&queue, stamp(1, 0, seq), t(1), &want).await.expect("answered")
    };
    let claims = claim(1).await;
    assert_eq!(claims.rest, Rest::Empty);
    assert_eq!(sorted_out(claims.claims), (vec!["a".into(), "z".into()], vec!["bad".into()]));
    let again = sorted_out(claim(1).await.claims);
    assert_eq!(again.0, ["a", "z"], "a repeat hands out the same tasks");
    let next = claim(2).await;
    assert!(next.claims.is_empty() && next.lost.is_none(), "it is reported once: {next:?}");
    assert!(scene.is_untouched("bad"));
}

/// A claim that finds nothing leaves no record and its number is used again; one that answers a record that cannot
/// be read is no such claim, and must leave one, or the next number looks like a gap.
#[tokio::test]
async fn a_claim_that_finds_only_a_foreign_key_counts_as_a_batch() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    for (seq, name) in [(1, "bad"), (2, "worse")] {
        scene.place.accept(&scene.broker, vec![task(name)]).await;
        scene.poison(name);
        let stamp = stamp(1, 0, seq);
        let claims = scene.broker.claim(&queue, stamp, t(1), &want(10)).await.expect("answered");
        assert!(claims.lost.is_none(), "{claims:?}");
        assert_eq!(sorted_out(claims.claims).1, [name]);
    }
}

/// The same for a task whose time has come: neither claims nor sweeps got past it, and no other scheduled task of the
/// queue ever ran.
#[tokio::test]
async fn a_foreign_key_among_the_due_does_not_hold_up_the_others() {
    let Some(scene) = Scene::new() else { return };
    for verb in ["claim", "sweep"] {
        let named = |name: &str| format!("{verb}-{name}");
        let late = ["a", "bad", "z"].map(|name| due(&named(name), t(5)));
        scene.place.accept(&scene.broker, late.into()).await;
        scene.poison(&named("bad"));
        if verb == "sweep" {
            assert_eq!(scene.sweep(9).await.due, 3, "that many have left the set");
        }
        let stamp = stamp(uuid::Uuid::new_v4().as_u128(), 0, 1);
        let claims = scene.broker.claim(&scene.place.queue, stamp, t(9), &want(10)).await;
        let (whole, corrupt) = sorted_out(claims.expect("answered").claims);
        assert_eq!((whole, corrupt.len()), (vec![named("a"), named("z")], 0));
        assert_eq!(scene.place.count("ZCARD", "scheduled"), 0);
        assert!(scene.is_untouched(&named("bad")));
    }
}

/// A foreign key at a member of a group kept the whole queue from being claimed by workers that know groups.
#[tokio::test]
async fn a_foreign_key_in_a_group_does_not_hold_up_the_others() {
    let Some(scene) = Scene::new() else { return };
    let members = ["a", "bad", "z"].map(|name| grouped(name, "g"));
    scene.place.accept(&scene.broker, members.into()).await;
    scene.poison("bad");
    let grouping = outlast_core::Want { groups: [policy("*", 0)].into(), ..want(10) };
    for _ in ["first", "repeat"] {
        let claim = scene.broker.claim(&scene.place.queue, stamp(1, 0, 1), t(9), &grouping);
        let (whole, _) = sorted_out(claim.await.expect("answered").claims);
        assert_eq!(whole, ["a", "z"]);
    }
    assert_eq!(scene.place.count("ZCARD", "archived"), 0, "there is no task that could be listed");
    assert!(scene.is_untouched("bad"));
}

/// An expired lease, or a task whose retention is over, at whose key a list stood, made every sweep of the queue fail.
#[tokio::test]
async fn a_sweep_gets_past_foreign_keys_in_every_state() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    let kept = ["kept-1", "kept-2"].map(|name| outlast_testkit::conformance::words::kept(name, 10));
    scene.place.accept(&scene.broker, kept.into()).await;
    let finished = scene.place.claim(&scene.broker, 2).await;
    let finished: Vec<_> = finished.iter().map(|task| settlement(&task.lease, done())).collect();
    settle(&scene.broker, &queue, stamp(1, 0, 1), &finished).await.expect("answered");
    scene.place.accept(&scene.broker, tasks(&["late", "lost-1", "lost-2"])).await;
    let running = scene.place.claim(&scene.broker, 3).await;
    let later = [settlement(&running[0].lease, retry(t(5)))];
    settle(&scene.broker, &queue, stamp(1, 0, 2), &later).await.expect("answered");
    for name in ["kept-1", "lost-1", "late"] {
        scene.poison(name);
    }
    let swept = scene.sweep(100).await;
    assert_eq!((swept.recovered, swept.given_up), (1, 0), "{swept:?}");
    for (command, place) in [("LLEN", "active"), ("ZCARD", "lease"), ("ZCARD", "completed")] {
        assert_eq!(scene.place.count(command, place), 0, "{place}");
    }
    assert!(["kept-1", "lost-1", "late"].iter().all(|name| scene.is_untouched(name)));
    let claims = scene.broker.claim(&queue, stamp(2, 0, 1), t(200), &want(10)).await;
    let ids: Vec<_> = tasks_of(claims.expect("answered"))
        .into_iter()
        .map(|task| task.task.id.to_string())
        .collect();
    assert_eq!(ids, ["lost-2"]);
}

/// A count of losses that is no number stopped the sweep between two writes, and each one after it: none of the queue's lost
/// tasks was ever found again.
#[tokio::test]
async fn a_count_of_losses_that_is_no_number_does_not_hold_up_the_others() {
    let Some(scene) = Scene::new() else { return };
    scene.place.accept(&scene.broker, tasks(&["a", "bad", "z"])).await;
    scene.place.claim(&scene.broker, 3).await;
    scene.place.raw(&["HSET", &scene.place.key("t:bad"), "o:lost", "many"]);
    assert_eq!(scene.sweep(100).await.recovered, 3);
    for (command, place, count) in
        [("LLEN", "active", 0), ("ZCARD", "lease", 0), ("ZCARD", "retry", 3)]
    {
        assert_eq!(scene.place.count(command, place), count, "{place}");
    }
    let losses = scene.place.raw(&["HGET", &scene.place.key("t:bad"), "o:lost"]);
    assert_eq!(losses.text().as_deref(), Some("1"));
}

/// The same for a set that is no set.
#[tokio::test]
async fn a_foreign_key_of_an_aggregation_set_does_not_hold_up_the_others() {
    let Some(scene) = Scene::new() else { return };
    scene.poison("set");
    let sets = scene.place.key("aggregation_sets");
    for name in [scene.place.key("t:set"), "of-no-queue".to_owned()] {
        scene.place.raw(&["ZADD", &sets, "1", &name]);
    }
    scene.place.accept(&scene.broker, vec![due("late", t(7))]).await;
    let swept = scene.sweep(100).await;
    assert_eq!((swept.due, scene.place.count("ZCARD", "aggregation_sets")), (1, 0), "{swept:?}");
    assert_eq!(scene.place.pending(), 1);
    assert!(scene.is_untouched("set"));
}

/// A list at the key of one task made the page that it was on fail, and as the next in line the figures of every queue; a queue could
/// not even be removed.
#[tokio::test]
async fn a_foreign_key_is_no_trouble_for_whoever_looks_or_removes() {
    let Some(scene) = Scene::new() else { return };
    let queue = &scene.place.queue;
    scene.place.accept(&scene.broker, tasks(&["bad", "z"])).await;
    scene.place.accept(&scene.broker, vec![grouped("g1", "g")]).await;
    scene.poison("bad");
    scene.place.raw(&["DEL", &scene.place.key("g:g")]);
    scene.place.raw(&["RPUSH", &scene.place.key("g:g"), "of", "another program"]);
    let select = Selector::state(TaskState::Pending);
    let page = scene.broker.tasks(queue, &select, &PageRequest::first(10), t(1)).await;
    let listed: Vec<_> =
        page.expect("answered").items.iter().map(|task| task.id.to_string()).collect();
    assert_eq!(listed, ["z"]);
    scene.broker.queue(queue, t(1)).await.expect("answered");
    let removed = scene.broker.control(queue, QueueControl::RemoveWithTasks, t(1)).await;
    assert_eq!(removed.expect("answered"), Controlled::Applied);
    assert_eq!(scene.place.pending(), 0);
    assert!(scene.is_untouched("bad") && scene.place.count("LLEN", "g:g") == 2);
}

/// What a dequeue of asynq's makes of an id whose task has gone: a record of nothing but a state. It was taken out of the queue and left
/// there, so that its id was taken for ever; and `fsck` called it a task that cannot be read.
#[tokio::test]
async fn a_record_that_is_nothing_but_a_state_goes_with_its_id() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    let ghost = |id: &str, state: &str| {
        scene.place.raw(&["HSET", &scene.place.key(&format!("t:{id}")), "state", state]);
    };
    // Taken by a worker that has died since; put in line by hand; due; and left by nobody knows whom.
    ghost("taken", "active");
    scene.place.raw(&["LPUSH", &scene.place.key("active"), "taken"]);
    scene.place.raw(&["ZADD", &scene.place.key("lease"), "1", "taken"]);
    ghost("line", "pending");
    scene.place.raw(&["LPUSH", &scene.place.key("pending"), "line"]);
    ghost("due", "scheduled");
    scene.place.raw(&["ZADD", &scene.place.key("scheduled"), "1", "due"]);
    scene.place.accept(&scene.broker, tasks(&["z"])).await;
    scene.sweep(100).await;
    let claims = scene.broker.claim(&queue, stamp(1, 0, 1), t(100), &want(10)).await;
    let (whole, corrupt) = sorted_out(claims.expect("answered").claims);
    assert_eq!((whole, corrupt.len()), (vec!["z".into()], 0));
    assert_eq!(scene.place.tasks(), ["z"], "their ids are free again");
    scene.place.accept(&scene.broker, tasks(&["taken", "line", "due"])).await;
}
