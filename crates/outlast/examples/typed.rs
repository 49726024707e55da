//! Typed tasks: the compiler knows the payload, its queue and its options; handlers share state.
//!
//! `cargo run -p outlast --example typed`

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outlast::{Attempt, Client, Failure, Payload, State, Task, TaskRequest, Worker};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Welcome {
    user: u64,
}

impl Task for Welcome {
    const TYPE: &'static str = "email:welcome";
    const QUEUE: &'static str = "mail";

    fn options(request: TaskRequest) -> TaskRequest {
        request.max_retry(5).timeout(Duration::from_secs(30))
    }
}

/// What all handlers share.
#[derive(Default)]
struct Smtp {
    sent: AtomicU64,
}

async fn welcome(
    Payload(mail): Payload<Welcome>,
    State(smtp): State<Smtp>,
    Attempt(attempt): Attempt,
) -> Result<String, Failure> {
    if mail.user == 0 {
        return Err(Failure::archive("user 0 has no address"));
    }
    let sent = smtp.sent.fetch_add(1, Ordering::Relaxed) + 1;
    Ok(format!("mail {sent} to user {} at attempt {attempt}", mail.user))
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    for user in 0..3 {
        println!("{}", client.enqueue(Welcome { user }).await?);
    }
    let worker = Worker::new(&client).queue("mail", 1).state(Smtp::default()).handle(welcome);
    let summary = worker.exit_when_empty().run().await?;
    println!("{} sent, {} failed", summary.succeeded, summary.failed);
    Ok(())
}
