//! Periodic tasks: cron in a time zone, and what becomes of ticks that were missed. Two schedulers run
//! here, and every tick is enqueued once.
//!
//! `cargo run -p outlast --example cron`

use std::time::Duration;

use outlast::{Client, Missed, Schedule, Scheduler, TaskRequest, Worker};

fn every_second() -> outlast::Result<Schedule> {
    Schedule::new("heartbeat", "@every 1s", TaskRequest::raw("heartbeat", ""))
}

#[tokio::main]
async fn main() -> outlast::Result<()> {
    let client = Client::open("sqlite::memory:").await?;
    let nightly = Schedule::new("nightly", "30 2 * * MON-FRI", TaskRequest::raw("report", ""))?
        .timezone("Europe/Berlin")?
        .missed(Missed::Once);

    let second = Scheduler::new(client.connection());
    second.add(every_second()?)?;
    tokio::spawn(async move { second.run_until(std::future::pending()).await });

    let summary = Worker::new(&client)
        .schedule(every_second()?)
        .schedule(nightly)
        .handle_type("*", async |run: outlast::Run| println!("{}", run.task().id))
        .run_until(tokio::time::sleep(Duration::from_millis(2500)))
        .await?;
    println!("{} ticks ran", summary.succeeded);

    for (schedule, state) in client.inspector().schedules().await? {
        println!("{}: next {:?}, last {:?}", schedule.name, schedule.next_at, state.last_tick);
    }
    Ok(())
}
