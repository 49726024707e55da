//! The bench's own place on the server: a root and a queue that nobody else has, looked at and emptied without the help
//! of either library, so that what they say of themselves can be checked.
//!
//! Ours lives below a root of its own, asynq's below `asynq:`, because it knows no other. The names are such that the
//! keys of both are equally long: memory and time are compared to the byte.

use outlast::QueueName;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use super::Outcome;
use crate::bench::number;

/// Keys or tasks looked at in one round trip.
const STEP: usize = 1000;

/// How long the server may take to answer one step, on a machine that is kept busy on purpose.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

/// How a numbered payload begins, wherever it is in a message.
const PAYLOAD_BEGIN: &[u8] = b"{\"n\":";

/// Where one side keeps its tasks.
#[derive(Clone)]
pub(in crate::bench) struct Site {
    connection: MultiplexedConnection,
    /// `asynq`, or a root of our own.
    pub(in crate::bench) root: String,
    pub(in crate::bench) queue: QueueName,
    is_asynqs: bool,
}

/// Both sites, with names that nobody uses.
pub(super) async fn both(client: &Client) -> Outcome<(Site, Site)> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
    let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    loop {
        let tag = uuid::Uuid::new_v4().simple().to_string();
        let (root, queue) = (format!("b{}", &tag[..4]), format!("outlast-bench-{}", &tag[4..12]));
        let queue = QueueName::new(&queue)?;
        let ours = Site { connection: connection.clone(), root, queue, is_asynqs: false };
        let asynqs = Site { root: "asynq".to_owned(), is_asynqs: true, ..ours.clone() };
        // Four digits are few: a root that somebody uses is left to them.
        let mut find = redis::cmd("EXISTS");
        find.arg(format!("{}:queues", ours.root)).arg(format!("{}:servers", ours.root));
        if find.query_async::<u64>(&mut connection).await? == 0 {
            return Ok((ours, asynqs));
        }
    }
}

impl Site {
    fn key(&self, name: &str) -> String {
        format!("{}:{{{}}}:{name}", self.root, self.queue)
    }

    /// True if exactly the tasks number 0 to `count` are pending, each once, each with its record.
    pub(in crate::bench) async fn holds(&mut self, count: usize) -> Outcome<bool> {
        let mut seen = vec![false; count];
        let mut all = 0;
        loop {
            let ids = self.pending(all).await?;
            if ids.is_empty() {
                return Ok(all == count && seen.iter().all(|seen| *seen));
            }
            let mut read = redis::pipe();
            for id in &ids {
                read.cmd("HMGET").arg(self.key(&format!("t:{id}"))).arg("msg").arg("state");
            }
            let records: Vec<(Option<Vec<u8>>, Option<String>)> =
                read.query_async(&mut self.connection).await?;
            for (message, state) in records {
                let n = message.as_deref().and_then(number_in);
                let slot = n.and_then(|n| seen.get_mut(n)).filter(|seen| !**seen);
                let Some(slot) = slot.filter(|_| state.as_deref() == Some("pending")) else {
                    return Ok(false);
                };
                *slot = true;
            }
            all += ids.len();
        }
    }

    async fn pending(&mut self, from: usize) -> Outcome<Vec<String>> {
        let mut range = redis::cmd("LRANGE");
        range.arg(self.key("pending")).arg(from).arg(from + STEP - 1);
        Ok(range.query_async(&mut self.connection).await?)
    }

    /// Makes `count` of the pending tasks active, under leases that hold for an hour: a fleet that is busy with others.
    pub(super) async fn activate(&mut self, count: usize, now_seconds: i64) -> Outcome<()> {
        for first in (0..count).step_by(STEP) {
            let step = STEP.min(count - first);
            let mut take = redis::pipe();
            for _ in 0..step {
                take.cmd("RPOPLPUSH").arg(self.key("pending")).arg(self.key("active"));
            }
            let ids: Vec<String> = take.query_async(&mut self.connection).await?;
            let mut lease = redis::pipe();
            for id in ids {
                let record = self.key(&format!("t:{id}"));
                lease.cmd("HSET").arg(&record).arg("state").arg("active").ignore();
                lease.cmd("HDEL").arg(&record).arg("pending_since").ignore();
                let until = now_seconds + 3600;
                lease.cmd("ZADD").arg(self.key("lease")).arg(until).arg(id).ignore();
            }
            let () = lease.query_async(&mut self.connection).await?;
        }
        Ok(())
    }

    /// How many tasks have a record, and how many are pending, active and leased.
    pub(super) async fn counts(&mut self) -> Outcome<(usize, [usize; 3])> {
        let records = self.keys("t:*").await?.len();
        let mut count = redis::pipe();
        count.cmd("LLEN").arg(self.key("pending"));
        count.cmd("LLEN").arg(self.key("active"));
        count.cmd("ZCARD").arg(self.key("lease"));
        let in_places: [usize; 3] = count.query_async(&mut self.connection).await?;
        Ok((records, in_places))
    }

    /// True if no task is left, wherever; with `active` others, if those are just as they were.
    pub(super) async fn is_drained(&mut self, active: usize) -> Outcome<bool> {
        Ok(self.counts().await? == (active, [0, active, active]))
    }

    /// Removes the pending tasks, without a look at all keys of the server.
    pub(in crate::bench) async fn empty(&mut self) -> Outcome<()> {
        loop {
            let ids = self.pending(0).await?;
            if ids.is_empty() {
                return Ok(());
            }
            let records: Vec<String> = ids.iter().map(|id| self.key(&format!("t:{id}"))).collect();
            let mut remove = redis::pipe();
            remove.cmd("UNLINK").arg(records).ignore();
            remove.cmd("LTRIM").arg(self.key("pending")).arg(ids.len()).arg(-1).ignore();
            let () = remove.query_async(&mut self.connection).await?;
        }
    }

    /// How many tasks are pending.
    pub(super) async fn waiting(&mut self) -> Outcome<usize> {
        let mut count = redis::cmd("LLEN");
        Ok(count.arg(self.key("pending")).query_async(&mut self.connection).await?)
    }

    /// Removes all that the site holds.
    pub(in crate::bench) async fn clear(&mut self) -> Outcome<()> {
        let all = self.keys("*").await?;
        for step in all.chunks(STEP) {
            let mut remove = redis::cmd("UNLINK");
            remove.arg(step);
            let () = remove.query_async(&mut self.connection).await?;
        }
        if self.is_asynqs {
            let mut leave = redis::cmd("SREM");
            leave.arg("asynq:queues").arg(self.queue.as_str());
            let () = leave.query_async(&mut self.connection).await?;
        }
        Ok(())
    }

    /// The keys of the site that match: all below a root of our own, those of the one queue below asynq's.
    async fn keys(&mut self, pattern: &str) -> Outcome<Vec<String>> {
        let pattern = match (self.is_asynqs, pattern) {
            (false, "*") => format!("{}:*", self.root),
            _ => self.key(pattern),
        };
        let (mut found, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
            let (next, keys): (u64, Vec<String>) = scan.query_async(&mut self.connection).await?;
            found.extend(keys);
            cursor = next;
            if cursor == 0 {
                // SCAN may say a key twice.
                found.sort_unstable();
                found.dedup();
                return Ok(found);
            }
        }
    }
}

/// The number of the task whose message this is.
fn number_in(message: &[u8]) -> Option<usize> {
    let at = message.windows(PAYLOAD_BEGIN.len()).position(|window| window == PAYLOAD_BEGIN)?;
    number(&message[at..])
}

#[cfg(test)]
mod tests {
    use outlast::{Connection, TaskRequest};
    use outlast_testkit::server::RedisServer;

    use super::*;
    use crate::bench::{load, payload};

    /// Sites on a server of their own, ours holding three tasks.
    async fn filled(server: &RedisServer) -> (Site, Site, outlast::Client) {
        let client = Client::open(server.url()).expect("a URL");
        let (ours, asynqs) = both(&client).await.expect("the server answers");
        let url = format!("{}?namespace={}", server.url(), ours.root);
        let client = Connection::without_spool(&url).await.expect("the server answers").client();
        load::fill(&client, &ours.queue, 3).await.expect("stored");
        (ours, asynqs, client)
    }

    #[tokio::test]
    async fn tasks_that_are_missing_doubled_or_without_their_record_are_noticed() {
        let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
        let (mut site, _, client) = filled(&server).await;
        assert!(site.holds(3).await.expect("the server answers"));
        for wrong in [2, 4] {
            assert!(!site.holds(wrong).await.expect("the server answers"), "{wrong}");
        }
        let again = TaskRequest::raw("bench", payload(1)).queue(site.queue.as_str());
        client.enqueue(again).await.expect("stored");
        assert!(!site.holds(4).await.expect("the server answers"), "number 1 is there twice");
        site.empty().await.expect("the server answers");
        load::fill(&client, &site.queue, 1).await.expect("stored");
        let id = site.pending(0).await.expect("the server answers").remove(0);
        server.command(&["DEL", &site.key(&format!("t:{id}"))]).expect("the server answers");
        assert!(!site.holds(1).await.expect("the server answers"), "its record is gone");
    }

    #[tokio::test]
    async fn a_task_that_is_left_anywhere_is_no_drained_queue() {
        let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
        let (mut site, ..) = filled(&server).await;
        assert!(!site.is_drained(0).await.expect("the server answers"));
        site.activate(3, 2_000_000_000).await.expect("the server answers");
        assert!(!site.is_drained(0).await.expect("the server answers"));
        assert!(site.is_drained(3).await.expect("the server answers"));
        for list in ["active", "lease"] {
            server.command(&["DEL", &site.key(list)]).expect("the server answers");
        }
        assert!(!site.is_drained(0).await.expect("the server answers"), "records are left");
    }

    #[tokio::test]
    async fn clearing_a_site_takes_nothing_that_is_not_its_own() {
        let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
        let (mut ours, mut asynqs, _) = filled(&server).await;
        let near = [format!("{}x:y", ours.root), format!("asynq:{{{}x}}:pending", ours.queue)];
        for key in &near {
            server.command(&["SET", key, "1"]).expect("the server answers");
        }
        ours.clear().await.expect("the server answers");
        asynqs.clear().await.expect("the server answers");
        let left = server.command(&["EXISTS", &near[0], &near[1]]).expect("the server answers");
        let all = server.command(&["DBSIZE"]).expect("the server answers");
        assert_eq!((left.int(), all.int()), (Some(2), Some(2)));
    }
}
