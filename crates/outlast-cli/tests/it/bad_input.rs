//! Bad input: a message that names the thing and the value, and an exit code.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::home::Home;

#[test]
fn every_wrong_option_of_enqueue_is_named_with_its_value_and_ends_with_2() {
    let home = Home::empty();
    let long = "x".repeat(256);
    let cases: &[(&[&str], &str)] = &[
        (&[" "], "task type \" \" is blank"),
        (&[&long], "has 256 bytes: at most 255 are allowed"),
        (&["t", "--queue", ""], "queue name \"\" is blank"),
        (&["t", "--queue", &long], "queue name"),
        (&["t", "--queue", "{q}"], "queue name \"{q}\" holds '{'"),
        (&["t", "--id", "\t"], "task id \"\\t\" is blank"),
        (&["t", "--group", ""], "group name \"\" is blank"),
        (&["t", "--header", "novalue"], "header \"novalue\" is not written as NAME=VALUE"),
        (&["t", "--header", "=v"], "header \"=v\" has no name"),
        (
            &["t", "--timeout", "0.5s"],
            "timeout 500ms is too short: asynq stores whole seconds, use 1s",
        ),
        (&["t", "--timeout", "5"], "duration \"5\" has no unit after 5"),
        (&["t", "--unique", "500ms"], "unique 500ms is too short"),
        (&["t", "--retention", "1500ms"], "retention 1s500ms has a fraction of a second"),
        (&["t", "--deadline", "2001-01-01T00:00:00Z"], "deadline 2001-01-01T00:00:00Z has passed"),
        (&["t", "--deadline", "tomorrow"], "time \"tomorrow\" is not RFC 3339"),
        (&["t", "--at", "noon"], "time \"noon\" is not RFC 3339"),
        (&["t", "--in=-5s"], "duration \"-5s\" has a sign"),
        (&["t", "--max-retry", "many"], "max retry \"many\" is no whole number from 0 to 1000000"),
        (
            &["t", "--max-retry", "-1"],
            "--max-retry <N>': max retry \"-1\" is no whole number from 0",
        ),
        (&["t", "--max-retry", "2000000"], "max retry 2000000 is too many"),
        (&["t", "--in", "1s", "--at", "2099-01-01T00:00:00Z"], "--at"),
        (&["t", "--payload", "a", "--payload-file", "b"], "--payload-file"),
        (&["t", "--payload-file", "missing"], "could not read missing"),
        (&[], "no TYPE"),
        (&["--from-lines"], "TYPE"),
        (&["t", "--quue", "q"], "--queue"),
    ];
    for (args, message) in cases {
        home.run(&[&["task", "enqueue"], *args].concat()).refused(2, message);
    }
    assert!(home.json(&["queue", "list"]).is_empty(), "nothing of it was enqueued");
}

#[test]
fn a_task_that_is_wrong_in_itself_has_a_receipt_in_json() {
    let home = Home::empty();
    let long = "x".repeat(300);
    let cases: &[(&[&str], &str, &str)] = &[
        (&["  "], "default", "task type \"  \" is blank"),
        (&[&long], "default", "at most 255 are allowed"),
        (&["t", "--queue", ""], "", "queue name \"\" is blank"),
        (&["t", "--queue", "{q}"], "{q}", "holds '{'"),
        (&["t", "--timeout", "500ms"], "default", "timeout 500ms is too short"),
        (&["t", "--max-retry", "2000000"], "default", "max retry 2000000 is too many"),
    ];
    for (args, queue, message) in cases {
        let ran = home.run(&[&["task", "enqueue", "--json"], *args].concat());
        ran.refused(2, message);
        let receipts = ran.objects();
        assert_eq!(receipts.len(), 1, "{ran:?}");
        assert_eq!(receipts[0]["receipt"], "rejected", "{ran:?}");
        assert_eq!(receipts[0]["queue"], *queue, "{ran:?}");
        assert!(receipts[0]["error"].as_str().is_some_and(|e| e.contains(message)), "{ran:?}");
    }
}

#[test]
fn the_help_of_enqueue_and_of_workers_tells_fields_and_defaults() {
    let home = Home::empty();
    let help = |args: &[&str]| -> String {
        home.run(args).stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let fields = "type, payload or payload_base64, queue, id, max_retry, timeout, deadline, in, at, \
                  unique, retention, group, headers";
    assert!(help(&["task", "enqueue", "--help"]).contains(fields));
    for verb in ["up", "work"] {
        let help = help(&[verb, "--help"]);
        assert!(help.contains("else one a core]") && help.contains("else 8s]"), "{help}");
    }
}

#[test]
fn a_payload_over_the_limit_is_refused_with_its_size() {
    let home = Home::empty();
    home.write("large", vec![b'x'; (1 << 20) + 1]);
    home.run(&["task", "enqueue", "t", "--payload-file", "large"])
        .refused(2, "payload of 1048577 bytes is too large: at most 1048576 are allowed");
}

#[test]
fn names_that_are_no_utf8_are_refused_by_name() {
    let home = Home::empty();
    let odd = || OsString::from_vec(b"a\xff".to_vec());
    let args = |args: &[&str]| -> Vec<OsString> {
        args.iter().map(OsString::from).chain([odd()]).collect()
    };
    home.run(&args(&["task", "enqueue", "t", "--queue"]))
        .refused(2, "--queue \"a\\xFF\" is not valid UTF-8");
    home.run(&args(&["task", "enqueue"])).refused(2, "argument \"a\\xFF\" is not valid UTF-8");
    let payload = home.run(&args(&["task", "enqueue", "t", "--payload"]));
    assert_eq!(payload.code, 0, "a payload may be any bytes: {payload:?}");
}

#[test]
fn wrong_words_on_the_command_line_end_with_2_and_help_with_0() {
    let home = Home::empty();
    let cases: &[&[&str]] = &[
        &["tsk"],
        &["task"],
        &["task", "lst"],
        &["task", "list", "--state", "retrying"],
        &["task", "list", "--limit", "0"],
        &["task", "list", "--cursor", "nonsense"],
        &["queue", "history", "q", "--days", "0"],
        &["schedule", "next"],
        &["--log", "=loud=", "stats"],
    ];
    for args in cases {
        let ran = home.run(args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.stdout.is_empty(), "{ran:?}");
    }
    for args in [&["--help"][..], &["task", "enqueue", "--help"], &["--version"], &["help", "work"]]
    {
        let ran = home.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{args:?}");
        assert!(ran.stdout.contains("outlast") || ran.stdout.contains("Usage"), "{ran:?}");
    }
}

#[test]
fn brokers_that_are_unknown_or_out_of_reach_are_named_without_their_secrets() {
    let home = Home::empty();
    let ran = home.run(&["stats", "--broker", "mysql://root:geheim@db/x"]);
    ran.refused(2, "@db/x");
    assert!(!ran.stderr.contains("geheim"), "{ran:?}");
    home.run(&["stats", "--broker", "sqlite:///no/such/folder/x.db"])
        .refused(4, "/no/such/folder/x.db");
    home.write("text.db", "this is no database, but long enough to look like a file of something");
    home.run(&["stats", "--broker", "sqlite://text.db"]).refused(4, "text.db");
    home.run(&["stats", "--broker", " "]).refused(2, "broker \" \" (--broker) is blank");
}
