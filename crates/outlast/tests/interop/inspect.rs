//! Each side's inspector on the other side's tasks.

use outlast::{
    Acted, Action, Controlled, ErrorKind, PageRequest, QueueControl, QueueName, Refusal, Selector,
    TaskId, TaskRequest, TaskState,
};
use serde_json::{Value, json};

use super::states::STATES;
use super::world::{World, base64, until};

fn list(world_answer: &Value) -> Vec<String> {
    let tasks = world_answer.as_array().unwrap().iter();
    tasks.map(|task| task["ID"].as_str().unwrap().to_owned()).collect()
}

impl World {
    async fn go_lists(&self, state: TaskState) -> Value {
        let request =
            json!({"op": "tasks", "queue": "q", "state": state.to_string(), "group": "g"});
        self.go(request).await
    }

    async fn go_acts(&self, op: &str, id: &str) -> Value {
        self.ask_go(json!({"op": op, "queue": "q", "id": id})).await
    }

    async fn go_acts_on_all(&self, op: &str, state: TaskState) -> Value {
        let state = state.to_string();
        self.go(json!({"op": op, "queue": "q", "state": state, "group": "g"})).await
    }

    async fn we_act(&self, action: &Action, select: &Selector) -> Acted {
        let queue = QueueName::stored("q");
        self.inspector.act_all(&queue, action, select, |_| {}).await.unwrap()
    }

    async fn we_act_on(&self, action: &Action, id: &str) -> Option<Refusal> {
        let acted = self.we_act(action, &Selector::id(TaskId::stored(id))).await;
        assert_eq!(acted.changed + acted.refused.len() as u64, 1, "{acted:?}");
        acted.refused.first().map(|(_, why)| *why)
    }

    /// Asserts that both sides count and list the same.
    async fn agreed(&self) {
        let stats = self.queue_when("q", |_| true).await;
        let info = self.go_queue("q").await;
        for (state, _) in STATES {
            let mut name = state.to_string();
            name[..1].make_ascii_uppercase();
            assert_eq!(info[name.as_str()], stats.count(state), "{state}");
            let mut theirs = list(&self.go_lists(state).await);
            theirs.sort();
            assert_eq!(theirs, self.ids("q", state).await, "{state}");
        }
    }
}

#[tokio::test]
async fn go_counts_and_lists_our_tasks_of_every_state() {
    let Some(world) = World::start().await else { return };
    let _ours = world.we_fill().await;
    let info = world.go_queue("q").await;
    assert_eq!((&info["Size"], &info["Groups"]), (&json!(7), &json!(1)));
    assert_eq!((&info["Processed"], &info["Failed"]), (&json!(3), &json!(2)));
    assert!(info["MemoryUsage"].as_u64().unwrap() > 0);
    assert!(info["Latency"].as_u64().unwrap() > 0);
    for (state, id) in STATES {
        let listed = world.go_lists(state).await;
        assert_eq!(list(&listed), [id], "{state}");
        let task = &listed[0];
        assert_eq!(task["State"], state.to_string());
        assert_eq!((&task["Payload"], &task["MaxRetry"]), (&json!(base64(b"payload")), &json!(7)));
        assert_eq!(task["IsOrphaned"], false, "{state}");
    }
    assert_eq!(world.go(json!({"op": "queues"})).await, json!(["q"]));
    world.agreed().await;
}

#[tokio::test]
async fn we_count_and_list_gos_tasks_of_every_state() {
    let Some(world) = World::start().await else { return };
    let _go = world.go_fills().await;
    let stats = world.queue_when("q", |_| true).await;
    assert_eq!((stats.size(), stats.groups, stats.unfinished()), (7, 1, 5));
    assert_eq!((stats.processed_today, stats.failed_today), (3, 2));
    assert!(stats.oldest_pending.is_some() && stats.bytes.is_some_and(|bytes| bytes > 0));
    for (state, id) in STATES {
        let page = PageRequest::first(10);
        let queue = QueueName::stored("q");
        let found = world.inspector.tasks(&queue, &Selector::state(state), &page).await.unwrap();
        let [task] = &found.items[..] else { panic!("{state}: {found:?}") };
        assert_eq!((task.id.as_str(), &task.payload[..], task.max_retry), (id, &b"payload"[..], 7));
        assert_eq!(task.headers["trace"], "1");
    }
    world.agreed().await;
}

#[tokio::test]
async fn go_pages_through_our_tasks_in_the_order_in_which_we_list_them() {
    let Some(world) = World::start().await else { return };
    let hour = std::time::Duration::from_secs(3600);
    let request = |n: u32| TaskRequest::raw("ok", "").queue("q").id(&format!("p{n:02}"));
    let pending = (0..25).map(request);
    let later = |n: u32| request(n).id(&format!("s{n:02}")).delay(hour * (n + 1));
    let all: Vec<_> = pending.chain((0..25).map(later)).collect();
    for receipt in world.client.enqueue_all(all).await.unwrap() {
        receipt.accepted().unwrap();
    }
    for state in [TaskState::Pending, TaskState::Scheduled] {
        let (queue, page) = (QueueName::stored("q"), PageRequest::first(100));
        let ours = world.inspector.tasks(&queue, &Selector::state(state), &page).await.unwrap();
        let ours: Vec<_> = ours.items.iter().map(|task| task.id.to_string()).collect();
        let mut theirs = Vec::new();
        for page in 1..=3 {
            let request = json!({"op": "tasks", "queue": "q", "state": state.to_string(),
                "page": page, "size": 10});
            theirs.extend(list(&world.go(request).await));
        }
        assert_eq!(theirs, ours, "{state}");
        assert!(ours.is_sorted() && ours.len() == 25, "{ours:?}");
    }
}

#[tokio::test]
async fn go_runs_archives_edits_and_deletes_single_tasks_of_ours() {
    let Some(world) = World::start().await else { return };
    let ours = world.we_fill().await;
    for op in ["run", "archive", "delete"] {
        let refused = world.go_acts(op, "active").await;
        assert_eq!(refused["ok"], false, "{op}: {refused}");
        let unknown = world.go_acts(op, "nobody").await;
        assert_eq!(unknown["error"], "task_not_found", "{op}");
    }
    let edit = json!({"op": "update_payload", "queue": "q", "id": "scheduled", "payload": "new"});
    world.go(edit).await;
    for (op, id, state) in [
        ("run", "scheduled", TaskState::Pending),
        ("run", "archived", TaskState::Pending),
        ("run", "aggregating", TaskState::Pending),
        ("archive", "retry", TaskState::Archived),
        ("archive", "pending", TaskState::Archived),
    ] {
        let answer = world.go_acts(op, id).await;
        assert_eq!(answer["ok"], true, "{op} {id}: {answer}");
        let task = world.in_state("q", id, state).await;
        let payload: &[u8] = if id == "scheduled" { b"new" } else { b"payload" };
        assert_eq!((&task.payload[..], &task.headers["trace"][..]), (payload, "1"), "{id}");
    }
    world.go_acts("delete", "completed").await;
    world.gone("q", "completed").await;
    world.agreed().await;
    world.go_acts("delete", "archived").await;
    // What Go put back is run by a worker of ours.
    ours.stop().await;
    let ours = world.we_work(|worker| worker.queue("q", 1));
    assert_eq!(&ours.run("scheduled").await.task.payload[..], b"new");
    ours.run("aggregating").await;
}

#[tokio::test]
async fn we_run_archive_edit_and_delete_single_tasks_of_gos() {
    let Some(world) = World::start().await else { return };
    let go = world.go_fills().await;
    for action in [Action::Run, Action::Archive, Action::Delete] {
        assert_eq!(world.we_act_on(&action, "active").await, Some(Refusal::Active));
        assert_eq!(world.we_act_on(&action, "nobody").await, Some(Refusal::NotFound));
    }
    assert_eq!(world.we_act_on(&Action::SetPayload("new".into()), "scheduled").await, None);
    for (action, id, state) in [
        (Action::Run, "scheduled", "pending"),
        (Action::Run, "archived", "pending"),
        (Action::Run, "aggregating", "pending"),
        (Action::Archive, "retry", "archived"),
        (Action::Archive, "pending", "archived"),
    ] {
        assert_eq!(world.we_act_on(&action, id).await, None, "{action:?} {id}");
        let info = world.go_task("q", id).await;
        assert_eq!(info["State"], state, "{id}");
        let payload: &[u8] = if id == "scheduled" { b"new" } else { b"payload" };
        assert_eq!((&info["Payload"], &info["MaxRetry"]), (&json!(base64(payload)), &json!(7)));
    }
    assert_eq!(world.we_act_on(&Action::Delete, "completed").await, None);
    let answer = world.ask_go(json!({"op": "task", "queue": "q", "id": "completed"})).await;
    assert_eq!(answer["error"], "task_not_found");
    world.agreed().await;
    drop(go);
    let go = world.go_works(&["-queues", "q=1"]).await;
    let event = go.event_of("started", "scheduled").await;
    assert_eq!(event["payload_base64"], base64(b"new"));
    go.event_of("finished", "aggregating").await;
}

#[tokio::test]
async fn gos_bulk_actions_change_all_our_tasks_of_a_state() {
    let Some(world) = World::start().await else { return };
    let _ours = world.we_fill().await;
    let counts = [
        ("run_all", TaskState::Retry),
        ("archive_all", TaskState::Scheduled),
        ("archive_all", TaskState::Aggregating),
        ("delete_all", TaskState::Completed),
    ];
    for (op, state) in counts {
        assert_eq!(world.go_acts_on_all(op, state).await, 1, "{op} {state}");
    }
    assert_eq!(world.ids("q", TaskState::Pending).await, ["pending", "retry"]);
    assert_eq!(world.ids("q", TaskState::Archived).await, ["aggregating", "archived", "scheduled"]);
    assert_eq!(world.go_acts_on_all("archive_all", TaskState::Pending).await, 2);
    assert_eq!(world.go_acts_on_all("run_all", TaskState::Archived).await, 5);
    world.agreed().await;
    assert_eq!(world.go_acts_on_all("delete_all", TaskState::Pending).await, 5);
    let stats = world.queue_when("q", |_| true).await;
    assert_eq!((stats.size(), stats.active, stats.groups), (1, 1, 0));
}

#[tokio::test]
async fn our_bulk_actions_change_all_gos_tasks_of_a_state() {
    let Some(world) = World::start().await else { return };
    let _go = world.go_fills().await;
    let all =
        async |action: Action, state| world.we_act(&action, &Selector::state(state)).await.changed;
    assert_eq!(all(Action::Run, TaskState::Retry).await, 1);
    assert_eq!(all(Action::Archive, TaskState::Scheduled).await, 1);
    assert_eq!(all(Action::Archive, TaskState::Aggregating).await, 1);
    assert_eq!(all(Action::Delete, TaskState::Completed).await, 1);
    let mut archived = list(&world.go_lists(TaskState::Archived).await);
    archived.sort();
    assert_eq!(archived, ["aggregating", "archived", "scheduled"]);
    assert_eq!(all(Action::Archive, TaskState::Pending).await, 2);
    assert_eq!(all(Action::Run, TaskState::Archived).await, 5);
    world.agreed().await;
    assert_eq!(all(Action::Delete, TaskState::Pending).await, 5);
    let info = world.go_queue("q").await;
    assert_eq!(
        (&info["Size"], &info["Active"], &info["Groups"]),
        (&json!(1), &json!(1), &json!(0))
    );
}

#[tokio::test]
async fn go_deletes_a_queue_of_ours_once_nothing_runs_in_it() {
    let Some(world) = World::start().await else { return };
    let ours = world.we_fill().await;
    let remove = |force: bool| json!({"op": "delete_queue", "queue": "q", "force": force});
    assert_eq!(world.ask_go(remove(false)).await["error"], "queue_not_empty");
    assert_eq!(world.ask_go(remove(true)).await["ok"], false, "a task runs in it");
    ours.stop().await;
    world.queue_when("q", |stats| stats.active == 0).await;
    world.go(remove(true)).await;
    let queue = QueueName::stored("q");
    let error = world.inspector.queue(&queue).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(world.go(json!({"op": "queues"})).await, json!([]));
}

#[tokio::test]
async fn we_delete_a_queue_of_gos_once_nothing_runs_in_it_and_leave_nothing_behind() {
    let Some(world) = World::start().await else { return };
    let go = world.go_fills().await;
    let queue = QueueName::stored("q");
    let removed = async |control| world.inspector.remove(&queue, control).await.unwrap();
    assert_eq!(removed(QueueControl::RemoveIfEmpty).await, Controlled::NotEmpty { tasks: 7 });
    assert_eq!(removed(QueueControl::RemoveWithTasks).await, Controlled::Active { tasks: 1 });
    drop(go);
    // The worker is dead, so somebody has to take its task back.
    world.expire_leases("q");
    let ours = world.we_work(|worker| worker.queue("q", 1).slots(1));
    until("nothing runs", async || {
        let stats = world.inspector.queue(&queue).await.ok()?;
        (stats.active == 0 && stats.retry > 0).then_some(())
    })
    .await;
    ours.stop().await;
    assert_eq!(removed(QueueControl::RemoveWithTasks).await, Controlled::Applied);
    let answer = world.ask_go(json!({"op": "queue", "queue": "q"})).await;
    assert_eq!(answer["ok"], false, "{answer}");
    let left = world.raw(&["KEYS", "asynq:{q}:*"]);
    let left: Vec<_> = left.items().iter().filter_map(|key| key.text()).collect();
    let sessions = |key: &String| key.starts_with("asynq:{q}:outlast:s:");
    assert!(left.iter().all(sessions), "{left:?}");
}
