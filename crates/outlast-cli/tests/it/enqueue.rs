//! `task enqueue`: every option is stored, every form of input becomes tasks, every receipt is true.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::home::{Home, Running};

#[test]
fn every_option_is_stored() {
    let home = Home::empty();
    let id = home.enqueue(&[
        "email:welcome",
        "--payload",
        "{\"user\":42}",
        "--id",
        "w42",
        "--max-retry",
        "3",
        "--timeout",
        "1m30s",
        "--deadline",
        "2099-01-01T00:00:00Z",
        "--in",
        "1h",
        "--retention",
        "2d",
        "--group",
        "g",
        "--header",
        "trace=a=b",
        "--header",
        "tenant=acme",
    ]);
    assert_eq!(id, "w42");
    let task = home.task("w42");
    let expected = json!({
        "type": "email:welcome", "queue": "default", "state": "scheduled", "payload": "{\"user\":42}",
        "max_retry": 3, "retried": 0, "timeout": "1m30s", "deadline": "2099-01-01T00:00:00Z",
        "group": "g", "headers": {"trace": "a=b", "tenant": "acme"}, "retention": "48h",
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&task[name], value, "{name}");
    }
    assert!(task["next_at"].is_string());
}

#[test]
fn a_payload_comes_from_a_file_from_stdin_or_not_at_all_and_may_be_any_bytes() {
    let home = Home::empty();
    home.write("payload", b"\xff\x00");
    let from_file = home.enqueue(&["t", "--payload-file", "payload"]);
    assert_eq!(home.task(&from_file)["payload_base64"], "/wA=");
    assert_eq!(home.task(&from_file).get("payload"), None);
    let piped = home.pipe(&["task", "enqueue", "t", "--payload-file", "-", "--json"], b"a\nb");
    let id = piped.objects()[0]["id"].as_str().expect("has an id").to_owned();
    assert_eq!(home.task(&id)["payload"], "a\nb");
    assert_eq!(home.task(&home.enqueue(&["t"]))["payload"], "");
}

#[test]
fn a_second_task_with_the_id_or_the_unique_lock_of_the_first_ends_with_6() {
    let home = Home::empty();
    home.enqueue(&["t", "--id", "one"]);
    let again = home.run(&["task", "enqueue", "t", "--id", "one", "--json"]);
    again.refused(6, "a task with id one is in default already");
    assert_eq!(again.objects()[0]["receipt"], "conflict");
    let first = home.enqueue(&["t", "--payload", "p", "--unique", "1h"]);
    let again = home.run(&["task", "enqueue", "t", "--payload", "p", "--unique", "1h", "--json"]);
    again.refused(6, "duplicate of");
    let receipt = again.objects().remove(0);
    assert_eq!((&receipt["receipt"], &receipt["state"]), (&json!("duplicate"), &json!(null)));
    assert!(receipt["duplicate_of"].is_null() || receipt["duplicate_of"] == json!(first));
}

#[test]
fn lines_of_stdin_become_tasks_with_the_options_of_the_command_line() {
    let home = Home::empty();
    let args = ["task", "enqueue", "t", "--from-lines", "--queue", "q", "--max-retry", "1"];
    let ran = home.pipe(&args, b"one\n\ntwo\xff\nthree");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "3 accepted\n"), "{ran:?}");
    let tasks = home.json(&["task", "list", "--queue", "q", "--state", "pending"]);
    let payloads: Vec<_> = tasks.iter().map(|task| &task["payload"]).collect();
    assert_eq!(payloads, [&json!("one"), &json!(null), &json!("three")]);
    assert!(tasks.iter().all(|task| task["max_retry"] == 1 && task["type"] == "t"));
}

#[test]
fn lines_of_json_have_the_options_as_fields_and_payloads_of_any_shape() {
    let home = Home::empty();
    home.write(
        "tasks.ndjson",
        concat!(
            "{\"type\":\"a\",\"id\":\"1\",\"payload\":\"text\",\"max_retry\":7,\"timeout\":\"2m\",\"retention\":\"1h\"}\n",
            "{\"id\":\"2\",\"payload\":{\"x\": [1]},\"headers\":{\"k\":\"v\"},\"in\":\"1h\"}\n",
            "{\"id\":\"3\",\"payload_base64\":\"/wA=\",\"group\":\"g\",\"deadline\":\"2099-01-01T00:00:00Z\"}\n",
            "{\"id\":\"4\",\"at\":\"2099-01-01T00:00:00Z\",\"unique\":\"1h\"}\n",
        ),
    );
    let receipts =
        home.json(&["task", "enqueue", "b", "--file", "tasks.ndjson", "--header", "h=1"]);
    let ids: Vec<_> = receipts.iter().map(|receipt| receipt["id"].clone()).collect();
    assert_eq!(ids, ["1", "2", "3", "4"]);
    let (one, two, three, four) = (home.task("1"), home.task("2"), home.task("3"), home.task("4"));
    assert_eq!(
        (&one["type"], &one["payload"], &one["timeout"]),
        (&json!("a"), &json!("text"), &json!("2m"))
    );
    assert_eq!((&two["type"], &two["payload"]), (&json!("b"), &json!("{\"x\": [1]}")));
    assert_eq!(two["headers"], json!({"h": "1", "k": "v"}));
    assert_eq!(
        (&three["payload_base64"], &three["state"]),
        (&json!("/wA="), &json!("aggregating"))
    );
    assert_eq!(four["next_at"], "2099-01-01T00:00:00Z");
}

#[test]
fn one_bad_line_among_thousands_is_reported_and_the_rest_enqueued() {
    let home = Home::empty();
    let line = |n: usize| match n {
        1234 => "{\"type\":\"t\",\"payload\":}\n".to_owned(),
        n => format!("{{\"type\":\"t\",\"id\":\"{n}\"}}\n"),
    };
    home.write("tasks.ndjson", (1..=3000).map(line).collect::<String>());
    let ran = home.run(&["task", "enqueue", "--file", "tasks.ndjson", "--json"]);
    ran.refused(3, "line 1234: is no good JSON");
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    let receipts = ran.objects();
    assert_eq!(receipts.len(), 3000);
    for (n, receipt) in (1..).zip(&receipts) {
        assert_eq!(receipt["line"], json!(n));
        let expected = if n == 1234 { "rejected" } else { "accepted" };
        assert_eq!(receipt["receipt"], expected);
    }
    assert_eq!(home.json(&["queue", "show", "default"])[0]["pending"], 2999);
}

#[test]
fn a_line_with_a_wrong_option_is_reported_with_its_reason() {
    let home = Home::empty();
    let text = b"{\"type\":\"t\"}\n{\"type\":\"t\",\"timeout\":\"500ms\"}\n{\"type\":\"t\",\"queue\":\"\"}\n";
    let ran = home.pipe(&["task", "enqueue", "--file", "-"], text);
    ran.refused(3, "line 2: timeout 500ms is too short");
    assert!(ran.stderr.contains("line 3: queue name \"\" is blank"), "{ran:?}");
    assert_eq!(ran.stdout, "1 accepted, 2 rejected\n");
}

#[test]
fn the_first_lines_that_were_taken_already_are_named() {
    let home = Home::empty();
    let lines: String = (1..=12).map(|n| format!("{{\"type\":\"t\",\"id\":\"{n}\"}}\n")).collect();
    home.write("tasks", lines);
    home.json(&["task", "enqueue", "--file", "tasks"]);
    let again = home.run(&["task", "enqueue", "--file", "tasks"]);
    again.refused(6, "line 1: a task with id 1 is there already\n");
    assert!(
        again.stderr.contains("line 10: a task with id 10 is there already; there may be more")
    );
    assert_eq!(again.stderr.lines().count(), 10, "{again:?}");
    let unique = ["task", "enqueue", "t", "--from-lines", "--unique", "1h"];
    home.pipe(&unique, b"same\nsame\n").refused(3, "line 2: is a duplicate of task ");
}

#[test]
fn files_without_a_good_line_end_with_2_and_empty_ones_with_0() {
    let home = Home::empty();
    assert_eq!(home.pipe(&["task", "enqueue", "--file", "-"], b"nonsense\n").code, 2);
    let empty = home.pipe(&["task", "enqueue", "--file", "-"], b"");
    assert_eq!((empty.code, empty.stdout.as_str()), (0, "0 accepted\n"));
    home.run(&["task", "enqueue", "--file", "missing"]).refused(2, "could not read missing");
}

#[test]
fn a_receipt_is_printed_before_the_next_line_is_even_written() {
    let home = Home::empty();
    let mut command = home.command(&["task", "enqueue", "--file", "-", "--json"]);
    let mut running = Running::spawn(command.stdin(Stdio::piped()));
    let mut stdin = running.child().stdin.take().expect("stdin is piped");
    for id in ["one", "two"] {
        stdin
            .write_all(format!("{{\"type\":\"t\",\"id\":\"{id}\"}}\n").as_bytes())
            .expect("is read");
        assert!(running.line().contains(&format!("\"id\":\"{id}\"")));
    }
    drop(stdin);
    assert_eq!(running.wait(), 0);
}
