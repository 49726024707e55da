//! How a run ends on one side, and what the other side sees of it.

use std::time::Duration;

use outlast::{TaskRequest, TaskState};
use serde_json::{Value, json};

use super::world::{World, base64, time, until};

const HOUR: Duration = Duration::from_secs(3600);

/// Runs that end badly: type, id, options of the first try, the state after it.
const ENDS: [(&str, &str, u32, TaskState); 6] = [
    ("fail:no luck", "fails", 5, TaskState::Retry),
    ("fail:no luck", "spent", 0, TaskState::Archived),
    ("skip_retry:hopeless", "skips", 5, TaskState::Archived),
    ("panic:boom", "panics", 5, TaskState::Retry),
    ("panic:boom", "last-panic", 0, TaskState::Archived),
    ("hang", "late", 5, TaskState::Retry),
];

fn error_of(id: &str) -> &'static str {
    match id {
        "fails" | "spent" => "no luck",
        "skips" => "hopeless",
        "panics" | "last-panic" => "boom",
        _ => "context deadline exceeded",
    }
}

fn retried(state: TaskState) -> u32 {
    u32::from(state == TaskState::Retry)
}

#[tokio::test]
async fn what_go_makes_of_failing_tasks_of_ours_is_what_our_inspector_shows() {
    let Some(world) = World::start().await else { return };
    for (kind, id, retries, _) in ENDS {
        let request = TaskRequest::raw(kind, "").queue("q").id(id).max_retry(retries);
        let request = request.timeout(Duration::from_secs(1));
        world.client.enqueue(request).await.unwrap().accepted().unwrap();
    }
    let began = world.now();
    let _go = world.go_works(&["-queues", "q=1", "-retry-delay", "1h"]).await;
    for (_, id, _, state) in ENDS {
        let task = world.in_state("q", id, state).await;
        let error = task.last_error.unwrap();
        assert!(error.contains(error_of(id)), "{id}: {error}");
        assert_eq!(task.retried, retried(state), "{id}");
        let failed = task.last_failed_at.unwrap();
        assert!(failed.as_seconds() >= began.as_seconds() && failed <= world.now(), "{id}");
        if state == TaskState::Retry {
            let due = task.next_at.unwrap().since(failed);
            assert!(due > HOUR - Duration::from_secs(2) && due <= HOUR * 2, "{id}: {due:?}");
        }
    }
}

#[tokio::test]
async fn what_we_make_of_failing_tasks_of_gos_is_what_gos_inspector_shows() {
    let Some(world) = World::start().await else { return };
    for (kind, id, retries, _) in ENDS {
        let options = json!({"queue": "q", "task_id": id, "max_retry": retries, "timeout": "1s"});
        world.go_enqueues(json!({"type": kind, "options": options})).await;
    }
    let began = world.now();
    let ours = world.we_work(|worker| worker.queue("q", 1).retry_with(|_, _, _| HOUR));
    for (_, id, _, state) in ENDS {
        world.in_state("q", id, state).await;
        let info = world.go_task("q", id).await;
        assert_eq!(info["State"], state.to_string());
        let error = info["LastErr"].as_str().unwrap();
        assert!(error.contains(error_of(id)), "{id}: {error}");
        assert_eq!(info["Retried"], retried(state), "{id}");
        let failed = time(&info["LastFailedAt"]).unwrap();
        assert!(failed.as_seconds() >= began.as_seconds() && failed <= world.now(), "{id}");
        if state == TaskState::Retry {
            let due = time(&info["NextProcessAt"]).unwrap().since(failed);
            assert!(due > HOUR - Duration::from_secs(2) && due <= HOUR * 2, "{id}: {due:?}");
        }
    }
    assert_eq!(ours.stop().await.failed, 6);
}

#[tokio::test]
async fn a_revoked_task_is_gone_whichever_side_ran_it() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("revoke", "").queue("go").id("a").retention(HOUR);
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let options = json!({"queue": "ours", "task_id": "b", "retention": "1h"});
    world.go_enqueues(json!({"type": "revoke", "options": options})).await;
    let _go = world.go_works(&["-queues", "go=1"]).await;
    let ours = world.we_work(|worker| worker.queue("ours", 1));
    ours.run("b").await;
    world.gone("go", "a").await;
    world.gone("ours", "b").await;
    let stats = ["go", "ours"].map(|queue| json!({"op": "queue", "queue": queue}));
    let [theirs, mine] = [world.go(stats[0].clone()).await, world.go(stats[1].clone()).await];
    for field in ["Processed", "Failed", "ProcessedTotal", "FailedTotal", "Size"] {
        assert_eq!(theirs[field], mine[field], "{field}: Go's {theirs}, ours {mine}");
    }
}

#[tokio::test]
async fn a_failure_that_does_not_count_spends_no_retry_for_the_other_side_either() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("not_failure", "").queue("go").id("a").max_retry(1);
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let options = json!({"queue": "ours", "task_id": "b", "max_retry": 1});
    world.go_enqueues(json!({"type": "fail:busy", "options": options})).await;
    let _go = world.go_works(&["-queues", "go=1", "-retry-delay", "1h"]).await;
    let _ours = world
        .we_work(|worker| worker.queue("ours", 1).retry_with(|_, _, _| HOUR).is_failure(|_| false));
    let (ours, theirs) = (
        world.in_state("go", "a", TaskState::Retry).await,
        world.in_state("ours", "b", TaskState::Retry).await,
    );
    assert_eq!((ours.retried, theirs.retried), (0, 0));
    let [go, our] = [world.go_queue("go").await, world.go_queue("ours").await];
    for field in ["Processed", "Failed", "ProcessedTotal", "FailedTotal"] {
        assert_eq!(go[field], our[field], "{field}");
    }
    assert_eq!(world.go_task("ours", "b").await["LastErr"], "busy");
}

#[tokio::test]
async fn a_result_is_kept_for_its_retention_and_read_by_the_other_side() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("echo", "of ours").queue("go").id("a").retention(HOUR);
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let options = json!({"queue": "ours", "task_id": "b", "retention": "1h"});
    let task = json!({"type": "echo", "payload": "of Go's", "options": options});
    world.go_enqueues(task).await;
    let _go = world.go_works(&["-queues", "go=1"]).await;
    let _ours = world.we_work(|worker| worker.queue("ours", 1));

    let done = world.in_state("go", "a", TaskState::Completed).await;
    assert_eq!(done.result.as_deref(), Some(&b"of ours"[..]));
    let at = done.completed_at.unwrap();
    assert!(world.now().since(at) < Duration::from_secs(60));

    world.in_state("ours", "b", TaskState::Completed).await;
    let info = world.go_task("ours", "b").await;
    assert_eq!(
        (&info["State"], &info["Result"]),
        (&json!("completed"), &json!(base64(b"of Go's")))
    );
    assert!(world.now().since(time(&info["CompletedAt"]).unwrap()) < Duration::from_secs(60));
    let listed = world.go(json!({"op": "tasks", "queue": "ours", "state": "completed"})).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_has_been_kept_long_enough_is_deleted_by_the_other_sides_janitor() {
    let Some(world) = World::start().await else { return };
    // Each side completes, and then only the other one is left to clean up.
    let request = TaskRequest::raw("ok", "").queue("go").id("a").retention(HOUR);
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let options = json!({"queue": "ours", "task_id": "b", "retention": "1h"});
    world.go_enqueues(json!({"type": "ok", "options": options})).await;
    let go = world.go_works(&["-queues", "go=1"]).await;
    let ours = world.we_work(|worker| worker.queue("ours", 1));
    world.in_state("go", "a", TaskState::Completed).await;
    world.in_state("ours", "b", TaskState::Completed).await;
    drop(go);
    ours.stop().await;
    for (queue, id) in [("go", "a"), ("ours", "b")] {
        world.raw(&["ZADD", &format!("asynq:{{{queue}}}:completed"), "XX", "1000", id]);
    }
    let _ours = world.we_work(|worker| worker.queue("go", 1));
    world.gone("go", "a").await;
    let _go = world.go_works(&["-queues", "ours=1"]).await;
    world.gone("ours", "b").await;
}

#[tokio::test]
async fn runs_of_both_sides_are_counted_together_by_day_and_in_all() {
    let Some(world) = World::start().await else { return };
    let kinds = ["ok", "ok", "fail:x", "skip_retry:x"];
    for side in ["go", "ours"] {
        for (n, kind) in kinds.iter().enumerate() {
            let request = TaskRequest::raw(kind, "").queue("q").id(&format!("{side}-{n}"));
            world.client.enqueue(request).await.unwrap().accepted().unwrap();
        }
        match side {
            "go" => {
                let _go = world.go_works(&["-queues", "q=1", "-retry-delay", "1h"]).await;
                world.queue_when("q", |stats| stats.processed_total == 4).await;
            }
            _ => {
                let ours = world.we_work(|w| w.queue("q", 1).retry_with(|_, _, _| HOUR));
                world.queue_when("q", |stats| stats.processed_total == 8).await;
                ours.stop().await;
            }
        }
    }
    let stats = world.queue_when("q", |_| true).await;
    assert_eq!((stats.processed_today, stats.failed_today), (8, 4));
    assert_eq!((stats.processed_total, stats.failed_total), (8, 4));
    let info = world.go_queue("q").await;
    for (field, count) in
        [("Processed", 8), ("Failed", 4), ("ProcessedTotal", 8), ("FailedTotal", 4), ("Size", 4)]
    {
        assert_eq!(info[field], count, "{field}");
    }
    let history = world.go(json!({"op": "history", "queue": "q", "days": 2})).await;
    let days: Vec<(u64, u64)> = history.as_array().unwrap().iter().map(counts).collect();
    let queue = outlast::QueueName::stored("q");
    let ours = world.inspector.history(&queue, 2).await.unwrap();
    assert_eq!(days, ours.iter().map(|day| (day.processed, day.failed)).collect::<Vec<_>>());
    assert_eq!(days[0], (8, 4));
}

fn counts(day: &Value) -> (u64, u64) {
    (day["Processed"].as_u64().unwrap(), day["Failed"].as_u64().unwrap())
}

#[tokio::test]
async fn progress_that_one_side_writes_is_read_by_the_other_while_the_task_runs() {
    let Some(world) = World::start().await else { return };
    let options = json!({"task_id": "a", "retention": "1h"});
    world.go_enqueues(json!({"type": "progress", "options": options})).await;
    let _ours = world.we_work(|worker| {
        worker.handle_type("progress", async |writer: outlast::ResultWriter| {
            writer.write("half way")?;
            std::future::pending::<Result<(), outlast::Failure>>().await
        })
    });
    let info = until("the progress", async || {
        let answer = world.ask_go(json!({"op": "task", "queue": "default", "id": "a"})).await;
        (answer["result"]["Result"] == base64(b"half way")).then(|| answer["result"].clone())
    })
    .await;
    assert_eq!(info["State"], "active");
}

/// Ours was lost when its run failed before the worker's next look.
#[tokio::test]
async fn what_was_written_before_a_failure_is_read_by_the_other_side() {
    let Some(world) = World::start().await else { return };
    for (id, max_retry) in [("retried", 3), ("archived", 0)] {
        let options = json!({"task_id": id, "max_retry": max_retry});
        world.go_enqueues(json!({"type": "write", "options": options})).await;
    }
    let later = |_: u32, _: &outlast::Failure, _: &outlast::TaskInfo| Duration::from_secs(3600);
    let _ours = world.we_work(|worker| {
        worker.retry_with(later).handle_type("write", async |writer: outlast::ResultWriter| {
            writer.write("half way")?;
            Err::<(), _>(outlast::Failure::retry("no luck"))
        })
    });
    for (id, state) in [("retried", TaskState::Retry), ("archived", TaskState::Archived)] {
        world.in_state("default", id, state).await;
        assert_eq!(world.go_task("default", id).await["Result"], base64(b"half way"), "{id}");
    }
}
