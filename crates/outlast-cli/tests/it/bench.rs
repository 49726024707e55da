//! `bench`: every promised figure comes, every task is counted, and nothing stays behind. How fast anything was is not
//! looked at here.

use std::path::PathBuf;

use outlast_testkit::resp::Reply;
use outlast_testkit::server::RedisServer;
use serde_json::Value;

use crate::home::{Home, Ran};

/// The figures of a server.
const OF_A_SERVER: [&str; 24] = [
    "yardstick.ping1",
    "yardstick.ping16",
    "enqueue.single",
    "enqueue.concurrent16",
    "enqueue.concurrent",
    "enqueue.bulk",
    "ceiling.enqueue",
    "drain",
    "ceiling.drain",
    "pickup.p50",
    "pickup.p99",
    "pickup.other_process.p50",
    "scheduled.lateness.p99",
    "idle.commands",
    "memory.per_task",
    "redis.cpu_per_task.batch1",
    "redis.cpu_per_task.batch10",
    "redis.cpu_per_task",
    "drain.active10k",
    "enqueue.waiting1m",
    "drain.waiting1m",
    "drain.active10k.kept",
    "enqueue.waiting1m.kept",
    "drain.waiting1m.kept",
];

/// Of those, where tasks are counted.
const COUNTED: [&str; 17] = [
    "enqueue.single",
    "enqueue.concurrent16",
    "enqueue.concurrent",
    "enqueue.bulk",
    "drain",
    "pickup.p50",
    "pickup.p99",
    "pickup.other_process.p50",
    "memory.per_task",
    "drain.active10k",
    "enqueue.waiting1m",
    "drain.waiting1m",
    "redis.cpu_per_task.batch1",
    "redis.cpu_per_task.batch10",
    "redis.cpu_per_task",
    "ceiling.enqueue",
    "ceiling.drain",
];

/// Of those, what asynq has no counterpart of.
const ALONE: [&str; 6] = [
    "pickup.other_process.p50",
    "drain.active10k.kept",
    "enqueue.waiting1m.kept",
    "drain.waiting1m.kept",
    "ceiling.enqueue",
    "ceiling.drain",
];

/// A server on which somebody else has something already.
fn server() -> Option<RedisServer> {
    let server = RedisServer::or_skip(RedisServer::start())?;
    for words in [&["SET", "theirs", "1"], &["SADD", "asynq:queues", "mail"]] {
        server.command(words).expect("the server answers");
    }
    Some(server)
}

/// The figures by name, in order; all of them finite, positive numbers.
fn figures(ran: &Ran) -> Vec<(String, Value)> {
    assert_eq!(ran.code, 0, "{ran:?}");
    let named = |figure: Value| (figure["figure"].as_str().unwrap_or_default().to_owned(), figure);
    let figures: Vec<_> = ran.objects().into_iter().map(named).collect();
    for (name, figure) in &figures {
        let is_sound = figure["value"].as_f64().is_some_and(|value| value >= 0.0);
        assert!(is_sound && figure["unit"].is_string(), "{name}: {figure}");
    }
    figures
}

fn names(figures: &[(String, Value)]) -> Vec<&str> {
    figures.iter().map(|(name, _)| name.as_str()).collect()
}

fn check_counted(figures: &[(String, Value)]) {
    for (name, figure) in figures {
        match COUNTED.contains(&name.as_str()) {
            true => assert_eq!(figure["exact"], true, "{name}: {figure}"),
            false => assert!(figure["exact"].is_null(), "{name}: {figure}"),
        }
    }
}

/// What a command answers, as texts.
fn asked(server: &RedisServer, words: &[&str]) -> Vec<String> {
    let reply = server.command(words).expect("the server answers");
    let text = |reply: Reply| reply.text().unwrap_or_default();
    match reply {
        Reply::Array(replies) => replies.into_iter().map(text).collect(),
        single => vec![text(single)],
    }
}

/// Only what was there before is there, and it is what it was.
fn check_nothing_is_left(server: &RedisServer) {
    let mut keys = asked(server, &["KEYS", "*"]);
    keys.sort_unstable();
    assert_eq!(keys, ["asynq:queues", "theirs"]);
    assert_eq!(asked(server, &["SMEMBERS", "asynq:queues"]), ["mail"]);
    let databases = asked(server, &["INFO", "keyspace"]).concat();
    assert!(databases.contains("db0:") && !databases.contains("db3:"), "{databases}");
}

/// The real asynq, where it was built; where it has to be there, its absence is a failure.
fn asynq() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("the test has a path");
    let target = test.ancestors().nth(3).expect("the test is below the target folder");
    let program = target.join("interop/outlast-interop");
    let required = std::env::var_os("OUTLAST_REQUIRE_ASYNQ").is_some();
    assert!(program.is_file() || !required, "{} is not there", program.display());
    program.is_file().then_some(program)
}

#[test]
fn a_server_is_measured_on_keys_of_our_own_and_left_as_it_was() {
    let Some(server) = server() else { return };
    let ran = Home::empty().run(&["bench", "--tiny", "--json", "--broker", &server.url()]);
    let figures = figures(&ran);
    assert_eq!(names(&figures), OF_A_SERVER);
    check_counted(&figures);
    for (name, figure) in &figures {
        let is_ceiling = name.starts_with("ceiling.");
        assert_eq!(figure["ratio"].is_number(), is_ceiling, "{name}: {figure}");
        assert!(figure["mode"].as_str().is_some_and(|mode| !mode.contains("sqlite")), "{figure}");
    }
    check_nothing_is_left(&server);
}

#[test]
fn some_of_the_figures_are_had_alone() {
    let Some(server) = server() else { return };
    let (home, url) = (Home::empty(), server.url());
    let bench = |only| home.run(&["bench", "--tiny", "--json", "--broker", &url, "--only", only]);
    assert_eq!(names(&figures(&bench("yardstick"))), ["yardstick.ping1", "yardstick.ping16"]);
    bench("ping").refused(2, "no figure begins with \"ping\"");
    check_nothing_is_left(&server);
}

#[test]
fn asynq_runs_beside_ours_and_is_counted_as_strictly() {
    let (Some(server), Some(asynq)) = (server(), asynq()) else { return };
    let home = Home::with(&format!("broker = '{}/3?namespace=theirs'", server.url()));
    let args = ["bench", "--tiny", "--json", "--against", "asynq", "--asynq"];
    let ran = home.run(&[&args[..], &[&asynq.to_string_lossy()]].concat());
    let figures = figures(&ran);
    assert_eq!(names(&figures), OF_A_SERVER);
    check_counted(&figures);
    for (name, figure) in &figures {
        let is_compared = figure["against"].as_str().is_some_and(|peer| peer.contains("asynq"));
        assert_eq!(is_compared, !ALONE.contains(&name.as_str()), "{name}: {figure}");
        assert!(!is_compared || figure["peer_value"].is_number(), "{name}: {figure}");
    }
    check_nothing_is_left(&server);
}

#[test]
fn a_bench_without_its_server_or_its_peer_says_what_is_missing() {
    let home = Home::empty();
    let nobody = home.run(&["bench", "--tiny", "--broker", "redis://u:secret@127.0.0.1:1"]);
    nobody.refused(4, "127.0.0.1:1");
    assert!(!nobody.stderr.contains("secret"), "{nobody:?}");
    home.run(&["bench", "--against", "asynq"]).refused(2, "are for servers");
    let url =
        ["--broker", "redis://127.0.0.1:1", "--against", "asynq", "--asynq", "/nowhere/asynq"];
    let missing = home.run(&[&["bench"], &url[..]].concat());
    missing.refused(5, "no /nowhere/asynq; build it with scripts/install-interop");
    home.run(&["bench", "--broker", "rediss://h"]).refused(2, "over redis:// only");
}

#[test]
fn the_embedded_broker_is_measured_beside_its_disk() {
    let home = Home::empty();
    let figures = figures(&home.run(&["bench", "--tiny", "--json"]));
    let wanted = [
        "yardstick.append",
        "enqueue.single",
        "enqueue.concurrent",
        "enqueue.bulk",
        "drain",
        "pickup.p50",
        "pickup.p99",
        "pickup.other_process.p50",
        "idle.cpu",
    ];
    assert_eq!(names(&figures), wanted);
    assert!(figures.iter().all(|(_, figure)| figure["exact"] != false), "{figures:?}");
    let left = std::fs::read_dir(home.path(".")).expect("the folder is there").count();
    assert_eq!(left, 0, "the bench's folder is removed");
}

/// The figures of outages; true where tasks are counted.
const OF_OUTAGES: [(&str, bool); 9] = [
    ("survive.overhead", true),
    ("survive.overhead.p50", true),
    ("stored.p50", true),
    ("stored.p99", true),
    ("stored.rate", true),
    ("stored.memory", true),
    ("drain.outbox", true),
    ("recovery.first_success", false),
    ("sick.commands", false),
];

fn check_outage_figures(ran: &Ran) {
    assert_eq!(ran.code, 0, "{ran:?}");
    let figures = ran.objects();
    let named: Vec<_> = figures.iter().map(|figure| figure["figure"].clone()).collect();
    assert_eq!(named, OF_OUTAGES.map(|(name, _)| name));
    for (figure, (name, is_counted)) in figures.iter().zip(OF_OUTAGES) {
        // What a layer costs is a difference of two measurements, and may be below zero.
        let value = figure["value"].as_f64();
        let is_sound = value.is_some_and(|v| v >= 0.0 || name.starts_with("survive."));
        assert!(is_sound && figure["unit"].is_string(), "{figure}");
        let exact = if is_counted { Value::Bool(true) } else { Value::Null };
        assert_eq!(figure["exact"], exact, "{figure}");
        assert!(figure["mode"].as_str().is_some_and(|mode| mode.contains("redis")), "{figure}");
    }
}

#[test]
fn outages_are_measured_on_a_server_that_notices_nothing_of_them() {
    let Some(server) = server() else { return };
    let home = Home::empty();
    let outage = ["bench", "--outage", "--tiny", "--json", "--broker", &server.url()];
    check_outage_figures(&home.run(&outage));
    check_nothing_is_left(&server);
    let left = std::fs::read_dir(home.path(".")).expect("the folder is there").count();
    assert_eq!(left, 0, "the bench's folder is removed");
}

#[test]
fn outages_are_measured_without_a_server_where_one_is_installed() {
    let Some(_installed) = server() else { return };
    let home = Home::empty();
    let ran = home.run(&["bench", "--outage", "--tiny", "--json"]);
    match ran.code {
        // The test servers may be in a folder of their own.
        5 => ran.refused(5, "bench --outage needs a server"),
        _ => check_outage_figures(&ran),
    }
    let bare = home.command(&["bench", "--outage", "--tiny"]).env("PATH", "").output();
    let missing = Ran::from(bare.expect("the program starts"));
    missing.refused(5, "no redis-server or valkey-server on the PATH");
}
