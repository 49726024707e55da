//! Words that stay out of the code, some everywhere, some outside tests, some only in tests.

use crate::rule::{Finding, Rule, finds, holds};
use crate::rust;
use crate::tree::{File, Tree};

/// A reason that is shorter says nothing.
const REASON_LEN_MIN: usize = 10;

/// Marks of unfinished work, written in two parts so that this file has none.
const LEFTOVERS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "sleep",
        remedy: "wait for the event itself, or move a controlled clock",
        check: |tree| each(tree, sleep),
    },
    Rule {
        name: "unbounded channel",
        remedy: "everything has a limit: a bounded channel whose size is a named constant",
        check: |tree| each(tree, has_no_bound),
    },
    Rule { name: "stub", remedy: "finish it, or leave it out", check: |tree| each(tree, stub) },
    Rule {
        name: "unwrap",
        remedy: "handle the error by its kind, or write the reason into expect(\"...\")",
        check: |tree| each(tree, unwrap),
    },
    Rule {
        name: "expect without a reason",
        remedy: "give expect a string literal that says why this cannot fail",
        check: |tree| each(tree, expect),
    },
    Rule {
        name: "silent ignore",
        remedy: "say why with #[ignore = \"...\"], or better, let the test run",
        check: |tree| each(tree, ignore),
    },
    Rule {
        name: "silenced lint",
        remedy: "use #[expect(lint, reason = \"...\")]: it ends by itself when the lint is quiet",
        check: |tree| each(tree, silenced),
    },
    Rule {
        name: "leftover",
        remedy: "do it now, file an issue, or delete the mark",
        check: leftovers,
    },
];

/// Asks `breaks` about every identifier-like word of every Rust file, with what stands before and after it.
fn each(tree: &Tree, breaks: fn(&Place<'_>) -> bool) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust() {
        for (start, end) in identifiers(&file.code) {
            let place = Place { file, start, end };
            if breaks(&place) {
                let line = place.line();
                let shown = file.text.lines().nth(line - 1).unwrap_or_default().trim();
                found.push(Finding::new(&file.path, line, place.word(), format!("`{shown}`")));
            }
        }
    }
    found
}

fn identifiers(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, byte) in code.bytes().chain([b' ']).enumerate() {
        let in_word = byte.is_ascii_alphanumeric() || byte == b'_';
        match start {
            None if in_word => start = Some(at),
            Some(from) if !in_word => {
                found.push((from, at));
                start = None;
            }
            None | Some(_) => {}
        }
    }
    found
}

/// A word in a file.
struct Place<'a> {
    file: &'a File,
    start: usize,
    end: usize,
}

impl<'a> Place<'a> {
    fn word(&self) -> &'a str {
        &self.file.code[self.start..self.end]
    }

    fn before(&self) -> &'a str {
        self.file.code[..self.start].trim_end()
    }

    fn after(&self) -> &'a str {
        self.file.code[self.end..].trim_start()
    }

    /// What follows the opening parenthesis, literals included.
    fn argument(&self) -> &'a str {
        let open = self.file.code[self.end..].find('(').map_or(self.end, |at| self.end + at + 1);
        self.file.text[open..].trim_start()
    }

    fn line(&self) -> usize {
        rust::line(&self.file.code, self.start)
    }

    fn is_method_call(&self) -> bool {
        self.before().ends_with('.') && self.after().starts_with('(')
    }

    /// The suite in the testkit's sources counts as tests: brokers run it as theirs.
    fn is_test(&self) -> bool {
        self.file.krate() == Some("outlast-testkit") || self.file.is_test(self.line())
    }

    /// Whether the word opens an attribute, or stands in a `cfg_attr`.
    fn is_attribute(&self) -> bool {
        let line = self.before().rsplit('\n').next().unwrap_or_default();
        self.before().ends_with("#[")
            || self.before().ends_with("#![")
            || line.contains("cfg_attr(")
    }
}

fn sleep(place: &Place<'_>) -> bool {
    let call = || place.after().starts_with('(') && !place.before().ends_with("fn");
    matches!(place.word(), "sleep" | "sleep_until") && call() && place.is_test()
}

fn has_no_bound(place: &Place<'_>) -> bool {
    // Behind the generics, if any are written out.
    let call = || match place.after().strip_prefix("::<").and_then(|rest| rest.split_once(">(")) {
        Some((generics, _)) => &place.after()[generics.len() + 4..],
        None => place.after(),
    };
    match place.word() {
        "UnboundedSender" | "UnboundedReceiver" => true,
        "unbounded" | "unbounded_channel" => call().starts_with('('),
        "channel" => place.before().ends_with("mpsc::") && call().starts_with("()"),
        _ => false,
    }
}

fn stub(place: &Place<'_>) -> bool {
    matches!(place.word(), "todo" | "unimplemented" | "dbg") && place.after().starts_with('!')
}

fn unwrap(place: &Place<'_>) -> bool {
    place.word() == "unwrap" && place.is_method_call() && !place.is_test()
}

fn expect(place: &Place<'_>) -> bool {
    let reason = || place.argument().strip_prefix('"').and_then(|rest| rest.split('"').next());
    let reasoned = || reason().is_some_and(|reason| reason.len() >= REASON_LEN_MIN);
    place.word() == "expect" && place.is_method_call() && !place.is_test() && !reasoned()
}

fn ignore(place: &Place<'_>) -> bool {
    place.word() == "ignore" && place.is_attribute() && !place.after().starts_with('=')
}

fn silenced(place: &Place<'_>) -> bool {
    let attribute = || place.is_attribute() && place.after().starts_with('(');
    let reasoned = || place.after().split(']').next().is_some_and(|body| body.contains("reason"));
    match place.word() {
        "allow" => attribute(),
        "expect" => attribute() && !reasoned(),
        _ => false,
    }
}

fn leftovers(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !file.path.ends_with(".lock")) {
        for mark in LEFTOVERS {
            for at in rust::words(&file.text, mark) {
                let line = rust::line(&file.text, at);
                found.push(Finding::new(&file.path, line, mark, format!("{mark} left over")));
            }
        }
    }
    found
}

#[test]
fn tests_do_not_sleep() {
    holds(RULES, "sleep");
}

#[test]
fn a_sleep_in_a_test_is_found() {
    let text = "fn a() { sleep(1); }\n#[cfg(test)]\nmod tests { fn b() { time::sleep(1); } }\n";
    let suite = "fn sleep(n: u8) {}\nfn a() { clock.sleep_until(t); }\n";
    let sample = [("crates/x/src/a.rs", text), ("crates/outlast-testkit/src/b.rs", suite)];
    finds(RULES, "sleep", &sample, &["sleep", "sleep_until"]);
}

#[test]
fn channels_are_bounded() {
    holds(RULES, "unbounded channel");
}

#[test]
fn an_unbounded_channel_is_found() {
    let text = "let a = mpsc::unbounded_channel::<u8>();\nlet b: UnboundedSender<u8>;\nlet c = Bound::Unbounded;\n\
        let d = mpsc::channel(8);\nlet e = std::sync::mpsc::channel::<u8>();\nlet f = oneshot::channel();\n";
    let items = ["unbounded_channel", "UnboundedSender", "channel"];
    finds(RULES, "unbounded channel", &[("crates/x/src/a.rs", text)], &items);
}

#[test]
fn nothing_is_a_stub() {
    holds(RULES, "stub");
}

#[test]
fn a_stub_is_found() {
    let text = "fn a() { todo!() }\nfn b() { dbg!(1); \"todo!\"; unimplemented!() }\n";
    finds(RULES, "stub", &[("crates/x/src/a.rs", text)], &["todo", "dbg", "unimplemented"]);
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    holds(RULES, "unwrap");
}

#[test]
fn an_unwrap_outside_tests_is_found() {
    let text = "fn a() { b.unwrap(); c.unwrap_or(1); }\n#[cfg(test)]\nfn t() { b.unwrap(); }\n";
    finds(RULES, "unwrap", &[("crates/x/src/a.rs", text)], &["unwrap"]);
}

#[test]
fn every_expect_says_why_it_cannot_fail() {
    holds(RULES, "expect without a reason");
}

#[test]
fn an_expect_without_a_reason_is_found() {
    let text = "a\n    .expect(\n        \"the lock is never held across a panic\",\n    );\nb.expect(\"ok\");\nc.expect(&why);\n";
    finds(RULES, "expect without a reason", &[("crates/x/src/a.rs", text)], &["expect"; 2]);
}

#[test]
fn an_ignored_test_says_why() {
    holds(RULES, "silent ignore");
}

#[test]
fn a_silently_ignored_test_is_found() {
    let text = "#[ignore]\nfn a() {}\n#[ignore = \"needs two hosts\"]\nfn b() {}\nfn ignore() {}\n";
    finds(RULES, "silent ignore", &[("crates/x/tests/a.rs", text)], &["ignore"]);
}

#[test]
fn a_lint_is_silenced_only_with_a_reason_and_while_it_fires() {
    holds(RULES, "silenced lint");
}

#[test]
fn a_silenced_lint_is_found() {
    let text = "#![allow(dead_code)]\n#[expect(dead_code)]\n#[expect(dead_code, reason = \"later\")]\n\
        #[cfg_attr(unix, allow(x))]\nfn a() { allow(1).expect(\"a long enough reason\"); }\n";
    let items = ["allow", "expect", "allow"];
    finds(RULES, "silenced lint", &[("crates/x/src/a.rs", text)], &items);
}

#[test]
fn no_mark_of_unfinished_work_is_left() {
    holds(RULES, "leftover");
}

#[test]
fn a_leftover_is_found_in_any_text() {
    let [first, second] = LEFTOVERS;
    let page = format!("A page.\n{first}: more.\n");
    let script = format!("# {second} later\n# {second}S\n");
    let sample = [("docs/a.md", page.as_str()), ("scripts/a", script.as_str())];
    finds(RULES, "leftover", &sample, &LEFTOVERS);
}
