//! Claims tasks while there is room: one call per queue fills every free slot.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use outlast_core::broker::{Claim, ClaimedTask, Claims, Rest};
use outlast_core::{BrokerError, Home, Interest, Kind, QueueName, Stamp, Want, limits, pick};

use tokio::time::Instant;

use super::executor;
use super::life::Phase;
use super::shared::Shared;
use crate::handler::Run;
use crate::lanes::Lanes;

/// How long one call waits.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// How often every queue is asked although the broker says that there is nothing: a net under its
/// wake-up, not the way work is found.
const ASK_ALL_EVERY: Duration = Duration::from_secs(300);

/// How long to leave a broker in peace after an error (law L9: two commands a second at most).
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// How long a queue is left alone that is refused, or that holds data of another program, while the others go on.
const REFUSED_PAUSE: Duration = Duration::from_secs(5);

/// What one round over the queues found.
#[derive(Default)]
struct Round {
    claimed: usize,
    more: bool,
    failed: bool,
    /// A queue was left out because outcomes of it wait in the journal.
    owes: bool,
    /// A queue was left out because it has no room.
    full: bool,
    /// A queue was left out because it is refused.
    refused: bool,
    /// Queues that had nothing; the others need no wake-up.
    empty: Vec<QueueName>,
}

pub(super) struct Claimer {
    shared: Arc<Shared>,
    lanes: Lanes,
    /// Claims whose answer was lost, by queue: asked again under the same stamp, they hand out what
    /// they had claimed.
    unanswered: HashMap<usize, (Stamp, Want)>,
    /// Queues that were empty and for which the broker has not woken us: they are not asked.
    quiet: HashSet<QueueName>,
    /// Queues that cannot be claimed from although their home is well, and when they are asked again.
    refused: HashMap<usize, Instant>,
}

impl Claimer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        // One lane: a worker claims from a queue once at a time.
        let (unanswered, quiet, refused) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { shared, lanes: Lanes::new(1), unanswered, quiet, refused }
    }

    /// Claims until the phase is over.
    pub(super) async fn run(mut self) {
        let mut phase = self.shared.phase();
        while *phase.borrow_and_update() == Phase::Running {
            let round = self.round().await;
            // For one round only: a busy queue must not keep the others from being asked.
            self.quiet.clear();
            if !round.failed && (round.claimed > 0 || round.more) {
                continue;
            }
            if round.empty.len() == self.shared.queues.len() {
                self.shared.idle.notify_one();
            }
            self.quiet = tokio::select! {
                _ = phase.changed() => HashSet::new(),
                () = self.shared.room.notified(), if round.full && !round.failed => HashSet::new(),
                () = tokio::time::sleep(ERROR_PAUSE), if round.owes => HashSet::new(),
                () = tokio::time::sleep(REFUSED_PAUSE), if round.refused => HashSet::new(),
                quiet = self.pause(&round) => quiet,
            };
        }
        self.ask_once_more().await;
    }

    /// Asks every queue that has room, in the order of the weights. A home that failed is not asked
    /// again in the same round.
    async fn round(&mut self) -> Round {
        let shared = self.shared.clone();
        let weights: Vec<u32> = shared.queues.iter().map(|queue| queue.options.weight).collect();
        let random = |below| rand::random_range(0..below);
        let mut round = Round::default();
        let mut sick: Vec<Home> = Vec::new();
        for index in pick::order(&weights, shared.priority, random) {
            let queue = &shared.queues[index];
            if self.quiet.contains(&queue.name) {
                round.empty.push(queue.name.clone());
                continue;
            }
            if self.refused.get(&index).is_some_and(|until| Instant::now() < *until) {
                round.refused = true;
                continue;
            }
            let room = shared.room_for(queue);
            // A claim without its answer has taken its room already.
            if room == 0 && !self.unanswered.contains_key(&index) {
                round.full = true;
                continue;
            }
            if shared.owes(&queue.name) {
                round.owes = true;
                continue;
            }
            let home = shared.broker.home(&queue.name);
            if !sick.contains(&home) && !self.claim(index, room, &mut round).await {
                round.failed = true;
                sick.push(home);
            }
        }
        round
    }

    /// Claims whose answer is missing are asked for a last time, so that what they had claimed is given
    /// back instead of waiting for its lease to run out.
    async fn ask_once_more(&mut self) {
        let missing: Vec<usize> = self.unanswered.keys().copied().collect();
        for index in missing {
            self.claim(index, 0, &mut Round::default()).await;
        }
    }

    /// False if the broker failed.
    async fn claim(&mut self, index: usize, room: usize, round: &mut Round) -> bool {
        let shared = &self.shared;
        let queue = &shared.queues[index];
        let unanswered = self.unanswered.remove(&index);
        let is_repeat = unanswered.is_some();
        let Some((stamp, want)) = unanswered.or_else(|| {
            let want = Want {
                token: shared.token,
                tasks_max: room,
                bytes_max: limits::BATCH_BYTES_MAX,
                lease: shared.lease + queue.skew.behind(),
                groups: queue.policies.clone(),
            };
            Some((self.lanes.stamp(&queue.name)?, want))
        }) else {
            return true;
        };
        let answer = shared.broker.claim(&queue.name, stamp, shared.clock.now(), &want).await;
        let kind = answer.as_ref().err().map(BrokerError::kind);
        let is_empty = answer.as_ref().is_ok_and(|claims| claims.claims.is_empty());
        match kind {
            None if is_empty && is_repeat => self.lanes.left_open(&queue.name),
            None if is_empty => self.lanes.empty(&queue.name, &stamp),
            Some(Kind::Rejected) if is_repeat => self.lanes.left_open(&queue.name),
            // What the first call did is still open, whatever is wrong now.
            Some(kind) if kind == Kind::Ambiguous || (is_repeat && kind != Kind::Superseded) => {
                self.unanswered.insert(index, (stamp, want));
            }
            _ => self.lanes.back(&queue.name, &stamp, answer.as_ref().err()),
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
                shared.failed("claim", Some(&queue.name), &error);
                if error.concerns_its_queue() {
                    self.refused.insert(index, Instant::now() + REFUSED_PAUSE);
                    round.refused = true;
                    return true;
                }
            }
        }
        kind.is_none()
    }

    /// Sleeps until there may be something to claim; the queues of the round that need not be asked.
    async fn pause(&self, round: &Round) -> HashSet<QueueName> {
        if round.failed {
            tokio::time::sleep(ERROR_PAUSE).await;
            return HashSet::new();
        }
        if round.empty.is_empty() {
            return std::future::pending().await;
        }
        let interest = Interest { queues: round.empty.clone(), token: None };
        let waiting = self.wait(&interest);
        match tokio::time::timeout(ASK_ALL_EVERY, waiting).await {
            Ok(woken) if !woken.is_empty() => {
                round.empty.iter().filter(|queue| !woken.contains(queue)).cloned().collect()
            }
            // For the net, or after an error.
            _ => HashSet::new(),
        }
    }

    /// The queues that may have something; none if all should be asked.
    async fn wait(&self, interest: &Interest) -> Vec<QueueName> {
        loop {
            let now = self.shared.clock.now();
            match self.shared.broker.wait(interest, now, WAIT_MAX).await {
                Ok(woke) if woke.queues.is_empty() => {}
                Ok(woke) => return woke.queues,
                Err(error) => {
                    self.shared.failed("wait for work", None, &error);
                    tokio::time::sleep(ERROR_PAUSE).await;
                    return Vec::new();
                }
            }
        }
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
                if let Some(former) = shared.former_run(queue, &task.id) {
                    tracing::warn!(id = %task.id, "its lease was lost: the former run is broken off");
                    former.supersede();
                }
                let run = Run::new(task, now, shared.states.clone());
                let key = shared.hold(queue, lease, Some(run.clone()), now);
                let room = shared.take_room(queue);
                tokio::spawn(executor::run_task(shared.clone(), key, run, room));
            }
            Claim::Group(group) => {
                let key = shared.hold(queue, group.lease.clone(), None, now);
                let room = shared.take_room(queue);
                tokio::spawn(executor::run_group(shared.clone(), key, room, group));
            }
            Claim::Corrupt { id, why } => {
                tracing::error!(queue = %shared.queues[queue].name, %id, why, "put an unreadable task aside");
            }
        }
    }
}
