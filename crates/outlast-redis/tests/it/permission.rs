//! A user of the server's who may not do everything: nothing is half done.

use std::sync::{Arc, Mutex};

use outlast_core::{Broker, BrokerError, Credentials, Kind, Login, NewTask};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{
    budget, done, due, grouped, once, retry, stamp, t, task, tasks, unique,
};
use outlast_testkit::server::RedisServer;

use crate::kit::{Place, enqueue, failed, settle, settlement, shared, want};

/// The server that all tests share, if it is one that can be asked for permissions, which Redis 6.2 is not.
fn asked() -> Option<&'static RedisServer> {
    shared().filter(|server| !server.version().expect("it answers").starts_with("redis 6"))
}

/// A user with all permissions but one, who goes with this.
struct User {
    server: &'static RedisServer,
    name: String,
}

impl User {
    fn without(server: &'static RedisServer, command: &str) -> Self {
        let user = Self { server, name: format!("u{}", uuid::Uuid::new_v4().simple()) };
        user.set(&["on", ">word", "~*", "&*", "+@all", &format!("-{command}")]);
        user
    }

    fn set(&self, rules: &[&str]) {
        let words = [&["ACL", "SETUSER", &self.name], rules].concat();
        self.server.command(&words).expect("the user is set");
    }

    fn broker(&self, place: &Place) -> RedisBroker {
        place.broker(&self.server.url().replacen("://", &format!("://{}:word@", self.name), 1))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = self.server.command(&["ACL", "DELUSER", &self.name]);
    }
}

fn batch() -> Vec<NewTask> {
    vec![
        task("plain"),
        due("later", t(900)),
        grouped("member", "g"),
        once("once", "k", 9),
        unique("unique", "x", 9),
    ]
}

/// Either all of it, or nothing and an error that names what is missing.
fn judge<T: std::fmt::Debug>(
    place: &Place,
    before: &[(String, outlast_testkit::resp::Reply)],
    answer: Result<T, BrokerError>,
    command: &str,
) -> bool {
    if answer.is_ok() {
        return true;
    }
    let said = failed(answer, Kind::Misconfigured);
    assert!(
        said.to_uppercase().contains(&command.to_uppercase())
            && said.contains("docs/redis-keys.md"),
        "{said}"
    );
    assert!(place.everything() == before, "without {command}: something was done");
    false
}

/// A user without LPUSH stored the hashes of a batch and was refused then: the tasks were there, waited nowhere, and their
/// producer was told that nothing had been done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_may_not_do_all_of_a_batch_does_nothing_of_it() {
    let Some(server) = asked() else { return };
    let mut refused = 0;
    for command in [
        "hset",
        "lpush",
        "rpush",
        "sadd",
        "zadd",
        "set",
        "expire",
        "del",
        "exists",
        "hget",
        "hmget",
        "hdel",
        "llen",
        "lrange",
        "ltrim",
        "lrem",
        "zrem",
        "zrange",
        "zscore",
        "incr",
        "expireat",
        "sismember",
        "scard",
        "zcard",
        "hlen",
        "object",
    ] {
        let place = Place::new(server);
        let free = place.broker(&server.url());
        place.accept(&free, vec![task("r1"), task("r2"), due("d1", t(5))]).await;
        let running = place.claim(&free, 2).await;
        let user = User::without(server, command);
        let broker = user.broker(&place);
        let queue = &place.queue;
        let before = place.everything();
        let stored = enqueue(&broker, queue, stamp(1, 0, 1), batch()).await;
        refused += usize::from(!judge(&place, &before, stored, command));
        let before = place.everything();
        let claimed = broker.claim(queue, stamp(2, 0, 1), t(9), &want(5)).await;
        refused += usize::from(!judge(&place, &before, claimed, command));
        let before = place.everything();
        let outcomes =
            [settlement(&running[0].lease, done()), settlement(&running[1].lease, retry(t(90)))];
        let settled = settle(&broker, queue, stamp(3, 0, 1), &outcomes).await;
        refused += usize::from(!judge(&place, &before, settled, command));
        let before = place.everything();
        let swept = broker.sweep(queue, t(500), budget(100)).await;
        refused += usize::from(!judge(&place, &before, swept, command));
    }
    assert!(refused > 40, "{refused} calls were refused");
}

#[tokio::test]
async fn a_permission_that_is_given_at_last_is_noticed_at_the_next_call() {
    let Some(server) = asked() else { return };
    let place = Place::new(server);
    let user = User::without(server, "lpush");
    let broker = user.broker(&place);
    let store = async || enqueue(&broker, &place.queue, stamp(1, 0, 1), tasks(&["a"])).await;
    assert!(failed(store().await, Kind::Misconfigured).contains("LPUSH"));
    user.set(&["+lpush"]);
    store().await.expect("stored");
    assert_eq!(place.pending(), 1);
}

/// What is not needed may be missing: a client that only stores tasks takes none back.
#[tokio::test]
async fn a_permission_that_a_script_does_not_need_is_not_missed() {
    let Some(server) = asked() else { return };
    let place = Place::new(server);
    let user = User::without(server, "lrem");
    enqueue(&user.broker(&place), &place.queue, stamp(1, 0, 1), tasks(&["a"]))
        .await
        .expect("stored");
}

/// What the first user was refused was taken for what every later one is: after credentials had changed to another user, scripts
/// began that could not end.
#[tokio::test]
async fn another_user_is_asked_for_its_own_permissions() {
    let Some(server) = asked() else { return };
    let place = Place::new(server);
    let (first, second) = (User::without(server, "lrem"), User::without(server, "zadd"));
    let current = Arc::new(Mutex::new(first.name.clone()));
    let asked = current.clone();
    let login = Login::new(move || {
        let user = asked.lock().expect("nobody panics with it").clone();
        async { Ok::<_, std::io::Error>(Credentials::new(user, "word")) }
    });
    let url = format!("redis://{}/0?namespace={}", server.addr(), place.namespace);
    let broker = RedisBroker::new(&url, Options::default().login(login)).expect("a broker");
    enqueue(&broker, &place.queue, stamp(1, 0, 1), tasks(&["a"])).await.expect("stored");
    second.name.clone_into(&mut current.lock().expect("nobody panics with it"));
    let before = place.everything();
    // On a connection of its own, which is the second user's.
    let claimed = broker.claim(&place.queue, stamp(2, 0, 1), t(9), &want(5)).await;
    assert!(!judge(&place, &before, claimed, "zadd"));
}

/// A server that refused a login was let change the user's permissions in the same go, and the next connection still went by
/// the old ones.
#[tokio::test]
async fn a_user_who_was_locked_out_is_asked_again_when_it_may_come_back() {
    let Some(server) = asked() else { return };
    let place = Place::new(server);
    let user = User::without(server, "lrem");
    let broker = user.broker(&place);
    enqueue(&broker, &place.queue, stamp(1, 0, 1), tasks(&["a"])).await.expect("stored");
    user.set(&["off"]);
    let claim = async || broker.claim(&place.queue, stamp(2, 0, 1), t(9), &want(5)).await;
    failed(claim().await, Kind::Misconfigured);
    user.set(&["on", "-zadd"]);
    let before = place.everything();
    assert!(!judge(&place, &before, claim().await, "zadd"));
}
