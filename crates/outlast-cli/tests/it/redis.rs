//! The program on a Redis server: the same commands with the same answers.

use outlast_testkit::server::RedisServer;

use crate::home::Home;

const CONFIG: &str = "[[handler]]\ntype = 'good'\ncommand = ['cat']\n[[handler]]\ntype = 'bad'\ncommand = ['false']\n\
    [[handler]]\ntype = 'hang'\ncommand = ['sleep', '600']\n\
    [[schedule]]\nname = 'tick'\ncron = '@yearly'\ntype = 'good'\n";

/// A test on a server of its own.
fn on_redis(test: impl FnOnce(&Home)) {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    test(&Home::with(&format!("broker = '{}'\n{CONFIG}", server.url())));
}

#[test]
fn tasks_are_enqueued_run_and_counted() {
    on_redis(|home| {
        let id = home.enqueue(&["good", "--payload", "hello", "--retention", "1h"]);
        home.enqueue(&["bad", "--max-retry", "0", "--id", "b"]);
        let many = home.pipe(&["task", "enqueue", "good", "--from-lines"], b"1\n2\n3\n");
        assert_eq!((many.code, many.stdout.as_str()), (0, "3 accepted\n"), "{many:?}");
        home.work();
        let task = home.task(&id);
        assert_eq!((&task["state"], &task["result"]), (&"completed".into(), &"hello".into()));
        assert_eq!(home.task("b")["state"], "archived");
        let stats = home.json(&["stats"]).remove(0);
        assert_eq!((&stats["processed_total"], &stats["failed_total"]), (&5.into(), &1.into()));
        assert_eq!(home.json(&["queue", "history", "default", "--days", "1"])[0]["processed"], 5);
        home.run(&["task", "enqueue", "good", "--id", "b"]).refused(6, "is in default already");
    });
}

#[test]
fn tasks_are_acted_on_and_queues_controlled() {
    on_redis(|home| {
        home.enqueue(&["good", "--id", "a", "--in", "1h"]);
        for (verb, state) in [("run", "pending"), ("archive", "archived")] {
            assert_eq!(home.json(&["task", verb, "a"])[0]["changed"], 1, "{verb}");
            assert_eq!(home.task("a")["state"], state);
        }
        assert_eq!(home.json(&["task", "list"]).len(), 1);
        home.run(&["queue", "remove", "default"]).refused(6, "holds 1 tasks");
        home.json(&["task", "delete", "a"]);
        assert_eq!(home.json(&["queue", "pause", "default"])[0]["changed"], true);
        assert!(home.json(&["queue", "show", "default"])[0]["paused_since"].is_string());
        assert_eq!(home.json(&["queue", "resume", "default"])[0]["changed"], true);
        home.json(&["queue", "remove", "default"]);
        home.run(&["queue", "show", "default"]).refused(5, "no queue default");
    });
}

#[test]
fn workers_and_schedules_are_listed_and_asked() {
    on_redis(|home| {
        let mut up = home.start(&["up", "--json"]);
        home.enqueue(&["hang", "--id", "h"]);
        home.until("h", "active");
        let worker = home.json(&["worker", "list"]).remove(0);
        assert_eq!(worker["status"], "running");
        assert_eq!(home.json(&["schedule", "list"])[0]["name"], "tick");
        home.json(&["schedule", "run", "tick"]);
        assert!(!home.json(&["schedule", "history", "tick"]).is_empty());
        home.json(&["task", "cancel", "h"]);
        home.until("h", "retry");
        home.json(&["worker", "stop", worker["id"].as_str().expect("an id")]);
        assert_eq!(up.wait(), 0, "{}", home.read("log"));
        assert_eq!(home.json(&["fsck"]), [] as [serde_json::Value; 0]);
    });
}

#[test]
fn a_server_that_is_not_there_is_named_without_its_password() {
    let ran = Home::empty().run(&["stats", "--broker", "redis://u:secret@127.0.0.1:1"]);
    ran.refused(4, "could not open the broker");
    assert!(!ran.stderr.contains("secret"), "{ran:?}");
}
