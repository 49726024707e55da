//! A broker that fails on purpose, at the trait: [`FaultBroker`] stands before any broker and spoils the
//! calls its plan names. Faults at the network, the disk and the process are made elsewhere; this is the
//! one to test the layers above with.
//!
//! A plan is a script per verb, first come first spoiled, or seeded dice for all verbs, or both: where the
//! script says nothing, the dice do. Every call is counted, spoiled or not.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use outlast_core::{
    Beat, BeatReply, Broker, BrokerError, Claims, Enqueued, Extended, Health, Hold, Home, Interest,
    Kind, Memory, NewTask, QueueName, Settled, Settlement, Stamp, SweepBudget, Swept, Timestamp,
    Want, Woke,
};
use tokio::sync::Notify;

use crate::split_mix::SplitMix;

/// The verbs that can be spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verb {
    /// [`Broker::enqueue`].
    Enqueue,
    /// [`Broker::claim`].
    Claim,
    /// [`Broker::settle`].
    Settle,
    /// [`Broker::extend`].
    Extend,
    /// [`Broker::sweep`].
    Sweep,
    /// [`Broker::wait`].
    Wait,
    /// [`Broker::beat`].
    Beat,
    /// [`Broker::health`].
    Health,
}

/// How one call is spoiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers with an error of this kind; the broker behind never hears of the call.
    Before(Kind),
    /// The broker behind does it, and the answer is lost: [`Kind::Ambiguous`].
    After,
    /// No answer until [`FaultBroker::release`]; then the call goes on.
    Hang,
    /// Asks for patience: short for `Before(Kind::Busy)`.
    Busy,
    /// Takes this long, and does it then.
    Slow(Duration),
}

/// Random faults, the same for the same seed.
#[derive(Clone, Copy, Debug)]
pub struct Dice {
    /// Which faults.
    pub seed: u64,
    /// How many of a thousand calls are spoiled: half before, half after they were applied.
    pub per_mille: u64,
}

/// Fails as planned, before any broker.
pub struct FaultBroker {
    behind: Arc<dyn Broker>,
    state: Mutex<State>,
    released: Notify,
}

#[derive(Default)]
struct State {
    script: BTreeMap<Verb, VecDeque<Option<Fault>>>,
    always: BTreeMap<Verb, Fault>,
    dice: Option<Dice>,
    clock: Option<Timestamp>,
    memory: Option<Memory>,
    calls: BTreeMap<Verb, u64>,
    /// Counts releases, so that one that comes before the hang is reached is not missed.
    releases: u64,
}

impl fmt::Debug for FaultBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultBroker").field("calls", &self.state().calls).finish_non_exhaustive()
    }
}

impl FaultBroker {
    /// A broker that does not fail yet.
    #[must_use]
    pub fn new(behind: Arc<dyn Broker>) -> Self {
        Self { behind, state: Mutex::default(), released: Notify::new() }
    }

    /// Spoils the next calls of a verb, in this order; `None` lets one pass.
    pub fn script(&self, verb: Verb, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.state().script.entry(verb).or_default().extend(faults);
    }

    /// Spoils every call of a verb, once its script is over, until [`heal`](Self::heal).
    pub fn always(&self, verb: Verb, fault: Fault) {
        self.state().always.insert(verb, fault);
    }

    /// Spoils calls at random wherever nothing else is said.
    pub fn roll(&self, dice: Dice) {
        self.state().dice = Some(dice);
    }

    /// From now on the broker's server says that it is this time.
    pub fn says(&self, clock: Timestamp) {
        self.state().clock = Some(clock);
    }

    /// From now on the broker's server says that this much of its memory is used.
    pub fn uses(&self, memory: Memory) {
        self.state().memory = Some(memory);
    }

    /// Forgets every plan. Calls that hang go on hanging until [`release`](Self::release).
    pub fn heal(&self) {
        let mut state = self.state();
        state.script.clear();
        state.always.clear();
        state.dice = None;
    }

    /// Lets every call that hangs go on.
    pub fn release(&self) {
        self.state().releases += 1;
        self.released.notify_waiters();
    }

    /// How often a verb was called, spoiled or not.
    #[must_use]
    pub fn calls(&self, verb: Verb) -> u64 {
        self.state().calls.get(&verb).copied().unwrap_or(0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while planning faults")
    }

    /// Runs a call through the plan. `call` is only made if the fault lets it through.
    async fn through<T>(
        &self,
        verb: Verb,
        call: impl Future<Output = Result<T, BrokerError>> + Send,
    ) -> Result<T, BrokerError> {
        let (fault, releases) = self.state().next(verb);
        match fault {
            None => call.await,
            Some(Fault::Before(kind)) => Err(planned(verb, kind)),
            Some(Fault::Busy) => Err(planned(verb, Kind::Busy)),
            Some(Fault::After) => {
                call.await?;
                Err(planned(verb, Kind::Ambiguous))
            }
            Some(Fault::Hang) => {
                self.hang(releases).await;
                call.await
            }
            Some(Fault::Slow(by)) => {
                // Nothing else ends such a call, and nobody who drops it is told.
                let _ = tokio::time::timeout(by, std::future::pending::<()>()).await;
                call.await
            }
        }
    }

    async fn hang(&self, releases: u64) {
        loop {
            let mut released = std::pin::pin!(self.released.notified());
            released.as_mut().enable();
            if self.state().releases > releases {
                return;
            }
            released.await;
        }
    }
}

impl State {
    fn next(&mut self, verb: Verb) -> (Option<Fault>, u64) {
        let calls = self.calls.entry(verb).or_default();
        *calls += 1;
        let scripted = self.script.get_mut(&verb).and_then(VecDeque::pop_front);
        let fault = match scripted {
            Some(fault) => fault,
            None => self.always.get(&verb).copied().or_else(|| self.dice.as_mut()?.roll()),
        };
        (fault, self.releases)
    }
}

impl Dice {
    fn roll(&mut self) -> Option<Fault> {
        let mut numbers = SplitMix(self.seed);
        let roll = numbers.next() % 1000;
        let spoiled = roll < self.per_mille;
        let before = [Kind::Unavailable, Kind::Busy][usize::from(numbers.next().is_multiple_of(2))];
        self.seed = numbers.0;
        let fault = if roll.is_multiple_of(2) { Fault::After } else { Fault::Before(before) };
        spoiled.then_some(fault)
    }
}

fn planned(verb: Verb, kind: Kind) -> BrokerError {
    let source = std::io::Error::other(format!("planned fault: {kind}"));
    BrokerError::new(kind, format!("could not {verb:?}")).with_source(source)
}

#[async_trait]
impl Broker for FaultBroker {
    async fn enqueue(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Enqueued, BrokerError> {
        self.through(Verb::Enqueue, self.behind.enqueue(queue, stamp, now, tasks)).await
    }

    async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        self.through(Verb::Claim, self.behind.claim(queue, stamp, now, want)).await
    }

    async fn settle(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Settled, BrokerError> {
        self.through(Verb::Settle, self.behind.settle(queue, stamp, now, settlements)).await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        now: Timestamp,
        holds: Arc<[Hold]>,
        by: Duration,
    ) -> Result<Vec<Extended>, BrokerError> {
        self.through(Verb::Extend, self.behind.extend(queue, now, holds, by)).await
    }

    async fn sweep(
        &self,
        queue: &QueueName,
        now: Timestamp,
        budget: SweepBudget,
    ) -> Result<Swept, BrokerError> {
        self.through(Verb::Sweep, self.behind.sweep(queue, now, budget)).await
    }

    async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        self.through(Verb::Wait, self.behind.wait(interest, now, at_most)).await
    }

    async fn beat(&self, now: Timestamp, beat: &Beat) -> Result<BeatReply, BrokerError> {
        self.through(Verb::Beat, self.behind.beat(now, beat)).await
    }

    fn home(&self, queue: &QueueName) -> Home {
        self.behind.home(queue)
    }

    async fn health(&self, home: &Home, now: Timestamp) -> Result<Health, BrokerError> {
        let mut health = self.through(Verb::Health, self.behind.health(home, now)).await?;
        let state = self.state();
        health.clock = state.clock.or(health.clock);
        health.memory = state.memory.unwrap_or(health.memory);
        Ok(health)
    }
}
