//! `task list|show|run|archive|delete|cancel`: pages, selections, refusals.

use std::collections::BTreeSet;

use serde_json::json;

use crate::home::Home;

fn filled(count: usize) -> Home {
    let home = Home::with("[[handler]]\ntype = 'bad'\ncommand = ['false']");
    let line = |n: usize| {
        let kind = if n.is_multiple_of(2) { "even" } else { "odd" };
        format!("{{\"type\":\"{kind}\",\"id\":\"{n}\",\"payload\":\"number {n}.\"}}\n")
    };
    home.write("tasks", (0..count).map(line).collect::<String>());
    home.json(&["task", "enqueue", "--file", "tasks"]);
    home
}

#[test]
fn pages_hold_every_task_once_and_the_last_row_says_where_to_go_on() {
    let home = filled(25);
    home.enqueue(&["later", "--id", "later", "--in", "1h"]);
    let mut seen = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let more: Vec<String> =
            cursor.iter().flat_map(|c| ["--cursor".to_owned(), c.clone()]).collect();
        let args: Vec<&str> = ["task", "list", "--limit", "10"]
            .into_iter()
            .chain(more.iter().map(String::as_str))
            .collect();
        let page = home.json(&args);
        assert!(page.len() <= 10);
        seen.extend(page.iter().map(|task| task["id"].as_str().expect("an id").to_owned()));
        cursor = page.last().and_then(|task| task["next_cursor"].as_str()).map(str::to_owned);
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 26);
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 26);
    let pending = home.json(&["task", "list", "--state", "pending", "--limit", "25"]);
    assert_eq!(pending.last().and_then(|task| task.get("next_cursor")), None, "a full last page");
}

#[test]
fn a_cursor_belongs_to_its_state() {
    let home = filled(3);
    let page = home.json(&["task", "list", "--state", "pending", "--limit", "2"]);
    let cursor = page[1]["next_cursor"].as_str().expect("there is more");
    let rest = home.json(&["task", "list", "--state", "pending", "--cursor", cursor]);
    assert_eq!(rest.len(), 1);
    home.run(&["task", "list", "--state", "retry", "--cursor", cursor])
        .refused(2, "state pending, not retry");
}

#[test]
fn a_selection_narrows_by_type_text_group_and_age() {
    let home = filled(10);
    home.enqueue(&["even:more", "--group", "g", "--id", "grouped"]);
    let count = |args: &[&str]| home.json(&[&["task", "list"], args].concat()).len();
    assert_eq!(count(&["--type", "even"]), 5);
    assert_eq!(count(&["--type", "even*"]), 6);
    assert_eq!(count(&["--text", "number 7."]), 1);
    assert_eq!(count(&["--group", "g"]), 1);
    assert_eq!(count(&["--older-than", "1h"]), 0);
    assert_eq!(count(&["--older-than", "0s", "--state", "pending", "--type", "odd"]), 5);
}

#[test]
fn tasks_named_by_id_are_acted_on_and_refusals_told() {
    let home = filled(4);
    let archived = home.run(&["task", "archive", "0", "1", "--json"]);
    assert_eq!((archived.code, &archived.objects()[0]["changed"]), (0, &json!(2)));
    assert_eq!(home.task("0")["state"], "archived");
    let partly = home.run(&["task", "archive", "0", "2", "missing", "--json"]);
    partly.refused(3, "task 0 in default is archived already");
    assert!(partly.stderr.contains("task missing in default was not found"), "{partly:?}");
    assert_eq!(partly.objects()[0]["refused"].as_array().map(Vec::len), Some(2));
    home.run(&["task", "archive", "0"]).refused(6, "is archived already");
    home.run(&["task", "delete", "missing"]).refused(5, "was not found");
    home.run(&["task", "cancel", "3"]).refused(6, "is not active");
    assert_eq!(home.run(&["task", "run", "0"]).stdout, "1 made pending\n");
    assert_eq!(home.task("0")["state"], "pending");
    assert_eq!(home.run(&["task", "delete", "0", "1", "2", "3"]).stdout, "4 deleted\n");
    assert!(home.json(&["task", "list"]).is_empty());
}

#[test]
fn a_selection_is_acted_on_in_bulk() {
    let home = filled(2500);
    let archived = home.run(&["task", "archive", "--type", "even", "--json"]);
    assert_eq!(archived.objects()[0]["changed"], 1250, "{archived:?}");
    assert_eq!(
        home.run(&["task", "run", "--state", "archived", "--text", "number 4."]).stdout,
        "1 made pending\n"
    );
    assert_eq!(home.run(&["task", "delete", "--all"]).stdout, "2500 deleted\n");
    assert_eq!(home.run(&["task", "delete", "--all"]).stdout, "0 deleted\n");
    home.run(&["task", "delete"]).refused(2, "no tasks: give their ids, or a selection");
    home.run(&["task", "delete", "1", "--all"]).refused(2, "--all");
}

#[test]
fn a_queue_or_task_that_is_not_there_ends_with_5_and_the_nearest_name() {
    let home = Home::empty();
    home.enqueue(&["t", "--queue", "mail"]);
    home.run(&["task", "list", "--queue", "mial"]).refused(5, "no queue mial; did you mean mail?");
    home.run(&["task", "show", "x", "--queue", "mial"]).refused(5, "no queue mial");
    home.run(&["task", "show", "x", "--queue", "mail"]).refused(5, "no task x in queue mail");
    home.run(&["task", "delete", "x", "--queue", "mial"]).refused(5, "no queue mial");
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let home = filled(2000);
    let script = format!(
        "'{}' task list --limit 2000 | head -n 1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_outlast")
    );
    let mut command = std::process::Command::new("bash");
    let output =
        command.args(["-c", &script]).current_dir(home.path("")).output().expect("bash is there");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}
