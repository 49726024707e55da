//! What the processes do: enqueue tasks one after the other, and run them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlast::{Client, Failure, Run, TaskRequest, Worker};

use crate::history::History;
use crate::process::{Count, pass};

pub(crate) const QUEUES: [&str; 2] = ["low", "high"];

/// How long a task runs: most a moment, some through a whole outage. From its id, so that it is the same for all.
pub(crate) fn duration(id: &str) -> Duration {
    match hash(id) % 200 {
        0 => Duration::from_secs(45),
        1..=4 => Duration::from_secs(8),
        5..=99 => Duration::from_millis(300),
        _ => Duration::from_millis(20),
    }
}

/// Whether its first run fails.
fn fails_once(id: &str) -> bool {
    hash(id) % 17 == 5
}

fn hash(id: &str) -> u64 {
    id.bytes().fold(7, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3).rotate_left(17)
    })
}

/// Hands in one task after the other until it is told to stop.
pub(crate) async fn produce(
    client: Client,
    history: Arc<History>,
    name: String,
    (count, pause, stop): (Count, Duration, Arc<AtomicBool>),
) {
    while !stop.load(Ordering::Relaxed) {
        let n = count.next();
        let queue = QUEUES[usize::from(n % 3 == 0)];
        let id = format!("{name}-{n:05}");
        history.offered(&id, queue);
        let request = TaskRequest::raw("work", "").id(&id).queue(queue);
        match client.enqueue(request).await {
            Ok(receipt) => history.answered(&id, &name, &receipt),
            Err(error) => history.refused(&id, &error),
        }
        pass(pause).await;
    }
}

/// Runs tasks for as long as the process lives.
pub(crate) async fn work(client: Client, history: Arc<History>, name: String) {
    let mut worker = Worker::new(&client).slots(6).retry_with(|_, _, _| Duration::from_secs(2));
    for (weight, queue) in (1..).zip(QUEUES) {
        worker = worker.queue(queue, weight);
    }
    let (told, by) = (history.clone(), name.clone());
    let worker = worker.handle_type("work", move |run: Run| {
        let (history, by) = (told.clone(), by.clone());
        let (id, retried) = (run.task().id.to_string(), run.task().retried);
        async move {
            let run = history.began(&id, &by);
            pass(duration(&id)).await;
            let is_well = retried > 0 || !fails_once(&id);
            history.ended(&id, run, is_well);
            if is_well { Ok(()) } else { Err(Failure::retry("not yet")) }
        }
    });
    let ended = worker.run_until(std::future::pending()).await;
    history.note(format!("the worker of {name} ended: {ended:?}"));
}
