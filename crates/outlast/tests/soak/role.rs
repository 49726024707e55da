//! What the other processes do: this binary, run again with a role. Each writes what it does into a file of its own, a line at a
//! time, so that nothing of it is lost when it is killed:
//!
//! | line | means |
//! |---|---|
//! | `1893499200123 offered 5` | the enqueue of task 5 begins |
//! | `… accepted 5` | its caller was told yes |
//! | `… refused 5` | its caller was told no |
//! | `… began 5`, `… ended 5` | a handler was given it, and returned |

use std::fs::{self, File};
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use outlast::survive::{JournalMode, Survive};
use outlast::{Client, Clock, Connection, Run, TaskRequest, Worker};
use tokio::time::{MissedTickBehavior, interval, timeout};

const ROLE: &str = "OUTLAST_SOAK_ROLE";

/// Who plays what, and where.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) name: String,
    pub(crate) works: bool,
    /// The machine, which has one spool.
    pub(crate) machine: usize,
    /// Tasks a second, for a producer.
    pub(crate) rate: u64,
    pub(crate) url: String,
    pub(crate) folder: PathBuf,
}

impl Role {
    /// Starts the process. It ends when its standard input does, so with this one at the latest.
    pub(crate) fn start(&self) -> (Child, ChildStdin) {
        let errors = File::options().create(true).append(true).open(self.path("err")).unwrap();
        let Self { name, works, machine, rate, url, folder } = self;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "role::play", "--nocapture"]);
        command.env(ROLE, format!("{name} {works} {machine} {rate} {url} {}", folder.display()));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(errors);
        let mut child = command.spawn().unwrap();
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }

    pub(crate) fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", self.name))
    }

    pub(crate) fn spool(folder: &Path, machine: usize) -> PathBuf {
        folder.join(format!("machine{machine}.db"))
    }

    fn told() -> Option<Self> {
        let told = std::env::var(ROLE).ok()?;
        let [name, works, machine, rate, url, folder] =
            <[&str; 6]>::try_from(told.splitn(6, ' ').collect::<Vec<_>>()).unwrap();
        Some(Self {
            name: name.to_owned(),
            works: works == "true",
            machine: machine.parse().unwrap(),
            rate: rate.parse().unwrap(),
            url: url.to_owned(),
            folder: PathBuf::from(folder),
        })
    }
}

/// Where a process writes what it does.
struct Diary {
    file: File,
    clock: Clock,
}

impl Diary {
    fn write(&self, what: &str, id: &str) {
        let line = format!("{} {what} {id}\n", self.clock.now().as_millis());
        (&self.file).write_all(line.as_bytes()).unwrap();
    }
}

/// Nothing by itself: the processes of a soak come in here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn play() {
    let Some(role) = Role::told() else { return };
    let stop = Arc::new(AtomicBool::new(false));
    let told = stop.clone();
    std::thread::spawn(move || {
        for _line in std::io::stdin().lock().lines().map_while(Result::ok) {
            told.store(true, Ordering::Relaxed);
        }
        std::process::exit(0);
    });
    let survive =
        Survive::new(Role::spool(&role.folder, role.machine)).journal(JournalMode::Always);
    let connection = Connection::surviving(&role.url, survive).await.unwrap();
    let known = fs::read_to_string(role.path("log")).unwrap_or_default();
    let file = File::options().create(true).append(true).open(role.path("log")).unwrap();
    let diary = Arc::new(Diary { file, clock: Clock::system() });
    match role.works {
        true => work(&connection.client(), diary).await,
        false => produce(&connection.client(), &role, diary, (&known, stop)).await,
    }
}

/// Goes on behind what the process before it had offered.
async fn produce(
    client: &Client,
    role: &Role,
    diary: Arc<Diary>,
    (known, stop): (&str, Arc<AtomicBool>),
) {
    let mut pace = interval(Duration::from_secs(1) / role.rate as u32);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let begin = known.matches(" offered ").count();
    for n in begin.. {
        pace.tick().await;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("{}-{n}", role.name);
        diary.write("offered", &id);
        match client.enqueue(TaskRequest::raw("soak", "").id(&id)).await {
            Ok(receipt) if receipt.is_accepted() => diary.write("accepted", &id),
            Ok(receipt) => {
                eprintln!("{receipt}");
                diary.write("wrong", &id);
            }
            Err(error) => {
                eprintln!("{id}: {error}");
                diary.write("refused", &id);
            }
        }
    }
    // What is stored is delivered for as long as somebody is there.
    std::future::pending::<()>().await;
}

async fn work(client: &Client, diary: Arc<Diary>) {
    let worker = Worker::new(client).slots(8).handle_type("soak", move |run: Run| {
        let (diary, id) = (diary.clone(), run.task().id.to_string());
        async move {
            diary.write("began", &id);
            let _ = timeout(duration(&id), std::future::pending::<()>()).await;
            diary.write("ended", &id);
        }
    });
    let ended = worker.run_until(std::future::pending()).await;
    eprintln!("the worker ended: {ended:?}");
}

/// Most tasks take a moment, some a few seconds.
fn duration(id: &str) -> Duration {
    let last = id.bytes().rev().take(3).fold(0, |sum, digit| sum * 10 + u64::from(digit % 10));
    Duration::from_millis(if last == 77 { 4000 } else { 2 + last % 20 })
}
