//! A server that has no room or no rights to give: for new tasks, for one queue, for one more client. What can go on goes on, and
//! nobody hammers.

use std::time::Duration;

use outlast::survive::{CircuitState, HomeStatus, Survive, Watermark};
use outlast::{Client, Connection, QueueName, Receipt, Schedule, TaskRequest, Verdict, Worker};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;
use tokio::time::Instant;

use crate::world::{World, every};

/// How long is counted what a sick server gets (law L9).
const LAW: Duration = Duration::from_secs(10);

/// Longer than anything here takes, on the busiest of build machines.
const AT_LAST: Duration = Duration::from_secs(60);

fn home(world: &World) -> HomeStatus {
    world.status().homes.remove(0)
}

async fn enqueue(client: &Client, queue: &str) -> Receipt {
    client.enqueue(TaskRequest::raw("count", "").queue(queue)).await.unwrap()
}

/// What passes through a door in ten seconds, connections included, while whatever runs goes on.
async fn sent(world: &World, proxy: &TcpProxy) -> u64 {
    let before = proxy.counts();
    world.pass(LAW).await;
    let after = proxy.counts();
    let log = proxy.log();
    let count = after.requests - before.requests;
    let last = log.len() - usize::try_from(count).unwrap().min(log.len());
    println!(
        "{count} commands, {} connections: {:?}",
        after.connections - before.connections,
        &log[last..]
    );
    count + after.connections - before.connections
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_memory_fills_up_the_least_important_queue_waits_and_the_most_important_does_not() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().start()) else { return };
    let weights = [("critical", 6), ("reports", 1)];
    let weights = weights.map(|(name, weight)| (QueueName::stored(name), weight));
    let folder = tempfile::tempdir().unwrap();
    let survive = Survive::new(folder.path().join("outbox.db")).watermark(Watermark::new(weights));
    let connection = Connection::surviving(&server.url(), survive).await.unwrap();
    let (client, status) =
        (connection.client(), || connection.survivor().unwrap().status().unwrap());
    assert!(matches!(enqueue(&client, "reports").await.verdict, Verdict::Accepted { .. }));
    let info = server.command(&["INFO", "memory"]).unwrap().text().unwrap();
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let most = used.trim().parse::<u64>().unwrap() * 100 / 88;
    server.command(&["CONFIG", "SET", "maxmemory", &most.to_string()]).unwrap();
    let mut look = every(Duration::from_millis(50));
    let begun = Instant::now();
    while status().homes[0].memory.used_percent.is_none_or(|used| used < 80) {
        look.tick().await;
        enqueue(&client, "critical").await;
        assert!(begun.elapsed() < AT_LAST, "{:?}", status());
    }
    assert_eq!(enqueue(&client, "reports").await.verdict, Verdict::Stored);
    assert!(matches!(enqueue(&client, "critical").await.verdict, Verdict::Accepted { .. }));
    assert_eq!(status().homes[0].outage, None, "the server is well");
    server.command(&["CONFIG", "SET", "maxmemory", "0"]).unwrap();
    while status().outbox.items > 0 {
        look.tick().await;
        assert!(begun.elapsed() < AT_LAST, "{:?}", status());
    }
    assert_eq!(server.command(&["LLEN", "asynq:{reports}:pending"]).unwrap().int(), Some(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_a_queue_whose_keys_may_not_be_touched_leaves_the_others_in_service() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let secret = ["%R~asynq:{secret}:*", "%W~asynq:{secret}:*"];
    let most = ["ACL", "SETUSER", "u", "reset", "on", ">pw", "&*", "+@all"];
    let without =
        [&most[..], &["~asynq:{open}:*", "~asynq:{default}:*", "~asynq:outlast:*"]].concat();
    let without = [&without[..], &["~asynq:queues", "~asynq:servers*", "~asynq:workers*"]].concat();
    world.server.command(&without).unwrap();
    let url = proxy.url().replace("://", "://u:pw@");
    let world = World::at(world.server, &url).await;
    let client = world.connection.client();
    let worker =
        Worker::new(&client).queue("secret", 1).queue("open", 1).handle_type("count", || async {});
    let control = worker.control();
    let working = tokio::spawn(worker.run());
    let mut pace = every(Duration::from_millis(100));
    for _ in 0..60 {
        pace.tick().await;
        assert_eq!(enqueue(&client, "secret").await.verdict, Verdict::Stored);
        let open = enqueue(&client, "open").await.verdict;
        assert!(matches!(open, Verdict::Accepted { .. }), "{open:?}: {:?}", home(&world));
    }
    let status = home(&world);
    assert_eq!((status.produce, status.consume), (CircuitState::Closed, CircuitState::Closed));
    assert_eq!((status.outage, status.refused.len()), (None, 1));
    let is_drained = |world: &World| {
        world.server.command(&["LLEN", "asynq:{open}:pending"]).unwrap().int() == Some(0)
    };
    let took = world.until("the open queue is worked off", is_drained).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    world.server.command(&[&["ACL", "SETUSER", "u"], &secret[..]].concat()).unwrap();
    let took = world.until("it is delivered", |world| world.status().outbox.items == 0).await;
    assert!(took < Duration::from_secs(8), "{took:?}");
    control.stop();
    working.await.unwrap().unwrap();
}

/// Every connection asked again who the server is and what its user may do: seven commands, and two for its own name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_made_anew_costs_one_command() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let client = world.connection.client();
    enqueue(&client, "default").await;
    proxy.until(|counts| counts.replies == counts.requests).await;
    let before = proxy.log().len();
    proxy.close_connections();
    proxy.until(|counts| counts.open == 0).await;
    let mut pace = every(Duration::from_millis(20));
    while proxy.seen("EVALSHA") < 2 {
        pace.tick().await;
        enqueue(&client, "default").await;
    }
    let log = proxy.log();
    assert_eq!(log[before..][..2], ["HELLO", "EVALSHA"], "{:?}", &log[before..]);
}

/// The server accepts a connection, says that there are too many, and closes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_server_that_has_no_connection_left_is_left_in_peace() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    assert!(proxy.counts().open <= 6, "{:?}", proxy.counts());
    // This one stays.
    let mut own = world.server.connect().unwrap();
    own.command(&["CONFIG", "SET", "maxclients", "1"]).unwrap();
    proxy.close_connections();
    let is_down = |world: &World| {
        let home = home(world);
        ![home.produce, home.consume].contains(&CircuitState::Closed)
    };
    world.until("both classes are down", is_down).await;
    let sent = sent(&world, &proxy).await;
    assert!(sent <= 2 * 2 * LAW.as_secs(), "{sent}");
    own.command(&["CONFIG", "SET", "maxclients", "10000"]).unwrap();
    let produced = producer.stop().await;
    world.check().await;
    assert!(produced.stored > 0 && produced.refused == 0, "{produced:?}");
    worker.stop().await;
}

/// Nobody asks for anything but what runs by itself: a worker that waits on twenty queues, schedules, and a dashboard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sick_server_is_left_in_peace_by_idle_workers_schedules_and_dashboards() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let client = world.connection.client();
    let mut worker = Worker::new(&client).handle_type("count", || async {});
    for n in 0..20 {
        worker = worker.queue(&format!("q{n}"), 1);
    }
    let tick = TaskRequest::raw("count", "").queue("q1");
    let worker = worker.schedule(Schedule::new("beat", "@every 1s", tick).unwrap());
    let control = worker.control();
    let working = tokio::spawn(worker.run());
    let inspector = world.connection.inspector();
    let dashboard = tokio::spawn(async move {
        let mut pace = every(Duration::from_millis(200));
        loop {
            pace.tick().await;
            let _ = inspector.queues().await;
            let _ = inspector.workers().await;
        }
    });
    world.until("it has begun", |world| world.status().homes.len() == 1).await;
    world.pass(Duration::from_secs(2)).await;
    world.server.command(&["CONFIG", "SET", "requirepass", "x"]).unwrap();
    proxy.close_connections();
    let is_down = |world: &World| {
        let home = home(world);
        ![home.produce, home.consume].contains(&CircuitState::Closed)
    };
    world.until("it is down", is_down).await;
    let sent = sent(&world, &proxy).await;
    assert!(sent <= 2 * LAW.as_secs(), "{sent}");
    dashboard.abort();
    control.stop();
    working.await.unwrap().unwrap();
}
