//! Walking the ids of one state in their order, a stretch at a time, from any place on.
//!
//! Lists are walked from their right end, where tasks run first; a place in them is known by the ids around
//! it. Sorted sets are walked by (score, id); the members of groups lie in many of them, which are merged.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use outlast_core::{BrokerError, GroupName, PageRequest, QueueName, TaskState};
use redis::Value;

use super::cursor::{ANCHORS, At, Line, foreign};
use super::stats::count;
use crate::answer;
use crate::broker::Inner;
use crate::claim::size;
use crate::conn::Call;
use crate::keys::Keys;
use crate::scripts::{INSPECT_FIND, INSPECT_LINE, INSPECT_MEMBERS};

/// How far around its last place an anchor is looked for first.
const NEAR: i64 = 500;

/// Ids of a list that one script passes over: some milliseconds of the server's time.
const FIND_STEP: u64 = 10_000;

/// Sorted sets asked in one call.
const SETS_PER_CALL: usize = 200;

/// Members of each that are asked for at least, where many are merged.
const BLOCK_MIN: usize = 8;

/// Calls under way at once.
pub(super) const CALLS_AT_ONCE: usize = 8;

/// Where the tasks of a state lie.
pub(super) enum Place {
    /// In a list.
    List(String),
    /// In sorted sets.
    Sorted(Vec<String>),
}

/// What a step of a search came to.
pub(super) struct Step {
    /// Ids that are there, with their places from the right end.
    pub(super) found: Vec<(Bytes, u64)>,
    length: u64,
    /// Where to look next.
    pub(super) next: u64,
}

/// Some ids in their order.
pub(super) struct Stretch {
    pub(super) ids: Vec<Bytes>,
    kind: Kind,
}

enum Kind {
    /// Ids of a list: its length, where the stretch begins, what was shown before, and what comes after.
    Line { length: u64, start: u64, before: Vec<Bytes>, ahead: Vec<Bytes> },
    /// Members with their scores; whether more come.
    Members { scores: Vec<String>, has_more: bool },
}

impl Stretch {
    /// Where to go on behind the first `count` ids; `None` at the end. `from` is where the stretch began.
    pub(super) fn after(&self, count: usize, from: Option<&At>) -> Option<At> {
        match &self.kind {
            Kind::Line { length, start, before, ahead } => {
                let rest = self.ids[count..].iter().chain(ahead);
                let after: Vec<Bytes> = rest.take(ANCHORS).cloned().collect();
                let shown = self.ids[..count].iter().rev().chain(before);
                let before = shown.take(ANCHORS).cloned().collect();
                let right = start + count as u64;
                let line = Line { right, left: length.saturating_sub(right), after, before };
                (!line.after.is_empty()).then_some(At::Line(line))
            }
            Kind::Members { scores, has_more } => {
                if count == self.ids.len() && !has_more {
                    return None;
                }
                match count.checked_sub(1) {
                    Some(last) => {
                        let (score, id) = (scores[last].clone(), self.ids[last].clone());
                        Some(At::Member { score, id })
                    }
                    None => from.cloned(),
                }
            }
        }
    }
}

/// The place of a request's cursor in a listing of this kind.
pub(super) fn begin(place: &Place, request: &PageRequest) -> Result<Option<At>, BrokerError> {
    let Some(cursor) = &request.cursor else { return Ok(None) };
    let at = At::parse(cursor)?;
    match (place, &at) {
        (Place::List(_), At::Line(_)) | (Place::Sorted(_), At::Member { .. }) => Ok(Some(at)),
        (_, _) => Err(foreign(cursor)),
    }
}

impl Inner {
    /// Where the tasks of a state lie.
    pub(super) async fn place(
        &self,
        queue: &QueueName,
        state: TaskState,
        group: Option<&GroupName>,
    ) -> Result<Place, BrokerError> {
        let keys = self.root.queue(queue);
        Ok(match state {
            TaskState::Pending | TaskState::Active => Place::List(keys.key(state.as_str())),
            TaskState::Scheduled
            | TaskState::Retry
            | TaskState::Archived
            | TaskState::Completed => Place::Sorted(vec![keys.key(state.as_str())]),
            TaskState::Aggregating => Place::Sorted(self.member_sets(&keys, group).await?),
        })
    }

    /// The sorted sets in which members of this group, or of all, wait or are being aggregated.
    async fn member_sets(
        &self,
        keys: &Keys,
        group: Option<&GroupName>,
    ) -> Result<Vec<String>, BrokerError> {
        let mut found = BTreeSet::new();
        match group {
            Some(group) => {
                found.insert(keys.key(&format!("g:{group}")));
            }
            None => {
                let groups = self.group_names(keys).await?;
                found.extend(groups.iter().map(|group| keys.key(&format!("g:{group}"))));
            }
        }
        for (of, set) in self.sets(keys).await? {
            if group.is_none_or(|group| group.as_str() == of) {
                found.insert(set);
            }
        }
        Ok(found.into_iter().collect())
    }

    /// At most `want` ids from this place on.
    pub(super) async fn stretch(
        &self,
        place: &Place,
        from: Option<&At>,
        want: usize,
    ) -> Result<Stretch, BrokerError> {
        match place {
            Place::List(key) => {
                let from = match from {
                    Some(At::Line(line)) => Some(line),
                    Some(At::Member { .. } | At::Named { .. }) | None => None,
                };
                self.line(key, from, want).await
            }
            Place::Sorted(sets) => self.members(sets, from, want).await,
        }
    }

    async fn line(
        &self,
        key: &str,
        from: Option<&Line>,
        want: usize,
    ) -> Result<Stretch, BrokerError> {
        let Some(line) = from else {
            let begun = self.line_call(key, &Line::default(), "", want).await?;
            return Ok(begun.unwrap_or_else(|| Stretch::line(Vec::new(), 0, 0, want, Vec::new())));
        };
        if let Some(found) = self.line_call(key, line, "1", want).await? {
            return Ok(found);
        }
        let moved = self.far(key, line).await?;
        let line = moved.as_ref().unwrap_or(line);
        let found = self.line_call(key, line, "x", want).await?;
        Ok(found.unwrap_or_else(|| Stretch::line(Vec::new(), 0, 0, want, Vec::new())))
    }

    async fn line_call(
        &self,
        key: &str,
        line: &Line,
        mode: &'static str,
        want: usize,
    ) -> Result<Option<Stretch>, BrokerError> {
        let mut call = Call::new(&INSPECT_LINE, vec![key.to_owned()]);
        call.int(size(want + ANCHORS)).fixed(mode);
        call.text(line.right.to_string()).text(line.left.to_string()).int(NEAR);
        call.int(size(line.after.len()));
        for id in line.after.iter().chain(&line.before) {
            call.bytes(id.clone());
        }
        let mut parts = answer::list(self.admin.script(&call).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let is_found = answer::int(next())? == 1;
        let (length, start) = (answer::int(next())?.unsigned_abs(), answer::int(next())?);
        let ids = all_bytes(next())?;
        let before = line.before.clone();
        let stretch = Stretch::line(ids, length, start.unsigned_abs(), want, before);
        Ok(is_found.then_some(stretch))
    }

    /// Where the anchors are now, if they are no longer near their last place.
    async fn far(&self, key: &str, line: &Line) -> Result<Option<Line>, BrokerError> {
        let anchors: Vec<Bytes> = line.after.iter().chain(&line.before).cloned().collect();
        let mut from = 0;
        while let Some(step) = self.find(key, &anchors, from).await? {
            if let Some((_, right)) = step.found.first() {
                let left = step.length.saturating_sub(*right);
                return Ok(Some(Line { right: *right, left, ..line.clone() }));
            }
            from = step.next;
        }
        Ok(None)
    }

    /// Looks for ids in one step of a list, `from` places from its right end; `None` behind its left end.
    pub(super) async fn find(
        &self,
        key: &str,
        ids: &[Bytes],
        from: u64,
    ) -> Result<Option<Step>, BrokerError> {
        let next = from + FIND_STEP;
        let mut call = Call::new(&INSPECT_FIND, vec![key.to_owned()]);
        call.text(from.to_string()).text(next.to_string());
        for id in ids {
            call.bytes(id.clone());
        }
        let mut numbers = answer::list(self.admin.script(&call).await?)?.into_iter();
        let length = count(numbers.next().unwrap_or_default())?;
        let mut found = Vec::new();
        while let (Some(nth), Some(place)) = (numbers.next(), numbers.next()) {
            let id = usize::try_from(count(nth)?).ok().and_then(|nth| ids.get(nth.checked_sub(1)?));
            let place = count(place)?;
            found.extend(id.map(|id| (id.clone(), place)));
        }
        Ok((from < length).then_some(Step { found, length, next }))
    }

    async fn members(
        &self,
        sets: &[String],
        from: Option<&At>,
        want: usize,
    ) -> Result<Stretch, BrokerError> {
        // One more than wanted tells whether there is more.
        let most = want + 1;
        let block = (2 * most / sets.len().max(1)).clamp(BLOCK_MIN.min(most), most);
        let mut calls = Vec::new();
        for chunk in sets.chunks(SETS_PER_CALL) {
            calls.push(self.blocks(chunk, from, block));
        }
        let blocks: Vec<Vec<VecDeque<Member>>> =
            stream::iter(calls).buffered(CALLS_AT_ONCE).try_collect().await?;
        let mut merge = Merge::new(blocks.into_iter().flatten().collect(), block);
        let mut found: Vec<Member> = Vec::new();
        while found.len() < most {
            let Some((member, dry)) = merge.next() else { break };
            if let Some(nth) = dry {
                let (score, id) = (member.score.clone(), member.id.clone());
                let behind = At::Member { score, id };
                let more = self.blocks(&sets[nth..=nth], Some(&behind), most).await?.pop();
                merge.refill(nth, more.unwrap_or_default(), most);
            }
            // Between two calls a member may have moved from one set to the other.
            if found.last() != Some(&member) {
                found.push(member);
            }
        }
        let has_more = found.len() > want;
        found.truncate(want);
        let scores = found.iter().map(|member| member.score.clone()).collect();
        let ids = found.into_iter().map(|member| member.id).collect();
        Ok(Stretch { ids, kind: Kind::Members { scores, has_more } })
    }

    /// The first members of each of these sets behind a place.
    async fn blocks(
        &self,
        sets: &[String],
        from: Option<&At>,
        block: usize,
    ) -> Result<Vec<VecDeque<Member>>, BrokerError> {
        let mut call = Call::new(&INSPECT_MEMBERS, sets.to_vec());
        call.int(size(block));
        if let Some(At::Member { score, id }) = from {
            call.text(score.as_str()).bytes(id.clone());
        }
        let answer = answer::list(self.admin.script(&call).await?)?;
        answer.into_iter().map(members_of).collect()
    }
}

impl Stretch {
    fn line(
        mut ids: Vec<Bytes>,
        length: u64,
        start: u64,
        want: usize,
        before: Vec<Bytes>,
    ) -> Stretch {
        let ahead = ids.split_off(want.min(ids.len()));
        Stretch { ids, kind: Kind::Line { length, start, before, ahead } }
    }
}

fn all_bytes(value: Value) -> Result<Vec<Bytes>, BrokerError> {
    let each = answer::list(value)?.into_iter();
    each.map(|id| answer::bytes(id).map(Option::unwrap_or_default)).collect()
}

/// A member of a sorted set; ordered by score, then by the bytes of its id.
#[derive(Clone, Debug)]
struct Member {
    number: f64,
    score: String,
    id: Bytes,
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number.total_cmp(&other.number).then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Member {}

/// Reads `{id, score, id, score, …}`.
fn members_of(value: Value) -> Result<VecDeque<Member>, BrokerError> {
    let mut parts = answer::list(value)?.into_iter();
    let mut members = VecDeque::new();
    while let (Some(id), Some(score)) = (parts.next(), parts.next()) {
        let id = answer::bytes(id)?.unwrap_or_default();
        let score = answer::text(score)?;
        // Redis stores no score that is not a number.
        let number = score.parse().unwrap_or_default();
        members.push_back(Member { number, score, id });
    }
    Ok(members)
}

/// Merges blocks of members.
struct Merge {
    heads: BinaryHeap<Reverse<(Member, usize)>>,
    blocks: Vec<VecDeque<Member>>,
    /// Whether a set has more members than were asked for.
    has_more: Vec<bool>,
}

impl Merge {
    fn new(blocks: Vec<VecDeque<Member>>, block: usize) -> Self {
        let has_more = blocks.iter().map(|of| of.len() >= block).collect();
        let mut merge = Self { heads: BinaryHeap::new(), blocks, has_more };
        for nth in 0..merge.blocks.len() {
            merge.draw(nth);
        }
        merge
    }

    fn draw(&mut self, nth: usize) {
        if let Some(member) = self.blocks[nth].pop_front() {
            self.heads.push(Reverse((member, nth)));
        }
    }

    /// The next member, and the set whose block it ended, if that set has more.
    fn next(&mut self) -> Option<(Member, Option<usize>)> {
        let Reverse((member, nth)) = self.heads.pop()?;
        let is_dry = self.blocks[nth].is_empty() && self.has_more[nth];
        self.draw(nth);
        Some((member, is_dry.then_some(nth)))
    }

    fn refill(&mut self, nth: usize, block: VecDeque<Member>, asked: usize) {
        self.has_more[nth] = block.len() >= asked;
        self.blocks[nth] = block;
        self.draw(nth);
    }
}
