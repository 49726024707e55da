//! Many tasks at once: one receipt each, and wrong ones do not hold up the others.
//!
//! `cargo run -p outlast --example bulk`

use outlast::{Client, RawPayload, TaskRequest, Worker};

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    let mut requests: Vec<TaskRequest> = (0..10_000)
        .map(|n: u32| TaskRequest::raw("square", n.to_string()).queue("numbers"))
        .collect();
    requests.push(TaskRequest::raw("square", "x").queue("  "));

    let receipts = client.enqueue_all(requests).await?;
    let accepted = receipts.iter().filter(|receipt| receipt.is_accepted()).count();
    println!("{accepted} accepted; the last one: {}", receipts[receipts.len() - 1]);

    let square = async |RawPayload(number): RawPayload| {
        let number: u64 = String::from_utf8_lossy(&number).parse()?;
        Ok::<_, outlast::Failure>((number * number).to_string())
    };
    let worker = Worker::new(&client).queue("numbers", 1).slots(16).handle_type("square", square);
    println!("{} squared", worker.exit_when_empty().run().await?.succeeded);
    Ok(())
}
