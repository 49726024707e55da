//! Enqueueing: options, receipts, batches.

use std::sync::Arc;
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{Client, Connection, ErrorKind, Kind, TaskRequest, TaskState, Timestamp, Verdict};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

#[tokio::test]
async fn every_option_reaches_the_stored_task() {
    let bed = TestBed::new().await.unwrap();
    let now = bed.clock().now();
    let request = TaskRequest::raw("kind", "payload")
        .queue("q")
        .id("id-1")
        .max_retry(3)
        .timeout(Duration::from_secs(7))
        .deadline(now.plus(Duration::from_secs(600)))
        .delay(Duration::from_secs(60))
        .unique(Duration::from_secs(300))
        .retention(Duration::from_secs(120))
        .header("tenant", "acme");
    let receipt = bed.client().enqueue(request).await.unwrap();
    assert_eq!(receipt.state, Some(TaskState::Scheduled));
    assert_eq!(receipt.due, Some(now.plus(Duration::from_secs(60))));

    let task = &bed.tasks("q", TaskState::Scheduled).await.unwrap()[0];
    assert_eq!((task.id.as_str(), task.task_type.as_str()), ("id-1", "kind"));
    assert_eq!((&task.payload[..], task.max_retry), (&b"payload"[..], 3));
    assert_eq!(task.timeout, Some(Duration::from_secs(7)));
    assert_eq!(task.deadline, Some(now.plus(Duration::from_secs(600))));
    assert_eq!(task.next_at, Some(now.plus(Duration::from_secs(60))));
    assert_eq!(task.retention, Duration::from_secs(120));
    assert_eq!(task.headers["tenant"], "acme");
}

#[tokio::test]
async fn a_wrong_task_is_an_error_alone_and_a_verdict_in_a_list() {
    let bed = TestBed::new().await.unwrap();
    let wrong = || TaskRequest::raw("t", "").timeout(Duration::from_millis(500));
    let error = bed.client().enqueue(wrong()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().starts_with("timeout 500ms is too short"), "{error}");

    let list = vec![TaskRequest::raw("t", "1"), wrong(), TaskRequest::raw("t", "2")];
    let receipts = bed.client().enqueue_all(list).await.unwrap();
    let words: Vec<_> = receipts.iter().map(|receipt| receipt.verdict.as_str()).collect();
    assert_eq!(words, ["accepted", "rejected", "accepted"]);
}

#[tokio::test]
async fn receipts_come_in_the_order_of_the_list_whatever_the_queues() {
    let bed = TestBed::new().await.unwrap();
    let request = |n: usize| {
        TaskRequest::raw("t", n.to_string()).id(&n.to_string()).queue(["a", "b", "c"][n % 3])
    };
    let receipts = bed.client().enqueue_all((0..1000).map(request).collect()).await.unwrap();
    let ids: Vec<_> = receipts.iter().map(|receipt| receipt.id.to_string()).collect();
    assert_eq!(ids, (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    bed.assert_count("a", TaskState::Pending, 334).await;
}

#[tokio::test]
async fn many_concurrent_callers_get_each_their_own_receipt() {
    let bed = TestBed::new().await.unwrap();
    let callers = (0..500).map(|n: u32| {
        let client = bed.client().clone();
        tokio::spawn(async move {
            let id = n.to_string();
            let receipt = client.enqueue(TaskRequest::raw("t", "").id(&id)).await.unwrap();
            assert!(receipt.is_accepted());
            assert_eq!(receipt.id.as_str(), id);
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    bed.assert_count("default", TaskState::Pending, 500).await;
}

#[tokio::test]
async fn duplicates_and_conflicts_name_what_they_meet() {
    let bed = TestBed::new().await.unwrap();
    let unique = |id: &str| TaskRequest::raw("t", "same").id(id).unique(Duration::from_secs(60));
    bed.client().enqueue(unique("first")).await.unwrap();
    let receipt = bed.client().enqueue(unique("second")).await.unwrap();
    assert!(
        matches!(&receipt.verdict, Verdict::Duplicate { of: Some(of) } if of.as_str() == "first")
    );
    assert_eq!(receipt.state, None);
    let again = bed.client().enqueue(TaskRequest::raw("t", "other").id("first")).await.unwrap();
    assert_eq!(again.verdict, Verdict::IdConflict);
}

#[tokio::test]
async fn a_far_away_time_is_kept_and_a_past_one_is_now() {
    let bed = TestBed::new().await.unwrap();
    let at = |moment| TaskRequest::raw("t", "").at(moment);
    let far = bed.client().enqueue(at(Timestamp::MAX)).await.unwrap();
    assert_eq!(far.state, Some(TaskState::Scheduled));
    let past = bed.client().enqueue(at(Timestamp::from_seconds(1))).await.unwrap();
    assert_eq!((past.state, past.due), (Some(TaskState::Pending), None));
}

#[tokio::test]
async fn a_client_whose_broker_is_closed_gets_an_error_and_not_silence() {
    let connection = Connection::open("sqlite::memory:").await.unwrap();
    let client: Client = connection.client();
    client.enqueue(TaskRequest::raw("t", "")).await.unwrap();
    connection.close().await;
    let error = client.enqueue(TaskRequest::raw("t", "")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Broker(outlast::Kind::Unavailable), "{error}");
}

#[tokio::test]
async fn a_clone_is_the_same_task_unless_it_gets_a_fresh_id() {
    let bed = TestBed::new().await.unwrap();
    let request = TaskRequest::raw("t", "");
    let list = vec![request.clone(), request.clone(), request.fresh_id()];
    let receipts = bed.client().enqueue_all(list).await.unwrap();
    let words: Vec<_> = receipts.iter().map(|receipt| receipt.verdict.as_str()).collect();
    assert_eq!(words, ["accepted", "conflict", "accepted"]);
}

#[tokio::test]
async fn a_refusal_can_be_made_an_error() {
    // It was a value only, so that a `?` behind the call looked as if the task were safe.
    let bed = TestBed::new().await.unwrap();
    let request = |payload: &'static str| TaskRequest::raw("t", payload).id("one");
    let first = bed.client().enqueue(request("1")).await.unwrap().accepted().unwrap();
    assert_eq!(first.id.as_str(), "one");
    let error = bed.client().enqueue(request("2")).await.unwrap().accepted().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Duplicate);
    assert_eq!(error.to_string(), "task not stored: conflict one in default");
    let receipts = bed.client().enqueue_all(vec![request("3").header("", "x")]).await.unwrap();
    let error = receipts[0].clone().accepted().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_list_that_failed_in_part_can_be_enqueued_again() {
    // The receipts of what was stored are lost behind the error; the ids are not.
    let model = Arc::new(ModelBroker::new(1000));
    let faults = Arc::new(FaultBroker::new(model.clone()));
    let client = Connection::of_halves("model:", faults.clone(), model).client();
    let list = ["a", "b", "c"].map(|queue| TaskRequest::raw("t", "").queue(queue)).to_vec();
    faults.script(Verb::Enqueue, [Some(Fault::After), Some(Fault::Before(Kind::Busy)), None]);
    client.enqueue_all(list.clone()).await.unwrap_err();
    assert_eq!(faults.calls(Verb::Enqueue), 3, "the others are answered, too");
    let receipts = client.enqueue_all(list).await.unwrap();
    let mut words: Vec<_> = receipts.iter().map(|receipt| receipt.verdict.as_str()).collect();
    words.sort_unstable();
    assert_eq!(words, ["accepted", "conflict", "conflict"]);
}
