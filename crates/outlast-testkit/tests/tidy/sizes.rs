//! How long things may be. The loved code bases do not differ in their medians but in their tails: this holds the tail.

use crate::rule::{Finding, Rule, finds, holds};
use crate::rust;
use crate::tree::{File, Tree};

/// Non-test lines of a source file, and lines of a test file. Past 400 a file should already feel suspicious.
const FILE_LINES_MAX: usize = 600;
/// From the signature to the closing brace: nobody should have to scroll through a function.
const FUNCTION_LINES_MAX: usize = 70;
/// An example is read in one sitting.
const EXAMPLE_LINES_MAX: usize = 120;

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "source file size",
        remedy: "find the second question that the file answers and give it a file of its own",
        check: |tree| {
            too_long(
                tree,
                |file| file.below("src").is_some(),
                File::lines_outside_tests,
                FILE_LINES_MAX,
            )
        },
    },
    Rule {
        name: "test file size",
        remedy: "split the file by what its tests are about",
        check: |tree| {
            too_long(tree, |file| file.below("tests").is_some(), File::lines, FILE_LINES_MAX)
        },
    },
    Rule {
        name: "example size",
        remedy: "show one thing; leave out what the reader of this example did not come for",
        check: |tree| {
            too_long(tree, |file| file.below("examples").is_some(), File::lines, EXAMPLE_LINES_MAX)
        },
    },
    Rule {
        name: "function size",
        remedy: "a function with three paragraphs has three names waiting: split it there",
        check: long_functions,
    },
];

fn too_long(
    tree: &Tree,
    which: fn(&File) -> bool,
    lines: fn(&File) -> usize,
    max: usize,
) -> Vec<Finding> {
    let long = tree.rust().filter(|file| which(file) && lines(file) > max);
    let finding = |file: &File| {
        let what = format!("{} lines, {max} are the limit", lines(file));
        Finding::new(&file.path, max, file.stem(), what)
    };
    long.map(finding).collect()
}

fn long_functions(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for function in rust::functions(&file.code) {
            if function.lines > FUNCTION_LINES_MAX {
                let what = format!(
                    "fn {} has {} lines, {FUNCTION_LINES_MAX} are the limit",
                    function.name, function.lines
                );
                found.push(Finding::new(&file.path, function.line, function.name, what));
            }
        }
    }
    found
}

#[test]
fn no_source_file_is_longer_than_six_hundred_lines() {
    holds(RULES, "source file size");
}

#[test]
fn a_long_source_file_is_found_and_its_test_module_not_counted() {
    let tests = "#[cfg(test)]\nmod tests {\n\n}\n";
    let sample = [
        ("crates/x/src/good.rs", format!("{}{tests}", "\n".repeat(600))),
        ("crates/x/src/bad.rs", format!("{}{tests}", "\n".repeat(601))),
    ];
    finds(RULES, "source file size", &sample.each_ref().map(|(p, t)| (*p, t.as_str())), &["bad"]);
}

#[test]
fn no_test_file_is_longer_than_six_hundred_lines() {
    holds(RULES, "test file size");
}

#[test]
fn a_long_test_file_is_found() {
    finds(RULES, "test file size", &[("crates/x/tests/it.rs", &"\n".repeat(601))], &["it"]);
}

#[test]
fn no_example_is_longer_than_a_hundred_and_twenty_lines() {
    holds(RULES, "example size");
}

#[test]
fn a_long_example_is_found() {
    let sample = [("crates/outlast/examples/hello.rs", "\n".repeat(121))];
    finds(RULES, "example size", &sample.each_ref().map(|(p, t)| (*p, t.as_str())), &["hello"]);
}

#[test]
fn no_function_is_longer_than_seventy_lines() {
    holds(RULES, "function size");
}

#[test]
fn a_long_function_is_found() {
    let of = |lines: usize, name: &str| format!("fn {name}() {{{}}}\n", "\n".repeat(lines - 1));
    let text = of(70, "good") + &of(71, "bad");
    finds(RULES, "function size", &[("crates/x/src/a.rs", &text)], &["bad"]);
}
