//! Walking the collections: who is in one and says otherwise is a suspect.

use std::collections::HashSet;

use bytes::Bytes;
use outlast_core::{BrokerError, Defect, FsckStep, Repair, Timestamp};

use super::{Check, SEEN_MAX, STEP, Suspect, Work, all_bytes, hash_of};
use crate::answer;
use crate::conn::Call;
use crate::scripts::FSCK_MEMBERS;

impl Check {
    pub(super) async fn line(
        &mut self,
        place: &'static str,
        from: i64,
        now: Timestamp,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let mut call = Call::new(&FSCK_MEMBERS, vec![self.keys.key(place)]);
        call.text(self.keys.prefix()).fixed(place).fixed("list").int(from).int(STEP);
        let mut parts = answer::list(self.inner.admin.script(&call).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let (length, ids, strangers) =
            (answer::int(next())?, all_bytes(next())?, all_bytes(next())?);
        let mut suspects = HashSet::<Bytes>::from_iter(strangers);
        suspects.extend(self.see(place, from, &ids));
        step.looked_at += ids.len() as u64;
        let to = from + i64::try_from(ids.len()).unwrap_or(STEP);
        // What is taken out now cannot be where the next stretch begins.
        let stays = |id: &Bytes| self.repair == Repair::No || !suspects.contains(id);
        self.latest = ids.into_iter().rfind(stays);
        let suspects =
            suspects.into_iter().map(|id| Suspect { id, met: place.into(), ..Suspect::default() });
        self.decide(suspects.collect(), now, step).await?;
        if to < length && to > from + 1 {
            let taken_out = match self.repair {
                Repair::Yes => i64::try_from(step.findings.len()).unwrap_or(STEP),
                Repair::No => 0,
            };
            let from = (to - 1 - taken_out).max(from);
            self.work.push_front(Work::Line { place, from });
        } else if let Some(newest) = self.newest.take() {
            self.walked.insert(place, newest);
        }
        Ok(())
    }

    fn seen(&mut self, place: &str) -> &mut HashSet<u64> {
        if place == "pending" { &mut self.pending } else { &mut self.active }
    }

    /// Remembers the ids of a stretch; answers those that seem to be in the list twice. What came in
    /// meanwhile has moved the list: then the stretch begins with ids of the one before.
    fn see(&mut self, place: &str, from: i64, ids: &[Bytes]) -> Vec<Bytes> {
        let last = self.latest.as_ref().filter(|_| from > 0);
        let new =
            last.and_then(|last| ids.iter().rposition(|id| id == last)).map_or(0, |at| at + 1);
        if from == 0 {
            self.newest = ids.first().cloned();
        }
        let seen = self.seen(place);
        let has_room = seen.len() + ids.len() <= SEEN_MAX;
        let mut again = Vec::new();
        for id in &ids[new..] {
            let hash = hash_of(id);
            if seen.contains(&hash) {
                again.push(id.clone());
            } else if seen.len() < SEEN_MAX {
                seen.insert(hash);
            }
        }
        // So many at once are no duplicates: more came in than a stretch is long.
        if from > 0 && new == 0 && again.len() > ids.len() / 2 {
            again.clear();
        }
        if (from > 0 && new == 0) || !has_room {
            self.newest = None;
        }
        again
    }

    pub(super) async fn sorted(
        &mut self,
        place: Bytes,
        state: &'static str,
        cursor: Bytes,
        now: Timestamp,
        step: &mut FsckStep,
    ) -> Result<(), BrokerError> {
        let key = [self.keys.prefix().as_bytes(), &place].concat();
        // Keys are text everywhere in this crate; asynq's are too, unless somebody made one that is none.
        let Ok(key) = String::from_utf8(key) else {
            let key = self.shown_key(&place);
            let what = "its name is not UTF-8, so that its members are not checked".to_owned();
            self.tell(step, Defect::ForeignKey, None, key, what);
            return Ok(());
        };
        let mut call = Call::new(&FSCK_MEMBERS, vec![key]);
        call.text(self.keys.prefix()).fixed(state).fixed("sorted").bytes(cursor).int(STEP);
        let mut parts = answer::list(self.inner.admin.script(&call).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let cursor = answer::bytes(next())?.unwrap_or_default();
        let (ids, strangers) = (all_bytes(next())?, all_bytes(next())?);
        step.looked_at += ids.len() as u64;
        let suspects = strangers.into_iter().map(|id| Suspect {
            id,
            met: place.clone(),
            ..Suspect::default()
        });
        self.decide(suspects.collect(), now, step).await?;
        if cursor != "0" {
            self.work.push_front(Work::Sorted { place, state, cursor });
        }
        Ok(())
    }
}
