//! Listing the tasks that a selector matches. The selector's fields are judged here, task by task, so a call
//! looks at a bounded number of them, whatever it finds.

use bytes::Bytes;
use outlast_core::limits::{PAGE_MAX, check_count};
use outlast_core::{
    BrokerError, Page, PageRequest, QueueName, Selector, TaskRecord, TaskState, Timestamp,
};

use super::cursor::{At, foreign};
use super::read::{Seen, bytes_of, left_out};
use super::walk::{Place, begin};
use crate::broker::Inner;

/// Tasks one call looks at. A page that ends here may be short, and has a cursor to go on.
pub(super) const LOOKS_MAX: usize = 10_000;

/// Ids asked for at once while most of them may not match.
const STRETCH: usize = 500;

/// Payload and result bytes after which a page ends.
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Ids one selector may name: more are a list that belongs into several calls.
const IDS_MAX: usize = 10_000;

/// What a call has found so far.
pub(super) struct Found {
    pub(super) tasks: Vec<TaskRecord>,
    limit: usize,
    pub(super) looks: usize,
    bytes: usize,
}

impl Found {
    pub(super) fn new(limit: usize) -> Self {
        Self { tasks: Vec::new(), limit, looks: 0, bytes: 0 }
    }

    fn is_full(&self) -> bool {
        self.tasks.len() >= self.limit || self.looks >= LOOKS_MAX || self.bytes >= PAGE_BYTES_MAX
    }

    fn look(&mut self, queue: &QueueName, select: &Selector, id: &Bytes, seen: Seen) {
        self.looks += 1;
        match seen {
            Seen::Task(task) if select.matches(&task) => {
                self.bytes += task.payload.len() + task.result.as_ref().map_or(0, Bytes::len);
                self.tasks.push(*task);
            }
            Seen::Task(_) | Seen::Nothing => {}
            Seen::Unreadable(why) => left_out(queue, id, select.state, &why),
        }
    }
}

impl Inner {
    /// A page of tasks; see [`outlast_core::Inspect::tasks`].
    pub(super) async fn tasks(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Page<TaskRecord>, BrokerError> {
        check_count("page limit", page.limit, PAGE_MAX)?;
        let found = match check(select)? {
            Some(state) => {
                let place = self.place(queue, state, select.group.as_ref()).await?;
                let from = begin(&place, page)?;
                let found = Found::new(page.limit);
                self.walk(queue, select, &place, from, found, now).await?
            }
            None => self.named(queue, select, page, now).await?,
        };
        let (found, next) = found;
        Ok(Page { items: found.tasks, next: next.map(|at| at.cursor()) })
    }

    /// Looks at one place from `from` on until there is enough; and where to go on.
    pub(super) async fn walk(
        &self,
        queue: &QueueName,
        select: &Selector,
        place: &Place,
        mut from: Option<At>,
        mut found: Found,
        now: Timestamp,
    ) -> Result<(Found, Option<At>), BrokerError> {
        loop {
            let missing = found.limit - found.tasks.len();
            let want = if is_whole(select) { missing } else { STRETCH };
            let stretch = self.stretch(place, from.as_ref(), want).await?;
            let mut at = 0;
            while at < stretch.ids.len() && !found.is_full() {
                for seen in self.read(queue, &stretch.ids[at..], now).await? {
                    found.look(queue, select, &stretch.ids[at], seen);
                    at += 1;
                    if found.is_full() {
                        break;
                    }
                }
            }
            let next = stretch.after(at, from.as_ref());
            if next.is_none() || found.is_full() || at == 0 {
                return Ok((found, next));
            }
            from = next;
        }
    }

    /// Looks at the tasks that are named, by the bytes of their ids.
    pub(super) async fn named(
        &self,
        queue: &QueueName,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<(Found, Option<At>), BrokerError> {
        let ids = named_from(select, page)?;
        let mut found = Found::new(page.limit);
        let mut at = 0;
        while at < ids.len() {
            let step = &ids[at..ids.len().min(at + STRETCH)];
            for seen in self.read(queue, step, now).await? {
                found.look(queue, select, &ids[at], seen);
                at += 1;
                if found.is_full() && at < ids.len() {
                    return Ok((found, Some(At::Named { id: ids[at - 1].clone() })));
                }
            }
        }
        Ok((found, None))
    }
}

/// The named ids from the request's cursor on, each once, by their bytes.
pub(super) fn named_from(select: &Selector, page: &PageRequest) -> Result<Vec<Bytes>, BrokerError> {
    let count = select.ids.len();
    if count > IDS_MAX {
        let why = format!("selection names {count} ids: at most {IDS_MAX} are allowed");
        return Err(BrokerError::rejected(why));
    }
    let last = match &page.cursor {
        None => None,
        Some(cursor) => match At::parse(cursor)? {
            At::Named { id } => Some(id),
            At::Line(_) | At::Member { .. } => return Err(foreign(cursor)),
        },
    };
    let mut ids: Vec<Bytes> = select.ids.iter().map(bytes_of).collect();
    ids.sort();
    ids.dedup();
    ids.retain(|id| last.as_ref().is_none_or(|last| id > last));
    Ok(ids)
}

/// The state that is to be walked, or `None` where ids are named. A selector of neither is refused.
pub(super) fn check(select: &Selector) -> Result<Option<TaskState>, BrokerError> {
    match (select.state, select.ids.is_empty()) {
        (_, false) => Ok(None),
        (Some(state), true) => Ok(Some(state)),
        (None, true) => Err(BrokerError::rejected("selection names neither a state nor ids")),
    }
}

/// True if every task of the place that is walked matches.
pub(super) fn is_whole(select: &Selector) -> bool {
    let by_place = select.group.is_none() || select.state == Some(TaskState::Aggregating);
    by_place && select.task_type.is_none() && select.text.is_none() && select.before.is_none()
}
