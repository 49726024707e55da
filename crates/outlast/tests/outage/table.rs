//! The table of `docs/outages.md`: each test leaves a line of figures in the folder that `OUTLAST_OUTAGE_TABLE` names, and the page is
//! written from them and the catalogue (`scripts/outage-table`). Without the variable nothing is written.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::catalogue::{By, ROWS, Row};
use crate::history::Sum;
use crate::namespace;
use crate::story::Seen;

/// Where tests leave their lines.
const FOLDER_ENV: &str = "OUTLAST_OUTAGE_TABLE";

/// Set to 1: the page is written, not checked.
const WRITE_ENV: &str = "OUTLAST_OUTAGE_TABLE_WRITE";

/// What stands around the tables in the page.
pub(crate) const FAULTS: [&str; 2] = ["<!-- faults: generated -->", "<!-- faults: end -->"];
pub(crate) const ASYNQ: [&str; 2] = ["<!-- asynq: generated -->", "<!-- asynq: end -->"];

/// The name of the test that asks.
pub(crate) fn name() -> String {
    let thread = std::thread::current().name().unwrap_or("main").to_owned();
    let full = namespace::inside().unwrap_or(thread);
    full.rsplit("::").next().unwrap_or_default().to_owned()
}

/// Leaves the line of an outage.
pub(crate) fn write(seen: &Seen, sum: &Sum) {
    let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap());
    let rate = seen.sent.map(|(sent, time)| sent as f64 / time.as_secs_f64());
    leave(&json!({
        "sees": seen.reason, "down_ms": ms(seen.down_after), "first_ms": ms(seen.first),
        "longest_ms": ms(Some(sum.longest)), "commands": rate, "accepted": sum.accepted,
        "stored": sum.stored, "refused": sum.refused, "lost": sum.lost, "repeated": sum.repeated,
    }));
}

/// Leaves the line of an outage that is no [`Story`](crate::story::Story), in words.
pub(crate) fn tell(verdict: &str) {
    leave(&json!({ "verdict": verdict }));
}

/// Leaves a line of any kind.
pub(crate) fn leave(line: &Value) {
    println!("{line}");
    let Some(folder) = std::env::var_os(FOLDER_ENV) else { return };
    fs::write(Path::new(&folder).join(format!("{}.json", name())), line.to_string()).unwrap();
}

fn lines() -> BTreeMap<String, Value> {
    let Some(folder) = std::env::var_os(FOLDER_ENV) else { return BTreeMap::new() };
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let line = |path: PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
    };
    files.map(line).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn page() -> PathBuf {
    root().join("docs/outages.md")
}

/// The rows of one catalogue entry: one for each of its tests.
fn rows(row: &Row, lines: &BTreeMap<String, Value>) -> Vec<String> {
    let head = format!("| {} | {} |", row.id, row.fault);
    match row.by {
        By::Stories(tests) => {
            tests.iter().map(|test| figures(&head, test, lines.get(*test))).collect()
        }
        By::Test(_, test, verdict) => vec![format!("{head} | {verdict} | | | | | `{test}` |")],
        By::Not(why) => vec![format!("{head} | {why} | | | | | |")],
    }
}

fn figures(head: &str, test: &str, line: Option<&Value>) -> String {
    let Some(line) = line else { return format!("{head} | not run | | | | | `{test}` |") };
    if let Some(verdict) = line["verdict"].as_str() {
        return format!("{head} | {verdict} | | | | | `{test}` |");
    }
    let number = |name: &str, unit: &str| match line[name].as_f64() {
        Some(number) if number < 10.0 && name == "commands" => format!("{number:.1}{unit}"),
        Some(number) => format!("{number:.0}{unit}"),
        None => String::new(),
    };
    let unseen = if line["first_ms"].is_null() { "" } else { "no outage" };
    let sees = line["sees"].as_str().map_or(unseen.to_owned(), shown);
    format!(
        "{head} {sees} | {} lost, {} repeated of {} | {} | {} | {} | {} | `{test}` |",
        line["lost"],
        line["repeated"],
        line["accepted"],
        line["stored"],
        number("longest_ms", " ms"),
        number("first_ms", " ms"),
        number("commands", ""),
    )
}

/// A reason without what differs from run to run, and short.
fn shown(reason: &str) -> String {
    let words = reason.split_whitespace().map(|word| if is_place(word) { "SERVER" } else { word });
    let text = words.collect::<Vec<_>>().join(" ").replace('|', "/");
    let short: String = text.chars().take(110).collect();
    if short.len() < text.len() {
        format!("`{}…`", short.trim_end())
    } else {
        format!("`{short}`")
    }
}

fn is_place(word: &str) -> bool {
    word.contains("127.0.0.1") || word.contains(namespace::ADDRESS)
}

fn table(lines: &BTreeMap<String, Value>) -> String {
    let head = "| row | fault | what is seen of it | verdict | stored | longest call | first success | commands/s | test |\n\
        |---|---|---|---|---|---|---|---|---|\n";
    let body: Vec<_> = ROWS.iter().flat_map(|row| rows(row, lines)).collect();
    format!("{head}{}", body.join("\n"))
}

fn asynq_table(lines: &BTreeMap<String, Value>) -> String {
    let head = "| finding | fault | asynq | Outlast |\n|---|---|---|---|\n";
    let told = |line: &Value| {
        let cell = |name: &str| line[name].as_str().map(str::to_owned);
        Some([cell("finding")?, cell("fault")?, cell("asynq")?, cell("ours")?])
    };
    let mut rows: Vec<_> = lines.values().filter_map(told).collect();
    rows.sort_by_key(|[finding, ..]| finding.parse::<u32>().unwrap_or(u32::MAX));
    let rows: Vec<_> = rows.iter().map(|cells| format!("| {} |", cells.join(" | "))).collect();
    format!("{head}{}", rows.join("\n"))
}

/// What stands between two marks.
fn between<'a>(page: &'a str, [begin, end]: [&str; 2]) -> &'a str {
    let from = page.find(begin).expect("the page has the mark") + begin.len();
    let len = page[from..].find(end).expect("the mark has an end");
    &page[from..from + len]
}

fn put(page: &str, marks: [&str; 2], table: &str) -> String {
    let old = between(page, marks);
    page.replace(&format!("{}{old}", marks[0]), &format!("{}\n{table}\n", marks[0]))
}

#[test]
fn the_page_has_a_line_for_every_fault_of_the_catalogue_and_every_test_of_it_is_there() {
    let text = fs::read_to_string(page()).unwrap();
    if std::env::var_os(WRITE_ENV).is_some_and(|set| set == "1") {
        let lines = lines();
        let text = put(&put(&text, FAULTS, &table(&lines)), ASYNQ, &asynq_table(&lines));
        fs::write(page(), text).unwrap();
    }
    let text = fs::read_to_string(page()).unwrap();
    let lines: Vec<_> =
        between(&text, FAULTS).lines().filter(|line| line.starts_with("| F")).collect();
    let mut wanted = ROWS.iter().flat_map(|row| rows(row, &BTreeMap::new()));
    let key = |line: &str| {
        (line.split(" | ").next().unwrap().to_owned(), line.rsplit('|').nth(1).unwrap().to_owned())
    };
    let there: Vec<_> = lines.iter().map(|line| key(line)).collect();
    let wanted: Vec<_> = wanted.by_ref().map(|line| key(&line)).collect();
    assert_eq!(there, wanted, "run scripts/outage-table");
    for row in ROWS {
        for (file, test) in row.tests() {
            let code = fs::read_to_string(root().join(&file))
                .unwrap_or_else(|_| panic!("{}: no file {file}", row.id));
            assert!(code.contains(&format!("fn {test}(")), "{}: no test {test} in {file}", row.id);
        }
    }
}
