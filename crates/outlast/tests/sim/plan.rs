//! What goes wrong, and when: all of it from one number.

use std::fmt;
use std::time::Duration;

use outlast_core::Kind;
use outlast_testkit::split_mix::SplitMix;

const SECOND: Duration = Duration::from_secs(1);

/// How a way to the broker is spoiled.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    /// Every call fails, and nothing is applied.
    Refuses(Kind),
    /// Every call is applied, and its answer lost.
    Swallows,
    /// No call is answered; when it is over, those that nobody gave up are applied.
    Silent,
    /// Every call takes so long.
    Slow(Duration),
    /// So many of a thousand calls fail, half of them after they were applied.
    Flaky(u64),
    /// No memory for new tasks.
    Full,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The server, for all.
    Server(Trouble),
    /// One process's way to it.
    Way(usize, Trouble),
    /// A process is killed, and started again when it is over.
    Kill(usize),
    /// A process is stopped, and goes on when it is over.
    Freeze(usize),
    /// A foreign worker is killed, and started again.
    KillPeer(usize),
    /// The server comes back as it was before the fault began.
    Rollback,
    /// Everything that the server had is gone.
    Flush,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) fault: Fault,
}

/// A run of the simulation.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// The machine of each process.
    pub(crate) machines: Vec<usize>,
    /// How many of the processes work; all produce.
    pub(crate) workers: usize,
    pub(crate) peers: usize,
    /// By how many milliseconds each process's clock is ahead.
    pub(crate) ahead: Vec<i64>,
    /// How long a call takes when all is well.
    pub(crate) latency: Duration,
    /// A producer's pause between two tasks.
    pub(crate) pause: Duration,
    pub(crate) steps: Vec<Step>,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = SplitMix(seed);
        let processes = 2 + dice.below(3) as usize;
        let machines = (0..processes).map(|_| dice.below(2) as usize).collect();
        let workers = 1 + dice.below(processes as u64) as usize;
        let peers = dice.one(&[0, 0, 0, 1, 2]).unwrap();
        let is_skewed = dice.per_mille(200);
        let skew =
            |dice: &mut SplitMix| if is_skewed { dice.below(40_000) as i64 - 20_000 } else { 0 };
        let ahead = (0..processes).map(|_| skew(&mut dice)).collect();
        let latency = dice.one(&[0, 0, 1, 5]).map(|ms| Duration::from_millis(10 * ms)).unwrap();
        // Six slots and half a second a task: the workers keep up, and catch up.
        let pause = dice.time(SECOND / 5, SECOND) * processes as u32 / workers as u32;
        // In every second run the server forgets nothing, so that nothing excuses a loss.
        let forgets = dice.per_mille(400);
        let count = 2 + dice.below(6);
        let end = Duration::from_secs(20 * count);
        let mut steps: Vec<_> =
            (0..count).map(|_| step(&mut dice, end, (processes, peers), forgets)).collect();
        steps.sort_by_key(|step| step.at);
        Self { seed, machines, workers, peers, ahead, latency, pause, steps }
    }

    /// When the last fault is over.
    pub(crate) fn healed_at(&self) -> Duration {
        self.steps.iter().map(|step| step.at + step.lasts).max().unwrap_or_default()
    }

    pub(crate) fn forgets(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.fault, Fault::Rollback | Fault::Flush))
    }
}

fn step(
    dice: &mut SplitMix,
    end: Duration,
    (processes, peers): (usize, usize),
    forgets: bool,
) -> Step {
    let process = dice.below(processes as u64) as usize;
    let kinds = if forgets { 10 } else { 8 };
    let fault = match dice.below(kinds) {
        0..=2 => Fault::Server(trouble(dice)),
        3 | 4 => Fault::Way(process, trouble(dice)),
        5 | 6 if peers > 0 && dice.per_mille(300) => {
            Fault::KillPeer(dice.below(peers as u64) as usize)
        }
        5 | 6 => Fault::Kill(process),
        7 => Fault::Freeze(process),
        8 => Fault::Rollback,
        _ => Fault::Flush,
    };
    let at = dice.time(2 * SECOND, end);
    let lasts = match fault {
        Fault::Flush => Duration::ZERO,
        Fault::Rollback => dice.time(SECOND / 10, 15 * SECOND),
        _ if dice.per_mille(150) => dice.time(30 * SECOND, 150 * SECOND),
        _ => dice.time(SECOND / 10, 20 * SECOND),
    };
    Step { at, lasts, fault }
}

fn trouble(dice: &mut SplitMix) -> Trouble {
    let kinds = [Kind::Unavailable, Kind::Unavailable, Kind::Busy, Kind::Misconfigured];
    match dice.below(8) {
        0..=2 => Trouble::Refuses(dice.one(&kinds).unwrap()),
        3 => Trouble::Swallows,
        4 => Trouble::Silent,
        5 => Trouble::Slow(dice.time(SECOND / 10, 3 * SECOND)),
        6 => Trouble::Flaky(50 + dice.below(500)),
        _ => Trouble::Full,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machines, workers, peers, ahead, latency, pause, .. } = self;
        writeln!(
            f,
            "processes on machines {machines:?}, {workers} of them work, {peers} peers, ahead {ahead:?} ms"
        )?;
        writeln!(f, "calls take {latency:?}, a task every {pause:?} each")?;
        for Step { at, lasts, fault } in &self.steps {
            writeln!(f, "{:9.2} s for {:6.2} s: {fault:?}", at.as_secs_f64(), lasts.as_secs_f64())?;
        }
        Ok(())
    }
}
