//! Claims tasks while there is room: one call per queue fills every free slot.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use outlast_core::broker::{Claim, ClaimedTask, Claims, Rest};
use outlast_core::{Interest, Kind, QueueName, Stamp, Want, limits, pick};

use super::executor;
use super::life::Phase;
use super::shared::Shared;
use crate::handler::Run;
use crate::lanes::Lanes;

/// A net under the broker's wake-up, not the way work is found.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// How long to leave a broker in peace after an error (law L9: two commands a second at most).
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// How often groups are looked at: their time is not known to the broker's wake-up.
const GROUP_LOOK_MIN: Duration = Duration::from_millis(100);
const GROUP_LOOK_MAX: Duration = Duration::from_secs(1);

/// What one round over the queues found.
#[derive(Default)]
struct Round {
    claimed: usize,
    more: bool,
    failed: bool,
    /// A queue was left out because it has no room.
    full: bool,
    /// Queues that had nothing; the others need no wake-up.
    empty: Vec<QueueName>,
}

pub(super) struct Claimer {
    shared: Arc<Shared>,
    lanes: Lanes,
    /// Claims whose answer was lost, by queue: asked again under the same stamp, they hand out what
    /// they had claimed.
    unanswered: HashMap<usize, (Stamp, Want)>,
}

impl Claimer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // One lane: a worker claims from a queue once at a time.
        Self { shared, lanes: Lanes::new(1), unanswered: HashMap::new() }
    }

    /// Claims until the phase is over.
    pub(super) async fn run(mut self) {
        let mut phase = self.shared.phase();
        while *phase.borrow_and_update() == Phase::Running {
            let round = self.round().await;
            if round.claimed > 0 || round.more {
                continue;
            }
            if round.empty.len() == self.shared.queues.len() {
                self.shared.idle.notify_one();
            }
            tokio::select! {
                _ = phase.changed() => {}
                () = self.shared.room.notified(), if round.full => {}
                () = self.pause(&round) => {}
            }
        }
    }

    /// Asks every queue that has room, in the order of the weights.
    async fn round(&mut self) -> Round {
        let shared = self.shared.clone();
        let weights: Vec<u32> = shared.queues.iter().map(|queue| queue.options.weight).collect();
        let random = |below| rand::random_range(0..below);
        let mut round = Round::default();
        for index in pick::order(&weights, shared.priority, random) {
            let room = shared.room_for(&shared.queues[index]);
            if room == 0 {
                round.full = true;
                continue;
            }
            self.claim(index, room, &mut round).await;
        }
        round
    }

    async fn claim(&mut self, index: usize, room: usize, round: &mut Round) {
        let shared = &self.shared;
        let queue = &shared.queues[index];
        let unanswered = self.unanswered.remove(&index);
        let is_repeat = unanswered.is_some();
        let Some((stamp, want)) = unanswered.or_else(|| {
            let want = Want {
                token: shared.token,
                tasks_max: room,
                bytes_max: limits::BATCH_BYTES_MAX,
                lease: shared.lease,
                groups: queue.policies.clone(),
            };
            Some((self.lanes.stamp(&queue.name)?, want))
        }) else {
            return;
        };
        let answer = shared.broker.claim(&queue.name, stamp, shared.clock.now(), &want).await;
        match &answer {
            Ok(claims) if claims.claims.is_empty() && is_repeat => {
                self.lanes.empty_repeat(&queue.name);
            }
            Ok(claims) if claims.claims.is_empty() => self.lanes.empty(&queue.name, &stamp),
            Err(error)
                if error.kind() == Kind::Ambiguous
                    || (is_repeat && error.kind().is_transient()) =>
            {
                self.unanswered.insert(index, (stamp, want));
            }
            answer => self.lanes.back(&queue.name, &stamp, answer.as_ref().err()),
        }
        match answer {
            Ok(claims) => {
                round.claimed += claims.claims.len();
                round.more |= claims.rest == Rest::More;
                if claims.rest != Rest::More {
                    round.empty.push(queue.name.clone());
                }
                start(shared, index, claims);
            }
            Err(error) => {
                tracing::warn!(queue = %queue.name, kind = %error.kind(), %error, "could not claim");
                round.failed = true;
            }
        }
    }

    /// Sleeps until there may be something to claim.
    async fn pause(&self, round: &Round) {
        if round.failed {
            return tokio::time::sleep(ERROR_PAUSE).await;
        }
        if round.empty.is_empty() {
            return std::future::pending().await;
        }
        let interest = Interest { queues: round.empty.clone(), token: None };
        let now = self.shared.clock.now();
        if let Err(error) = self.shared.broker.wait(&interest, now, self.wait_max()).await {
            tracing::warn!(kind = %error.kind(), %error, "could not wait for work");
            tokio::time::sleep(ERROR_PAUSE).await;
        }
    }

    fn wait_max(&self) -> Duration {
        let graces = self.shared.groups.iter().map(|group| group.policy.grace / 2);
        let soonest = graces.min().map(|grace| grace.clamp(GROUP_LOOK_MIN, GROUP_LOOK_MAX));
        soonest.unwrap_or(WAIT_MAX)
    }
}

/// Hands what was claimed to executors.
fn start(shared: &Arc<Shared>, queue: usize, claims: Claims) {
    if let Some(lost) = claims.lost {
        tracing::error!(after = lost.after_seq, "the broker has forgotten acknowledged claims");
    }
    let now = shared.clock.now();
    for claim in claims.claims {
        match claim {
            Claim::Task(task) => {
                let ClaimedTask { task, lease } = *task;
                let run = Run::new(task, now, shared.states.clone());
                let key = shared.hold(queue, lease, Some(run.clone()), now);
                tokio::spawn(executor::run_task(shared.clone(), key, run));
            }
            Claim::Group(group) => {
                let key = shared.hold(queue, group.lease.clone(), None, now);
                tokio::spawn(executor::run_group(shared.clone(), key, queue, group));
            }
            Claim::Corrupt { id, why } => {
                tracing::error!(queue = %shared.queues[queue].name, %id, why, "archived an unreadable task");
            }
        }
    }
}
