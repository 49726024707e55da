//! What the ledger remembers: batches in the order in which they were acknowledged, and the homes whose memory is
//! in doubt.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use outlast_core::{
    Home, NewTask, Outcome, QueueName, Settlement, Stamp, TaskId, Timestamp, limits,
};
use tokio::time::Instant;

/// How much of what was acknowledged is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// How long batches are kept: longer than a failover takes to lose them and to be noticed. The time in which their home
    /// is in doubt does not count.
    pub keep_for: Duration,
    /// Bytes at most, in memory. The oldest goes first; a loss then is told to be made good in part.
    pub bytes_max: usize,
}

impl Default for LedgerLimits {
    fn default() -> Self {
        Self { keep_for: Duration::from_secs(30), bytes_max: 16 << 20 }
    }
}

/// After so long in doubt the broker may have forgotten a stamp by itself: its batch is not asked about.
const ASK_WITHIN: Duration = limits::SESSION_TTL.checked_div(2).expect("two is not zero");

/// What a task or a settlement takes beside its payload, about.
const ITEM_BYTES: usize = 300;

#[derive(Default)]
pub(super) struct Pages {
    limits: LedgerLimits,
    entries: VecDeque<Entry>,
    bytes: usize,
    /// When the last entry went because of its size.
    cut_at: Option<Instant>,
    /// Homes that failed since they were last asked, and whether they answer again. As many as there are
    /// homes.
    doubts: HashMap<Home, Answers>,
}

/// Whether a home that failed answers again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answers {
    NotYet,
    Again,
}

/// An acknowledged batch.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) at: Instant,
    pub(super) home: Home,
    pub(super) queue: QueueName,
    pub(super) stamp: Stamp,
    pub(super) now: Timestamp,
    pub(super) what: What,
    /// The loss that its answer told of is made good.
    pub(super) is_told: bool,
}

#[derive(Clone)]
pub(super) enum What {
    Tasks(Arc<[NewTask]>),
    Settlements(Arc<[Settlement]>),
}

/// Tasks that are known to be over.
pub(super) type Finished = HashSet<(QueueName, TaskId)>;

impl Entry {
    fn is_of_lane(&self, queue: &QueueName, stamp: &Stamp) -> bool {
        self.queue == *queue && (self.stamp.session, self.stamp.lane) == (stamp.session, stamp.lane)
    }

    /// The entry without what is known to be over; `None` if nothing is left of it.
    fn open(&self, finished: &Finished) -> Option<Entry> {
        let What::Tasks(tasks) = &self.what else { return Some(self.clone()) };
        let is_open = |task: &&NewTask| !finished.contains(&(self.queue.clone(), task.id.clone()));
        let open: Arc<[NewTask]> = tasks.iter().filter(is_open).cloned().collect();
        (!open.is_empty()).then(|| Entry { what: What::Tasks(open), ..self.clone() })
    }
}

impl What {
    pub(super) fn len(&self) -> usize {
        match self {
            What::Tasks(tasks) => tasks.len(),
            What::Settlements(settlements) => settlements.len(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            What::Tasks(tasks) => tasks.iter().map(|task| task.payload.len() + ITEM_BYTES).sum(),
            What::Settlements(settlements) => settlements.iter().map(size).sum(),
        }
    }
}

fn size(settlement: &Settlement) -> usize {
    let carried = match &settlement.outcome {
        Outcome::Done { result } => result.as_ref().map_or(0, |result| result.len()),
        Outcome::Retry { error, .. } | Outcome::Archive { error } => error.len(),
        Outcome::Aggregated { into } => into.payload.len(),
        _ => 0,
    };
    carried + ITEM_BYTES
}

impl Pages {
    pub(super) fn new(limits: LedgerLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn limits(&self) -> LedgerLimits {
        self.limits
    }

    pub(super) fn add(&mut self, entry: Entry) {
        let now = entry.at;
        self.bytes += entry.what.bytes();
        self.entries.push_back(entry);
        self.prune(now);
    }

    fn prune(&mut self, now: Instant) {
        while let Some(first) = self.entries.front() {
            let age = now.duration_since(first.at);
            let is_old = self.doubts.is_empty() && age > self.limits.keep_for;
            if !is_old && self.bytes <= self.limits.bytes_max {
                break;
            }
            if !is_old {
                self.cut_at = Some(now);
            }
            self.bytes -= first.what.bytes();
            self.entries.pop_front();
        }
    }

    /// Whether some of what was acknowledged in the time that is kept is not here.
    pub(super) fn is_cut(&self) -> bool {
        self.cut_at.is_some_and(|at| at.elapsed() <= self.limits.keep_for)
    }

    /// A call to the home failed: it may have forgotten when it answers again.
    pub(super) fn doubt(&mut self, home: &Home, now: Instant) {
        self.prune(now);
        if self.entries.iter().any(|entry| entry.home == *home) {
            self.doubts.insert(home.clone(), Answers::NotYet);
        }
    }

    /// The home answers. True if it was in doubt and did not yet.
    pub(super) fn answers(&mut self, home: &Home) -> bool {
        let doubt = self.doubts.get_mut(home);
        doubt.is_some_and(|doubt| std::mem::replace(doubt, Answers::Again) == Answers::NotYet)
    }

    /// The homes that are to be asked what they remember; they are in doubt no more.
    pub(super) fn take_doubts(&mut self) -> Vec<Home> {
        let answers = |(_, answers): &(&Home, &mut Answers)| **answers == Answers::Again;
        self.doubts
            .extract_if(|home, state| answers(&(home, state)))
            .map(|(home, _)| home)
            .collect()
    }

    /// Of each lane of the home its newest batch with anything that is still open.
    pub(super) fn newest(&self, home: &Home) -> Vec<Entry> {
        let finished = self.finished();
        let (mut seen, mut newest) = (HashSet::new(), Vec::new());
        let of_home = self.entries.iter().rev().filter(|entry| entry.home == *home);
        for entry in of_home.filter(|entry| entry.at.elapsed() < ASK_WITHIN) {
            let lane = (entry.queue.clone(), entry.stamp.session, entry.stamp.lane);
            if seen.contains(&lane) {
                continue;
            }
            if let Some(open) = entry.open(&finished) {
                seen.insert(lane);
                newest.push(open);
            }
        }
        newest.reverse();
        newest
    }

    /// Takes the batches of a lane between these two numbers, oldest first, without what is over.
    pub(super) fn take_lane(
        &mut self,
        (queue, told_by): (&QueueName, &Stamp),
        after_seq: u64,
    ) -> Vec<Entry> {
        let finished = self.finished();
        let is_lost = |entry: &Entry| {
            entry.is_of_lane(queue, told_by)
                && (after_seq + 1..told_by.seq).contains(&entry.stamp.seq)
        };
        let (lost, others): (Vec<_>, Vec<_>) = self.entries.drain(..).partition(is_lost);
        self.entries = others.into();
        self.bytes = self.entries.iter().map(|entry| entry.what.bytes()).sum();
        // One that was sent twice was acknowledged twice.
        let mut numbers = HashSet::new();
        let once = lost.iter().filter(|entry| numbers.insert(entry.stamp.seq));
        once.filter_map(|entry| entry.open(&finished)).collect()
    }

    pub(super) fn told(&mut self, queue: &QueueName, stamp: &Stamp) {
        let is_it =
            |entry: &&mut Entry| entry.is_of_lane(queue, stamp) && entry.stamp.seq == stamp.seq;
        self.entries.iter_mut().filter(is_it).for_each(|entry| entry.is_told = true);
    }

    fn finished(&self) -> Finished {
        let mut over = HashSet::new();
        for entry in &self.entries {
            let What::Settlements(settlements) = &entry.what else { continue };
            let ends = |settlement: &&Settlement| {
                matches!(settlement.outcome, Outcome::Done { .. } | Outcome::Revoke)
            };
            let ids = settlements.iter().filter(ends).map(|settlement| settlement.lease.id.clone());
            over.extend(ids.map(|id| (entry.queue.clone(), id)));
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use outlast_core::{Durability, SessionId, TaskType};

    fn entry(seq: u64, bytes: usize) -> Entry {
        let stamp = Stamp { session: SessionId(1), lane: 0, seq, durability: Durability::Accepted };
        let id = TaskId::stored(&seq.to_string());
        let task = NewTask::new(id, TaskType::stored("t"), Bytes::from(vec![0; bytes]));
        let (queue, what) = (QueueName::stored("q"), What::Tasks([task].into()));
        let now = Timestamp::from_seconds(0);
        Entry { at: Instant::now(), home: home(), queue, stamp, now, what, is_told: false }
    }

    fn home() -> Home {
        Home("here".into())
    }

    #[tokio::test(start_paused = true)]
    async fn entries_go_when_they_are_old_or_when_they_are_too_many_and_the_latter_is_told() {
        let mut pages = Pages::default();
        pages.add(entry(1, 10));
        tokio::time::advance(pages.limits.keep_for + Duration::from_secs(1)).await;
        pages.add(entry(2, 10));
        assert_eq!((pages.entries.len(), pages.bytes, pages.is_cut()), (1, 10 + ITEM_BYTES, false));
        for seq in 3..6 {
            pages.add(entry(seq, pages.limits.bytes_max / 2 - ITEM_BYTES));
        }
        assert_eq!((pages.entries.len(), pages.is_cut()), (2, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_before_an_outage_is_kept_until_the_home_was_asked() {
        let mut pages = Pages::default();
        pages.add(entry(1, 10));
        pages.doubt(&home(), Instant::now());
        tokio::time::advance(10 * pages.limits.keep_for).await;
        pages.add(entry(2, 10));
        assert!(pages.take_doubts().is_empty(), "it does not answer yet");
        assert!(pages.answers(&home()) && !pages.answers(&home()));
        assert_eq!(pages.take_doubts(), [home()]);
        assert_eq!(pages.newest(&home())[0].stamp.seq, 2);
        let told_by = Stamp { seq: 3, ..entry(3, 0).stamp };
        let lost = pages.take_lane((&QueueName::stored("q"), &told_by), 0);
        assert_eq!(lost.iter().map(|entry| entry.stamp.seq).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(pages.bytes, 0);
    }
}
