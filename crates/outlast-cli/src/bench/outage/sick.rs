//! While the broker is sick: the commands it is sent by a process that has much to do, and how soon after its return the
//! first task is taken.

use std::time::Duration;

use outlast::{Client, OnOutage, QueueName, Verdict, Worker};

use super::{Bench, PRODUCERS};
use crate::bench::load::request;
use crate::bench::redis::median;
use crate::bench::{Figure, Outcome, Stopwatch};

/// From here on every breaker has seen enough failures: calls that were under way do not count as sent to a sick broker.
const NOTICED_AFTER: Duration = Duration::from_secs(1);

/// How often a producer has a new task: often enough to hit a server that is not left in peace thousands of times a second.
const PRODUCE_EVERY: Duration = Duration::from_millis(10);

/// How often somebody who fails tries again, once the broker is back.
const TRY_EVERY: Duration = Duration::from_millis(1);

/// How long the first success may take before it is given up.
const SUCCESS_MAX: Duration = Duration::from_secs(60);

impl Bench {
    pub(super) async fn sick(&mut self, each: &mut impl FnMut(Figure)) -> Outcome<()> {
        self.door.open();
        let connection = self.surviving(&self.door_url, "sick").await?;
        let (client, queue) = (connection.client(), self.site.queue.clone());
        first_success(&client, &queue).await?;
        let worker =
            Worker::new(&client).queue(queue.as_str(), 1).handle_type("bench", async || {});
        let control = worker.control();
        let working = tokio::spawn(worker.run_until(std::future::pending()));
        let mut producing = tokio::task::JoinSet::new();
        for _ in 0..PRODUCERS {
            producing.spawn(produce(client.clone(), queue.clone()));
        }
        let (mut commands, mut successes) = (Vec::new(), Vec::new());
        for _ in 0..self.plan.outages {
            self.door.shut();
            tokio::time::sleep(NOTICED_AFTER).await;
            let (before, begin) = (self.door.sent(), Stopwatch::start());
            tokio::time::sleep(self.plan.sick).await;
            let sent = self.door.sent().since(before);
            commands.push(sent.commands as f64 / begin.seconds());
            self.door.open();
            successes.push(first_success(&client, &queue).await?);
        }
        producing.abort_all();
        control.stop();
        working.await??;
        connection.close().await;
        let mut longest = Figure::new(
            "recovery.first_success",
            successes.into_iter().fold(0.0, f64::max),
            "s at most",
        );
        longest.rounds = Some(self.plan.outages);
        each(longest);
        let unit = "commands/s, 64 producers and a worker";
        let mut sent = Figure::new("sick.commands", median(commands), unit);
        sent.rounds = Some(self.plan.outages);
        each(sent);
        Ok(())
    }
}

/// Enqueues for ever.
async fn produce(client: Client, queue: QueueName) -> outlast::Result<()> {
    loop {
        client.enqueue(request(&queue, 0)).await?;
        tokio::time::sleep(PRODUCE_EVERY).await;
    }
}

/// Seconds until the broker itself takes a task.
async fn first_success(client: &Client, queue: &QueueName) -> Outcome<f64> {
    let (client, begin) = (client.clone().on_outage(OnOutage::Fail), Stopwatch::start());
    loop {
        let taken = client.enqueue(request(queue, 0)).await;
        match taken {
            Ok(receipt) if matches!(receipt.verdict, Verdict::Accepted { .. }) => {
                return Ok(begin.seconds());
            }
            Ok(receipt) => return Err(format!("a task was not accepted: {receipt}").into()),
            Err(error) if begin.seconds() > SUCCESS_MAX.as_secs_f64() => return Err(error.into()),
            Err(_) => tokio::time::sleep(TRY_EVERY).await,
        }
    }
}
