//! How to test code that uses Outlast: a broker in memory, a clock that stands still.
//!
//! `cargo run -p outlast --example testing`

use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{Client, TaskRequest, TaskState, Worker};

/// The code under test.
async fn sign_up(client: &Client, user: u64) -> outlast::Result<()> {
    let mail = TaskRequest::raw("email:welcome", user.to_string()).queue("mail");
    client.enqueue(mail.delay(Duration::from_secs(3600))).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let bed = TestBed::new().await?;
    sign_up(bed.client(), 42).await?;

    let task = bed.assert_enqueued("mail", "email:welcome").await;
    assert_eq!(&task.payload[..], b"42");
    bed.assert_count("mail", TaskState::Scheduled, 1).await;

    bed.advance(Duration::from_secs(3600)); // an hour passes in no time
    let worker = Worker::new(bed.client()).queue("mail", 1).handle_type("email:*", async || {});
    assert_eq!(bed.drain(worker).await?.succeeded, 1);
    bed.assert_empty("mail").await;
    println!("the welcome mail is sent an hour after signing up");
    Ok(())
}
