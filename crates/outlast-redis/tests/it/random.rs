//! Faults at random: clients and workers whose replies are lost, delayed and cut, repeating what was not
//! answered, with a Go worker beside them. In the end every accepted task has run once.
//!
//! `OUTLAST_SEED` repeats the choices of a run; how they meet the network is not in its hand.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Claims, EnqueueVerdict, LeaseToken, NewTask, Rest, SettleVerdict,
    Settlement, Stamp, Want,
};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{
    beat, done, kept, once, stamp, t, task, tasks_of, unique, worker,
};
use outlast_testkit::proxy::{Direction, TcpProxy};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::kit::{LONG, Place, moment, settlement, shared, want};

const CLIENTS: u64 = 4;
const WORKERS: u64 = 3;
const BATCHES: u64 = 150;
const BATCH_MAX: u64 = 8;

/// What all take part in.
struct World {
    place: Place,
    seed: u64,
    proxies: Vec<TcpProxy>,
    accepted: Mutex<BTreeMap<String, usize>>,
    /// How often each task was ended: applied or adopted, or by the Go worker.
    ended: Mutex<BTreeMap<String, usize>>,
    clients_left: AtomicU64,
    repeats: AtomicUsize,
    is_over: AtomicBool,
}

impl World {
    /// Repeats a call until it is answered, as the layer above does. True if it had to.
    async fn answered<T, F: Future<Output = Result<T, BrokerError>>>(
        &self,
        call: impl Fn() -> F,
    ) -> (T, bool) {
        let mut is_repeat = false;
        loop {
            match call().await {
                Ok(answer) => return (answer, is_repeat),
                Err(error) if error.kind().is_transient() => {
                    self.repeats.fetch_add(1, Ordering::SeqCst);
                    is_repeat = true;
                    moment(Duration::from_millis(3)).await;
                }
                Err(error) => panic!("seed {}: {} {error}", self.seed, error.kind()),
            }
        }
    }

    async fn is_done(&self) -> bool {
        self.clients_left.load(Ordering::SeqCst) == 0
            && self.ended.lock().await.len() >= self.accepted.lock().await.len()
    }
}

fn rng(seed: u64, stream: u64) -> StdRng {
    StdRng::seed_from_u64(seed.wrapping_mul(1000).wrapping_add(stream))
}

fn new_task(rng: &mut StdRng, name: &str) -> NewTask {
    match rng.random_range(0..10) {
        0 => kept(name, 1),
        1 => unique(name, &format!("digest-{}", rng.random_range(0..30)), 1000),
        2 => once(name, &format!("key-{}", rng.random_range(0..60)), 1000),
        _ => task(name),
    }
}

async fn client(world: Arc<World>, nth: u64, broker: RedisBroker) {
    let mut rng = rng(world.seed, nth);
    for seq in 1..=BATCHES {
        let count = rng.random_range(1..=BATCH_MAX);
        let names: Vec<String> = (0..count).map(|n| format!("{nth}-{seq}-{n}")).collect();
        let batch: Arc<[NewTask]> = names.iter().map(|name| new_task(&mut rng, name)).collect();
        let stamp = stamp(u128::from(nth) + 1, 0, seq);
        let queue = &world.place.queue;
        let send = || broker.enqueue(queue, stamp, t(0), batch.clone());
        let (answer, _) = world.answered(send).await;
        assert_eq!(answer.lost, None, "seed {}: nothing was forgotten", world.seed);
        let mut accepted = world.accepted.lock().await;
        for (name, verdict) in names.into_iter().zip(answer.verdicts) {
            match verdict {
                EnqueueVerdict::Accepted { .. } => *accepted.entry(name).or_default() += 1,
                EnqueueVerdict::Duplicate { of } => {
                    let of = of.map(|of| of.to_string());
                    assert_ne!(of.as_deref(), Some(&*name), "seed {}: its own", world.seed);
                }
                other => panic!("seed {}: {name}: {other:?}", world.seed),
            }
        }
    }
    world.clients_left.fetch_sub(1, Ordering::SeqCst);
}

/// The stamps of a worker: a session of one lane, left behind when a number's fate is open.
struct Stamps {
    session: u128,
    seq: u64,
}

impl Stamps {
    fn next(&mut self) -> Stamp {
        self.seq += 1;
        stamp(self.session, 0, self.seq)
    }

    fn left(&mut self) {
        *self = Self { session: self.session + (1 << 64), seq: 0 };
    }
}

async fn claimed(world: &World, stamps: &mut Stamps, broker: &RedisBroker, want: &Want) -> Claims {
    let stamp = stamps.next();
    let claim = || broker.claim(&world.place.queue, stamp, t(1), want);
    let (claims, is_repeat) = world.answered(claim).await;
    assert_eq!(claims.lost, None, "seed {}", world.seed);
    match (claims.claims.is_empty(), is_repeat) {
        (true, true) => stamps.left(),
        (true, false) => stamps.seq -= 1,
        (false, _) => {}
    }
    claims
}

async fn token_of(world: &World, nth: u64, broker: &RedisBroker) -> LeaseToken {
    let first = beat(worker(&format!("worker-{nth}")), None, 1000);
    let (reply, _) = world.answered(|| broker.beat(t(0), &first)).await;
    reply.token.expect("a token")
}

async fn work(world: Arc<World>, nth: u64, broker: RedisBroker) {
    let mut rng = rng(world.seed, 100 + nth);
    let session = u128::from(nth) + 1000;
    let (mut claims, mut settles) =
        (Stamps { session, seq: 0 }, Stamps { session: session + 1000, seq: 0 });
    let token = token_of(&world, nth, &broker).await;
    while !world.is_over.load(Ordering::SeqCst) {
        let want = Want {
            token,
            lease: Duration::from_secs(1000),
            ..want(usize::try_from(rng.random_range(1..=BATCH_MAX)).expect("small"))
        };
        let found = claimed(&world, &mut claims, &broker, &want).await;
        if found.claims.is_empty() {
            assert_ne!(found.rest, Rest::Paused);
            moment(Duration::from_millis(2)).await;
            continue;
        }
        let batch: Arc<[Settlement]> =
            tasks_of(found).iter().map(|claimed| settlement(&claimed.lease, done())).collect();
        let stamp = settles.next();
        let send = || broker.settle(&world.place.queue, stamp, t(2), batch.clone());
        let (answer, _) = world.answered(send).await;
        let mut ended = world.ended.lock().await;
        for (settlement, verdict) in batch.iter().zip(answer.verdicts) {
            assert_eq!(verdict, SettleVerdict::Applied, "seed {}: {settlement:?}", world.seed);
            *ended.entry(settlement.lease.id.to_string()).or_default() += 1;
        }
    }
}

async fn go_worker(world: Arc<World>) {
    while !world.is_over.load(Ordering::SeqCst) {
        // asynq decodes the message before it runs a task; here a lock is left to expire, and a kept task deleted.
        if let Some(id) = world.place.run_as_go_does() {
            *world.ended.lock().await.entry(id).or_default() += 1;
        }
        moment(Duration::from_millis(5)).await;
    }
}

async fn faults(world: Arc<World>) {
    let mut rng = rng(world.seed, 999);
    while !world.is_over.load(Ordering::SeqCst) {
        let proxy = &world.proxies[rng.random_range(0..world.proxies.len())];
        match rng.random_range(0..12) {
            0..=6 => proxy.lose_next_reply_to("EVALSHA"),
            7 => proxy.cut_after(Direction::ToClient, rng.random_range(0..2000)),
            8 => proxy.cut_after(Direction::ToServer, rng.random_range(0..4000)),
            9 => proxy.close_connections(),
            10 => proxy.reset_connections(),
            _ => proxy.delay(Direction::ToClient, Duration::from_millis(rng.random_range(1..15))),
        }
        moment(Duration::from_millis(rng.random_range(0..6))).await;
        if rng.random_bool(0.2) {
            proxy.heal().await.expect("healed");
        }
    }
    for proxy in &world.proxies {
        proxy.heal().await.expect("healed");
    }
}

async fn world(seed: u64) -> Option<(Arc<World>, Vec<RedisBroker>)> {
    let server = shared()?;
    let place = Place::new(server);
    let (mut proxies, mut brokers) = (Vec::new(), Vec::new());
    for _ in 0..CLIENTS + WORKERS {
        let proxy = TcpProxy::start(server.addr()).await.expect("a port");
        brokers.push(place.broker(&proxy.url()));
        proxies.push(proxy);
    }
    let world = World {
        place,
        seed,
        proxies,
        accepted: Mutex::default(),
        ended: Mutex::default(),
        clients_left: AtomicU64::new(CLIENTS),
        repeats: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
    };
    Some((Arc::new(world), brokers))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_accepted_task_runs_once_whatever_the_network_does() {
    let seed = std::env::var("OUTLAST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let Some((world, mut brokers)) = world(seed).await else { return };
    let mut tasks = JoinSet::new();
    for nth in 0..CLIENTS {
        tasks.spawn(client(world.clone(), nth, brokers.pop().expect("one each")));
    }
    for nth in 0..WORKERS {
        tasks.spawn(work(world.clone(), nth, brokers.pop().expect("one each")));
    }
    tasks.spawn(go_worker(world.clone()));
    tasks.spawn(faults(world.clone()));
    let finishing = async {
        while !world.is_done().await {
            if let Some(Err(error)) = tasks.try_join_next() {
                std::panic::resume_unwind(error.into_panic());
            }
            moment(Duration::from_millis(20)).await;
        }
        world.is_over.store(true, Ordering::SeqCst);
        while let Some(ended) = tasks.join_next().await {
            ended.expect("nobody panics");
        }
    };
    if tokio::time::timeout(2 * LONG, finishing).await.is_err() {
        let (accepted, ended) = (world.accepted.lock().await, world.ended.lock().await);
        let missing: Vec<_> = accepted.keys().filter(|id| !ended.contains_key(*id)).collect();
        let left = world.place.tasks();
        panic!("seed {seed}: not over; not ended: {missing:?}; still there: {left:?}");
    }
    judge(&world).await;
}

async fn judge(world: &World) {
    let seed = world.seed;
    let (accepted, ended) = (world.accepted.lock().await, world.ended.lock().await);
    let repeats = world.repeats.load(Ordering::SeqCst);
    println!("seed {seed}: {} tasks, {repeats} calls had to be repeated", accepted.len());
    assert!(repeats > 10, "seed {seed}: hardly anything went wrong");
    assert_eq!(*accepted, *ended, "seed {seed}: every accepted task ends once, and no other does");
    assert!(ended.values().all(|count| *count == 1), "seed {seed}");
    let place = &world.place;
    for (command, key) in [("LLEN", "pending"), ("LLEN", "active"), ("ZCARD", "lease")] {
        assert_eq!(place.count(command, key), 0, "seed {seed}: {key}");
    }
    let processed = place.raw(&["GET", &place.key("processed")]).int();
    assert_eq!(processed, i64::try_from(ended.len()).ok(), "seed {seed}");
    // Only what is kept is left, and all of it is completed.
    let kept = i64::try_from(place.tasks().len()).ok();
    assert_eq!(kept, Some(place.count("ZCARD", "completed")), "seed {seed}");
}
