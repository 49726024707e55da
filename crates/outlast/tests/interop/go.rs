//! A Go program that a test has started: requests and answers in lines of JSON, events as they come. It is killed
//! when the test is over, and ends by itself when the test process is gone, because its input closes.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tokio::sync::watch;

use super::world::soon;

/// Lines of its log that a failure shows.
const LOG_LINES_MAX: usize = 40;

/// A running program.
pub(crate) struct Go {
    child: Child,
    input: Option<ChildStdin>,
    said: Arc<Said>,
    answered: usize,
}

/// What it has printed so far.
struct Said {
    lines: Mutex<Vec<Value>>,
    log: Mutex<Vec<String>>,
    count: watch::Sender<usize>,
}

/// Where `scripts/install-interop` puts the programs: beside the folder that holds this test's executable.
pub(crate) fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("interop").join(name)
}

impl Go {
    /// Starts a program.
    pub(crate) fn start(program: &Path, args: &[&str]) -> Self {
        Self::spawn(program, Command::new(program).args(args))
    }

    /// Starts a program, which need not be one in Go, with a variable in its environment.
    pub(crate) fn start_with(program: &Path, args: &[&str], name: &str, value: &str) -> Self {
        Self::spawn(program, Command::new(program).args(args).env(name, value))
    }

    fn spawn(program: &Path, command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {}: {error}", program.display()));
        let said = Arc::new(Said {
            lines: Mutex::default(),
            log: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let (output, log) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (hears, notes) = (said.clone(), said.clone());
        thread::spawn(move || each_line(output, |line| hears.hear(&line)));
        thread::spawn(move || each_line(log, |line| notes.note(line)));
        let input = child.stdin.take();
        Self { child, input, said, answered: 0 }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn ask(&mut self, request: &Value) -> Value {
        let input = self.input.as_mut().unwrap();
        writeln!(input, "{request}").unwrap();
        self.answered += 1;
        let wanted = self.answered;
        self.wait(&format!("an answer to {request}"), |lines| lines.get(wanted - 1).cloned()).await
    }

    /// The first event of this name that `fits`, as soon as there is one.
    pub(crate) async fn event(&self, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let found = |lines: &[Value]| {
            lines.iter().find(|line| line["event"] == name && fits(line)).cloned()
        };
        self.wait(&format!("the event {name}"), found).await
    }

    /// The event of this name about this task.
    pub(crate) async fn event_of(&self, name: &str, id: &str) -> Value {
        self.event(name, |event| event["id"] == id).await
    }

    /// All events of a name so far.
    pub(crate) fn events(&self, name: &str) -> Vec<Value> {
        let lines = self.said.lines.lock().unwrap();
        lines.iter().filter(|line| line["event"] == name).cloned().collect()
    }

    async fn wait(&self, what: &str, find: impl Fn(&[Value]) -> Option<Value>) -> Value {
        let mut count = self.said.count.subscribe();
        let looks = async {
            loop {
                count.borrow_and_update();
                if let Some(found) = find(&self.said.lines.lock().unwrap()) {
                    return Some(found);
                }
                if count.changed().await.is_err() {
                    return None;
                }
            }
        };
        match soon(looks).await {
            Some(Some(found)) => found,
            _ => panic!("{what} did not come; said: {:#?}", self.shown()),
        }
    }

    fn shown(&self) -> (Vec<Value>, Vec<String>) {
        let lines = self.said.lines.lock().unwrap();
        let first = lines.len().saturating_sub(LOG_LINES_MAX);
        (lines[first..].to_vec(), self.said.log.lock().unwrap().clone())
    }

    /// Ends it as it should end.
    pub(crate) async fn end(&mut self) {
        self.input = None;
        self.event("stopped", |_| true).await;
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a power cut would, and waits until it is gone.
    pub(crate) fn kill9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _gone_already = self.child.wait();
    }
}

impl Said {
    fn hear(&self, line: &str) {
        let value = serde_json::from_str(line).unwrap_or_else(|_| Value::from(line));
        let mut lines = self.lines.lock().unwrap();
        lines.push(value);
        self.count.send_replace(lines.len());
    }

    fn note(&self, line: String) {
        let mut log = self.log.lock().unwrap();
        if log.len() < LOG_LINES_MAX {
            log.push(line);
        }
    }
}

fn each_line(from: impl Read, hear: impl FnMut(String)) {
    BufReader::new(from).lines().map_while(Result::ok).for_each(hear);
}
