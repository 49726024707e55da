//! The ways a run can end: done, retry, retry at a time, snooze, archive, revoke, panic.
//!
//! `cargo run -p outlast --example failures`

use std::time::Duration;

use outlast::{
    Attempt, Backoff, Client, Failure, PageRequest, QueueName, RawPayload, Selector, TaskRequest,
    TaskState, Worker,
};

async fn fragile(RawPayload(how): RawPayload, Attempt(attempt): Attempt) -> Result<(), Failure> {
    match (&how[..], attempt) {
        (b"twice", 1) => Err(Failure::retry("not yet")),
        (b"soon", 1) => Err(Failure::retry_in(Duration::from_millis(100), "in a moment")),
        (b"never", _) => Err(Failure::archive("this cannot work")),
        (b"unwanted", _) => Err(Failure::revoke()),
        (b"panic", 1) => panic!("caught, per task"),
        _ => Ok(()),
    }
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    for how in ["twice", "soon", "never", "unwanted", "panic", "fine"] {
        client.enqueue(TaskRequest::raw("fragile", how)).await?;
    }
    let summary = Worker::new(&client)
        .handle_type("fragile", fragile)
        .backoff(Backoff::Fixed(Duration::from_millis(50)))
        .on_error(|task, failure| println!("{} attempt {}: {failure}", task.id, task.attempt))
        .exit_when_empty()
        .run()
        .await?;
    println!("{} runs ended well, {} failed", summary.succeeded, summary.failed);

    let (queue, archived) = (QueueName::default_queue(), Selector::state(TaskState::Archived));
    for task in client.inspector().tasks(&queue, &archived, &PageRequest::first(10)).await?.items {
        println!("archived: {:?}", task.last_error);
    }
    Ok(())
}
