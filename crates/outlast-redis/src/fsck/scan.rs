//! Passing over the keys: what belongs to the queue, and whether each task is where it says.

use std::collections::BTreeSet;

use bytes::Bytes;
use outlast_core::{BrokerError, FsckStep, QueueName, Timestamp};
use redis::{Cmd, Value};

use super::{Check, STEP, Suspect, Work, all_bytes, hash_of};
use crate::answer;
use crate::broker::Inner;
use crate::conn::Call;
use crate::proto::TaskMessage;
use crate::scripts::FSCK_LOOK;

/// Bytes of messages after which no further task is read in one call.
const LOOK_BYTES: i64 = 1024 * 1024;

/// Milliseconds by which a producer's clock may be ahead of ours.
const AHEAD_MS: i128 = 60_000;

/// What the name of a key of a queue begins with, by what it is.
const TASK: &[u8] = b"t:";
const MEMBERS: &[u8] = b"g:";
const LOCK: &[u8] = b"unique:";
const SESSION: &[u8] = b"outlast:s:";

impl Check {
    pub(super) async fn groups(
        &mut self,
        cursor: Bytes,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let mut scan = redis::cmd("SSCAN");
        scan.arg(self.keys.key("groups")).arg(&cursor[..]).arg("COUNT").arg(STEP);
        let (cursor, names) = scanned(self.inner.admin.run(&scan).await?)?;
        let items: Vec<_> = names.into_iter().map(|name| ("group", name)).collect();
        step.looked_at += items.len() as u64;
        self.decide_keys(&items, step).await?;
        if let Some(cursor) = cursor {
            self.work.push_front(Work::Groups { cursor });
        }
        Ok(())
    }

    pub(super) async fn sets(
        &mut self,
        cursor: Bytes,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let mut scan = redis::cmd("ZSCAN");
        scan.arg(self.keys.key("aggregation_sets")).arg(&cursor[..]).arg("COUNT").arg(STEP);
        let (cursor, found) = scanned(self.inner.admin.run(&scan).await?)?;
        // Every other one is a score.
        let items: Vec<_> = found.into_iter().step_by(2).map(|key| ("set", key)).collect();
        step.looked_at += items.len() as u64;
        self.decide_keys(&items, step).await?;
        if let Some(cursor) = cursor {
            self.work.push_front(Work::Sets { cursor });
        }
        Ok(())
    }

    pub(super) async fn scan(
        &mut self,
        cursor: Bytes,
        now: Timestamp,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let scan = scan_of(&format!("{}*", escaped(self.keys.prefix())), &cursor);
        let (cursor, keys) = scanned(self.inner.admin.run(&scan).await?)?;
        if let Some(cursor) = cursor {
            self.work.push_front(Work::Keys { cursor });
        }
        step.looked_at += keys.len() as u64;
        let prefix = self.keys.prefix().len();
        let (mut tasks, mut items, mut locks) = (Vec::new(), Vec::new(), Vec::new());
        for key in keys {
            let name = key.slice(prefix.min(key.len())..);
            if name.starts_with(TASK) {
                tasks.push(name.slice(TASK.len()..));
            } else if name.starts_with(MEMBERS) {
                items.push(("member", name.slice(MEMBERS.len()..)));
            } else if name.starts_with(LOCK) {
                locks.push(String::from_utf8_lossy(&key).into_owned());
            } else if name.starts_with(SESSION) {
                items.push(("session", key));
            }
        }
        if let Some(id) = tasks.first() {
            let task = [self.keys.prefix().as_bytes(), TASK, id].concat();
            items.push(("queue", task.into()));
        }
        self.decide_keys(&items, step).await?;
        self.decide_locks(&locks, step).await?;
        self.look(&tasks, now, step).await?;
        let members = items.into_iter().filter(|(kind, _)| *kind == "member");
        for (_, name) in members {
            let (place, cursor) = ([MEMBERS, &name].concat().into(), Bytes::from_static(b"0"));
            self.work.push_front(Work::Sorted { place, state: "aggregating", cursor });
        }
        Ok(())
    }

    /// Reads tasks, and finds out which of them are not where they should be.
    async fn look(
        &mut self,
        ids: &[Bytes],
        now: Timestamp,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let mut rest = ids;
        let names = ["lease", "scheduled", "retry", "archived", "completed"];
        while !rest.is_empty() {
            let keys = names.iter().map(|name| self.keys.key(name)).collect();
            let mut call = Call::new(&FSCK_LOOK, keys);
            call.text(self.keys.prefix()).int(LOOK_BYTES);
            for id in rest {
                call.bytes(id.clone());
            }
            let rows = answer::list(self.inner.admin.script(&call).await?)?;
            // A script answers for one at least; none would go on for ever.
            let (read, others) = rest.split_at(rows.len().clamp(1, rest.len()));
            let mut suspects = Vec::new();
            for (id, row) in read.iter().zip(rows) {
                suspects.extend(self.suspect(id, row, now)?);
            }
            self.decide(suspects, now, step).await?;
            rest = others;
        }
        Ok(())
    }

    fn suspect(
        &self,
        id: &Bytes,
        row: Value,
        now: Timestamp,
    ) -> Result<Option<Suspect>, BrokerError> {
        let mut parts = match row {
            Value::Nil | Value::Boolean(_) => return Ok(None),
            row => answer::list(row)?.into_iter(),
        };
        let mut next = || parts.next().unwrap_or_default();
        let (state, place) = (answer::text(next())?, answer::text(next())?);
        let (message, since) = (answer::bytes(next())?, answer::text(next())?);
        let decoded = message.as_deref().map(TaskMessage::decode);
        let unreadable = match (decoded, message) {
            (Some(Err(error)), Some(message)) => Some((message, error.to_string())),
            (Some(_) | None, _) => None,
        };
        let is_there = match (place.as_str(), state.as_str()) {
            ("y", _) => true,
            ("l", "active") => self.active.contains(&hash_of(id)),
            ("l", _) => self.pending.contains(&hash_of(id)) || self.is_young(&since, now),
            _ => false,
        };
        let suspect = Suspect { id: id.clone(), unreadable, ..Suspect::default() };
        Ok((!is_there || suspect.unreadable.is_some()).then_some(suspect))
    }

    /// Whether a task became pending after the check began: then the walk cannot have met it.
    fn is_young(&self, pending_since: &str, now: Timestamp) -> bool {
        let (Some(began), Ok(since)) = (self.began, pending_since.parse::<i128>()) else {
            return false;
        };
        let millis = since / 1_000_000;
        (i128::from(began.as_millis())..=i128::from(now.as_millis()) + AHEAD_MS).contains(&millis)
    }
}

impl Inner {
    pub(super) async fn queues_with_keys(&self) -> Result<Vec<QueueName>, BrokerError> {
        let mut listed = redis::cmd("SMEMBERS");
        listed.arg(self.root.queues());
        let mut names: BTreeSet<Bytes> =
            all_bytes(self.admin.run(&listed).await?)?.into_iter().collect();
        let start = format!("{}:{{", self.root.as_str());
        let pattern = format!("{}*}}:*", escaped(&start));
        let mut cursor = Some(Bytes::from_static(b"0"));
        while let Some(at) = cursor {
            let (next, keys) = scanned(self.admin.run(&scan_of(&pattern, &at)).await?)?;
            for key in keys {
                let name = key.slice(start.len().min(key.len())..);
                if let Some(end) = name.iter().position(|byte| *byte == b'}') {
                    names.insert(Bytes::copy_from_slice(&name[..end]));
                }
            }
            cursor = next;
        }
        let named = names.iter().map(|name| QueueName::stored(&String::from_utf8_lossy(name)));
        Ok(named.collect())
    }
}

pub(crate) fn scan_of(pattern: &str, cursor: &[u8]) -> Cmd {
    let mut scan = redis::cmd("SCAN");
    scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(STEP);
    scan
}

/// The next cursor, unless it was the last, and what was found.
pub(crate) fn scanned(value: Value) -> Result<(Option<Bytes>, Vec<Bytes>), BrokerError> {
    let mut parts = answer::list(value)?.into_iter();
    let cursor = answer::bytes(parts.next().unwrap_or_default())?.unwrap_or_default();
    let found = all_pairs(parts.next().unwrap_or_default())?;
    Ok(((cursor != "0").then_some(cursor), found))
}

/// Members, and with a sorted set their scores, which may come as pairs or as numbers.
fn all_pairs(value: Value) -> Result<Vec<Bytes>, BrokerError> {
    let mut found = Vec::new();
    for item in answer::list(value)? {
        match item {
            Value::Array(pair) => {
                for part in pair {
                    found.push(answer::text(part)?.into());
                }
            }
            Value::Double(_) => found.push(answer::text(item)?.into()),
            item => found.push(answer::bytes(item)?.unwrap_or_default()),
        }
    }
    Ok(found)
}

/// A text as a pattern that matches it to the letter.
pub(crate) fn escaped(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}
