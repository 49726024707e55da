//! What workers go through: runs that are longer than the outage, the end of the process in the middle of one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outlast::{Cancel, Run, Schedule, TaskRequest, Timestamp, Worker};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::RedisServer;
use tokio::time::Instant;

use crate::story::Seen;
use crate::table;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_an_outage_that_is_longer_than_the_lease_of_what_runs() {
    let Some(world) = World::new().await else { return };
    let (runs, cancelled) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    // Two workers: whichever does not run the task would take it from the other.
    let worker = || {
        let (runs, cancelled) = (runs.clone(), cancelled.clone());
        let worker = Worker::new(&world.connection.client()).lease(Duration::from_secs(2));
        let worker = worker.handle_type("long", move |cancel: Cancel| {
            runs.fetch_add(1, Ordering::SeqCst);
            let cancelled = cancelled.clone();
            async move {
                if tokio::time::timeout(Duration::from_secs(7), cancel.cancelled()).await.is_ok() {
                    cancelled.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        (worker.control(), tokio::spawn(worker.run()))
    };
    let workers = [worker(), worker()];
    let client = world.connection.client();
    client.enqueue(TaskRequest::raw("long", "").retention(Duration::from_secs(60))).await.unwrap();
    world.until("it runs", |_| runs.load(Ordering::SeqCst) == 1).await;
    world.server.kill9();
    world.pass(Duration::from_secs(4)).await;
    world.server.restart().unwrap();
    let begun = Instant::now();
    loop {
        let stats = client.inspector().queue(&outlast::QueueName::default_queue()).await;
        match stats {
            Ok(stats) if stats.count(outlast::TaskState::Completed) == 1 => break,
            Ok(_) | Err(_) => world.pass(Duration::from_millis(50)).await,
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", world.status());
    }
    assert_eq!((runs.load(Ordering::SeqCst), cancelled.load(Ordering::SeqCst)), (1, 0));
    table::tell(
        "a run of 7 s with a lease of 2 s goes on through 4 s of outage: 1 run, not cancelled",
    );
    for (control, task) in workers {
        control.stop();
        task.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f77_a_worker_that_is_asked_to_end_while_the_network_swallows_everything() {
    let Some(server) = RedisServer::or_skip(RedisServer::builder().persistent().start()) else {
        return;
    };
    let proxy = TcpProxy::start(server.addr()).await.unwrap();
    let world = World::at(server, &proxy.url()).await;
    let (begun, release) = (Arc::new(AtomicU32::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (count, wait) = (begun.clone(), release.clone());
    let worker = Worker::new(&world.connection.client()).shutdown_timeout(Duration::from_secs(6));
    let worker = worker.handle_type("t", move || {
        count.fetch_add(1, Ordering::SeqCst);
        let wait = wait.clone();
        async move {
            let _ = wait.acquire().await;
        }
    });
    let control = worker.control();
    let running = tokio::spawn(worker.run());
    world.connection.client().enqueue(TaskRequest::raw("t", "")).await.unwrap();
    world.until("it runs", |_| begun.load(Ordering::SeqCst) == 1).await;
    proxy.black_hole();
    release.add_permits(1);
    let asked = Instant::now();
    control.stop();
    let summary = running.await.unwrap().unwrap();
    let ended = asked.elapsed();
    assert!(ended < Duration::from_secs(8), "{ended:?}");
    assert_eq!((summary.succeeded, summary.unsettled), (1, 0), "{summary:?}");
    proxy.heal().await.unwrap();
    world.until("it is applied", |world| world.status().journal.items == 0).await;
    let size = world.server.command(&["LLEN", "asynq:{default}:active"]).unwrap();
    assert_eq!(size.int(), Some(0));
    table::tell(&format!(
        "ended after {:.1} s, its outcome journaled and applied later",
        ended.as_secs_f64()
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f53_a_blip_between_the_end_of_a_run_and_its_report() {
    let Some(world) = World::new().await else { return };
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("it works", |world| world.accepted() > 100).await;
    for _ in 0..3 {
        world.server.command(&["REPLICAOF", "127.0.0.1", "1"]).unwrap();
        world.pass(Duration::from_millis(300)).await;
        world.server.command(&["REPLICAOF", "NO", "ONE"]).unwrap();
        world.pass(Duration::from_millis(700)).await;
    }
    producer.stop().await;
    world.check().await;
    worker.stop().await;
    table::write(&Seen::default(), &world.history.sum());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f72_ticks_of_schedules_while_the_server_is_away() {
    let Some(world) = World::new().await else { return };
    let ticks: Arc<Mutex<BTreeMap<String, u32>>> = Arc::default();
    // Two processes run the schedule, as they would on two machines; here they share a spool.
    let workers = [0, 1].map(|_| {
        let ticks = ticks.clone();
        let every = Schedule::new("beat", "@every 1s", TaskRequest::raw("tick", "")).unwrap();
        let worker = Worker::new(&world.connection.client()).schedule(every);
        let worker = worker.handle_type("tick", move |run: Run| {
            *ticks.lock().unwrap().entry(run.task().id.to_string()).or_default() += 1;
            async {}
        });
        (worker.control(), tokio::spawn(worker.run()))
    });
    world.until("it ticks", |_| ticks.lock().unwrap().len() >= 2).await;
    world.server.kill9();
    world.pass(Duration::from_secs(5)).await;
    let before = ticks.lock().unwrap().len();
    // On the disk: they outlive the schedulers, too.
    assert!(world.status().outbox.items >= 3, "{:?}", world.status());
    world.server.restart().unwrap();
    world.until("it ticks again", |_| ticks.lock().unwrap().len() >= before + 6).await;
    for (control, task) in workers {
        control.stop();
        task.await.unwrap().unwrap();
    }
    let ticks = ticks.lock().unwrap();
    assert!(ticks.values().all(|runs| *runs == 1), "{ticks:?}");
    let seconds: Vec<i64> = ticks
        .keys()
        .map(|id| id.strip_prefix("beat@").unwrap().parse::<Timestamp>().unwrap().as_seconds())
        .collect();
    let gaps: Vec<_> = seconds.windows(2).filter(|pair| pair[1] - pair[0] != 1).collect();
    assert!(gaps.is_empty(), "{gaps:?} of {ticks:?}");
    table::tell(&format!("{} ticks, one a second: none lost, none doubled", ticks.len()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f76_a_producer_and_a_worker_that_start_before_their_server() {
    let Some(world) = World::new().await else { return };
    world.server.kill9();
    let (producer, worker) = (world.produce("t"), world.work());
    world.until("tasks are stored", |world| world.accepted() > 100).await;
    world.server.restart().unwrap();
    let produced = producer.stop().await;
    world.check().await;
    assert_eq!(produced.refused, 0);
    worker.stop().await;
    table::write(&Seen::default(), &world.history.sum());
}
