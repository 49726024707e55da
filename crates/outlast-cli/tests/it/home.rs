//! A folder of its own for every test: configuration, broker and whatever handlers write.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The program that is tested.
const OUTLAST: &str = env!("CARGO_BIN_EXE_outlast");

/// Looks at a state before a test gives up: at some milliseconds each, half a minute or more.
const LOOKS_MAX: usize = 3000;

/// Where one test lives.
pub(crate) struct Home {
    folder: TempDir,
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Home {
    /// A folder with this `outlast.toml`.
    pub(crate) fn with(config: &str) -> Self {
        let home = Self::empty();
        home.write("outlast.toml", config);
        home
    }

    /// A folder without a configuration.
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder can be made") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("the folder can be written");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Makes a pipe with a name: handlers and tests wait for each other there.
    pub(crate) fn fifo(&self, name: &str) -> PathBuf {
        let made = Command::new("mkfifo").arg(self.path(name)).status().expect("mkfifo is there");
        assert!(made.success());
        self.path(name)
    }

    /// Waits for the next line in a pipe with a name.
    pub(crate) fn hear(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("somebody writes").trim().to_owned()
    }

    /// The program in this folder, with nothing of the outer environment that could change it.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(OUTLAST);
        command.args(args).current_dir(self.folder.path()).env("HOME", self.folder.path());
        for name in std::env::vars_os().map(|(name, _)| name) {
            let text = name.to_string_lossy();
            if text.starts_with("OUTLAST_") || text.starts_with("XDG_") {
                command.env_remove(&name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        self.command(args).output().expect("the program starts").into()
    }

    /// Runs the program with this on stdin.
    pub(crate) fn pipe(&self, args: &[&str], stdin: &[u8]) -> Ran {
        self.write("stdin", stdin);
        let stdin = std::fs::File::open(self.path("stdin")).expect("was just written");
        self.command(args).stdin(stdin).output().expect("the program starts").into()
    }

    /// Runs the program, which must end with 0, and answers with the objects it prints.
    pub(crate) fn json(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.run(&[&["--json"], args].concat());
        assert_eq!(ran.code, 0, "{args:?}: {ran:?}");
        ran.objects()
    }

    /// Enqueues, and answers with the task's id.
    pub(crate) fn enqueue(&self, args: &[&str]) -> String {
        let receipt = self.json(&[&["task", "enqueue"], args].concat()).remove(0);
        receipt["id"].as_str().expect("a receipt has an id").to_owned()
    }

    /// A task as it is now.
    pub(crate) fn task(&self, id: &str) -> Value {
        self.json(&["task", "show", id]).remove(0)
    }

    /// Asks again and again until a task is in `state`. Each look is a process of its own, which is pause
    /// enough; a task that never gets there fails the test by its number of looks.
    pub(crate) fn until(&self, id: &str, state: &str) -> Value {
        let looks = std::iter::repeat_with(|| self.run(&["task", "show", id, "--json"]));
        let tasks = looks.take(LOOKS_MAX).map(|ran| ran.objects().pop().unwrap_or_default());
        let found = tasks.into_iter().find(|task| task["state"] == state);
        found.unwrap_or_else(|| panic!("{id} never was {state}: {}", self.read("log")))
    }

    /// The same for the numbers of a queue.
    pub(crate) fn until_queue(&self, queue: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let looks = std::iter::repeat_with(|| self.run(&["queue", "show", queue, "--json"]));
        let stats = looks.take(LOOKS_MAX).map(|ran| ran.objects().pop().unwrap_or_default());
        let found = stats.into_iter().find(holds);
        found.unwrap_or_else(|| panic!("{queue} never got there: {}", self.read("log")))
    }

    /// Works until nothing is left.
    pub(crate) fn work(&self) -> Ran {
        let ran = self.run(&["work", "--exit-when-empty"]);
        assert_eq!(ran.code, 0, "{ran:?}");
        ran
    }

    /// Starts the program and leaves it running.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut command = self.command(args);
        let log = std::fs::File::create(self.path("log")).expect("the folder can be written");
        Running::spawn(command.stderr(log))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// What was printed as objects, one a line.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let object =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.stdout.lines().map(object).collect()
    }

    /// Asserts the exit code and a part of stderr.
    pub(crate) fn refused(&self, code: i32, message: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.starts_with("outlast: "), "{self:?}");
        assert!(self.stderr.contains(message), "{message:?} is not in {self:?}");
    }
}

/// A program that runs; killed at the end of the test.
pub(crate) struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { child, stdout }
    }

    /// The next line of its stdout.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("prints text");
        line.trim_end().to_owned()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }

    /// Waits for its end; the exit code, or -1 after a signal.
    pub(crate) fn wait(&mut self) -> i32 {
        self.child.wait().expect("can be waited for").code().unwrap_or(-1)
    }

    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The rest of its stdout.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        self.stdout.by_ref().lines().map(|line| line.expect("prints text")).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
