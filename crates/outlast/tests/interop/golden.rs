//! The records that real Go programs have left in Redis, byte by byte, as our inspector reads them: what Go's own
//! inspector read from the same keys stands beside them in the fixture.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use outlast::broker::porter::{Found, MOVED_STATES, Parcel};
use outlast::migration::{Migration, Step};
use outlast::{
    Clock, Connection, PageRequest, PriorityName, QueueName, ScheduleName, Selector, TaskId,
    TaskRecord, TaskState, Timestamp, WorkerStatus,
};
use outlast_testkit::server::RedisServer;
use serde_json::Value;

use super::world::{nanos, time};

const FIXTURE: &str = include_str!("../../../outlast-redis/tests/fixtures/golden.json");

/// The fixture in a server, and its moment on our clock.
struct Golden {
    fixture: Value,
    connection: Connection,
    now: Timestamp,
    _redis: RedisServer,
}

impl Golden {
    async fn load() -> Option<Self> {
        let redis = RedisServer::or_skip(RedisServer::start())?;
        let fixture: Value = serde_json::from_str(FIXTURE).unwrap();
        let mut raw = redis.connect().unwrap();
        for key in list(&fixture["keys"]) {
            for words in writes(key) {
                raw.command(&words).unwrap();
            }
        }
        let now = Timestamp::from_millis(fixture["unix_ms"].as_i64().unwrap());
        let connection = Connection::without_spool(&redis.url()).await.unwrap();
        let connection = connection.with_clock(Clock::manual(now));
        Some(Self { fixture, connection, now, _redis: redis })
    }

    /// How many tasks of a queue are in a set that is being aggregated.
    fn in_sets(&self, queue: &str) -> u64 {
        let tasks = list(&self.fixture["tasks"]).iter();
        let named = |task: &&Value| text(&task["name"]).starts_with("in-aggregation-set");
        tasks.filter(named).filter(|task| task["info"]["Queue"] == queue).map(|_| 1).sum()
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn unhex(value: &Value) -> Vec<u8> {
    let digits = text(value).as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap()).collect()
}

/// The commands that write a key as it was. Times to live are left out: they were over long ago.
fn writes(key: &Value) -> Vec<Vec<Vec<u8>>> {
    let name = text(&key["key"]).as_bytes().to_vec();
    let start = |verb: &str| vec![verb.as_bytes().to_vec(), name.clone()];
    let each = |verb: &str, word: fn(&Value) -> Vec<Vec<u8>>| {
        let members = list(&key["members"]).iter();
        members.map(|member| [start(verb), word(member)].concat()).collect()
    };
    match text(&key["kind"]) {
        "set" => each("SADD", |member| vec![unhex(&member["hex"])]),
        "list" => each("RPUSH", |member| vec![unhex(&member["hex"])]),
        "zset" => each("ZADD", |member| {
            vec![member["score"].to_string().into_bytes(), unhex(&member["hex"])]
        }),
        "string" => vec![[start("SET"), vec![unhex(&key["value_hex"])]].concat()],
        "hash" => {
            let fields = key["fields_hex"].as_object().unwrap().iter();
            fields
                .map(|(field, value)| {
                    [start("HSET"), vec![field.as_bytes().to_vec(), unhex(value)]].concat()
                })
                .collect()
        }
        kind => panic!("{kind}"),
    }
}

#[tokio::test]
async fn every_golden_task_is_read_by_our_inspector_with_the_values_that_go_read() {
    let Some(golden) = Golden::load().await else { return };
    let tasks = list(&golden.fixture["tasks"]);
    for task in tasks {
        let (name, info) = (text(&task["name"]), &task["info"]);
        let (queue, id) =
            (QueueName::stored(text(&info["Queue"])), TaskId::stored(text(&info["ID"])));
        let found = golden.connection.inspector().task(&queue, &id).await;
        check(name, info, &found.unwrap(), golden.now);
    }
    assert_eq!(tasks.len(), 40);
}

fn check(name: &str, info: &Value, task: &TaskRecord, now: Timestamp) {
    assert_eq!(info["State"], task.state.to_string(), "{name}");
    assert_eq!(info["Type"], task.task_type.as_str(), "{name}");
    assert_eq!(info["MaxRetry"], task.max_retry, "{name}");
    assert_eq!(info["Retried"], task.retried, "{name}");
    assert_eq!(info["LastErr"], task.last_error.as_deref().unwrap_or(""), "{name}");
    assert_eq!(bytes(&info["Payload"]), task.payload, "{name}");
    assert_eq!(bytes(&info["Result"]), task.result.as_deref().unwrap_or_default(), "{name}");
    assert_eq!(info["Retention"], nanos(task.retention), "{name}");
    assert_eq!(info["Timeout"], nanos(task.timeout.unwrap_or(Duration::ZERO)), "{name}");
    let group = task.group.as_ref().map(|group| group.as_str()).unwrap_or("");
    assert_eq!(info["Group"], group, "{name}");
    let headers = info["Headers"].as_object().cloned().unwrap_or_default();
    assert_eq!(headers.len(), task.headers.len(), "{name}");
    for (key, value) in &task.headers {
        assert_eq!(headers[key], value.as_str(), "{name}");
    }
    assert_eq!(seconds(&info["Deadline"]), task.deadline.map(Timestamp::as_seconds), "{name}");
    assert_eq!(
        seconds(&info["LastFailedAt"]),
        task.last_failed_at.map(Timestamp::as_seconds),
        "{name}"
    );
    assert_eq!(
        seconds(&info["CompletedAt"]),
        task.completed_at.map(Timestamp::as_seconds),
        "{name}"
    );
    let next = task.next_at.map(Timestamp::as_seconds);
    match task.state {
        // Both say "now", each by its own clock.
        TaskState::Pending => {
            assert!((0..=2).contains(&(now.as_seconds() - next.unwrap())), "{name}");
        }
        _ => assert_eq!(seconds(&info["NextProcessAt"]), next, "{name}"),
    }
    let expired = task.lease_until.is_some_and(|until| until < now);
    assert_eq!(info["IsOrphaned"], expired, "{name}");
}

fn bytes(shown: &Value) -> Vec<u8> {
    STANDARD.decode(shown.as_str().unwrap_or("")).unwrap()
}

fn seconds(shown: &Value) -> Option<i64> {
    time(shown).map(Timestamp::as_seconds)
}

#[tokio::test]
async fn the_golden_queues_are_read_by_our_inspector_with_the_numbers_that_go_read() {
    let Some(golden) = Golden::load().await else { return };
    for info in list(&golden.fixture["queues"]) {
        let queue = QueueName::stored(text(&info["Queue"]));
        let stats = golden.connection.inspector().queue(&queue).await.unwrap();
        // Go does not count what is being aggregated, although its record says so; we do.
        let in_sets = golden.in_sets(queue.as_str());
        for state in TaskState::ALL {
            let mut name = state.to_string();
            name[..1].make_ascii_uppercase();
            let more = if state == TaskState::Aggregating { in_sets } else { 0 };
            let theirs = info[name.as_str()].as_u64().unwrap() + more;
            assert_eq!(theirs, stats.count(state), "{queue} {state}");
        }
        assert_eq!(info["Size"].as_u64().unwrap() + in_sets, stats.size());
        assert_eq!(info["Processed"], stats.processed_today, "{queue}");
        assert_eq!(info["Failed"], stats.failed_today, "{queue}");
        assert_eq!(info["ProcessedTotal"], stats.processed_total, "{queue}");
        assert_eq!(info["FailedTotal"], stats.failed_total, "{queue}");
        assert_eq!(info["Paused"], stats.paused_since.is_some(), "{queue}");
        let latency = info["Latency"].as_u64().unwrap() / 1_000_000;
        let ours = u64::try_from(stats.latency(golden.now).as_millis()).unwrap();
        assert!(latency.abs_diff(ours) < 1000, "{queue}: {latency} and {ours} ms");
    }
}

#[tokio::test]
async fn the_golden_server_and_schedules_are_read_by_our_inspector_with_the_values_that_go_read() {
    let Some(golden) = Golden::load().await else { return };
    let inspector = golden.connection.inspector();
    let workers = inspector.workers().await.unwrap();
    let server = &golden.fixture["servers"][0];
    let [worker] = &workers[..] else { panic!("{workers:?}") };
    assert_eq!((text(&server["ID"]), text(&server["Host"])), (&worker.id[..], &worker.host[..]));
    assert_eq!(
        (&server["PID"], &server["Concurrency"]),
        (&worker.pid.into(), &worker.slots.into())
    );
    assert_eq!((worker.status, worker.priority), (WorkerStatus::Running, PriorityName::Weighted));
    for (queue, weight) in &worker.queues {
        assert_eq!(server["Queues"][queue.as_str()], *weight);
    }
    assert_eq!(time(&server["Started"]), Some(worker.started_at));
    for running in list(&server["ActiveWorkers"]) {
        let ours =
            worker.running.iter().find(|ours| running["TaskID"] == ours.id.as_str()).unwrap();
        assert_eq!(
            (&running["TaskType"], &running["Queue"]),
            (&ours.task_type.as_str().into(), &ours.queue.as_str().into())
        );
        assert_eq!(time(&running["Started"]), Some(ours.started_at));
        assert_eq!(time(&running["Deadline"]), Some(ours.deadline));
    }
    let schedules = inspector.schedules().await.unwrap();
    let entries = list(&golden.fixture["scheduler_entries"]);
    assert_eq!((schedules.len(), worker.running.len()), (entries.len(), 2));
    for entry in entries {
        let name = ScheduleName::stored(text(&entry["ID"]));
        let (view, _) = schedules.iter().find(|(view, _)| view.name == name).unwrap();
        let spec = text(&entry["Spec"]);
        assert!(spec.ends_with(&view.cron), "{spec} {view:?}");
        assert_eq!(
            (text(&entry["Type"]), bytes(&entry["Payload"])),
            (view.task_type.as_str(), view.payload.to_vec())
        );
        assert_eq!(time(&entry["Next"]), view.next_at);
        let queue = format!("Queue({:?})", view.queue.as_str());
        assert!(list(&entry["Opts"]).iter().any(|option| text(option) == queue), "{queue}");
        let events = list(&golden.fixture["enqueue_events"][name.as_str()]);
        let ticks = inspector.ticks(&name, &PageRequest::first(100)).await.unwrap().items;
        assert_eq!(events.len(), ticks.len());
        for (event, tick) in events.iter().zip(&ticks) {
            assert_eq!(event["TaskID"], tick.task.as_ref().unwrap().as_str());
            assert_eq!(time(&event["EnqueuedAt"]), Some(tick.enqueued_at));
        }
    }
}

/// What real Go programs have left, in every state, to an embedded broker and on to another namespace: each
/// task as it was, with its lock and with what only a newer asynq knows of it.
#[tokio::test]
async fn the_tasks_of_go_programs_survive_a_move_to_an_embedded_broker_and_back() {
    let Some(golden) = Golden::load().await else { return };
    let from = &golden.connection;
    let clock = Clock::manual(golden.now);
    let embedded =
        Connection::without_spool("sqlite::memory:").await.unwrap().with_clock(clock.clone());
    let url = format!("{}/0?namespace=back", golden._redis.url());
    let back = Connection::without_spool(&url).await.unwrap().with_clock(clock);
    let (mut compared, mut stayed) = (0, 0);
    for stats in from.inspector().queues().await.unwrap() {
        let queue = &stats.queue;
        let ids = tasks_of(from, queue).await;
        let read = async |at: &Connection| {
            let found = at.porter().unwrap().parcels(queue, &ids, golden.now).await.unwrap();
            found.into_iter().map(Found::parcel).collect::<Vec<_>>()
        };
        let before = read(from).await;
        for (source, target) in [(from, &embedded), (&embedded, &back)] {
            let migration = Migration::new(source, target).await.unwrap();
            let mut lane = migration.queue(queue);
            while let Step::Batch(moved) = lane.step().await.unwrap() {
                assert_eq!((moved.refused, moved.mismatches), (vec![], vec![]));
            }
        }
        for (was, is) in before.iter().zip(read(&back).await) {
            let was = was.as_ref().unwrap();
            let Some(is) = is else {
                // What a Go worker is aggregating stays with it.
                let stays = from.inspector().task(queue, &was.task.id).await.unwrap();
                assert_eq!((stays.state, &stays), (TaskState::Aggregating, &was.task));
                stayed += 1;
                continue;
            };
            assert_eq!(was.difference(&is), None, "{}", was.task.id);
            assert_eq!(was.task.state, is.task.state);
            let held = |parcel: &Parcel| parcel.lock.as_ref().map(|lock| lock.held_until.is_some());
            assert_eq!(held(was), held(&is), "{}", was.task.id);
            compared += 1;
        }
        assert_eq!(stayed, golden.in_sets(queue.as_str()), "{queue}");
        stayed = 0;
        let history = async |at: &Connection| at.inspector().history(queue, 90).await.unwrap();
        let totals = back.inspector().queue(queue).await.unwrap();
        assert_eq!(totals.processed_total, stats.processed_total);
        let days: u64 = history(&back).await.iter().map(|day| day.processed).sum();
        assert!(days >= stats.processed_today, "{queue}");
    }
    assert!(compared >= 10, "only {compared} tasks were compared");
}

/// The ids of all tasks of a queue that can be moved.
async fn tasks_of(at: &Connection, queue: &QueueName) -> Vec<TaskId> {
    let mut ids = Vec::new();
    for state in MOVED_STATES {
        let page = PageRequest::first(100);
        let tasks = at.inspector().tasks(queue, &Selector::state(state), &page).await.unwrap();
        ids.extend(tasks.items.into_iter().map(|task| task.id));
    }
    ids
}
