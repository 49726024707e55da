//! Holds the rules of the house that no compiler knows: which crate may import which, how long files and functions are, which
//! words stay out, and whether the pages tell the truth.
//!
//! A rule is a value ([`rule::Rule`]) with a check over the tree of files, one test that holds it against this repository, and
//! one test that shows it a small bad sample, because a rule that cannot fail guards nothing. Exceptions live in [`allowed`] and
//! can only shrink. The checks read text, not a syntax tree: comments and literals are blanked first ([`rust`]), which is exact
//! enough for every rule here and needs no dependency.

mod allowed;
mod clock;
mod imports;
mod names;
mod pages;
mod rule;
mod rust;
mod sizes;
mod tree;
mod words;

use rule::Rule;

/// Every rule, so that an exception to a rule that no longer exists is noticed.
const RULES: &[&[Rule]] =
    &[clock::RULES, imports::RULES, names::RULES, pages::RULES, sizes::RULES, words::RULES];

#[test]
fn every_exception_belongs_to_a_rule_and_gives_a_reason() {
    for entry in allowed::ALLOWED {
        let known = RULES.iter().flat_map(|rules| rules.iter()).any(|rule| rule.name == entry.rule);
        assert!(known, "allowed.rs: no rule is called {:?} ({})", entry.rule, entry.path);
        assert!(entry.why.len() >= 20, "allowed.rs: say why {} needs its exception", entry.path);
    }
}
