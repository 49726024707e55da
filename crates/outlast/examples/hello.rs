//! The shortest program: one task, one handler.
//!
//! `cargo run -p outlast --example hello`

use outlast::{Client, RawPayload, TaskRequest, Worker};

async fn greet(RawPayload(name): RawPayload) {
    println!("hello {}", String::from_utf8_lossy(&name));
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    let receipt = client.enqueue(TaskRequest::raw("greet", "world")).await?;
    println!("{receipt}");

    // A real worker calls run() without exit_when_empty() and ends with SIGTERM.
    Worker::new(&client).handle_type("greet", greet).exit_when_empty().run().await?;
    Ok(())
}
