//! Another process for the tests: this test binary, run again with a role to play. Parent and child talk in
//! lines, so that nobody has to wait for a time.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use async_trait::async_trait;
use outlast_core::{Broker, Claim, Kind, Outcome, Settlement};
use outlast_sqlite::{Options, SqliteBroker};
use outlast_survive::{Clock, Config, JournalMode, NotStored, wrap};
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;

use crate::kit::*;
use crate::stand_in::{Before, StandIn};

const ROLE: &str = "OUTLAST_TEST_ROLE";
const FOLDER: &str = "OUTLAST_TEST_FOLDER";

/// What the children's lines begin with; the rest of their output is the test harness's.
const MARK: &str = "child: ";

/// A child that plays a role.
pub(crate) struct Actor {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    stdin: ChildStdin,
}

impl Actor {
    pub(crate) fn start(role: &str, folder: &Path) -> Self {
        Self::spawn(&mut command(role, folder))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the child starts");
        let lines = BufReader::new(child.stdout.take().expect("is piped")).lines();
        let stdin = child.stdin.take().expect("is piped");
        Self { child, lines, stdin }
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
    pub(crate) fn kill(mut self) {
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

pub(crate) fn command(role: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "child::play", "--nocapture"]);
    command.env(ROLE, role).env(FOLDER, folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
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

pub(crate) fn broker(folder: &Path) -> SqliteBroker {
    SqliteBroker::open(folder.join("tasks.db"), Options::default()).expect("opens")
}

/// Not a test of its own: the children's way in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play() {
    let (Ok(role), Ok(folder)) = (std::env::var(ROLE), std::env::var(FOLDER)) else { return };
    let folder = Path::new(&folder);
    match role.as_str() {
        "drain" => be_drain(folder).await,
        "producer" => be_producer(folder).await,
        "cramped" => be_cramped(folder).await,
        "worker" => be_worker(folder).await,
        "saver" => be_saver(folder).await,
        other => panic!("no such role: {other}"),
    }
}

/// All of them mean the same broker, also those for which a stand-in is away in its place.
pub(crate) fn config(folder: &Path) -> Config {
    let config = Config::new(folder.join("spool.db"), Clock::new(|| NOW));
    Config { broker: Some("the broker of the children".into()), ..config }
}

/// Delivers what the spool holds, and asks before and after every call that the broker gets.
async fn be_drain(folder: &Path) {
    let stepping = Stepping(Arc::new(broker(folder)));
    let survivor =
        wrap(Arc::new(Before(Arc::new(stepping))), config(folder)).expect("the spool opens");
    until(&survivor, "all is delivered", |s| s.outbox.items + s.journal.items == 0).await;
    say("empty");
}

/// Claims a task and reports it done, journaled first.
async fn be_worker(folder: &Path) {
    let stepping = Stepping(Arc::new(broker(folder)));
    let mut config = config(folder);
    config.journal = JournalMode::Always;
    config.patience = std::time::Duration::from_secs(60);
    let survivor = wrap(Arc::new(Before(Arc::new(stepping))), config).expect("the spool opens");
    let broker = survivor.broker();
    let claims = broker.claim(&queue("q"), stamp(), NOW, &want(1)).await.expect("claims");
    let Claim::Task(claimed) = &claims.claims[0] else { panic!("no groups here") };
    let settlement =
        Settlement { lease: claimed.lease.clone(), outcome: Outcome::Done { result: None } };
    let settled = broker.settle(&queue("q"), stamp(), NOW, [settlement].into()).await;
    say(&format!("{:?}", settled.expect("is settled").verdicts));
}

/// Stores tasks until there is no room on its disk, and looks what is left of them.
async fn be_cramped(folder: &Path) {
    say("begins");
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![0; 200_000]).expect("has room yet");
    let survivor = wrap(Arc::new(away()), config(folder)).expect("the spool opens");
    let (broker, payload) = (survivor.broker(), vec![b'y'; 2000]);
    let offer = |n: usize| {
        let mut task = outlast_testkit::conformance::task(&n.to_string());
        task.payload = payload.clone().into();
        async { broker.enqueue(&queue("q"), stamp(), NOW, [task].into()).await }
    };
    let mut acknowledged = 0;
    let error = loop {
        match offer(acknowledged).await {
            Ok(_) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    let not_stored = std::error::Error::source(&error).and_then(|e| e.downcast_ref::<NotStored>());
    say(&format!("refused: {}", not_stored.map_or("?", |error| error.spool.kind().as_str())));
    let waiting = survivor.status().expect("readable").outbox.items;
    let there = waiting == acknowledged as u64;
    say(if there { "all that was acknowledged is there" } else { "something is missing" });
    std::fs::remove_file(&ballast).expect("is there");
    let again = offer(acknowledged).await;
    say(&again.map_or_else(|error| error.to_string(), |_| "takes tasks again".into()));
}

/// A broker that takes nothing.
fn away() -> FaultBroker {
    let away = FaultBroker::new(Arc::new(ModelBroker::new(10)));
    for verb in [Verb::Enqueue, Verb::Settle, Verb::Health] {
        away.always(verb, Fault::Before(Kind::Unavailable));
    }
    away
}

/// Stores tasks without end while its broker is away, and says each that was acknowledged.
async fn be_producer(folder: &Path) {
    let survivor = wrap(Arc::new(away()), config(folder)).expect("the spool opens");
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..4 {
        let broker = survivor.broker();
        producers.spawn(async move {
            for n in 0.. {
                let id = format!("{}-{producer}-{n}", std::process::id());
                match enqueue(&*broker, "q", NOW, &[&id]).await {
                    Ok(_) => say(&id),
                    Err(error) => return say(&format!("error {error}")),
                }
            }
        });
    }
    producers.join_all().await;
}

/// Stores some tasks, one after the other, and says what came of each.
async fn be_saver(folder: &Path) {
    let survivor = wrap(Arc::new(away()), config(folder)).expect("the spool opens");
    for n in 0..6 {
        let id = format!("t{n}");
        match enqueue(&*survivor.broker(), "q", NOW, &[&id]).await {
            Ok(_) => say(&format!("stored {id}")),
            Err(error) => {
                let source = std::error::Error::source(&error);
                let not_stored = source.and_then(|source| source.downcast_ref::<NotStored>());
                let kind = not_stored.map_or("?", |error| error.spool.kind().as_str());
                say(&format!("refused {kind}"));
            }
        }
    }
    say("done");
}

/// Asks the parent before and after every write.
struct Stepping(Arc<dyn Broker>);

impl Stepping {
    async fn step(line: &'static str) {
        let asked = move || {
            say(line);
            listen();
        };
        tokio::task::spawn_blocking(asked).await.expect("the parent answers");
    }
}

#[async_trait]
impl StandIn for Stepping {
    fn behind(&self) -> Arc<dyn Broker> {
        self.0.clone()
    }

    async fn before(&self) {
        Self::step("sending").await;
    }

    async fn after(&self) {
        Self::step("sent").await;
    }
}
