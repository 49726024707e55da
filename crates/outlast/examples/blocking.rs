//! Handlers that block their thread run on the blocking pool, beside async ones.
//!
//! `cargo run -p outlast --example blocking`

use outlast::{Client, Failure, Run, TaskRequest, Worker, blocking};

/// The number of primes below a limit, the slow way.
fn count_primes(run: &Run) -> Result<String, Failure> {
    let limit: u64 = std::str::from_utf8(&run.task().payload)?.trim().parse()?;
    let is_prime = |n: u64| (2..n).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    let mut count = 0;
    for n in 2..limit {
        // Nobody can stop this thread, so it looks now and then whether the answer is still wanted.
        if n % 1000 == 0 && run.cancel_reason().is_some() {
            return Err(Failure::retry("cancelled"));
        }
        count += u64::from(is_prime(n));
    }
    Ok(count.to_string())
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    for limit in [10, 1_000, 100_000] {
        client.enqueue(TaskRequest::raw("primes", limit.to_string())).await?;
    }
    let worker = Worker::new(&client)
        .slots(4)
        .handle_type("primes", blocking(|run: Run| count_primes(&run)));
    println!("{} counted", worker.exit_when_empty().run().await?.succeeded);
    Ok(())
}
