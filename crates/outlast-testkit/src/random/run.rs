//! Both sides of a comparison, driven in step.

use std::collections::BTreeSet;
use std::sync::Arc;

use outlast_core::{
    Acted, Action, Claim, Claims, Enqueued, Extended, Hold, Kind, Lease, LeaseToken, NewTask,
    Outcome, PageRequest, QueueName, Rest, Selector, Settled, Settlement, Stamp, SweepBudget,
    Swept, TaskId, TaskState, Timestamp, Want,
};

use super::listing;
use super::ops::{self, How, NewSeed, Op, PAYLOAD_BYTES, Reach};
use crate::conformance::words::{beat, budget, secs, stamp, t, worker};
use crate::conformance::{Fixture, Handle, TtlClock};
use crate::model::ModelBroker;

const LANES: usize = 3;
const LEASE_SECONDS: u64 = 30;

/// One of the two: the model is side 0.
struct Side {
    handle: Handle,
    tokens: [LeaseToken; 2],
}

/// A stamped batch, as each side got it: leases differ, because tokens and set ids do.
#[derive(Clone)]
struct Call {
    stamp: Stamp,
    batches: [Batch; 2],
    /// What a claim took, to know whether it was claimed again since.
    took: Vec<TaskId>,
}

#[derive(Clone)]
enum Batch {
    Enqueue(Arc<[NewTask]>),
    Claim(Want),
    Settle(Arc<[Settlement]>),
}

enum Reply {
    Enqueue(Enqueued),
    Claim(Claims),
    Settle(Settled),
}

pub(super) struct Run {
    sides: [Side; 2],
    queue: QueueName,
    now: Timestamp,
    /// The latest moment so far. Locks are judged by it: whether an expired one is still known when the
    /// clock goes back is a broker's choice.
    latest: Timestamp,
    seqs: [u64; LANES],
    calls: Vec<Call>,
    leases: Vec<[Lease; 2]>,
    /// The model's ids of sets that were claimed.
    sets: BTreeSet<TaskId>,
    ttl: u64,
}

type Same = Result<(), String>;

impl Run {
    pub(super) async fn new(model: Arc<ModelBroker>, fixture: &dyn Fixture) -> Self {
        let model = Handle { broker: model.clone(), inspect: model };
        let broker = Handle { broker: fixture.broker(), inspect: fixture.inspect() };
        // Short enough to end within a sequence, unless only a server could let it end.
        let ttl = if fixture.differences().ttl_clock == TtlClock::Argument { 60 } else { 86_400 };
        Self {
            sides: [Side::new(model).await, Side::new(broker).await],
            queue: QueueName::stored("random"),
            now: t(0),
            latest: t(0),
            seqs: [0; LANES],
            calls: Vec::new(),
            leases: Vec::new(),
            sets: BTreeSet::new(),
            ttl,
        }
    }

    pub(super) async fn step(&mut self, op: &Op) -> Same {
        match op {
            Op::Enqueue(seeds) => self.enqueue(seeds).await?,
            Op::Claim { worker, tasks_max, payloads_max } => {
                let bytes = if *payloads_max == 0 { 1 << 20 } else { payloads_max * PAYLOAD_BYTES };
                self.claim(*worker, *tasks_max, bytes, Arc::new([])).await?;
            }
            // Whether tasks or groups go first is a broker's choice, so there is room for all.
            Op::ClaimGroups { worker } => {
                self.claim(*worker, 100, 1 << 20, ops::policies()).await?;
            }
            Op::Settle(picks) => self.settle(picks).await?,
            Op::Extend { lease, by, progress } => self.extend(*lease, *by, *progress).await?,
            Op::Sweep => self.sweep().await?,
            Op::ActOn(id, action) => {
                self.act(action, &Selector::id(ops::id(*id))).await?;
            }
            Op::ActAll(reach) => self.act_all(reach).await?,
            Op::Control(control) => {
                let [model, broker] = self
                    .sides
                    .each_ref()
                    .map(|side| side.handle.inspect.control(&self.queue, *control, self.now));
                same("control", &(model.await.ok()), &(broker.await.ok()))?;
            }
            Op::Repeat { ago } => self.repeat(*ago).await?,
            Op::Gap { lane } => self.seqs[lane % LANES] += 1,
            Op::Step(seconds) => {
                self.step_time(*seconds);
                // No sweep: the next claim must find what has become due by itself.
                return Ok(());
            }
        }
        self.settle_down().await?;
        self.same_listing().await
    }

    fn step_time(&mut self, seconds: i64) {
        let by = secs(seconds.unsigned_abs());
        self.now = if seconds < 0 { self.now.minus(by) } else { self.now.plus(by) };
        self.latest = self.latest.max(self.now);
    }

    async fn enqueue(&mut self, seeds: &[NewSeed]) -> Same {
        let tasks: Arc<[NewTask]> = seeds
            .iter()
            .enumerate()
            .map(|(nth, seed)| seed.task(self.latest, self.ttl, nth))
            .collect();
        self.send([Batch::Enqueue(tasks.clone()), Batch::Enqueue(tasks)]).await
    }

    async fn claim(
        &mut self,
        worker: usize,
        tasks_max: usize,
        bytes_max: usize,
        groups: Arc<[outlast_core::GroupPolicy]>,
    ) -> Same {
        let want = |side: &Side| {
            Batch::Claim(Want {
                token: side.tokens[worker],
                tasks_max,
                bytes_max,
                lease: secs(LEASE_SECONDS),
                groups: groups.clone(),
            })
        };
        self.send(self.sides.each_ref().map(want)).await
    }

    async fn settle(&mut self, picks: &[(usize, How)]) -> Same {
        if self.leases.is_empty() {
            return Ok(());
        }
        let mut batches = [Vec::new(), Vec::new()];
        let mut released = false;
        for (nth, (pick, how)) in picks.iter().enumerate() {
            // The last few leases, held or lost: older ones are only lost in many ways.
            let ago = pick % self.leases.len().min(12);
            let leases = &self.leases[self.leases.len() - 1 - ago];
            let is_set = self.sets.contains(&leases[0].id);
            let mut outcome = match how {
                // Sets are mostly aggregated, as in life.
                How::Done(_) | How::Retry(..) if is_set => How::Aggregated((pick % 4) as u8),
                how => how.clone(),
            }
            .outcome(self.now, nth);
            // The order of several that are given back at once is a broker's choice.
            if outcome == Outcome::Release && std::mem::replace(&mut released, true) {
                outcome = Outcome::Revoke;
            }
            for (batch, lease) in batches.iter_mut().zip(leases) {
                batch.push(Settlement { lease: lease.clone(), outcome: outcome.clone() });
            }
        }
        self.send(batches.map(|batch| Batch::Settle(batch.into()))).await
    }

    /// Sends a new batch to both sides and compares the answers.
    async fn send(&mut self, batches: [Batch; 2]) -> Same {
        let lane = self.calls.len() % LANES;
        self.seqs[lane] += 1;
        let lane_number = u16::try_from(lane).expect("few lanes");
        let stamp = stamp(1, lane_number, self.seqs[lane]);
        let mut call = Call { stamp, batches, took: Vec::new() };
        let replies = self.perform(&call).await;
        self.same_replies(&replies, Repeated::No)?;
        if let [Ok(Reply::Claim(model)), Ok(Reply::Claim(broker))] = &replies {
            let sets = model.claims.iter().filter_map(|claim| match claim {
                Claim::Group(group) => Some(group.lease.id.clone()),
                Claim::Task(_) | Claim::Corrupt { .. } => None,
            });
            self.sets.extend(sets);
            call.took = listing::leases_of(model).into_iter().map(|lease| lease.id).collect();
            let pairs = listing::leases_of(model).into_iter().zip(listing::leases_of(broker));
            self.leases.extend(pairs.map(|(model, broker)| [model, broker]));
        }
        self.calls.push(call);
        Ok(())
    }

    async fn repeat(&mut self, ago: usize) -> Same {
        let Some(nth) = self.calls.len().checked_sub(1 + ago) else { return Ok(()) };
        let (before, after) = self.calls.split_at(nth + 1);
        let call = before[nth].clone();
        // Who holds a task by a later claim may be handed it by the repeat of an earlier one, or not.
        let claimed_again =
            after.iter().any(|later| call.took.iter().any(|id| later.took.contains(id)));
        if claimed_again {
            return Ok(());
        }
        let replies = self.perform(&call).await;
        self.same_replies(&replies, Repeated::Yes)
    }

    async fn perform(&self, call: &Call) -> [Result<Reply, Kind>; 2] {
        let [model, broker] = &self.sides;
        [
            self.perform_on(model, call.stamp, &call.batches[0]).await,
            self.perform_on(broker, call.stamp, &call.batches[1]).await,
        ]
    }

    async fn perform_on(&self, side: &Side, stamp: Stamp, batch: &Batch) -> Result<Reply, Kind> {
        let (broker, queue) = (&side.handle.broker, &self.queue);
        let reply = match batch {
            Batch::Enqueue(tasks) => {
                broker.enqueue(queue, stamp, self.latest, tasks.clone()).await.map(Reply::Enqueue)
            }
            Batch::Claim(want) => {
                broker.claim(queue, stamp, self.now, want).await.map(Reply::Claim)
            }
            Batch::Settle(batch) => {
                broker.settle(queue, stamp, self.now, batch.clone()).await.map(Reply::Settle)
            }
        };
        reply.map_err(|error| error.kind())
    }

    fn same_replies(&self, replies: &[Result<Reply, Kind>; 2], repeated: Repeated) -> Same {
        let lines = |n: usize| match &replies[n] {
            Ok(Reply::Enqueue(answer)) => {
                listed(&answer.verdicts, listing::enqueue_line, answer.lost)
            }
            Ok(Reply::Settle(answer)) => {
                listed(&answer.verdicts, listing::settle_line, answer.lost)
            }
            Ok(Reply::Claim(claims)) => listing::claim_lines(claims, self.sides[n].tokens),
            Err(kind) => vec![format!("error: {kind}")],
        };
        if let Some(how) = listing::difference(&lines(0), &lines(1)) {
            return Err(how);
        }
        match replies {
            [Ok(Reply::Claim(model)), Ok(Reply::Claim(broker))] if repeated == Repeated::No => {
                same_rest(model, broker)
            }
            _ => Ok(()),
        }
    }

    async fn extend(&mut self, lease: usize, by: u64, progress: bool) -> Same {
        if self.leases.is_empty() {
            return Ok(());
        }
        let leases = self.leases[lease % self.leases.len()].clone();
        let result = progress.then(|| bytes::Bytes::from_static(b"progress"));
        let mut answers: Vec<Option<Vec<Extended>>> = Vec::new();
        for (side, lease) in self.sides.iter().zip(leases) {
            let holds: Arc<[Hold]> = Arc::new([Hold { lease, result: result.clone() }]);
            let answer = side.handle.broker.extend(&self.queue, self.now, holds, secs(by)).await;
            answers.push(answer.ok());
        }
        same("extend", &answers[0], &answers[1])
    }

    async fn sweep(&mut self) -> Same {
        let mut swept: Vec<Option<Swept>> = Vec::new();
        for side in &self.sides {
            let answer = side.handle.broker.sweep(&self.queue, self.now, budget(1000)).await;
            // Who holds leases is told by brokers that cannot notice that a worker is dead; the model is none.
            swept.push(answer.ok().map(|swept| Swept { held: None, ..swept }));
        }
        same("sweep", &swept[0], &swept[1])
    }

    async fn act_all(&mut self, reach: &Reach) -> Same {
        let (action, state) = match reach {
            Reach::RunWaiting(state) => (Action::Run, *state),
            Reach::Archive(state) => (Action::Archive, *state),
            Reach::Delete(state) => (Action::Delete, *state),
        };
        self.act(&action, &Selector::state(state)).await
    }

    async fn act(&mut self, action: &Action, select: &Selector) -> Same {
        let mut sums = Vec::new();
        for side in &self.sides {
            let mut sum = Acted::default();
            loop {
                let request = PageRequest { limit: 3, cursor: sum.next.take() };
                let inspect = &side.handle.inspect;
                let acted = inspect.act(&self.queue, action, select, &request, self.now).await;
                let acted = acted.map_err(|error| format!("could not act: {error}"))?;
                sum.changed += acted.changed;
                sum.refused.extend(acted.refused);
                sum.next = acted.next;
                if sum.next.is_none() {
                    break;
                }
            }
            sums.push(sum);
        }
        same("act", &sums[0], &sums[1])
    }

    /// Brings both sides to where they may be compared: nothing is due that is not pending, and no two
    /// tasks wait for the same moment.
    async fn settle_down(&mut self) -> Same {
        let rest = SweepBudget {
            moves_max: 1000,
            recovery: outlast_core::broker::Recovery::Withheld,
            vanished: None,
        };
        for side in &self.sides {
            let swept = side.handle.broker.sweep(&self.queue, self.now, rest).await;
            swept.map_err(|error| format!("could not sweep: {error}"))?;
        }
        for id in self.tied().await {
            self.act(&Action::Run, &Selector::id(id)).await?;
        }
        Ok(())
    }

    async fn tied(&self) -> Vec<TaskId> {
        let inspect = &self.sides[0].handle.inspect;
        let mut waiting = Vec::new();
        for state in [TaskState::Scheduled, TaskState::Retry] {
            waiting.extend(listing::in_state(&**inspect, &self.queue, state, self.now).await);
        }
        let ties = |at| waiting.iter().filter(|other| other.next_at == at).count() > 1;
        let mut tied: Vec<_> =
            waiting.iter().filter(|task| ties(task.next_at)).map(|task| task.id.clone()).collect();
        tied.sort();
        tied
    }

    async fn same_listing(&self) -> Same {
        let [model, broker] = &self.sides;
        let model = listing::lines(&*model.handle.inspect, &self.queue, self.now).await;
        let broker = listing::lines(&*broker.handle.inspect, &self.queue, self.now).await;
        listing::difference(&model, &broker).map_or(Ok(()), Err)
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Repeated {
    No,
    Yes,
}

impl Side {
    async fn new(handle: Handle) -> Self {
        let mut tokens = Vec::new();
        for name in ["one", "two"] {
            let beat = beat(worker(name), None, 86_400);
            let reply = handle.broker.beat(t(0), &beat).await.expect("the first beat is answered");
            tokens.push(reply.token.expect("a first beat hands out a token"));
        }
        Self { handle, tokens: [tokens[0], tokens[1]] }
    }
}

fn listed<V>(
    verdicts: &[V],
    line: fn(&V) -> String,
    lost: Option<outlast_core::Lost>,
) -> Vec<String> {
    verdicts.iter().map(line).chain([format!("lost: {lost:?}")]).collect()
}

/// `More` is only a maybe: where the model knows that nothing is left, a claim that got all it asked for
/// may still say so.
fn same_rest(model: &Claims, broker: &Claims) -> Same {
    match (model.rest, broker.rest) {
        (Rest::Empty, Rest::More) if !broker.claims.is_empty() => Ok(()),
        (model, broker) => same("rest", &model, &broker),
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, broker: &T) -> Same {
    if model == broker {
        return Ok(());
    }
    Err(format!("{what}: the model says {model:?}, the broker says {broker:?}"))
}
