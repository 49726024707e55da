//! Connections that are there and carry nothing any more, without a word, while new ones work: what a router
//! or a firewall leaves behind that has lost its state.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outlast_core::{Broker, Interest, Kind};
use outlast_testkit::conformance::words::{budget, due, stamp, t, tasks};
use outlast_testkit::server::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::kit::{ANSWERED, LONG, Place, enqueue, failed, shared, until, within};

/// A way to a server whose connections can go dead.
struct DeadEnds {
    addr: SocketAddr,
    /// Connections up to this number carry nothing.
    dead: Arc<AtomicU64>,
    made: Arc<AtomicU64>,
}

impl DeadEnds {
    async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("its address");
        let (dead, made) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (is_dead, count) = (dead.clone(), made.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::spawn(carry(client, server, number, is_dead.clone()));
            }
        });
        Self { addr, dead, made }
    }

    fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// All connections that are there are dead from now on.
    fn cut(&self) {
        self.dead.store(self.made(), Ordering::SeqCst);
    }

    fn made(&self) -> u64 {
        self.made.load(Ordering::SeqCst)
    }
}

async fn carry(client: TcpStream, server: SocketAddr, number: u64, dead: Arc<AtomicU64>) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pump(from_client, to_server, number, dead.clone());
    let back = pump(from_server, to_client, number, dead);
    tokio::join!(there, back);
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    number: u64,
    dead: Arc<AtomicU64>,
) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut piece).await {
        let is_dead = number <= dead.load(Ordering::SeqCst);
        if !is_dead && to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
}

async fn way() -> Option<(&'static RedisServer, DeadEnds, Place)> {
    let server = shared()?;
    Some((server, DeadEnds::before(server.addr()).await, Place::new(server)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_timeout_replaces_a_dead_connection_for_all_callers() {
    let Some((_, way, place)) = way().await else { return };
    let broker = place.broker(&way.url());
    enqueue(&broker, &place.queue, stamp(1, 0, 1), tasks(&["first"])).await.expect("stored");
    way.cut();
    let before = way.made();
    let calls = (0..20_u128).map(|n| {
        let (broker, queue) = (&broker, &place.queue);
        async move { enqueue(broker, queue, stamp(10 + n, 0, 1), tasks(&[&format!("{n}")])).await }
    });
    for answer in within(ANSWERED, futures_util::future::join_all(calls)).await {
        failed(answer, Kind::Ambiguous);
    }
    let calls = (0..20_u128).map(|n| {
        let (broker, queue) = (&broker, &place.queue);
        async move { enqueue(broker, queue, stamp(10 + n, 0, 1), tasks(&[&format!("{n}")])).await }
    });
    for answer in within(Duration::from_secs(1), futures_util::future::join_all(calls)).await {
        answer.expect("at once, on a new connection");
    }
    assert_eq!(place.pending(), 21);
    assert_eq!(way.made(), before + 1, "one new connection for all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_never_wait_for_a_timeout_get_a_new_connection_all_the_same() {
    let Some((_, way, place)) = way().await else { return };
    let broker = place.broker(&way.url());
    enqueue(&broker, &place.queue, stamp(1, 0, 1), tasks(&["first"])).await.expect("stored");
    way.cut();
    let hurried = || async {
        let call = enqueue(&broker, &place.queue, stamp(1, 0, 2), tasks(&["second"]));
        tokio::time::timeout(Duration::from_millis(150), call).await.is_ok_and(|it| it.is_ok())
    };
    within(Duration::from_secs(6), until(hurried, |is_stored| *is_stored)).await;
    assert_eq!((place.pending(), way.made()), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_notices_that_its_connection_is_dead_and_hears_again() {
    let Some((server, way, place)) = way().await else { return };
    let broker = place.broker(&way.url());
    let interest = Interest { queues: vec![place.queue.clone()], token: None };
    let wait = async |at_most| broker.wait(&interest, t(0), at_most).await.expect("no error");
    assert!(wait(Duration::from_millis(50)).await.queues.is_empty());
    way.cut();
    let other = place.broker(&server.url());
    let woke = async { tokio::join!(wait(LONG), place.accept(&other, tasks(&["a"]))).0 };
    let woke = within(Duration::from_secs(8), woke).await;
    assert_eq!(woke.queues, std::slice::from_ref(&place.queue));
    assert_eq!(way.made(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_was_replaced_unheard_does_not_leave_waiters_deaf() {
    let Some((server, way, place)) = way().await else { return };
    let broker = place.broker(&way.url());
    let queues = [place.queue.clone(), outlast_testkit::conformance::words::queue("second")];
    let wait = async |nth: usize, at_most| {
        let interest = Interest { queues: vec![queues[nth].clone()], token: None };
        broker.wait(&interest, t(0), at_most).await
    };
    wait(0, Duration::from_millis(50)).await.expect("no error");
    way.cut();
    // A look at another queue meets the dead connection, and gives it up.
    failed(within(ANSWERED, wait(1, LONG)).await, Kind::Ambiguous);
    // What was seen of the first queue is not followed by anybody now: it has to be looked at again.
    let other = place.broker(&server.url());
    let woke = async {
        tokio::join!(wait(0, LONG), async {
            wait(1, Duration::from_millis(200)).await.expect("no error");
            place.accept(&other, tasks(&["a"])).await;
        })
        .0
    };
    let woke = within(Duration::from_secs(2), woke).await.expect("no error");
    assert_eq!(woke.queues, std::slice::from_ref(&place.queue));
}

/// A process that sweeps and has no waiter believed what it had seen for five minutes, whatever had become of the connection
/// that would have told it otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sweep_does_not_rely_on_a_connection_that_is_dead() {
    let Some((server, way, place)) = way().await else { return };
    let broker = place.broker(&way.url());
    let sweep = async || broker.sweep(&place.queue, t(9), budget(100)).await;
    for _ in ["looks", "is calm"] {
        assert_eq!(sweep().await.expect("answered").due, 0);
    }
    way.cut();
    place.accept(&place.broker(&server.url()), vec![due("a", t(5))]).await;
    // The connection for sweeps is dead, too: one of them says so.
    let moved = || async { sweep().await.map_or(0, |swept| swept.due) };
    within(Duration::from_secs(12), until(moved, |due| *due == 1)).await;
    assert_eq!(place.pending(), 1);
}
