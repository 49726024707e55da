//! Signals: SIGTERM and SIGINT shut down, SIGTSTP makes quiet, as with asynq.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTSTP has no name in tokio; the number is the same on Linux and the BSDs' relatives that matter.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SIGTSTP: i32 = 20;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SIGTSTP: i32 = 18;

/// Waits for SIGTERM or SIGINT.
///
/// ```no_run
/// # async fn f(worker: outlast::Worker) -> outlast::Result<()> {
/// worker.run_until(outlast::shutdown_signal()).await?;
/// # Ok(()) }
/// ```
pub async fn shutdown_signal() {
    shutdown_or_quiet(|| {}).await;
}

/// Waits for SIGTERM or SIGINT, and calls `quiet` at each SIGTSTP.
pub(crate) async fn shutdown_or_quiet(mut quiet: impl FnMut()) {
    let mut terminate = listen(SignalKind::terminate());
    let mut interrupt = listen(SignalKind::interrupt());
    let mut stop = listen(SignalKind::from_raw(SIGTSTP));
    loop {
        tokio::select! {
            () = next(&mut terminate) => return,
            () = next(&mut interrupt) => return,
            () = next(&mut stop) => quiet(),
        }
    }
}

fn listen(kind: SignalKind) -> Option<Signal> {
    let listening = signal(kind);
    listening
        .inspect_err(|error| tracing::error!(%error, ?kind, "could not listen for a signal"))
        .ok()
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            if signal.recv().await.is_none() {
                std::future::pending::<()>().await;
            }
        }
        None => std::future::pending().await,
    }
}
