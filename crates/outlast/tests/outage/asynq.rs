//! The same faults, asynq's own client and server beside ours: each on a server of its own, with its defaults. What ours does is
//! asserted; so is what asynq does, where nothing but asynq decides it. The numbers of the findings are those of the catalogue.

use std::time::Duration;

use outlast::{Cancel, Client, Connection, TaskRequest, Worker};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::go::{Go, program};
use crate::history::Step;
use crate::table;
use crate::world::{World, every};

/// Set to 1: asynq is waited for where it takes two minutes.
const SLOW_ENV: &str = "OUTLAST_OUTAGE_SLOW";

/// Longer than asynq needs to find a task again whose lease has ended: 30 s of lease, 30 s of grace, a minute between two looks.
const RECOVERED: Duration = Duration::from_secs(150);

/// How long an idle worker is counted.
const COUNTED: Duration = Duration::from_secs(3);

/// Claims whose replies are lost.
const CLAIMS: u64 = 10;

/// Tasks that wait on a server without memory.
const WAITING: i64 = 50;

fn is_slow() -> bool {
    std::env::var_os(SLOW_ENV).is_some_and(|set| set == "1")
}

/// asynq's side.
struct Asynq {
    server: RedisServer,
    proxy: TcpProxy,
}

impl Asynq {
    /// None, and a line that says so, where its program was not built.
    async fn start() -> Option<Self> {
        if !program("outlast-interop").exists() {
            let missing = "outlast-interop is not built: run scripts/install-interop";
            let required = std::env::var_os("OUTLAST_REQUIRE_ASYNQ").is_some_and(|set| set == "1");
            assert!(!required, "{missing}");
            println!("skipped: {missing}");
            return None;
        }
        let server = RedisServer::or_skip(RedisServer::builder().persistent().start())?;
        let proxy = TcpProxy::start(server.addr()).await.unwrap();
        Some(Self { server, proxy })
    }

    fn run(&self, command: &str, flags: &[&str]) -> Go {
        let at = self.proxy.addr().to_string();
        let args = [command, "-redis", &at].into_iter().chain(flags.iter().copied());
        Go::start(&program("outlast-interop"), &args.collect::<Vec<_>>())
    }

    /// A worker with asynq's defaults but for the last.
    async fn works(&self) -> Go {
        let go = self.run("work", &["-until-eof", "-log-level", "fatal", "-retry-delay", "1s"]);
        go.event("ready", |_| true).await;
        go
    }

    fn int(&self, words: &[&str]) -> i64 {
        int(&self.server, words)
    }
}

fn int(server: &RedisServer, words: &[&str]) -> i64 {
    server.command(words).unwrap().int().unwrap()
}

/// Looks until `is`, for so long at most: how long it took.
async fn within(at_most: Duration, mut is: impl FnMut() -> bool) -> Option<Duration> {
    let (begun, mut look) = (Instant::now(), every(Duration::from_millis(20)));
    while begun.elapsed() < at_most {
        look.tick().await;
        if is() {
            return Some(begun.elapsed());
        }
    }
    None
}

/// Enqueues a task of the worker's, and writes down what is told.
async fn offer(world: &World, request: TaskRequest) -> Step {
    offer_by(&world.client, world, request).await
}

async fn offer_by(client: &Client, world: &World, request: TaskRequest) -> Step {
    let id = request.task_id().unwrap().to_string();
    world.history.add(&id, Step::Invoked);
    let told = Step::told(&client.enqueue(request).await);
    world.history.add(&id, told);
    told
}

fn task(id: &str) -> TaskRequest {
    TaskRequest::raw("count", "").id(id)
}

fn row(finding: &str, fault: &str, asynq: &str, ours: &str) {
    table::leave(&json!({"finding": finding, "fault": fault, "asynq": asynq, "ours": ours}));
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Commands a second that reach the server, over a connection that was there before.
async fn rate(server: &RedisServer) -> f64 {
    let mut operator = server.connect().unwrap();
    let mut count = || {
        let page = operator.command(&["INFO", "stats"]).unwrap().text().unwrap();
        let mut lines = page.lines();
        let line = lines.find_map(|line| line.strip_prefix("total_commands_processed:"));
        // Those that are refused before they run are counted apart.
        let refused = page.lines().find_map(|line| line.strip_prefix("total_error_replies:"));
        let [done, refused] = [line, refused].map(|line| line.unwrap().parse::<u64>().unwrap());
        done.max(refused)
    };
    let (before, since) = (count(), Instant::now());
    within(COUNTED, || false).await;
    (count() - before) as f64 / since.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_2_an_idle_worker_of_ours_leaves_a_sick_server_in_peace() {
    let Some(asynq) = Asynq::start().await else { return };
    let Some(world) = World::new().await else { return };
    let _go = asynq.works().await;
    let worker = world.work();
    let faults = [["maxmemory", "1", "0"], ["min-replicas-to-write", "1", "0"]];
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for [setting, sick, well] in faults {
        for (server, rates) in [(&asynq.server, &mut theirs), (&world.server, &mut ours)] {
            server.command(&["CONFIG", "SET", setting, sick]).unwrap();
            // The first failures, after which the breakers are open.
            within(Duration::from_secs(1), || false).await;
            rates.push(rate(server).await);
            server.command(&["CONFIG", "SET", setting, well]).unwrap();
        }
    }
    assert!(theirs.iter().all(|rate| *rate > 1000.0), "{theirs:?}");
    assert!(ours.iter().all(|rate| *rate < 6.0), "{ours:?}");
    let told = |rates: &[f64]| format!("{:.0} and {:.0} commands/s", rates[0], rates[1]);
    row("2", "an idle worker, server full, then without replicas", &told(&theirs), &told(&ours));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_4_an_enqueue_of_ours_whose_reply_is_lost_is_told_as_accepted() {
    let Some(asynq) = Asynq::start().await else { return };
    let mut go = asynq.run("enqueue", &[]);
    go.ask(&json!({"type": "ok"})).await;
    asynq.proxy.lose_next_reply_to("EVALSHA");
    let answer = go.ask(&json!({"type": "ok", "options": {"task_id": "a"}})).await;
    assert_eq!(answer["error"], "id_conflict", "{answer}");
    assert_eq!(asynq.int(&["EXISTS", "asynq:{default}:t:a"]), 1);

    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    offer(&world, task("first")).await;
    proxy.lose_next_reply_to("EVALSHA");
    let told = offer(&world, task("a")).await;
    assert!(matches!(told, Step::Accepted | Step::Stored), "{told:?}");
    let worker = world.work();
    world.check().await;
    worker.stop().await;
    let theirs = format!("stored, and its caller is told \"{}\"", text(&answer));
    row("4", "the reply to an enqueue is lost", &theirs, "yes, and it runs once");
}

fn text(answer: &Value) -> String {
    answer["text"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_5_workers_of_ours_drain_a_server_that_is_full() {
    let Some(asynq) = Asynq::start().await else { return };
    let Some(world) = World::new().await else { return };
    let mut go = asynq.run("enqueue", &[]);
    for n in 0..WAITING {
        go.ask(&json!({"type": "ok"})).await;
        offer(&world, task(&n.to_string())).await;
    }
    for server in [&asynq.server, &world.server] {
        server.command(&["CONFIG", "SET", "maxmemory", "1"]).unwrap();
    }
    let pending = ["LLEN", "asynq:{default}:pending"];
    let _go = asynq.works().await;
    let drained = within(Duration::from_secs(5), || asynq.int(&pending) == 0).await;
    assert_eq!((drained, asynq.int(&pending)), (None, WAITING));
    let (begun, worker) = (Instant::now(), world.work());
    world.until("it is drained", |world| world.history.is_done()).await;
    let ours = format!("all {WAITING} after {}", seconds(begun.elapsed()));
    world.check().await;
    worker.stop().await;
    row("5", &format!("{WAITING} tasks wait on a full server"), "none has run after 5 s", &ours);
}

/// Two tasks that were lost an hour ago; the record of one makes no sense.
fn lose_two(server: &RedisServer) {
    let hour_ago = unix_now() - 3600;
    let commands: [&[&str]; 6] = [
        &["RPOPLPUSH", "asynq:{default}:pending", "asynq:{default}:active"],
        &["HSET", "asynq:{default}:t:good", "state", "active"],
        &["HSET", "asynq:{default}:t:bad", "state", "active", "msg", "garbage"],
        &["LPUSH", "asynq:{default}:active", "bad"],
        &["ZADD", "asynq:{default}:lease", &hour_ago.to_string(), "bad"],
        &["ZADD", "asynq:{default}:lease", &hour_ago.to_string(), "good"],
    ];
    for command in commands {
        server.command(command).unwrap();
    }
}

fn unix_now() -> i64 {
    outlast::Clock::system().now().as_seconds()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_12_a_record_that_cannot_be_read_keeps_ours_from_no_recovery() {
    let Some(asynq) = Asynq::start().await else { return };
    let Some(world) = World::new().await else { return };
    let good = json!({"type": "ok", "options": {"task_id": "good"}});
    asynq.run("enqueue", &[]).ask(&good).await;
    offer(&world, task("good")).await;
    for server in [&asynq.server, &world.server] {
        lose_two(server);
    }
    // It looks for lost tasks when it starts; here it fails, as at every later look.
    let go = asynq.works().await;
    let worker = world.work();
    let begun = Instant::now();
    world.until("the good task is found", |world| world.history.is_done()).await;
    let (ours, theirs) = (begun.elapsed(), go.events("started"));
    assert!(theirs.is_empty(), "{theirs:?}");
    // Without the bad one it would have been found at once.
    asynq.server.command(&["ZREM", "asynq:{default}:lease", "bad"]).unwrap();
    let again = asynq.works().await;
    let either = || !again.events("started").is_empty() || !go.events("started").is_empty();
    assert!(within(Duration::from_secs(20), either).await.is_some());
    let archived = ["ZSCORE", "asynq:{default}:archived", "bad"];
    let is_archived = |world: &World| world.server.command(&archived).unwrap().text().is_some();
    world.until("the bad one is put away", is_archived).await;
    worker.stop().await;
    let theirs = format!("not found while the bad one is there ({} watched)", seconds(ours));
    let ours = format!("run after {}, the bad one is archived with the reason", seconds(ours));
    row("12", "a lost task beside one whose record cannot be read", &theirs, &ours);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_13_a_queue_of_ours_is_listed_again_after_a_flush() {
    let Some(asynq) = Asynq::start().await else { return };
    let Some(world) = World::new().await else { return };
    let mut go = asynq.run("enqueue", &[]);
    let listed = ["SISMEMBER", "asynq:queues", "default"];
    let pending = ["LLEN", "asynq:{default}:pending"];
    for n in 0..4 {
        if n == 1 {
            asynq.server.command(&["FLUSHALL"]).unwrap();
            world.server.command(&["FLUSHALL"]).unwrap();
        }
        go.ask(&json!({"type": "ok"})).await;
        let told = offer(&world, task(&n.to_string())).await;
        assert!(matches!(told, Step::Accepted | Step::Stored), "{told:?}");
    }
    assert_eq!((asynq.int(&listed), asynq.int(&pending)), (0, 3));
    let is_whole = |world: &World| int(&world.server, &pending) == 4;
    world.until("what was flushed is there again", is_whole).await;
    assert_eq!(int(&world.server, &listed), 1);
    let worker = world.work();
    world.check().await;
    worker.stop().await;
    let ours = "listed, all 4 are there: that before the flush was offered again";
    row(
        "13",
        "FLUSHALL between the first of four enqueues and the others",
        "3 wait in a queue that no inspector lists, 1 is lost",
        ours,
    );
}

/// Ends when `begin` has said that a task runs, after six seconds as a replica.
async fn demoted(server: &RedisServer) {
    server.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
    within(Duration::from_secs(6), || false).await;
    server.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
}

/// When asynq ran it again, and with how many retries spent.
async fn asynq_repeats() -> Option<String> {
    let asynq = Asynq::start().await?;
    let mut client = asynq.run("enqueue", &[]);
    let go = asynq.works().await;
    client.ask(&json!({"type": "sleep:1500", "options": {"task_id": "a", "max_retry": 3}})).await;
    go.event_of("started", "a").await;
    let begun = Instant::now();
    demoted(&asynq.server).await;
    within(RECOVERED, || go.events("started").len() > 1).await?;
    let retried = go.events("started")[1]["retried"].clone();
    Some(format!("run again after {}, {retried} attempt spent", seconds(begun.elapsed())))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_1_a_task_of_ours_that_ends_in_an_outage_is_not_run_again() {
    let Some(world) = World::new().await else { return };
    let history = world.history.clone();
    let worker = Worker::new(&world.connection.client());
    let worker = worker.handle_type("slow", move |cancel: Cancel| {
        let history = history.clone();
        history.add("a", Step::Begun);
        async move {
            let _ran_out =
                tokio::time::timeout(Duration::from_millis(1500), cancel.cancelled()).await;
            history.add("a", Step::Ended);
        }
    });
    let (control, running) = (worker.control(), tokio::spawn(worker.run()));
    offer(&world, TaskRequest::raw("slow", "").id("a")).await;
    world.until("it runs", |world| world.history.sum().runs == 1).await;
    demoted(&world.server).await;
    let healed = Instant::now();
    let is_gone = |world: &World| int(&world.server, &["EXISTS", "asynq:{default}:t:a"]) == 0;
    world.until("its outcome is applied", is_gone).await;
    let ours =
        format!("its outcome is applied {} after the server's return", seconds(healed.elapsed()));
    world.check().await;
    control.stop();
    running.await.unwrap().unwrap();
    let theirs = if is_slow() { asynq_repeats().await } else { None };
    let fault = "a task that succeeds while the server is demoted for 6 s";
    row("1", fault, &theirs.unwrap_or_else(|| "not measured".to_owned()), &ours);
}

/// How many went to the archive without a run, and when all had either run or gone there.
async fn asynq_archives_unrun() -> Option<String> {
    let asynq = Asynq::start().await?;
    let direct = asynq.server.addr().to_string();
    let mut client = Go::start(&program("outlast-interop"), &["enqueue", "-redis", &direct]);
    let go = asynq.works().await;
    let begun = Instant::now();
    for n in 0..CLAIMS {
        asynq.proxy.lose_next_reply_to("EVALSHA");
        let options = json!({"task_id": n.to_string(), "max_retry": 0});
        client.ask(&json!({"type": "ok", "options": options})).await;
        // It looks once a second.
        within(Duration::from_millis(1200), || false).await;
    }
    asynq.proxy.heal().await.unwrap();
    let archived = || asynq.int(&["ZCARD", "asynq:{default}:archived"]);
    let runs = || i64::try_from(go.events("started").len()).unwrap();
    within(RECOVERED, || archived() + runs() >= CLAIMS.cast_signed()).await?;
    let [archived, runs] = [archived(), runs()];
    Some(format!(
        "{archived} archived unrun, the last after {}; {runs} run",
        seconds(begun.elapsed())
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finding_3_a_task_of_ours_whose_claim_is_lost_runs_within_seconds() {
    let Some((world, proxy)) = World::behind_a_proxy().await else { return };
    let other = Connection::without_spool(&world.server.url()).await.unwrap().client();
    let worker = world.work();
    offer(&world, task("first")).await;
    world.until("it works", |world| world.history.is_done()).await;
    // Most of the next scripts are claims; those that are beats do no harm.
    for n in 0..CLAIMS {
        proxy.lose_next_reply_to("EVALSHA");
        offer_by(&other, &world, task(&n.to_string()).max_retry(0)).await;
        within(Duration::from_millis(300), || false).await;
    }
    let begun = Instant::now();
    world.until("all run", |world| world.history.is_done()).await;
    let lost = proxy.counts().replies_lost;
    assert!(lost >= CLAIMS / 2, "{lost}");
    let ours = format!("{lost} times: all run once, {} after the last", seconds(begun.elapsed()));
    proxy.heal().await.unwrap();
    world.check().await;
    worker.stop().await;
    let theirs = if is_slow() { asynq_archives_unrun().await } else { None };
    let fault = "replies to the claims of ten tasks without retries are lost";
    row("3", fault, &theirs.unwrap_or_else(|| "not measured".to_owned()), &ours);
}
