//! Every example ends well: they are the documentation that people copy.

use std::path::PathBuf;
use std::process::Command;

/// Where cargo puts examples: beside the folder of the test binaries.
fn examples() -> PathBuf {
    let exe = std::env::current_exe().expect("the test knows its own place");
    exe.ancestors().nth(2).expect("target/<profile>").join("examples")
}

#[test]
fn every_example_ends_well() {
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut count = 0;
    for entry in std::fs::read_dir(sources).expect("the examples are there") {
        let path = entry.expect("readable").path();
        let name = path.file_stem().expect("a name").to_owned();
        let program = examples().join(&name);
        if !program.exists() {
            // `cargo test --test it` alone builds no examples; `scripts/test` builds all.
            eprintln!("skipped: {} is not built, run cargo test --workspace", program.display());
            continue;
        }
        let output = Command::new(&program).output().expect("an example starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name:?} ended with {}: {text}", output.status);
        assert!(!output.stdout.is_empty(), "{name:?} shows nothing");
        count += 1;
    }
    assert!(count == 0 || count >= 10, "only {count} examples ran");
}
