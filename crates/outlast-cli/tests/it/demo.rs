//! The outage demo: it keeps the promise it shows, and leaves nothing behind however it ends.

use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use outlast_testkit::server::{RedisServer, SERVER_ENV};
use serde_json::Value;

use crate::home::{Home, Ran};

/// A home whose temporary folder is its own, and the demo's command in it; none without a server to test with.
struct Demo {
    home: Home,
    server: OsString,
}

impl Demo {
    fn or_skip() -> Option<Self> {
        RedisServer::or_skip(RedisServer::start())?;
        let named = std::env::var_os(SERVER_ENV).filter(|name| !name.is_empty());
        let home = Home::empty();
        std::fs::create_dir(home.path("tmp")).expect("the folder can be made");
        Some(Self { home, server: named.unwrap_or_else(|| "redis-server".into()) })
    }

    fn tmp(&self) -> PathBuf {
        self.home.path("tmp").canonicalize().expect("it was made")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.home.command(&["demo", "outage", "--rate", "50"]);
        command.args(args).arg("--server").arg(&self.server).env("TMPDIR", self.tmp());
        command
    }

    fn run(&self, args: &[&str]) -> Ran {
        let ran: Ran = self.command(args).output().expect("the program starts").into();
        self.left_nothing();
        ran
    }

    /// No file in its temporary folder, and no process that works there.
    fn left_nothing(&self) {
        let tmp = self.tmp();
        let files: Vec<_> = std::fs::read_dir(&tmp).expect("it is there").collect();
        assert!(files.is_empty(), "{files:?}");
        let left: Vec<_> = folders_of_processes().filter(|dir| dir.starts_with(&tmp)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Where the processes of this machine work, as far as we may know.
fn folders_of_processes() -> impl Iterator<Item = PathBuf> {
    let processes = std::fs::read_dir(Path::new("/proc")).into_iter().flatten().flatten();
    processes.filter_map(|process| std::fs::read_link(process.path().join("cwd")).ok())
}

/// What Outlast promises.
fn keeps_its_promise(side: &Value) {
    let number = |name: &str| side[name].as_u64().unwrap_or_else(|| panic!("{name} in {side}"));
    assert_eq!(side["side"], "outlast");
    for none in ["lost", "repeated", "waiting", "due_again", "refused"] {
        assert_eq!(number(none), 0, "{none} in {side}");
    }
    assert!(number("stored") > 0, "{side}");
    let all = number("offered");
    assert!(all > 100 && all == number("accepted") && all == number("executed"), "{side}");
}

#[test]
fn no_task_is_lost_or_repeated_by_any_fault_and_nothing_is_left_behind() {
    let Some(demo) = Demo::or_skip() else { return };
    let ran = demo.run(&["--for", "1s", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let [side] = &ran.objects()[..] else { panic!("{ran:?}") };
    keeps_its_promise(side);
    let faults = side["faults"].as_array().expect("a list");
    let names: Vec<_> = faults.iter().filter_map(|fault| fault["fault"].as_str()).collect();
    assert_eq!(names, ["kill", "freeze", "full", "restart"]);
    for fault in faults {
        assert_eq!(fault["lasted_ms"], 1000, "{fault}");
        assert!(fault["commands"].is_u64() && fault["connections"].is_u64(), "{fault}");
    }
    assert!(ran.stderr.contains("outlast kill "), "{ran:?}");
}

#[test]
fn the_table_says_what_became_of_the_tasks() {
    let Some(demo) = Demo::or_skip() else { return };
    let ran = demo.run(&["--for", "1s", "--fault", "kill,full"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let line = |head: &str| {
        let found = ran.stdout.lines().find(|line| line.trim_start().starts_with(head));
        found.unwrap_or_else(|| panic!("no {head:?} in {ran:?}")).trim_start()[head.len()..].trim()
    };
    assert!(line("outlast  server").contains("█╌"), "{ran:?}");
    assert!(line("producer").contains('▒'), "{ran:?}");
    assert_eq!((line("lost"), line("repeated")), ("0", "0"));
    assert_eq!(line("tasks offered"), line("accepted and executed"));
    assert!(line("of these stored on disk") != "0", "{ran:?}");
    assert!(line("kill: first run, all caught up").contains("s, "), "{ran:?}");
    assert!(!ran.stdout.contains("freeze"), "{ran:?}");
}

#[test]
fn asynq_goes_through_the_same_beside_us() {
    let Some(demo) = Demo::or_skip() else { return };
    let ran = demo.run(&["--for", "1s", "--fault", "full", "--against", "asynq", "--json"]);
    if ran.code == 5 && std::env::var_os("OUTLAST_REQUIRE_ASYNQ").is_none() {
        eprintln!("skipped: {}", ran.stderr);
        return;
    }
    assert_eq!(ran.code, 0, "{ran:?}");
    let [ours, asynq] = &ran.objects()[..] else { panic!("{ran:?}") };
    keeps_its_promise(ours);
    assert_eq!((&asynq["side"], &asynq["stored"]), (&"asynq".into(), &0.into()), "{asynq}");
    assert!(
        asynq["executed"].as_u64() > Some(50) && asynq["refused"].as_u64() > Some(0),
        "{asynq}"
    );
    let commands = |side: &Value| side["faults"][0]["commands"].as_u64();
    assert!(commands(ours) < commands(asynq), "{ran:?}");
}

#[test]
fn a_demo_that_is_stopped_half_way_takes_its_server_with_it() {
    let Some(demo) = Demo::or_skip() else { return };
    // Frozen: a server that could not end by itself.
    let mut child = demo.command(&["--for", "1m", "--fault", "freeze"]).spawn().expect("starts");
    let said = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let frozen = said.lines().map_while(Result::ok).any(|line| line.contains("outlast freeze "));
    assert!(frozen && folders_of_processes().any(|dir| dir.starts_with(demo.tmp())));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    let ended = child.wait().expect("can be waited for");
    assert_eq!(ended.code(), Some(1));
    demo.left_nothing();
}

#[test]
fn what_cannot_be_shown_is_refused_with_the_remedy() {
    let home = Home::empty();
    let no_server: Ran = home
        .command(&["demo", "outage"])
        .env("PATH", home.path(""))
        .output()
        .expect("the program starts")
        .into();
    no_server.refused(5, "there is no redis-server or valkey-server on the PATH");
    assert!(no_server.stderr.contains("apt install redis-server"), "{no_server:?}");
    let refused = |args: &[&str], code: i32, message: &str| {
        home.run(&[&["demo", "outage"], args].concat()).refused(code, message);
    };
    refused(&["--server", "./nowhere"], 2, "--server ./nowhere is no file");
    refused(&["--for", "10ms"], 2, "--for is too short: use 500ms or more");
    refused(&["--rate", "0"], 2, "0 is not in 1..=1000");
    let program = std::env::current_exe().expect("a test has a program");
    let program = program.to_str().expect("its path is text");
    refused(&["--for", "1h", "--server", program], 2, "use a shorter --for or a lower --rate");
    let no_asynq =
        home.command(&["demo", "outage", "--against", "asynq"]).env("OUTLAST_ASYNQ", "x").output();
    Ran::from(no_asynq.expect("the program starts")).refused(5, "scripts/install-interop");
}
