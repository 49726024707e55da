//! `queue` and `stats`.

use serde_json::json;

use crate::home::Home;

#[test]
fn queues_are_counted_by_state_and_day() {
    let home = Home::with(
        "[[handler]]\ntype = 'good'\ncommand = ['true']\n[[handler]]\ntype = 'bad'\ncommand = ['false']",
    );
    home.enqueue(&["good", "--retention", "1h"]);
    home.enqueue(&["bad", "--max-retry", "0"]);
    home.enqueue(&["good", "--in", "1h"]);
    home.work();
    home.enqueue(&["good"]);
    let queue = home.json(&["queue", "list"]).remove(0);
    let expected = json!({
        "queue": "default", "pending": 1, "scheduled": 1, "completed": 1, "archived": 1, "retry": 0,
        "active": 0, "processed_today": 2, "failed_today": 1, "processed_total": 2, "failed_total": 1,
    });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&queue[name], value, "{name}");
    }
    assert!(queue["oldest_pending"].is_string() && queue["next_due"].is_string());
    let days = home.json(&["queue", "history", "default", "--days", "3"]);
    assert_eq!(days[0]["processed"], 2);
    assert_eq!(days[0]["failed"], 1);
    let stats = home.json(&["stats"]).remove(0);
    assert_eq!(
        (&stats["queues"], &stats["pending"], &stats["processed_total"]),
        (&json!(1), &json!(1), &json!(2))
    );
}

#[test]
fn a_paused_queue_keeps_its_tasks_until_it_is_resumed() {
    let home = Home::with("[[handler]]\ntype = 't'\ncommand = ['true']");
    home.enqueue(&["t"]);
    assert_eq!(home.run(&["queue", "pause", "default"]).stdout, "default is paused\n");
    assert_eq!(home.json(&["queue", "pause", "default"])[0]["changed"], false);
    home.work();
    assert_eq!(home.json(&["queue", "show", "default"])[0]["pending"], 1);
    assert!(home.json(&["queue", "show", "default"])[0]["paused_since"].is_string());
    assert_eq!(home.run(&["queue", "resume", "default"]).stdout, "default is running\n");
    home.work();
    assert_eq!(home.json(&["queue", "show", "default"])[0]["pending"], 0);
}

#[test]
fn a_queue_with_tasks_is_removed_only_by_force() {
    let home = Home::empty();
    home.enqueue(&["t", "--queue", "mail"]);
    home.run(&["queue", "remove", "mail"]).refused(6, "queue mail holds 1 tasks: add --force");
    assert_eq!(home.run(&["queue", "remove", "mail", "--force"]).stdout, "mail is removed\n");
    home.run(&["queue", "show", "mail"]).refused(5, "no queue mail");
    home.run(&["queue", "remove", "mail"]).refused(5, "no queue mail");
}

#[test]
fn a_queue_that_is_not_there_is_answered_with_the_nearest_name() {
    let home = Home::empty();
    home.enqueue(&["t", "--queue", "mail"]);
    for verb in ["show", "history", "resume", "remove"] {
        home.run(&["queue", verb, "mial"]).refused(5, "no queue mial; did you mean mail?");
    }
}

#[test]
fn watching_prints_an_object_per_row_and_look() {
    let home = Home::empty();
    home.enqueue(&["t"]);
    for args in [["queue", "list"], ["task", "list"]] {
        let mut watching = home.start(&[&args[..], &["--watch", "--json"]].concat());
        let rows = [watching.line(), watching.line()];
        for row in rows {
            let row: serde_json::Value = serde_json::from_str(&row).expect("is an object");
            assert!(row["pending"] == 1 || row["state"] == "pending", "{row}");
        }
    }
}

/// Where stdout was no screen, JSON was printed that nobody had asked for.
#[test]
fn watching_without_json_prints_one_table_after_the_other() {
    let home = Home::empty();
    home.enqueue(&["t"]);
    let mut watching = home.start(&["stats", "--watch"]);
    let lines = [(); 4].map(|()| watching.line());
    assert!(lines[0].starts_with("QUEUES") && lines[2] == lines[0], "{lines:?}");
    assert!(lines[1].starts_with('1') && lines[3].starts_with('1'), "{lines:?}");
}
