//! A long task that shows how far it is, listens to cancellation, and keeps its result for an hour.
//!
//! `cargo run -p outlast --example progress`

use std::time::Duration;

use outlast::{Cancel, Client, Failure, QueueName, ResultWriter, TaskRequest, TaskView, Worker};

async fn render(progress: ResultWriter, cancel: Cancel) -> Result<String, Failure> {
    for percent in (0..100).step_by(10) {
        progress.write(format!("{percent} %"))?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(5)) => {}
            reason = cancel.cancelled() => return Err(Failure::retry(format!("stopped: {reason:?}"))),
        }
    }
    Ok("rendered".to_owned())
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    let request = TaskRequest::raw("render", "").retention(Duration::from_secs(3600));
    let receipt = client.enqueue(request).await?;
    Worker::new(&client).handle_type("render", render).exit_when_empty().run().await?;

    let task = client.inspector().task(&QueueName::default_queue(), &receipt.id).await?;
    println!("{}", serde_json::to_string_pretty(&TaskView::from(&task))?);
    Ok(())
}
