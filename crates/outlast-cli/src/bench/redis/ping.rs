//! The yardsticks: how fast the server and the machine exchange the smallest command.

use redis::Client;

use super::Outcome;
use crate::bench::Stopwatch;

/// The yardsticks, each with its number of connections; asynq's program measures the same two.
pub(super) const KINDS: [(&str, usize); 2] = [("yardstick.ping1", 1), ("yardstick.ping16", 16)];

/// PINGs a second over so many connections, each with one at a time.
pub(super) async fn rate(client: &Client, connections: usize, seconds: f64) -> Outcome<f64> {
    let mut ready = Vec::new();
    for _ in 0..connections {
        ready.push(client.get_multiplexed_async_connection().await?);
    }
    let begin = Stopwatch::start();
    let mut callers = tokio::task::JoinSet::new();
    for mut connection in ready {
        callers.spawn(async move {
            let (ping, mut count) = (redis::cmd("PING"), 0_u64);
            while begin.seconds() < seconds {
                let () = ping.query_async(&mut connection).await?;
                count += 1;
            }
            Ok::<_, redis::RedisError>(count)
        });
    }
    let mut sum = 0;
    for count in callers.join_all().await {
        sum += count?;
    }
    Ok(sum as f64 / begin.seconds())
}
