//! One outage from beginning to end: all is well, a fault begins, it lasts, it ends, all is well again. The test itself only begins and
//! ends the fault; what is asked of every outage alike is asked here (the invariants' numbers are those of `docs/outages.md`).

use std::time::Duration;

use outlast::survive::{CircuitState, Event, HomeStatus};
use outlast::{Kind, Readiness};
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::resp::Connection;
use outlast_testkit::server::RedisServer;
use tokio::sync::broadcast;
use tokio::time::Instant;

use crate::history::Sum;
use crate::table;
use crate::world::{Producing, Working, World};

/// How long outages last unless a test says more: every breaker has opened, and probes at their widest have come.
pub(crate) const OUTAGE: Duration = Duration::from_secs(4);

/// How long is counted what a sick server gets.
const LAW: Duration = Duration::from_secs(10);

/// I10: no producer waits longer, whatever the broker does. The promise is 250 ms and an fsync; this is a build machine.
const LONGEST: Duration = Duration::from_millis(1500);

/// I8: so soon after the end of the fault something succeeds.
const FIRST_SUCCESS: Duration = Duration::from_secs(3);

/// The same after a fault that somebody has to mend, such as a wrong password: the server is asked every five seconds.
const FIRST_SUCCESS_MENDED: Duration = Duration::from_secs(7);

/// I9: a worker that is told to stop, and has nothing to wait for, has stopped.
const STOPPED: Duration = Duration::from_secs(10);

/// I6: commands a second that a sick server gets at most, once the breakers are open.
const SICK_COMMANDS: u64 = 2;

/// Of a connection that is made anew in the middle of it.
const HANDSHAKE: u64 = 6;

/// How many connections a process may have.
const CONNECTIONS_MAX: u64 = 6;

/// What the breakers are expected to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sick {
    /// All of them open.
    Down,
    /// Those of producers open, and workers go on.
    Produce,
    /// Nobody answers, and nobody refuses: calls end late, and so the breakers open late. It is seen all the same.
    Silent,
    /// It is too short or too mild for that; it may happen or not.
    Hardly,
}

/// Where commands are counted.
pub(crate) enum Meter {
    /// On the way.
    Proxy(TcpProxy),
    /// By the server, over a connection that the fault does not touch.
    Server(Connection),
    /// Nowhere: nothing arrives.
    None,
}

/// An outage that is under way.
pub(crate) struct Story {
    pub(crate) world: World,
    pub(crate) meter: Meter,
    producer: Producing,
    worker: Working,
    events: broadcast::Receiver<Event>,
    seen: Seen,
}

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) reason: Option<String>,
    pub(crate) down_after: Option<Duration>,
    /// Commands, and in how long.
    pub(crate) sent: Option<(u64, Duration)>,
    pub(crate) first: Option<Duration>,
    /// It lasted, and nobody was served.
    is_outage: bool,
    /// Somebody has to act.
    is_misconfigured: bool,
}

impl Meter {
    fn sent(&mut self) -> Option<u64> {
        match self {
            Meter::Proxy(proxy) => Some(proxy.counts().requests),
            Meter::Server(connection) => {
                let page = connection.command(&["INFO", "stats"]).unwrap().text().unwrap();
                let line = page.lines().find(|line| line.starts_with("total_commands_processed:"));
                line.and_then(|line| line.split(':').nth(1)).map(|count| count.parse().unwrap())
            }
            Meter::None => None,
        }
    }
}

impl Story {
    /// All is well: tasks are enqueued and run, through a proxy that counts.
    pub(crate) async fn begin() -> Option<Self> {
        let (world, proxy) = World::behind_a_proxy().await?;
        Some(Self::of(world, Meter::Proxy(proxy)).await)
    }

    /// The same on a server that is set up for its fault.
    pub(crate) async fn begin_on(builder: &outlast_testkit::server::Builder) -> Option<Self> {
        let server = RedisServer::or_skip(builder.start())?;
        let proxy = TcpProxy::start(server.addr()).await.unwrap();
        let world = World::at(server, &proxy.url()).await;
        Some(Self::of(world, Meter::Proxy(proxy)).await)
    }

    pub(crate) async fn of(world: World, meter: Meter) -> Self {
        let events = world.connection.survivor().unwrap().events();
        let (producer, worker) = (world.produce("t"), world.work());
        world.until("it works", |world| world.accepted() > 100).await;
        Self { world, meter, producer, worker, events, seen: Seen::default() }
    }

    pub(crate) fn proxy(&self) -> &TcpProxy {
        match &self.meter {
            Meter::Proxy(proxy) => proxy,
            Meter::Server(_) | Meter::None => panic!("this story has no proxy"),
        }
    }

    /// Nothing gets well before somebody has mended a setting: such a server is asked less often.
    pub(crate) fn must_be_mended(&mut self) {
        self.seen.is_misconfigured = true;
    }

    /// The fault has begun, and lasts.
    pub(crate) async fn lasts(&mut self, sick: Sick, time: Duration) {
        let begun = Instant::now();
        if matches!(sick, Sick::Down | Sick::Produce) {
            let is_down = |world: &World| world.status().homes.iter().all(|home| is_as(sick, home));
            self.world.until("the breakers open", is_down).await;
            self.seen.down_after = Some(begun.elapsed());
        }
        self.look().await;
        let (before, since) = (self.meter.sent(), Instant::now());
        self.world.pass(time).await;
        self.look().await;
        let (after, time) = (self.meter.sent(), since.elapsed());
        self.seen.sent = before.zip(after).map(|(before, after)| (after - before, time));
        if sick == Sick::Down {
            self.assert_peace();
        }
        if sick != Sick::Hardly {
            self.seen.is_outage = true;
            assert!(self.seen.reason.is_some(), "I12: readiness does not show it");
        }
    }

    /// Law L9 to the letter: so many commands a second, handshakes included, while producers and workers go on.
    pub(crate) async fn lasts_in_peace(&mut self) {
        self.lasts(Sick::Down, LAW).await;
        let (sent, time) = self.seen.sent.unwrap();
        assert!(sent <= SICK_COMMANDS * time.as_secs(), "{sent} commands in {time:?}");
        assert!(sent > 0, "it is asked whether it is well");
    }

    /// What somebody sees who asks for readiness.
    async fn look(&mut self) {
        let outages = self.world.status().homes.into_iter().filter_map(|home| home.outage);
        self.seen.is_misconfigured |=
            outages.into_iter().any(|outage| outage.kind == Kind::Misconfigured);
        if let Readiness::Degraded { reason, .. } = self.world.connection.readiness().await {
            self.seen.reason = Some(reason);
        }
    }

    pub(crate) fn assert_peace(&self) {
        let Some((sent, time)) = self.seen.sent else { return };
        let at_most = SICK_COMMANDS * (time.as_secs() + 1) + HANDSHAKE;
        assert!(sent <= at_most, "I6: {sent} commands in {time:?}");
    }

    /// The fault has ended: everything recovers, and nothing was lost.
    pub(crate) async fn ends(mut self) -> Sum {
        let (healed, before) = (Instant::now(), self.world.status().counts.delivered);
        let is_well = |world: &World| {
            let answered = world.history.first_accepted(healed).is_some();
            answered || world.status().counts.delivered > before
        };
        let first = self.world.until("the first success", is_well).await;
        self.seen.first = Some(first);
        self.world.pass(Duration::from_secs(1)).await;
        let produced = self.producer.stop().await;
        self.world.check().await;
        if let Meter::Proxy(proxy) = &self.meter {
            let open = proxy.counts().open;
            assert!(open <= CONNECTIONS_MAX, "I5: {open} connections");
        }
        let asked = Instant::now();
        self.worker.stop().await;
        assert!(asked.elapsed() < STOPPED, "I9: stopped after {:?}", asked.elapsed());
        let sum = self.world.history.sum();
        table::write(&self.seen, &sum);
        let soon = if self.seen.is_misconfigured { FIRST_SUCCESS_MENDED } else { FIRST_SUCCESS };
        assert!(first < soon, "I8: first success after {first:?}");
        assert!(sum.longest < LONGEST, "I10: {sum:?}");
        assert_eq!(produced.refused, 0, "{produced:?}");
        assert!(!self.seen.is_outage || sum.stored > 0, "{sum:?}");
        if self.seen.down_after.is_some() {
            assert_told(&mut self.events);
        }
        sum
    }
}

fn is_as(sick: Sick, home: &HomeStatus) -> bool {
    let (produce, consume) =
        (home.produce != CircuitState::Closed, home.consume != CircuitState::Closed);
    match sick {
        Sick::Down => produce && consume,
        Sick::Produce => produce && !consume,
        Sick::Silent | Sick::Hardly => true,
    }
}

/// I12: one event down, one up.
fn assert_told(events: &mut broadcast::Receiver<Event>) {
    let (mut down, mut up) = (0, 0);
    loop {
        match events.try_recv() {
            Ok(Event::Down { .. }) => down += 1,
            Ok(Event::Up { .. }) => up += 1,
            Ok(_) => {}
            Err(broadcast::error::TryRecvError::Lagged(_)) => return,
            Err(_) => break,
        }
    }
    assert!(down > 0 && up > 0, "I12: {down} down, {up} up");
}
