//! The fault proxy does to connections what it was told to do, and nothing else.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use outlast_testkit::proxy::{Counts, Direction, TcpProxy};
use outlast_testkit::resp::request;
use outlast_testkit::server::RedisServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// How long what must happen may take.
const SOON: Duration = Duration::from_secs(10);
/// How long what must not happen is waited for.
const A_WHILE: Duration = Duration::from_millis(150);

/// A server that says what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let addr = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = client.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    addr
}

async fn before_echo() -> TcpProxy {
    TcpProxy::start(echo().await).await.expect("a port is free")
}

async fn connected(proxy: &TcpProxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.expect("the proxy accepts")
}

async fn say(client: &mut TcpStream, text: &str) {
    client.write_all(text.as_bytes()).await.expect("the connection is open");
}

/// Sends a command as clients do.
async fn ask(client: &mut TcpStream, words: &[&str]) {
    client.write_all(&request(words)).await.expect("the connection is open");
}

async fn hears(client: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    timeout(SOON, client.read_exact(&mut heard)).await.expect("in time").expect("open");
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn hears_nothing(client: &mut TcpStream) {
    let heard = timeout(A_WHILE, client.read(&mut [0])).await;
    assert!(heard.is_err(), "{heard:?}");
}

/// What still comes before the end of the connection, and whether that was a reset.
async fn last_words(client: &mut TcpStream) -> (String, Option<ErrorKind>) {
    let mut heard = Vec::new();
    let end = timeout(SOON, client.read_to_end(&mut heard)).await.expect("it ends in time");
    (String::from_utf8_lossy(&heard).into_owned(), end.err().map(|error| error.kind()))
}

async fn until(proxy: &TcpProxy, wanted: impl Fn(&Counts) -> bool) {
    let reached = timeout(SOON, proxy.until(wanted)).await;
    reached.unwrap_or_else(|_| panic!("not in time: {:?}", proxy.counts()));
}

#[tokio::test]
async fn without_rules_everything_passes_and_is_counted() {
    let proxy = before_echo().await;
    let mut client = connected(&proxy).await;
    ask(&mut client, &["get", "key"]).await;
    hears(&mut client, "*2\r\n$3\r\nget\r\n$3\r\nkey\r\n").await;
    ask(&mut client, &["PING"]).await;
    until(&proxy, |counts| counts.replies == 2 && counts.bytes.to_client == 36).await;
    assert_eq!(proxy.log(), ["GET", "PING"]);
    assert_eq!((proxy.seen("Get"), proxy.seen("SET")), (1, 0));
    client.shutdown().await.expect("it is open");
    assert_eq!(last_words(&mut client).await, ("*1\r\n$4\r\nPING\r\n".to_owned(), None));
    until(&proxy, |counts| counts.open == 0).await;
    let counts = proxy.counts();
    assert_eq!((counts.connections, counts.requests, counts.bytes.to_server), (1, 2, 36));
    assert_eq!((counts.bytes_dropped, counts.replies_lost), (0, 0));
}

#[tokio::test]
async fn a_cut_falls_after_the_byte_it_was_told_and_only_once() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let proxy = before_echo().await;
        proxy.cut_after(direction, 8);
        let mut client = connected(&proxy).await;
        say(&mut client, "hello").await;
        hears(&mut client, "hello").await;
        say(&mut client, " world").await;
        let (rest, _) = last_words(&mut client).await;
        match direction {
            Direction::ToClient => assert_eq!(rest, " wo"),
            // The server may have no time to answer what it got.
            Direction::ToServer => assert!(" wo".starts_with(&rest), "{rest:?}"),
        }
        assert_eq!(
            *[proxy.counts().bytes.to_server, proxy.counts().bytes.to_client]
                .get(usize::from(direction == Direction::ToClient))
                .expect("there are two"),
            8
        );
        let mut again = connected(&proxy).await;
        say(&mut again, "hello world").await;
        hears(&mut again, "hello world").await;
    }
}

#[tokio::test]
async fn a_delay_holds_each_direction_back_until_it_is_healed() {
    let proxy = before_echo().await;
    let mut client = connected(&proxy).await;
    for direction in [Direction::ToServer, Direction::ToClient] {
        proxy.delay(direction, A_WHILE * 2);
        say(&mut client, "hello").await;
        hears_nothing(&mut client).await;
        hears(&mut client, "hello").await;
        proxy.delay(direction, Duration::ZERO);
    }
    proxy.delay(Direction::ToServer, SOON * 10);
    proxy.heal().await.expect("it listens still");
    say(&mut client, "hello").await;
    hears(&mut client, "hello").await;
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_answers_nothing_until_it_is_healed() {
    let proxy = before_echo().await;
    let (mut old, mut idle) = (connected(&proxy).await, connected(&proxy).await);
    for client in [&mut old, &mut idle] {
        say(client, "hello").await;
        hears(client, "hello").await;
    }
    proxy.black_hole();
    let mut new = connected(&proxy).await;
    for client in [&mut old, &mut new] {
        say(client, "PING\r\n").await;
        hears_nothing(client).await;
    }
    assert_eq!(proxy.counts().bytes_dropped, 12);
    proxy.heal().await.expect("it listens still");
    assert_eq!(last_words(&mut old).await.0, "");
    assert_eq!(last_words(&mut new).await.0, "");
    // It lost nothing, so it goes on.
    say(&mut idle, "hello").await;
    hears(&mut idle, "hello").await;
}

#[tokio::test]
async fn refused_connections_are_refused_by_the_kernel_and_old_ones_stay() {
    let proxy = before_echo().await;
    let mut old = connected(&proxy).await;
    say(&mut old, "hello").await;
    hears(&mut old, "hello").await;
    proxy.refuse().await.expect("the proxy is there");
    let refused = TcpStream::connect(proxy.addr()).await.expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    say(&mut old, "hello").await;
    hears(&mut old, "hello").await;
    proxy.heal().await.expect("the port is still free");
    let mut new = connected(&proxy).await;
    say(&mut new, "hello").await;
    hears(&mut new, "hello").await;
}

#[tokio::test]
async fn connections_are_closed_or_reset_as_told() {
    let proxy = before_echo().await;
    let expected = [None, Some(ErrorKind::ConnectionReset)];
    let ends: [fn(&TcpProxy); 2] = [TcpProxy::close_connections, TcpProxy::reset_connections];
    for (end, expected) in ends.into_iter().zip(expected) {
        let mut client = connected(&proxy).await;
        say(&mut client, "hello").await;
        hears(&mut client, "hello").await;
        end(&proxy);
        assert_eq!(last_words(&mut client).await, (String::new(), expected));
    }
    until(&proxy, |counts| counts.open == 0).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_closes_the_connection_and_is_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let nobody = listener.local_addr().expect("it is bound");
    drop(listener);
    let proxy = TcpProxy::start(nobody).await.expect("a port is free");
    let mut client = connected(&proxy).await;
    assert_eq!(last_words(&mut client).await.0, "");
    until(&proxy, |counts| counts.unreachable == 1 && counts.open == 0).await;
}

#[tokio::test]
async fn a_dropped_proxy_takes_its_connections_along() {
    let proxy = before_echo().await;
    let mut client = connected(&proxy).await;
    say(&mut client, "hello").await;
    hears(&mut client, "hello").await;
    drop(proxy);
    assert_eq!(last_words(&mut client).await.0, "");
}

/// A proxy before a real server.
async fn before_redis() -> Option<(RedisServer, TcpProxy)> {
    let server = RedisServer::or_skip(RedisServer::start())?;
    let proxy = TcpProxy::start(server.addr()).await.expect("a port is free");
    Some((server, proxy))
}

fn value(server: &RedisServer, key: &str) -> Option<i64> {
    server.command(&["GET", key]).expect("the server is there").int()
}

#[tokio::test]
async fn the_reply_to_the_named_command_is_lost_after_the_server_has_done_it() {
    let Some((server, proxy)) = before_redis().await else { return };
    proxy.lose_next_reply_to("incr");
    let (mut victim, mut other) = (connected(&proxy).await, connected(&proxy).await);
    ask(&mut other, &["PING"]).await;
    hears(&mut other, "+PONG\r\n").await;
    ask(&mut victim, &["PING"]).await;
    hears(&mut victim, "+PONG\r\n").await;
    ask(&mut victim, &["INCR", "n"]).await;
    assert_eq!(last_words(&mut victim).await, (String::new(), None));
    assert_eq!(value(&server, "n"), Some(1));
    assert_eq!((proxy.counts().replies_lost, proxy.seen("INCR")), (1, 1));
    // The others go on, and the rule is used up.
    ask(&mut other, &["INCR", "n"]).await;
    hears(&mut other, ":2\r\n").await;
}

#[tokio::test]
async fn the_end_waits_for_the_answer_to_the_lost_request_itself() {
    let Some((server, proxy)) = before_redis().await else { return };
    proxy.lose_next_reply_to("INCR");
    let mut victim = connected(&proxy).await;
    let mut pipeline = request(&["MSET", "a", "1", "b", "2"]);
    pipeline.extend(request(&["BLPOP", "list", "0"]));
    pipeline.extend(request(&["INCR", "n"]));
    victim.write_all(&pipeline).await.expect("the connection is open");
    // MSET is answered at once; the request that counts still stands behind BLPOP.
    until(&proxy, |counts| counts.replies == 1).await;
    hears_nothing(&mut victim).await;
    assert_eq!(value(&server, "n"), None);
    server.command(&["RPUSH", "list", "item"]).expect("the server is there");
    assert_eq!(last_words(&mut victim).await, (String::new(), None));
    assert_eq!(value(&server, "n"), Some(1));
}

#[tokio::test]
async fn a_number_of_replies_is_lost_and_then_the_connection() {
    let Some((server, proxy)) = before_redis().await else { return };
    proxy.lose_replies(3);
    let mut victim = connected(&proxy).await;
    for _ in 0..2 {
        ask(&mut victim, &["INCR", "n"]).await;
    }
    until(&proxy, |counts| counts.replies == 2).await;
    hears_nothing(&mut victim).await;
    ask(&mut victim, &["INCR", "n"]).await;
    assert_eq!(last_words(&mut victim).await, (String::new(), None));
    assert_eq!((value(&server, "n"), proxy.counts().replies_lost), (Some(3), 3));
    let mut next = connected(&proxy).await;
    ask(&mut next, &["INCR", "n"]).await;
    hears(&mut next, ":4\r\n").await;
}

#[tokio::test]
async fn a_server_that_comes_back_is_reached_again() {
    let Some((server, proxy)) = before_redis().await else { return };
    let mut client = connected(&proxy).await;
    ask(&mut client, &["PING"]).await;
    hears(&mut client, "+PONG\r\n").await;
    server.kill9();
    assert_eq!(last_words(&mut client).await.0, "");
    server.restart().expect("its port is still free");
    let mut client = connected(&proxy).await;
    ask(&mut client, &["PING"]).await;
    hears(&mut client, "+PONG\r\n").await;
}

#[tokio::test]
async fn a_proxy_that_leads_elsewhere_keeps_the_connections_that_are_there() {
    let proxy = before_echo().await;
    let mut old = connected(&proxy).await;
    say(&mut old, "PING\r\n").await;
    hears(&mut old, "PING\r\n").await;
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    proxy.lead_to(other.local_addr().expect("it is bound"));
    let mut new = connected(&proxy).await;
    let (mut server, _) = timeout(SOON, other.accept()).await.expect("in time").expect("it came");
    server.write_all(b"+elsewhere\r\n").await.expect("the connection is open");
    hears(&mut new, "+elsewhere\r\n").await;
    say(&mut old, "PING\r\n").await;
    hears(&mut old, "PING\r\n").await;
}
