//! Workers and schedules on a real server: what Go's programs find there, and what we find of theirs.

use std::collections::BTreeMap;

use outlast_core::inspect::{RunningTask, WorkerStatus};
use outlast_core::limits::LEASE_TOKEN_MAX;
use outlast_core::{
    Beat, Broker, Command, Kind, LeaseToken, PageRequest, QueueName, Role, ScheduleControl,
    ScheduleName, ScheduleView, TaskId, TaskType, WorkerBeat, WorkerView,
};
use outlast_testkit::conformance::words::{beat, secs, t, worker};

use super::kit::{Private, broker_at, until};
use crate::proto::{SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo};

const UUID: &str = "0b1f7d3e-0000-4000-8000-000000000001";

/// INFO is a verbatim text in RESP3.
fn info_text(value: redis::Value) -> Result<String, outlast_core::BrokerError> {
    match value {
        redis::Value::VerbatimString { text, .. } => Ok(text),
        other => crate::answer::text(other),
    }
}

fn running(id: &str) -> RunningTask {
    RunningTask {
        queue: QueueName::default_queue(),
        id: TaskId::stored(id),
        task_type: TaskType::stored("email"),
        started_at: t(5),
        deadline: t(900),
        payload: id.to_owned().into(),
    }
}

fn named(view: &WorkerView) -> WorkerView {
    WorkerView { id: format!("host:{}:{UUID}", view.pid), ..view.clone() }
}

fn schedule(name: &str) -> ScheduleView {
    ScheduleView {
        name: ScheduleName::stored(name),
        cron: "0 3 * * *".into(),
        timezone: "Europe/Berlin".into(),
        task_type: TaskType::stored("report"),
        payload: "{}".into(),
        queue: QueueName::stored("low"),
        missed: "once".into(),
        next_at: Some(t(500)),
        options: Default::default(),
    }
}

fn go_server() -> ServerInfo {
    ServerInfo {
        host: "box".into(),
        pid: 7,
        server_id: UUID.into(),
        concurrency: 10,
        queues: BTreeMap::from([("low".into(), 1), ("critical".into(), 6)]),
        status: "stopped".into(),
        start_time: t(1).into(),
        active_worker_count: 1,
        ..ServerInfo::default()
    }
}

async fn add_go_server(server: &Private) {
    let (info, tag) = (go_server(), format!("{{box:7:{UUID}}}"));
    let task = WorkerInfo {
        server_id: UUID.into(),
        task_id: "a".into(),
        task_type: "email".into(),
        queue: "low".into(),
        start_time: t(2).into(),
        deadline: t(3).into(),
        ..WorkerInfo::default()
    };
    server.send(redis::cmd("SET").arg(format!("asynq:servers:{tag}")).arg(info.encode())).await;
    let mut tasks = redis::cmd("HSET");
    server.send(tasks.arg(format!("asynq:workers:{tag}")).arg("a").arg(task.encode())).await;
    server.run(&format!("ZADD asynq:servers {} asynq:servers:{tag}", t(10).as_seconds())).await;
}

#[tokio::test]
async fn go_finds_a_worker_of_ours_where_it_looks_until_it_is_gone() {
    let server = Private::start();
    let mut view = named(&worker("w"));
    (view.active, view.running) = (1, vec![running("a")]);
    let reply = server.broker.beat(t(6), &beat(view.clone(), None, 60)).await.expect("answered");
    let tag = format!("{{host:{}:{UUID}}}", view.pid);
    for index in ["servers", "workers"] {
        let members = server.list(&format!("ZRANGE asynq:{index} 0 -1")).await;
        assert_eq!(members, [format!("asynq:{index}:{tag}")]);
        let score = server.text(&format!("ZSCORE asynq:{index} asynq:{index}:{tag}")).await;
        assert_eq!(score, t(66).as_seconds().to_string());
        let ttl: i64 = server.text(&format!("TTL asynq:{index}:{tag}")).await.parse().expect("ttl");
        assert!((55..=60).contains(&ttl), "{ttl}");
    }
    let info = ServerInfo::decode(&server.bytes(&format!("GET asynq:servers:{tag}")).await);
    let info = info.expect("a message");
    assert_eq!((info.server_id.as_str(), info.status.as_str()), (UUID, "active"));
    let task = WorkerInfo::decode(&server.bytes(&format!("HGET asynq:workers:{tag} a")).await);
    assert_eq!(task.expect("a message").server_id, UUID);

    view.running.clear();
    server.broker.beat(t(7), &beat(view.clone(), reply.token, 60)).await.expect("answered");
    assert_eq!(server.text(&format!("EXISTS asynq:workers:{tag}")).await, "0");
    view.status = WorkerStatus::Gone;
    server.broker.beat(t(8), &beat(view, reply.token, 60)).await.expect("answered");
    assert_eq!(server.list("KEYS *").await, ["asynq:outlast:tokens"]);
}

#[tokio::test]
async fn the_beat_of_an_idle_worker_is_one_call_of_four_commands() {
    let server = Private::start();
    let view = named(&worker("w"));
    let reply = server.broker.beat(t(0), &beat(view.clone(), None, 60)).await.expect("answered");
    server.run("CONFIG RESETSTAT").await;
    server.broker.beat(t(5), &beat(view, reply.token, 60)).await.expect("answered");
    let mut info = redis::cmd("INFO");
    let stats = info_text(server.send(info.arg("commandstats")).await);
    let stats = stats.expect("a text");
    let count = |name: &str| {
        let line = stats.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{name}:calls=")));
        line.and_then(|rest| rest.split(',').next()?.parse::<u32>().ok()).unwrap_or(0)
    };
    let counts = ["evalsha", "eval", "zadd", "setex", "lrange", "del"].map(count);
    assert_eq!(counts, [1, 0, 1, 2, 1, 0], "{stats}");
}

/// A worker that had seen command 50 was deaf to the first fifty after a flush: their numbers were below.
#[tokio::test]
async fn a_worker_hears_its_commands_after_the_server_has_lost_its_data() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let seen = |token, seen| Beat {
        worker: Some(WorkerBeat { view: worker("w"), token, seen }),
        ttl: secs(60),
        ..Beat::default()
    };
    let token = inner.beat(t(0), &beat(worker("w"), None, 60)).await.expect("answered").token;
    server.run("SET asynq:outlast:command 50").await;
    inner.beat(t(1), &seen(token, 50)).await.expect("answered");
    server.run("FLUSHALL").await;
    inner.beat(t(2), &seen(token, 50)).await.expect("answered");
    assert!(inner.tell("w", &Command::Stop, t(3)).await.expect("answered"), "it is alive");
    let commands = inner.beat(t(4), &seen(token, 50)).await.expect("answered").commands;
    assert_eq!(commands, [(1, Command::Stop)]);
    assert!(inner.beat(t(5), &seen(token, 1)).await.expect("answered").commands.is_empty());
}

#[tokio::test]
async fn a_new_token_is_none_that_a_live_worker_holds() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let near_the_end = LEASE_TOKEN_MAX - 2;
    server.run(&format!("SET asynq:outlast:tokens {near_the_end}")).await;
    let mut tokens = Vec::new();
    for n in 0..3 {
        let first = beat(worker(&format!("w{n}")), None, 60);
        tokens.push(inner.beat(t(0), &first).await.expect("answered").token.expect("a token"));
    }
    server.run(&format!("SET asynq:outlast:tokens {near_the_end}")).await;
    let next = inner.beat(t(0), &beat(worker("late"), None, 60)).await.expect("answered").token;
    let expected = [LEASE_TOKEN_MAX, 1, 2, 3].map(|token| LeaseToken::new(token).expect("valid"));
    assert_eq!((tokens, next), (expected[..3].to_vec(), Some(expected[3])));
}

#[tokio::test]
async fn a_command_that_nobody_can_read_is_dropped_and_the_others_arrive() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let token = inner.beat(t(0), &beat(worker("w"), None, 60)).await.expect("answered").token;
    let list = format!("asynq:outlast:commands:{}", token.expect("a token").get());
    server.run(&format!("RPUSH {list} garbage")).await;
    server.run(&format!("RPUSH {list} garbage")).await;
    assert!(inner.tell("w", &Command::Quiet, t(1)).await.expect("answered"));
    let mut newer = redis::cmd("RPUSH");
    server.send(newer.arg(&list).arg("9 {\"dance\":1}")).await;
    let again = Beat {
        worker: Some(WorkerBeat { view: worker("w"), token, seen: 0 }),
        ttl: secs(60),
        ..Beat::default()
    };
    let commands = inner.beat(t(2), &again).await.expect("answered").commands;
    assert_eq!(commands, [(1, Command::Quiet)]);
    assert_eq!(server.list(&format!("LRANGE {list} 0 -1")).await, ["1 \"quiet\""]);
    let ttl: i64 = server.text(&format!("TTL {list}")).await.parse().expect("a number");
    assert!(ttl > 86_000, "{ttl}");
}

#[tokio::test]
async fn whoever_does_not_listen_is_asked_only_so_often() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let token = inner.beat(t(0), &beat(worker("w"), None, 60)).await.expect("answered").token;
    let fill = "for n = 1, 10000 do redis.call('RPUSH', KEYS[1], n .. ' \"quiet\"') end";
    let key = format!("asynq:outlast:commands:{}", token.expect("a token").get());
    server.send(redis::cmd("EVAL").arg(fill).arg(1).arg(&key)).await;
    let error = inner.tell("w", &Command::Stop, t(1)).await.expect_err("full");
    assert_eq!(error.kind(), Kind::Busy);
    let last = Beat {
        worker: Some(WorkerBeat { view: worker("w"), token, seen: u64::MAX }),
        ttl: secs(60),
        ..Beat::default()
    };
    assert!(inner.beat(t(2), &last).await.expect("answered").commands.is_empty());
    assert_eq!(server.text(&format!("EXISTS {key}")).await, "0");
}

#[tokio::test]
async fn a_go_worker_is_listed_and_can_be_asked_to_cancel_and_nothing_else() {
    let server = Private::start();
    let inner = &server.broker.inner;
    add_go_server(&server).await;
    inner.beat(t(0), &beat(worker("w"), None, 60)).await.expect("answered");
    let listed = inner.workers(t(5)).await.expect("answered");
    assert_eq!(listed.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), [UUID, "w"]);
    let go = &listed[0];
    assert_eq!((go.status, go.pid, go.started_at), (WorkerStatus::Quiet, 7, t(1)));
    let queues: Vec<_> = go.queues.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
    assert_eq!(queues, [("critical", 6), ("low", 1)]);
    assert_eq!((go.running[0].id.as_str(), go.running[0].deadline), ("a", t(3)));

    let cancel = Command::Cancel { queue: QueueName::stored("low"), id: TaskId::stored("a") };
    assert!(inner.tell(UUID, &cancel, t(5)).await.expect("answered"));
    let error = inner.tell(UUID, &Command::Stop, t(5)).await.expect_err("Go cannot be stopped");
    assert_eq!(error.kind(), Kind::Rejected);
    assert!(error.to_string().contains(UUID), "{error}");
    assert!(server.list("KEYS asynq:outlast:commands:*").await.is_empty());
}

#[tokio::test]
async fn go_finds_our_schedules_and_their_ticks_and_we_find_its() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let tick = outlast_core::inspect::TickRecord {
        schedule: ScheduleName::stored("nightly"),
        tick: t(100),
        task: Some(TaskId::stored("x")),
        enqueued_at: t(101),
    };
    let shown = |ticks| Beat {
        schedules: vec![schedule("nightly")],
        ticks,
        ttl: secs(60),
        ..Beat::default()
    };
    inner.beat(t(101), &shown(vec![tick.clone()])).await.expect("answered");
    inner.beat(t(102), &shown(vec![tick])).await.expect("answered");
    let lists = server.list("ZRANGE asynq:schedulers 0 -1").await;
    let entry = SchedulerEntry::decode(&server.bytes(&format!("LINDEX {} 0", lists[0])).await);
    let entry = entry.expect("a message");
    assert_eq!((lists.len(), entry.spec.as_str()), (1, "CRON_TZ=Europe/Berlin 0 3 * * *"));
    assert_eq!(entry.prev_enqueue_time.moment(), Some(t(100)));
    let events = server.list("ZRANGE asynq:scheduler_history:nightly 0 -1").await;
    assert_eq!(events.len(), 1, "once, whoever reports it");
    let ttl: i64 = server.text("TTL asynq:scheduler_history:nightly").await.parse().expect("ttl");
    assert!(ttl > 89 * 86_400, "{ttl}");

    let go = SchedulerEntry {
        id: "e1".into(),
        spec: "@every 30s".into(),
        task_type: "t".into(),
        enqueue_options: vec!["Queue(\"q2\")".into(), "MaxRetry(3)".into(), "nonsense".into()],
        next_enqueue_time: t(200).into(),
        ..SchedulerEntry::default()
    };
    server.send(redis::cmd("LPUSH").arg("asynq:schedulers:{box:7:u}").arg(go.encode())).await;
    server
        .run(&format!("ZADD asynq:schedulers {} asynq:schedulers:{{box:7:u}}", t(0).as_seconds()))
        .await;
    for n in 0..5 {
        let event = SchedulerEnqueueEvent { task_id: format!("t{n}"), enqueue_time: t(9).into() };
        let mut add = redis::cmd("ZADD");
        add.arg("asynq:scheduler_history:e1").arg(t(9).as_seconds()).arg(event.encode());
        server.send(&add).await;
    }
    let listed = inner.schedules(t(103)).await.expect("answered");
    let names: Vec<_> = listed.iter().map(|(view, _)| view.name.as_str()).collect();
    assert_eq!(names, ["e1", "nightly"]);
    let (view, state) = &listed[0];
    assert_eq!((view.queue.as_str(), view.options.max_retry), ("q2", 3));
    assert_eq!((view.next_at, state.last_tick), (Some(t(200)), None));
    let (name, mut page) = (ScheduleName::stored("e1"), PageRequest::first(2));
    let mut ids = Vec::new();
    loop {
        let found = inner.ticks(&name, &page).await.expect("answered");
        ids.extend(found.items.into_iter().filter_map(|tick| tick.task));
        let Some(next) = found.next else { break };
        page.cursor = Some(next);
    }
    assert_eq!(ids.iter().map(TaskId::as_str).collect::<Vec<_>>(), ["t4", "t3", "t2", "t1", "t0"]);
    let paused = inner.control_schedule(&name, ScheduleControl::Pause, t(104)).await;
    assert_eq!(paused.expect_err("Go knows no pause").kind(), Kind::Rejected);
}

#[tokio::test]
async fn a_paused_schedule_outlives_its_beat_and_is_gone_once_it_is_resumed() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let shown = Beat { schedules: vec![schedule("a")], ttl: secs(60), ..Beat::default() };
    inner.beat(t(0), &shown).await.expect("answered");
    let name = ScheduleName::stored("a");
    let pause = inner.control_schedule(&name, ScheduleControl::Pause, t(1)).await;
    assert!(pause.expect("answered"));
    inner.beat(t(2), &shown).await.expect("answered");
    assert_eq!(server.text("TTL asynq:outlast:schedule:a").await, "-1");
    let resume = inner.control_schedule(&name, ScheduleControl::Resume, t(500)).await;
    assert!(resume.expect("answered"));
    let listed = inner.schedules(t(501)).await.expect("answered");
    assert!(listed.iter().all(|(view, _)| view.name != name), "nobody mentions it");
    assert!(inner.ticks(&name, &PageRequest::first(0)).await.is_err());
    let garbage = PageRequest { limit: 5, cursor: Some(outlast_core::Cursor("x".into())) };
    let error = inner.ticks(&name, &garbage).await.expect_err("no cursor of ours");
    assert_eq!(error.kind(), Kind::Rejected);
    inner.known(t(501).plus(secs(500 * 86_400))).await.expect("answered");
    assert_eq!(server.text("EXISTS asynq:outlast:schedules").await, "0", "forgotten");
}

/// A scheduler that was shut down stayed in asynq's list for 20 s, and the last schedule that was removed from one, too.
#[tokio::test]
async fn schedules_that_ended_leave_asynqs_list_at_once_and_ours_soon() {
    let server = Private::start();
    let inner = &server.broker.inner;
    let beat = |keeps: &[&str], ended: &[&str]| Beat {
        schedules: keeps.iter().map(|name| schedule(name)).collect(),
        ended: ended.iter().map(|name| ScheduleName::stored(name)).collect(),
        ttl: secs(60),
        ..Beat::default()
    };
    inner.beat(t(0), &beat(&["a", "b"], &[])).await.expect("answered");
    let entries = async || {
        let listed = inner.entries().await.expect("answered").into_iter();
        listed.map(|entry| entry.id).collect::<Vec<_>>()
    };
    assert_eq!(entries().await, ["a", "b"]);
    inner.beat(t(1), &beat(&["a"], &["b"])).await.expect("answered");
    assert_eq!(entries().await, ["a"]);
    inner.beat(t(2), &beat(&[], &["a"])).await.expect("answered");
    assert!(entries().await.is_empty());
    assert_eq!(server.text("EXISTS asynq:schedulers").await, "0");
    for name in ["a", "b"] {
        let left = server.text(&format!("TTL asynq:outlast:schedule:{name}")).await;
        assert!((1..=6).contains(&left.parse::<i64>().expect("a number")), "{name}: {left}");
    }
}

#[tokio::test]
async fn a_primary_is_healthy_and_its_data_keep_their_name() {
    let server = Private::start();
    let first = server.broker.inner.health(t(0)).await.expect("healthy");
    let again = server.broker.inner.health(t(0)).await.expect("healthy");
    assert_eq!((first.role, &first.epoch, first.epoch.0.len()), (Role::Primary, &again.epoch, 32));
    assert!(first.clock.is_some_and(|clock| clock > outlast_core::Timestamp::from_seconds(0)));
    let mut info = redis::cmd("INFO");
    let info = info_text(server.send(info.arg("server")).await).expect("a text");
    let version = |of: &str| info.lines().find_map(|line| line.strip_prefix(of));
    // Valkey tells both, the second one for programs that know only Redis.
    let software = match (version("valkey_version:"), version("redis_version:")) {
        (Some(valkey), _) => format!("valkey {valkey}"),
        (None, Some(redis)) => format!("redis {redis}"),
        (None, None) => panic!("the server tells no version: {info}"),
    };
    assert_eq!(first.software, software);
    server.run("FLUSHALL").await;
    let other = server.broker.inner.health(t(0)).await.expect("healthy");
    assert_ne!(other.epoch, first.epoch, "other data, another name");
}

#[tokio::test]
async fn what_a_user_may_not_ask_is_left_out_of_its_health() {
    let server = Private::start();
    server.run("ACL SETUSER u on >pw ~asynq:* &asynq:* +@all -role -time -info").await;
    let broker = broker_at(&format!("redis://u:pw@127.0.0.1:{}", server.port));
    let health = broker.inner.health(t(0)).await.expect("healthy");
    assert_eq!((health.role, health.clock), (Role::Primary, None));
    server.run("ACL SETUSER u -set").await;
    let error = broker.inner.health(t(0)).await.expect_err("it cannot write");
    assert_eq!(error.kind(), Kind::Misconfigured);
}

#[tokio::test]
async fn a_replica_says_so_and_has_its_primarys_epoch() {
    let (primary, replica) = (Private::start(), Private::start());
    let epoch = primary.broker.inner.health(t(0)).await.expect("healthy").epoch;
    replica.run(&format!("REPLICAOF 127.0.0.1 {}", primary.port)).await;
    until(async || {
        let health = replica.broker.inner.health(t(0)).await;
        health.is_ok_and(|health| health.role == Role::Replica && health.epoch == epoch)
    })
    .await;
}
