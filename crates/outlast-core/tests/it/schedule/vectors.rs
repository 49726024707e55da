//! The same answers as Go, line by line.
//!
//! `tests/fixtures/cron_vectors.tsv` was printed by the real robfig/cron (`interop/cron-vectors`).
//! There is no difference in it, apart from the searches from which Go does not return ("hang")
//! or that lead it back to the same tick ("stuck"); here they end, and later.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use outlast_core::schedule::Cron;

use super::at;

#[test]
fn every_line_of_the_table_made_by_go_is_answered_alike() {
    let checked = check(include_str!("../../fixtures/cron_vectors.tsv"));
    assert!(checked >= 400, "only {checked} lines: the table was cut off");
}

/// For a table of any size, such as `go run . -random 20000` prints.
#[test]
#[ignore = "needs OUTLAST_CRON_VECTORS, the path of a table"]
fn a_random_table_made_by_go_is_answered_alike() {
    let path = std::env::var("OUTLAST_CRON_VECTORS").unwrap();
    let checked = check(&std::fs::read_to_string(path).unwrap());
    assert!(checked > 0);
}

fn check(table: &str) -> usize {
    let lines = table.lines().filter(|line| !line.starts_with('#'));
    let mut differences = Vec::new();
    let mut checked = 0;
    for line in lines {
        checked += 1;
        if let Err(difference) = check_line(line) {
            differences.push(difference);
        }
    }
    let shown = differences.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(differences.is_empty(), "{} of {checked} lines differ:\n{shown}", differences.len());
    checked
}

fn check_line(line: &str) -> Result<(), String> {
    let columns: Vec<&str> = line.split('\t').collect();
    let [spec, zone, from, expected] = columns[..] else { panic!("not four columns: {line}") };
    let spec: String = serde_json::from_str(spec).unwrap();
    let cron = Cron::parse(&spec, &TimeZone::get(zone).unwrap());
    let answered = match cron {
        Err(_) => "error".to_owned(),
        Ok(cron) => ticks(&cron, at(from), expected),
    };
    if answered == expected { Ok(()) } else { Err(format!("{line}\n  but here: {answered}")) }
}

fn ticks(cron: &Cron, from: Timestamp, expected: &str) -> String {
    let mut after = from;
    let mut ticks = Vec::new();
    for word in expected.split(',') {
        let Some(tick) = cron.next(after) else {
            ticks.push("never".to_owned());
            break;
        };
        assert!(tick > after, "{cron} from {from}: {tick} is not later than {after}");
        match word {
            "hang" | "stuck" => ticks.push(word.to_owned()),
            _ => ticks.push(tick.to_string()),
        }
        after = tick;
    }
    ticks.join(",")
}
