//! Tasks that wait for their time: scheduled or in retry, put there by one side and run by the other.

use std::time::Duration;

use outlast::{TaskRequest, TaskState};
use serde_json::json;

use super::world::{World, time};

#[tokio::test]
async fn a_task_that_go_schedules_is_run_by_us_when_it_is_due() {
    let Some(world) = World::start().await else { return };
    let ours = world.we_work(|worker| worker);
    let options = json!({"task_id": "a", "process_in": "2s"});
    let info = world.go_enqueues(json!({"type": "ok", "options": options})).await;
    assert_eq!(info["State"], "scheduled");
    let due = time(&info["NextProcessAt"]).unwrap();
    let task = world.in_state("default", "a", TaskState::Scheduled).await;
    assert_eq!(task.next_at.unwrap().as_seconds(), due.as_seconds());
    let ran = ours.run("a").await;
    assert!(ran.at.as_seconds() >= due.as_seconds(), "{} before {due}", ran.at);
}

#[tokio::test]
async fn a_task_that_we_schedule_is_run_by_go_when_it_is_due() {
    let Some(world) = World::start().await else { return };
    let go = world.go_works(&[]).await;
    let request = TaskRequest::raw("ok", "").id("a").delay(Duration::from_secs(2));
    let receipt = world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let due = receipt.due.unwrap();
    let info = world.go_task("default", "a").await;
    assert_eq!(info["State"], "scheduled");
    assert_eq!(time(&info["NextProcessAt"]).unwrap().as_seconds(), due.as_seconds());
    let event = go.event_of("started", "a").await;
    assert!(event["at"].as_i64().unwrap() / 1000 >= due.as_seconds(), "{event}");
}

#[tokio::test]
async fn a_task_that_go_failed_is_run_again_by_us_with_the_retries_it_has_spent() {
    let Some(world) = World::start().await else { return };
    let request = TaskRequest::raw("flaky:1", "p").id("a").max_retry(2).header("h", "v");
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let mut go = world.go_works(&["-retry-delay", "1s"]).await;
    go.event_of("failed", "a").await;
    world.in_state("default", "a", TaskState::Retry).await;
    go.kill9();
    let ours = world.we_work(|worker| worker);
    let ran = ours.run("a").await;
    assert_eq!((ran.attempt, ran.task.retried, ran.task.max_retry), (2, 1, 2));
    assert_eq!(ran.task.headers["h"], "v");
    assert!(ran.task.last_error.unwrap().contains("failure 1 of 1"));
    world.gone("default", "a").await;
}

#[tokio::test]
async fn a_task_that_we_failed_is_run_again_by_go_with_the_retries_it_has_spent() {
    let Some(world) = World::start().await else { return };
    let options = json!({"task_id": "a", "max_retry": 2, "headers": {"h": "v"}});
    world.go_enqueues(json!({"type": "flaky:1", "payload": "p", "options": options})).await;
    let ours = world.we_work(|worker| worker);
    world.in_state("default", "a", TaskState::Retry).await;
    ours.stop().await;
    let go = world.go_works(&[]).await;
    let event = go.event_of("finished", "a").await;
    assert_eq!((&event["retried"], &event["max_retry"]), (&json!(1), &json!(2)), "{event}");
    assert_eq!(event["headers"], json!({"h": "v"}));
    assert!(event.get("error").is_none(), "{event}");
    world.gone("default", "a").await;
}

#[tokio::test]
async fn a_scheduled_task_with_a_group_joins_it_if_ours_is_found_due_by_us_and_else_runs_alone() {
    let Some(world) = World::start().await else { return };
    for queue in ["by-go", "by-us"] {
        let options = json!({"queue": queue, "task_id": "go", "group": "g", "process_in": "1s"});
        world.go_enqueues(json!({"type": "ok", "options": options})).await;
        let request = TaskRequest::raw("ok", "").queue(queue).id("our").group("g");
        let request = request.delay(Duration::from_secs(1));
        world.client.enqueue(request).await.unwrap().accepted().unwrap();
    }
    let go = world.go_works(&["-queues", "by-go=1"]).await;
    let ours = world.we_work(|worker| worker.queue("by-us", 1));
    // asynq itself forgets the group of a task that it schedules, so both sides run it alone.
    go.event_of("finished", "go").await;
    ours.run("go").await;
    world.queue_when("by-us", |stats| stats.aggregating == 1).await;
    let groups = json!({"op": "groups", "queue": "by-us"});
    assert_eq!(world.go(groups).await, json!([{"Group": "g", "Size": 1}]));
    // Ours used to end in a group that Go's forwarder does not list, where nobody found it.
    go.event_of("finished", "our").await;
    world.queue_when("by-go", |stats| stats.size() == 0).await;
}
