//! A graceful end: the worker stops claiming, waits for what runs, gives the rest back.
//!
//! `cargo run -p outlast --example shutdown`

use std::time::Duration;

use outlast::{Client, QueueName, TaskRequest, Worker};

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    for _ in 0..20 {
        client.enqueue(TaskRequest::raw("nap", "")).await?;
    }
    let worker = Worker::new(&client)
        .slots(2)
        .shutdown_timeout(Duration::from_millis(400))
        .handle_type("nap", async || tokio::time::sleep(Duration::from_millis(50)).await);
    let control = worker.control();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(120)).await;
        control.stop(); // what SIGTERM does in run()
    });
    let summary = worker.run().await?;
    let left = client.inspector().queue(&QueueName::default_queue()).await?;
    println!("{} ran, {} still pending, {} active", summary.succeeded, left.pending, left.active);
    assert_eq!(summary.succeeded + left.pending, 20, "nothing is lost");
    Ok(())
}
