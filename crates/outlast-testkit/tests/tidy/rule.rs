//! What a rule is: a sentence, a check over the tree, and what to do about a finding.

use crate::allowed::{self, Allowed};
use crate::tree::Tree;

/// One rule of the house.
pub(crate) struct Rule {
    /// Its short name, by which exceptions refer to it.
    pub(crate) name: &'static str,
    /// What somebody who broke it should do.
    pub(crate) remedy: &'static str,
    /// Finds every place that breaks it.
    pub(crate) check: fn(&Tree) -> Vec<Finding>,
}

/// One place that breaks a rule.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) path: String,
    pub(crate) line: usize,
    /// The thing that breaks the rule, as exceptions name it: a function, a word, a crate.
    pub(crate) item: String,
    /// What is wrong with it, with the value.
    pub(crate) what: String,
}

impl Finding {
    pub(crate) fn new(path: &str, line: usize, item: &str, what: impl Into<String>) -> Self {
        Finding { path: path.to_owned(), line, item: item.to_owned(), what: what.into() }
    }
}

/// Fails the calling test if this repository breaks the rule called `name`.
#[track_caller]
pub(crate) fn holds(rules: &[Rule], name: &str) {
    let rule = named(rules, name);
    let found = without(allowed::ALLOWED, name, (rule.check)(Tree::repository()));
    assert!(found.is_empty(), "{}", report(rule, &found));
}

/// Shows the rule a bad sample, as (path, text) pairs, and expects it to find exactly `items`.
#[track_caller]
pub(crate) fn finds(rules: &[Rule], name: &str, sample: &[(&str, &str)], items: &[&str]) {
    let found = (named(rules, name).check)(&Tree::of(sample));
    let found: Vec<_> = found.iter().map(|finding| finding.item.as_str()).collect();
    assert_eq!(found, items, "what the rule {name:?} found in the sample");
}

fn named<'a>(rules: &'a [Rule], name: &str) -> &'a Rule {
    rules.iter().find(|rule| rule.name == name).expect("a test names a rule of its own module")
}

fn report(rule: &Rule, found: &[Finding]) -> String {
    let mut text = format!("the rule {:?} is broken, places: {}\n", rule.name, found.len());
    for Finding { path, line, what, .. } in found {
        text += &format!("  {path}:{line}: {what}\n");
    }
    text + "remedy: " + rule.remedy
}

/// Takes out what is allowed. An allowance for more than is there becomes a finding itself: that is how the list shrinks.
fn without(allowed: &[Allowed], rule: &str, mut found: Vec<Finding>) -> Vec<Finding> {
    for entry in allowed.iter().filter(|entry| entry.rule == rule) {
        let covered = |f: &Finding| f.path == entry.path && f.item == entry.item;
        let count = found.iter().filter(|f| covered(f)).count();
        if count <= entry.count {
            found.retain(|f| !covered(f));
        }
        if count < entry.count {
            let what = format!(
                "allowed.rs permits {} × {} here, {count} left: shrink the entry",
                entry.count, entry.item
            );
            found.push(Finding::new(entry.path, 0, entry.item, what));
        }
    }
    found
}

#[test]
fn an_exception_covers_its_count_and_no_more_and_a_stale_one_is_found() {
    let entry = Allowed { rule: "r", path: "a.rs", item: "x", count: 2, why: "for this test" };
    let left = |count| {
        let found = (0..count).map(|line| Finding::new("a.rs", line, "x", "bad")).collect();
        without(std::slice::from_ref(&entry), "r", found).len()
    };
    assert_eq!((left(1), left(2), left(3)), (1, 0, 3));
}

#[test]
fn a_failure_names_the_place_the_value_and_the_remedy() {
    let rule = Rule { name: "short", remedy: "split it", check: |_| Vec::new() };
    let text = report(&rule, &[Finding::new("a.rs", 7, "f", "fn f has 71 lines")]);
    assert_eq!(
        text,
        "the rule \"short\" is broken, places: 1\n  a.rs:7: fn f has 71 lines\nremedy: split it"
    );
}
