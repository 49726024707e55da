//! The pages tell the truth: paths exist, laws have guards, decisions have a status, changes are written down.

use std::collections::HashSet;

use crate::rule::{Finding, Rule, finds, holds};
use crate::rust;
use crate::tree::{File, Tree};

const ARCHITECTURE: &str = "ARCHITECTURE.md";
const LAWS: u32 = 10;

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "paths in ARCHITECTURE",
        remedy: "write the path from the root as it is now, or take it out",
        check: paths,
    },
    Rule {
        name: "law guard",
        remedy: "name the test function that guards the law behind Guard:, or write (comes with ...) and add an exception",
        check: laws,
    },
    Rule {
        name: "ADR status",
        remedy: "write a line `Status: accepted`, `proposed` or `superseded by NNNN`",
        check: decisions,
    },
    Rule {
        name: "changelog",
        remedy: "keep a heading `## [Unreleased]` in CHANGELOG.md",
        check: changelog,
    },
    Rule {
        name: "examples are named",
        remedy: "mention the example in README.md or on a page in docs/, or delete it",
        check: examples,
    },
];

/// The code spans of a page with their lines; fenced blocks are drawings and sessions, not claims.
fn code_spans(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span)));
        }
    }
    found
}

/// A span of path characters with a slash inside or the ending of a file we have.
fn is_path(span: &str) -> bool {
    let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let endings = [".rs", ".md", ".toml", ".sql", ".lua"];
    plain && (span.contains('/') || endings.iter().any(|ending| span.ends_with(ending)))
}

fn paths(tree: &Tree) -> Vec<Finding> {
    let Some(page) = tree.file(ARCHITECTURE) else {
        return vec![Finding::new(ARCHITECTURE, 1, ARCHITECTURE, "the page is missing")];
    };
    let gone =
        code_spans(&page.text).into_iter().filter(|(_, span)| is_path(span) && !tree.has(span));
    gone.map(|(line, path)| Finding::new(&page.path, line, path, format!("{path} does not exist")))
        .collect()
}

fn laws(tree: &Tree) -> Vec<Finding> {
    let page = tree.file(ARCHITECTURE).map_or("", |page| page.text.as_str());
    let functions: HashSet<_> = tree
        .rust()
        .flat_map(|file| rust::functions(&file.code))
        .map(|function| function.name)
        .collect();
    (1..=LAWS).flat_map(|number| law(page, number, &functions)).collect()
}

/// Judges one law: from its bold name to the next bold law or heading.
fn law(page: &str, number: u32, functions: &HashSet<&str>) -> Vec<Finding> {
    let name = format!("L{number}");
    let Some(start) = page.find(&format!("**{name} ")) else {
        return vec![Finding::new(ARCHITECTURE, 1, &name, format!("law {name} is missing"))];
    };
    let law = &page[start..];
    let end = ["\n- **L", "\n#"].iter().filter_map(|mark| law.find(mark)).min();
    let guard = law[..end.unwrap_or(law.len())].split_once("Guard:").map_or("", |(_, guard)| guard);
    let is_name = |span: &&str| span.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let tests: Vec<_> =
        code_spans(guard).into_iter().map(|(_, span)| span).filter(is_name).collect();
    let line = rust::line(page, start);
    let finding = |item: &str, what| Finding::new(ARCHITECTURE, line, item, what);
    if tests.is_empty() {
        // Only the written-out promise can be excepted in the allow-list; silence cannot.
        let promised = guard.contains("(comes with ");
        let item = if promised { name.clone() } else { format!("{name} without a word") };
        return vec![finding(&item, format!("law {name} names no test that guards it"))];
    }
    let missing = tests.into_iter().filter(|test| !functions.contains(test));
    missing.map(|test| finding(test, format!("law {name}: there is no fn {test}"))).collect()
}

fn is_decision(file: &&File) -> bool {
    let number = file.path.strip_prefix("docs/adr/").and_then(|name| name.split('-').next());
    number.is_some_and(|number| number.len() == 4 && number.parse::<u32>().is_ok())
}

fn decisions(tree: &Tree) -> Vec<Finding> {
    let decisions = tree.files.iter().filter(is_decision);
    let silent = decisions.filter(|file| !file.text.lines().any(|l| l.starts_with("Status: ")));
    silent.map(|file| Finding::new(&file.path, 1, file.stem(), "has no Status: line")).collect()
}

fn changelog(tree: &Tree) -> Vec<Finding> {
    let text = tree.file("CHANGELOG.md").map_or("", |file| file.text.as_str());
    match text.lines().any(|line| line.starts_with("## [Unreleased]")) {
        true => Vec::new(),
        false => vec![Finding::new("CHANGELOG.md", 1, "Unreleased", "has no Unreleased section")],
    }
}

fn examples(tree: &Tree) -> Vec<Finding> {
    let is_page = |file: &&File| {
        file.path == "README.md" || file.path.starts_with("docs/") && file.path.ends_with(".md")
    };
    let pages: Vec<_> = tree.files.iter().filter(is_page).collect();
    let named = |name: &str| pages.iter().any(|page| !rust::words(&page.text, name).is_empty());
    let examples = tree.rust().filter(|file| file.below("examples").is_some());
    let unnamed = examples.filter(|file| !named(file.stem()));
    unnamed
        .map(|file| Finding::new(&file.path, 1, file.stem(), "no page names this example"))
        .collect()
}

#[test]
fn every_path_that_architecture_names_exists() {
    holds(RULES, "paths in ARCHITECTURE");
}

#[test]
fn a_path_that_does_not_exist_is_found() {
    let page =
        "`crates/x/` `lib.rs`\n`crates/y`, `Go/Rust code`, `a::b/c`, `docs`\n```\n`no/path`\n```\n";
    let sample = [("ARCHITECTURE.md", page), ("crates/x/src/lib.rs", "")];
    finds(RULES, "paths in ARCHITECTURE", &sample, &["lib.rs", "crates/y"]);
}

#[test]
fn every_law_names_a_test_that_exists() {
    holds(RULES, "law guard");
}

#[test]
fn a_law_without_a_guard_is_found() {
    let mut page: String =
        (1..=7).map(|n| format!("- **L{n} A.** B. Guard: `guard`, `guard`\n")).collect();
    page += "- **L8 A.** B. Guard: `gone`.\n- **L9 A.** Guard: (comes with x)\n## More `other`\n";
    let test = "fn guard() {}\nfn other() {}\n";
    let sample = [("ARCHITECTURE.md", page.as_str()), ("crates/x/tests/it.rs", test)];
    finds(RULES, "law guard", &sample, &["gone", "L9", "L10"]);
    let silent = page.replace("Guard: `gone`", "Later");
    let sample = [("ARCHITECTURE.md", silent.as_str()), ("crates/x/tests/it.rs", test)];
    finds(RULES, "law guard", &sample, &["L8 without a word", "L9", "L10"]);
}

#[test]
fn every_decision_has_a_status() {
    holds(RULES, "ADR status");
}

#[test]
fn a_decision_without_a_status_is_found() {
    let sample = [
        ("docs/adr/0001-good.md", "# A\n\nStatus: accepted\n"),
        ("docs/adr/0002-bad.md", "# B\n\nIts Status: unclear\n"),
        ("docs/adr/README.md", "All decisions.\n"),
    ];
    finds(RULES, "ADR status", &sample, &["0002-bad"]);
}

#[test]
fn the_changelog_has_an_unreleased_section() {
    holds(RULES, "changelog");
}

#[test]
fn a_changelog_without_an_unreleased_section_is_found() {
    finds(RULES, "changelog", &[("CHANGELOG.md", "# Changelog\n\n## [0.1.0]\n")], &["Unreleased"]);
}

#[test]
fn every_example_is_named_on_a_page() {
    holds(RULES, "examples are named");
}

#[test]
fn an_example_that_no_page_names_is_found() {
    let sample = [
        ("README.md", "Run `cargo run --example hello`.\n"),
        ("docs/examples.md", "`batch.rs` shows more.\n"),
        ("crates/outlast/examples/hello.rs", ""),
        ("crates/outlast/examples/batch.rs", ""),
        ("crates/outlast/examples/hell.rs", ""),
    ];
    finds(RULES, "examples are named", &sample, &["hell"]);
}
