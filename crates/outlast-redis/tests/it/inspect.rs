//! Looking and acting where only a server of our own shows the difference: long lists, many groups, and what
//! other programs leave there.

use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use outlast_core::{
    Action, Broker, Controlled, Cursor, GroupName, Inspect, Kind, NewTask, PageRequest,
    QueueControl, Refusal, Selector, TaskId, TaskState, TaskType, Timestamp,
};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{stamp, t};
use outlast_testkit::resp::Reply;
use outlast_testkit::server::RedisServer;

use crate::kit::{Place, own, shared};

/// A place, and a broker that looks at it.
struct Scene {
    place: Place,
    broker: RedisBroker,
    server: &'static RedisServer,
}

impl Deref for Scene {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Scene {
    fn new() -> Option<Self> {
        let server = shared()?;
        let place = Place::new(server);
        let broker = place.broker(&server.url());
        Some(Self { place, broker, server })
    }

    async fn enqueue(&self, seq: u64, tasks: Vec<NewTask>) {
        let answer = self.broker.enqueue(&self.queue, stamp(1, 0, seq), t(0), tasks.into()).await;
        answer.expect("answered");
    }

    async fn page(
        &self,
        select: &Selector,
        limit: usize,
        from: Option<Cursor>,
    ) -> (Vec<String>, Option<Cursor>) {
        let request = PageRequest { limit, cursor: from };
        let page = self.broker.tasks(&self.queue, select, &request, t(0)).await.expect("answered");
        (page.items.iter().map(|task| task.id.to_string()).collect(), page.next)
    }

    async fn all(&self, select: &Selector) -> Vec<String> {
        let (mut ids, mut from) = self.page(select, 100, None).await;
        while from.is_some() {
            let (more, next) = self.page(select, 100, from).await;
            ids.extend(more);
            from = next;
        }
        ids
    }
}

fn pending() -> Selector {
    Selector::state(TaskState::Pending)
}

fn task(id: &str) -> NewTask {
    NewTask::new(TaskId::stored(id), TaskType::stored("t"), Bytes::from_static(b"payload"))
}

fn numbers(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|n| format!("a{n}")).collect()
}

#[tokio::test]
async fn a_page_goes_on_where_it_ended_however_far_the_line_has_moved() {
    let Some(place) = Scene::new() else { return };
    place.push("LPUSH", "a", 300);
    let (_, from) = place.page(&pending(), 100, None).await;
    // Further than is looked at first, and further than one step of a search.
    place.push("RPUSH", "front", 12_000);
    place.push("LPUSH", "back", 3000);
    assert_eq!(place.page(&pending(), 50, from).await.0, numbers(100, 150));
}

#[tokio::test]
async fn a_page_goes_on_behind_what_was_shown_when_all_that_came_next_has_gone() {
    let Some(place) = Scene::new() else { return };
    place.push("LPUSH", "a", 100);
    let (_, from) = place.page(&pending(), 20, None).await;
    let ids = numbers(20, 60).iter().map(|id| TaskId::stored(id)).collect();
    let named = Selector { ids, ..Selector::default() };
    let request = PageRequest::first(100);
    let acted = place.broker.act(&place.queue, &Action::Archive, &named, &request, t(1)).await;
    assert_eq!(acted.expect("answered").changed, 40);
    assert_eq!(place.page(&pending(), 5, from).await.0, numbers(60, 65));
}

#[tokio::test]
async fn a_task_that_has_moved_to_the_end_of_the_line_hides_nobody() {
    let Some(place) = Scene::new() else { return };
    place.push("LPUSH", "a", 60);
    let (_, from) = place.page(&pending(), 20, None).await;
    // The next one runs, fails and waits again, behind all others.
    let key = place.key("pending");
    place.raw(&["LREM", &key, "1", "a20"]);
    place.raw(&["LPUSH", &key, "a20"]);
    let (ids, _) = place.page(&pending(), 100, from).await;
    assert_eq!(ids[..39], numbers(21, 60));
}

#[tokio::test]
async fn tasks_are_taken_out_of_the_middle_of_a_long_line() {
    let Some(place) = Scene::new() else { return };
    place.push("LPUSH", "a", 30_000);
    let ids = ["a15000", "a3", "a29999", "a11000", "a24000"].map(TaskId::stored).to_vec();
    let named = Selector { ids, ..Selector::default() };
    let request = PageRequest::first(10);
    let acted = place.broker.act(&place.queue, &Action::Delete, &named, &request, t(1)).await;
    assert_eq!(acted.expect("answered").changed, 5);
    let stats = place.broker.queue(&place.queue, t(1)).await.expect("answered").expect("known");
    assert_eq!(stats.pending, 29_995);
    let (ids, _) = place.page(&pending(), 5, None).await;
    assert_eq!(ids, ["a0", "a1", "a2", "a4", "a5"]);
}

#[tokio::test]
async fn more_groups_than_are_counted_at_once_are_counted_and_listed() {
    let Some(place) = Scene::new() else { return };
    for batch in 0..5 {
        let grouped = (0..240).map(|n| {
            let mut task = task(&format!("m{batch}-{n:03}"));
            task.group = Some(GroupName::stored(&format!("g{:03}", (batch * 240 + n) % 600)));
            task
        });
        place.enqueue(batch + 1, grouped.collect()).await;
    }
    let stats = place.broker.queue(&place.queue, t(1)).await.expect("answered").expect("known");
    assert_eq!((stats.groups, stats.aggregating), (600, 1200));
    let groups = place.broker.groups(&place.queue).await.expect("answered");
    assert!(groups.len() == 600 && groups.iter().all(|group| group.size == 2));
    let listed = place.all(&Selector::state(TaskState::Aggregating)).await;
    let mut sorted = listed.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!((listed.len(), &listed), (1200, &sorted), "by id, as all came in one second");
    let removed = place.broker.control(&place.queue, QueueControl::RemoveWithTasks, t(2)).await;
    assert_eq!(removed.expect("answered"), Controlled::Applied);
}

#[tokio::test]
async fn a_server_that_hides_its_memory_is_looked_at_all_the_same() {
    let Some(place) = Scene::new() else { return };
    place.enqueue(1, vec![task("a")]).await;
    let bytes = |stats: Option<outlast_core::QueueStats>| stats.expect("known").bytes;
    let seen = place.broker.queue(&place.queue, t(1)).await.expect("answered");
    assert!(bytes(seen).is_some_and(|bytes| bytes > 100));
    let user = place.namespace.clone();
    place.raw(&["ACL", "SETUSER", &user, "on", "nopass", "~*", "&*", "+@all", "-memory"]);
    let url = place.server.url().replacen("://", &format!("://{user}:x@"), 1);
    let other = place.place.broker(&url);
    assert_eq!(bytes(other.queue(&place.queue, t(1)).await.expect("answered")), None);
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_left_out_and_named_where_it_is_asked_for() {
    let Some(place) = Scene::new() else { return };
    place.enqueue(1, vec![task("a"), task("bad"), task("z")]).await;
    place.raw(&["HSET", &place.key("t:bad"), "msg", "\u{1}garbage"]);
    assert_eq!(place.all(&pending()).await, ["a", "z"]);
    let asked = place.broker.task(&place.queue, &TaskId::stored("bad"), t(0)).await;
    let error = asked.expect_err("it cannot be read");
    assert!(error.kind() == Kind::Corrupt && error.to_string().contains("bad"), "{error}");
    let select = Selector::id(TaskId::stored("bad"));
    let request = PageRequest::first(1);
    let acted = place.broker.act(&place.queue, &Action::Delete, &select, &request, t(1)).await;
    assert_eq!(acted.expect("answered").changed, 1);
}

#[tokio::test]
async fn the_cancel_of_a_go_workers_task_is_published_as_go_expects_it() {
    let Some(place) = Scene::new() else { return };
    place.raw(&["HSET", &place.key("t:a"), "msg", "\n\u{1}t", "state", "active"]);
    place.raw(&["LPUSH", &place.key("active"), "a"]);
    place.raw(&["ZADD", &place.key("lease"), &t(30).as_seconds().to_string(), "a"]);
    let client = redis::Client::open(place.server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("the server answers");
    let mut channel = connection.as_pubsub();
    channel.subscribe(format!("{}:cancel", place.namespace)).expect("subscribed");
    channel.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let select = Selector::id(TaskId::stored("a"));
    let request = PageRequest::first(1);
    let acted = place.broker.act(&place.queue, &Action::Cancel, &select, &request, t(1)).await;
    assert_eq!(acted.expect("answered").changed, 1);
    let message = channel.get_message().expect("published");
    assert_eq!(message.get_payload_bytes(), b"a");
}

#[tokio::test]
async fn a_new_payload_leaves_fields_that_we_do_not_know_as_they_are() {
    let Some(place) = Scene::new() else { return };
    // Type `t`, payload `old`, retry 3, and a field 99.
    let old = "\n\u{1}t\u{12}\u{3}old(\u{3}\u{9a}\u{6}\u{1}x";
    let old: Vec<u8> = old.chars().map(|c| c as u8).collect();
    let client = redis::Client::open(place.server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("the server answers");
    let key = place.key("t:a");
    let mut set = redis::cmd("HSET");
    set.arg(&key).arg("msg").arg(&old).arg("state").arg("scheduled");
    let _: i64 = set.query(&mut connection).expect("set");
    let at = t(900).as_seconds().to_string();
    place.raw(&["ZADD", &place.key("scheduled"), &at, "a"]);
    let action = Action::SetPayload(Bytes::from_static(b"newer"));
    let request = PageRequest::first(1);
    let select = Selector::id(TaskId::stored("a"));
    let acted = place.broker.act(&place.queue, &action, &select, &request, t(1)).await;
    assert_eq!(acted.expect("answered").changed, 1);
    let new: Vec<u8> =
        redis::cmd("HGET").arg(&key).arg("msg").query(&mut connection).expect("a message");
    let expected = "\n\u{1}t\u{12}\u{5}newer(\u{3}\u{9a}\u{6}\u{1}x";
    assert_eq!(new, expected.chars().map(|c| c as u8).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_asynq_archived_half_way_can_be_deleted() {
    // The script of asynq stopped after it had put the task into the archive: its hash still says active.
    let Some(place) = Scene::new() else { return };
    place.raw(&["HSET", &place.key("t:a"), "msg", "\n\u{1}t", "state", "active"]);
    place.raw(&["ZADD", &place.key("archived"), &t(0).as_seconds().to_string(), "a"]);
    assert_eq!(place.all(&Selector::state(TaskState::Archived)).await, ["a"]);
    let select = Selector::state(TaskState::Archived);
    let request = PageRequest::first(10);
    let acted = place.broker.act(&place.queue, &Action::Delete, &select, &request, t(1)).await;
    assert_eq!(acted.expect("answered").changed, 1);
    let select = Selector::id(TaskId::stored("a"));
    let again = place.broker.act(&place.queue, &Action::Delete, &select, &request, t(1)).await;
    assert_eq!(again.expect("answered").refused, [(TaskId::stored("a"), Refusal::NotFound)]);
}

#[tokio::test]
async fn a_removed_queue_leaves_nothing_but_what_makes_batches_repeatable() {
    let Some(place) = Scene::new() else { return };
    let mut tasks: Vec<NewTask> = (0..200).map(|n| task(&format!("{n:03}"))).collect();
    for (nth, task) in tasks.iter_mut().enumerate() {
        match nth % 3 {
            0 => task.due = Some(t(500)),
            1 => task.group = Some(GroupName::stored("g")),
            _ => {}
        }
    }
    place.enqueue(1, tasks).await;
    let control = |control, at: Timestamp| place.broker.control(&place.queue, control, at);
    let not_empty = control(QueueControl::RemoveIfEmpty, t(1)).await.expect("answered");
    assert_eq!(not_empty, Controlled::NotEmpty { tasks: 200 });
    let removed = control(QueueControl::RemoveWithTasks, t(1)).await.expect("answered");
    assert_eq!(removed, Controlled::Applied);
    let client = redis::Client::open(place.server.url()).expect("a URL");
    let mut connection = client.get_connection().expect("the server answers");
    let pattern = format!("{}:*", place.namespace);
    let mut left: Vec<String> =
        redis::cmd("KEYS").arg(pattern).query(&mut connection).expect("keys");
    left.retain(|key| !key.contains(":outlast:s:"));
    assert_eq!(left, Vec::<String>::new());
}

/// How long a server is held up depends on it and on what else it does; how much it is asked to do at once does not.
#[tokio::test]
async fn a_bulk_archive_of_many_tasks_asks_for_few_at_a_time() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    place.push("LPUSH", "task-", 2000);
    for (name, value) in [("slowlog-max-len", "1000000"), ("slowlog-log-slower-than", "0")] {
        place.raw(&["CONFIG", "SET", name, value]);
    }
    let (all, mut page, mut changed) = (pending(), PageRequest::first(1000), 0);
    loop {
        let archive = broker.act(&place.queue, &Action::Archive, &all, &page, t(1));
        let acted = archive.await.expect("answered");
        changed += acted.changed;
        let Some(next) = acted.next else { break };
        page.cursor = Some(next);
    }
    assert_eq!((changed, place.count("ZCARD", "archived")), (2000, 2000));
    let calls = words_of_scripts(&place.raw(&["SLOWLOG", "GET", "1000000"]));
    // 250 tasks, each with its id and a command, and some thirty words beside them.
    assert!(calls.iter().all(|words| *words < 2 * 250 + 50), "{calls:?}");
    assert!(calls.len() >= 2000 / 250, "{calls:?}");
}

/// How many words each script was called with: of a long call the log keeps the beginning, and says how many follow.
fn words_of_scripts(log: &Reply) -> Vec<usize> {
    let text = |word: &Reply| word.text().unwrap_or_default();
    let of_call = |entry: &Reply| {
        let words = entry.items()[3].items();
        let is_script = text(words.first()?).eq_ignore_ascii_case("evalsha");
        let last = text(words.last()?);
        let more = last.strip_prefix("... (").and_then(|more| more.split(' ').next()?.parse().ok());
        is_script.then(|| words.len() + more.unwrap_or(0))
    };
    log.items().iter().filter_map(of_call).collect()
}
