//! Groups: one side's members, the other side's aggregator.

use std::time::Duration;

use outlast::{Failure, GroupBatch, GroupPolicy, TaskRequest, TaskState};
use serde_json::json;

use super::world::{World, base64, until};

fn policy(max_size: usize) -> GroupPolicy {
    GroupPolicy {
        pattern: "*".to_owned(),
        grace: Duration::from_secs(1),
        max_delay: None,
        max_size: Some(max_size),
    }
}

async fn join(batch: GroupBatch) -> Result<TaskRequest, Failure> {
    let members: Vec<_> = batch.tasks.iter().map(|t| String::from_utf8_lossy(&t.payload)).collect();
    Ok(TaskRequest::raw("joined", members.concat()).retention(Duration::from_secs(3600)))
}

#[tokio::test]
async fn members_that_go_enqueues_become_one_task_of_ours() {
    let Some(world) = World::start().await else { return };
    for n in 0..3 {
        let options = json!({"queue": "q", "task_id": format!("m{n}"), "group": "user:7"});
        let task = json!({"type": "note", "payload": n.to_string(), "options": options});
        assert_eq!(world.go_enqueues(task).await["State"], "aggregating");
    }
    assert_eq!(world.ids("q", TaskState::Aggregating).await, ["m0", "m1", "m2"]);
    let ours = world.we_work(|worker| worker.queue("q", 1).group("q", policy(10), join));
    let ran = until("the joined task", async || {
        ours.runs().into_iter().find(|ran| ran.task.task_type.as_str() == "joined")
    })
    .await;
    let mut joined = ran.task.payload.to_vec();
    joined.sort_unstable();
    assert_eq!(joined, b"012");
    let stats = world.queue_when("q", |stats| stats.completed == 1).await;
    assert_eq!((stats.aggregating, stats.groups, stats.size()), (0, 0, 1));
    assert_eq!(world.go(json!({"op": "groups", "queue": "q"})).await, json!([]));
}

/// One group policy made an idle worker claim from each of its queues once a second, in case a group had become ready.
#[tokio::test]
async fn an_idle_worker_that_aggregates_on_twenty_queues_sends_less_than_a_command_a_second() {
    let Some(world) = World::start().await else { return };
    let ours = world.we_work(|worker| {
        let all = |worker: outlast::Worker, n| {
            let queue = format!("q{n}");
            worker.queue(&queue, 1).group(&queue, policy(10), join)
        };
        (0..20).fold(worker, all)
    });
    // What it does when it starts is over once nothing was sent for two seconds.
    let mut sent = world.scripts_and_pings();
    until("it is idle", async || {
        pass(Duration::from_secs(2)).await;
        let before = std::mem::replace(&mut sent, world.scripts_and_pings());
        (sent - before <= 2).then_some(())
    })
    .await;
    let seconds = 6;
    pass(Duration::from_secs(seconds)).await;
    let caused = world.scripts_and_pings() - sent;
    println!("{caused} commands in {seconds} s of an idle worker with groups on 20 queues");
    assert!(caused < seconds, "{caused}");
    let options = json!({"queue": "q7", "group": "g"});
    world.go_enqueues(json!({"type": "note", "payload": "x", "options": options})).await;
    let begun = tokio::time::Instant::now();
    until("the joined task", async || {
        ours.runs().into_iter().find(|ran| ran.task.task_type.as_str() == "joined")
    })
    .await;
    // A second of calm, and asynq's scores are whole seconds.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

async fn pass(time: Duration) {
    let _over = tokio::time::timeout(time, std::future::pending::<()>()).await;
}

#[tokio::test]
async fn a_group_that_never_rests_is_joined_after_its_longest_delay() {
    let Some(world) = World::start().await else { return };
    let restless = GroupPolicy {
        grace: Duration::from_secs(60),
        max_delay: Some(Duration::from_secs(2)),
        ..policy(1000)
    };
    let ours = world.we_work(|worker| worker.queue("q", 1).group("q", restless, join));
    let options = json!({"queue": "q", "group": "g"});
    let mut n = 0;
    let ran = until("the joined task", async || {
        n += 1;
        let task = json!({"type": "note", "payload": "x", "options": options.clone()});
        world.go_enqueues(task).await;
        ours.runs().into_iter().find(|ran| ran.task.task_type.as_str() == "joined")
    })
    .await;
    assert!(ran.task.payload.len() > 1, "{} of {n}", ran.task.payload.len());
}

#[tokio::test]
async fn members_that_we_enqueue_become_one_task_of_gos() {
    let Some(world) = World::start().await else { return };
    for n in 0..3 {
        let request = TaskRequest::raw("note", n.to_string()).queue("q").group("user:7");
        let receipt = world.client.enqueue(request).await.unwrap().accepted().unwrap();
        assert_eq!(receipt.state, Some(TaskState::Aggregating));
    }
    let groups = world.go(json!({"op": "groups", "queue": "q"})).await;
    assert_eq!(groups, json!([{"Group": "user:7", "Size": 3}]));
    let flags = ["-queues", "q=1", "-group-aggregate", "-group-type", "joined"];
    let size = ["-group-grace", "1s", "-group-max-size", "3"];
    let go = world.go_works(&[&flags[..], &size[..]].concat()).await;
    let event = go.event("aggregated", |_| true).await;
    assert_eq!((&event["group"], &event["members"]), (&json!("user:7"), &json!(3)));
    assert_eq!(event["payload_base64"], base64(b"012"));
    go.event("finished", |event| event["type"] == "joined").await;
    world.queue_when("q", |stats| stats.size() == 0).await;
}

#[tokio::test]
async fn members_of_both_sides_in_one_group_are_joined_by_whoever_comes_first() {
    let Some(world) = World::start().await else { return };
    let members = 40;
    let go = world.go_works(&["-queues", "q=1", "-group-aggregate", "-group-max-size", "5"]).await;
    let ours = world.we_work(|worker| worker.queue("q", 1).group("q", policy(5), join));
    for n in 0..members / 2 {
        let options = json!({"queue": "q", "group": "g"});
        let task = json!({"type": "note", "payload": "x", "options": options});
        world.go_enqueues(task).await;
        let request =
            TaskRequest::raw("note", "y").queue("q").group("g").header("n", &n.to_string());
        world.client.enqueue(request).await.unwrap().accepted().unwrap();
    }
    until("every member was joined once", async || {
        let theirs = go.events("finished").into_iter();
        let theirs = theirs.map(|event| event["payload_base64"].as_str().unwrap_or("").to_owned());
        let theirs: usize = theirs.map(|text| decoded_len(&text)).sum();
        let mine: usize = ours.runs().iter().map(|ran| ran.task.payload.len()).sum();
        assert!(theirs + mine <= members, "{theirs} + {mine}");
        (theirs + mine == members).then_some(())
    })
    .await;
    world.queue_when("q", |stats| stats.aggregating + stats.pending + stats.active == 0).await;
}

fn decoded_len(text: &str) -> usize {
    let padding = text.bytes().filter(|byte| *byte == b'=').count();
    text.len() / 4 * 3 - padding
}

#[tokio::test]
async fn members_whose_aggregator_died_go_back_to_their_group_by_the_other_sides_hand() {
    let Some(world) = World::start().await else { return };
    // A set as a worker leaves it that dies between taking the members and making the task.
    for n in 0..2 {
        let options = json!({"queue": "q", "task_id": format!("m{n}"), "group": "g"});
        world.go_enqueues(json!({"type": "note", "payload": "x", "options": options})).await;
    }
    let set = "asynq:{q}:g:g:0b1f7d3e-0000-4000-8000-000000000001";
    for score in ["1000", "1000.25"] {
        world.raw(&["RENAME", "asynq:{q}:g:g", set]);
        world.raw(&["SREM", "asynq:{q}:groups", "g"]);
        world.raw(&["ZADD", "asynq:{q}:aggregation_sets", score, set]);
        if score == "1000" {
            // Go's set, which we take back.
            let ours = world.we_work(|worker| worker.queue("q", 1));
            until("the members are back", async || {
                (world.raw(&["ZCARD", "asynq:{q}:g:g"]).int() == Some(2)).then_some(())
            })
            .await;
            ours.stop().await;
        }
    }
    // Ours, which Go takes back: its recovery runs at its start.
    let _go = world.go_works(&["-queues", "q=1", "-group-aggregate"]).await;
    until("the members were joined", async || {
        (world.raw(&["EXISTS", set]).int() == Some(0)).then_some(())
    })
    .await;
}
