//! Law L7, time is an argument: core, brokers and scripts read no clock. Clippy bans the calls too, but an #[expect] lifts that
//! ban anywhere, and it reads neither SQL nor Lua. The runtime's timer is no clock: a broker may measure by it how long it waits.

use crate::rule::{Finding, Rule, finds, holds};
use crate::rust;
use crate::tree::{File, Tree};

const CLOCKLESS: [&str; 3] = ["outlast-core", "outlast-redis", "outlast-sqlite"];

/// How SQL and Lua ask what time it is, in lower case.
const SCRIPT_CLOCKS: [&str; 5] =
    ["'now'", "unixepoch()", "julianday()", "current_timestamp", "'time'"];

pub(crate) const RULES: &[Rule] = &[Rule {
    name: "no clock inside",
    remedy: "take `now` as an argument; the edge (crates/outlast) asks the clock and hands it in",
    check: clocks,
}];

fn clocks(tree: &Tree) -> Vec<Finding> {
    let inside = tree.files.iter().filter(|file| {
        file.below("src").is_some() && file.krate().is_some_and(|name| CLOCKLESS.contains(&name))
    });
    inside.flat_map(clocks_of).collect()
}

fn clocks_of(file: &File) -> Vec<Finding> {
    let text = file.text.to_lowercase();
    let calls = rust::words(&file.code, "now").into_iter();
    let calls = calls.filter(|at| file.code[..*at].ends_with("::") && !is_timer(file, *at));
    let calls = calls.map(|at| (at, "now"));
    let in_scripts = SCRIPT_CLOCKS
        .iter()
        .flat_map(|clock| text.match_indices(clock))
        .filter(|_| file.path.ends_with(".sql") || file.path.ends_with(".lua"));
    calls
        .chain(in_scripts)
        .map(|(at, item)| (rust::line(&file.text, at), item))
        .filter(|(line, _)| !file.is_test(*line))
        .map(|(line, item)| Finding::new(&file.path, line, item, format!("{item} reads a clock")))
        .collect()
}

/// Whether the `now` at `at` is that of tokio's Instant, which says nothing about the time of day and stands still when a test
/// pauses it.
fn is_timer(file: &File, at: usize) -> bool {
    let before = &file.code[..at];
    let imported = || {
        let mut uses = file.code.lines().filter(|line| line.starts_with("use tokio::time::"));
        uses.any(|line| line.contains("Instant"))
    };
    let type_at = before.len().saturating_sub("Instant::".len());
    let bare = rust::words(before, "Instant").last() == Some(&type_at)
        && !before[..type_at].ends_with(':');
    before.ends_with("tokio::time::Instant::") || bare && imported()
}

#[test]
fn core_brokers_and_scripts_read_no_clock() {
    holds(RULES, "no clock inside");
}

#[test]
fn a_clock_inside_core_or_a_script_is_found() {
    let core = "fn a(now: u64) { SystemTime::now(); }\n#[cfg(test)]\nfn t() { Instant::now(); }\n";
    let sample = [
        ("crates/outlast-core/src/a.rs", core),
        ("crates/outlast/src/clock.rs", core),
        (
            "crates/outlast-sqlite/src/wait.rs",
            "use tokio::time::Instant;\nlet at = f(Instant::now());\n",
        ),
        ("crates/outlast-sqlite/src/row.rs", "use std::time::Instant;\nlet at = Instant::now();\n"),
        ("crates/outlast-sqlite/src/sql/claim.sql", "SELECT strftime('%s', 'NOW');\n"),
    ];
    finds(RULES, "no clock inside", &sample, &["now", "now", "'now'"]);
}
