//! Acting on tasks by hand, one call one transaction of bounded size.

use bytes::Bytes;
use outlast_core::limits::{ACT_MAX, PAYLOAD_BYTES_MAX, check_count};
use outlast_core::state::Event;
use outlast_core::{
    Acted, Action, BrokerError, Command, LeaseToken, PageRequest, QueueName, Refusal, Selector,
    TaskId, TaskState, Timestamp,
};
use rusqlite::{OptionalExtension, params};

use super::queries;
use super::select::{self, At, Found, Walk};
use crate::enqueue::release_lock;
use crate::error::Fail;
use crate::rows::Stored;
use crate::tally::Q;
use crate::writer::Tx;
use crate::{beat, groups, moves};

/// Rows one call looks at: some milliseconds during which nobody else writes.
const LOOKS_MAX: usize = 20_000;

/// Acts; see [`outlast_core::Inspect::act`].
pub(super) fn act(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    action: &Action,
    select: &Selector,
    page: &PageRequest,
    now: Timestamp,
) -> Result<Acted, Fail> {
    let from = At::parse(page.cursor.as_ref())?;
    let state = queries::check(select)?;
    check_payload(action)?;
    check_count("page limit", page.limit, ACT_MAX)?;
    let limit = page.limit;
    let Some(q) = tx.tally.find(tx.conn, queue)? else {
        let refused = select.ids.iter().map(|id| (id.clone(), Refusal::NotFound)).collect();
        return Ok(Acted { refused, ..Acted::default() });
    };
    let hand = Hand { queue, q, qid: tx.tally.qid(q), action, now };
    match (state, select.ids.is_empty()) {
        (Some(state), true) => hand.on_state(tx, state, select, limit, from),
        _ => hand.on_named(tx, select, limit, from),
    }
}

fn check_payload(action: &Action) -> Result<(), BrokerError> {
    match action {
        Action::SetPayload(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
            let bytes = payload.len();
            let why = format!("payload of {bytes} bytes is too large: at most {PAYLOAD_BYTES_MAX}");
            Err(BrokerError::rejected(why))
        }
        _ => Ok(()),
    }
}

struct Hand<'a> {
    queue: &'a QueueName,
    q: Q,
    qid: i64,
    action: &'a Action,
    now: Timestamp,
}

impl Hand<'_> {
    /// On all tasks of a state. What is done leaves the state or keeps its place in it, and the walk
    /// goes on behind the last row it looked at: so nothing is met twice or left out.
    fn on_state(
        &self,
        tx: &mut Tx<'_>,
        state: TaskState,
        select: &Selector,
        limit: usize,
        from: At,
    ) -> Result<Acted, Fail> {
        let mut acted = Acted::default();
        if self.refusal(state, false).is_some() {
            return Ok(acted);
        }
        let (queue, qid, now) = (self.queue, self.qid, self.now);
        let walk = Walk { queue, qid, select, limit, looks_max: LOOKS_MAX, now };
        let Found { tasks, next } = walk.state(tx.conn, state, from)?;
        for stored in &tasks {
            if self.refusal(state, stored.set.is_some()).is_none() {
                self.apply(tx, stored)?;
                acted.changed += 1;
            }
        }
        acted.next = next.map(At::cursor);
        Ok(acted)
    }

    /// On named tasks, in the order of the names; the cursor counts names.
    fn on_named(
        &self,
        tx: &mut Tx<'_>,
        select: &Selector,
        limit: usize,
        from: At,
    ) -> Result<Acted, Fail> {
        select::check_ids(&select.ids)?;
        let begin = usize::try_from(from.rid).unwrap_or(0);
        let mut acted = Acted::default();
        for (at, id) in select.ids.iter().enumerate().skip(begin) {
            if at >= begin + limit {
                acted.next = Some(At { key: 0, rid: at.cast_signed() as i64 }.cursor());
                break;
            }
            match self.named(tx, select, id)? {
                None => acted.changed += 1,
                Some(refusal) => acted.refused.push((id.clone(), refusal)),
            }
        }
        Ok(acted)
    }

    fn named(
        &self,
        tx: &mut Tx<'_>,
        select: &Selector,
        id: &TaskId,
    ) -> Result<Option<Refusal>, Fail> {
        let Some(stored) = select::by_id(tx.conn, self.queue, id, self.now)? else {
            return Ok(Some(Refusal::NotFound));
        };
        if let Some(refusal) = self.refusal(stored.task.state, stored.set.is_some()) {
            return Ok(Some(refusal));
        }
        if !select.matches(&stored.task) {
            return Ok(Some(Refusal::NotFound));
        }
        self.apply(tx, &stored)?;
        Ok(None)
    }

    /// Why the action cannot be done to a task in this state; the answer is the table's.
    fn refusal(&self, state: TaskState, in_set: bool) -> Option<Refusal> {
        let event = match self.action {
            Action::Run => Event::RunByHand,
            Action::Archive => Event::ArchiveByHand,
            Action::Delete => Event::DeleteByHand,
            Action::Cancel => return (state != TaskState::Active).then_some(Refusal::NotActive),
            Action::SetPayload(_) => {
                return (state != TaskState::Scheduled).then_some(Refusal::NotScheduled);
            }
            _ => return Some(Refusal::NotFound),
        };
        if in_set {
            return Some(Refusal::InAggregation);
        }
        if moves::is_allowed(state, event) {
            return None;
        }
        Some(match (state, event) {
            (TaskState::Active, _) => Refusal::Active,
            (TaskState::Pending, _) => Refusal::AlreadyPending,
            _ => Refusal::AlreadyArchived,
        })
    }

    fn apply(&self, tx: &mut Tx<'_>, stored: &Stored) -> Result<(), Fail> {
        match self.action {
            Action::Run => self.run(tx, stored),
            Action::Archive => self.archive(tx, stored),
            Action::Delete => self.delete(tx, stored),
            Action::Cancel => self.cancel(tx, stored),
            Action::SetPayload(payload) => self.set_payload(tx, stored, payload),
            // Refused before.
            _ => Ok(()),
        }
    }

    fn run(&self, tx: &mut Tx<'_>, stored: &Stored) -> Result<(), Fail> {
        let row = tx.tally.row(self.q);
        row.moved(stored.task.state, TaskState::Pending);
        let place = row.back();
        let now = self.now.as_millis();
        tx.conn.prepare_cached(moves::TO_PENDING)?.execute([stored.rid, place, now])?;
        self.left_group(tx, stored)?;
        tx.ready(self.queue);
        Ok(())
    }

    fn archive(&self, tx: &mut Tx<'_>, stored: &Stored) -> Result<(), Fail> {
        tx.tally.row(self.q).moved(stored.task.state, TaskState::Archived);
        let now = self.now.as_millis();
        tx.conn.prepare_cached(moves::ARCHIVE_BY_HAND)?.execute([stored.rid, now])?;
        self.left_group(tx, stored)
    }

    fn delete(&self, tx: &mut Tx<'_>, stored: &Stored) -> Result<(), Fail> {
        let key: Option<String> = tx
            .conn
            .prepare_cached("SELECT unique_key FROM task WHERE rid = ?1")?
            .query_row([stored.rid], |row| row.get(0))?;
        release_lock(tx.conn, self.qid, key.as_deref(), stored.task.id.as_str())?;
        tx.conn.prepare_cached(moves::DELETE)?.execute([stored.rid])?;
        tx.tally.row(self.q).left(stored.task.state);
        self.left_group(tx, stored)
    }

    fn left_group(&self, tx: &Tx<'_>, stored: &Stored) -> Result<(), Fail> {
        if let (TaskState::Aggregating, Some(group)) = (stored.task.state, &stored.task.group) {
            groups::changed(tx.conn, self.qid, group.as_str(), -1, 0)?;
        }
        Ok(())
    }

    /// Tells the worker that holds the lease, and wakes it.
    fn cancel(&self, tx: &mut Tx<'_>, stored: &Stored) -> Result<(), Fail> {
        let token: Option<u32> = tx
            .conn
            .prepare_cached("SELECT token FROM task WHERE rid = ?1")?
            .query_row([stored.rid], |row| row.get(0))
            .optional()?;
        let command = Command::Cancel { queue: self.queue.clone(), id: stored.task.id.clone() };
        match token.and_then(LeaseToken::new) {
            Some(token) => beat::post(tx, token, &command, self.now),
            None => Ok(()),
        }
    }

    fn set_payload(&self, tx: &mut Tx<'_>, stored: &Stored, payload: &Bytes) -> Result<(), Fail> {
        tx.conn
            .prepare_cached("UPDATE task SET payload = ?2 WHERE rid = ?1")?
            .execute(params![stored.rid, &payload[..]])?;
        Ok(())
    }
}
