//! What a worker costs that has nothing to do.

use std::path::Path;
use std::time::Duration;

use outlast::Worker;

use super::{Figure, Size, Stopwatch, fresh};

/// Time for the start to be over: opening, first beat, first claims.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) async fn run(
    folder: &Path,
    size: Size,
    each: &mut impl FnMut(&Figure),
) -> Result<(), Box<dyn std::error::Error>> {
    let (_, connection) = fresh(folder, "idle").await?;
    let mut worker = Worker::new(&connection.client()).handle_type("t", async || {});
    for queue in ["critical", "default", "low"] {
        worker = worker.queue(queue, 1);
    }
    let control = worker.control();
    let running = tokio::spawn(worker.run_until(std::future::pending()));
    tokio::time::sleep(SETTLE).await;
    let (begin, before) = (Stopwatch::start(), cpu_time());
    tokio::time::sleep(size.idle).await;
    let share = (cpu_time() - before).as_secs_f64() / begin.seconds();
    control.stop();
    running.await??;
    connection.close().await;
    each(&Figure::new("idle.cpu", share * 100.0, "% of a core"));
    Ok(())
}

/// The processor time of this process so far, user and system.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}
