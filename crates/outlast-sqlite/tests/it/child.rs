//! Other processes for the tests: this test binary, run again with a role to play. Parent and child talk
//! in lines, so that nobody has to wait for a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use outlast_core::broker::WorkerBeat;
use outlast_core::inspect::{PriorityName, WorkerStatus};
use outlast_core::{Beat, Broker, WorkerView};
use outlast_sqlite::{Options, SqliteBroker};

use crate::kit::*;

const ROLE: &str = "OUTLAST_TEST_ROLE";
const FILE: &str = "OUTLAST_TEST_FILE";

/// What the children's lines begin with; the rest of their output is the test harness's.
const MARK: &str = "child: ";

/// A child that plays a role.
pub(crate) struct Actor {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
}

pub(crate) fn command(role: &str, file: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "child::play", "--nocapture"]);
    command.env(ROLE, role).env(FILE, file);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

impl Actor {
    pub(crate) fn start(role: &str, file: &Path) -> Self {
        Self::spawn(&mut command(role, file)).expect("the child starts")
    }

    pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.spawn()?;
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let stdin = child.stdin.take().expect("is piped");
        Ok(Self { child, lines, stdin })
    }

    /// The child's next line, or `None` when it has ended.
    pub(crate) fn hear(&mut self) -> Option<String> {
        loop {
            let line = self.lines.next()?.ok()?;
            // The harness prints its own words before ours, without ending the line.
            if let Some((_, said)) = line.split_once(MARK) {
                return Some(said.to_owned());
            }
        }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("the child listens");
    }

    /// Kills the child, as `kill -9` does, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("can be killed");
        self.child.wait().expect("is gone");
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn say(line: &str) {
    println!("{MARK}{line}");
    std::io::stdout().flush().expect("the parent listens");
}

fn listen() -> String {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the parent speaks");
    line.trim().to_owned()
}

/// Not a test of its own: the children's way in.
#[tokio::test]
async fn play() {
    let (Ok(role), Ok(file)) = (std::env::var(ROLE), std::env::var(FILE)) else { return };
    if role == "open" {
        let opened = SqliteBroker::open(&file, Options::default());
        return say(&opened.map_or_else(|e| format!("{}: {e}", e.kind()), |_| "opened".into()));
    }
    let broker = open(Path::new(&file));
    match role.as_str() {
        "worker" => be_worker(&broker).await,
        "waker" => be_waker(&broker).await,
        "load" => be_load(&broker).await,
        other => panic!("no such role: {other}"),
    }
}

/// A worker that claims one task and then does nothing until it is killed.
async fn be_worker(broker: &SqliteBroker) {
    let reply = broker.beat(NOW, &first_beat("doomed")).await.expect("beats");
    let token = reply.token.expect("a first beat hands one out");
    let mut want = want(token.get(), 1);
    want.lease = Duration::from_secs(3600);
    let claims = broker.claim(&queue("q"), stamp(), NOW, &want).await.expect("claims");
    say(&format!("claimed {}", ids(&claims).join(",")));
    listen();
}

/// Enqueues one task for every line it hears, after having said that it is ready.
async fn be_waker(broker: &SqliteBroker) {
    say("ready");
    loop {
        let id = listen();
        if id.is_empty() {
            return;
        }
        put(broker, "q", task(&id)).await;
    }
}

/// Enqueues without end from four callers, and says each batch that was acknowledged.
async fn be_load(broker: &SqliteBroker) {
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..4 {
        let broker = broker.clone();
        callers.spawn(async move {
            for batch in 0.. {
                let name = format!("{}-{caller}-{batch}", std::process::id());
                let batch = tasks((0..8).map(|n| format!("{name}-{n}")));
                broker.enqueue(&queue("q"), stamp(), NOW, batch).await.expect("enqueues");
                say(&name);
            }
        });
    }
    callers.join_all().await;
}

pub(crate) fn first_beat(name: &str) -> Beat {
    let view = WorkerView {
        id: name.into(),
        host: "here".into(),
        pid: std::process::id(),
        started_at: NOW,
        status: WorkerStatus::Running,
        slots: 1,
        queues: vec![(queue("q"), 1)],
        priority: PriorityName::Weighted,
        active: 0,
        running: Vec::new(),
    };
    let worker = Some(WorkerBeat { view, token: None, seen: 0 });
    Beat { worker, ttl: Duration::from_secs(3600), ..Beat::default() }
}
