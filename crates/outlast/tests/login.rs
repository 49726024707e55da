//! A password that changes while tasks are enqueued and run: nobody restarts anything, and nothing is lost.

#![expect(clippy::unwrap_used, reason = "a test that meets an error should stop right there")]
#![cfg(feature = "redis")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast::survive::Survive;
use outlast::{Connection, Credentials, ErrorKind, Run, TaskRequest, Worker};
use outlast_testkit::server::RedisServer;
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior};

/// A bound on failure: probes of a server that refuses us are five seconds apart at most, half as much again by chance.
const AT_LAST: Duration = Duration::from_secs(30);

/// Waits for something to become true, and says how long it took.
async fn until(what: &str, mut is: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    let mut look = tokio::time::interval(Duration::from_millis(5));
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !is() {
        look.tick().await;
        assert!(begun.elapsed() < AT_LAST, "{what}");
    }
    begun.elapsed()
}

struct World {
    server: RedisServer,
    folder: TempDir,
}

impl World {
    fn new() -> Option<Self> {
        let server = RedisServer::builder().persistent().requirepass("first").start();
        let folder = tempfile::tempdir().unwrap();
        Some(Self { server: RedisServer::or_skip(server)?, folder })
    }

    fn survive(&self) -> Survive {
        Survive::new(self.folder.path().join("outbox.db"))
    }

    /// The server's address, with nobody's login.
    fn url(&self) -> String {
        format!("redis://{}", self.server.addr())
    }

    /// Enqueues and works while `rotate` changes what we say and the server's password is changed, all connections cut; every
    /// task that was accepted runs once.
    async fn outlives_a_rotation(&self, connection: Connection, rotate: impl FnOnce()) {
        let mut admin = self.server.connect().unwrap();
        let runs: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
        let (counted, client) = (runs.clone(), connection.client());
        let worker = Worker::new(&client).handle_type("t", move |run: Run| {
            *counted.lock().unwrap().entry(run.task().id.to_string()).or_default() += 1;
            async {}
        });
        let control = worker.control();
        let working = tokio::spawn(worker.run());
        let accepted: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let (told, producer) = (accepted.clone(), client.clone());
        let producing = tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            for n in 0_u32.. {
                pace.tick().await;
                let id = format!("t{n}");
                producer.enqueue(TaskRequest::raw("t", "").id(&id)).await.unwrap();
                told.lock().unwrap().insert(id);
            }
        });
        until("tasks run", || runs.lock().unwrap().len() > 50).await;

        admin.command(&["CONFIG", "SET", "requirepass", "second"]).unwrap();
        admin.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).unwrap();
        let stored = || connection.survivor().unwrap().status().unwrap().counts.stored > 20;
        until("the server refuses us", stored).await;
        rotate();
        let before = runs.lock().unwrap().len();
        let back = until("tasks run again", || runs.lock().unwrap().len() > before + 20).await;
        println!("tasks ran again {back:?} after the new password was known");

        producing.abort();
        let all = accepted.lock().unwrap().clone();
        until("all has run", || all.iter().all(|id| runs.lock().unwrap().contains_key(id))).await;
        control.stop();
        working.await.unwrap().unwrap();
        assert!(runs.lock().unwrap().values().all(|runs| *runs == 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_file_may_change_while_everything_runs() {
    let Some(world) = World::new() else { return };
    let file = world.folder.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let url = format!("{}?password_file={}", world.url(), file.display());
    let connection = Connection::surviving(&url, world.survive()).await.unwrap();
    world.outlives_a_rotation(connection, || std::fs::write(&file, "second\n").unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_asked_for_again_when_the_server_refuses_them() {
    let Some(world) = World::new() else { return };
    let password = Arc::new(Mutex::new("first"));
    let known = password.clone();
    let ask = move || {
        let credentials = Credentials::new("default", *known.lock().unwrap());
        async { Ok::<_, std::io::Error>(credentials) }
    };
    let builder = Connection::builder(&world.url()).credentials(ask).survive(world.survive());
    let connection = builder.open().await.unwrap();
    world.outlives_a_rotation(connection, || *password.lock().unwrap() = "second").await;
}

#[tokio::test]
async fn credentials_that_cannot_be_had_are_told_with_the_reason() {
    let ask = || async { Err::<Credentials, _>("the vault is sealed") };
    let builder = Connection::builder("redis://127.0.0.1:1").credentials(ask).without_spool();
    let error = builder.open().await.unwrap_err();
    assert!(error.to_string().contains("the vault is sealed"), "{error}");
    let ask = || async { Ok::<_, std::io::Error>(Credentials::password("x")) };
    let error = Connection::builder("sqlite::memory:").credentials(ask).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
