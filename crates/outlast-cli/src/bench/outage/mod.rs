//! What surviving costs while the broker is well, and what it does while the broker is away: the promises of
//! `docs/outages.md` as figures.
//!
//! On a server of the bench's own, or on one that is named; that one stays up for everybody else, because the outage is
//! made by a door in front of it. Figures: `cost` (well), `away` (stored, then delivered), `sick` (what is
//! sent meanwhile, and how soon the first task is taken afterwards).

mod away;
mod cost;
mod sick;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use outlast::survive::Survive;
use outlast::{Client, Connection, QueueName, Verdict};

use super::load::request;
use super::redis::{Ground, Site};
use super::{Extent, FOLDER, Figure, Outcome, Stopwatch};
use crate::rig::{Door, Folder, Keeps, Server, find_server};

/// Producers that each await their own enqueue.
const PRODUCERS: usize = 64;

/// How much is done for each figure.
#[derive(Clone, Copy)]
struct Plan {
    /// How often the sides with and without layers take turns.
    rounds: usize,
    /// Tasks of one awaiting caller, in each turn.
    single: usize,
    /// Tasks of many awaiting callers, in each turn.
    concurrent: usize,
    /// Tasks whose way to the disk is timed.
    timed: usize,
    /// Tasks that are stored altogether: memory is watched, and all of them are delivered.
    stored: usize,
    /// How long the server is sick each time, and how often.
    sick: Duration,
    outages: usize,
}

impl Plan {
    fn of(extent: Extent) -> Self {
        let (sick, quickly) = (Duration::from_secs(10), Duration::from_secs(4));
        match extent {
            Extent::Tiny => Self {
                rounds: 2,
                single: 20,
                concurrent: 200,
                timed: 200,
                stored: 600,
                sick: Duration::from_millis(300),
                outages: 1,
            },
            Extent::Quick => Self {
                rounds: 7,
                single: 1_000,
                concurrent: 20_000,
                timed: 50_000,
                stored: 200_000,
                sick: quickly,
                outages: 2,
            },
            Extent::Usual | Extent::Full => Self {
                rounds: 11,
                single: 2_000,
                concurrent: 50_000,
                timed: 100_000,
                // As many as a spool holds unless it is told otherwise.
                stored: 1_000_000,
                sick,
                outages: 3,
            },
        }
    }
}

/// Everything that the figures are made with.
struct Bench {
    plan: Plan,
    folder: PathBuf,
    /// The server's URL with the bench's namespace, and the same through the door.
    url: String,
    door_url: String,
    door: Door,
    site: Site,
}

/// Runs every figure, with its files in a folder of its own below `dir`; `each` gets the figures as they come. `url` is
/// the server, unless it is to be the bench's own.
pub(crate) async fn run(
    url: Option<&str>,
    dir: &Path,
    extent: Extent,
    mut each: impl FnMut(&Figure),
) -> Outcome<()> {
    let folder = Folder::new(dir, FOLDER)?;
    let (url, _server) = match url {
        Some(url) => (url.to_owned(), None),
        None => {
            let program = find_server(None, "name yours by --broker redis://…")?;
            let server = Server::start(&program, folder.path().to_owned(), Keeps::Nothing).await?;
            (format!("redis://{}", server.addr()), Some(server))
        }
    };
    let ground = Ground::of(&url).await?;
    let door = Door::to(ground.address()?).await?;
    let mode = format!("{}, spool on disk", ground.mode);
    let mut bench = Bench {
        plan: Plan::of(extent),
        folder: folder.path().to_owned(),
        door_url: ground.url_at(door.addr().port())?,
        url: ground.url,
        door,
        site: ground.site,
    };
    let mut each = |figure: Figure| each(&figure.mode(&mode));
    let measured = tokio::select! {
        measured = bench.measure(&mut each) => measured,
        () = outlast::shutdown_signal() => Err("interrupted".into()),
    };
    let cleared = bench.site.clear().await;
    measured.and(cleared)
}

impl Bench {
    async fn measure(&mut self, each: &mut impl FnMut(Figure)) -> Outcome<()> {
        self.cost(each).await?;
        self.away(each).await?;
        self.site.empty().await?;
        self.sick(each).await
    }

    /// A connection that outlives outages, with a spool of this name.
    async fn surviving(&self, url: &str, spool: &str) -> Outcome<Connection> {
        // The server and the door before it are one broker.
        let survive = Survive::new(self.folder.join(format!("{spool}.db"))).broker_name("bench");
        Ok(Connection::surviving(url, survive).await?)
    }
}

/// What became of tasks that were enqueued one by one.
struct Enqueued {
    seconds: f64,
    /// How long each took, in microseconds, sorted.
    micros: Vec<f32>,
    /// Whether each of them had the receipt that was expected.
    as_expected: bool,
}

impl Enqueued {
    fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.seconds
    }

    /// The time below which `percent` of them are, in microseconds.
    fn percentile(&self, percent: usize) -> f64 {
        let at = (self.micros.len() * percent / 100).min(self.micros.len().saturating_sub(1));
        self.micros.get(at).map_or(f64::NAN, |micros| f64::from(*micros))
    }
}

/// What a receipt is expected to say.
#[derive(Clone, Copy)]
enum Expect {
    Accepted,
    Stored,
}

/// Producers that each await their own enqueue, of the tasks with these numbers.
async fn enqueue(
    client: &Client,
    queue: &QueueName,
    producers: usize,
    numbers: std::ops::Range<usize>,
    expect: Expect,
) -> Outcome<Enqueued> {
    let next = Arc::new(AtomicUsize::new(numbers.start));
    let begin = Stopwatch::start();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..producers {
        let (client, queue, next, end) = (client.clone(), queue.clone(), next.clone(), numbers.end);
        running.spawn(async move {
            let (mut micros, mut as_expected) = (Vec::new(), true);
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= end {
                    return Ok::<_, outlast::Error>((micros, as_expected));
                }
                let begin = Stopwatch::start();
                let receipt = client.enqueue(request(&queue, n)).await?;
                micros.push((begin.seconds() * 1e6) as f32);
                as_expected &= match expect {
                    Expect::Accepted => matches!(receipt.verdict, Verdict::Accepted { .. }),
                    Expect::Stored => receipt.verdict == Verdict::Stored,
                };
            }
        });
    }
    let (mut micros, mut as_expected) = (Vec::with_capacity(numbers.len()), true);
    while let Some(ended) = running.join_next().await {
        let (own, own_as_expected) = ended??;
        micros.extend(own);
        as_expected &= own_as_expected;
    }
    let seconds = begin.seconds();
    micros.sort_unstable_by(f32::total_cmp);
    Ok(Enqueued { seconds, micros, as_expected })
}
