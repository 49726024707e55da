//! The assembly: which layer stands over which, and how they are looked at.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outlast_core::{
    Backoff, Beat, BeatReply, Broker, BrokerError, Enqueued, Inspect, Kind, NewTask, QueueName,
    Stamp, Timestamp,
};
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::Clock;
use crate::breaker::{Admin, Breaker, Class, HomeStatus, Watermark};
use crate::clock::end_of;
use crate::drain::Drain;
use crate::event::{Counts, Event, Events};
use crate::journal::{Journal, JournalMode};
use crate::keep::Keeper;
use crate::ledger::{Delivering, Ledger, LedgerLimits};
use crate::metrics::Metrics;
use crate::noticer::Noticer;
use crate::outbox::Outbox;
use crate::spool::{Spool, SpoolError, SpoolLimits, Store, Waiting};

/// How long a producer waits for the broker before its task is stored instead: no caller notices a quarter of
/// a second, and a broker that is well needs a hundredth of it.
const ENQUEUE_PATIENCE: Duration = Duration::from_millis(250);

/// How long an enqueue that waits for its broker pauses between attempts.
const ENQUEUE_PAUSE: Backoff = Backoff::Exponential {
    base: Duration::from_millis(50),
    factor: 2.0,
    cap: Duration::from_secs(1),
    jitter: 0.5,
};

/// How long a process that lingers waits for the next delivery.
const LINGER_QUIET: Duration = Duration::from_millis(500);

/// The same for an outcome, for which nobody waits but the end of the process.
const SETTLE_PATIENCE: Duration = Duration::from_secs(1);

/// How long a process that ends waits until what the broker has forgotten is on the disk, and what it has taken is not.
const CALM_PATIENCE: Duration = Duration::from_secs(1);

/// How long no process of ours takes expired leases back after an outage: three beats of a worker.
const GRACE: Duration = Duration::from_secs(15);

/// How to survive.
#[derive(Clone, Debug)]
pub struct Config {
    /// The spool's file, shared by all processes of this machine that use the same broker. Its folder must
    /// exist.
    pub spool: PathBuf,
    /// What the spool calls the broker, so that no other one gets what is stored for it: the same for all its processes, and
    /// without a password. Unless set it is the home of the default queue.
    pub broker: Option<String>,
    /// How large outbox and journal may become.
    pub limits: SpoolLimits,
    /// When outcomes are journaled.
    pub journal: JournalMode,
    /// How much of what was acknowledged is kept in memory, to be offered again if the broker forgets it.
    pub ledger: LedgerLimits,
    /// How long an enqueue waits for the broker before it is stored.
    pub patience: Duration,
    /// How long expired leases are left alone after an outage, and after the start of a process, which cannot know
    /// of one: workers that outlived it report first.
    pub grace: Duration,
    /// Which queues are held back while the broker's memory fills up; none, unless it is set.
    pub watermark: Option<Watermark>,
    /// What tells the time.
    pub clock: Clock,
}

impl Config {
    /// The defaults, with this spool.
    #[must_use]
    pub fn new(spool: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            spool: spool.into(),
            broker: None,
            limits: SpoolLimits::default(),
            journal: JournalMode::default(),
            ledger: LedgerLimits::default(),
            patience: ENQUEUE_PATIENCE,
            grace: GRACE,
            watermark: None,
            clock,
        }
    }
}

/// What becomes of an enqueue that the broker cannot take. Only `Store` goes behind what waits on the disk already: the
/// others may overtake it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OnOutage {
    /// It is stored on this machine's disk and delivered later.
    #[default]
    Store,
    /// It fails at once, with what the broker answered. Whoever tries again by himself looks at the error's kind: after
    /// `Ambiguous` the task may be in the broker, may even have run and be gone, and what is enqueued again may run a second
    /// time, unless it has the same id and a `once` key. After every other kind nothing was applied.
    Fail,
    /// It waits for the broker, this long at most, and fails then, as above; without any time to wait, at once.
    Wait(Duration),
}

/// A broker that outlives its outages.
pub struct Survivor {
    outbox: Arc<Outbox>,
    journal: Arc<Journal>,
    ledger: Arc<Ledger>,
    breaker: Arc<Breaker>,
    spool: Spool,
    events: Arc<Events>,
    clock: Clock,
    drain: Arc<Drain>,
    noticer: Arc<Noticer>,
    draining: Draining,
}

/// The task that delivers, for as long as this lives.
struct Draining(Mutex<Option<JoinHandle<()>>>);

impl Draining {
    fn take(&self) -> Option<JoinHandle<()>> {
        let task = self.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        task.abort();
        Some(task)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        self.take();
    }
}

/// How everything is, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// The homes that were met.
    pub homes: Vec<HomeStatus>,
    /// What waits in the outbox, of all processes.
    pub outbox: Waiting,
    /// What waits in the journal, of all processes.
    pub journal: Waiting,
    /// Tasks a second that the outbox delivers at most, at present.
    pub drain_rate: f64,
    /// What happened in this process.
    pub counts: Counts,
}

impl Status {
    /// How long the outbox takes to be empty at the present rate, if the broker is there.
    #[must_use]
    pub fn eta(&self) -> Duration {
        Duration::from_secs_f64(self.outbox.items as f64 / self.drain_rate.max(1.0))
    }
}

/// Puts the layers over a broker: the outbox over the journal over the ledger over the breaker. Blocks on the disk while the
/// spool is opened.
///
/// # Panics
/// Outside a tokio runtime: what was stored is delivered by a task of it.
///
/// # Errors
/// [`SpoolError`] if the spool cannot be opened; its kind says what somebody has to do.
pub fn wrap(broker: Arc<dyn Broker>, config: Config) -> Result<Survivor, SpoolError> {
    let (clock, events) = (config.clock, Arc::new(Events::new()));
    let name =
        config.broker.unwrap_or_else(|| broker.home(&QueueName::default_queue()).0.to_string());
    let spool = Spool::open_for(config.spool, config.limits, name)?;
    let keeper = |below: Arc<dyn Broker>, patience| {
        let (spool, events) = (spool.clone(), events.clone());
        Keeper { below, spool, events, patience, doubtful: Arc::default() }
    };

    let breaker =
        Breaker::new(broker, clock.clone(), events.clone(), (config.grace, config.watermark));
    let ledger =
        Arc::new(Ledger::new(breaker.clone(), config.ledger, spool.clone(), events.clone()));
    let journal = Journal::new(keeper(ledger.clone(), SETTLE_PATIENCE), config.journal)?;
    let journal = Arc::new(journal);
    let outbox = Outbox::new(journal.clone(), keeper(journal.clone(), config.patience));

    let delivering = Arc::new(Delivering { below: ledger.clone() });
    let drain = Arc::new(Drain::new(
        (delivering, breaker.clone()),
        spool.clone(),
        events.clone(),
        clock.clone(),
    ));
    let noticer = Arc::new(Noticer::new(breaker.clone(), spool.clone(), clock.clone()));
    let (deliver, ask, note) = (drain.clone().run(), ledger.clone().run(), noticer.clone().run());
    let all = async move {
        tokio::join!(deliver, ask, note);
    };
    let draining = Draining(Mutex::new(Some(tokio::spawn(all))));
    let outbox = Arc::new(outbox);
    Ok(Survivor {
        outbox,
        journal,
        ledger,
        breaker,
        spool,
        events,
        clock,
        drain,
        noticer,
        draining,
    })
}

impl std::fmt::Debug for Survivor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survivor").field("breaker", &self.breaker).finish_non_exhaustive()
    }
}

impl Survivor {
    /// The broker with all layers: enqueues and outcomes are stored when it is away.
    #[must_use]
    pub fn broker(&self) -> Arc<dyn Broker> {
        self.outbox.clone()
    }

    /// The broker without the outbox: enqueues fail when it is away.
    #[must_use]
    pub fn failing(&self) -> Arc<dyn Broker> {
        self.journal.clone()
    }

    /// The broker without the outbox for a worker that ends soon: its outcomes are on the disk before they are sent,
    /// and are the spool's if the broker does not answer within `patience`. An outcome whose settle is dropped is
    /// neither lost nor applied twice if it is settled here under the same stamp.
    #[must_use]
    pub fn leaving(&self, patience: Duration) -> Arc<dyn Broker> {
        Arc::new(self.journal.leaving(patience))
    }

    /// The inspection of the same broker, which then leaves it in peace while it is sick, as the verbs do.
    #[must_use]
    pub fn inspect(&self, below: Arc<dyn Inspect>) -> Arc<dyn Inspect> {
        Arc::new(Admin::new(below, self.breaker.clone()))
    }

    /// Enqueues a batch as its caller wants it in an outage. Dropped, it leaves open whether the tasks are
    /// stored.
    ///
    /// # Errors
    /// What the broker answers, if the tasks are not safe; after a wait its kind is `Ambiguous` if any of the
    /// attempts was.
    pub async fn enqueue(
        &self,
        on_outage: OnOutage,
        (queue, stamp): (&QueueName, Stamp),
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        match on_outage {
            OnOutage::Store => self.outbox.enqueue(queue, stamp, now, tasks).await,
            OnOutage::Fail | OnOutage::Wait(Duration::ZERO) => {
                self.journal.enqueue(queue, stamp, now, tasks).await
            }
            OnOutage::Wait(at_most) => {
                self.enqueue_within(at_most, (queue, stamp), now, tasks).await
            }
        }
    }

    /// Asks again, under the same stamp, whenever the breaker lets it pass, and not at once where it always does: a
    /// home whose other calls succeed is never down.
    async fn enqueue_within(
        &self,
        at_most: Duration,
        (queue, stamp): (&QueueName, Stamp),
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        let until = end_of(at_most);
        let (mut is_open, mut tries) = (false, 0);
        loop {
            let attempt = timeout_at(until, self.journal.enqueue(queue, stamp, now, tasks.clone()));
            let error = match attempt.await {
                Ok(Ok(enqueued)) => return Ok(enqueued),
                Ok(Err(error)) => error,
                Err(_) => {
                    let what = format!(
                        "broker {} did not answer for queue {queue} within the {} to be waited",
                        self.breaker.home(queue).0,
                        outlast_core::duration::format(at_most)
                    );
                    BrokerError::new(Kind::Ambiguous, what)
                }
            };
            is_open |= error.kind() == Kind::Ambiguous;
            let is_final = match error.kind() {
                Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured => false,
                Kind::Rejected | Kind::Corrupt | Kind::Superseded => true,
            };
            let pause = ENQUEUE_PAUSE.delay(tries, rand::random());
            tries = tries.saturating_add(1);
            let ready = async {
                tokio::time::sleep(pause).await;
                self.until_up(queue).await;
            };
            if is_final || timeout_at(until, ready).await.is_err() {
                return Err(match is_open {
                    true => BrokerError::new(Kind::Ambiguous, "no attempt was answered")
                        .with_source(error),
                    false => error,
                });
            }
        }
    }

    /// A worker's first beat, which hands out its lease token: repeated until the broker is there, because a
    /// worker may start before it. Safe to drop.
    ///
    /// # Errors
    /// What the broker answers, if it will answer the same again.
    pub async fn sign_on(&self, beat: &Beat) -> Result<BeatReply, BrokerError> {
        let home = self.breaker.home_of_beat(beat);
        loop {
            match self.breaker.beat(self.clock.now(), beat).await {
                Ok(reply) => return Ok(reply),
                Err(error) => match error.kind() {
                    Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured => {
                        self.breaker.until_admits(&home, Class::Consume).await;
                    }
                    Kind::Rejected | Kind::Corrupt | Kind::Superseded => return Err(error),
                },
            }
        }
    }

    /// True while outcomes of this queue are in the journal that must be reported before its next claim. A claim would
    /// wait for them, some seconds at most: who claims from several queues asks first, and goes on with the others.
    ///
    /// # Errors
    /// [`SpoolError`] if the spool cannot be read.
    pub fn owes(&self, queue: &QueueName) -> Result<bool, SpoolError> {
        self.journal.owes(queue)
    }

    /// Waits until enqueues of this queue would reach the broker. Safe to drop.
    pub async fn until_up(&self, queue: &QueueName) {
        self.breaker.until_admits_queue(queue, Class::Produce).await;
    }

    /// True while claims of this queue reach the broker: whoever asks it something beside the verbs keeps away otherwise
    /// (law L9).
    #[must_use]
    pub fn is_claimable(&self, queue: &QueueName) -> bool {
        self.breaker.serves(queue, Class::Consume)
    }

    /// What happens from now on. A listener that is too slow misses the oldest, and is told how many.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.events.listen()
    }

    /// For a process that is about to end: waits while what is stored reaches the broker, this long at most, and no
    /// longer than half a second in which nothing does. Safe to drop.
    ///
    /// # Errors
    /// [`SpoolError`] if the spool cannot be read.
    pub async fn linger(&self, at_most: Duration) -> Result<(), SpoolError> {
        self.spool.forgotten(at_most.min(CALM_PATIENCE)).await;
        let until = end_of(at_most);
        let (mut left, mut give_up) = (u64::MAX, until);
        loop {
            let (waiting, now) = (self.spool.waiting(Store::Outbox)?.items, Instant::now());
            if waiting < left {
                (left, give_up) = (waiting, until.min(now + LINGER_QUIET));
            }
            if waiting == 0 || now >= give_up {
                return Ok(());
            }
            self.spool.room(give_up - now).await;
        }
    }

    /// Stops delivering, so that another process may go on at once. What waits stays on the disk.
    pub async fn stop(&self) {
        // What the broker has just told to be lost is known to this process alone.
        let _ = tokio::time::timeout(CALM_PATIENCE, self.ledger.calm()).await;
        self.spool.forgotten(CALM_PATIENCE).await;
        if let Some(task) = self.draining.take() {
            // It was aborted: what it answers is that.
            let _ = task.await;
        }
        self.noticer.end().await;
    }

    /// The store on disk.
    #[must_use]
    pub fn spool(&self) -> &Spool {
        &self.spool
    }

    /// How every home is that was met.
    #[must_use]
    pub fn homes(&self) -> Vec<HomeStatus> {
        self.breaker.status()
    }

    /// The figures of this process and of its spool, under the names that `docs/outages.md` lists.
    ///
    /// # Errors
    /// [`SpoolError`] if the spool cannot be read.
    pub fn metrics(&self) -> Result<Metrics, SpoolError> {
        Ok(Metrics::of(&self.status()?, self.clock.now()))
    }

    /// How everything is.
    ///
    /// # Errors
    /// [`SpoolError`] if the spool cannot be read.
    pub fn status(&self) -> Result<Status, SpoolError> {
        Ok(Status {
            homes: self.homes(),
            outbox: self.spool.waiting(Store::Outbox)?,
            journal: self.spool.waiting(Store::Journal)?,
            drain_rate: self.drain.rate(),
            counts: self.events.counts(),
        })
    }
}
