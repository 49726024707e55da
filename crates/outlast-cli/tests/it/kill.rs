//! `kill -9` of workers under load: every accepted task is run, and repeats are explained by the kills.

use std::collections::HashMap;

use crate::handlers::sh;

const TASKS: usize = 600;
const SLOTS: usize = 4;
const KILLS: usize = 3;

#[test]
fn killed_workers_lose_nothing_and_repeat_only_what_they_were_running() {
    // One short write in append mode is a line for itself, whoever else writes.
    let home = sh(
        "echo $OUTLAST_TASK_ID >> ran; echo x > beat-$OUTLAST_TASK_ID",
        &format!("[worker]\nslots = {SLOTS}"),
    );
    let lines: String =
        (0..TASKS).map(|n| format!("{{\"type\":\"t\",\"id\":\"{n}\"}}\n")).collect();
    home.write("tasks", lines);
    // A handler that meets a pipe instead of a file waits there until the test has heard it: the worker
    // is in the middle of its work.
    for kill in 1..=KILLS {
        home.fifo(&format!("beat-{}", kill * TASKS / (KILLS + 1)));
    }
    home.json(&["task", "enqueue", "--file", "tasks"]);
    for kill in 1..=KILLS {
        let mut worker = home.start(&["work"]);
        let name = format!("beat-{}", kill * TASKS / (KILLS + 1));
        home.hear(&name);
        worker.signal("-KILL");
        worker.wait();
        std::fs::remove_file(home.path(&name)).expect("the pipe is there");
    }
    home.work();
    let ran = home.read("ran");
    let mut runs: HashMap<&str, usize> = HashMap::new();
    ran.lines().for_each(|id| *runs.entry(id).or_default() += 1);
    assert_eq!(runs.len(), TASKS, "every accepted task was run");
    let repeats = ran.lines().count() - TASKS;
    // What a kill can repeat is what was claimed and not settled: a few times the slots.
    assert!(repeats <= KILLS * SLOTS * 8, "{repeats} repeats after {KILLS} kills");
    let stats = home.json(&["queue", "show", "default"]).remove(0);
    assert_eq!(
        (stats["pending"].as_u64(), stats["active"].as_u64(), stats["retry"].as_u64()),
        (Some(0), Some(0), Some(0))
    );
}
