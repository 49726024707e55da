//! The target of a move: storing tasks in the states that they have.

use std::time::Duration;

use outlast_core::limits::{STATS_DAYS, check_batch};
use outlast_core::porter::{Counts, Delivered, Load, MOVE_TTL, Parcel, PutVerdict};
use outlast_core::{BrokerError, QueueName, Stamp, TaskId, TaskState, Timestamp};

use super::parcel::{lock_key, message_of};
use crate::answer::{self, Status, stamped};
use crate::broker::Inner;
use crate::claim::size;
use crate::conn::Call;
use crate::keys::Keys;
use crate::memory::setting_of;
use crate::record::{id_time, nanos_text, seconds_text};
use crate::scripts::PORTER_PUT;

impl Inner {
    /// Stores a batch; see [`outlast_core::Porter::put`].
    pub(super) async fn put_batch(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        load: &Load,
    ) -> Result<Delivered, BrokerError> {
        check_batch("batch of tasks", load.parcels.len())?;
        let keys = self.root.queue(queue);
        let counters = counters(&keys, &load.counts);
        let mut names = vec![keys.session(stamp.session)];
        names.extend(PLACES.map(|name| keys.key(name)));
        names.extend(counters.iter().map(|counter| counter.key.clone()));
        names.extend(load.parcels.iter().map(|parcel| keys.task(&parcel.task.id)));
        let mut call = Call::new(&PORTER_PUT, names);
        call.int(i64::from(stamp.lane)).text(stamp.seq.to_string());
        call.int(MOVE_TTL.as_secs().cast_signed());
        call.text(self.root.queues()).text(queue.as_str()).text(keys.prefix());
        call.int(size(counters.len()));
        for counter in &counters {
            call.text(counter.by.to_string()).text(&*counter.expires);
        }
        for parcel in &load.parcels {
            self.add_parcel(&mut call, queue, parcel, now);
        }
        let mut answer = stamped(self.admin.script(&call).await?, stamp, "p")?;
        self.hub.used(queue);
        let mut verdicts = vec![PutVerdict::Stored; load.parcels.len()];
        for verdict in answer::verdicts(answer.rest.next().unwrap_or_default())? {
            let slot = verdict.nth.checked_sub(1).and_then(|nth| verdicts.get_mut(nth));
            if let Some(slot) = slot {
                *slot = match verdict.code {
                    b'D' => PutVerdict::Duplicate { of: TaskId::stored(&verdict.word) },
                    _ => PutVerdict::IdConflict,
                };
            }
        }
        let is_repeat = answer.status == Status::Repeated;
        let known = answer.lost.map_or(stamp.seq - 1, |lost| lost.after_seq);
        Ok(Delivered { verdicts, is_repeat, known })
    }

    /// What a crash of the server would take with it; see [`outlast_core::Porter::weakness`].
    pub(super) async fn weakness(&self) -> Option<String> {
        let mut found = Vec::new();
        for name in ["appendonly", "appendfsync"] {
            let mut ask = redis::cmd("CONFIG");
            ask.arg("GET").arg(name);
            found.push(self.admin.run(&ask).await.ok().and_then(setting_of));
        }
        let is = |at: usize| found.get(at).and_then(Option::as_deref);
        match (is(0), is(1)) {
            (Some("yes"), Some("always")) => None,
            (Some("yes"), Some(fsync)) => Some(format!(
                "writes its log to disk {} (`appendfsync {fsync}`): what it stores in the time before a crash \
                 is lost, and the source no longer has it; `appendfsync always` while tasks move prevents it",
                if fsync == "everysec" { "every second" } else { "when its system likes to" },
            )),
            (Some(_), _) => Some(
                "keeps no log (`appendonly no`): what it stores after its last snapshot is lost in a crash, and \
                 the source no longer has it; `appendonly yes` with `appendfsync always` while tasks move \
                 prevents it"
                    .to_owned(),
            ),
            (None, _) => Some(
                "does not tell how it writes to disk: if it is not at once, what it stores before a crash is \
                 lost, and the source no longer has it"
                    .to_owned(),
            ),
        }
    }

    /// A task as `porter_put.lua` takes it.
    fn add_parcel(&self, call: &mut Call, queue: &QueueName, parcel: &Parcel, now: Timestamp) {
        let task = &parcel.task;
        let message = message_of(self.root.as_str(), queue, parcel);
        call.text(task.id.as_str()).fixed(task.state.as_str());
        call.text(seconds_text(parcel.at)).bytes(message.encode());
        let is_pending = task.state == TaskState::Pending;
        call.text(if is_pending { nanos_text(parcel.at) } else { String::new() });
        let accepted = task.enqueued_at.filter(|at| id_time(&task.id) != Some(*at));
        call.text(accepted.map_or_else(String::new, |at| at.as_millis().to_string()));
        call.text(if task.losses > 0 { task.losses.to_string() } else { String::new() });
        match &task.result {
            Some(result) => call.fixed("1").bytes(result.clone()),
            None => call.fixed("").fixed(""),
        };
        call.text(lock_key(self.root.as_str(), queue, parcel));
        let until = parcel.lock.as_ref().and_then(|lock| lock.held_until);
        let left = until.map(|until| until.since(now)).filter(|left| left.as_millis() > 0);
        call.text(left.map_or_else(String::new, |left| left.as_millis().to_string()));
        call.text(task.group.as_ref().map(ToString::to_string).unwrap_or_default());
        call.fixed(if parcel.joins_group { "1" } else { "" });
    }
}

/// The collections that `porter_put.lua` takes.
const PLACES: [&str; 7] =
    ["pending", "scheduled", "retry", "archived", "completed", "groups", "outlast:groups"];

/// A counter that grows.
struct Counter {
    key: String,
    by: u64,
    /// In Unix seconds; empty if it stays.
    expires: String,
}

/// The counters that a move adds to, those of zero left out. A day expires when asynq would forget it.
fn counters(keys: &Keys, counts: &Counts) -> Vec<Counter> {
    let mut all = vec![
        Counter { key: keys.key("processed"), by: counts.processed, expires: String::new() },
        Counter { key: keys.key("failed"), by: counts.failed, expires: String::new() },
    ];
    for day in &counts.days {
        let start = Timestamp::from_seconds(day.day * 86_400);
        let kept = Duration::from_secs(86_400 * u64::from(STATS_DAYS + 1));
        let expires = seconds_text(start.plus(kept));
        for (name, by) in [("processed", day.processed), ("failed", day.failed)] {
            all.push(Counter { key: keys.day(name, start), by, expires: expires.clone() });
        }
    }
    all.retain(|counter| counter.by > 0);
    all
}
