//! Tasks for later, for once, and for nobody twice: delay, unique locks and idempotency keys.
//!
//! `cargo run -p outlast --example later`

use std::time::Duration;

use outlast::{Client, TaskRequest, Verdict, Worker};

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;

    let soon = TaskRequest::raw("remind", "tea").delay(Duration::from_millis(200));
    println!("{}", client.enqueue(soon).await?);

    // While a task of the same type and payload waits or runs, a second one is a duplicate.
    let rebuild = || TaskRequest::raw("rebuild", "index").unique(Duration::from_secs(60));
    println!("{}", client.enqueue(rebuild()).await?);
    let second = client.enqueue(rebuild()).await?;
    println!("{second}");
    assert!(matches!(second.verdict, Verdict::Duplicate { .. }));

    // A webhook that is delivered twice makes one task, even if the first is done by then.
    let webhook =
        || TaskRequest::raw("paid", "order 7").once("event-4711", Duration::from_secs(86_400));
    println!("{}", client.enqueue(webhook()).await?);
    let worker = Worker::new(&client).handle_type("*", async || {});
    worker.exit_when_empty().run().await?;
    println!("{}", client.enqueue(webhook()).await?);
    Ok(())
}
