//! Many small tasks become one: notifications are collected per user and sent as one digest.
//!
//! `cargo run -p outlast --example groups`

use std::time::Duration;

use outlast::{Client, GroupBatch, GroupPolicy, RawPayload, TaskRequest, Worker};

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    for n in 0..5 {
        let note = TaskRequest::raw("notify", format!("message {n}")).queue("mail").group("user:7");
        client.enqueue(note).await?;
    }
    let policy = GroupPolicy {
        pattern: "user:*".to_owned(),
        grace: Duration::from_millis(300), // nothing new for this long
        max_delay: Some(Duration::from_secs(5)), // but no later than this
        max_size: Some(100),
    };
    Worker::new(&client)
        .queue("mail", 1)
        .group("mail", policy, async |batch: GroupBatch| {
            let lines: Vec<_> =
                batch.tasks.iter().map(|task| String::from_utf8_lossy(&task.payload)).collect();
            Ok(TaskRequest::raw("digest", lines.join("\n")))
        })
        .handle_type("digest", async |RawPayload(text): RawPayload| {
            println!("one mail:\n{}", String::from_utf8_lossy(&text));
        })
        .exit_when_empty()
        .run()
        .await?;
    Ok(())
}
