//! `fsck`: what it finds decides how it ends.

use outlast_testkit::server::RedisServer;

use crate::home::Home;

#[test]
fn a_check_ends_with_1_if_something_is_wrong_and_with_0_when_it_is_repaired() {
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    let home = Home::with(&format!("broker = '{}'", server.url()));
    home.enqueue(&["t", "--id", "a"]);
    home.enqueue(&["t", "--id", "b", "--in", "1h"]);
    assert_eq!(home.json(&["fsck"]), [] as [serde_json::Value; 0]);
    server.command(&["ZREM", "asynq:{default}:scheduled", "b"]).expect("the server answers");
    server.command(&["LPUSH", "asynq:{default}:pending", "gone"]).expect("the server answers");
    let ran = home.run(&["fsck", "--json"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let found = ran.objects();
    let defects: Vec<_> = found.iter().map(|found| (&found["defect"], &found["id"])).collect();
    assert_eq!(defects, [(&"ghost".into(), &"gone".into()), (&"orphan".into(), &"b".into())]);
    assert!(found.iter().all(|found| found["repaired"] == false && found["queue"] == "default"));
    let table = home.run(&["fsck", "default"]);
    assert_eq!(table.code, 1, "{table:?}");
    assert!(table.stdout.starts_with("QUEUE") && table.stderr.contains("2 findings, 0 of them"));
    let repaired = home.json(&["fsck", "--repair"]);
    assert!(repaired.len() == 2 && repaired.iter().all(|found| found["repaired"] == true));
    assert_eq!(home.json(&["fsck"]), [] as [serde_json::Value; 0]);
    assert_eq!(home.task("b")["state"], "scheduled");
}

#[test]
fn a_queue_that_is_not_there_and_a_broker_that_checks_itself_are_refused() {
    Home::empty().run(&["fsck"]).refused(2, "the embedded broker checks itself");
    let Some(server) = RedisServer::or_skip(RedisServer::start()) else { return };
    let home = Home::with(&format!("broker = '{}'", server.url()));
    home.enqueue(&["t", "--queue", "mail"]);
    home.run(&["fsck", "mial"]).refused(5, "no queue mial; did you mean mail?");
}
