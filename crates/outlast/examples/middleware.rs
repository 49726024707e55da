//! Code around every handler: an async function with `next`, or any tower layer.
//!
//! `cargo run -p outlast --example middleware`

use outlast::{Client, Next, Reply, Run, TaskRequest, Worker};
use tokio::time::Instant;

async fn timed(run: Run, next: Next) -> Reply {
    let (id, begin) = (run.task().id.clone(), Instant::now());
    let reply = next.run(run).await;
    println!("{id} took {:?}", begin.elapsed());
    reply
}

async fn only_for_tenants(run: Run, next: Next) -> Reply {
    match run.task().headers.get("tenant") {
        Some(_) => next.run(run).await,
        None => Reply::Failed(outlast::Failure::archive("no header tenant")),
    }
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    client.enqueue(TaskRequest::raw("work", "").header("tenant", "acme")).await?;
    client.enqueue(TaskRequest::raw("work", "")).await?;

    let summary = Worker::new(&client)
        .around(timed) // outermost
        .around(only_for_tenants)
        .layer(tower::layer::util::Identity::new()) // any tower layer fits here
        .handle_type("work", async || {})
        .exit_when_empty()
        .run()
        .await?;
    println!("{} done, {} refused", summary.succeeded, summary.failed);
    Ok(())
}
