//! How much is done for each figure.

use std::time::Duration;

use crate::bench::Extent;

/// Tasks, samples and times, by figure. Asynq gets fewer where it takes longer: what is compared is rates.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// How often the sides take turns.
    pub(super) rounds: usize,
    /// Tasks of one awaiting caller.
    pub(super) single: usize,
    /// Tasks of several awaiting callers, and of asynq's side of the bulk figure.
    pub(super) concurrent: usize,
    /// Tasks in long lists.
    pub(super) bulk: usize,
    /// Tasks that our worker drains.
    pub(super) drain: usize,
    /// Tasks that asynq's drains.
    pub(super) drain_asynq: usize,
    /// Pickups that are timed in each round.
    pub(super) pickups: usize,
    /// The same of asynq's, which may take a second each.
    pub(super) pickups_asynq: usize,
    /// Seconds with tasks that are due.
    pub(super) lateness: usize,
    /// Time for an idle worker's start to be over: first beat, first claims, first sweeps.
    pub(super) settle: Duration,
    /// How long it is watched then.
    pub(super) idle: Duration,
    /// Tasks whose whole life is timed on the server, for each size of batch.
    pub(super) lives: usize,
    /// Tasks whose memory is weighed.
    pub(super) memory: usize,
    /// Tasks that are active while others are drained.
    pub(super) active: usize,
    /// Tasks that wait while others are enqueued and drained, if that is done: more than all rounds drain, with what a
    /// worker that is being stopped runs beyond, so that no number comes round twice.
    pub(super) waiting: Option<usize>,
    /// How long PINGs are counted.
    pub(super) ping_seconds: f64,
}

impl Plan {
    pub(super) fn of(extent: Extent) -> Self {
        match extent {
            Extent::Tiny => Self::TINY,
            Extent::Quick => Self::QUICK,
            Extent::Usual => Self::USUAL,
            Extent::Full => Self { waiting: Some(1_000_000), ..Self::USUAL },
        }
    }

    const TINY: Self = Self {
        rounds: 3,
        single: 20,
        concurrent: 200,
        bulk: 600,
        drain: 600,
        drain_asynq: 100,
        pickups: 3,
        pickups_asynq: 1,
        lateness: 1,
        settle: Duration::from_millis(200),
        idle: Duration::from_millis(500),
        lives: 200,
        memory: 500,
        active: 300,
        waiting: Some(5_000),
        ping_seconds: 0.05,
    };

    const QUICK: Self = Self {
        rounds: 3,
        single: 4_000,
        concurrent: 20_000,
        bulk: 50_000,
        drain: 50_000,
        drain_asynq: 8_000,
        pickups: 50,
        pickups_asynq: 3,
        lateness: 2,
        settle: Duration::from_secs(3),
        idle: Duration::from_secs(3),
        lives: 3_000,
        memory: 100_000,
        active: 10_000,
        waiting: None,
        ping_seconds: 0.5,
    };

    const USUAL: Self = Self {
        rounds: 5,
        single: 10_000,
        concurrent: 40_000,
        bulk: 150_000,
        drain: 150_000,
        drain_asynq: 15_000,
        pickups: 200,
        pickups_asynq: 10,
        lateness: 10,
        settle: Duration::from_secs(4),
        idle: Duration::from_secs(15),
        lives: 10_000,
        memory: 100_000,
        active: 10_000,
        waiting: None,
        ping_seconds: 2.0,
    };
}
