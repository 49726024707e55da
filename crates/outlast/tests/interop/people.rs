//! Workers and schedules: each side's records as the other side lists them.

use std::io::Write as _;
use std::time::Duration;

use outlast::{
    PageRequest, PriorityName, Schedule, ScheduleName, TaskRequest, TaskState, WorkerStatus,
    WorkerView,
};
use serde_json::{Value, json};

use super::go::{Go, program};
use super::world::{World, base64, time, until};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn our_worker_is_a_server_to_go_with_its_queues_and_what_it_runs() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("hang", "secret").queue("low").id("a");
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let ours = world.we_work(|w| w.queue("high", 6).queue("low", 1).strict().slots(4));
    let server = until("the running task", async || {
        let servers = world.go(json!({"op": "servers"})).await;
        let server = servers.as_array().unwrap().first()?.clone();
        (server["ActiveWorkers"].as_array()?.len() == 1).then_some(server)
    })
    .await;
    assert_eq!(server["PID"], std::process::id());
    assert_eq!((&server["Concurrency"], &server["StrictPriority"]), (&json!(4), &json!(true)));
    assert_eq!(server["Queues"], json!({"high": 6, "low": 1}));
    assert_eq!(server["Status"], "active");
    assert!(time(&server["Started"]).unwrap() <= world.now());
    let running = &server["ActiveWorkers"][0];
    assert_eq!((&running["TaskID"], &running["TaskType"]), (&json!("a"), &json!("hang")));
    assert_eq!(
        (&running["Queue"], &running["TaskPayload"]),
        (&json!("low"), &json!(base64(b"secret")))
    );
    let (started, deadline) = (time(&running["Started"]), time(&running["Deadline"]));
    assert!(started.unwrap() <= world.now());
    let left = deadline.unwrap().since(started.unwrap());
    // The timeout counts from the run's begin, which comes a moment after the claim.
    assert!(left.abs_diff(HOUR / 2) < Duration::from_secs(9), "{left:?}");

    ours.control.quiet();
    until("Go sees that it claims nothing more", async || {
        let servers = world.go(json!({"op": "servers"})).await;
        (servers[0]["Status"] == "stopped").then_some(())
    })
    .await;
    ours.stop().await;
    assert_eq!(world.go(json!({"op": "servers"})).await, json!([]));
}

#[tokio::test]
async fn gos_server_is_a_worker_to_us_with_its_queues_and_what_it_runs() {
    let Some(world) = World::start().await else { return };
    world
        .go_enqueues(
            json!({"type": "hang", "payload": "p", "options": {"queue": "low", "task_id": "a"}}),
        )
        .await;
    let go = world.go_works(&["-queues", "high=6,low=1", "-strict", "-concurrency", "4"]).await;
    let view = until("the running task", async || {
        let workers = world.inspector.workers().await.unwrap();
        workers.into_iter().find(|view: &WorkerView| view.running.len() == 1)
    })
    .await;
    assert_eq!((view.pid, view.slots, view.active), (go.pid(), 4, 1));
    assert_eq!((view.status, view.priority), (WorkerStatus::Running, PriorityName::Strict));
    let queues: Vec<_> = view.queues.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    assert_eq!(queues, [("high", 6), ("low", 1)]);
    let running = &view.running[0];
    assert_eq!((running.id.as_str(), running.task_type.as_str()), ("a", "hang"));
    assert_eq!((running.queue.as_str(), &running.payload[..]), ("low", &b"p"[..]));
    assert!(running.started_at <= world.now() && running.deadline > world.now());
}

#[tokio::test]
async fn both_sides_list_both_kinds_of_workers() {
    let Some(world) = World::start().await else { return };
    let go = world.go_works(&[]).await;
    let _ours = world.we_work(|worker| worker);
    let mut pids = [go.pid(), std::process::id()];
    pids.sort_unstable();
    until("Go lists both", async || {
        let servers = world.go(json!({"op": "servers"})).await;
        let listed = servers.as_array().unwrap().iter();
        let mut listed: Vec<_> = listed.map(|s| s["PID"].as_u64().unwrap()).collect();
        listed.sort_unstable();
        (listed == pids.map(u64::from)).then_some(())
    })
    .await;
    until("we list both", async || {
        let workers = world.inspector.workers().await.unwrap();
        let mut listed: Vec<_> = workers.iter().map(|view| view.pid).collect();
        listed.sort_unstable();
        (listed == pids).then_some(())
    })
    .await;
}

#[tokio::test]
async fn our_schedules_are_entries_to_go_with_options_that_it_can_read_and_a_history() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("ok", "p").queue("cron").max_retry(3).retention(HOUR);
    let request = request.timeout(Duration::from_secs(90)).unique(HOUR).group("g \"1\"");
    let often = TaskRequest::raw("ok", "p").queue("cron").retention(HOUR);
    let seldom = Schedule::new("seldom", "0 0 29 2 *", request).unwrap();
    let seldom = seldom.timezone("Europe/Berlin").unwrap();
    let ours = world.we_work(|worker| {
        let often = Schedule::new("often", "@every 1s", often).unwrap();
        worker.queue("cron", 1).schedule(seldom).schedule(often)
    });
    let entries = until("both entries, one of which has ticked", async || {
        let entries = world.go(json!({"op": "scheduler_entries"})).await;
        let events = world.go(json!({"op": "enqueue_events", "entry": "often"})).await;
        let ready =
            entries.as_array().unwrap().len() == 2 && !events.as_array().unwrap().is_empty();
        ready.then(|| entries.as_array().unwrap().clone())
    })
    .await;
    let entry = |id: &str| entries.iter().find(|entry| entry["ID"] == id).unwrap().clone();
    let seldom = entry("seldom");
    assert_eq!(seldom["Spec"], "CRON_TZ=Europe/Berlin 0 0 29 2 *");
    assert_eq!((&seldom["Type"], &seldom["Payload"]), (&json!("ok"), &json!(base64(b"p"))));
    let options: Vec<_> = seldom["Opts"].as_array().unwrap().iter().map(text).collect();
    for option in ["Queue(\"cron\")", "MaxRetry(3)", "Timeout(1m30s)", "Unique(1h0m0s)"] {
        assert!(options.contains(&option), "{option} in {options:?}");
    }
    assert!(options.contains(&"Retention(1h0m0s)"), "{options:?}");
    assert!(time(&seldom["Next"]).unwrap() > world.now());
    assert_eq!(entry("often")["Spec"], "@every 1s");
    let events = world.go(json!({"op": "enqueue_events", "entry": "often"})).await;
    let id = events.as_array().unwrap().last().unwrap()["TaskID"].as_str().unwrap().to_owned();
    world.in_state("cron", &id, TaskState::Completed).await;
    assert_eq!(world.go_task("cron", &id).await["State"], "completed");
    ours.stop().await;
    // They stayed for 20 s; asynq's leave at once.
    assert_eq!(world.go(json!({"op": "scheduler_entries"})).await, json!([]));
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[tokio::test]
async fn gos_schedules_are_schedules_to_us_with_their_ticks_and_are_run_by_us() {
    let Some(world) = World::start().await else { return };
    let mut entries = tempfile::NamedTempFile::new().unwrap();
    let options = json!({"queue": "cron", "max_retry": 3, "retention": "1h", "timeout": "90s"});
    for spec in ["@every 1s", "CRON_TZ=Europe/Berlin 0 0 29 2 *"] {
        let entry = json!({"spec": spec, "type": "ok", "payload": "p", "options": options});
        writeln!(entries, "{entry}").unwrap();
    }
    let (at, file) = (world.redis.addr().to_string(), entries.path().display().to_string());
    let args = ["schedule", "-redis", &at, "-heartbeat", "1s", "-entries", &file, "-until-eof"];
    let go = Go::start(&program("outlast-interop"), &args);
    let enqueued = go.event("enqueued", |_| true).await;
    let id = enqueued["task"]["ID"].as_str().unwrap();
    let listed = until("both schedules", async || {
        let listed = world.inspector.schedules().await.unwrap();
        (listed.len() == 2).then_some(listed)
    })
    .await;
    let (often, _) = listed.iter().find(|(view, _)| view.cron == "@every 1s").unwrap();
    assert_eq!((often.task_type.as_str(), &often.payload[..]), ("ok", &b"p"[..]));
    assert_eq!((often.queue.as_str(), often.options.max_retry), ("cron", 3));
    assert_eq!((often.options.timeout_s, often.options.retention_s), (Some(90), Some(3600)));
    let (seldom, _) = listed.iter().find(|(view, _)| view.name != often.name).unwrap();
    let next = seldom.next_at.unwrap().to_string();
    assert!(next.ends_with("02-28T23:00:00Z"), "{next}");
    let ticks = until("the tick", async || {
        let page = PageRequest::first(100);
        let ticks = world.inspector.ticks(&often.name, &page).await.unwrap().items;
        ticks
            .iter()
            .any(|tick| tick.task.as_ref().is_some_and(|t| t.as_str() == id))
            .then_some(ticks)
    })
    .await;
    assert!(ticks.iter().all(|tick| tick.enqueued_at <= world.now()));
    let _ours = world.we_work(|worker| worker.queue("cron", 1));
    world.in_state("cron", id, TaskState::Completed).await;
    let by_hand = world.inspector.run_schedule(&often.name).await.unwrap().accepted().unwrap();
    world.in_state("cron", by_hand.id.as_str(), TaskState::Completed).await;
    let refused = world.inspector.pause_schedule(&often.name).await.unwrap_err();
    assert!(refused.to_string().contains(often.name.as_str()), "{refused}");
    let nobody = ScheduleName::stored("nobody");
    assert!(world.inspector.pause_schedule(&nobody).await.is_err());
}

/// asynq's PeriodicTaskManager registers and drops entries while it runs, as its configuration says.
#[tokio::test]
async fn the_entries_of_gos_periodic_task_manager_come_and_go_in_our_list() {
    let Some(world) = World::start().await else { return };
    let entries = tempfile::NamedTempFile::new().unwrap();
    let write = |specs: &[&str]| {
        let line = |spec: &&str| json!({"spec": spec, "type": "ok", "options": {"queue": "cron"}});
        let lines: Vec<String> = specs.iter().map(|spec| line(spec).to_string()).collect();
        std::fs::write(entries.path(), lines.join("\n")).unwrap();
    };
    write(&["@every 1s", "0 4 * * *"]);
    let (at, file) = (world.redis.addr().to_string(), entries.path().display().to_string());
    let mut args = vec!["schedule", "-redis", &at, "-heartbeat", "1s", "-entries", &file];
    args.extend(["-until-eof", "-manager", "200ms"]);
    let go = Go::start(&program("outlast-interop"), &args);
    let listed = async |specs: &[&str]| {
        until("the list is as the file says", async || {
            let mut listed = world.inspector.schedules().await.unwrap();
            listed.sort_by(|one, other| one.0.cron.cmp(&other.0.cron));
            listed
                .iter()
                .map(|(view, _)| view.cron.as_str())
                .eq(specs.iter().copied())
                .then_some(listed)
        })
        .await
    };
    listed(&["0 4 * * *", "@every 1s"]).await;
    let enqueued = go.event("enqueued", |_| true).await;
    let _ours = world.we_work(|worker| worker.queue("cron", 1));
    world.gone("cron", enqueued["task"]["ID"].as_str().unwrap()).await;
    write(&["@every 1s", "30 5 * * *"]);
    let list = listed(&["30 5 * * *", "@every 1s"]).await;
    assert_eq!((list[0].0.task_type.as_str(), list[0].0.queue.as_str()), ("ok", "cron"));
}
