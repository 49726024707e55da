//! What people and scripts see, frozen: a change of a table or of an object is a visible change of a file
//! in `golden/`. `OUTLAST_GOLDEN=write` writes them anew.

use std::path::Path;

use crate::home::{Home, Ran};

/// Compares what was printed, apart from ids and times of this run, with the file of that name.
fn check(name: &str, ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/golden").join(name);
    let printed = masked(&ran.stdout);
    if std::env::var_os("OUTLAST_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, &printed).expect("golden files can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(printed, golden, "{name} has changed; OUTLAST_GOLDEN=write writes it anew");
}

/// Times become `<time>`, other things of the day `<…>`.
fn masked(text: &str) -> String {
    let year = "20";
    let mut masked = String::new();
    for line in text.lines() {
        let words: Vec<String> =
            line.split_inclusive(['"', ' ']).map(|word| word_masked(word, year)).collect();
        masked.push_str(words.concat().trim_end());
        masked.push('\n');
    }
    masked
}

fn word_masked(word: &str, year: &str) -> String {
    let bare = word.trim_end_matches(['"', ' ']);
    let is_time = bare.starts_with(year)
        && bare.ends_with('Z')
        && bare.contains('T')
        && !bare.starts_with("2099");
    if is_time { word.replace(bare, "<time>") } else { word.to_owned() }
}

fn home() -> Home {
    let home = Home::with(
        "[queues]\nfiles = 1\n[[handler]]\ntype = 'sum'\ncommand = ['printf', '%s', 'sum of {payload}']\n[[handler]]\ntype = 'bad'\ncommand = ['sh', '-c', 'echo no >&2; exit 65']\n",
    );
    home.enqueue(&[
        "sum",
        "--queue",
        "files",
        "--id",
        "a",
        "--payload",
        "a.txt",
        "--retention",
        "1h",
    ]);
    home.enqueue(&["bad", "--queue", "files", "--id", "b", "--payload", "b.txt"]);
    home.work();
    home.enqueue(&["sum", "--queue", "files", "--id", "c", "--at", "2099-01-01T00:00:00Z"]);
    home
}

#[test]
fn tasks_and_queues_look_like_this() {
    let home = home();
    check("task-list.txt", &home.run(&["task", "list", "--queue", "files"]));
    check("task-list.json", &home.run(&["task", "list", "--queue", "files", "--json"]));
    check("task-show.txt", &home.run(&["task", "show", "a", "--queue", "files"]));
    check("queue-list.txt", &home.run(&["queue", "list"]));
    check("stats.json", &home.run(&["stats", "--json"]));
    check("stats.txt", &home.run(&["stats"]));
}

#[test]
fn receipts_look_like_this() {
    let home = Home::empty();
    check("receipt.txt", &home.run(&["task", "enqueue", "t", "--id", "a"]));
    check(
        "receipt.json",
        &home.run(&["task", "enqueue", "t", "--id", "b", "--at", "2099-01-01T00:00:00Z", "--json"]),
    );
}

#[test]
fn the_configuration_looks_like_this() {
    let home = Home::with(
        "broker = 'sqlite:///var/lib/app/tasks.db'\n[worker]\nslots = 3\n[queues]\nmail = 6\n",
    );
    check("config-show.txt", &home.run(&["config", "show"]));
    check("config-show.json", &home.run(&["config", "show", "--json"]));
    check("config-check.txt", &home.run(&["config", "check"]));
}

#[test]
fn a_move_looks_like_this() {
    let home = home();
    let (here, there) = ("sqlite://outlast.db", "sqlite://other.db");
    let migrate = ["migrate", "--from", here, "--to", there];
    check("migrate-plan.txt", &home.run(&[&migrate[..], &["--dry-run"]].concat()));
    check("migrate-plan.json", &home.run(&[&migrate[..], &["--dry-run", "--json"]].concat()));
    check("migrate.txt", &home.run(&migrate));
    check("migrate.json", &home.run(&["migrate", "--from", there, "--to", here, "--json"]));
}

#[test]
fn completions_and_man_pages_are_printed() {
    let home = Home::empty();
    for shell in ["bash", "zsh", "fish"] {
        let ran = home.run(&["completions", shell]);
        assert_eq!(ran.code, 0);
        assert!(ran.stdout.contains("outlast") && ran.stdout.contains("enqueue"));
    }
    let man = home.run(&["man"]);
    assert_eq!(man.code, 0);
    assert!(
        man.stdout.contains(".TH outlast") && man.stdout.contains("Exit codes"),
        "{}",
        man.stdout
    );
    assert_eq!(home.run(&["man", "--out", "man"]).code, 0);
    assert!(home.path("man/outlast-task-enqueue.1").is_file());
}
