//! Handlers that block their thread run on the blocking pool, beside async ones.
//!
//! `cargo run -p outlast --example blocking`

use outlast::{Client, Run, TaskRequest, Worker, blocking};

/// The number of primes below a limit, the slow way.
fn count_primes(run: Run) -> Result<String, outlast::Failure> {
    let limit: u64 = std::str::from_utf8(&run.task().payload)?.trim().parse()?;
    let is_prime = |n: &u64| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0);
    // Long loops look now and then whether anybody still wants the answer.
    if run.cancel_reason().is_some() {
        return Err(outlast::Failure::retry("cancelled"));
    }
    Ok((2..limit).filter(is_prime).count().to_string())
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    for limit in [10, 1_000, 100_000] {
        client.enqueue(TaskRequest::raw("primes", limit.to_string())).await?;
    }
    let worker = Worker::new(&client).slots(4).handle_type("primes", blocking(count_primes));
    println!("{} counted", worker.exit_when_empty().run().await?.succeeded);
    Ok(())
}
