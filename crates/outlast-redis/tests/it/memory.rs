//! Servers whose memory is full, or that would throw tasks away when it is.

use std::io::Write;
use std::sync::{Arc, Mutex};

use outlast_core::{Broker, Extended, Hold, Kind, QueueName, SettleVerdict};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{budget, done, due, retry, secs, stamp, t, tasks};
use outlast_testkit::server::RedisServer;

use crate::kit::{Place, enqueue, failed, own, settle, settlement};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_memory_takes_no_task_and_lets_the_others_end() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    let queue = &place.queue;
    place.accept(&broker, tasks(&["a", "b", "c"])).await;
    place.accept(&broker, vec![due("d", t(5))]).await;
    place.raw(&["CONFIG", "SET", "maxmemory", "1"]);
    for batch in [tasks(&["x"]), vec![due("x", t(9))]] {
        let said = failed(enqueue(&broker, queue, stamp(1, 0, 1), batch).await, Kind::Busy);
        assert!(said.contains("raise maxmemory"), "{said}");
    }
    let claimed = place.claim(&broker, 3).await;
    assert_eq!(claimed.len(), 3);
    let hold = Hold { lease: claimed[0].lease.clone(), result: Some("half".into()) };
    let extended = broker.extend(queue, t(5), [hold].into(), secs(30)).await.expect("extended");
    assert_eq!(extended, [Extended::Until(t(35))]);
    let plain = [settlement(&claimed[0].lease, done())];
    let mixed =
        [settlement(&claimed[1].lease, retry(t(50))), settlement(&claimed[2].lease, done())];
    for (seq, batch) in [(1, &plain[..]), (2, &mixed[..])] {
        let verdicts = settle(&broker, queue, stamp(2, 0, seq), batch).await.expect("settled");
        assert!(verdicts.iter().all(|verdict| *verdict == SettleVerdict::Applied), "{verdicts:?}");
    }
    let swept = broker.sweep(queue, t(6), budget(10)).await.expect("swept");
    assert_eq!(swept.due, 1);
    place.raw(&["CONFIG", "SET", "maxmemory", "0"]);
    enqueue(&broker, queue, stamp(1, 0, 1), tasks(&["x"])).await.expect("the number was free");
    assert_eq!(place.tasks(), ["b", "d", "x"]);
}

/// What is logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("whole")).into_owned()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("whole").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

async fn said_by_opening(url: &str) -> String {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _logged = tracing::subscriber::set_default(log.finish());
    RedisBroker::open(url, Options::default()).await.expect("a server");
    lines.text()
}

// On one thread, whose log is watched.
#[tokio::test]
async fn a_server_that_evicts_tasks_is_warned_of_once_with_the_remedy() {
    let builder = RedisServer::builder().set("maxmemory-policy", "allkeys-lru");
    let Some(server) = RedisServer::or_skip(builder.start()) else { return };
    let said = said_by_opening(&server.url()).await;
    assert!(said.contains("WARN") && said.contains("maxmemory-policy noeviction"), "{said}");
    assert!(said.contains("allkeys-lru") && said.contains(&server.url()), "{said}");
    assert_eq!(said_by_opening(&server.url()).await, "", "once is enough");
}

/// Clients and workers do not open their server: they meet it with their first call, since it may be away. None of them was warned.
#[tokio::test]
async fn a_server_that_evicts_tasks_is_warned_of_by_whoever_meets_it_later() {
    let Some(server) = own() else { return };
    let broker = RedisBroker::new(&server.url(), Options::default()).expect("a broker");
    let queue = QueueName::default_queue();
    let meets = async || {
        let lines = Lines::default();
        let writer = lines.clone();
        let log = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let _logged = tracing::subscriber::set_default(log.finish());
        broker.health(&broker.home(&queue), t(0)).await.expect("is well");
        lines.text()
    };
    assert_eq!(meets().await, "");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]).expect("set");
    let said = meets().await;
    assert!(
        said.contains("volatile-ttl") && said.contains("maxmemory-policy noeviction"),
        "{said}"
    );
    assert_eq!(meets().await, "", "once is enough");
}

#[tokio::test]
async fn a_server_that_keeps_tasks_or_may_not_be_asked_is_not_warned_of() {
    let Some(server) = own() else { return };
    assert_eq!(said_by_opening(&server.url()).await, "");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).expect("set");
    let rules = ["on", "nopass", "~*", "&*", "+@all", "-config"];
    server.command(&[&["ACL", "SETUSER", "bill"], &rules[..]].concat()).expect("set");
    let url = server.url().replacen("://", "://bill:x@", 1);
    assert_eq!(said_by_opening(&url).await, "");
}
