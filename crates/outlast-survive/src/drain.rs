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
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use outlast_core::{
    Broker, BrokerError, Durability, Kind, QueueName, SessionId, Stamp, Timestamp, limits,
};
use tokio::time::Instant;

use crate::Clock;
use crate::breaker::Breaker;
use crate::event::{Event, Events};
use crate::pace::Pace;
use crate::report::Report;
use crate::spool::{Batch, Quarantined, Spool, SpoolError, Store};
use crate::verb::{Answer, Enqueues, Settlements, Verb};

/// How often a process looks whether others have left something, or whether it may take over.
const LOOK_EVERY: Duration = Duration::from_millis(500);

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
    /// The sessions of this drain, with the number of the last batch that was answered.
    sessions: Mutex<HashMap<(Store, QueueName), (SessionId, u64)>>,
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
        Self { below, breaker, spool, events, clock, begun, pace, sessions: Mutex::default() }
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
        let Some(_right) = self.spool.deliverer()? else { return Ok(()) };
        // What was answered before another process had its turn says nothing about the sessions now.
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clear();
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = Pace::new(self.begun.elapsed());
        while self.round().await? {}
        Ok(())
    }

    fn has_work(&self) -> Result<bool, SpoolError> {
        Ok(!self.spool.queues(Store::Journal)?.is_empty()
            || !self.spool.queues(Store::Outbox)?.is_empty())
    }

    /// One turn for every queue; false if nothing moved.
    async fn round(&self) -> Result<bool, SpoolError> {
        let mut has_moved = false;
        for queue in self.spool.queues(Store::Journal)? {
            has_moved |= self.line::<Settlements>(&queue).await? == Turn::Moved;
        }
        for queue in self.spool.queues(Store::Outbox)? {
            has_moved |= self.line::<Enqueues>(&queue).await? == Turn::Moved;
        }
        Ok(has_moved)
    }

    /// Some batches of one queue, as long as its home takes them.
    async fn line<V: Verb>(&self, queue: &QueueName) -> Result<Turn, SpoolError> {
        let home = self.below.home(queue);
        if !self.breaker.admits(&home, V::CLASS) {
            return Ok(Turn::Stuck);
        }
        let mut next = self.next::<V>(queue).await?;
        for _ in 0..IN_A_ROW {
            let Some(batch) = next else { return Ok(Turn::Empty) };
            if self.spool.is_owned(batch.id) {
                return Ok(Turn::Stuck);
            }
            self.wait_for_turn::<V>().await;
            let result = self.send::<V>(queue, &batch).await;
            next = match result {
                Ok((answer, items)) => self.delivered::<V>(queue, batch, answer, &items).await?,
                Err(error) => match error.kind() {
                    Kind::Unavailable | Kind::Ambiguous | Kind::Busy | Kind::Misconfigured => {
                        return Ok(Turn::Stuck);
                    }
                    Kind::Rejected | Kind::Corrupt | Kind::Superseded => {
                        self.refused::<V>(queue, batch, &error).await?;
                        self.next::<V>(queue).await?
                    }
                },
            };
        }
        Ok(Turn::Moved)
    }

    /// Settlements do not wait: they free what a recovering broker holds.
    async fn wait_for_turn<V: Verb>(&self) {
        if V::STORE == Store::Journal {
            return;
        }
        let now = self.begun.elapsed();
        let pause = self.pace.lock().unwrap_or_else(PoisonError::into_inner).pause(now);
        tokio::time::sleep(pause).await;
    }

    async fn next<V: Verb>(&self, queue: &QueueName) -> Result<Option<Batch>, SpoolError> {
        loop {
            let (fresh, now) = (self.stamp::<V>(queue), self.clock.now());
            let (batch, put_away) =
                self.spool.next((V::STORE, queue), fresh, now, V::unfit).await?;
            let is_over = batch.is_some() || put_away.is_empty();
            for Quarantined { store, queue, name, why, .. } in put_away {
                self.events.tell(Event::Quarantined { store, queue, id: name, why });
            }
            if is_over {
                return Ok(batch);
            }
        }
    }

    /// The stamp of the next batch that is formed.
    fn stamp<V: Verb>(&self, queue: &QueueName) -> Stamp {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, last) = sessions
            .entry((V::STORE, queue.clone()))
            .or_insert_with(|| (SessionId(rand::random()), 0));
        let durability = Durability::Accepted;
        Stamp { session: *session, lane: 0, seq: *last + 1, durability }
    }

    /// The number of a stamp of ours was used: the next batch gets the next one.
    fn used<V: Verb>(&self, queue: &QueueName, stamp: &Stamp) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((session, last)) = sessions.get_mut(&(V::STORE, queue.clone()))
            && *session == stamp.session
        {
            *last = stamp.seq.max(*last);
        }
    }

    async fn send<V: Verb>(
        &self,
        queue: &QueueName,
        batch: &Batch,
    ) -> Result<(Answer<V::Verdict>, Arc<[V::Item]>), BrokerError> {
        // Only a record that was damaged after it was numbered is unreadable here.
        let items: Result<Arc<[V::Item]>, _> =
            batch.items.iter().map(|item| V::decode(&item.record)).collect();
        let items = items.map_err(|error| {
            BrokerError::new(Kind::Corrupt, "could not read the spool").with_source(error)
        })?;
        let (now, begun) = (self.clock.now(), self.begun.elapsed());
        let sent =
            V::send(self.below.clone(), queue.clone(), batch.stamp, now, items.clone()).await;
        if V::STORE == Store::Outbox {
            let now = self.begun.elapsed();
            let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
            match &sent {
                Ok(_) => pace.delivered(items.len(), now.saturating_sub(begun), now),
                Err(_) => pace.failed(now),
            }
        }
        let answer = sent?;
        // Once, and not at every attempt of however long the outage lasts.
        if self.is_old(batch, now) {
            let (queue, count) = (queue.clone(), items.len() as u64);
            self.events.tell(Event::PossibleRepeat { store: V::STORE, queue, count });
        }
        Ok((answer, items))
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
        items: &[V::Item],
    ) -> Result<Option<Batch>, SpoolError> {
        self.used::<V>(queue, &batch.stamp);
        let report = Report::of::<V>(items, answer.verdicts);
        let refused = report.refused();
        let refused = refused.map(|(place, why)| (batch.items[place].id, why.to_owned())).collect();
        let answered = self.spool.answered(batch.id, self.clock.now(), refused);
        let (answered, next) = tokio::join!(answered, self.next::<V>(queue));
        // Told by whoever took it from the spool, so that it is told once.
        if answered? {
            report.tell(&self.events, V::STORE, queue);
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
            self.used::<V>(queue, &batch.stamp);
            return self.spool.answered(batch.id, self.clock.now(), Vec::new()).await.map(|_| ());
        }
        let [item] = batch.items.as_slice() else {
            return self.spool.dissolve(batch.id).await;
        };
        let why = error.to_string();
        let refused = vec![(item.id, why.clone())];
        if self.spool.answered(batch.id, self.clock.now(), refused).await? {
            let (queue, id) = (queue.clone(), item.name.clone());
            self.events.tell(Event::Quarantined { store: V::STORE, queue, id, why });
        }
        Ok(())
    }
}
