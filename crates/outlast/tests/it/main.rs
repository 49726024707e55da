//! The library as its users meet it, on the embedded broker in memory.

#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]

mod cancel;
mod client;
mod clocks;
mod compile;
mod faults;
mod groups;
mod migration;
mod outcomes;
mod schedule;
mod shutdown;
mod survive;
mod worker;

use std::future::Future;
use std::time::Duration;

/// Waits as a bound on failure, never as a way to pass.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(20), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within 20 s"),
    }
}

/// Does nothing for a while, as a handler that works would.
pub(crate) async fn work_for(duration: Duration) {
    let _ = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}
