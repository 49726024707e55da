//! Commands that do not behave: nothing they do harms the worker, the machine or other tasks.

use serde_json::json;

use crate::handlers::sh;
use crate::home::Home;

/// Looks at a process before it counts as alive: a signal has been sent, but on a busy machine it takes a
/// while until its receiver is gone.
const LOOKS_MAX: usize = 200_000;

/// Whether the process whose number is in this file still runs. One that is dead but not yet reaped by
/// whoever adopted it does not.
fn runs(home: &Home, name: &str) -> bool {
    let pid = home.read(name);
    assert!(!pid.trim().is_empty(), "{name} holds a number");
    let path = format!("/proc/{}/stat", pid.trim());
    let state = || {
        let stat = std::fs::read_to_string(&path).unwrap_or_default();
        stat.rsplit(") ").next().and_then(|rest| rest.chars().next())
    };
    std::iter::repeat_with(state)
        .take(LOOKS_MAX)
        .all(|state| !matches!(state, None | Some('Z' | 'X')))
}

/// Whether a process of the group whose number is in this file still runs.
fn group_runs(home: &Home, name: &str) -> bool {
    let group = home.read(name).trim().to_owned();
    assert!(!group.is_empty(), "{name} holds a number");
    let is_member = |stat: &str| {
        let rest = stat.rsplit(") ").next().unwrap_or_default();
        let fields: Vec<&str> = rest.split(' ').collect();
        fields.get(2) == Some(&group.as_str()) && !matches!(fields.first(), Some(&("Z" | "X")))
    };
    let any = || {
        let processes = std::fs::read_dir("/proc").expect("this is Linux").flatten();
        let stats = processes.map(|process| std::fs::read_to_string(process.path().join("stat")));
        stats.flatten().any(|stat| is_member(&stat))
    };
    std::iter::repeat_with(any).take(LOOKS_MAX / 100).all(|any| any)
}

#[test]
fn a_hundred_megabytes_of_output_are_cut_and_the_task_is_done() {
    let home = sh("head -c 100000000 /dev/zero | tr '\\0' x; echo end >&2", "output_max = 1000");
    let id = home.enqueue(&["t", "--retention", "1h"]);
    let worked = home.work();
    let task = home.task(&id);
    assert_eq!(task["state"], "completed");
    assert_eq!(task["result"], json!("x".repeat(1000)));
    assert!(worked.stderr.contains("printed more than is kept"), "{}", worked.stderr);
    assert!(worked.stderr.contains("100000000"), "{}", worked.stderr);
}

#[test]
fn an_error_is_the_end_of_what_was_said() {
    let home = sh("seq 1 100000 >&2; printf 'last \\377 words' >&2; exit 1", "");
    let id = home.enqueue(&["t", "--max-retry", "0"]);
    home.work();
    let error = home.task(&id)["last_error"].as_str().expect("has an error").to_owned();
    assert!(
        error.starts_with("exit status 1: ") && error.ends_with("last \u{fffd} words"),
        "{error}"
    );
    assert!(error.len() < 4200, "{}", error.len());
}

#[test]
fn a_command_that_hangs_is_stopped_at_its_timeout_with_its_children() {
    let home = sh("sleep 1000 & echo $! > child; echo stuck >&2; wait", "timeout = '500ms'");
    let id = home.enqueue(&["t", "--max-retry", "0"]);
    home.work();
    let task = home.task(&id);
    assert_eq!(task["last_error"], "timed out after 500ms: stuck");
    assert!(!runs(&home, "child"));
}

#[test]
fn the_tasks_own_timeout_stops_a_command_too() {
    let home = sh("echo $$ > pid; exec sleep 1000", "");
    let id = home.enqueue(&["t", "--max-retry", "0", "--timeout", "1s"]);
    home.work();
    assert_eq!(home.task(&id)["state"], "archived");
    assert!(!runs(&home, "pid"));
}

#[test]
fn a_command_that_ignores_sigterm_is_killed_two_seconds_later() {
    let script =
        "trap 'echo term >> heard' TERM; echo $$ > pid; while :; do sleep 1000 & wait; done";
    let home = sh(script, "timeout = '1s'");
    let id = home.enqueue(&["t", "--max-retry", "0"]);
    home.work();
    assert_eq!(home.task(&id)["last_error"], "timed out after 1s");
    assert_eq!(home.read("heard"), "term\n");
    assert!(!runs(&home, "pid"));
}

#[test]
fn children_left_behind_are_killed_when_the_command_ends() {
    let home = sh("sleep 1000 & echo $! > child; echo done", "");
    let id = home.enqueue(&["t", "--retention", "1h"]);
    home.work();
    assert_eq!(home.task(&id)["result"], "done\n");
    assert!(!runs(&home, "child"));
}

#[test]
fn a_command_that_vanishes_is_retried_with_a_clear_error() {
    let home = Home::with(
        "[[handler]]\ntype = 't'\ncommand = ['./gone.sh']\n[[handler]]\ntype = 'rm'\ncommand = ['rm', 'gone.sh']\n[worker]\nslots = 1",
    );
    home.write("gone.sh", "#!/bin/sh\n");
    let made = std::process::Command::new("chmod").arg("+x").arg(home.path("gone.sh")).status();
    assert!(made.expect("chmod is there").success());
    home.enqueue(&["rm"]);
    let id = home.enqueue(&["t", "--max-retry", "0"]);
    home.work();
    let error = home.task(&id)["last_error"].as_str().expect("has an error").to_owned();
    assert!(error.starts_with("could not run ") && error.contains("No such file"), "{error}");
}

#[test]
fn a_payload_that_nobody_reads_is_no_error() {
    let home = Home::with("[[handler]]\ntype = 't'\ncommand = ['true']");
    home.write("large", vec![b'x'; 1 << 20]);
    home.enqueue(&["t", "--id", "1", "--payload-file", "large", "--retention", "1h"]);
    home.work();
    assert_eq!(home.task("1")["state"], "completed");
}

#[test]
fn a_cancelled_command_is_stopped_and_its_task_retried() {
    let home = sh("echo stuck >&2; echo $$ > pid; echo up > ready; exec sleep 1000", "");
    home.fifo("ready");
    let id = home.enqueue(&["t"]);
    let mut worker = home.start(&["work"]);
    assert_eq!(home.hear("ready"), "up");
    let cancelled = home.run(&["task", "cancel", &id, "--json"]);
    assert_eq!((cancelled.code, &cancelled.objects()[0]["changed"]), (0, &json!(1)));
    let error = home.until(&id, "retry")["last_error"].as_str().expect("has an error").to_owned();
    assert_eq!(error, "context canceled: the handler was stopped: stuck");
    assert!(!runs(&home, "pid"));
    worker.signal("-TERM");
    assert_eq!(worker.wait(), 0);
}

#[test]
fn a_shutdown_waits_for_what_runs_and_then_gives_it_back() {
    let home = sh("echo $$ > pid; echo up > ready; exec sleep 1000", "[worker]\nshutdown = '1s'");
    home.fifo("ready");
    let id = home.enqueue(&["t"]);
    let mut worker = home.start(&["work"]);
    assert_eq!(home.hear("ready"), "up");
    worker.signal("-INT");
    assert_eq!(worker.wait(), 0, "{}", home.read("log"));
    let task = home.task(&id);
    assert_eq!((&task["state"], &task["retried"]), (&json!("pending"), &json!(0)));
    assert!(!runs(&home, "pid"));
}

/// A command deaf to SIGTERM once outlived its worker: the worker's last phase was over before the command
/// got its SIGKILL, and the task ran again beside it.
#[test]
fn a_command_that_ignores_sigterm_does_not_outlive_a_shutdown() {
    let script = "trap '' TERM; echo $$ > pid; echo up > ready; while :; do sleep 1; done";
    for shutdown in ["500ms", "2s"] {
        let home = sh(script, &format!("[worker]\nshutdown = '{shutdown}'"));
        home.fifo("ready");
        let id = home.enqueue(&["t"]);
        let mut worker = home.start(&["work"]);
        assert_eq!(home.hear("ready"), "up");
        worker.signal("-TERM");
        assert_eq!(worker.wait(), 0, "{}", home.read("log"));
        let task = home.task(&id);
        assert_eq!((&task["state"], &task["retried"]), (&json!("pending"), &json!(0)));
        assert!(!group_runs(&home, "pid"), "at {shutdown}");
    }
}

/// A signal for the worker's whole group once failed the run of a command that had no group of its own
/// yet, and spent a retry.
#[test]
fn a_command_that_dies_of_the_workers_own_signal_is_given_back() {
    for signal in ["TERM", "INT"] {
        let home = sh(&format!("echo up > ready; cat go; kill -{signal} $$"), "");
        home.fifo("ready");
        home.fifo("go");
        let id = home.enqueue(&["t"]);
        let mut worker = home.start(&["work"]);
        assert_eq!(home.hear("ready"), "up");
        worker.signal(&format!("-{signal}"));
        home.write("go", "on");
        assert_eq!(worker.wait(), 0, "{}", home.read("log"));
        let task = home.task(&id);
        assert_eq!((&task["state"], &task["retried"]), (&json!("pending"), &json!(0)), "{task}");
    }
}

#[test]
fn a_command_that_ends_in_time_is_done_although_the_worker_shuts_down() {
    let home = sh("echo up > ready; cat go", "");
    home.fifo("ready");
    home.fifo("go");
    let id = home.enqueue(&["t", "--retention", "1h"]);
    let mut worker = home.start(&["work"]);
    assert_eq!(home.hear("ready"), "up");
    worker.signal("-TERM");
    home.write("go", "went");
    assert_eq!(worker.wait(), 0);
    assert_eq!(home.task(&id)["result"], "went");
}
