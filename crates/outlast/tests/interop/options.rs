//! Enqueueing with every option, in both directions; unique locks and ids across the two.

use std::time::Duration;

use outlast::{
    ErrorKind, QueueName, TaskId, TaskRecord, TaskRequest, TaskState, Timestamp, Verdict,
};
use serde_json::{Value, json};

use super::world::{World, base64, nanos, time, until};

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_task_that_go_enqueues_with_every_option_reaches_our_handler_with_all_of_them() {
    let Some(world) = World::start().await else { return };
    let deadline = world.now().plus(HOUR).as_seconds();
    let info = world
        .go_enqueues(json!({"type": "ok", "payload": "päyload", "options": {
            "max_retry": 3, "queue": "mail", "timeout": "90s", "deadline": deadline,
            "unique": "1h", "task_id": "a", "retention": "24h", "headers": {"trace": "ü", "b": ""},
        }}))
        .await;
    assert_eq!((&info["ID"], &info["State"]), (&json!("a"), &json!("pending")));
    let ours = world.we_work(|worker| worker.queue("mail", 1));
    let ran = ours.run("a").await;
    let task = ran.task;
    assert_eq!((task.task_type.as_str(), &task.payload[..]), ("ok", "päyload".as_bytes()));
    assert_eq!((task.queue.as_str(), task.max_retry, ran.attempt), ("mail", 3, 1));
    let headers: Vec<_> = task.headers.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(headers, [("b", ""), ("trace", "ü")]);
    assert_eq!((task.timeout, task.retention), (Some(Duration::from_secs(90)), HOUR * 24));
    assert_eq!(task.deadline.map(|at| at.as_seconds()), Some(deadline));
    let left = ran.deadline.since(ran.at);
    assert!(left <= Duration::from_secs(90) && left > Duration::from_secs(80), "{left:?}");
    world.in_state("mail", "a", TaskState::Completed).await;
}

#[tokio::test]
async fn a_task_that_we_enqueue_with_every_option_reaches_gos_handler_with_all_of_them() {
    let Some(world) = World::start().await else { return };
    let deadline = Timestamp::from_seconds(world.now().plus(HOUR).as_seconds());
    let request = TaskRequest::raw("ok", "päyload")
        .queue("mail")
        .id("a")
        .max_retry(3)
        .timeout(Duration::from_secs(90))
        .deadline(deadline)
        .unique(HOUR)
        .retention(HOUR * 24)
        .header("trace", "ü");
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let go = world.go_works(&["-queues", "mail=1"]).await;
    let event = go.event_of("started", "a").await;
    assert_eq!(event["payload_base64"], base64("päyload".as_bytes()));
    assert_eq!((&event["queue"], &event["type"]), (&json!("mail"), &json!("ok")));
    assert_eq!((&event["max_retry"], &event["retried"]), (&json!(3), &json!(0)));
    assert_eq!(event["headers"], json!({"trace": "ü"}));
    let left = event["deadline"].as_i64().unwrap() - event["at"].as_i64().unwrap();
    assert!((80_000..=90_000).contains(&left), "{left} ms");
    world.in_state("mail", "a", TaskState::Completed).await;
    let info = world.go_task("mail", "a").await;
    assert_eq!(info["Retention"], nanos(HOUR * 24));
    assert_eq!(info["Timeout"], nanos(Duration::from_secs(90)));
    assert_eq!(time(&info["Deadline"]), Some(deadline));
}

#[tokio::test]
async fn go_reads_back_the_same_record_whichever_side_enqueued() {
    let Some(world) = World::start().await else { return };
    let at = world.now().plus(HOUR).as_seconds();
    let due = Timestamp::from_seconds(at);
    let minute = Duration::from_secs(60);
    let raw = || TaskRequest::raw("t", "p").queue("q");
    let cases = [
        ("plain", json!({}), raw()),
        ("retry", json!({"max_retry": 0}), raw().max_retry(0)),
        ("timeout", json!({"timeout": "1m"}), raw().timeout(minute)),
        ("deadline", json!({"deadline": at}), raw().deadline(due)),
        ("later", json!({"process_at": at}), raw().at(due)),
        ("group", json!({"group": "g"}), raw().group("g")),
        ("late-group", json!({"group": "g", "process_at": at}), raw().group("g").at(due)),
        ("kept", json!({"retention": "1h"}), raw().retention(HOUR)),
        ("headers", json!({"headers": {"a": "b"}}), raw().header("a", "b")),
    ];
    for (name, mut options, request) in cases {
        options["queue"] = json!("q");
        options["task_id"] = json!(format!("go-{name}"));
        world.go_enqueues(json!({"type": "t", "payload": "p", "options": options})).await;
        let request = request.id(&format!("our-{name}"));
        world.client.enqueue(request).await.unwrap().accepted().unwrap();
        let mut theirs = world.go_task("q", &format!("go-{name}")).await;
        let mut ours = world.go_task("q", &format!("our-{name}")).await;
        for info in [&mut theirs, &mut ours] {
            info["ID"] = Value::Null;
            if info["State"] == "pending" {
                // It is the time of the question.
                info["NextProcessAt"] = Value::Null;
            }
        }
        assert_eq!(theirs, ours, "{name}");
        let mut go_record = record(&world, &format!("go-{name}")).await;
        let our_record = record(&world, &format!("our-{name}")).await;
        go_record.id = our_record.id.clone();
        // What asynq does not store: when a task was accepted. Times of the two enqueues differ.
        go_record.enqueued_at = our_record.enqueued_at;
        go_record.pending_since = our_record.pending_since;
        if go_record.state == TaskState::Pending {
            go_record.next_at = our_record.next_at;
        }
        assert_eq!(go_record, our_record, "{name}");
    }
}

async fn record(world: &World, id: &str) -> TaskRecord {
    world.inspector.task(&QueueName::stored("q"), &TaskId::stored(id)).await.unwrap()
}

#[tokio::test]
async fn go_refuses_a_duplicate_while_ours_holds_the_lock_and_takes_it_once_ours_is_done() {
    let Some(world) = World::start().await else { return };
    let request = || TaskRequest::raw("unique", "p").queue("q").unique(HOUR);
    world.client.enqueue(request().id("a")).await.unwrap().accepted().unwrap();
    let copy = json!({"type": "unique", "payload": "p", "options": {"queue": "q", "unique": "1h"}});
    let refused = world.go_offers(copy.clone()).await;
    assert_eq!(refused["error"], "duplicate", "{refused}");
    let go = world.go_works(&["-queues", "q=1"]).await;
    go.event_of("finished", "a").await;
    world.gone("q", "a").await;
    let info = world.go_enqueues(copy).await;
    let id = info["ID"].as_str().unwrap();
    go.event_of("finished", id).await;
    world.gone("q", id).await;
}

#[tokio::test]
async fn we_refuse_a_duplicate_while_gos_holds_the_lock_and_take_it_once_gos_is_done() {
    let Some(world) = World::start().await else { return };
    for payload in [json!({"type": "unique", "payload": "p"}), json!({"type": "unique"})] {
        let mut task = payload.clone();
        task["options"] = json!({"queue": "q", "unique": "1h"});
        let id = world.go_enqueues(task).await["ID"].as_str().unwrap().to_owned();
        let text = payload["payload"].as_str().unwrap_or("").to_owned();
        let request = || TaskRequest::raw("unique", text.clone()).queue("q").unique(HOUR);
        let receipt = world.client.enqueue(request()).await.unwrap();
        match receipt.verdict {
            Verdict::Duplicate { of } => assert_eq!(of.unwrap().as_str(), id),
            verdict => panic!("{payload}: {verdict:?}"),
        }
        let ours = world.we_work(|worker| worker.queue("q", 1));
        world.gone("q", &id).await;
        ours.stop().await;
        world.client.enqueue(request()).await.unwrap().accepted().unwrap();
    }
}

#[tokio::test]
async fn an_id_that_one_side_has_taken_is_a_conflict_for_the_other() {
    let Some(world) = World::start().await else { return };
    let ours = |id: &str| TaskRequest::raw("t", "").queue("q").id(id);
    let go = |id: &str| json!({"type": "t", "options": {"queue": "q", "task_id": id}});
    world.client.enqueue(ours("a")).await.unwrap().accepted().unwrap();
    assert_eq!(world.go_offers(go("a")).await["error"], "id_conflict");
    world.go_enqueues(go("b")).await;
    let receipt = world.client.enqueue(ours("b")).await.unwrap();
    assert_eq!(receipt.verdict, Verdict::IdConflict);
    assert_eq!(receipt.accepted().unwrap_err().kind(), ErrorKind::Duplicate);
}

#[tokio::test]
async fn bytes_that_are_no_text_arrive_as_they_were_sent_in_both_directions() {
    let Some(world) = World::start().await else { return };
    let bytes = [0_u8, 255, 254, 10, 13, 128];
    let task = json!({"type": "ok", "payload_base64": base64(&bytes), "options": {"task_id": "a"}});
    world.go_enqueues(task).await;
    let ours = world.we_work(|worker| worker);
    assert_eq!(ours.run("a").await.task.payload[..], bytes);
    ours.stop().await;
    let request = TaskRequest::raw("ok", bytes.to_vec()).id("b");
    world.client.enqueue(request).await.unwrap().accepted().unwrap();
    let go = world.go_works(&[]).await;
    assert_eq!(go.event_of("started", "b").await["payload_base64"], base64(&bytes));
}

#[tokio::test]
async fn a_unique_member_of_a_group_keeps_its_lock_until_its_group_was_joined() {
    let Some(world) = World::start().await else { return };
    let options = json!({"queue": "q", "unique": "1h", "group": "g"});
    let task = json!({"type": "unique", "payload": "p", "options": options});
    assert_eq!(world.go_enqueues(task).await["State"], "aggregating");
    let request = || TaskRequest::raw("unique", "p").queue("q").unique(HOUR).group("g");
    let twin = world.client.enqueue(request()).await.unwrap();
    assert!(matches!(twin.verdict, Verdict::Duplicate { .. }), "{twin}");
    let policy = outlast::GroupPolicy {
        pattern: "*".to_owned(),
        grace: Duration::from_secs(1),
        max_delay: None,
        max_size: Some(1),
    };
    let join = async |_: outlast::GroupBatch| Ok(TaskRequest::raw("joined", ""));
    let ours = world.we_work(|worker| worker.queue("q", 1).group("q", policy, join));
    until("it is joined", async || {
        ours.runs().into_iter().find(|ran| ran.task.task_type.as_str() == "joined")
    })
    .await;
    world.queue_when("q", |stats| stats.size() == 0).await;
    assert!(world.client.enqueue(request()).await.unwrap().is_accepted());
}

#[tokio::test]
async fn a_task_of_gos_whose_deadline_has_passed_is_not_run_and_spends_a_retry() {
    let Some(world) = World::start().await else { return };
    let past = world.now().as_seconds() - 60;
    let options = json!({"queue": "q", "task_id": "late", "deadline": past, "max_retry": 3});
    world.go_enqueues(json!({"type": "late", "payload": "", "options": options})).await;
    let later = |_: u32, _: &outlast::Failure, _: &outlast::TaskInfo| HOUR;
    let ours = world.we_work(|worker| worker.queue("q", 1).retry_with(later));
    let late = world.in_state("q", "late", TaskState::Retry).await;
    assert_eq!(late.retried, 1);
    assert!(late.last_error.as_deref().is_some_and(|error| error.contains("deadline")), "{late:?}");
    assert!(ours.runs().is_empty());
}
