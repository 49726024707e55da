//! Deciding about suspects, each at one moment on the server, and repairing them in the same moment.

use std::borrow::Cow;

use bytes::Bytes;
use outlast_core::limits::LOSSES_MAX;
use outlast_core::{BrokerError, Defect, FsckStep, TaskId, Timestamp};

use super::{Check, Suspect, hash_of};
use crate::answer;
use crate::conn::Call;
use crate::record::{nanos_text, seconds_text};
use crate::scripts::{FSCK_KEYS, FSCK_LOCKS, FSCK_TASK};
use crate::settle::{LEASE_LOST, failure};

/// Suspects, keys or locks that one script decides about at most.
const DECIDED_AT_ONCE: usize = 100;

/// How long a session without an expiry is kept: as long as one that is renewed now.
const SESSION_SECONDS: i64 = 86_400;

/// Members of a set that one script moves back into their group.
const MOVED_AT_ONCE: i64 = 1000;

impl Check {
    /// Decides about tasks.
    pub(super) async fn decide(
        &mut self,
        suspects: Vec<Suspect>,
        now: Timestamp,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let mut rest = &suspects[..];
        while !rest.is_empty() {
            let asked = &rest[..rest.len().min(DECIDED_AT_ONCE)];
            let call = self.task_call(asked, now);
            let answers = answer::list(self.inner.admin.script(&call).await?)?;
            // A script answers for one at least; none would go on for ever.
            rest = &rest[answers.len().clamp(1, asked.len())..];
            for (suspect, found) in asked.iter().zip(answers) {
                for defect in answer::list(found)? {
                    let mut words = answer::list(defect)?.into_iter();
                    let mut word = || answer::text(words.next().unwrap_or_default());
                    let (name, place) = (word()?, word()?);
                    self.judged(suspect, &name, &place, step);
                }
            }
        }
        Ok(())
    }

    fn task_call(&self, suspects: &[Suspect], now: Timestamp) -> Call {
        let names = [
            "pending",
            "active",
            "lease",
            "scheduled",
            "retry",
            "archived",
            "completed",
            "groups",
            "aggregation_sets",
            "outlast:groups",
        ];
        let mut call =
            Call::new(&FSCK_TASK, names.iter().map(|name| self.keys.key(name)).collect());
        call.text(self.keys.prefix()).text(seconds_text(now)).text(nanos_text(now));
        call.fixed(self.repair_flag()).int(self.line_max).int(self.line_max);
        call.int(i64::from(LOSSES_MAX)).bytes(failure(LEASE_LOST, now));
        for place in ["pending", "active"] {
            call.bytes(self.walked.get(place).cloned().unwrap_or_default());
        }
        for suspect in suspects {
            call.bytes(suspect.id.clone()).bytes(suspect.met.clone());
            let (message, why) = suspect.unreadable.clone().unwrap_or_default();
            call.bytes(message).text(why).fixed(self.walks_that_met(&suspect.id));
        }
        call
    }

    fn walks_that_met(&self, id: &Bytes) -> &'static str {
        let hash = hash_of(id);
        match (self.pending.contains(&hash), self.active.contains(&hash)) {
            (true, true) => "pa",
            (true, false) => "p",
            (false, true) => "a",
            (false, false) => "",
        }
    }

    fn judged(&mut self, suspect: &Suspect, name: &str, place: &str, step: &mut FsckStep) {
        let Some(defect) = defect_of(name) else {
            step.undecided += 1;
            return;
        };
        let id = TaskId::stored(&String::from_utf8_lossy(&suspect.id));
        let key = self.keys.task(&id);
        self.tell(step, defect, Some(id), key, in_words(defect, place));
    }

    /// Decides about groups, sets, sessions and the queue itself: kinds and names as `fsck_keys.lua` takes them.
    pub(super) async fn decide_keys(
        &mut self,
        items: &[(&'static str, Bytes)],
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        for asked in items.chunks(DECIDED_AT_ONCE) {
            let answers = answer::list(self.inner.admin.script(&self.keys_call(asked)).await?)?;
            for ((kind, name), found) in asked.iter().zip(answers) {
                let Some(defect) = defect_of(&answer::text(found)?) else { continue };
                let shown = match *kind {
                    "group" | "member" => self.shown_key(&[b"g:", &name[..]].concat()),
                    "queue" => self.inner.root.queues(),
                    _ => String::from_utf8_lossy(name).into_owned(),
                };
                self.tell(step, defect, None, shown, in_words(defect, ""));
                if defect == Defect::StraySet && !self.repair_flag().is_empty() {
                    self.move_back(kind, name).await?;
                }
            }
        }
        Ok(())
    }

    /// Goes on with a set that one script could not move back as a whole.
    async fn move_back(&self, kind: &'static str, name: &Bytes) -> Result<(), BrokerError> {
        let call = self.keys_call(&[(kind, name.clone())]);
        loop {
            let answers = answer::list(self.inner.admin.script(&call).await?)?;
            let found = answers.into_iter().next().map(answer::text).transpose()?;
            if found.as_deref().unwrap_or_default() != Defect::StraySet.as_str() {
                return Ok(());
            }
        }
    }

    fn keys_call(&self, items: &[(&'static str, Bytes)]) -> Call {
        let mut keys = vec![
            self.keys.key("groups"),
            self.keys.key("aggregation_sets"),
            self.keys.key("outlast:groups"),
            self.inner.root.queues(),
        ];
        let tasks = ["pending", "active", "scheduled", "retry", "archived", "completed"];
        keys.extend(tasks.map(|name| self.keys.key(name)));
        let mut call = Call::new(&FSCK_KEYS, keys);
        call.text(self.keys.prefix()).text(self.queue.as_str()).fixed(self.repair_flag());
        call.int(SESSION_SECONDS).int(MOVED_AT_ONCE);
        for (kind, name) in items {
            call.fixed(kind).bytes(name.clone());
        }
        call
    }

    /// Decides about unique locks, given by their keys.
    pub(super) async fn decide_locks(
        &mut self,
        locks: &[String],
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        for asked in locks.chunks(DECIDED_AT_ONCE) {
            let mut call = Call::new(&FSCK_LOCKS, asked.to_vec());
            call.text(self.keys.prefix()).fixed(self.repair_flag());
            let answers = answer::list(self.inner.admin.script(&call).await?)?;
            for (lock, found) in asked.iter().zip(answers) {
                let mut words = answer::list(found)?.into_iter();
                let mut word = || answer::text(words.next().unwrap_or_default());
                let (name, id) = (word()?, word()?);
                if let Some(defect) = defect_of(&name) {
                    let what = in_words(defect, &id);
                    self.tell(step, defect, Some(TaskId::stored(&id)), lock.clone(), what);
                }
            }
        }
        Ok(())
    }
}

/// The defects that scripts name.
const NAMED: [Defect; 16] = [
    Defect::Ghost,
    Defect::Orphan,
    Defect::ResultOnly,
    Defect::Misplaced,
    Defect::Twice,
    Defect::NoLease,
    Defect::NotActive,
    Defect::Unreadable,
    Defect::EmptyGroup,
    Defect::UnlistedGroup,
    Defect::EmptySet,
    Defect::StraySet,
    Defect::StaleLock,
    Defect::NoExpiry,
    Defect::UnlistedQueue,
    Defect::ForeignKey,
];

fn defect_of(name: &str) -> Option<Defect> {
    NAMED.into_iter().find(|defect| defect.as_str() == name)
}

fn in_words(defect: Defect, place: &str) -> String {
    let said: Cow<'_, str> = match defect {
        Defect::Ghost => format!("{place} names a task that does not exist").into(),
        Defect::Orphan if place.is_empty() => "has no state, and is in no collection".into(),
        Defect::Orphan => format!("its state is {place}, and it is in no collection").into(),
        Defect::ResultOnly => "a result or a state is left of a task that is gone".into(),
        Defect::Misplaced => format!("it is in {place}, and its state is another").into(),
        Defect::Twice => format!("it is in {place} once too often").into(),
        Defect::NoLease => "it is active without a lease".into(),
        Defect::NotActive => "it has a lease and is not among the active ones".into(),
        Defect::Unreadable => format!("its record cannot be read: {place}").into(),
        Defect::EmptyGroup => "the group is listed and has no members".into(),
        Defect::UnlistedGroup => "the group has members and is not listed".into(),
        Defect::EmptySet => "the set is listed and does not exist".into(),
        Defect::StraySet => "nobody aggregates the members of this set".into(),
        Defect::StaleLock => format!("the lock outlives its task {place}").into(),
        Defect::NoExpiry => "the session never expires".into(),
        Defect::UnlistedQueue => "the queue holds tasks and is not listed".into(),
        Defect::ForeignKey if place.is_empty() => "the key is of another kind".into(),
        Defect::ForeignKey => format!("the key is a {place}, and not of a task").into(),
        _ => defect.as_str().into(),
    };
    said.into_owned()
}
