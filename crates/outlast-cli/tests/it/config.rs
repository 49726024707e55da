//! `config`: where values come from, and everything that can be wrong with a file.

use serde_json::Value;

use crate::home::Home;

const GOOD: &str = r#"
broker = "sqlite://tasks.db"
[worker]
slots = 3
shutdown = "20s"
[queues]
mail = 6
files = { weight = 2, concurrency = 4 }
[[handler]]
type = "image:*"
command = ["cat"]
timeout = "2m"
concurrency = 2
snooze = "5m"
[[handler]]
type = "hook"
url = "http://user:geheim@localhost:9/run"
[[schedule]]
name = "nightly"
cron = "30 2 * * MON-FRI"
timezone = "Europe/Berlin"
type = "report:nightly"
payload = "a b"
missed = "once"
[[group]]
queue = "mail"
name = "user:*"
grace = "2s"
max_delay = "1m"
max_size = 50
type = "mail:digest"
[[group]]
queue = "mail"
type = "mail:others"
"#;

fn setting(settings: &[Value], key: &str) -> (String, String) {
    let found = settings.iter().find(|setting| setting["key"] == key);
    let found = found.unwrap_or_else(|| panic!("no {key} in {settings:?}"));
    let text = |name: &str| found[name].as_str().expect("is text").to_owned();
    (text("value"), text("origin"))
}

#[test]
fn every_value_is_shown_with_where_it_came_from() {
    let home = Home::with(GOOD);
    let settings = home.json(&["config", "show"]);
    let expected = [
        ("worker.slots", "3", "outlast.toml:4"),
        ("worker.lease", "30s", "default"),
        ("queues.mail.weight", "6", "outlast.toml:7"),
        ("queues.files.concurrency", "4", "outlast.toml:8"),
        ("handler.image:*.command", "[\"cat\"]", "outlast.toml:11"),
        ("handler.image:*.timeout", "2m", "outlast.toml:12"),
        ("handler.hook.snooze", "30s", "default"),
        ("handler.hook.url", "http://user:***@localhost:9/run", "outlast.toml:17"),
        ("config", "outlast.toml", "default"),
        ("schedule.nightly.type", "report:nightly", "outlast.toml:22"),
        ("schedule.nightly.payload", "a b", "outlast.toml:23"),
        ("schedule.nightly.queue", "default", "default"),
        ("group.mail.user:*.type", "mail:digest", "outlast.toml:31"),
        ("group.mail.user:*.grace", "2s", "outlast.toml:28"),
        ("group.mail.user:*.max_size", "50", "outlast.toml:30"),
        ("group.mail.*.grace", "1m", "default"),
        ("group.mail.*.max_delay", "no limit", "default"),
    ];
    for (key, value, origin) in expected {
        assert_eq!(setting(&settings, key), (value.to_owned(), origin.to_owned()), "{key}");
    }
    let broker = setting(&settings, "broker");
    assert!(broker.0.ends_with("/tasks.db") && broker.1 == "outlast.toml:2", "{broker:?}");
}

#[test]
fn how_outages_are_outlived_is_configured_and_shown() {
    let table = "[survive]\nspool = 'box.db'\njournal = 'always'\npatience = '1s'\nitems_max = 5\nbytes_max = 4096\n\
                 age_max = '1d'\nwhen_full = '10s'\nkeep_for = '1m'\nkeep_bytes = 1024\n";
    let home = Home::with(&format!("broker = 'redis://127.0.0.1:1'\n{table}"));
    let settings = home.json(&["config", "show"]);
    let expected = [
        ("survive.journal", "always", "outlast.toml:4"),
        ("survive.patience", "1s", "outlast.toml:5"),
        ("survive.items_max", "5", "outlast.toml:6"),
        ("survive.bytes_max", "4096", "outlast.toml:7"),
        ("survive.age_max", "24h", "outlast.toml:8"),
        ("survive.when_full", "10s", "outlast.toml:9"),
        ("survive.keep_for", "1m", "outlast.toml:10"),
        ("survive.keep_bytes", "1024", "outlast.toml:11"),
    ];
    for (key, value, origin) in expected {
        assert_eq!(setting(&settings, key), (value.to_owned(), origin.to_owned()), "{key}");
    }
    let (spool, origin) = setting(&settings, "spool");
    assert!(spool.ends_with("/box.db") && origin == "outlast.toml:3", "{spool} {origin}");
    let mut command = home.command(&["--json", "config", "show"]);
    let ran: crate::home::Ran =
        command.env("OUTLAST_JOURNAL", "on_failure").output().expect("the program starts").into();
    let expected = ("on_failure".into(), "OUTLAST_JOURNAL".into());
    assert_eq!(setting(&ran.objects(), "survive.journal"), expected);

    // And it is used: the sixth task has no room.
    home.write("outlast.toml", "broker = 'redis://127.0.0.1:1'\n[survive]\nitems_max = 5\n");
    let full = home.pipe(&["task", "enqueue", "t", "--from-lines"], b"1\n2\n3\n4\n5\n");
    assert_eq!(full.code, 0, "{full:?}");
    let refused = home.run(&["task", "enqueue", "t"]);
    assert!(refused.code != 0 && refused.stderr.contains("5 items"), "{refused:?}");
}

#[test]
fn what_is_wrong_about_outages_is_named_with_key_and_value() {
    let table = "[survive]\njournal = 'never'\npatience = '0s'\nitems_max = 0\nwhen_full = 'maybe'\nkeep_for = 'long'\n";
    let ran = Home::with(table).run(&["config", "check"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    for said in [
        "outlast.toml:2: survive.journal is wrong: \"never\"",
        "outlast.toml:3: survive.patience \"0s\"",
        "outlast.toml:4: survive.items_max 0 is too small",
        "outlast.toml:5: survive.when_full is wrong: \"maybe\"",
        "outlast.toml:6: survive.keep_for is wrong",
    ] {
        assert!(ran.stderr.contains(said), "{said:?} is not in {}", ran.stderr);
    }
}

#[test]
fn flags_come_before_the_environment_and_the_environment_before_the_file() {
    let home = Home::with(GOOD);
    let mut command = home.command(&["--json", "config", "show"]);
    command.env("OUTLAST_BROKER", "sqlite://env.db").env("OUTLAST_SLOTS", "7");
    let ran: crate::home::Ran = command.output().expect("the program starts").into();
    let settings = ran.objects();
    assert_eq!(setting(&settings, "broker"), ("sqlite://env.db".into(), "OUTLAST_BROKER".into()));
    assert_eq!(setting(&settings, "worker.slots"), ("7".into(), "OUTLAST_SLOTS".into()));
    let mut command = home.command(&["--json", "config", "show", "--broker", "sqlite://flag.db"]);
    command.env("OUTLAST_BROKER", "sqlite://env.db");
    let ran: crate::home::Ran = command.output().expect("the program starts").into();
    assert_eq!(setting(&ran.objects(), "broker"), ("sqlite://flag.db".into(), "--broker".into()));
}

#[test]
fn without_a_broker_the_embedded_one_is_beside_the_file_or_in_the_state_folder() {
    let beside = Home::with("");
    let (broker, origin) = setting(&beside.json(&["config", "show"]), "broker");
    assert!(broker.ends_with("/outlast.db") && !broker.contains(".local"), "{broker}");
    assert_eq!(origin, "default");
    let state = Home::empty();
    let (broker, _) = setting(&state.json(&["config", "show"]), "broker");
    assert!(broker.ends_with("/.local/state/outlast/outlast.db"), "{broker}");
    // And it is used: a task that was enqueued is there at the next call.
    let id = state.enqueue(&["t"]);
    assert_eq!(state.task(&id)["state"], "pending");
    assert!(state.path(".local/state/outlast/outlast.db").is_file());
}

#[test]
fn a_file_elsewhere_is_named_by_flag_or_environment() {
    let home = Home::empty();
    home.write("other.toml", "[worker]\nslots = 5");
    let by_flag = home.json(&["config", "show", "--config", "other.toml"]);
    assert_eq!(setting(&by_flag, "config"), ("other.toml".into(), "--config".into()));
    assert_eq!(setting(&by_flag, "worker.slots"), ("5".into(), "other.toml:2".into()));
    let mut command = home.command(&["--json", "config", "show"]);
    command.env("OUTLAST_CONFIG", "other.toml");
    let ran: crate::home::Ran = command.output().expect("the program starts").into();
    assert_eq!(setting(&ran.objects(), "worker.slots").0, "5");
    let config = setting(&ran.objects(), "config");
    assert_eq!(config, ("other.toml".into(), "OUTLAST_CONFIG".into()));
    home.run(&["config", "show", "--config", "missing.toml"])
        .refused(2, "configuration missing.toml (--config) is no file that can be read");
}

/// Two handlers of one type.
const TWICE: &str = "[[handler]]\ntype = \"t\"\ncommand = [\"cat\"]\n[[handler]]\ntype = \"t\"\ncommand = [\"cat\"]\n";

/// A configuration that is wrong, and what is said about it.
const MISTAKES: &[(&str, &str)] = &[
    ("brokr = 'x'", "outlast.toml:1: unknown key \"brokr\"; did you mean \"broker\"?"),
    ("[worker]\nslot = 1", "outlast.toml:2: unknown key \"slot\"; did you mean \"slots\"?"),
    (
        "[queues]\na = {wieght = 1}",
        "outlast.toml:2: unknown key \"wieght\"; did you mean \"weight\"?",
    ),
    ("[[handler]]\ntyp = 't'", "outlast.toml:2: unknown key \"typ\"; did you mean \"type\"?"),
    ("[[schedule]]\ncorn = '@daily'", "unknown key \"corn\"; did you mean \"cron\"?"),
    ("[[group]]\ngarce = '1s'", "unknown key \"garce\"; did you mean \"grace\"?"),
    ("worker = 1", "outlast.toml:1: invalid type"),
    ("broker =", "outlast.toml:1:"),
    ("[worker]\nslots = 0", "slots 0 (outlast.toml:2) is not between 1 and"),
    ("[worker]\nshutdown = '5'", "outlast.toml:2: shutdown is wrong: duration \"5\" has no unit"),
    ("[worker]\nlease = '10ms'", "lease \"10ms\" is too short"),
    ("[queues]\n'' = 1", "queue name \"\" is blank"),
    ("[queues]\na = 0", "queue \"a\" has a weight or concurrency of 0"),
    (TWICE, "outlast.toml:5: handler type \"t\" is bound twice, first at outlast.toml:2"),
    ("[[handler]]\ncommand = ['cat']", "outlast.toml:1: handler has no type"),
    ("[[handler]]\ntype = 't'", "handler has neither a command nor a url"),
    ("[[handler]]\ntype = 't'\ncommand = ['cat']\nurl = 'http://h'", "a command and a url"),
    ("[[handler]]\ntype = 't'\ncommand = []", "command is empty"),
    ("[[handler]]\ntype = 't'\ncommand = ['{payload}']", "would let a payload choose the program"),
    ("[[handler]]\ntype = 'a*b'\ncommand = ['cat']", "has a * that is not at its end"),
    ("[[handler]]\ntype = ' '\ncommand = ['cat']", "task type \" \" is blank"),
    ("[[handler]]\ntype = 't'\nurl = 'ftp://h'", "url \"ftp://h\" is not http:// or https://"),
    ("[[handler]]\ntype = 't'\nurl = 'h'", "url \"h\" is wrong"),
    ("[[handler]]\ntype = 't'\ncommand = ['cat']\ntimeout = '0s'", "timeout \"0s\" is too short"),
    ("[[handler]]\ntype = 't'\ncommand = ['cat']\nconcurrency = 0", "concurrency 0"),
    (
        "[[handler]]\ntype = 't'\ncommand = ['cat']\noutput_max = 99999999",
        "output_max 99999999 is too large",
    ),
    ("[[schedule]]\ncron = '5 61 * * *'\ntype = 't'", "hour: 61 at character 3"),
    ("[[schedule]]\ncron = '@daily'", "schedule has no type"),
    ("[[schedule]]\ntype = 't'", "schedule has no cron"),
    (
        "[[schedule]]\ncron = '@daily'\ntype = 't'\ntimezone = 'Europe/Berln'",
        "timezone \"Europe/Berln\" is unknown; did you mean Europe/Berlin?",
    ),
    (
        "[[schedule]]\ncron = '@daily'\ntype = 't'\nmissed = 'some'",
        "missed \"some\" is none of skip, once, all",
    ),
    (
        "[[schedule]]\ncron = '@daily'\ntype = 't'\n[[schedule]]\ncron = '@daily'\ntype = 't'",
        "is there twice",
    ),
    ("[[group]]\nname = '*'", "group has no type"),
    (
        "[[group]]\ntype = 't'\nname = 'a*b'",
        "outlast.toml:3: group name \"a*b\" has a * that is not at its end",
    ),
    (
        "[[group]]\ntype = 't'\n[[group]]\nname = '*'\nqueue = 'default'\ntype = 'u'",
        "outlast.toml:3: group \"*\" of queue default is there twice, first at outlast.toml:1",
    ),
    ("[[group]]\ntype = 't'\nmax_size = 0", "max_size 0 is not between 1 and"),
];

#[test]
fn everything_that_is_wrong_is_named_with_its_line() {
    for (text, message) in MISTAKES {
        let home = Home::with(text);
        for args in [["config", "check"], ["config", "show"]] {
            home.run(&args).refused(2, message);
        }
    }
}

#[test]
fn all_mistakes_are_told_at_once() {
    let home = Home::with("[worker]\nshutdown = 'x'\nlease = 'y'\n[[handler]]\ntype = 't'");
    let ran = home.run(&["config", "check"]);
    assert_eq!(ran.code, 2);
    let lines: Vec<_> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.iter().all(|line| line.starts_with("outlast: outlast.toml:")), "{lines:?}");
}

#[test]
fn a_missing_command_is_an_error_where_it_would_run_and_nowhere_else() {
    let home = Home::with("[[handler]]\ntype = 't'\ncommand = ['no-such-program']");
    let message = "outlast.toml:3: handler \"t\": command \"no-such-program\" is not found in PATH";
    home.run(&["config", "check"]).refused(2, message);
    let id = home.enqueue(&["t"]);
    home.run(&["work", "--exit-when-empty"]).refused(2, message);
    home.run(&["up"]).refused(2, message);
    let task = home.task(&id);
    assert_eq!((&task["state"], &task["retried"]), (&"pending".into(), &0.into()), "never claimed");
}

#[test]
fn a_command_that_is_no_program_is_named() {
    let home = Home::with("[[handler]]\ntype = 't'\ncommand = ['./data']");
    home.write("data", "text");
    home.run(&["config", "check"]).refused(2, "/data is not executable");
}

#[test]
fn a_good_file_is_summed_up_and_its_warnings_told() {
    let home = Home::with(GOOD);
    let checked = home.run(&["config", "check", "--json"]);
    assert_eq!(checked.code, 0);
    let counts = &checked.objects()[0];
    assert_eq!((&counts["handlers"], &counts["schedules"]), (&2.into(), &1.into()));
    assert!(checked.stderr.contains("enqueues into default, which is not among the queues"));
}

#[test]
fn without_handlers_a_worker_says_what_to_do() {
    Home::empty().run(&["up"]).refused(2, "no handlers: there is no outlast.toml here");
    Home::with("").run(&["work"]).refused(2, "outlast.toml has no [[handler]]");
}

/// A container has no home: `config show` and `queue list` failed there for want of an outbox that they do not use.
#[test]
fn whoever_only_looks_needs_no_place_for_an_outbox() {
    let home = Home::with("broker = 'redis://127.0.0.1:1'\n");
    let run = |args: &[&str]| -> crate::home::Ran {
        home.command(args).env_remove("HOME").output().expect("the program starts").into()
    };
    let shown = run(&["--json", "config", "show"]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(setting(&shown.objects(), "spool").0.contains("name a file by --spool"), "{shown:?}");
    let listed = run(&["queue", "list"]);
    assert!(listed.code == 4 && !listed.stderr.contains("outbox"), "{listed:?}");
    assert_eq!(run(&["outage"]).code, 4);
    for args in [&["task", "enqueue", "t"][..], &["outbox", "list"]] {
        let refused = run(args);
        assert!(refused.code == 2 && refused.stderr.contains("--spool"), "{refused:?}");
    }
}

/// The variable is for the servers of a machine: with it an embedded broker, which needs no outbox, got one.
#[test]
fn an_embedded_broker_has_no_outbox_whatever_the_environment_says() {
    let home = Home::with("broker = 'sqlite://tasks.db'\n");
    let mut command = home.command(&["--json", "config", "show"]);
    let ran: crate::home::Ran =
        command.env("OUTLAST_SPOOL", "box.db").output().expect("the program starts").into();
    assert_eq!(setting(&ran.objects(), "spool"), ("none".into(), "default".into()));
}
