//! asynq's command line and asynqmon's HTTP API on queues that Outlast has filled.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use outlast::{Schedule, TaskRequest, TaskState};
use serde_json::{Value, json};

use super::go::{Go, program};
use super::ours::Ours;
use super::states::STATES;
use super::world::{World, built, time, until};

/// How long asynqmon may take for an answer.
const HTTP_WAIT: Duration = Duration::from_secs(20);

impl World {
    fn cli(&self, words: &[&str]) -> Output {
        let at = self.redis.addr().to_string();
        Command::new(program("asynq")).args(["--uri", &at]).args(words).output().unwrap()
    }

    /// What the command prints when all is well.
    fn prints(&self, words: &[&str]) -> String {
        let output = self.cli(words);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {text}{errors}");
        text
    }

    /// A full queue, and a worker of ours that also has schedules.
    async fn full_with_schedule(&self) -> [Ours; 2] {
        let filler = self.we_fill().await;
        let request = || TaskRequest::raw("ok", "cron payload").queue("cron").max_retry(3);
        let often = Schedule::new("often", "@every 1s", request()).unwrap();
        let daily = Schedule::new("daily", "30 2 * * *", request()).unwrap();
        let daily = daily.timezone("Europe/Berlin").unwrap();
        let other = self.we_work(|w| w.queue("cron", 4).schedule(often).schedule(daily));
        until("everything is listed", async || {
            let servers = self.go(json!({"op": "servers"})).await;
            let entries = self.go(json!({"op": "scheduler_entries"})).await;
            let events = self.go(json!({"op": "enqueue_events", "entry": "often"})).await;
            let len = |list: &Value| list.as_array().unwrap().len();
            let mut busy = servers.as_array().unwrap().iter();
            let busy = busy.any(|server| len(&server["ActiveWorkers"]) == 1);
            (len(&servers) == 2 && busy && len(&entries) == 2 && len(&events) > 0).then_some(())
        })
        .await;
        [filler, other]
    }
}

/// The lines of a table that hold all of these words.
fn rows<'a>(table: &'a str, words: &[&str]) -> Vec<&'a str> {
    table.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[tokio::test]
async fn the_asynq_command_shows_our_queues_tasks_workers_and_schedules() {
    if built("asynq").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let _ours = world.full_with_schedule().await;

    let stats: Value = serde_json::from_str(&world.prints(&["stats", "--json"])).unwrap();
    for (state, _) in STATES {
        let count = stats["aggregate"][state.to_string()].as_u64().unwrap();
        assert!(count >= 1, "{state}: {}", stats["aggregate"]);
    }
    let queues = stats["queues"].as_array().unwrap();
    let queue = queues.iter().find(|queue| queue["Queue"] == "q").unwrap();
    assert_eq!((&queue["Size"], &queue["Processed"]), (&json!(7), &json!(3)));
    assert_eq!((&queue["Failed"], &queue["Paused"]), (&json!(2), &json!(false)));
    assert!(stats["redis"]["redis_version"].is_string());
    assert!(world.prints(&["stats"]).contains("aggregating"));

    let listed = world.prints(&["queue", "ls"]);
    assert_eq!(listed.lines().collect::<std::collections::BTreeSet<_>>(), ["cron", "q"].into());
    let inspected = world.prints(&["queue", "inspect", "q"]);
    assert!(inspected.contains("Size:   7"), "{inspected}");
    let history = world.prints(&["queue", "history", "q", "--days", "1"]);
    assert_eq!(rows(&history, &["66.67%"]).len(), 1, "{history}");

    for (state, id) in STATES {
        let state = state.to_string();
        let flags = ["task", "ls", "--queue", "q", "--state", &state, "--group", "g"];
        let table = world.prints(&flags);
        assert_eq!(rows(&table, &[id, "payload"]).len(), 1, "{table}");
        let shown = world.prints(&["task", "inspect", "--queue", "q", "--id", id]);
        let line = format!("State:   {state}");
        assert!(shown.contains(&line) && shown.contains("/7"), "{shown}");
    }
    let archived = world.prints(&["task", "ls", "--queue", "q", "--state", "archived"]);
    assert!(archived.contains("hopeless"), "{archived}");
    assert_eq!(world.prints(&["group", "ls", "--queue", "q"]).trim(), "g");

    let servers = world.prints(&["server", "ls"]);
    let pid = std::process::id().to_string();
    assert_eq!(rows(&servers, &[&pid, "active", "1/1", "q:1"]).len(), 1, "{servers}");
    assert_eq!(rows(&servers, &[&pid, "cron:4"]).len(), 1, "{servers}");
    let crons = world.prints(&["cron", "ls"]);
    let spec = "CRON_TZ=Europe/Berlin 30 2 * * *";
    assert_eq!(rows(&crons, &["daily", spec, "cron payload", "MaxRetry(3)"]).len(), 1, "{crons}");
    assert_eq!(rows(&crons, &["often", "@every 1s"]).len(), 1, "{crons}");
    let history = world.prints(&["cron", "history", "often"]);
    assert!(history.lines().count() > 2, "{history}");
}

#[tokio::test]
async fn the_asynq_command_changes_our_tasks_and_queues() {
    if built("asynq").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let ours = world.we_fill().await;
    for (verb, id, state) in [
        ("run", "scheduled", TaskState::Pending),
        ("archive", "retry", TaskState::Archived),
        ("archive", "pending", TaskState::Archived),
    ] {
        world.prints(&["task", verb, "--queue", "q", "--id", id]);
        world.in_state("q", id, state).await;
    }
    world.prints(&["task", "delete", "--queue", "q", "--id", "completed"]);
    world.gone("q", "completed").await;
    assert!(!world.cli(&["task", "delete", "--queue", "q", "--id", "active"]).status.success());
    let told = world.prints(&["task", "runall", "--queue", "q", "--state", "archived"]);
    assert!(told.contains('3'), "{told}");
    let told = world.prints(&["task", "deleteall", "--queue", "q", "--state", "pending"]);
    assert!(told.contains('4'), "{told}");

    world.prints(&["queue", "pause", "q"]);
    world.queue_when("q", |stats| stats.paused_since.is_some()).await;
    world.prints(&["queue", "resume", "q"]);
    world.queue_when("q", |stats| stats.paused_since.is_none()).await;

    let flags = ["--queue", "q", "--id", "by-hand", "--retry", "2", "--retention", "1h"];
    let start = ["task", "enqueue", "--type_name", "echo", "--payload", "typed"];
    world.prints(&[&start[..], &flags[..]].concat());
    world.prints(&["task", "cancel", "active"]);
    world.in_state("q", "active", TaskState::Retry).await;
    let task = world.in_state("q", "by-hand", TaskState::Completed).await;
    assert_eq!((task.result.as_deref(), task.max_retry), (Some(&b"typed"[..]), 2));

    ours.stop().await;
    // It says so, and its exit code does not.
    world.cli(&["queue", "rm", "q"]);
    assert_eq!(world.prints(&["queue", "ls"]).trim(), "q", "it has tasks");
    world.prints(&["queue", "rm", "q", "--force"]);
    assert_eq!(world.prints(&["queue", "ls"]).trim(), "");
}

/// asynqmon and where it listens.
pub(crate) struct Mon {
    at: String,
    _go: Go,
}

impl Mon {
    pub(crate) async fn start(world: &World) -> Self {
        let at = world.redis.addr().to_string();
        let go = Go::start(&program("outlast-asynqmon"), &["-redis", &at]);
        let ready = go.event("ready", |_| true).await;
        let at = ready["url"].as_str().unwrap().trim_start_matches("http://").to_owned();
        Self { at, _go: go }
    }

    /// Asks on a thread of its own, for workers of ours run on the test's.
    async fn ask(&self, verb: &str, path: &str, body: &Value) -> (u16, Value) {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{verb} /api/{path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        let at = self.at.clone();
        let answer = tokio::task::spawn_blocking(move || exchange(&at, &request)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|_| Value::from(body)))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask("GET", path, &Value::Null).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) async fn change(&self, verb: &str, path: &str, body: &Value) -> Value {
        let (status, body) = self.ask(verb, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {body}");
        body
    }
}

fn exchange(at: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(HTTP_WAIT)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Where asynqmon lists the tasks of a state.
fn path_of(state: TaskState) -> String {
    match state {
        TaskState::Aggregating => "queues/q/groups/g/aggregating_tasks".to_owned(),
        _ => format!("queues/q/{state}_tasks"),
    }
}

#[tokio::test]
async fn asynqmon_shows_our_queues_tasks_workers_and_schedules() {
    if built("outlast-asynqmon").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let _ours = world.full_with_schedule().await;
    let mon = Mon::start(&world).await;

    let queues = mon.get("queues").await;
    let queue = queues["queues"].as_array().unwrap().iter().find(|queue| queue["queue"] == "q");
    let queue = queue.unwrap();
    assert_eq!((&queue["size"], &queue["groups"]), (&json!(7), &json!(1)));
    assert_eq!((&queue["processed"], &queue["failed"]), (&json!(3), &json!(2)));
    assert!(queue["memory_usage_bytes"].as_u64().unwrap() > 0);
    let one = mon.get("queues/q").await;
    assert_eq!(one["current"]["size"], 7);
    assert_eq!(one["history"][0]["processed"], 3);
    let stats = mon.get("queue_stats").await;
    assert_eq!(stats["stats"]["q"][0]["succeeded"], 1, "{stats}");

    for (state, id) in STATES {
        assert_eq!(queue[state.to_string()], 1, "{state}");
        let listed = mon.get(&path_of(state)).await;
        let tasks = listed["tasks"].as_array().unwrap();
        assert_eq!((tasks.len(), &tasks[0]["id"]), (1, &json!(id)), "{listed}");
        assert_eq!((&tasks[0]["payload"], &tasks[0]["max_retry"]), (&json!("payload"), &json!(7)));
        let task = mon.get(&format!("queues/q/tasks/{id}")).await;
        assert_eq!(task["state"], state.to_string());
    }
    let active = mon.get("queues/q/active_tasks").await;
    assert!(time(&active["tasks"][0]["start_time"]).is_some(), "{active}");
    assert_eq!(active["tasks"][0]["is_orphaned"], false);
    let completed = mon.get("queues/q/completed_tasks").await;
    assert_eq!(completed["tasks"][0]["result"], "payload");
    let left = completed["tasks"][0]["ttl_seconds"].as_i64().unwrap();
    assert!((3000..=3600).contains(&left), "{left} of an hour's retention");
    assert_eq!(mon.get("queues/q/groups").await["groups"], json!([{"group": "g", "size": 1}]));

    let servers = mon.get("servers").await;
    let servers = servers["servers"].as_array().unwrap();
    assert!(servers.iter().all(|server| server["pid"] == std::process::id()), "{servers:?}");
    let busy = servers.iter().find(|server| server["queue_priorities"] == json!({"q": 1}));
    let running = &busy.unwrap()["active_workers"][0];
    assert_eq!((&running["task_id"], &running["task_type"]), (&json!("active"), &json!("hang")));
    // An empty payload is "non-printable bytes" to asynqmon.
    assert_eq!(running["task_payload"], "payload");
    let entries = mon.get("scheduler_entries").await;
    let entries = entries["entries"].as_array().unwrap();
    let daily = entries.iter().find(|entry| entry["id"] == "daily").unwrap();
    assert_eq!(daily["spec"], "CRON_TZ=Europe/Berlin 30 2 * * *");
    assert!(daily["options"].as_array().unwrap().contains(&json!("MaxRetry(3)")), "{daily}");
    let events = mon.get("scheduler_entries/often/enqueue_events").await;
    assert!(!events["events"].as_array().unwrap().is_empty(), "{events}");
    assert_eq!(mon.get("redis_info").await["cluster"], false);
}

#[tokio::test]
async fn asynqmon_changes_our_tasks_and_queues() {
    if built("outlast-asynqmon").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let ours = world.we_fill().await;
    let mon = Mon::start(&world).await;
    let post = async |path: &str| mon.change("POST", path, &Value::Null).await;
    post("queues/q:pause").await;
    world.queue_when("q", |stats| stats.paused_since.is_some()).await;
    post("queues/q/scheduled_tasks/scheduled:run").await;
    world.in_state("q", "scheduled", TaskState::Pending).await;
    post("queues/q/retry_tasks:archive_all").await;
    world.in_state("q", "retry", TaskState::Archived).await;
    let ids = json!({"task_ids": ["archived", "retry"]});
    let told = mon.change("POST", "queues/q/archived_tasks:batch_run", &ids).await;
    assert_eq!(told["pending_ids"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(world.ids("q", TaskState::Archived).await, [""; 0]);
    post("queues/q/groups/g/aggregating_tasks/aggregating:archive").await;
    world.in_state("q", "aggregating", TaskState::Archived).await;
    mon.change("DELETE", "queues/q/completed_tasks/completed", &Value::Null).await;
    world.gone("q", "completed").await;
    let told = mon.change("DELETE", "queues/q/pending_tasks:delete_all", &Value::Null).await;
    assert_eq!(told["deleted"], 4, "{told}");
    post("queues/q/active_tasks/active:cancel").await;
    world.in_state("q", "active", TaskState::Retry).await;
    post("queues/q:resume").await;
    world.queue_when("q", |stats| stats.paused_since.is_none()).await;
    ours.stop().await;
    let (status, _) = mon.ask("DELETE", "queues/q", &Value::Null).await;
    assert_eq!(status, 400, "it has tasks");
    mon.change("DELETE", "queues/q/retry_tasks:delete_all", &Value::Null).await;
    mon.change("DELETE", "queues/q/archived_tasks:delete_all", &Value::Null).await;
    mon.change("DELETE", "queues/q", &Value::Null).await;
    assert_eq!(mon.get("queues").await["queues"], json!([]));
}
