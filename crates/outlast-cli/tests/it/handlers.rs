//! Commands and endpoints as handlers: what they are told, and what their ends mean.

use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::home::Home;

/// A configuration that runs `script` for tasks of type `t`, with more lines for the handler.
pub(crate) fn sh(script: &str, more: &str) -> Home {
    let script = Value::from(script);
    Home::with(&format!("[[handler]]\ntype = 't'\ncommand = ['sh', '-c', {script}]\n{more}\n"))
}

#[test]
fn a_command_gets_the_payload_and_the_facts_and_its_output_is_the_result() {
    let home = sh("cat; env | grep ^OUTLAST_ | sort", "");
    let id = home.enqueue(&[
        "t",
        "--payload",
        "hello\n",
        "--id",
        "a b",
        "--max-retry",
        "2",
        "--retention",
        "1h",
        "--header",
        "trace-id=x y",
        "--header",
        "odd.name=z",
    ]);
    home.work();
    let task = home.task(&id);
    assert_eq!(task["state"], "completed");
    let expected = "hello\nOUTLAST_ATTEMPT=1\nOUTLAST_GROUP=\nOUTLAST_HEADER_TRACE_ID=x y\n\
                    OUTLAST_MAX_RETRY=2\nOUTLAST_QUEUE=default\nOUTLAST_TASK_ID=a b\nOUTLAST_TASK_TYPE=t\n";
    assert_eq!(task["result"], expected);
    assert!(task["completed_at"].is_string());
}

#[test]
fn exit_codes_decide_what_becomes_of_a_task() {
    let home = sh("echo why >&2; exit $(cat)", "snooze = '1h'");
    let ids = ["0", "65", "66", "75", "3"].map(|code| {
        home.enqueue(&[
            "t",
            "--payload",
            code,
            "--id",
            code,
            "--max-retry",
            "0",
            "--retention",
            "1h",
        ]);
        code
    });
    home.work();
    let state = |id: &str| home.task(id)["state"].clone();
    assert_eq!(state(ids[0]), "completed");
    let archived = home.task("65");
    assert_eq!(archived["state"], "archived");
    assert_eq!(archived["last_error"], "exit status 65: why");
    home.run(&["task", "show", "66"]).refused(5, "no task 66 in queue default");
    let snoozed = home.task("75");
    assert_eq!((&snoozed["state"], &snoozed["retried"]), (&json!("scheduled"), &json!(0)));
    let failed = home.task("3");
    assert_eq!(failed["state"], "archived", "no retries were left");
    assert_eq!(failed["last_error"], "exit status 3: why");
}

#[test]
fn a_failure_is_retried_and_the_attempt_counts_up() {
    let home = sh("echo attempt $OUTLAST_ATTEMPT; test $OUTLAST_ATTEMPT = 2 || kill -9 $$", "");
    let id = home.enqueue(&["t", "--retention", "1h", "--max-retry", "3"]);
    // The worker waits for the retry; running it by hand makes it due now.
    let mut worker = home.start(&["work"]);
    let failed = home.until(&id, "retry");
    assert_eq!(failed["last_error"], "killed by signal 9");
    assert_eq!(failed["retried"], 1);
    assert!(failed["last_failed_at"].is_string() && failed["next_at"].is_string());
    assert_eq!(home.run(&["task", "run", &id]).code, 0);
    assert_eq!(home.until(&id, "completed")["result"], "attempt 2\n");
    worker.signal("-TERM");
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_payload_can_be_an_argument_and_is_never_read_by_a_shell() {
    let home =
        Home::with("[[handler]]\ntype = 't'\ncommand = ['printf', '%s|', 'x={payload}', 'y']");
    let id = home.enqueue(&["t", "--payload", "$(touch hacked) `x` 'q'", "--retention", "1h"]);
    home.write("nul", b"a\0b");
    let nul = home.enqueue(&["t", "--payload-file", "nul"]);
    home.work();
    assert_eq!(home.task(&id)["result"], "x=$(touch hacked) `x` 'q'|y|");
    assert!(!home.path("hacked").exists());
    let refused = home.task(&nul);
    assert_eq!(refused["state"], "archived");
    assert!(
        refused["last_error"].as_str().is_some_and(|e| e.contains("holds a NUL byte")),
        "{refused}"
    );
}

#[test]
fn the_longest_pattern_that_fits_runs_a_task() {
    let handler = |pattern: &str, says: &str| {
        format!("[[handler]]\ntype = '{pattern}'\ncommand = ['printf', '{says}']\n")
    };
    let home = Home::with(
        &[handler("*", "any"), handler("image:*", "image"), handler("image:thumb", "thumb")]
            .concat(),
    );
    for (kind, result) in [("image:thumb", "thumb"), ("image:large", "image"), ("mail", "any")] {
        home.enqueue(&[kind, "--id", kind, "--retention", "1h"]);
        home.work();
        assert_eq!(home.task(kind)["result"], result);
    }
}

#[test]
fn a_relative_command_is_found_beside_the_configuration() {
    let home = Home::empty();
    std::fs::create_dir(home.path("app")).expect("the folder can be written");
    home.write("app/outlast.toml", "[[handler]]\ntype = 't'\ncommand = ['./run.sh']");
    home.write("app/run.sh", "#!/bin/sh\necho ran\n");
    let chmod = std::process::Command::new("chmod").arg("+x").arg(home.path("app/run.sh")).status();
    assert!(chmod.expect("chmod is there").success());
    let config = ["--config", "app/outlast.toml"];
    home.json(&[&["task", "enqueue", "t", "--id", "1", "--retention", "1h"], &config[..]].concat());
    assert_eq!(home.run(&[&["work", "--exit-when-empty"], &config[..]].concat()).code, 0);
    let task = home.json(&[&["task", "show", "1"], &config[..]].concat()).remove(0);
    assert_eq!(task["result"], "ran\n");
}

#[test]
fn a_handlers_concurrency_is_a_limit_and_everything_is_run() {
    let script = "mkdir lock || exit 65; mkdir done-$OUTLAST_TASK_ID; rmdir lock";
    let home = sh(script, "concurrency = 1\n[worker]\nslots = 8");
    let lines: String = (0..40).map(|n| format!("{{\"type\":\"t\",\"id\":\"{n}\"}}\n")).collect();
    home.write("tasks", lines);
    home.json(&["task", "enqueue", "--file", "tasks"]);
    home.work();
    let stats = home.json(&["queue", "show", "default"]).remove(0);
    assert_eq!((&stats["archived"], &stats["pending"]), (&json!(0), &json!(0)), "{stats}");
    assert!((0..40).all(|n| home.path(&format!("done-{n}")).is_dir()));
}

/// Tasks of a busy handler once held every slot for a second each, and other types waited for them.
#[test]
fn a_busy_handler_does_not_starve_other_types() {
    let home = Home::with(concat!(
        "[worker]\nslots = 2\n",
        "[[handler]]\ntype = 'slow'\nconcurrency = 1\n",
        "command = ['sh', '-c', 'echo up > ready; cat go']\n",
        "[[handler]]\ntype = 'quick'\ncommand = ['true']\n",
    ));
    home.fifo("ready");
    home.fifo("go");
    home.enqueue(&["slow", "--id", "first"]);
    let mut worker = home.start(&["work"]);
    assert_eq!(home.hear("ready"), "up");
    // In the way: each would have held the other slot for a second.
    let slow = "{\"type\":\"slow\"}\n".repeat(100);
    home.write("tasks", slow);
    home.json(&["task", "enqueue", "--file", "tasks"]);
    home.enqueue(&["quick", "--id", "quick", "--retention", "1h"]);
    let quick = home.until("quick", "completed");
    assert_eq!(quick["retried"], 0);
    assert_eq!(home.task("first")["state"], "active");
    home.write("go", "on");
    worker.signal("-TERM");
    worker.child().wait().expect("ends");
}

#[test]
fn the_members_of_a_group_become_one_task() {
    let group = "[[group]]\nname = 'user:*'\ngrace = '1m'\nmax_size = 3\ntype = 't'";
    let home = sh("echo $OUTLAST_GROUP; cat", group);
    home.write("raw", b"\xff\x00");
    home.enqueue(&["note", "--id", "1", "--payload", "one", "--group", "user:7"]);
    home.enqueue(&["note", "--id", "2", "--payload-file", "raw", "--group", "user:7"]);
    home.enqueue(&["note", "--id", "3", "--payload", "{}", "--group", "user:7"]);
    let mut worker = home.start(&["work"]);
    let stats = home.until_queue("default", |stats| stats["processed_total"] == 1);
    assert_eq!(stats["aggregating"], 0);
    worker.signal("-TERM");
    assert_eq!(worker.wait(), 0);
}

#[test]
fn what_a_group_became_holds_a_line_of_json_for_each_member() {
    let group = "[[group]]\nmax_size = 2\ntype = 't'";
    let home = sh("(echo $OUTLAST_GROUP; cat) > got.tmp; mv got.tmp got", group);
    home.write("raw", b"\xff\x00");
    home.enqueue(&["note", "--id", "1", "--payload", "one", "--group", "g"]);
    home.enqueue(&["note", "--id", "2", "--payload-file", "raw", "--group", "g"]);
    let mut worker = home.start(&["work"]);
    home.until_queue("default", |stats| stats["processed_total"] == 1);
    worker.signal("-TERM");
    assert_eq!(worker.wait(), 0);
    let got = home.read("got");
    let lines: Vec<&str> = got.lines().collect();
    assert_eq!(lines[0], "g");
    assert_eq!(lines[1], "{\"id\":\"1\",\"type\":\"note\",\"payload\":\"one\"}");
    assert_eq!(lines[2], "{\"id\":\"2\",\"type\":\"note\",\"payload_base64\":\"/wA=\"}");
}

#[test]
fn an_endpoint_gets_the_task_and_its_answer_is_the_result() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("has an address");
    let server = std::thread::spawn(move || {
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfine!",
            "HTTP/1.1 422 No\r\ncontent-length: 7\r\nconnection: close\r\n\r\nno user",
        ];
        answers.map(|answer| {
            let (mut stream, _) = listener.accept().expect("a caller");
            let mut asked = Vec::new();
            let mut chunk = [0; 1024];
            while !asked.ends_with(b"body!") {
                let read = stream.read(&mut chunk).expect("a request");
                asked.extend_from_slice(&chunk[..read]);
            }
            stream.write_all(answer.as_bytes()).expect("is read");
            String::from_utf8_lossy(&asked).to_lowercase()
        })
    });
    let home = Home::with(&format!(
        "[worker]\nslots = 1\n[[handler]]\ntype = 't'\nurl = 'http://{address}/run'"
    ));
    home.enqueue(&["t", "--id", "1", "--payload", "body!", "--retention", "1h"]);
    home.enqueue(&["t", "--id", "2", "--payload", "body!"]);
    home.work();
    let asked = server.join().expect("the server ends");
    for line in ["post /run", "outlast-task-id: 1", "outlast-task-type: t", "outlast-attempt: 1"] {
        assert!(asked[0].contains(line), "{line}: {}", asked[0]);
    }
    assert_eq!(home.task("1")["result"], "fine!");
    let refused = home.task("2");
    assert_eq!(refused["state"], "archived");
    assert!(
        refused["last_error"]
            .as_str()
            .is_some_and(|e| e.ends_with("422 Unprocessable Entity: no user"))
    );
}
