//! The program while its server is away: tasks are stored, and the server has them when it is back.

use outlast_testkit::server::RedisServer;
use serde_json::Value;

use crate::home::Home;

#[test]
fn tasks_that_are_enqueued_while_the_server_is_away_reach_it_when_it_is_back() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().persistent().start()) else {
        return;
    };
    let handler = "[[handler]]\ntype = 'good'\ncommand = ['cat']\n";
    let home = Home::with(&format!("broker = '{}'\n{handler}", server.url()));
    assert_eq!(home.run(&["outage"]).code, 0);
    server.kill9();

    let stored = home.run(&["task", "enqueue", "good", "--id", "a", "--retention", "1h", "--json"]);
    assert_eq!(stored.code, 0, "{stored:?}");
    assert!(stored.stdout.contains("\"receipt\":\"stored\""), "{stored:?}");
    let many = home.pipe(&["task", "enqueue", "good", "--from-lines"], b"1\n2\n3\n");
    assert_eq!((many.code, many.stdout.as_str()), (0, "3 accepted\n"), "{many:?}");
    let failed = home.run(&["task", "enqueue", "good", "--on-outage", "fail"]);
    assert_eq!(failed.code, 4, "{failed:?}");
    let waited = home.run(&["task", "enqueue", "good", "--on-outage", "50ms"]);
    assert_eq!(waited.code, 4, "{waited:?}");

    let outage = home.run(&["outage", "--json"]);
    assert_eq!(outage.code, 4, "{outage:?}");
    let shown: Value = serde_json::from_str(&outage.stdout).expect("an object");
    assert_eq!((&shown["state"], &shown["stored"]), (&"down".into(), &4.into()), "{shown}");
    assert!(shown["oldest"].is_string() && shown["reason"].is_string(), "{shown}");
    assert_eq!((&shown["drain_per_second"], &shown["eta_seconds"]), (&0.0.into(), &Value::Null));
    let waiting = home.json(&["outbox", "list"]);
    assert_eq!((waiting.len(), &waiting[0]["id"]), (4, &"a".into()));
    let in_vain = home.run(&["outbox", "flush", "--timeout", "100ms"]);
    assert_eq!((in_vain.code, in_vain.stdout.contains("4 wait")), (4, true), "{in_vain:?}");

    server.restart().expect("starts again");
    let flushed = home.json(&["outbox", "flush"]).remove(0);
    assert_eq!((&flushed["delivered"], &flushed["waiting"]), (&4.into(), &0.into()));
    assert_eq!(home.json(&["outage"])[0]["state"], "up");
    home.work();
    assert_eq!(home.task("a")["state"], "completed");
}

#[test]
fn since_when_it_is_down_is_asked_of_the_processes_that_use_it() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().persistent().start()) else {
        return;
    };
    let handler = "[[handler]]\ntype = 'good'\ncommand = ['cat']\n";
    let home = Home::with(&format!("broker = '{}'\n{handler}", server.url()));
    let looked = |is: &dyn Fn(&Value) -> bool| {
        let looks = std::iter::repeat_with(|| home.run(&["outage", "--json"]));
        let shown = looks.take(1000).map(|ran| ran.objects().remove(0));
        shown.into_iter().find(is).expect("in the end it is so")
    };
    let mut worker = home.start(&["work"]);
    let has_signed_on = |_: &Value| !home.json(&["worker", "list"]).is_empty();
    looked(&has_signed_on);
    server.kill9();
    let shown = looked(&|shown| shown["since"].is_string());
    let process = &shown["processes"][0];
    assert_eq!(process["pid"], worker.child().id(), "{shown}");
    assert_eq!((&shown["since"], &shown["state"]), (&process["since"], &"down".into()));
    assert!(process["reason"].is_string() && process["consume"] != "closed", "{shown}");
    let table = home.run(&["outage"]);
    assert!(table.stdout.contains("down since"), "{table:?}");

    server.restart().expect("starts again");
    let shown = looked(&|shown| shown["processes"] == Value::Array(Vec::new()));
    assert_eq!((&shown["state"], &shown["since"]), (&"up".into(), &Value::Null), "{shown}");
}

#[test]
fn looking_makes_no_outbox() {
    let home = alone();
    assert_eq!(home.run(&["outage"]).code, 4);
    assert_eq!(home.run(&["queue", "list"]).code, 4);
    assert!(!home.path(".local").exists());
}

#[test]
fn the_embedded_broker_has_no_outbox_and_says_so() {
    let home = Home::with("");
    home.run(&["outbox", "list"]).refused(2, "the embedded broker has no outbox");
    assert_eq!(home.json(&["outage"])[0]["state"], "up");
}

/// A home whose server does not answer.
fn alone() -> Home {
    Home::with("broker = 'redis://127.0.0.1:1'")
}

#[test]
fn a_task_that_waits_is_shown_and_exported_with_all_that_was_handed_in() {
    let home = alone();
    let full = [
        r#"{"type":"mail","payload":{"user":7},"queue":"post","id":"a","max_retry":3,"timeout":"1m30s","#,
        r#""deadline":"2099-01-02T03:04:05Z","at":"2098-01-02T03:04:05Z","unique":"1h","retention":"2h","#,
        r#""headers":{"trace":"t7"}}"#,
    ];
    let lines =
        [&full.concat(), r#"{"type":"bytes","payload_base64":"/w==","id":"b","group":"g"}"#];
    let text = format!("{}\n", lines.join("\n"));
    let stored = home.pipe(&["task", "enqueue", "--file", "-"], text.as_bytes());
    assert_eq!(stored.code, 0, "{stored:?}");

    let shown = home.json(&["outbox", "show", "a"]);
    let [shown] = shown.as_slice() else { panic!("{shown:?}") };
    assert_eq!(
        (&shown["shelf"], &shown["queue"], &shown["timeout"]),
        (&"line".into(), &"post".into(), &"1m30s".into())
    );
    home.run(&["outbox", "show", "nobody"]).refused(5, "no task nobody is in the outbox");

    let exported = home.run(&["outbox", "export"]);
    assert_eq!(exported.code, 0, "{exported:?}");
    let elsewhere = alone();
    let read = elsewhere.pipe(&["task", "enqueue", "--file", "-"], exported.stdout.as_bytes());
    assert_eq!(read.code, 0, "{read:?}");
    let again = elsewhere.run(&["outbox", "export"]);
    let sorted = |ran: &crate::home::Ran| {
        let mut lines: Vec<String> = ran.stdout.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    // Every field came back as it was.
    assert_eq!((sorted(&again), exported.objects().len()), (sorted(&exported), 2));
    // Two queues, whose order among each other is nobody's promise.
    let objects = exported.objects();
    let first = objects.iter().find(|task| task["id"] == "a").expect("it is there");
    let wanted: Value = serde_json::from_str(&full.concat()).expect("an object");
    for (name, value) in wanted.as_object().expect("an object").iter() {
        let value = if name == "payload" { &Value::from(value.to_string()) } else { value };
        assert_eq!(&first[name], value, "{name}");
    }
    let quarantine = home.run(&["outbox", "export", "--quarantine"]);
    assert_eq!((quarantine.code, quarantine.stdout.as_str()), (0, ""), "{quarantine:?}");
}

#[test]
fn the_quarantine_is_exported_on_request_and_what_cannot_be_read_is_told() {
    let home = alone();
    for id in ["late", "torn", "waits"] {
        assert_eq!(home.enqueue(&["good", "--id", id]), id);
    }
    // What the drain does with tasks that it cannot deliver, and a bit that flips on the disk.
    let put_away = "UPDATE item SET record = x'00' WHERE name = 'torn';
        INSERT INTO quarantine (store, queue, name, durability, stored_at, put_at, why, record)
        SELECT store, queue, name, durability, stored_at, stored_at, 'too late', record
        FROM item WHERE name <> 'waits';
        DELETE FROM item WHERE name <> 'waits'";
    let shown = home.run(&["outage", "--json"]).objects().remove(0);
    let path = shown["spool"].as_str().expect("it has a file");
    let spool = rusqlite::Connection::open(path).expect("the spool is there");
    spool.execute_batch(put_away).expect("runs");

    let late = home.json(&["outbox", "show", "late"]).remove(0);
    assert_eq!(
        (&late["shelf"], &late["why"]),
        (&"quarantine".into(), &"too late".into()),
        "{late}"
    );
    let torn = home.json(&["outbox", "show", "torn"]).remove(0);
    assert!(torn["error"].is_string() && torn["type"].is_null(), "{torn}");
    let waiting = home.json(&["outbox", "export"]);
    assert_eq!((waiting.len(), &waiting[0]["id"]), (1, &"waits".into()));
    let quarantine = home.run(&["outbox", "export", "--quarantine"]);
    let exported = quarantine.objects();
    assert_eq!((exported.len(), &exported[0]["id"]), (1, &"late".into()));
    assert_eq!(quarantine.code, 3, "{quarantine:?}");
    assert!(quarantine.stderr.contains("1 tasks cannot be read"), "{quarantine:?}");
}
