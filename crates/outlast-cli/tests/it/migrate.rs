//! Moving everything to another broker and back, while both are in use.

use std::collections::BTreeSet;

use outlast_testkit::server::RedisServer;
use serde_json::Value;

use crate::home::{Home, Ran};

const HANDLERS: &str = "[queues]\ndefault = 1\npaused = 1\n\
    [[handler]]\ntype = 'good'\ncommand = ['cat']\n[[handler]]\ntype = 'bad'\ncommand = ['false']\n\
    [[handler]]\ntype = 'wait'\ncommand = ['sh', '-c', 'cat go']\n";

/// A home on an embedded broker, with a Redis server beside it.
fn beside_redis(test: impl FnOnce(&Home, &str)) {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    let home = Home::with(&format!("broker = 'sqlite://one.db'\n{HANDLERS}"));
    test(&home, &server.url());
}

fn migrate(home: &Home, from: &str, to: &str, more: &[&str]) -> Ran {
    home.run(&[&["migrate", "--from", from, "--to", to, "--json"], more].concat())
}

/// The rows of a migration that must have ended well.
fn moved(home: &Home, from: &str, to: &str, more: &[&str]) -> Vec<Value> {
    let ran = migrate(home, from, to, more);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.objects()
}

/// All tasks of all queues at a broker, each with everything that is shown of it, by id.
fn all_tasks(home: &Home, broker: &str) -> Vec<Value> {
    let mut tasks = Vec::new();
    for queue in home.json(&["queue", "list", "--broker", broker]) {
        let queue = queue["queue"].as_str().expect("a name");
        let states = ["pending", "scheduled", "retry", "aggregating", "archived", "completed"];
        for state in states {
            let list = ["task", "list", "--queue", queue, "--state", state, "--broker", broker];
            tasks.extend(home.json(&list));
        }
    }
    tasks.sort_by_key(|task| task["id"].as_str().unwrap_or_default().to_owned());
    tasks
}

/// Moments to the second, which is what a Redis broker keeps of them; `next_at` of a pending task is now.
fn to_the_second(mut task: Value) -> Value {
    let is_pending = task["state"] == "pending";
    for (name, value) in task.as_object_mut().expect("an object") {
        if let Some((moment, _)) = value.as_str().and_then(|text| text.split_once('.'))
            && name.ends_with("_at")
        {
            *value = format!("{moment}Z").into();
        }
        if name == "pending_since" || (is_pending && name == "next_at") {
            *value = Value::Null;
        }
    }
    task
}

/// Tasks in every state but active, in two queues, one of them paused.
fn fill(home: &Home) {
    home.enqueue(&["good", "--id", "done", "--payload", "p", "--retention", "1h"]);
    home.enqueue(&["bad", "--id", "dead", "--max-retry", "0"]);
    home.enqueue(&["bad", "--id", "again", "--max-retry", "3"]);
    let mut worker = home.start(&["work"]);
    for (id, state) in [("done", "completed"), ("dead", "archived"), ("again", "retry")] {
        home.until(id, state);
    }
    worker.signal("-TERM");
    worker.wait();
    home.enqueue(&["good", "--id", "later", "--in", "1h", "--unique", "2h"]);
    home.enqueue(&["good", "--id", "member", "--group", "g", "--header", "a=b"]);
    home.json(&["queue", "pause", "paused"]);
    for id in ["1", "2", "3"] {
        home.enqueue(&["good", "--queue", "paused", "--id", id, "--timeout", "90s"]);
    }
}

#[test]
fn everything_moves_to_redis_and_back_and_is_the_same() {
    beside_redis(|home, redis| {
        fill(home);
        let one = "sqlite://one.db";
        let before = all_tasks(home, one);
        assert_eq!(before.len(), 8, "{before:?}");
        let stats = home.json(&["stats"]).remove(0);
        let lines = moved(home, one, redis, &["--wait", "0s"]);
        let sum = |name: &str| lines.iter().filter_map(|line| line[name].as_u64()).sum::<u64>();
        assert_eq!((sum("taken"), sum("stored"), sum("verified")), (8, 8, 8), "{lines:?}");
        assert_eq!((sum("refused"), sum("left"), sum("started")), (0, 0, 0), "{lines:?}");
        assert_eq!(all_tasks(home, one), [] as [Value; 0]);
        let there: Vec<_> = all_tasks(home, redis).into_iter().map(to_the_second).collect();
        let was: Vec<_> = before.into_iter().map(to_the_second).collect();
        assert_eq!(there, was);
        let paused = home.json(&["queue", "show", "paused", "--broker", redis]).remove(0);
        assert!(paused["paused_since"].is_string(), "{paused}");
        assert_eq!(home.json(&["fsck", "--broker", redis]), [] as [Value; 0]);
        moved(home, redis, "sqlite://two.db", &[]);
        let two = "sqlite://two.db";
        let back: Vec<_> = all_tasks(home, two).into_iter().map(to_the_second).collect();
        assert_eq!(back, was);
        let again = home.json(&["stats", "--broker", two]).remove(0);
        for counter in ["processed_total", "failed_total", "processed_today", "failed_today"] {
            assert_eq!(again[counter], stats[counter], "{counter}");
        }
        let duplicate = ["good", "--in", "1h", "--unique", "2h", "--broker", two];
        home.run(&[&["task", "enqueue"], &duplicate[..]].concat()).refused(6, "later");
    });
}

#[test]
fn a_namespace_moves_to_another_one_of_the_same_server() {
    beside_redis(|home, redis| {
        let (from, to) = (redis.to_owned(), format!("{redis}/0?namespace=other"));
        let more = ["--broker", &from, "--id", "a", "--unique", "1h", "--payload", "x"];
        home.enqueue(&[&["good"], &more[..]].concat());
        moved(home, &from, &to, &[]);
        assert_eq!(all_tasks(home, &from), [] as [Value; 0]);
        let there = all_tasks(home, &to);
        assert_eq!((there.len(), &there[0]["payload"]), (1, &"x".into()));
        let fsck = home.json(&["fsck", "--broker", &to]);
        assert_eq!(fsck, [] as [Value; 0]);
    });
}

#[test]
fn a_dry_run_counts_and_moves_nothing() {
    let home = Home::with(&format!("broker = 'sqlite://one.db'\n{HANDLERS}"));
    fill(&home);
    let rows = moved(&home, "sqlite://one.db", "sqlite://two.db", &["--dry-run"]);
    let counts = rows.iter().map(|row| row["tasks"].as_u64().expect("a number")).sum::<u64>();
    assert_eq!(counts, 8, "{rows:?}");
    assert_eq!(all_tasks(&home, "sqlite://one.db").len(), 8);
    assert!(!home.path("two.db").exists());
}

#[test]
fn only_the_queues_that_are_named_move() {
    let home = Home::with(&format!("broker = 'sqlite://one.db'\n{HANDLERS}"));
    fill(&home);
    let lines = moved(&home, "sqlite://one.db", "sqlite://two.db", &["--queue", "paused"]);
    assert_eq!((lines.len(), &lines[0]["stored"]), (1, &3.into()));
    assert_eq!(all_tasks(&home, "sqlite://one.db").len(), 5);
    assert_eq!(all_tasks(&home, "sqlite://two.db").len(), 3);
}

#[test]
fn what_cannot_be_moved_is_named() {
    let home = Home::with(&format!("broker = 'sqlite://one.db'\n{HANDLERS}"));
    home.enqueue(&["good", "--id", "a"]);
    let one = "sqlite://one.db";
    let refused = |from: &str, to: &str, more: &[&str], code: i32, why: &str| {
        migrate(&home, from, to, more).refused(code, why);
    };
    refused(one, "sqlite:one.db", &[], 2, "lead to the same tasks");
    refused("mysql://h", one, &[], 2, "could not open the broker of --from");
    refused(one, "mysql://h", &[], 2, "could not open the broker of --to");
    refused("sqlite://none.db", one, &[], 5, "no file none.db");
    refused(one, "sqlite::memory:", &[], 2, "ends with it");
    refused(one, "sqlite://two.db", &["--queue", "defalt"], 5, "did you mean default?");
    refused(one, "redis://127.0.0.1:1", &[], 4, "could not open the broker of --to");
    refused(one, "sqlite://two.db", &["--broker", one], 2, "no --broker");
    home.run(&["migrate", "--from", one]).refused(2, "--to");
    assert!(!home.path("none.db").exists());
    assert_eq!(all_tasks(&home, one).len(), 1);
}

#[test]
fn tasks_that_the_target_has_already_stay_and_are_named() {
    let home = Home::with(&format!("broker = 'sqlite://one.db'\n{HANDLERS}"));
    let (one, two) = ("sqlite://one.db", "sqlite://two.db");
    for id in ["a", "b", "c"] {
        home.enqueue(&["good", "--id", id, "--payload", "mine"]);
    }
    home.enqueue(&["good", "--id", "b", "--payload", "theirs", "--broker", two]);
    let ran = migrate(&home, one, two, &[]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let line = &ran.objects()[0];
    assert_eq!(
        (&line["taken"], &line["stored"], &line["refused"]),
        (&3.into(), &2.into(), &1.into())
    );
    assert_eq!(line["refusals"][0]["id"], "b");
    let ids = |broker: &str| -> Vec<Value> {
        all_tasks(&home, broker).iter().map(|task| task["id"].clone()).collect()
    };
    assert_eq!((ids(one), ids(two)), (vec!["b".into()], vec!["a".into(), "b".into(), "c".into()]));
    home.json(&["task", "delete", "b", "--broker", two]);
    moved(&home, one, two, &[]);
    assert_eq!(home.json(&["task", "show", "b", "--broker", two])[0]["payload"], "mine");
}

#[test]
fn running_tasks_are_waited_for_and_then_named() {
    beside_redis(|home, redis| {
        let one = "sqlite://one.db";
        home.fifo("go");
        let mut worker = home.start(&["work"]);
        home.enqueue(&["wait", "--id", "w", "--retention", "1h"]);
        home.until("w", "active");
        let ran = migrate(home, one, redis, &["--wait", "0s"]);
        assert_eq!(ran.code, 3, "{ran:?}");
        let line = ran.objects().pop().expect("a line");
        assert_eq!((&line["state"], &line["left"]), (&"active".into(), &1.into()));
        home.write("go", "the result");
        moved(home, one, redis, &["--wait", "60s"]);
        let task = home.json(&["task", "show", "w", "--broker", redis]).remove(0);
        assert_eq!((&task["state"], &task["result"]), (&"completed".into(), &"the result".into()));
        worker.signal("-TERM");
        worker.wait();
    });
}

/// The queues were listed once, at the beginning: tasks of a later one stayed, and the exit was 0.
#[test]
fn a_queue_that_comes_while_others_move_moves_too() {
    beside_redis(|home, redis| {
        let one = "sqlite://one.db";
        home.fifo("go");
        let mut worker = home.start(&["work"]);
        home.enqueue(&["wait", "--id", "w"]);
        home.until("w", "active");
        home.enqueue(&["good", "--id", "first", "--in", "1h"]);
        let args = ["migrate", "--from", one, "--to", redis, "--wait", "60s", "--json"];
        let mut moving = home.start(&args);
        let has_moved = |queue: &str| {
            let ran = home.run(&["queue", "show", queue, "--json", "--broker", redis]);
            ran.objects().first().is_some_and(|queue| queue["scheduled"] == 1)
        };
        while !has_moved("default") {}
        home.enqueue(&["good", "--queue", "late", "--id", "second", "--in", "1h"]);
        home.write("go", "");
        moving.wait();
        assert!(has_moved("late"));
        worker.signal("-TERM");
        worker.wait();
    });
}

#[test]
fn a_killed_move_is_begun_again_until_every_task_is_there_once() {
    const TASKS: usize = 3000;
    const KILLS: usize = 5;
    beside_redis(|home, redis| {
        let one = "sqlite://one.db";
        let lines: String =
            (0..TASKS).map(|n| format!("{{\"type\":\"good\",\"id\":\"{n:04}\"}}\n")).collect();
        home.write("tasks", lines);
        home.json(&["task", "enqueue", "--file", "tasks"]);
        for kill in 1..=KILLS {
            let args = ["migrate", "--from", one, "--to", redis, "--rate", "3000"];
            let mut run = home.start(&args);
            let there = |broker: &str| {
                let ran = home.run(&["queue", "show", "default", "--json", "--broker", broker]);
                ran.objects().first().map_or(0, |queue| queue["pending"].as_u64().unwrap_or(0))
            };
            let enough = (kill * TASKS / (KILLS + 1)) as u64;
            while there(redis) < enough {}
            run.signal("-KILL");
            assert_eq!(run.wait(), -1, "it ended before it was killed");
        }
        moved(home, one, redis, &[]);
        let pending = |broker: &str| -> Vec<String> {
            let list =
                ["task", "list", "--state", "pending", "--limit", "5000", "--broker", broker];
            let ids = home.json(&list).into_iter();
            ids.map(|task| task["id"].as_str().expect("an id").to_owned()).collect()
        };
        let ids = pending(redis);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), TASKS, "none is lost");
        assert_eq!(ids.len(), TASKS, "none is there twice");
        assert!(ids.is_sorted(), "in the order of the line");
        assert_eq!(pending(one), [""; 0]);
        assert_eq!(home.json(&["fsck", "--broker", redis]), [] as [Value; 0]);
    });
}
