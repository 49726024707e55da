//! The world of a soak: a server, a way to it, and two machines with a spool each, on which a producer and a worker run.

use std::fs;
use std::path::Path;
use std::process::{Child, ChildStdin};
use std::time::Duration;

use outlast::Clock;
use outlast_testkit::proxy::TcpProxy;
use outlast_testkit::server::{RedisServer, StartError};
use outlast_testkit::split_mix::SplitMix;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::fault::Fault;
use crate::role::Role;
use crate::tally::Tally;

const MACHINES: usize = 2;

/// How long one fault lasts at most. Shorter than a lease: a process that stands still longer is rightly taken for dead.
const FAULT_MAX: Duration = Duration::from_secs(12);

/// By when everything has run after the last fault: a killed worker's task is found when its lease is over.
const DONE_WITHIN: Duration = Duration::from_secs(120);

/// How often it says how it is.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What a process may have: what it needs grows with what waits and shrinks again, so these are for what only grows.
const RSS_MB_MAX: u64 = 300;
const FDS_MAX: usize = 100;
const THREADS_MAX: usize = 40;
const SPOOL_MB_MAX: u64 = 256;

pub(crate) struct World {
    pub(crate) server: RedisServer,
    pub(crate) proxy: TcpProxy,
    roles: Vec<Role>,
    running: Vec<Option<(Child, ChildStdin)>>,
    tally: Tally,
    clock: Clock,
    begun: Instant,
    said_at: Instant,
    faults: u64,
    folder: TempDir,
}

/// What the processes have taken, the greediest of them.
#[derive(Clone, Copy, Debug, Default)]
struct Use {
    rss_mb: u64,
    fds: usize,
    threads: usize,
    spool_mb: u64,
}

impl World {
    pub(crate) const USER: &str = "soaker";

    pub(crate) fn server() -> Result<RedisServer, StartError> {
        let rules = "on >soaks ~* &* +@all";
        RedisServer::builder().persistent().user(Self::USER, rules).start()
    }

    pub(crate) async fn new(server: RedisServer, rate: u64) -> Self {
        let proxy = TcpProxy::start(server.addr()).await.unwrap();
        let url = format!("redis://{}:soaks@{}", Self::USER, proxy.addr());
        let folder = tempfile::tempdir().unwrap();
        let role = |(machine, works)| Role {
            name: format!("{}{machine}", if works { "worker" } else { "producer" }),
            works,
            machine,
            rate,
            url: url.clone(),
            folder: folder.path().to_owned(),
        };
        let roles: Vec<_> = (0..MACHINES).flat_map(|n| [(n, false), (n, true)]).map(role).collect();
        let running = roles.iter().map(|_| None).collect();
        let (begun, clock) = (Instant::now(), Clock::system());
        let (tally, said_at, faults) = (Tally::default(), begun, 0);
        let mut world =
            Self { server, proxy, roles, running, tally, clock, begun, said_at, faults, folder };
        (0..world.roles.len()).for_each(|who| world.start(who));
        world
    }

    pub(crate) fn start(&mut self, who: usize) {
        self.running[who] = Some(self.roles[who].start());
    }

    pub(crate) fn kill(&mut self, who: usize) {
        let Some((mut child, _)) = self.running[who].take() else { return };
        child.kill().unwrap();
        child.wait().unwrap();
        self.tally.killed(who, self.clock.now().as_millis());
    }

    pub(crate) fn signal(&self, who: usize, signal: Signal) {
        if let Some((child, _)) = &self.running[who] {
            kill_process(Pid::from_child(child), signal).unwrap();
        }
    }

    /// One fault after the other, with a little time in between, for so long.
    pub(crate) async fn spoil(&mut self, time: Duration, dice: &mut SplitMix) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            self.pass(dice.time(Duration::from_secs(1), Duration::from_secs(6))).await;
            let fault = Fault::of(dice, self.roles.len());
            let lasts = dice.time(Duration::from_millis(100), FAULT_MAX);
            self.faults += 1;
            println!("{:7.1} s  {fault:?} for {lasts:.1?}", self.begun.elapsed().as_secs_f64());
            fault.begin(self).await;
            self.pass(lasts).await;
            fault.end(self).await;
        }
    }

    /// Lets everything be done, and says what is wrong.
    pub(crate) async fn end(mut self) -> Vec<String> {
        for (_, stdin) in self.running.iter_mut().flatten() {
            // One that has died by itself shows as what it has not done.
            let _ = std::io::Write::write_all(stdin, b"stop\n");
        }
        let until = Instant::now() + DONE_WITHIN;
        self.look();
        while Instant::now() < until && !self.tally.open().is_empty() {
            self.pass(Duration::from_millis(200)).await;
            self.look();
        }
        // Whoever repeats something does it soon.
        self.pass(Duration::from_secs(2)).await;
        self.look();
        self.say();
        let mut wrong = std::mem::take(&mut self.tally.wrong);
        wrong.extend(
            self.tally.open().iter().map(|id| format!("{id} was accepted and has not run")),
        );
        if self.tally.accepted == 0 {
            wrong.push("nothing was accepted".to_owned());
        }
        wrong.extend(self.greed());
        wrong.truncate(20);
        println!("{}", if wrong.is_empty() { "verdict: good" } else { "verdict: WRONG" });
        if !wrong.is_empty() {
            self.show_errors();
        }
        wrong
    }

    async fn pass(&mut self, time: Duration) {
        let until = Instant::now() + time;
        while let Some(left) =
            until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            let _ = timeout(left.min(Duration::from_secs(1)), std::future::pending::<()>()).await;
            if self.said_at.elapsed() >= SAY_EVERY {
                self.said_at = Instant::now();
                self.look();
                self.say();
            }
        }
    }

    fn look(&mut self) {
        self.tally.read(&self.roles);
    }

    fn say(&self) {
        let Tally { accepted, refused, runs, explained, slowest_ms, wrong, .. } = &self.tally;
        let (open, used) = (self.tally.open().len(), self.used());
        println!(
            "{:7.1} s  accepted {accepted}, refused {refused}, runs {runs}, waiting {open}, explained repeats {explained}, wrong {}, \
             slowest {:.1} s, faults {}; at most {} MB, {} fds, {} threads; spool {} MB",
            self.begun.elapsed().as_secs_f64(),
            wrong.len(),
            *slowest_ms as f64 / 1000.0,
            self.faults,
            used.rss_mb,
            used.fds,
            used.threads,
            used.spool_mb,
        );
    }

    fn used(&self) -> Use {
        let mut used = Use::default();
        for (child, _) in self.running.iter().flatten() {
            let proc = Path::new("/proc").join(child.id().to_string());
            let count = |what| fs::read_dir(proc.join(what)).map_or(0, Iterator::count);
            let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let rss_kb = rss.and_then(|rss| rss.split_whitespace().next()?.parse::<u64>().ok());
            used.rss_mb = used.rss_mb.max(rss_kb.unwrap_or(0) / 1024);
            used.fds = used.fds.max(count("fd"));
            used.threads = used.threads.max(count("task"));
        }
        for machine in 0..MACHINES {
            let spool = Role::spool(self.folder.path(), machine);
            let bytes = fs::metadata(spool).map_or(0, |file| file.len());
            used.spool_mb = used.spool_mb.max(bytes >> 20);
        }
        used
    }

    fn greed(&self) -> Vec<String> {
        let Use { rss_mb, fds, threads, spool_mb } = self.used();
        let is_modest = rss_mb <= RSS_MB_MAX
            && fds <= FDS_MAX
            && threads <= THREADS_MAX
            && spool_mb <= SPOOL_MB_MAX;
        if is_modest { Vec::new() } else { vec![format!("grown: {:?}", self.used())] }
    }

    fn show_errors(&self) {
        for role in &self.roles {
            let said = fs::read_to_string(role.path("err")).unwrap_or_default();
            let last: Vec<_> = said.lines().rev().take(20).collect();
            println!("{}: {}", role.name, last.into_iter().rev().collect::<Vec<_>>().join("\n  "));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (child, _) in self.running.iter_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
