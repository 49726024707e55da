//! How runs end, and what becomes of their tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{
    Attempt, Failure, Json, JsonResult, Payload, RawPayload, Reply, ResultWriter, Run, State, Task,
    TaskInfo, TaskRequest, TaskState, Worker,
};
use serde::{Deserialize, Serialize};

const MINUTE: Duration = Duration::from_secs(60);

async fn bed_with(request: TaskRequest) -> TestBed {
    let bed = TestBed::new().await.unwrap();
    bed.client().enqueue(request).await.unwrap();
    bed
}

fn task() -> TaskRequest {
    TaskRequest::raw("t", "payload")
}

fn fixed(bed: &TestBed) -> Worker {
    Worker::new(bed.client()).retry_with(|_, _, _| MINUTE)
}

#[tokio::test]
async fn a_task_that_succeeds_without_retention_is_gone() {
    let bed = bed_with(task()).await;
    let summary = bed.drain(fixed(&bed).handle_type("t", async || "result")).await.unwrap();
    assert_eq!((summary.succeeded, summary.failed), (1, 0));
    bed.assert_empty("default").await;
}

#[tokio::test]
async fn a_result_is_kept_for_the_retention_and_not_longer() {
    let bed = bed_with(task().retention(MINUTE)).await;
    bed.drain(fixed(&bed).handle_type("t", async || JsonResult([1, 2]))).await.unwrap();
    let done = bed.tasks("default", TaskState::Completed).await.unwrap();
    assert_eq!(done[0].result.as_deref(), Some(&b"[1,2]"[..]));
    assert_eq!(done[0].completed_at, Some(bed.clock().now()));
}

/// What a handler wrote was stored at the next look of the worker, or with a success: of a run that failed before that look it
/// was lost, while asynq stores it at once.
#[tokio::test]
async fn what_a_handler_wrote_is_kept_however_its_run_ends() {
    let bed = bed_with(task().id("retried")).await;
    for id in ["archived", "snoozed", "done"] {
        bed.client().enqueue(task().id(id).retention(MINUTE)).await.unwrap();
    }
    let handler = async |info: TaskInfo, writer: ResultWriter| {
        writer.write(format!("half of {}", info.id))?;
        match info.id.as_str() {
            "retried" => Err::<(), _>(Failure::retry("no luck")),
            "archived" => Err(Failure::archive("hopeless")),
            "snoozed" => Err(Failure::snooze(MINUTE)),
            _ => Ok(()),
        }
    };
    bed.drain(fixed(&bed).handle_type("t", handler)).await.unwrap();
    for (state, id) in [
        (TaskState::Retry, "retried"),
        (TaskState::Archived, "archived"),
        (TaskState::Scheduled, "snoozed"),
        (TaskState::Completed, "done"),
    ] {
        let found = bed.tasks("default", state).await.unwrap();
        assert_eq!(found[0].result.as_deref(), Some(format!("half of {id}").as_bytes()), "{id}");
    }
}

#[tokio::test]
async fn a_failure_is_retried_after_its_delay_until_the_retries_are_spent() {
    let bed = bed_with(task().max_retry(1)).await;
    let worker = || fixed(&bed).handle_type("t", async || Err::<(), _>(Failure::retry("no luck")));
    bed.drain(worker()).await.unwrap();
    let waiting = bed.tasks("default", TaskState::Retry).await.unwrap();
    assert_eq!((waiting[0].retried, waiting[0].last_error.as_deref()), (1, Some("no luck")));
    assert_eq!(waiting[0].next_at, Some(bed.clock().now().plus(MINUTE)));

    bed.drain(worker()).await.unwrap();
    bed.assert_count("default", TaskState::Retry, 1).await;
    bed.advance(MINUTE);
    bed.drain(worker()).await.unwrap();
    let archived = bed.tasks("default", TaskState::Archived).await.unwrap();
    assert_eq!(archived[0].last_error.as_deref(), Some("no luck"));
}

#[tokio::test]
async fn a_failure_that_does_not_count_spends_no_retry() {
    let bed = bed_with(task().max_retry(1)).await;
    for _ in 0..3 {
        let worker = fixed(&bed).is_failure(|_| false);
        let worker = worker.handle_type("t", async || Err::<(), _>(Failure::retry("busy")));
        bed.drain(worker).await.unwrap();
        assert_eq!(bed.tasks("default", TaskState::Retry).await.unwrap()[0].retried, 0);
        bed.advance(MINUTE);
    }
}

#[tokio::test]
async fn snooze_archive_and_revoke_do_what_they_say() {
    let bed = bed_with(task().id("s")).await;
    for id in ["a", "r"] {
        bed.client().enqueue(task().id(id)).await.unwrap();
    }
    let handler = async |info: TaskInfo| match info.id.as_str() {
        "s" => Err::<(), _>(Failure::snooze(MINUTE)),
        "a" => Err(Failure::archive("hopeless")),
        _ => Err(Failure::revoke()),
    };
    bed.drain(fixed(&bed).handle_type("t", handler)).await.unwrap();
    let snoozed = bed.tasks("default", TaskState::Scheduled).await.unwrap();
    assert_eq!((snoozed[0].id.as_str(), snoozed[0].retried), ("s", 0));
    assert_eq!(snoozed[0].next_at, Some(bed.clock().now().plus(MINUTE)));
    assert_eq!(bed.tasks("default", TaskState::Archived).await.unwrap()[0].id.as_str(), "a");
    bed.assert_count("default", TaskState::Retry, 0).await;
}

#[tokio::test]
async fn a_retry_at_a_time_of_its_own_needs_no_backoff() {
    let bed = bed_with(task()).await;
    let at = bed.clock().now().plus(Duration::from_secs(7));
    let handler = move || async move { Err::<(), _>(Failure::retry_at(at, "later")) };
    bed.drain(fixed(&bed).handle_type("t", handler)).await.unwrap();
    assert_eq!(bed.tasks("default", TaskState::Retry).await.unwrap()[0].next_at, Some(at));
}

#[tokio::test]
async fn a_panic_is_a_failure_of_its_task_alone() {
    let bed = bed_with(task().id("bad")).await;
    bed.client().enqueue(task().id("good")).await.unwrap();
    let handler = async |info: TaskInfo| assert_ne!(info.id.as_str(), "bad", "boom");
    let summary = bed.drain(fixed(&bed).handle_type("t", handler)).await.unwrap();
    assert_eq!((summary.succeeded, summary.failed), (1, 1));
    let error =
        bed.tasks("default", TaskState::Retry).await.unwrap()[0].last_error.clone().unwrap();
    assert!(error.starts_with("panic: ") && error.contains("boom"), "{error}");
}

#[tokio::test]
async fn hooks_that_panic_do_not_take_the_worker_with_them() {
    let bed = bed_with(task()).await;
    let worker = Worker::new(bed.client())
        .retry_with(|_, _, _| panic!("delay"))
        .is_failure(|_| panic!("counts"))
        .on_error(|_, _| panic!("hear"))
        .handle_type("t", async || Err::<(), _>(Failure::retry("x")));
    assert_eq!(bed.drain(worker).await.unwrap().failed, 1);
    bed.assert_count("default", TaskState::Retry, 1).await;
}

#[tokio::test]
async fn a_type_without_handler_is_retried_because_another_worker_may_know_it() {
    let bed = bed_with(task()).await;
    bed.drain(fixed(&bed).handle_type("other", async || {})).await.unwrap();
    let error = bed.tasks("default", TaskState::Retry).await.unwrap()[0].last_error.clone();
    assert_eq!(error.as_deref(), Some("handler not found for task type \"t\""));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Resize {
    width: u32,
}

impl Task for Resize {
    const TYPE: &'static str = "image:resize";
}

#[tokio::test]
async fn arguments_are_made_from_the_task_in_any_order() {
    let bed = bed_with(TaskRequest::typed(&Resize { width: 80 }).header("h", "v").id("42")).await;
    struct Shared(AtomicU32);
    let handler = async |State(shared): State<Shared>,
                         info: TaskInfo,
                         Payload(resize): Payload<Resize>,
                         Json(json): Json<serde_json::Value>,
                         RawPayload(raw): RawPayload,
                         Attempt(attempt): Attempt,
                         run: Run| {
        assert_eq!(resize, Resize { width: 80 });
        assert_eq!(json["width"], 80);
        assert_eq!(&raw[..], br#"{"width":80}"#);
        assert_eq!((info.id.as_str(), info.headers["h"].as_str(), attempt), ("42", "v", 1));
        assert_eq!(run.task().id, info.id);
        shared.0.fetch_add(1, Ordering::Relaxed);
    };
    let worker = Worker::new(bed.client()).state(Shared(AtomicU32::new(0))).handle(handler);
    assert_eq!(bed.drain(worker).await.unwrap().succeeded, 1);
}

#[tokio::test]
async fn a_payload_that_does_not_fit_is_archived_with_the_reason() {
    let bed = bed_with(TaskRequest::raw(Resize::TYPE, "{}")).await;
    let worker = Worker::new(bed.client()).handle(async |Payload(_): Payload<Resize>| {});
    bed.drain(worker).await.unwrap();
    let error = bed.tasks("default", TaskState::Archived).await.unwrap()[0].last_error.clone();
    assert!(error.unwrap().contains("missing field `width`"));
}

/// A handler that must not be reached.
async fn never() {
    panic!("the handler was called");
}

#[tokio::test]
async fn middleware_runs_outside_in_and_can_answer_itself() {
    let bed = bed_with(task()).await;
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = |name: &'static str| {
        let order = order.clone();
        move |run: Run, next: outlast::Next| {
            order.lock().unwrap().push(name);
            next.run(run)
        }
    };
    let worker = Worker::new(bed.client())
        .around(note("outer"))
        .around(note("inner"))
        .around(async |_, _| Reply::Done(Some("answered".into())))
        .handle_type("t", never);
    assert_eq!(bed.drain(worker).await.unwrap().succeeded, 1);
    assert_eq!(*order.lock().unwrap(), ["outer", "inner"]);
}

#[tokio::test]
async fn a_deadline_that_has_passed_fails_the_task_without_calling_its_handler() {
    let bed = TestBed::new().await.unwrap();
    let deadline = bed.clock().now().plus(MINUTE);
    bed.client().enqueue(task().deadline(deadline)).await.unwrap();
    bed.advance(MINUTE);
    let worker = fixed(&bed).handle_type("t", never);
    bed.drain(worker).await.unwrap();
    let error = bed.tasks("default", TaskState::Retry).await.unwrap()[0].last_error.clone();
    assert_eq!(error.as_deref(), Some("context deadline exceeded"));
}

#[tokio::test]
async fn a_tower_layer_that_insists_on_readiness_works_inside_a_function() {
    // `Next` used to call without asking, and tower's concurrency limit panicked at every run.
    let bed = bed_with(task()).await;
    let worker = Worker::new(bed.client())
        .around(async |run: Run, next: outlast::Next| next.run(run).await)
        .layer(tower::limit::ConcurrencyLimitLayer::new(1))
        .handle_type("t", async || {});
    assert_eq!(bed.drain(worker).await.unwrap().succeeded, 1);
}

#[tokio::test]
async fn an_error_whose_own_text_panics_fails_its_run_and_leaks_no_lease() {
    #[derive(Debug)]
    struct Nasty;
    impl std::fmt::Display for Nasty {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("no text")
        }
    }
    impl std::error::Error for Nasty {}
    for (retries, state) in [(1, TaskState::Retry), (0, TaskState::Archived)] {
        let bed = bed_with(task().max_retry(retries)).await;
        let worker = fixed(&bed).handle_type("t", async || Err::<(), _>(Nasty));
        assert_eq!(bed.drain(worker).await.unwrap().failed, 1);
        let error = bed.tasks("default", state).await.unwrap()[0].last_error.clone();
        assert_eq!(error.as_deref(), Some("panic: no text"));
    }
}
