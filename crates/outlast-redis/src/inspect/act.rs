//! Acting on tasks by hand. Every step is a script that checks each task's state before it touches it, so
//! what was listed a moment ago and has moved on since is left alone.

use std::collections::HashMap;

use bytes::Bytes;
use outlast_core::limits::{ACT_MAX, ARCHIVE_AGE, PAYLOAD_BYTES_MAX, check_count};
use outlast_core::{
    Acted, Action, BrokerError, Command, PageRequest, QueueName, Refusal, Selector, TaskState,
    Timestamp,
};

use super::cursor::At;
use super::read::{bytes_of, id_of};
use super::select::{Found, check, is_whole, named_from};
use super::walk::begin;
use crate::answer;
use crate::broker::Inner;
use crate::claim::size;
use crate::command;
use crate::conn::Call;
use crate::proto::TaskMessage;
use crate::record::{nanos_text, seconds_text};
use crate::scripts::ACT;

/// Tasks that one script acts on: a few milliseconds of the server's time.
const ACT_STEP: usize = 250;

/// By how much ids may have moved to the running end since they were listed, and still be found at once.
const MOVED_MAX: usize = 1000;

/// Ids looked through beyond those that are acted on.
const SLACK: usize = 64;

/// What is done to some tasks of a queue.
struct Step<'a> {
    queue: &'a QueueName,
    action: &'a Action,
    /// The state in which all of them must be, or any.
    expected: Option<TaskState>,
    /// Between which places of the pending list they should be.
    reach: (usize, usize),
    /// Whether they were looked for in all of it.
    is_last: bool,
    now: Timestamp,
}

impl Inner {
    /// Acts on the tasks that a selector matches; see [`outlast_core::Inspect::act`].
    pub(super) async fn act(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        check_count("page limit", page.limit, ACT_MAX)?;
        check_payload(action)?;
        match check(select)? {
            Some(state) => self.act_on_state(queue, action, select, (state, page), now).await,
            None => self.act_on_named(queue, action, select, page, now).await,
        }
    }

    /// On the tasks of a state. Who refuses is left as it is and not named.
    async fn act_on_state(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        (state, page): (TaskState, &PageRequest),
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        let place = self.place(queue, state, select.group.as_ref()).await?;
        let from = begin(&place, page)?;
        let mut acted = Acted::default();
        if !is_possible(action, state) {
            return Ok(acted);
        }
        let start = match &from {
            Some(At::Line(line)) => usize::try_from(line.right).unwrap_or(0),
            Some(At::Member { .. } | At::Named { .. }) | None => 0,
        };
        let (ids, looks, next) = if is_whole(select) {
            let stretch = self.stretch(&place, from.as_ref(), page.limit).await?;
            let next = stretch.after(stretch.ids.len(), from.as_ref());
            (stretch.ids.clone(), stretch.ids.len(), next)
        } else {
            let found = Found::new(page.limit);
            let (found, next) = self.walk(queue, select, &place, from, found, now).await?;
            (found.tasks.iter().map(|task| bytes_of(&task.id)).collect(), found.looks, next)
        };
        let reach = (start.saturating_sub(MOVED_MAX), start + looks + SLACK);
        let step = Step { queue, action, expected: Some(state), reach, is_last: false, now };
        let letters = self.act_all(&step, &ids).await?;
        acted.changed = letters.iter().filter(|letter| letter.is_none()).count() as u64;
        acted.next = next.map(|at| at.cursor());
        Ok(acted)
    }

    /// On named tasks, by the bytes of their ids. Who refuses is named, with the reason.
    async fn act_on_named(
        &self,
        queue: &QueueName,
        action: &Action,
        select: &Selector,
        page: &PageRequest,
        now: Timestamp,
    ) -> Result<Acted, BrokerError> {
        let mut ids = named_from(select, page)?;
        let mut acted = Acted::default();
        if ids.len() > page.limit {
            ids.truncate(page.limit);
            let last = ids.last().cloned();
            acted.next = last.map(|id| At::Named { id }.cursor());
        }
        if !(is_whole(select) && select.state.is_none() && select.group.is_none()) {
            let matching = self.matching(queue, select, &ids, now).await?;
            let others = ids.iter().filter(|id| !matching.contains(id));
            acted.refused = others.map(|id| (id_of(id), Refusal::NotFound)).collect();
            ids = matching;
        }
        let reach = (0, 2 * ids.len() + SLACK);
        let step = Step { queue, action, expected: select.state, reach, is_last: false, now };
        for (id, letter) in ids.iter().zip(self.act_all(&step, &ids).await?) {
            match letter {
                None => acted.changed += 1,
                Some(why) => acted.refused.push((id_of(id), why)),
            }
        }
        Ok(acted)
    }

    /// Those of the named tasks that the selector's other fields match.
    async fn matching(
        &self,
        queue: &QueueName,
        select: &Selector,
        ids: &[Bytes],
        now: Timestamp,
    ) -> Result<Vec<Bytes>, BrokerError> {
        let named = Selector { ids: ids.iter().map(id_of).collect(), ..select.clone() };
        let mut page = PageRequest::first(ids.len().max(1));
        let mut matching = Vec::new();
        loop {
            let (found, next) = self.named(queue, &named, &page, now).await?;
            matching.extend(found.tasks.iter().map(|task| bytes_of(&task.id)));
            match next {
                Some(at) => page.cursor = Some(at.cursor()),
                None => return Ok(matching),
            }
        }
    }

    /// Acts on each of these tasks; answers why one was left alone.
    async fn act_all(
        &self,
        step: &Step<'_>,
        ids: &[Bytes],
    ) -> Result<Vec<Option<Refusal>>, BrokerError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut letters = self.act_once(step, ids).await?;
        let mut lost = lost_in_line(ids, &letters);
        if !lost.is_empty() {
            let key = self.root.queue(step.queue).key("pending");
            let mut from = 0;
            while let Some(found) = self.find(&key, &lost, from).await? {
                let here: Vec<Bytes> = found.found.into_iter().map(|(id, _)| id).collect();
                let begin = usize::try_from(from).unwrap_or(0).saturating_sub(MOVED_MAX);
                let end = usize::try_from(found.next).unwrap_or(usize::MAX).saturating_add(SLACK);
                let step = Step { reach: (begin, end), ..*step };
                self.act_again(&step, ids, &here, &mut letters).await?;
                lost = lost_in_line(ids, &letters);
                if lost.is_empty() {
                    break;
                }
                from = found.next;
            }
            // What is in no line is pending by its own word only.
            let step = Step { is_last: true, ..*step };
            self.act_again(&step, ids, &lost, &mut letters).await?;
        }
        Ok(letters.iter().map(|letter| refusal(letter)).collect())
    }

    /// Acts once more on some of the tasks, and puts the new answers in place of the old ones.
    async fn act_again(
        &self,
        step: &Step<'_>,
        ids: &[Bytes],
        some: &[Bytes],
        letters: &mut [String],
    ) -> Result<(), BrokerError> {
        if some.is_empty() {
            return Ok(());
        }
        let answers = self.act_once(step, some).await?;
        let mut answers: HashMap<&Bytes, String> = some.iter().zip(answers).collect();
        for (id, letter) in ids.iter().zip(letters) {
            if let Some(answer) = answers.remove(id) {
                *letter = answer;
            }
        }
        Ok(())
    }

    async fn act_once(&self, step: &Step<'_>, ids: &[Bytes]) -> Result<Vec<String>, BrokerError> {
        let mut letters = Vec::with_capacity(ids.len());
        for some in ids.chunks(ACT_STEP) {
            let answer = answer::list(self.admin.script(&self.act_call(step, some)).await?)?;
            for (id, letter) in some.iter().zip(answer) {
                let letter = answer::text(letter)?;
                log_trouble(step.queue, id, &letter);
                letters.push(letter);
            }
        }
        Ok(letters)
    }

    fn act_call(&self, step: &Step<'_>, ids: &[Bytes]) -> Call {
        let Step { queue, action, expected, reach, is_last, now } = step;
        let keys = self.root.queue(queue);
        let names = ["pending", "active", "lease", "scheduled", "retry", "archived", "completed"];
        let mut all: Vec<String> = names.map(|name| keys.key(name)).into();
        all.extend(["groups", "aggregation_sets"].map(|name| keys.key(name)));
        let mut call = Call::new(&ACT, all);
        call.text(keys.prefix()).text(self.root.as_str()).fixed(letter(action));
        call.fixed(expected.map_or("", TaskState::as_str));
        call.text(seconds_text(*now)).text(nanos_text(*now));
        call.bytes(payload_field(action)).int(size(reach.0)).int(size(reach.1));
        call.fixed(if *is_last { "1" } else { "" });
        call.int(size(self.options.archive_max)).text(ARCHIVE_AGE.as_secs().to_string());
        for id in ids {
            call.bytes(id.clone());
            match action {
                Action::Cancel => {
                    let cancel = Command::Cancel { queue: (*queue).clone(), id: id_of(id) };
                    call.text(command::encode(&cancel))
                }
                _ => call.fixed(""),
            };
        }
        call
    }
}

fn check_payload(action: &Action) -> Result<(), BrokerError> {
    match action {
        Action::SetPayload(payload) if payload.len() > PAYLOAD_BYTES_MAX => {
            let bytes = payload.len();
            let why = format!("payload of {bytes} bytes is too large: at most {PAYLOAD_BYTES_MAX}");
            Err(BrokerError::rejected(why))
        }
        Action::Run | Action::Archive | Action::Delete | Action::Cancel | Action::SetPayload(_) => {
            Ok(())
        }
        other => Err(BrokerError::rejected(format!("action {other:?} is unknown here"))),
    }
}

/// The action as `act.lua` knows it.
fn letter(action: &Action) -> &'static str {
    match action {
        Action::Run => "r",
        Action::Archive => "a",
        Action::Delete => "d",
        Action::Cancel => "c",
        Action::SetPayload(_) => "p",
        // Refused before.
        _ => "",
    }
}

/// Whether the table lets the action be done to any task of this state.
fn is_possible(action: &Action, state: TaskState) -> bool {
    match action {
        Action::Run => !matches!(state, TaskState::Active | TaskState::Pending),
        Action::Archive => !matches!(state, TaskState::Active | TaskState::Archived),
        Action::Delete => state != TaskState::Active,
        Action::Cancel => state == TaskState::Active,
        Action::SetPayload(_) => state == TaskState::Scheduled,
        _ => false,
    }
}

/// A new payload as a field of a message.
fn payload_field(action: &Action) -> Bytes {
    match action {
        Action::SetPayload(payload) => {
            TaskMessage { payload: payload.clone(), ..TaskMessage::default() }.encode().into()
        }
        _ => Bytes::new(),
    }
}

/// The tasks that are pending, but not where they should be.
fn lost_in_line(ids: &[Bytes], letters: &[String]) -> Vec<Bytes> {
    let each = ids.iter().zip(letters);
    each.filter(|(_, letter)| *letter == "W").map(|(id, _)| id.clone()).collect()
}

/// Says what no refusal has a word for.
fn log_trouble(queue: &QueueName, id: &Bytes, letter: &str) {
    let id = id_of(id);
    match letter {
        "X" => tracing::warn!(%queue, %id, "a message cannot be read, and so not changed"),
        "F" => tracing::warn!(%queue, %id, "the task's worker takes no more commands"),
        _ => {}
    }
}

/// Why a task was left alone, by the letter of `act.lua`.
fn refusal(letter: &str) -> Option<Refusal> {
    Some(match letter {
        "" => return None,
        "A" => Refusal::Active,
        "I" | "F" => Refusal::NotActive,
        "P" => Refusal::AlreadyPending,
        "R" => Refusal::AlreadyArchived,
        "G" => Refusal::InAggregation,
        "S" => Refusal::NotScheduled,
        _ => Refusal::NotFound,
    })
}

#[cfg(test)]
mod tests {
    use outlast_core::state::{Event, Next, next};

    use super::*;

    #[test]
    fn what_is_possible_is_what_the_table_allows() {
        let events = [
            (Action::Run, Event::RunByHand),
            (Action::Archive, Event::ArchiveByHand),
            (Action::Delete, Event::DeleteByHand),
        ];
        for (action, event) in events {
            for state in TaskState::ALL {
                let allowed = next(state, event) != Next::Refused;
                assert_eq!(is_possible(&action, state), allowed, "{action:?} {state}");
            }
        }
    }
}
