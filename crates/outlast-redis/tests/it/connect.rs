//! Ways to a server: its socket, TLS, logins, databases; and what is said when one is barred.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use outlast_core::{Broker, BrokerError, Inspect, Kind};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{budget, stamp, t, tasks};
use outlast_testkit::server::{RedisServer, Tls};

use crate::kit::{ANSWERED, CONNECTED, Place, broker, enqueue, failed, own, shared, want, within};

async fn stored(broker: &RedisBroker, place: &Place) -> Result<(), BrokerError> {
    let session = uuid::Uuid::new_v4().as_u128();
    let name = format!("{session:x}");
    enqueue(broker, &place.queue, stamp(session, 0, 1), tasks(&[&name])).await.map(drop)
}

/// The error and all that is below it, as logs show it and as debuggers do.
fn everything_said(error: &BrokerError) -> String {
    let mut said = format!("{error} {error:?}");
    let mut below = error.source();
    while let Some(error) = below {
        said.push_str(&format!(" {error} {error:?}"));
        below = error.source();
    }
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_reached_by_its_socket() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().unix_socket().start()) else {
        return;
    };
    let socket = server.socket();
    let broker = broker(&format!("redis+unix://{}?db=3&namespace=n", socket.display()));
    let place = Place::new(&server);
    stored(&broker, &place).await.expect("stored");
    let keyspace = server.command(&["INFO", "keyspace"]).expect("answered").text();
    assert!(keyspace.is_some_and(|page| page.contains("db3:")));
    drop(server);
    failed(within(ANSWERED, stored(&broker, &place)).await, Kind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databases_are_apart_and_one_that_is_not_there_is_refused() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let (one, two) =
        (broker(&format!("{}/1", server.url())), broker(&format!("{}/2", server.url())));
    stored(&one, &place).await.expect("stored");
    assert_eq!(one.queues(t(0)).await.expect("answered").len(), 1);
    assert_eq!(two.queues(t(0)).await.expect("answered").len(), 0);
    let error = stored(&broker(&format!("{}/99", server.url())), &place).await;
    let said = failed(error, Kind::Misconfigured);
    assert!(said.contains("/99") && said.contains("database"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_are_made_and_no_error_shows_a_password() {
    let builder = RedisServer::builder()
        .requirepass("s3cret-word")
        .user("bill", "on >b1ll-word ~* &* +@all")
        .user("ann", "off >4nn-word ~* &* +@all");
    let Some(server) = RedisServer::or_skip(builder.start()) else { return };
    let place = Place::new(&server);
    let at = server.addr();
    for login in [":s3cret-word", "default:s3cret-word", "bill:b1ll-word"] {
        let broker = broker(&format!("redis://{login}@{at}"));
        stored(&broker, &place).await.expect(login);
    }
    for login in ["", ":wr0ng-word@", "bill:s3cret-word@", "ann:4nn-word@", "carl:c4rl-word@"] {
        let url = format!("redis://{login}{at}");
        let error = RedisBroker::open(&url, Options::default()).await.expect_err(login);
        assert_eq!(error.kind(), Kind::Misconfigured, "{login}: {error}");
        let said = everything_said(&error);
        assert!(said.contains("password") && said.contains(&at.to_string()), "{login}: {said}");
        assert!(!said.contains("-word"), "{said}");
        assert!(!format!("{:?}", broker(&url)).contains("-word"));
    }
    let gone = RedisBroker::new("redis://bill:b1ll-word@127.0.0.1:1/0", Options::default());
    let error = stored(&gone.expect("a URL"), &place).await.expect_err("nobody is there");
    assert!(!everything_said(&error).contains("-word"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_permission_that_is_missing_is_named_and_helps_as_soon_as_it_is_given() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let url = server.url().replacen("://", "://bill:word@", 1);
    let bill = |rule: &str| {
        let all = ["ACL", "SETUSER", "bill", "reset", "on", ">word", "~*", "&*", "+@all"];
        place.raw(&[&all[..], &[rule]].concat());
    };
    bill("+@all");
    let broker = broker(&format!("{url}/0?namespace={}", place.namespace));
    stored(&broker, &place).await.expect("stored");
    // The first is refused when the script is called, the others when it has begun.
    for (rule, remedy) in [("-evalsha", "+evalsha"), ("-exists", "+exists"), ("resetkeys", "~*")] {
        bill(rule);
        let before = place.everything();
        let said = failed(stored(&broker, &place).await, Kind::Misconfigured);
        assert!(said.contains("permission"), "{rule}: {said}");
        assert_eq!(place.everything(), before, "{rule}: nothing is half done");
        bill(remedy);
        stored(&broker, &place).await.expect("as soon as it is allowed");
    }
    bill("-zrange");
    failed(broker.sweep(&place.queue, t(1), budget(10)).await, Kind::Misconfigured);
    bill("-lmove");
    let claim = broker.claim(&place.queue, stamp(1, 0, 1), t(1), &want(1)).await;
    failed(claim, Kind::Misconfigured);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_listens_the_answer_is_quick() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = broker("redis://127.0.0.1:1/0");
    for _ in 0..3 {
        let said = failed(within(ANSWERED, stored(&broker, &place)).await, Kind::Unavailable);
        assert!(said.contains("127.0.0.1:1"), "{said}");
    }
}

/// An authority, and certificates that it has signed; made by openssl.
struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Option<Self> {
        if Command::new("openssl").arg("version").output().is_err() {
            eprintln!("skipped: TLS: there is no openssl");
            return None;
        }
        let made = Self { dir: tempfile::tempdir().expect("a folder") };
        made.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
            -keyout ca.key -out ca.crt -subj /CN=authority \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign",
        );
        let names = "basicConstraints=CA:FALSE\nsubjectAltName=IP:127.0.0.1,DNS:localhost\n";
        std::fs::write(made.file("names"), names).expect("written");
        for name in ["server", "client"] {
            made.openssl(&format!(
                "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
                -keyout {name}.key -out {name}.csr -subj /CN={name}"
            ));
            made.openssl(&format!(
                "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key \
                -CAcreateserial -days 2 -out {name}.crt -extfile names"
            ));
        }
        Some(made)
    }

    fn openssl(&self, words: &str) {
        let mut command = Command::new("openssl");
        let done = command.args(words.split_whitespace()).current_dir(self.dir.path()).output();
        let done = done.expect("it runs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn of_server(&self) -> Tls {
        Tls { cert: self.file("server.crt"), key: self.file("server.key"), ca: self.file("ca.crt") }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_with_an_authority_and_certificates_of_ones_own() {
    let Some(made) = Certificates::new() else { return };
    let builder = RedisServer::builder().tls(made.of_server()).set("tls-auth-clients", "yes");
    let Some(server) = RedisServer::or_skip(builder.start()) else { return };
    let place = Place::new(&server);
    let port = server.tls_port().expect("it has TLS");
    let (ca, cert, key) = (made.file("ca.crt"), made.file("client.crt"), made.file("client.key"));
    let ours = format!("ca={}&cert={}&key={}", shown(&ca), shown(&cert), shown(&key));
    let good = broker(&format!("rediss://127.0.0.1:{port}/0?{ours}"));
    stored(&good, &place).await.expect("stored");
    stored(&broker(&format!("rediss://localhost:{port}/0?{ours}")), &place).await.expect("stored");

    let no_authority = format!("rediss://127.0.0.1:{port}/0");
    let no_certificate = format!("rediss://127.0.0.1:{port}/0?ca={}", shown(&ca));
    for url in [no_authority, no_certificate] {
        let said =
            failed(within(ANSWERED, stored(&broker(&url), &place)).await, Kind::Misconfigured);
        assert!(said.contains("certificates"), "{url}: {said}");
    }
    // One speaks TLS and the other does not: it hangs up, or waits for the rest. Either may mean anything.
    let plain = format!("redis://127.0.0.1:{port}/0");
    let no_tls_there = format!("rediss://127.0.0.1:{}/0?{ours}", server.port());
    for url in [plain, no_tls_there] {
        let broker = broker(&url);
        failed(within(CONNECTED, stored(&broker, &place)).await, Kind::Unavailable);
    }
    for file in ["ca", "cert", "key"] {
        let all = [("ca", &ca), ("cert", &cert), ("key", &key)];
        let missing = PathBuf::from("/nowhere/at.all");
        let options = all.map(|(name, path)| {
            format!("{name}={}", shown(if name == file { &missing } else { path }))
        });
        let url = format!("rediss://127.0.0.1:{port}/0?{}", options.join("&"));
        let said = failed(RedisBroker::new(&url, Options::default()), Kind::Rejected);
        assert!(said.contains("/nowhere/at.all"), "{said}");
    }
}
