//! `schedule`: ticks to come, and the schedules that `up` runs.

use serde_json::json;

use crate::home::Home;

fn ticks(args: &[&str]) -> Vec<String> {
    let ran = Home::empty().run(&[&["schedule", "next"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn the_next_ticks_are_printed_in_utc_whatever_the_zone() {
    let from = ["--from", "2026-03-27T00:00:00Z"];
    let nightly =
        ticks(&[&["30 2 * * *", "--tz", "Europe/Berlin", "--count", "4"], &from[..]].concat());
    // On the 29th the clock jumps from 2:00 to 3:00: there is no 2:30.
    let expected = [
        "2026-03-27T01:30:00Z",
        "2026-03-28T01:30:00Z",
        "2026-03-30T00:30:00Z",
        "2026-03-31T00:30:00Z",
    ];
    assert_eq!(nightly, expected);
    let prefix = ticks(&[&["TZ=Asia/Kolkata @daily", "-n", "1"], &from[..]].concat());
    assert_eq!(prefix, ["2026-03-27T18:30:00Z"]);
    assert_eq!(ticks(&[&["@every 90s", "--count", "2"], &from[..]].concat()).len(), 2);
    assert_eq!(ticks(&["* * * * *"]).len(), 5);
}

#[test]
fn ticks_can_be_objects() {
    let args = ["schedule", "next", "@hourly", "--from", "2026-01-01T00:00:00Z", "--count", "1"];
    assert_eq!(Home::empty().json(&args), [json!({"tick": "2026-01-01T01:00:00Z"})]);
}

#[test]
fn a_bad_spec_names_the_field_and_the_character() {
    let cases = [
        ("5 61 * * *", "hour: 61 at character 3 is over 23"),
        ("* * * * 7", "day of week: 7 at character 9"),
        ("@dayly", "descriptor"),
        ("* * * *", "day of week"),
        ("0 0 * * mon-fry", "character 13"),
        ("", "spec"),
        ("TZ=Mars/Base * * * * *", "zone"),
    ];
    let home = Home::empty();
    for (spec, message) in cases {
        home.run(&["schedule", "next", spec]).refused(2, message);
    }
    home.run(&["schedule", "next", "@daily", "--tz", "Europe/Berln"])
        .refused(2, "time zone \"Europe/Berln\" is unknown; did you mean Europe/Berlin?");
    home.run(&["schedule", "next", "@daily", "--from", "noon"]).refused(2, "noon");
    home.run(&["schedule", "next", "@daily", "--count", "0"]).refused(2, "0");
}

#[test]
fn a_spec_that_never_ticks_says_so() {
    let ran = Home::empty().run(&["schedule", "next", "0 0 30 2 *"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, ""));
    assert!(ran.stderr.contains("never ticks"), "{ran:?}");
}

#[test]
fn up_runs_schedules_which_can_be_listed_paused_and_run_by_hand() {
    let home = Home::with(concat!(
        "[[handler]]\ntype = 't'\ncommand = ['sh', '-c', 'cat > tick']\n",
        "[[schedule]]\nname = 'often'\ncron = '@every 1s'\ntype = 't'\npayload = 'tock'\n",
        "[[schedule]]\nname = 'rarely'\ncron = '0 0 1 1 *'\ntype = 't'\npayload = 'year'\n",
    ));
    home.fifo("tick");
    let mut up = home.start(&["up"]);
    let first = up.line();
    assert!(first.starts_with("outlast ") && first.contains("schedules often, rarely"), "{first}");
    assert!(up.line().starts_with("try:  outlast task enqueue t --payload hello"));
    assert_eq!(home.hear("tick"), "tock");
    assert_eq!(home.run(&["schedule", "pause", "often"]).stdout, "often is paused\n");
    let schedules = home.json(&["schedule", "list"]);
    let names: Vec<_> = schedules.iter().map(|schedule| schedule["name"].clone()).collect();
    assert_eq!(names, ["often", "rarely"]);
    assert!(schedules[0]["paused_since"].is_string() && schedules[1]["paused_since"].is_null());
    assert_eq!(schedules[1]["payload"], "year");
    home.run(&["schedule", "pause", "oftn"]).refused(5, "no schedule oftn; did you mean often?");
    let receipt = home.json(&["schedule", "run", "rarely"]).remove(0);
    assert_eq!(receipt["receipt"], "accepted");
    let heard: Vec<String> =
        std::iter::repeat_with(|| home.hear("tick")).take_while(|t| t != "year").collect();
    assert!(heard.iter().all(|tick| tick == "tock"), "{heard:?}");
    assert_eq!(home.run(&["schedule", "resume", "often"]).stdout, "often is running\n");
    assert_eq!(home.hear("tick"), "tock");
    up.signal("-TERM");
    // The handler may be at the pipe: it is heard until the worker has ended.
    up.child().wait().expect("ends");
    let history = home.json(&["schedule", "history", "often"]);
    assert!(
        !history.is_empty()
            && history[0]["task"].as_str().is_some_and(|id| id.starts_with("often@"))
    );
    let table = home.run(&["schedule", "history", "often"]).stdout;
    assert!(table.contains("registered") && !table.contains("skipped"), "{table}");
    home.run(&["schedule", "history", "oftn"]).refused(5, "no schedule oftn; did you mean often?");
}

#[test]
fn the_history_of_a_schedule_that_nobody_knows_is_an_error() {
    Home::empty().run(&["schedule", "history", "nobody"]).refused(5, "no schedule nobody");
}
