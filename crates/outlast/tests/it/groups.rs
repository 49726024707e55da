//! Groups: many tasks become one, in one transaction.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{Failure, GroupBatch, GroupPolicy, RawPayload, TaskRequest, TaskState, Worker};

fn policy(max_size: Option<usize>) -> GroupPolicy {
    GroupPolicy {
        pattern: "g*".to_owned(),
        grace: Duration::from_secs(10),
        max_delay: None,
        max_size,
    }
}

async fn bed_with_members(count: usize) -> TestBed {
    let bed = TestBed::new().await.unwrap();
    let member = |n: usize| TaskRequest::raw("note", n.to_string()).group("g1");
    bed.client().enqueue_all((0..count).map(member).collect()).await.unwrap();
    bed
}

async fn join(batch: GroupBatch) -> Result<TaskRequest, Failure> {
    let members: Vec<_> = batch.tasks.iter().map(|t| String::from_utf8_lossy(&t.payload)).collect();
    Ok(TaskRequest::raw("digest", members.join(",")))
}

fn collecting(bed: &TestBed, max_size: Option<usize>) -> Worker {
    Worker::new(bed.client())
        .group("default", policy(max_size), join)
        .handle_type("digest", async |RawPayload(text): RawPayload| assert_eq!(&text[..], b"0,1,2"))
}

#[tokio::test]
async fn members_wait_for_the_grace_period_and_then_run_as_one_task() {
    let bed = bed_with_members(3).await;
    assert_eq!(bed.drain(collecting(&bed, None)).await.unwrap().succeeded, 0);
    bed.assert_count("default", TaskState::Aggregating, 3).await;
    bed.advance(Duration::from_secs(10));
    // The aggregation and the task that it made.
    assert_eq!(bed.drain(collecting(&bed, None)).await.unwrap().succeeded, 2);
    bed.assert_empty("default").await;
}

#[tokio::test]
async fn a_full_group_does_not_wait() {
    let bed = bed_with_members(3).await;
    assert_eq!(bed.drain(collecting(&bed, Some(3))).await.unwrap().succeeded, 2);
    bed.assert_empty("default").await;
}

#[tokio::test]
async fn an_aggregation_that_fails_gives_its_members_back() {
    let bed = bed_with_members(3).await;
    let calls = std::sync::Arc::new(AtomicU32::new(0));
    let count = calls.clone();
    let worker = Worker::new(bed.client())
        .shutdown_timeout(Duration::from_millis(500))
        .group("default", policy(Some(3)), move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            async { Err::<TaskRequest, _>(Failure::retry("not today")) }
        })
        .handle_type("digest", async || {});
    let control = worker.control();
    let stop = async {
        super::soon("the first try", async {
            while calls.load(Ordering::SeqCst) == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
        control.stop();
    };
    let (summary, ()) = tokio::join!(worker.run_until(std::future::pending()), stop);
    assert_eq!(summary.unwrap().succeeded, 0);
    bed.assert_count("default", TaskState::Aggregating, 3).await;
}
