//! One task whose key holds data of another program is that task's trouble: its queue goes on.

use outlast_core::{
    Action, Broker, Claim, Controlled, Inspect, PageRequest, QueueControl, Rest, Selector, Swept,
    TaskState,
};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{
    budget, done, due, grouped, id, policy, retry, stamp, t, task, tasks, tasks_of,
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

/// One record whose count of losses was no number ended every sweep of its queue, after the tasks before it had left their leases
/// half-way: nothing of that queue was ever taken back again.
#[tokio::test]
async fn a_count_of_losses_that_is_no_number_does_not_hold_up_the_others() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    scene.place.accept(&scene.broker, tasks(&["a", "bad", "z"])).await;
    scene.place.claim(&scene.broker, 3).await;
    scene.place.raw(&["HSET", &scene.place.key("t:bad"), "o:lost", "many"]);
    let swept = scene.sweep(100).await;
    assert_eq!((swept.recovered, swept.given_up), (3, 0), "{swept:?}");
    let claims = scene.broker.claim(&queue, stamp(2, 0, 1), t(200), &want(10)).await;
    let (whole, corrupt) = sorted_out(claims.expect("answered").claims);
    assert_eq!((whole.len(), corrupt.len()), (3, 0));
    assert_eq!(scene.place.raw(&["HGET", &scene.place.key("t:bad"), "o:lost"]).int(), Some(1));
}

/// A key in the place of one group made every claim and every sweep of its queue fail as soon as one of its tasks was due. They wait,
/// and nothing else does.
#[tokio::test]
async fn a_foreign_key_in_the_place_of_a_group_does_not_hold_up_its_queue() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    let mut late = grouped("late", "g");
    late.due = Some(t(5));
    scene.place.accept(&scene.broker, vec![late, due("other", t(6)), grouped("m", "h")]).await;
    let group = scene.place.key("g:g");
    scene.place.raw(&["SET", &group, "of another program"]);
    scene.place.raw(&["SADD", &scene.place.key("groups"), "g"]);
    let grouping = outlast_core::Want { groups: [policy("*", 0)].into(), ..want(10) };
    let claims = scene.broker.claim(&queue, stamp(1, 0, 1), t(9), &grouping).await;
    let (mut whole, _) = sorted_out(claims.expect("answered").claims);
    whole.sort();
    assert_eq!(whole, ["m", "other"]);
    assert_eq!(scene.sweep(70).await.due, 0, "it was looked at again, and waits on");
    assert_eq!(scene.place.raw(&["GET", &group]).text().as_deref(), Some("of another program"));
    scene.place.raw(&["DEL", &group]);
    scene.sweep(200).await;
    assert_eq!(scene.place.count("ZCARD", "g:g"), 1);
}

/// A member of `aggregation_sets` that is no set ended every sweep before its later steps: what was over was never deleted.
#[tokio::test]
async fn what_is_no_set_among_the_sets_does_not_hold_up_a_sweep() {
    let Some(scene) = Scene::new() else { return };
    let members = ["a", "b"].map(|name| grouped(name, "g"));
    scene.place.accept(&scene.broker, members.into()).await;
    let sets = scene.place.key("aggregation_sets");
    let (foreign, stuck) = (scene.place.key("g:x:1"), scene.place.key("g:y:2"));
    scene.place.raw(&["SET", &foreign, "of another program"]);
    scene.place.raw(&["SET", &scene.place.key("g:y"), "of another program"]);
    scene.place.raw(&["RENAME", &scene.place.key("g:g"), &stuck]);
    for member in [foreign.as_str(), stuck.as_str(), "no-set", "asynq:{other}:g:z:1"] {
        scene.place.raw(&["ZADD", &sets, "100", member]);
    }
    let kept = [outlast_testkit::conformance::words::kept("kept", 10)];
    scene.place.accept(&scene.broker, kept.into()).await;
    let running = scene.place.claim(&scene.broker, 1).await;
    let batch = [settlement(&running[0].lease, done())];
    settle(&scene.broker, &scene.place.queue, stamp(1, 0, 1), &batch).await.expect("answered");
    let swept = scene.sweep(100).await;
    assert_eq!((swept.reclaimed, swept.deleted), (0, 1), "{swept:?}");
    assert_eq!(scene.place.raw(&["EXISTS", &foreign]).int(), Some(1));
    assert_eq!(scene.place.count("ZCARD", "aggregation_sets"), 1, "one waits for its group");
    scene.place.raw(&["DEL", &scene.place.key("g:y")]);
    assert_eq!(scene.sweep(300).await.reclaimed, 1);
    assert_eq!(scene.place.count("ZCARD", "g:y"), 2);
}

/// A foreign key behind one id failed the page that listed it; at the head of the line, the numbers of all queues.
#[tokio::test]
async fn a_foreign_key_is_left_out_of_what_is_looked_at() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    let mut all = tasks(&["bad", "a"]);
    all.extend([due("bad-late", t(500)), due("z", t(500)), grouped("m", "h"), grouped("n", "g")]);
    scene.place.accept(&scene.broker, all).await;
    for name in ["bad", "bad-late"] {
        scene.poison(name);
    }
    for key in ["g:g", "g:x:1"] {
        scene.place.raw(&["SET", &scene.place.key(key), "of another program"]);
    }
    let set = scene.place.key("g:x:1");
    scene.place.raw(&["ZADD", &scene.place.key("aggregation_sets"), "9999999999", &set]);
    for (state, name) in
        [(TaskState::Pending, "a"), (TaskState::Scheduled, "z"), (TaskState::Aggregating, "m")]
    {
        let select = Selector { state: Some(state), ..Selector::default() };
        let page = scene.broker.tasks(&queue, &select, &PageRequest::first(10), t(1)).await;
        let ids: Vec<_> = page.expect("answered").items.into_iter().map(|task| task.id).collect();
        assert_eq!(ids, [id(name)], "{state:?}");
    }
    assert_eq!(scene.broker.task(&queue, &id("bad"), t(1)).await.expect("answered"), None);
    let queues = scene.broker.queues(t(1)).await.expect("answered");
    assert_eq!((queues[0].pending, queues[0].aggregating), (2, 1));
    let stats = scene.broker.queue(&queue, t(1)).await.expect("answered");
    assert!(stats.is_some_and(|stats| stats.bytes.is_some()));
    let groups = scene.broker.groups(&queue).await.expect("answered");
    assert_eq!(groups.len(), 1, "{groups:?}");
}

/// An action on several tasks stopped at a foreign key behind one of them, half-way: what had left its place before was nowhere.
#[tokio::test]
async fn an_action_gets_past_foreign_keys() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    let all = vec![due("a", t(500)), due("bad", t(500)), grouped("m", "g"), due("z", t(500))];
    scene.place.accept(&scene.broker, all).await;
    scene.poison("bad");
    scene.place.raw(&["DEL", &scene.place.key("g:g")]);
    scene.place.raw(&["SET", &scene.place.key("g:g"), "of another program"]);
    let select = Selector { ids: ["a", "bad", "m", "z"].map(id).into(), ..Selector::default() };
    let acted =
        scene.broker.act(&queue, &Action::Run, &select, &PageRequest::first(10), t(1)).await;
    let acted = acted.expect("answered");
    assert_eq!((acted.changed, acted.refused.len()), (2, 2), "{acted:?}");
    assert_eq!(scene.place.pending(), 2);
    assert!(scene.is_untouched("bad"));
}

/// A queue with a foreign key at one of its ids, or in the place of a group, could not be removed, not even by force.
#[tokio::test]
async fn a_queue_with_foreign_keys_can_be_removed_and_they_stay() {
    let Some(scene) = Scene::new() else { return };
    let queue = scene.place.queue.clone();
    let mut all = tasks(&["a", "bad"]);
    all.extend([due("bad-late", t(500)), grouped("m", "g"), grouped("n", "h")]);
    scene.place.accept(&scene.broker, all).await;
    for name in ["bad", "bad-late"] {
        scene.poison(name);
    }
    let foreign = ["g:g", "g:x:1"].map(|name| scene.place.key(name));
    scene.place.raw(&["DEL", &foreign[0]]);
    for key in &foreign {
        scene.place.raw(&["SET", key, "of another program"]);
    }
    scene.place.raw(&["ZADD", &scene.place.key("aggregation_sets"), "9999999999", &foreign[1]]);
    let removed =
        scene.broker.control(&queue, QueueControl::RemoveWithTasks, t(1)).await.expect("answered");
    assert_eq!(removed, Controlled::Applied);
    assert!(["bad", "bad-late"].iter().all(|name| scene.is_untouched(name)));
    for key in &foreign {
        assert_eq!(scene.place.raw(&["EXISTS", key]).int(), Some(1));
    }
    // `m` went with the key that named it: nobody could find it.
    assert_eq!(scene.place.tasks(), ["bad", "bad-late", "m"]);
}
