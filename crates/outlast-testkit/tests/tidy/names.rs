//! Where files lie, what they are called, and how they begin.

use crate::rule::{Finding, Rule, finds, holds};
use crate::rust;
use crate::tree::{File, Tree};

/// Folders below `src`.
const DEPTH_MAX: usize = 2;

/// Names that say nothing, so that everything ends up there.
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "misc"];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "folder depth",
        remedy: "flatten: two folder levels below src are enough to find anything",
        check: deep_files,
    },
    Rule {
        name: "empty names",
        remedy: "name it after what it knows or does, or move its parts to where they are used",
        check: empty_names,
    },
    Rule {
        name: "file heads",
        remedy: "begin the file with //! and the question it answers, its promise, its limits",
        check: headless_files,
    },
];

fn deep_files(tree: &Tree) -> Vec<Finding> {
    let depth = |file: &File| file.below("src").map_or(0, |path| path.matches('/').count());
    let deep = tree.files.iter().filter(|file| depth(file) > DEPTH_MAX);
    deep.map(|file| {
        let what = format!("{} folders below src, {DEPTH_MAX} are the limit", depth(file));
        Finding::new(&file.path, 1, file.stem(), what)
    })
    .collect()
}

fn empty_names(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.krate().is_some()) {
        let parts = file.path.split('/').map(|part| part.split('.').next().unwrap_or(part));
        for name in parts.filter(|name| EMPTY_NAMES.contains(name)) {
            found.push(Finding::new(&file.path, 1, name, format!("{name} says nothing")));
        }
        found.extend(empty_modules(file));
    }
    found
}

/// Modules written inside a file; those in files of their own are found by their path.
fn empty_modules(file: &File) -> impl Iterator<Item = Finding> {
    rust::words(&file.code, "mod").into_iter().filter_map(|at| {
        let (name, _) = file.code[at + 3..].trim_start().split_once(" {")?;
        let line = rust::line(&file.code, at);
        let what = format!("mod {name} says nothing");
        EMPTY_NAMES.contains(&name).then(|| Finding::new(&file.path, line, name, what))
    })
}

fn headless_files(tree: &Tree) -> Vec<Finding> {
    let ours = tree.rust().filter(|file| file.krate().is_some());
    let headless = ours.filter(|file| !file.text.starts_with("//! "));
    headless
        .map(|file| Finding::new(&file.path, 1, file.stem(), "does not begin with //!"))
        .collect()
}

#[test]
fn folders_are_at_most_two_deep() {
    holds(RULES, "folder depth");
}

#[test]
fn a_third_folder_is_found() {
    let sample = [("crates/x/src/a/b/good.rs", ""), ("crates/x/src/a/b/c/bad.rs", "")];
    finds(RULES, "folder depth", &sample, &["bad"]);
}

#[test]
fn no_file_or_module_is_called_utils_or_the_like() {
    holds(RULES, "empty names");
}

#[test]
fn a_name_that_says_nothing_is_found() {
    let sample = [
        ("crates/x/src/util.rs", ""),
        ("crates/x/tests/common/mod.rs", ""),
        ("crates/x/src/lib.rs", "mod utilities {}\nmod helpers {}\n"),
    ];
    finds(RULES, "empty names", &sample, &["util", "common", "helpers"]);
}

#[test]
fn every_file_begins_with_the_question_it_answers() {
    holds(RULES, "file heads");
}

#[test]
fn a_file_without_a_head_is_found() {
    let sample = [("crates/x/src/good.rs", "//! Why.\n"), ("crates/x/src/bad.rs", "use a::b;\n")];
    finds(RULES, "file heads", &sample, &["bad"]);
}
