//! The program while its server is away: tasks are stored, and the server has them when it is back.

use outlast_testkit::server::RedisServer;

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
    let shown: serde_json::Value = serde_json::from_str(&outage.stdout).expect("an object");
    assert_eq!((&shown["state"], &shown["stored"]), (&"down".into(), &4.into()), "{shown}");
    assert!(shown["oldest"].is_string() && shown["reason"].is_string(), "{shown}");
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
fn the_embedded_broker_has_no_outbox_and_says_so() {
    let home = Home::with("");
    home.run(&["outbox", "list"]).refused(2, "the embedded broker has no outbox");
    assert_eq!(home.json(&["outage"])[0]["state"], "up");
}
