//! Faults of the network itself, made of packets that are dropped or refused.

use std::time::Duration;

use outlast_testkit::server::RedisServer;

use crate::namespace::{self, ADDRESS, heal, rule};
use crate::story::{OUTAGE, Sick, Story};

/// Packets to the server, and those from it.
fn ways(story: &Story) -> [String; 2] {
    let port = story.world.server.port();
    [format!("ip daddr {ADDRESS} tcp dport {port}"), format!("ip saddr {ADDRESS} tcp sport {port}")]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_a_host_that_is_gone_and_answers_nothing() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let [to, _] = ways(&story);
    rule(&format!("{to} drop"));
    story.lasts(Sick::Silent, OUTAGE).await;
    heal();
    story.ends().await;
}

/// A firewall or an address translator that has forgotten the connections that are there: new ones would work at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_connections_that_are_open_on_one_side_only() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let clients = story.world.server.command(&["CLIENT", "LIST"]).unwrap().text().unwrap();
    let [to, from] = ways(&story);
    let place = |line: &str| line.split(&format!(" addr={ADDRESS}:")).nth(1).map(str::to_owned);
    for client in clients.lines().filter_map(place) {
        let port = client.split(' ').next().unwrap().to_owned();
        rule(&format!("{to} tcp sport {port} drop"));
        rule(&format!("{from} tcp dport {port} drop"));
    }
    // It recovers while the fault is there.
    let healthy = story.world.history.sum();
    story.lasts(Sick::Hardly, OUTAGE).await;
    let sum = story.world.history.sum();
    assert!(sum.accepted - sum.stored > healthy.accepted - healthy.stored, "{sum:?}");
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f05_requests_that_arrive_and_replies_that_do_not() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let [_, from] = ways(&story);
    rule(&format!("{from} drop"));
    story.lasts(Sick::Silent, OUTAGE).await;
    heal();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f06_a_firewall_that_resets_every_connection() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let [to, _] = ways(&story);
    rule(&format!("{to} reject with tcp reset"));
    story.lasts(Sick::Down, OUTAGE).await;
    heal();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f07_a_network_that_says_that_the_host_is_unreachable() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let [to, _] = ways(&story);
    rule(&format!("{to} reject with icmp type admin-prohibited"));
    story.lasts(Sick::Down, OUTAGE).await;
    heal();
    story.ends().await;
}

/// One packet in thirty: enough for stalls, not enough to call the server sick.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_a_network_that_loses_a_packet_now_and_then() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let [to, _] = ways(&story);
    rule(&format!("{to} numgen random mod 100 < 3 drop"));
    story.lasts(Sick::Hardly, OUTAGE).await;
    assert_eq!(story.world.status().counts.outages, 0, "{:?}", story.world.status());
    heal();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f09_a_network_that_loses_every_fifth_packet() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    for way in ways(&story) {
        rule(&format!("{way} numgen random mod 100 < 20 drop"));
    }
    story.lasts(Sick::Hardly, OUTAGE).await;
    heal();
    story.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f16_a_server_that_protects_itself_from_other_hosts() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    story.must_be_mended();
    let server = &story.world.server;
    server.command(&["CONFIG", "SET", "protected-mode", "yes"]).unwrap();
    server.command(&["CLIENT", "KILL", "LADDR", &format!("{ADDRESS}:{}", server.port())]).unwrap();
    story.lasts(Sick::Down, OUTAGE).await;
    story.world.server.command(&["CONFIG", "SET", "protected-mode", "no"]).unwrap();
    story.ends().await;
}

/// Everything that was acknowledged before is there afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f23_a_disk_that_is_full_for_the_append_only_file() {
    if !namespace::is_entered() {
        return;
    }
    let builder = RedisServer::builder().set("protected-mode", "no");
    let builder = builder.set("enable-protected-configs", "yes");
    let Some(mut story) = namespace::begin_on(builder).await else { return };
    let disk = Disk::below(&story.world.server);
    let folder = disk.0.display().to_string();
    story.world.server.command(&["CONFIG", "SET", "dir", &folder]).unwrap();
    let on = ["CONFIG", "SET", "appendonly", "yes"];
    story.world.server.command(&on).unwrap();
    story.world.until("the file is there", is_rewritten).await;
    disk.fill();
    story.lasts(Sick::Down, OUTAGE).await;
    disk.free();
    story.ends().await;
}

fn is_rewritten(world: &crate::world::World) -> bool {
    let page = world.server.command(&["INFO", "persistence"]).unwrap().text().unwrap();
    let is = |line: &str| page.lines().any(|there| there == line);
    is("aof_enabled:1") && is("aof_rewrite_in_progress:0") && is("aof_rewrite_scheduled:0")
}

/// A small disk of its own for a server's files. It goes with the namespace.
struct Disk(std::path::PathBuf);

impl Disk {
    fn below(server: &RedisServer) -> Self {
        let folder = server.dir().join("disk");
        std::fs::create_dir(&folder).unwrap();
        let words = ["-t", "tmpfs", "-o", "size=4m", "tmpfs"];
        let output = std::process::Command::new("mount").args(words).arg(&folder).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(folder)
    }

    fn fill(&self) {
        let full = std::fs::write(self.0.join("filler"), vec![0_u8; 8 * 1024 * 1024]);
        assert_eq!(full.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f03_a_host_that_comes_back_just_before_the_breakers_open() {
    if !namespace::is_entered() {
        return;
    }
    let Some(mut story) = namespace::begin().await else { return };
    let [to, _] = ways(&story);
    for _ in 0..3 {
        rule(&format!("{to} drop"));
        story.lasts(Sick::Hardly, Duration::from_millis(400)).await;
        heal();
        story.world.pass(Duration::from_millis(600)).await;
    }
    story.ends().await;
}
