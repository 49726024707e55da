//! The files of the repository as the rules see them, read once; or a few made-up ones, for the samples.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use crate::rust;

/// All files, by path from the root.
pub(crate) struct Tree {
    pub(crate) files: Vec<File>,
}

/// One file. Binary files have a path and no text.
pub(crate) struct File {
    /// From the root of the repository, with forward slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The text of a Rust file with comments and literals blanked, byte for byte in place; empty for other files.
    pub(crate) code: String,
    /// For each line of a Rust file whether it belongs to a test.
    test_lines: Vec<bool>,
}

impl Tree {
    /// This repository.
    pub(crate) fn repository() -> &'static Tree {
        static TREE: OnceLock<Tree> = OnceLock::new();
        TREE.get_or_init(|| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
            let mut files = Vec::new();
            walk(&root, "", &mut files);
            files.sort_by(|a, b| a.path.cmp(&b.path));
            Tree { files }
        })
    }

    /// A made-up one, for samples.
    pub(crate) fn of(files: &[(&str, &str)]) -> Tree {
        Tree { files: files.iter().map(|(path, text)| File::new(path, text)).collect() }
    }

    pub(crate) fn file(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Whether `path` is a file or a folder with files in it.
    pub(crate) fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }

    /// The Rust files that the rules judge.
    pub(crate) fn rust(&self) -> impl Iterator<Item = &File> {
        self.files.iter().filter(|file| file.is_rust())
    }
}

impl File {
    fn new(path: &str, text: &str) -> File {
        let mut file = File {
            path: path.to_owned(),
            text: text.to_owned(),
            code: String::new(),
            test_lines: Vec::new(),
        };
        if file.is_rust() {
            file.code = rust::mask(text);
            file.test_lines = match is_test_path(path) {
                true => vec![true; text.lines().count()],
                false => rust::test_lines(&file.code),
            };
        }
        file
    }

    /// Test data that happens to be Rust (compile-fail cases, golden files) is not judged.
    fn is_rust(&self) -> bool {
        let data = ["/ui/", "/golden/", "/fixtures/"];
        self.path.ends_with(".rs") && !data.iter().any(|folder| self.path.contains(folder))
    }

    /// The crate's folder, for files below `crates/`.
    pub(crate) fn krate(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }

    /// The path below the crate's `folder`, for example `src`.
    pub(crate) fn below(&self, folder: &str) -> Option<&str> {
        let (_, rest) = self.path.strip_prefix("crates/")?.split_once('/')?;
        rest.strip_prefix(folder)?.strip_prefix('/')
    }

    pub(crate) fn stem(&self) -> &str {
        let name = self.path.rsplit('/').next().unwrap_or(&self.path);
        name.split('.').next().unwrap_or(name)
    }

    /// Whether `line`, counted from 1, belongs to a test.
    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    pub(crate) fn lines(&self) -> usize {
        self.text.lines().count()
    }

    pub(crate) fn lines_outside_tests(&self) -> usize {
        self.lines() - self.test_lines.iter().filter(|test| **test).count()
    }
}

fn is_test_path(path: &str) -> bool {
    let tests = ["/tests/", "/benches/", "/tests.rs", "_tests.rs"];
    tests.iter().any(|part| path.contains(part))
}

/// Collects the files below `folder`. Build output is known by the tag that cargo puts into it, wherever it lies.
fn walk(folder: &Path, prefix: &str, files: &mut Vec<File>) {
    if folder.join("CACHEDIR.TAG").exists() {
        return;
    }
    let entries = fs::read_dir(folder).expect("the repository's folders can be read");
    for entry in entries {
        let entry = entry.expect("the repository's folders can be read");
        let name = entry.file_name().to_string_lossy().into_owned();
        // In a linked work tree .git is a file.
        if name == ".git" || name == "target" {
            continue;
        }
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{prefix}{name}/"), files);
        } else {
            let text = match is_text(&name) {
                true => fs::read_to_string(entry.path()).unwrap_or_default(),
                false => String::new(),
            };
            files.push(File::new(&format!("{prefix}{name}"), &text));
        }
    }
}

/// By its name: sources, pages, manifests, and scripts without an ending.
fn is_text(name: &str) -> bool {
    let text = ["rs", "md", "toml", "sql", "lua", "sh", "py", "go", "yml", "yaml", "json", "txt"];
    match name.rsplit_once('.') {
        Some((_, ending)) => text.contains(&ending),
        None => true,
    }
}

#[test]
fn the_repository_is_found_and_build_output_is_not() {
    let tree = Tree::repository();
    assert!(tree.has("crates/outlast-testkit/tests/tidy/tree.rs") && tree.has("crates/outlast"));
    assert!(!tree.has("target") && !tree.has(".git") && !tree.has("crates/outlas"));
}

#[test]
fn lines_of_tests_are_told_from_lines_of_the_product() {
    let text = "//! A.\nfn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() {}\n}\n";
    let tree = Tree::of(&[("crates/x/src/a.rs", text), ("crates/x/tests/it/b.rs", text)]);
    assert_eq!(tree.files[0].lines_outside_tests(), 2);
    assert_eq!(tree.files[1].lines_outside_tests(), 0);
}
