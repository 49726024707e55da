//! What the ledger remembers: batches in the order in which they were acknowledged.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use outlast_core::record::{
    RecordError, append_settlement, append_task, read_settlement, read_task,
};
use outlast_core::{
    Home, NewTask, Outcome, QueueName, Settlement, Stamp, TaskId, Timestamp, limits,
};
use tokio::time::Instant;

use super::doubts::{Doubts, Says};
use super::passing::Passing;
use super::ring::{Place, Ring};
use super::tidings::Tidings;

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

/// What a batch takes beside its items, about.
const ENTRY_BYTES: usize = 200;

#[derive(Default)]
pub(super) struct Pages {
    limits: LedgerLimits,
    notes: VecDeque<Note>,
    /// The items of the notes, in their order.
    ring: Ring,
    /// Where a batch becomes bytes.
    draft: Vec<u8>,
    /// When the last batch went because of its size.
    cut_at: Option<Instant>,
    pub(super) doubts: Doubts,
    pub(super) passing: Passing,
    /// When each home was in doubt last. As many as there are homes.
    doubted_at: HashMap<Home, Instant>,
    /// When something of each home was kept last. As many as there are homes.
    kept_at: HashMap<Home, Instant>,
    pub(super) tidings: Tidings,
}

/// An acknowledged batch.
pub(super) struct Entry {
    pub(super) about: About,
    pub(super) what: What,
}

/// Whose batch it is, and when it was acknowledged.
#[derive(Clone)]
pub(super) struct About {
    pub(super) at: Instant,
    pub(super) home: Home,
    pub(super) queue: QueueName,
    pub(super) stamp: Stamp,
    pub(super) now: Timestamp,
    /// The loss that its answer told of, and that was made good: everything after this number. A repeat has the same answer.
    pub(super) told: Option<u64>,
}

pub(super) enum What {
    Tasks(Arc<[NewTask]>),
    Settlements(Arc<[Settlement]>),
}

/// A batch as it is kept.
struct Note {
    about: About,
    kind: Kind,
    items: Place,
    /// It was lost and waits in the spool: only what it has ended is still of interest here. The place of tasks becomes free
    /// with those before it.
    is_taken: bool,
    /// It has outcomes after which their task goes on.
    is_passing: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tasks,
    Settlements,
}

/// Tasks that are known to be over.
pub(super) type Finished = HashSet<(QueueName, TaskId)>;

impl About {
    fn is_of_lane(&self, queue: &QueueName, stamp: &Stamp) -> bool {
        self.queue == *queue && (self.stamp.session, self.stamp.lane) == (stamp.session, stamp.lane)
    }
}

impl Entry {
    /// The entry without what is known to be over; `None` if nothing is left of it.
    fn open(self, finished: &Finished, passing: &Passing) -> Option<Entry> {
        let About { queue, stamp, .. } = &self.about;
        let what = match &self.what {
            What::Tasks(tasks) => {
                let is_open =
                    |task: &&NewTask| !finished.contains(&(queue.clone(), task.id.clone()));
                What::Tasks(tasks.iter().filter(is_open).cloned().collect())
            }
            What::Settlements(settlements) => {
                let is_open = |settlement: &&Settlement| passing.is_open(queue, *stamp, settlement);
                What::Settlements(settlements.iter().filter(is_open).cloned().collect())
            }
        };
        (what.len() > 0).then_some(Entry { what, ..self })
    }
}

impl What {
    pub(super) fn len(&self) -> usize {
        match self {
            What::Tasks(tasks) => tasks.len(),
            What::Settlements(settlements) => settlements.len(),
        }
    }

    fn write(&self, out: &mut Vec<u8>) -> Kind {
        match self {
            What::Tasks(tasks) => {
                tasks.iter().for_each(|task| frame(out, |out| append_task(out, task)));
                Kind::Tasks
            }
            What::Settlements(settlements) => {
                let mut write = |settlement| frame(out, |out| append_settlement(out, settlement));
                settlements.iter().for_each(&mut write);
                Kind::Settlements
            }
        }
    }

    fn read(kind: Kind, bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(match kind {
            Kind::Tasks => What::Tasks(frames(bytes).map(read_task).collect::<Result<_, _>>()?),
            Kind::Settlements => {
                What::Settlements(frames(bytes).map(read_settlement).collect::<Result<_, _>>()?)
            }
        })
    }
}

/// Writes an item behind its length (4, little endian).
fn frame(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len() + 4;
    out.extend([0; 4]);
    write(out);
    // What the broker has taken is far below this.
    let length = u32::try_from(out.len() - begin).unwrap_or(u32::MAX);
    out[begin - 4..begin].copy_from_slice(&length.to_le_bytes());
}

fn frames(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (item, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        rest = after;
        Some(item)
    })
}

impl Pages {
    pub(super) fn new(limits: LedgerLimits) -> Self {
        Self { limits, ..Self::default() }
    }

    pub(super) fn limits(&self) -> LedgerLimits {
        self.limits
    }

    pub(super) fn add(&mut self, about: About, what: &What) {
        let now = about.at;
        match self.kept_at.get_mut(&about.home) {
            Some(at) => *at = now,
            None => drop(self.kept_at.insert(about.home.clone(), now)),
        }
        self.draft.clear();
        let kind = what.write(&mut self.draft);
        // First, so that the ring never grows beyond its limit.
        self.prune(now, self.draft.len() + ENTRY_BYTES);
        let items = self.ring.push(&self.draft);
        let is_passing = match what {
            What::Tasks(_) => false,
            What::Settlements(all) => self.passing.add(&about.queue, about.stamp, all),
        };
        self.notes.push_back(Note { about, kind, items, is_taken: false, is_passing });
    }

    /// Lets go of what is old, of what was taken, and of the oldest until there is room for so many bytes.
    fn prune(&mut self, now: Instant, room: usize) {
        while let Some(first) = self.notes.front() {
            let is_in_doubt = !self.doubts.is_empty() || self.tidings.is_owing();
            let is_old = !is_in_doubt && now.duration_since(first.about.at) > self.limits.keep_for;
            let is_over = is_old || (first.is_taken && first.kind == Kind::Tasks);
            if !is_over && self.bytes() + room <= self.limits.bytes_max {
                break;
            }
            if !is_over {
                self.cut_at = Some(now);
            }
            let passing = first.is_passing.then(|| self.read(first)).flatten();
            self.ring.drop_to(&first.items);
            if let Some(Entry { about, what: What::Settlements(all) }) = passing {
                self.passing.drop(&about.queue, about.stamp, &all);
            }
            self.notes.pop_front();
        }
    }

    fn bytes(&self) -> usize {
        self.ring.len() + self.notes.len() * ENTRY_BYTES
    }

    /// The batches that are kept, oldest first.
    fn kept(&self) -> impl DoubleEndedIterator<Item = &Note> {
        self.notes.iter().filter(|note| !note.is_taken)
    }

    fn read(&self, note: &Note) -> Option<Entry> {
        let what = What::read(note.kind, &self.ring.read(&note.items));
        // Nobody else writes this memory: it would be an error of ours.
        let what = what.inspect_err(|error| tracing::error!(%error, "could not read the ledger"));
        Some(Entry { about: note.about.clone(), what: what.ok()? })
    }

    /// Whether some of what was acknowledged in the time that is kept is not here.
    pub(super) fn is_cut(&self) -> bool {
        self.cut_at.is_some_and(|at| at.elapsed() <= self.limits.keep_for)
    }

    /// A call to the home failed: it may have forgotten when it answers again.
    pub(super) fn doubt(&mut self, home: &Home, now: Instant) {
        self.doubted_at.insert(home.clone(), now);
        if self.kept().any(|note| note.about.home == *home) {
            self.doubts.add(home);
        }
    }

    /// The homes of which something is kept that is not old, and those that are in doubt.
    pub(super) fn homes_of_late(&self, now: Instant) -> Vec<Home> {
        let is_late = |at: &Instant| {
            now.duration_since(*at) <= self.limits.keep_for || !self.doubts.is_empty()
        };
        let late = self.kept_at.iter().filter(|(_, at)| is_late(at));
        late.map(|(home, _)| home.clone()).collect()
    }

    /// True if something of a lane was acknowledged before its home was in doubt: then a record of it that is gone went with
    /// the data, and did not run out.
    pub(super) fn is_older_than_doubt(
        &self,
        home: &Home,
        queue: &QueueName,
        stamp: &Stamp,
    ) -> bool {
        let Some(doubted_at) = self.doubted_at.get(home) else { return false };
        let abouts = self.kept().map(|note| &note.about);
        let mut of_lane = abouts.filter(|about| about.is_of_lane(queue, stamp));
        of_lane.any(|about| about.stamp.seq < stamp.seq && about.at <= *doubted_at)
    }

    /// A call to the home has ended. True if it was in doubt, did not answer and does now.
    pub(super) fn heard(&mut self, home: &Home, says: Says, now: Instant) -> bool {
        match says {
            Says::Here => return self.doubts.answers(home),
            Says::Away => self.doubt(home, now),
            Says::Nothing => {}
        }
        false
    }

    /// Of each lane of the home its newest batch with anything that is still open.
    pub(super) fn newest(&self, home: &Home) -> Vec<Entry> {
        let finished = self.finished();
        let (mut seen, mut newest) = (HashSet::new(), Vec::new());
        let of_home = self.kept().rev().filter(|note| note.about.home == *home);
        for note in of_home.filter(|note| note.about.at.elapsed() < ASK_WITHIN) {
            let About { queue, stamp, .. } = &note.about;
            let lane = (queue.clone(), stamp.session, stamp.lane);
            if seen.contains(&lane) {
                continue;
            }
            if let Some(open) =
                self.read(note).and_then(|entry| entry.open(&finished, &self.passing))
            {
                seen.insert(lane);
                newest.push(open);
            }
        }
        newest.reverse();
        newest
    }

    /// Takes the batches of a lane between these two numbers, oldest first, without what is over. Settlements stay as well: the
    /// tasks' own lane may tell of its loss after theirs, and what they have ended is not to be offered again then.
    pub(super) fn take_lane(
        &mut self,
        (queue, told_by): (&QueueName, &Stamp),
        after_seq: u64,
    ) -> Vec<Entry> {
        let finished = self.finished();
        let is_lost = |note: &&Note| {
            note.about.is_of_lane(queue, told_by)
                && (after_seq + 1..told_by.seq).contains(&note.about.stamp.seq)
        };
        // One that was sent twice was acknowledged twice.
        let mut numbers = HashSet::new();
        let lost = self.kept().filter(is_lost);
        let once = lost.filter(|note| numbers.insert(note.about.stamp.seq));
        let open =
            once.filter_map(|note| self.read(note)?.open(&finished, &self.passing)).collect();
        for note in self.notes.iter_mut().filter(|note| is_lost(&&**note)) {
            note.is_taken = true;
        }
        open
    }

    /// The answer to this batch told of a loss after this number.
    pub(super) fn told(&mut self, queue: &QueueName, stamp: &Stamp, after_seq: u64) {
        let is_it = |note: &&mut Note| {
            note.about.is_of_lane(queue, stamp) && note.about.stamp.seq == stamp.seq
        };
        self.notes.iter_mut().filter(is_it).for_each(|note| note.about.told = Some(after_seq));
    }

    fn finished(&self) -> Finished {
        let mut over = HashSet::new();
        for note in self.notes.iter().filter(|note| note.kind == Kind::Settlements) {
            let Some(Entry { about, what: What::Settlements(settlements) }) = self.read(note)
            else {
                continue;
            };
            let ends = |settlement: &&Settlement| {
                matches!(settlement.outcome, Outcome::Done { .. } | Outcome::Revoke)
            };
            let ids = settlements.iter().filter(ends).map(|settlement| settlement.lease.id.clone());
            over.extend(ids.map(|id| (about.queue.clone(), id)));
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use outlast_core::{Durability, Kind as ErrorKind, SessionId, TaskType};

    use super::*;
    use crate::ledger::doubts::{Queues, says};

    fn add(pages: &mut Pages, seq: u64, bytes: usize) {
        let stamp = stamp(seq);
        let id = TaskId::stored(&seq.to_string());
        let task = NewTask::new(id, TaskType::stored("t"), Bytes::from(vec![0; bytes]));
        let (queue, what) = (QueueName::stored("q"), What::Tasks([task].into()));
        let (at, now) = (Instant::now(), Timestamp::from_seconds(0));
        pages.add(About { at, home: home(), queue, stamp, now, told: None }, &what);
    }

    fn stamp(seq: u64) -> Stamp {
        Stamp { session: SessionId(1), lane: 0, seq, durability: Durability::Accepted }
    }

    fn home() -> Home {
        Home("here".into())
    }

    #[tokio::test(start_paused = true)]
    async fn entries_go_when_they_are_old_or_when_they_are_too_many_and_the_latter_is_told() {
        let mut pages = Pages::default();
        add(&mut pages, 1, 10);
        let bytes = pages.bytes();
        tokio::time::advance(pages.limits.keep_for + Duration::from_secs(1)).await;
        add(&mut pages, 2, 10);
        assert_eq!((pages.notes.len(), pages.bytes(), pages.is_cut()), (1, bytes, false));
        let half = pages.limits.bytes_max / 2;
        for seq in 3..6 {
            add(&mut pages, seq, half - bytes);
        }
        assert_eq!((pages.notes.len(), pages.is_cut()), (2, true));
        assert!(pages.bytes() <= pages.limits.bytes_max, "{}", pages.bytes());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_before_an_outage_is_kept_until_the_home_was_asked() {
        let mut pages = Pages::default();
        add(&mut pages, 1, 10);
        pages.doubt(&home(), Instant::now());
        tokio::time::advance(10 * pages.limits.keep_for).await;
        add(&mut pages, 2, 10);
        assert!(pages.doubts.take(Instant::now()).is_empty(), "it does not answer yet");
        assert!(pages.doubts.answers(&home()) && !pages.doubts.answers(&home()));
        assert_eq!(pages.doubts.take(Instant::now()), [(home(), None)]);
        pages.doubts.asked(&home(), Queues::new(), Instant::now());
        assert!(pages.doubts.take(Instant::now()).is_empty());
        assert_eq!(pages.newest(&home())[0].about.stamp.seq, 2);
        let queue = QueueName::stored("q");
        let lost = pages.take_lane((&queue, &stamp(3)), 0);
        assert_eq!(lost.iter().map(|entry| entry.about.stamp.seq).collect::<Vec<_>>(), [1, 2]);
        assert!(
            pages.take_lane((&queue, &stamp(3)), 0).is_empty() && pages.newest(&home()).is_empty()
        );
        add(&mut pages, 3, 10);
        assert_eq!(pages.notes.len(), 1, "their place is free again");
    }
    /// A home was in doubt no more from the moment in which it was to be asked: a batch that was acknowledged before the answer
    /// came let everything go that was older than thirty seconds, which was all that the outage had been kept for.
    #[tokio::test(start_paused = true)]
    async fn what_was_acknowledged_before_an_outage_is_kept_while_the_home_is_asked() {
        let mut pages = Pages::default();
        add(&mut pages, 1, 10);
        tokio::time::advance(pages.limits.keep_for + Duration::from_secs(1)).await;
        pages.doubt(&home(), Instant::now());
        assert!(pages.doubts.answers(&home()));
        assert_eq!(pages.doubts.take(Instant::now()), [(home(), None)]);
        add(&mut pages, 2, 10);
        assert_eq!(pages.notes.len(), 2);
        assert!(!pages.doubts.answers(&home()), "it is being asked already");
        pages.doubt(&home(), Instant::now());
        pages.doubts.asked(&home(), Queues::new(), Instant::now());
        add(&mut pages, 3, 10);
        assert_eq!(pages.notes.len(), 3, "it has failed again meanwhile");
        assert!(pages.doubts.answers(&home()));
        assert_eq!(pages.doubts.take(Instant::now()), [(home(), None)]);
        pages.doubts.asked(&home(), Queues::new(), Instant::now());
        add(&mut pages, 4, 10);
        assert_eq!(pages.notes.len(), 3);
    }
    /// The breaker refuses one queue alone, or holds it back, without a call to the home. That counted as an answer, and the home
    /// was asked what it remembers while it was away.
    #[tokio::test(start_paused = true)]
    async fn a_refusal_does_not_say_that_the_home_is_back() {
        let (mut pages, now) = (Pages::default(), Instant::now());
        add(&mut pages, 1, 10);
        assert!(!pages.heard(&home(), says(ErrorKind::Unavailable), now));
        for refusal in [ErrorKind::Busy, ErrorKind::Misconfigured] {
            assert!(!pages.heard(&home(), says(refusal), now));
            assert!(pages.doubts.take(Instant::now()).is_empty(), "{refusal}");
        }
        assert!(pages.heard(&home(), says(ErrorKind::Superseded), now));
        assert_eq!(pages.doubts.take(Instant::now()), [(home(), None)]);
    }
}
