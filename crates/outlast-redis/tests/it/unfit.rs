//! Servers that cannot serve us are refused with what to do about it.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use outlast_core::{Broker, Kind};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{stamp, t, tasks};
use outlast_testkit::server::RedisServer;

use crate::kit::{Place, enqueue, failed, own, shared, until, want};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_nothing_and_names_the_remedy() {
    let Some(primary) = own() else { return };
    let Some(replica) = RedisServer::or_skip(RedisServer::builder().replica_of(&primary).start())
    else {
        return;
    };
    let place = Place::new(&primary);
    place.accept(&place.broker(&primary.url()), tasks(&["a"])).await;
    // It has heard of its primary's data.
    let key = place.key("pending");
    until(
        async || replica.command(&["LLEN", &key]).ok().and_then(|it| it.int()),
        |n| *n == Some(1),
    )
    .await;
    let broker = place.broker(&replica.url());
    let queue = &place.queue;
    for said in [
        failed(enqueue(&broker, queue, stamp(1, 0, 1), tasks(&["b"])).await, Kind::Unavailable),
        failed(broker.claim(queue, stamp(1, 1, 1), t(1), &want(1)).await, Kind::Unavailable),
    ] {
        assert!(said.contains("replica: give the primary's address"), "{said}");
    }
    // It becomes the primary, under the same address.
    replica.command(&["REPLICAOF", "NO", "ONE"]).expect("promoted");
    assert_eq!(place.claim(&broker, 5).await.len(), 1, "the next call works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_a_cluster_is_refused() {
    let builder = RedisServer::builder().set("cluster-enabled", "yes");
    let Some(node) = RedisServer::or_skip(builder.start()) else { return };
    let error = RedisBroker::open(&node.url(), Options::default()).await;
    let said = failed(error, Kind::Misconfigured);
    assert!(said.contains("node of a cluster") && said.contains("single server"), "{said}");
}

/// Ends with its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_is_refused() {
    if shared().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let config = dir.path().join("sentinel.conf");
    fs::write(&config, format!("port {port}\nbind 127.0.0.1\ndir {}\n", dir.path().display()))
        .expect("written");
    let mut sentinel = Command::new("redis-server");
    sentinel.arg(&config).arg("--sentinel").stdout(Stdio::null());
    let Ok(sentinel) = sentinel.spawn() else { return };
    let _ends = Process(sentinel);
    let url = format!("redis://127.0.0.1:{port}");
    let answer = until(
        || RedisBroker::open(&url, Options::default()),
        |opened| opened.as_ref().is_err_and(|error| error.kind() != Kind::Unavailable),
    )
    .await;
    let said = failed(answer, Kind::Misconfigured);
    assert!(said.contains("is a Sentinel") && said.contains("server's own address"), "{said}");
}
