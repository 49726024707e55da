//! What our outbox delivers while Go consumes it: a task runs once, though its deliverer is killed before the answer comes.

use std::collections::BTreeMap;

use outlast::survive::Survive;
use outlast::{Connection, TaskRequest, Verdict};
use outlast_testkit::proxy::TcpProxy;

use super::go::Go;
use super::world::{World, until};

/// Some batches, so that each kill finds one under way and more to come.
const TASKS: usize = 1200;

/// How many deliverers are killed.
const KILLS: usize = 3;

/// Set in a process that delivers and is going to be killed: where its Redis is, and its spool.
const CHILD_ENV: &str = "OUTLAST_INTEROP_DELIVERER_OF";

fn finished(go: &Go) -> Vec<String> {
    let events = go.events("finished").into_iter();
    events.map(|event| event["id"].as_str().unwrap().to_owned()).collect()
}

async fn store(url: &str, spool: &std::path::Path) {
    let connection = Connection::surviving(url, Survive::new(spool)).await.unwrap();
    let tasks = (0..TASKS).map(|n| TaskRequest::raw("ok", "").queue("q").id(&n.to_string()));
    for receipt in connection.client().enqueue_all(tasks.collect()).await.unwrap() {
        assert_eq!(receipt.verdict, Verdict::Stored);
    }
    connection.close().await;
}

#[tokio::test]
async fn a_go_worker_runs_every_task_once_though_its_deliverers_are_killed_between_send_and_answer()
{
    let Some(world) = World::start().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("outbox.db");
    let proxy = TcpProxy::start(world.redis.addr()).await.unwrap();
    proxy.refuse().await.unwrap();
    store(&proxy.url(), &spool).await;
    proxy.heal().await.unwrap();

    let go = world.go_works(&["-queues", "q=1", "-concurrency", "10"]).await;
    let test = std::env::current_exe().unwrap();
    let name = "outbox::a_deliverer_in_a_process_of_its_own";
    let place = format!("{} {}", proxy.url(), spool.display());
    let deliver = || Go::start_with(&test, &["--exact", name, "--nocapture"], CHILD_ENV, &place);
    for _ in 0..KILLS {
        let (lost, ran) = (proxy.counts().replies_lost, finished(&go).len());
        proxy.lose_next_reply_to("EVALSHA");
        let mut deliverer = deliver();
        // Done tasks are deleted: their ids alone would not keep a repeat from running them again.
        until("tasks of an unanswered batch have run", async || {
            (proxy.counts().replies_lost > lost && finished(&go).len() > ran).then_some(())
        })
        .await;
        deliverer.kill9();
    }
    let deliverer = deliver();
    deliverer.event("empty", |_| true).await;
    let is_over = |stats: &outlast::QueueStats| stats.pending + stats.active + stats.retry == 0;
    world.queue_when("q", is_over).await;
    until("Go has told of all", async || (finished(&go).len() >= TASKS).then_some(())).await;
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for id in finished(&go) {
        *runs.entry(id).or_default() += 1;
    }
    let repeated: Vec<_> = runs.iter().filter(|(_, runs)| **runs != 1).collect();
    assert!(repeated.is_empty(), "{repeated:?}");
    assert_eq!(runs.len(), TASKS);
}

/// Not a test of its own: the other one starts it as a process that can be killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deliverer_in_a_process_of_its_own() {
    let Ok(place) = std::env::var(CHILD_ENV) else { return };
    // Whoever started it holds the other end of its input.
    std::thread::spawn(|| {
        let _all = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(1);
    });
    let (url, spool) = place.split_once(' ').unwrap();
    let connection = Connection::surviving(url, Survive::new(spool)).await.unwrap();
    let survivor = connection.survivor().unwrap();
    until("all is delivered", async || {
        (survivor.status().unwrap().outbox.items == 0).then_some(())
    })
    .await;
    // The harness has begun a line.
    println!("\n{}", serde_json::json!({ "event": "empty" }));
    std::future::pending::<()>().await;
}
