//! What follows from the ledger's notes, in one task of its own: losses are made good, and homes in doubt are asked.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use outlast_core::{Broker, BrokerError, Home, Kind, Lost, QueueName, Timestamp};
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::Ledger;
use super::doubts::{Queues, Says, says};
use super::pages::{About, Entry, What};
use super::tidings::{Teller, Tiding};
use crate::event::Event;
use crate::spool::{Loss, NewItem, Parcel, SpoolError};
use crate::verb::{Enqueues, Settlements, Verb};

/// Between two rounds of questions: a home that fails every now and then is not asked all the time.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How often it looks what other processes were told of.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often a home is looked after of which something is kept: a process that has nothing more to ask would not notice that
/// its server was replaced.
const HOME_EVERY: Duration = Duration::from_secs(5);

/// How long a look may take.
const HEALTH_MAX: Duration = Duration::from_secs(3);

/// What has been counted as offered again, and is to be told.
type Offered = BTreeMap<QueueName, u64>;

/// What is lost, was taken from the pages, and is not in the spool yet: only where that cannot be written.
#[derive(Default)]
struct Owed {
    entries: VecDeque<Entry>,
    /// It was said that the spool cannot be written.
    is_told: bool,
}

impl Ledger {
    /// Makes losses good and asks the homes whose memory is in doubt, for ever. Safe to drop at any moment.
    pub(crate) fn run(self: Arc<Self>) -> impl Future<Output = ()> + Send {
        // From here on, not from the first poll.
        let events = self.events.listen();
        // What can be read of earlier losses is about lanes that are not here.
        let read = self.spool.last_loss().unwrap_or_default();
        self.listen(events, read)
    }

    async fn listen(self: Arc<Self>, mut events: broadcast::Receiver<Event>, mut read: i64) {
        let (mut owed, mut looked) = (Owed::default(), HashMap::new());
        // One for all turns: however many events there are, it comes.
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let renewed = tokio::select! {
                () = self.doubted.notified() => Vec::new(),
                () = self.refused_long_enough() => Vec::new(),
                _ = look.tick() => Vec::new(),
                event = events.recv() => match event {
                    Ok(
                        Event::EpochChanged { home, .. }
                        | Event::ServerChanged { home }
                        | Event::Up { home, .. },
                    ) => vec![home],
                    Ok(_) => continue,
                    // Some of what was missed may have been of this kind.
                    Err(broadcast::error::RecvError::Lagged(_)) => {
                        self.below.status().into_iter().map(|status| status.home).collect()
                    }
                    Err(broadcast::error::RecvError::Closed) => return,
                },
            };
            for home in &renewed {
                self.doubt(home);
            }
            self.look(&mut looked).await;
            read = self.heard_of(read);
            self.make_good(&mut owed).await;
            let homes = self.pages().doubts.take(Instant::now());
            for (home, queues) in &homes {
                let refused = self.ask(home, queues.as_ref()).await;
                self.pages().doubts.asked(home, refused, Instant::now());
            }
            if !homes.is_empty() {
                self.make_good(&mut owed).await;
                tokio::time::sleep(ASK_EVERY).await;
            }
        }
    }

    /// Waits until all losses that were told of are made good. Safe to drop.
    pub(crate) async fn calm(&self) {
        loop {
            let calmed = self.calmed.notified();
            if !self.pages().tidings.is_owing() {
                return;
            }
            calmed.await;
        }
    }

    /// Waits until queues that were refused are to be asked again: for ever if there are none.
    async fn refused_long_enough(&self) {
        let again_at = self.pages().doubts.again_at();
        match again_at {
            Some(again_at) => tokio::time::sleep_until(again_at).await,
            None => std::future::pending().await,
        }
    }

    /// A home that answers may have forgotten something.
    fn doubt(&self, home: &Home) {
        let mut pages = self.pages();
        pages.doubt(home, Instant::now());
        if pages.doubts.answers(home) {
            self.doubted.notify_one();
        }
    }

    /// Looks after the homes that have acknowledged something of late and are not known to be down: whether they answer, and
    /// whether it is the same server with the same data.
    async fn look(&self, looked: &mut HashMap<Home, Instant>) {
        let homes = self.pages().homes_of_late(Instant::now());
        looked.retain(|home, _| homes.contains(home));
        for home in homes {
            let now = Instant::now();
            let at = looked.entry(home.clone()).or_insert(now);
            if now.duration_since(*at) < HOME_EVERY || !self.below.is_well(&home) {
                continue;
            }
            *at = now;
            let says = match self.health(&home, self.below.time()).await {
                Ok(()) => Says::Here,
                Err(kind) => says(kind),
            };
            if self.pages().heard(&home, says, Instant::now()) {
                self.doubted.notify_one();
            }
        }
    }

    /// Has the breaker see how a home is.
    async fn health(&self, home: &Home, now: Timestamp) -> Result<(), Kind> {
        match timeout(HEALTH_MAX, self.below.health(home, now)).await {
            Ok(answer) => answer.map(|_| ()).map_err(|error| error.kind()),
            Err(_) => Err(Kind::Ambiguous),
        }
    }

    /// Takes the losses that processes were told of after this one. Returns the last.
    fn heard_of(&self, after: i64) -> i64 {
        match self.spool.losses(self.me, after) {
            Ok((losses, last)) => {
                let mut pages = self.pages();
                losses.into_iter().for_each(|loss| pages.tidings.add(loss, Teller::Process));
                last
            }
            Err(error) => {
                tracing::debug!(%error, "could not read what other processes have lost");
                after
            }
        }
    }

    /// Stores what is lost in the spool, to be sent again. Where that fails it is tried again at the next turn.
    async fn make_good(&self, owed: &mut Owed) {
        let mut offered = Offered::new();
        while self.pay(owed, &mut offered).await {
            let Some(tiding) = self.pages().tidings.next() else {
                self.pages().tidings.settled();
                self.calmed.notify_waiters();
                break;
            };
            self.take(tiding, owed, &mut offered).await;
        }
        for (queue, offered_again) in offered {
            let is_partly = self.pages().is_cut();
            self.events.tell(Event::Lost { queue, offered_again, is_partly });
        }
    }

    /// Takes what a lane has lost from the pages, if it has lost anything.
    async fn take(&self, tiding: Tiding, owed: &mut Owed, offered: &mut Offered) {
        let Tiding { loss, by } = tiding;
        let Loss { queue, told_by, lost, now } = &loss;
        if !self.is_loss(&loss).await {
            // The record of the session is gone and nothing else: too old, or evicted.
            tracing::error!(%queue, "the broker has forgotten a session, but not its data");
            return;
        }
        let entries = {
            let mut pages = self.pages();
            pages.told(queue, told_by, lost.after_seq);
            pages.take_lane((queue, told_by), lost.after_seq)
        };
        tracing::debug!(%queue, %now, count = entries.len(), "batches of a lane are lost");
        owed.entries.extend(entries);
        match by {
            Teller::Question(count) => *offered.entry(queue.clone()).or_default() += count,
            // The other lanes of the home have been hit, too.
            Teller::Call => {
                offered.entry(queue.clone()).or_default();
                self.doubt(&self.below.home(queue));
            }
            Teller::Process => self.doubt(&self.below.home(queue)),
        }
    }

    /// True if data is lost, and not only what the broker knew of a session.
    async fn is_loss(&self, Loss { queue, told_by, lost, now }: &Loss) -> bool {
        let home = self.below.home(queue);
        if lost.after_seq > 0 || self.pages().is_older_than_doubt(&home, queue, told_by) {
            return true;
        }
        let health = self.health(&home, *now).await;
        let keep_for = self.pages().limits().keep_for;
        health.is_err() || self.below.is_renewed(&home, keep_for)
    }

    /// Stores what is owed. False if that is not possible now.
    async fn pay(&self, owed: &mut Owed, offered: &mut Offered) -> bool {
        while let Some(entry) = owed.entries.front() {
            match self.store(entry).await {
                Ok(count) => *offered.entry(entry.about.queue.clone()).or_default() += count,
                Err(error) => {
                    if !std::mem::replace(&mut owed.is_told, true) {
                        let batches = owed.entries.len();
                        tracing::error!(%error, batches, "could not store what the broker has forgotten: it is tried again");
                    }
                    return false;
                }
            }
            owed.entries.pop_front();
        }
        owed.is_told = false;
        true
    }

    /// Without a number: the lane has moved on, and what it lost was not applied.
    async fn store(&self, entry: &Entry) -> Result<u64, SpoolError> {
        let (store, items): (_, Arc<[NewItem]>) = match &entry.what {
            What::Tasks(tasks) => (Enqueues::STORE, tasks.iter().map(Enqueues::item).collect()),
            What::Settlements(settlements) => {
                (Settlements::STORE, settlements.iter().map(Settlements::item).collect())
            }
        };
        let (queue, durability) = (entry.about.queue.clone(), entry.about.stamp.durability);
        let (now, count) = (entry.about.now, items.len() as u64);
        let parcel = Parcel { store, queue, now, durability, stamp: None, items };
        self.spool.store(parcel).await.map(|_| count)
    }

    /// Sends the newest batch of every lane of the home again, or of some of its queues. Returns the queues that were refused.
    async fn ask(&self, home: &Home, queues: Option<&Queues>) -> Queues {
        let mut newest = self.pages().newest(home);
        // Outcomes go first: a task that is offered again may be claimed at once, and they are not of that run.
        newest.sort_by_key(|entry| matches!(entry.what, What::Tasks(_)));
        newest.retain(|entry| queues.is_none_or(|queues| queues.contains(&entry.about.queue)));
        let mut refused = Queues::new();
        for Entry { about, what } in newest {
            let now = about.now.plus(about.at.elapsed());
            match self.send(&about, &what, now).await {
                Ok(lost) => self.answered((&about, &what), lost, now).await,
                Err(error) => match says(error.kind()) {
                    Says::Away => {
                        // Its own calls will find out when it answers.
                        self.pages().doubt(home, Instant::now());
                        break;
                    }
                    Says::Nothing => drop(refused.insert(about.queue)),
                    // It has moved on: whoever was answered then was told of what it has lost.
                    Says::Here if error.kind() == Kind::Superseded => {}
                    Says::Here => {
                        tracing::error!(%error, queue = %about.queue, "could not ask what is remembered");
                    }
                },
            }
        }
        refused
    }

    /// Notes what the answer to a question tells of, also for the other processes: batches of the same lane may be theirs.
    async fn answered(&self, (about, what): (&About, &What), lost: Option<Lost>, now: Timestamp) {
        let Some(lost) = lost.filter(|lost| about.told != Some(lost.after_seq)) else { return };
        self.pass_on(&about.queue, about.stamp, Some(lost), now).await;
        let loss = Loss { queue: about.queue.clone(), told_by: about.stamp, lost, now };
        self.pages().tidings.add(loss, Teller::Question(what.len() as u64));
    }

    async fn send(
        &self,
        About { queue, stamp, .. }: &About,
        what: &What,
        now: Timestamp,
    ) -> Result<Option<Lost>, BrokerError> {
        match what {
            What::Tasks(tasks) => {
                Ok(self.below.enqueue(queue, *stamp, now, tasks.clone()).await?.lost)
            }
            What::Settlements(settlements) => {
                Ok(self.below.settle(queue, *stamp, now, settlements.clone()).await?.lost)
            }
        }
    }
}
