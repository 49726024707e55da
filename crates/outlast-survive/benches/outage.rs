//! What the layers cost while the broker is well, how fast tasks are stored while it is away, and how fast they
//! are delivered: `cargo bench -p outlast-survive`. Over the model, so that only the layers are measured.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::{Broker, Durability, Kind, NewTask, QueueName, SessionId, Stamp, Timestamp};
use outlast_survive::{Clock, Config, Survivor, wrap};
use outlast_testkit::conformance::task;
use outlast_testkit::fault::{Fault, FaultBroker, Verb};
use outlast_testkit::model::ModelBroker;
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);
const PRODUCERS: usize = 64;
const STORED: usize = 64 * 500;

fn queue() -> QueueName {
    QueueName::stored("q")
}

fn stamp() -> Stamp {
    Stamp { session: SessionId(rand::random()), lane: 0, seq: 1, durability: Durability::Accepted }
}

async fn enqueue(broker: &dyn Broker, id: &str) -> Duration {
    let tasks: Arc<[NewTask]> = [task(id)].into();
    let begun = Instant::now();
    broker.enqueue(&queue(), stamp(), NOW, tasks).await.expect("is taken");
    begun.elapsed()
}

fn percentile(times: &mut [Duration], of: f64) -> Duration {
    times.sort();
    times[((times.len() - 1) as f64 * of) as usize]
}

async fn alone(name: &str, broker: &dyn Broker) {
    let mut times = Vec::new();
    for n in 0..5000 {
        times.push(enqueue(broker, &format!("{name}-{n}")).await);
    }
    println!("{name:<28} p50 {:?}", percentile(&mut times, 0.5));
}

async fn store(survivor: &Survivor) {
    let begun = Instant::now();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let broker = survivor.broker();
        producers.spawn(async move {
            let mut times = Vec::new();
            for n in 0..STORED / PRODUCERS {
                times.push(enqueue(&*broker, &format!("s-{producer}-{n}")).await);
            }
            times
        });
    }
    let mut times: Vec<Duration> = producers.join_all().await.into_iter().flatten().collect();
    let rate = STORED as f64 / begun.elapsed().as_secs_f64();
    println!("stored, {PRODUCERS} producers        {rate:.0}/s");
    for of in [0.5, 0.99] {
        println!("stored p{:<21} {:?}", of * 100.0, percentile(&mut times, of));
    }
}

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = Arc::new(ModelBroker::new(1000));
    alone("bare enqueue", &*model).await;
    let faults = Arc::new(FaultBroker::new(Arc::new(ModelBroker::new(1000))));
    let config = Config::new(folder.path().join("spool.db"), Clock::new(|| NOW));
    let survivor = wrap(faults.clone(), config).expect("the spool opens");
    alone("enqueue through all layers", &*survivor.broker()).await;

    for verb in [Verb::Enqueue, Verb::Health] {
        faults.always(verb, Fault::Before(Kind::Unavailable));
    }
    store(&survivor).await;
    faults.heal();
    let (begun, mut look) = (Instant::now(), tokio::time::interval(Duration::from_millis(5)));
    while survivor.status().expect("readable").outbox.items > 0 {
        look.tick().await;
    }
    let took = begun.elapsed();
    println!("delivered {STORED}              within {took:?}, the breaker's pause included");
}
