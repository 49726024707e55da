//! Connections that end, stall or lead elsewhere.

use std::time::Duration;

use outlast_testkit::proxy::{Direction, TcpProxy};
use outlast_testkit::server::RedisServer;

use crate::story::{Meter, OUTAGE, Sick, Story};
use crate::table;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f01_a_server_that_is_killed_and_restarted() {
    let Some(world) = World::new().await else { return };
    let mut story = Story::of(world, Meter::None).await;
    story.world.server.kill9();
    story.lasts(Sick::Down, OUTAGE).await;
    story.world.server.restart().unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f02_a_server_that_is_restarted_again_and_again() {
    let Some(world) = World::new().await else { return };
    let mut story = Story::of(world, Meter::None).await;
    for _ in 0..3 {
        story.world.server.restart().unwrap();
        story.lasts(Sick::Hardly, Duration::from_secs(1)).await;
    }
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_network_that_swallows_everything() {
    let Some(mut story) = Story::begin().await else { return };
    story.proxy().black_hole();
    story.lasts(Sick::Silent, OUTAGE).await;
    story.proxy().heal().await.unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_connections_that_an_operator_kills_one_after_the_other() {
    let Some(mut story) = Story::begin().await else { return };
    for _ in 0..10 {
        story.world.server.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
        story.lasts(Sick::Hardly, Duration::from_millis(300)).await;
    }
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_a_balancer_that_resets_connections() {
    let Some(mut story) = Story::begin().await else { return };
    for _ in 0..10 {
        story.proxy().reset_connections();
        story.lasts(Sick::Hardly, Duration::from_millis(300)).await;
    }
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_a_server_that_closes_what_is_idle_for_a_second() {
    let Some(mut story) = Story::begin().await else { return };
    story.world.server.command(&["CONFIG", "SET", "timeout", "1"]).unwrap();
    story.lasts(Sick::Hardly, OUTAGE).await;
    story.ends().await;
}

/// A slow line is no outage: answers that take longer than a producer waits are stored, and everything goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f08_a_line_that_is_slower_than_producers_wait() {
    let Some(mut story) = Story::begin().await else { return };
    story.proxy().delay(Direction::ToClient, Duration::from_millis(300));
    story.lasts(Sick::Hardly, OUTAGE).await;
    story.proxy().heal().await.unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f08_answers_that_take_two_seconds() {
    let Some(mut story) = Story::begin().await else { return };
    story.proxy().delay(Direction::ToClient, Duration::from_secs(2));
    story.lasts(Sick::Hardly, OUTAGE).await;
    story.proxy().heal().await.unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_replies_that_end_in_their_middle() {
    let Some(mut story) = Story::begin().await else { return };
    for bytes in [1, 7, 40, 150, 333, 1000, 2500, 5000] {
        story.proxy().cut_after(Direction::ToClient, bytes);
        story.lasts(Sick::Hardly, Duration::from_millis(300)).await;
    }
    story.proxy().heal().await.unwrap();
    story.ends().await;
}

/// What a failover behind a name looks like: the old server lives, refuses writes, and keeps its connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f12_a_name_that_leads_to_another_server_while_the_old_one_goes_on() {
    let Some(mut story) = Story::begin().await else { return };
    let old = &story.world.server;
    let builder = RedisServer::builder().persistent().replica_of(old);
    let new = builder.start().unwrap();
    story.world.until("the replica is there", |_| offset(&new).is_some()).await;
    old.command(&["CLIENT", "PAUSE", "5000", "WRITE"]).unwrap();
    story.world.until("it has everything", |world| offset(&new) == offset(&world.server)).await;
    new.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
    story.proxy().lead_to(new.addr());
    let [host, port] = ["127.0.0.1", &new.port().to_string()];
    old.command(&["REPLICAOF", host, port]).unwrap();
    old.command(&["CLIENT", "UNPAUSE"]).unwrap();
    story.lasts(Sick::Hardly, OUTAGE).await;
    story.ends().await;
}

/// How much of the replication's stream it has seen, once its link is up.
fn offset(server: &RedisServer) -> Option<i64> {
    let page = server.command(&["INFO", "replication"]).unwrap().text().unwrap();
    let field = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(':').nth(1)).map(str::to_owned)
    };
    let is_linked = field("master_link_status:").is_none_or(|status| status == "up");
    let offset = field("slave_repl_offset:").or_else(|| field("master_repl_offset:"));
    offset.filter(|_| is_linked).map(|offset| offset.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f13_a_server_that_has_no_room_for_connections() {
    let Some(mut story) = Story::begin().await else { return };
    let mut operator = story.world.server.connect().unwrap();
    operator.command(&["CONFIG", "SET", "maxclients", "1"]).unwrap();
    operator.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    story.lasts(Sick::Down, OUTAGE).await;
    operator.command(&["CONFIG", "SET", "maxclients", "10000"]).unwrap();
    story.ends().await;
}

/// Every probe is a connection of its own here, and still the law holds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_server_that_does_not_know_its_user_any_more_is_left_in_peace() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let on = ["ACL", "SETUSER", "u", "on", ">pw", "~*", "&*", "+@all"];
    world.server.command(&on).unwrap();
    let url = proxy.url().replace("://", "://u:pw@");
    let world = World::at(world.server, &url).await;
    let mut story = Story::of(world, Meter::Proxy(proxy)).await;
    story.world.server.command(&["ACL", "DELUSER", "u"]).unwrap();
    story.lasts_in_peace().await;
    story.world.server.command(&on).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f14_a_password_that_nobody_has_told_us() {
    let Some(mut story) = Story::begin().await else { return };
    let mut operator = story.world.server.connect().unwrap();
    operator.command(&["CONFIG", "SET", "requirepass", "new"]).unwrap();
    operator.command(&["CLIENT", "KILL", "TYPE", "normal"]).unwrap();
    story.lasts(Sick::Down, OUTAGE).await;
    operator.command(&["CONFIG", "SET", "requirepass", ""]).unwrap();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f15_permissions_that_are_taken_away_and_given_back() {
    let Some(mut story) = Story::begin().await else { return };
    let set = |what: [&'static str; 2]| ["ACL", "SETUSER", "default", what[0], what[1]];
    story.world.server.command(&set(["-evalsha", "-eval"])).unwrap();
    story.lasts(Sick::Down, OUTAGE).await;
    story.world.server.command(&set(["+evalsha", "+eval"])).unwrap();
    story.ends().await;
}

/// Twelve processes lose their server at the same moment, and find it again at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f65_many_processes_that_find_their_server_again_do_not_stampede() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().persistent().start()) else {
        return;
    };
    let proxy = TcpProxy::start(server.addr()).await.unwrap();
    let mut stories = Vec::new();
    for _ in 0..PROCESSES {
        stories.push(Process::start(&proxy).await);
    }
    proxy.refuse().await.unwrap();
    proxy.close_connections();
    for process in &stories {
        process.stores().await;
    }
    let before = proxy.counts();
    proxy.heal().await.unwrap();
    for process in &stories {
        process.has_delivered().await;
    }
    let made = proxy.counts().connections - before.connections;
    assert!(made <= PROCESSES * CONNECTIONS_MAX, "{made} connections of {PROCESSES} processes");
    table::tell(&format!("{made} connections until all has been delivered"));
}

const PROCESSES: u64 = 12;
const CONNECTIONS_MAX: u64 = 6;

/// As good as a process: its connection and its spool are its own.
struct Process {
    connection: outlast::Connection,
    _folder: tempfile::TempDir,
}

impl Process {
    async fn start(proxy: &TcpProxy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let survive = outlast::survive::Survive::new(folder.path().join("outbox.db"));
        let connection = outlast::Connection::surviving(&proxy.url(), survive).await.unwrap();
        let receipt =
            connection.client().enqueue(outlast::TaskRequest::raw("t", "")).await.unwrap();
        assert!(receipt.is_accepted());
        Self { connection, _folder: folder }
    }

    async fn stores(&self) {
        for _ in 0..20 {
            let request = outlast::TaskRequest::raw("t", "");
            let receipt = self.connection.client().enqueue(request).await.unwrap();
            assert_eq!(receipt.verdict, outlast::Verdict::Stored);
        }
    }

    async fn has_delivered(&self) {
        let survivor = self.connection.survivor().unwrap();
        let mut look = crate::world::every(Duration::from_millis(5));
        let delivered = async {
            while survivor.status().unwrap().outbox.items > 0 {
                look.tick().await;
            }
        };
        crate::world::soon(delivered).await.expect("everything is delivered in time");
    }
}
