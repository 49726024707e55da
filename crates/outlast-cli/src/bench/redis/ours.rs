//! Our side: `Client` and `Worker` in this process, as users have them.

use outlast::{Client, Connection, Timestamp, Worker};

use super::Outcome;
use super::site::Site;
use crate::bench::load::{self, Done, Others, Until};
use crate::bench::pickup::{self, Idle, Times};

/// What our side is measured with. Every measurement has a client of its own, with sessions of its own.
pub(super) struct Ours {
    url: String,
    pub(super) connection: Connection,
    pub(super) site: Site,
}

impl Ours {
    /// Opens the broker and warms its connections: making them is not what is measured.
    pub(super) async fn open(url: String, mut site: Site) -> Outcome<Self> {
        let connection = Connection::without_spool(&url).await?;
        load::fill(&connection.client(), &site.queue, 1).await?;
        site.empty().await?;
        Ok(Self { url, connection, site })
    }

    fn client(&self) -> Client {
        self.connection.client()
    }

    pub(super) async fn enqueue(&self, callers: usize, count: usize) -> Outcome<Done> {
        let until = Until::Tasks(count);
        load::enqueue(&self.client(), &self.site.queue, callers, until).await
    }

    pub(super) async fn fill(&self, count: usize) -> Outcome<Done> {
        Ok(load::fill(&self.client(), &self.site.queue, count).await?)
    }

    pub(super) async fn drain(&self, count: usize, others: Others) -> Outcome<Done> {
        load::drain(&self.client(), &self.site.queue, count, others).await
    }

    pub(super) async fn pickup(&self, samples: usize) -> Outcome<Times> {
        pickup::measure(&self.url, &self.client(), &self.site.queue, samples).await
    }

    /// The p99 of how late scheduled tasks start, in milliseconds. As asynq's records do, ours keep whole seconds.
    pub(super) async fn lateness(&self, seconds: usize, of_each: usize) -> Outcome<f64> {
        let (client, queue) = (self.client(), &self.site.queue);
        let mut idle = Idle::start(&client, queue);
        let first = self.connection.clock().now().as_seconds() + 2;
        let mut tasks = Vec::new();
        for second in (first..).take(seconds) {
            let micros = u64::try_from(second)? * 1_000_000;
            let due = Timestamp::from_seconds(second);
            let task = || pickup::meant_for(queue, micros).at(due);
            tasks.extend(std::iter::repeat_with(task).take(of_each));
        }
        let mut late = Vec::with_capacity(tasks.len());
        client.enqueue_all(tasks).await?;
        for _ in 0..seconds * of_each {
            late.push(idle.next().await?);
        }
        idle.stop().await?;
        late.sort_unstable();
        Ok(pickup::millis(&late, 99))
    }

    /// A worker that has nothing to do, on queues that are empty, while `watch` looks.
    pub(super) async fn idle<T>(
        &self,
        queues: &[String],
        watch: impl Future<Output = Outcome<T>>,
    ) -> Outcome<T> {
        let client = self.client();
        let worker = Worker::new(&client).handle_type("t", async || {});
        let worker = queues.iter().fold(worker, |worker, queue| worker.queue(queue, 1));
        let control = worker.control();
        let running = tokio::spawn(worker.run_until(std::future::pending()));
        let seen = watch.await;
        control.stop();
        running.await??;
        seen
    }
}
