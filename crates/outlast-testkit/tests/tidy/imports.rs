//! Who may import whom. `ls crates/` is the architecture only as long as this holds (docs/adr/0001).

use crate::rule::{Finding, Rule, finds, holds};
use crate::rust;
use crate::tree::{File, Tree};

pub(crate) const RULES: &[Rule] = &[
    Rule {
        name: "import table",
        remedy: "turn the dependency round or move the code; a new row or import comes with an ADR",
        check: imports,
    },
    Rule {
        name: "brokers are named in one file",
        remedy: "go through the Broker and Inspect traits; only crates/outlast/src/connect.rs names a broker's crate",
        check: brokers_named,
    },
];

/// One row of the import table.
struct Fence {
    krate: &'static str,
    /// The Outlast crates it may import.
    may: &'static [&'static str],
    /// What else must stay out of it.
    never: &'static [&'static str],
}

/// Dev-dependencies are free: a broker's tests run the testkit's suite.
const TABLE: &[Fence] = &[
    Fence { krate: "outlast-core", may: &[], never: &["tokio", "rusqlite", "reqwest", "redis"] },
    Fence { krate: "outlast-redis", may: &["outlast-core"], never: &["rusqlite"] },
    Fence { krate: "outlast-sqlite", may: &["outlast-core"], never: &["redis"] },
    Fence { krate: "outlast-survive", may: &["outlast-core"], never: &["redis"] },
    Fence {
        krate: "outlast",
        may: &["outlast-core", "outlast-survive", "outlast-sqlite", "outlast-redis"],
        never: &["redis", "rusqlite"],
    },
    Fence { krate: "outlast-ops", may: &["outlast-core", "outlast-redis"], never: &["rusqlite"] },
    Fence {
        krate: "outlast-dash",
        may: &["outlast", "outlast-ops"],
        never: &["redis", "rusqlite"],
    },
    Fence { krate: "outlast-cli", may: &["outlast", "outlast-ops", "outlast-dash"], never: &[] },
    Fence { krate: "outlast-testkit", may: &["outlast-core"], never: &[] },
];

fn imports(tree: &Tree) -> Vec<Finding> {
    let is_manifest = |file: &&File| {
        file.krate().is_some_and(|krate| file.path == format!("crates/{krate}/Cargo.toml"))
    };
    tree.files.iter().filter(is_manifest).flat_map(imports_of).collect()
}

fn imports_of(manifest: &File) -> Vec<Finding> {
    let krate = manifest.krate().unwrap_or_default();
    let Some(fence) = TABLE.iter().find(|fence| fence.krate == krate) else {
        let what = format!("the crate {krate} has no row in the import table");
        return vec![Finding::new(&manifest.path, 1, krate, what)];
    };
    let wrong = |name: &str| {
        let ours = name == "outlast" || name.starts_with("outlast-");
        (ours && !fence.may.contains(&name)) || fence.never.contains(&name)
    };
    let found = dependencies(&manifest.text).into_iter().filter(|(_, name)| wrong(name));
    found
        .map(|(line, name)| {
            Finding::new(&manifest.path, line, &name, format!("{krate} must not import {name}"))
        })
        .collect()
}

/// The (line, name) of every dependency of a manifest, dev-dependencies apart; renamed ones under their real name too.
fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let (mut in_list, mut in_table) = (false, false);
    for (number, line) in (1..).zip(manifest.lines()) {
        let line = line.trim();
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']').replace("build-dependencies", "dependencies");
            let dev = header.contains("dev-dependencies");
            in_list = !dev && (header == "dependencies" || header.ends_with(".dependencies"));
            let table = header.rsplit_once("dependencies.").filter(|_| !dev);
            in_table = table.is_some();
            found.extend(table.map(|(_, name)| (number, name.to_owned())));
        } else if in_list && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or(line);
            found.push((number, name.trim_matches('"').to_owned()));
        }
        if in_list || in_table {
            found.extend(real_name(line).map(|name| (number, name.to_owned())));
        }
    }
    found
}

/// `name` of a line with `package = "name"`.
fn real_name(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("package")?;
    rest.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?.split('"').next()
}

fn brokers_named(tree: &Tree) -> Vec<Finding> {
    let library = tree.rust().filter(|file| file.krate() == Some("outlast"));
    let library = library.filter(|file| file.below("src").is_some_and(|path| path != "connect.rs"));
    let mut found = Vec::new();
    for file in library {
        for broker in ["outlast_sqlite", "outlast_redis"] {
            for at in rust::words(&file.code, broker) {
                let line = rust::line(&file.code, at);
                found.push(Finding::new(&file.path, line, broker, format!("names {broker}")));
            }
        }
    }
    found
}

#[test]
fn crates_import_only_what_the_table_allows() {
    holds(RULES, "import table");
}

#[test]
fn an_import_across_a_fence_is_found() {
    let core = "[dependencies]\nserde.workspace = true\ntokio = \"1\"\n[dev-dependencies]\noutlast.workspace = true\n";
    let survive = "[target.'cfg(unix)'.dependencies]\nspool = { package = \"outlast-sqlite\" }\n";
    let dash =
        "[dependencies.outlast-testkit]\nworkspace = true\n[build-dependencies]\nredis = '1'\n";
    let sample = [
        ("crates/outlast-core/Cargo.toml", core),
        ("crates/outlast-survive/Cargo.toml", survive),
        ("crates/outlast-dash/Cargo.toml", dash),
        ("crates/outlast-extra/Cargo.toml", "[package]\n"),
    ];
    let items = ["tokio", "outlast-sqlite", "outlast-testkit", "redis", "outlast-extra"];
    finds(RULES, "import table", &sample, &items);
}

#[test]
fn only_connect_names_a_brokers_crate() {
    holds(RULES, "brokers are named in one file");
}

#[test]
fn a_broker_named_outside_connect_is_found() {
    let text = "// outlast_sqlite in a comment is fine\nuse outlast_sqlite::SqliteBroker;\n";
    let sample = [("crates/outlast/src/client.rs", text), ("crates/outlast/src/connect.rs", text)];
    finds(RULES, "brokers are named in one file", &sample, &["outlast_sqlite"]);
}
