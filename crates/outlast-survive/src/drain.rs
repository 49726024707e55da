//! Delivers what waits in the spool: the journal before the outbox (law L8), each queue in order, at a pace
//! that the broker sets. One process of a machine does it at a time.
//!
//! ```text
//!   next: form → number → fsync        the batch exists, under its stamp
//!   send                               the broker applies it, or knows that it has
//!   answered → fsync                   the batch is gone
//! ```
//!
//! Killed between any two of these lines, the next drain repeats exactly that batch under the same stamp.
//! Aborted or dropped at any await it is the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use outlast_core::{Broker, BrokerError, Kind, QueueName, SessionId, Stamp, Timestamp, limits};
use tokio::time::Instant;

use crate::Clock;
use crate::breaker::Breaker;
use crate::event::{Event, Events};
use crate::numbers::Numbers;
use crate::pace::Pace;
use crate::report::Report;
use crate::spool::{Batch, Deliverer, Dropped, Quarantined, Spool, SpoolError, Store};
use crate::verb::{Answer, Enqueues, Settlements, Verb};

/// How often a process looks whether others have left something, or whether it may take over.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a queue is left alone whose own data the broker cannot read.
const RESTS_FOR: Duration = Duration::from_secs(5);

/// Batches of one queue in a row, before the next queue gets its turn.
const IN_A_ROW: usize = 16;

/// A stamp older than this may be forgotten by the broker: its batch is sent all the same, and counted.
const STAMP_AGE_MAX: Duration = limits::SESSION_TTL.checked_div(2).expect("two is not zero");

/// What a drain works with.
pub(crate) struct Drain {
    pub(crate) below: Arc<dyn Broker>,
    pub(crate) breaker: Arc<Breaker>,
    pub(crate) spool: Spool,
    pub(crate) events: Arc<Events>,
    pub(crate) clock: Clock,
    begun: Instant,
    pace: Mutex<Pace>,
    turns: Mutex<Turns>,
    /// The sessions of this drain, and how far each is.
    sessions: Mutex<HashMap<(Store, QueueName), Numbers>>,
}

/// Whose turn it is. As many as there are queues with something in the spool, and those that had.
#[derive(Debug, Default)]
struct Turns {
    /// The queue of each store that was tried last.
    last: HashMap<Store, QueueName>,
    /// Until when queues are left alone whose data cannot be read.
    resting: HashMap<(Store, QueueName), Instant>,
}

/// What can be read of a batch. A record that was damaged after it was numbered goes into quarantine; the others
/// go under the batch's stamp all the same, because they may have been applied under it.
struct Readable<T> {
    items: Arc<[T]>,
    /// Where they are in the batch.
    places: Vec<usize>,
    /// The places of the others, and what is wrong with them.
    damaged: Vec<(usize, String)>,
}

impl<T> Readable<T> {
    fn of<V: Verb<Item = T>>(batch: &Batch) -> Self {
        let (mut items, mut places, mut damaged) = (Vec::new(), Vec::new(), Vec::new());
        for (place, item) in batch.items.iter().enumerate() {
            match V::decode(&item.record) {
                Ok(item) => {
                    items.push(item);
                    places.push(place);
                }
                Err(error) => damaged.push((place, error.to_string())),
            }
        }
        Self { items: items.into(), places, damaged }
    }
}

/// What came of one batch.
enum Step {
    /// The queue's turn goes on with this one.
    Next(Option<Batch>),
    /// It is over.
    Over(Turn),
}

/// What came of one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something was delivered or put away; there may be more.
    Moved,
    /// Nothing of the queue can go now.
    Stuck,
    /// Nothing is left.
    Empty,
}

impl Drain {
    pub(crate) fn new(
        (below, breaker): (Arc<dyn Broker>, Arc<Breaker>),
        spool: Spool,
        events: Arc<Events>,
        clock: Clock,
    ) -> Self {
        let (begun, pace) = (Instant::now(), Mutex::new(Pace::new(Duration::ZERO)));
        Self {
            below,
            breaker,
            spool,
            events,
            clock,
            begun,
            pace,
            turns: Mutex::default(),
            sessions: Mutex::default(),
        }
    }

    /// Items a second that the outbox delivers at most, at present.
    pub(crate) fn rate(&self) -> f64 {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner).rate()
    }

    /// Delivers for ever. Safe to drop at any moment.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut told = None;
        loop {
            let trouble = self.deliver_all().await.err();
            let kind = trouble.as_ref().map(SpoolError::kind);
            if let Some(error) = trouble.filter(|_| kind != told) {
                // Once, and not at every turn of however long it lasts.
                tracing::error!(kind = error.kind().as_str(), %error, "could not deliver from the spool");
            }
            told = kind;
            tokio::select! {
                () = self.spool.stored(LOOK_EVERY) => {}
                () = self.breaker.changed(LOOK_EVERY) => {}
            }
        }
    }

    /// Delivers until nothing is left or nothing moves, if no other process is at it.
    async fn deliver_all(&self) -> Result<(), SpoolError> {
        if !self.has_work()? {
            return Ok(());
        }
        let Some(right) = self.spool.deliverer()? else { return Ok(()) };
        // What was answered before another process had its turn says nothing about the sessions now.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = Pace::new(self.begun.elapsed());
        while self.round(&right).await? {}
        Ok(())
    }

    fn has_work(&self) -> Result<bool, SpoolError> {
        Ok(!self.spool.queues(Store::Journal)?.is_empty()
            || !self.spool.queues(Store::Outbox)?.is_empty())
    }

    /// One turn for every queue; false if nothing moved.
    async fn round(&self, right: &Deliverer) -> Result<bool, SpoolError> {
        let mut has_moved = self.journal(right).await?;
        for queue in self.in_turn(Store::Outbox)? {
            has_moved |= self.outbox_line(&queue, right).await? == Turn::Moved;
        }
        Ok(has_moved)
    }

    /// One turn for every queue of the journal; false if nothing moved.
    async fn journal(&self, right: &Deliverer) -> Result<bool, SpoolError> {
        let mut has_moved = false;
        for queue in self.in_turn(Store::Journal)? {
            has_moved |= self.journal_line(&queue, right).await? == Turn::Moved;
        }
        Ok(has_moved)
    }

    /// The queues that have something, beginning behind the one that was tried last: where only one call may
    /// be tried, it is not always the same queue's.
    fn in_turn(&self, store: Store) -> Result<Vec<QueueName>, SpoolError> {
        let mut queues = self.spool.queues(store)?;
        let turns = self.turns();
        if let Some(last) = turns.last.get(&store) {
            let behind = queues.partition_point(|queue| queue <= last);
            queues.rotate_left(behind);
        }
        Ok(queues)
    }

    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Some batches of one queue, as long as its home takes them.
    async fn journal_line(&self, queue: &QueueName, right: &Deliverer) -> Result<Turn, SpoolError> {
        let Some(mut next) = self.begin::<Settlements>(queue).await? else {
            return Ok(Turn::Stuck);
        };
        for _ in 0..IN_A_ROW {
            // Settlements do not wait: they free what a recovering broker holds.
            right.counts();
            match self.step::<Settlements>(queue, next).await? {
                Step::Over(turn) => return Ok(turn),
                Step::Next(batch) => next = batch,
            }
        }
        Ok(Turn::Moved)
    }

    /// The same, at its pace, and after what the journal has before each batch (law L8).
    async fn outbox_line(&self, queue: &QueueName, right: &Deliverer) -> Result<Turn, SpoolError> {
        let Some(mut next) = self.begin::<Enqueues>(queue).await? else { return Ok(Turn::Stuck) };
        for _ in 0..IN_A_ROW {
            if next.is_some() {
                self.wait_for_turn(right).await?;
            }
            match self.step::<Enqueues>(queue, next).await? {
                Step::Over(turn) => return Ok(turn),
                Step::Next(batch) => next = batch,
            }
        }
        Ok(Turn::Moved)
    }

    /// The first batch of a queue's turn, or `None` in place of it if it may not have one.
    async fn begin<V: Verb>(&self, queue: &QueueName) -> Result<Option<Option<Batch>>, SpoolError> {
        if !self.breaker.admits_queue(queue, V::CLASS) || self.rests::<V>(queue) {
            return Ok(None);
        }
        self.turns().last.insert(V::STORE, queue.clone());
        self.next::<V>(queue).await.map(Some)
    }

    /// True while a queue is left alone.
    fn rests<V: Verb>(&self, queue: &QueueName) -> bool {
        let (mut turns, line) = (self.turns(), (V::STORE, queue.clone()));
        let is_resting = turns.resting.get(&line).is_some_and(|until| Instant::now() < *until);
        if !is_resting {
            turns.resting.remove(&line);
        }
        is_resting
    }

    /// Leaves a queue alone: what is wrong is none of what waits for it, so that all of it waits until somebody has mended the queue.
    fn rest<V: Verb>(&self, queue: &QueueName, error: &BrokerError) {
        let store = V::STORE.as_str();
        tracing::error!(%queue, store, %error, "the broker cannot read this queue's own data: what waits for it stays where it is");
        self.turns().resting.insert((V::STORE, queue.clone()), Instant::now() + RESTS_FOR);
    }

    /// Sends a batch and forms the next one.
    async fn step<V: Verb>(
        &self,
        queue: &QueueName,
        batch: Option<Batch>,
    ) -> Result<Step, SpoolError> {
        let Some(batch) = batch else { return Ok(Step::Over(Turn::Empty)) };
        if self.spool.is_owned(batch.id) {
            return Ok(Step::Over(Turn::Stuck));
        }
        let readable = Readable::of::<V>(&batch);
        if readable.items.is_empty() {
            let answer = Answer { verdicts: Vec::new(), lost: None };
            return Ok(Step::Next(self.delivered::<V>(queue, batch, answer, readable).await?));
        }
        let result = self.send::<V>(queue, &batch, readable.items.clone()).await;
        let next = match result {
            Ok(answer) => self.delivered::<V>(queue, batch, answer, readable).await?,
            Err(error) => match error.kind() {
                Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured => {
                    return Ok(Step::Over(Turn::Stuck));
                }
                Kind::Corrupt if error.concerns_its_queue() => {
                    self.rest::<V>(queue, &error);
                    return Ok(Step::Over(Turn::Stuck));
                }
                Kind::Rejected | Kind::Corrupt | Kind::Superseded => {
                    self.refused::<V>(queue, batch, &error).await?;
                    self.next::<V>(queue).await?
                }
            },
        };
        Ok(Step::Next(next))
    }

    /// Waits until the next batch of the outbox may go; what comes into the journal meanwhile goes first.
    async fn wait_for_turn(&self, right: &Deliverer) -> Result<(), SpoolError> {
        loop {
            right.counts();
            self.journal(right).await?;
            let now = self.begun.elapsed();
            let pause = self.pace.lock().unwrap_or_else(PoisonError::into_inner).pause(now);
            if pause.is_zero() {
                return Ok(());
            }
            self.spool.stored(pause.min(LOOK_EVERY)).await;
        }
    }

    async fn next<V: Verb>(&self, queue: &QueueName) -> Result<Option<Batch>, SpoolError> {
        loop {
            let (fresh, now) = (self.stamp::<V>(queue), self.clock.now());
            let (batch, put_away) =
                self.spool.next((V::STORE, queue), fresh, now, V::unfit).await?;
            if batch.as_ref().is_none_or(|batch| !batch.is_fresh) {
                self.numbers::<V, ()>(queue, |numbers| numbers.unused(&fresh));
            }
            let is_over = batch.is_some() || put_away.items.is_empty();
            for Quarantined { store, queue, name, why, .. } in put_away.items {
                self.events.tell(Event::Quarantined { store, queue, id: name, why });
            }
            self.tell_dropped(put_away.dropped);
            if is_over {
                return Ok(batch);
            }
        }
    }

    /// Tells what had to leave a full quarantine.
    fn tell_dropped(&self, dropped: Dropped) {
        let mut by_queue: HashMap<QueueName, Vec<String>> = HashMap::new();
        for (queue, name) in dropped {
            by_queue.entry(queue).or_default().push(name);
        }
        for (queue, ids) in by_queue {
            self.events.tell(Event::Dropped { queue, ids });
        }
    }

    /// The stamp of the next batch that is formed.
    fn stamp<V: Verb>(&self, queue: &QueueName) -> Stamp {
        self.numbers::<V, _>(queue, |numbers| numbers.give(SessionId(rand::random())))
    }

    fn numbers<V: Verb, T>(&self, queue: &QueueName, with: impl FnOnce(&mut Numbers) -> T) -> T {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Numbers::new(SessionId(rand::random()));
        with(sessions.entry((V::STORE, queue.clone())).or_insert_with(fresh))
    }

    async fn send<V: Verb>(
        &self,
        queue: &QueueName,
        batch: &Batch,
        items: Arc<[V::Item]>,
    ) -> Result<Answer<V::Verdict>, BrokerError> {
        let (now, begun, count) = (self.clock.now(), self.begun.elapsed(), items.len());
        let sent = V::send(self.below.clone(), queue.clone(), batch.stamp, now, items).await;
        if V::STORE == Store::Outbox {
            let now = self.begun.elapsed();
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            match &sent {
                Ok(_) => pace.delivered(count, now.saturating_sub(begun), now),
                Err(_) => pace.failed(now),
            }
        }
        let answer = sent?;
        // Once, and not at every attempt of however long the outage lasts.
        if self.is_old(batch, now) {
            self.may_repeat::<V>(queue, count);
        }
        Ok(answer)
    }

    fn may_repeat<V: Verb>(&self, queue: &QueueName, count: usize) {
        let (queue, count) = (queue.clone(), count as u64);
        self.events.tell(Event::PossibleRepeat { store: V::STORE, queue, count });
    }

    fn is_old(&self, batch: &Batch, now: Timestamp) -> bool {
        now.since(batch.stamped_at) > STAMP_AGE_MAX
    }

    /// Takes an answered batch from the spool and forms the next one, in one fsync.
    async fn delivered<V: Verb>(
        &self,
        queue: &QueueName,
        batch: Batch,
        answer: Answer<V::Verdict>,
        readable: Readable<V::Item>,
    ) -> Result<Option<Batch>, SpoolError> {
        self.numbers::<V, ()>(queue, |numbers| numbers.answered(&batch.stamp));
        let Readable { items, places, damaged } = readable;
        // The answer to a batch that was applied when all of it was readable speaks of all of it.
        let is_of_all = answer.verdicts.len() == batch.items.len();
        let verdicts = answer.verdicts.into_iter().enumerate();
        let verdicts = verdicts.filter(|(place, _)| !is_of_all || places.contains(place));
        let report = Report::of::<V>(&items, verdicts.map(|(_, verdict)| verdict).collect());
        let refused = report.refused().map(|(place, why)| (places[place], why.to_owned()));
        let refused = refused.chain(damaged.iter().cloned());
        let refused = refused.map(|(place, why)| (batch.items[place].id, why)).collect();
        let answered = self.spool.answered(batch.id, self.clock.now(), refused);
        let (answered, next) = tokio::join!(answered, self.next::<V>(queue));
        // Told by whoever took it from the spool, so that it is told once.
        let (is_first, dropped) = answered?;
        self.tell_dropped(dropped);
        if is_first {
            report.tell(&self.events, V::STORE, queue);
            for (place, why) in damaged {
                let (store, queue, id) = (V::STORE, queue.clone(), batch.items[place].name.clone());
                self.events.tell(Event::Quarantined { store, queue, id, why });
            }
        }
        next
    }

    /// A batch that is refused as a whole: nothing of it was applied. Each item goes alone, so that a bad one
    /// spoils no other; alone, it goes into quarantine.
    async fn refused<V: Verb>(
        &self,
        queue: &QueueName,
        batch: Batch,
        error: &BrokerError,
    ) -> Result<(), SpoolError> {
        if error.kind() == Kind::Superseded {
            // It was answered long ago.
            self.numbers::<V, ()>(queue, |numbers| numbers.answered(&batch.stamp));
            return self.spool.answered(batch.id, self.clock.now(), Vec::new()).await.map(|_| ());
        }
        let [item] = batch.items.as_slice() else {
            if !batch.is_fresh {
                // It was sent before, and what became of that is not known.
                self.may_repeat::<V>(queue, batch.items.len());
            }
            return self.spool.dissolve(batch.id).await;
        };
        let why = error.to_string();
        let refused = vec![(item.id, why.clone())];
        let (is_first, dropped) = self.spool.answered(batch.id, self.clock.now(), refused).await?;
        self.tell_dropped(dropped);
        if is_first {
            let (queue, id) = (queue.clone(), item.name.clone());
            self.events.tell(Event::Quarantined { store: V::STORE, queue, id, why });
        }
        Ok(())
    }
}
