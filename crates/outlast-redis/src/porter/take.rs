//! The source of a move: taking tasks out of everybody's reach, and forgetting them or giving them back.

use std::collections::BTreeMap;
use std::time::Duration;

use outlast_core::limits::{STATS_DAYS, check_batch};
use outlast_core::porter::{
    Batch, Concluded, Conclusion, Counts, DayCount, Found, Load, Order, Parcel, stamp_at,
};
use outlast_core::{BrokerError, Kind, QueueName, SessionId, Stamp, TaskId, Timestamp};
use redis::Value;

use super::parcel::Row;
use crate::answer;
use crate::broker::Inner;
use crate::claim::size;
use crate::conn::Call;
use crate::keys::Keys;
use crate::scripts::{PORTER_CONCLUDE, PORTER_LOOK, PORTER_TAKE};

const DAY: Duration = Duration::from_secs(86_400);

impl Inner {
    /// Takes a batch, or answers the one that is on its way; see [`outlast_core::Porter::take`].
    pub(super) async fn take_batch(
        &self,
        queue: &QueueName,
        order: &Order,
        now: Timestamp,
    ) -> Result<Option<Batch>, BrokerError> {
        order.check()?;
        let keys = self.root.queue(queue);
        let counters = counter_names(now);
        let mut names = collections(&keys);
        names.extend(counters.iter().map(|name| keys.key(name)));
        let mut call = Call::new(&PORTER_TAKE, names);
        let target = order.target.as_ref().map_or("", |target| &*target.0);
        call.text(keys.prefix()).text(target).text(session_text(order.session));
        call.int(now.as_millis()).int(size(order.tasks_max)).int(size(order.bytes_max));
        call.int(size(counters.len()));
        for name in counters {
            call.text(name);
        }
        for id in &order.except {
            call.text(id.as_str());
        }
        let mut answer = answer::list(self.admin.script(&call).await?)?.into_iter();
        self.hub.used(queue);
        let mut next = || answer.next().unwrap_or_default();
        match answer::text(next())?.as_str() {
            "E" => Ok(None),
            "T" => Err(elsewhere(queue, &answer::text(next())?)),
            _ => {
                let session = session_of(&answer::text(next())?)?;
                let (number, previous) = (answer::int(next())?, answer::int(next())?);
                let taken_at = Timestamp::from_millis(answer::int(next())?);
                let (rows, counts) = (answer::list(next())?, counts_of(next())?);
                let seq = number.unsigned_abs();
                let stamp = Stamp { seq, ..stamp_at(session, 0, taken_at) };
                let mut batch = Batch {
                    stamp,
                    previous: previous.unsigned_abs(),
                    taken_at,
                    load: Load { parcels: Vec::new(), counts },
                    unreadable: Vec::new(),
                };
                for found in self.read_rows(queue, rows, now).await? {
                    match found {
                        Ok(parcel) => batch.load.parcels.push(parcel),
                        Err(flawed) => batch.unreadable.push(flawed),
                    }
                }
                Ok(Some(batch))
            }
        }
    }

    /// Ends a batch; see [`outlast_core::Porter::conclude`].
    pub(super) async fn conclude_batch(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        end: &Conclusion,
    ) -> Result<Concluded, BrokerError> {
        let keys = self.root.queue(queue);
        let mut call = Call::new(&PORTER_CONCLUDE, collections(&keys));
        call.text(keys.prefix()).text(session_text(stamp.session)).text(stamp.seq.to_string());
        call.int(i64::from(STATS_DAYS + 1) * 86_400);
        match end {
            Conclusion::GivenBack => {
                call.fixed("1").text(self.root.queues()).text(queue.as_str());
            }
            Conclusion::Stored { ids } => {
                call.fixed("").text(self.root.queues()).text(queue.as_str());
                for id in ids {
                    call.text(id.as_str());
                }
            }
        }
        let is_ended = answer::int(self.admin.script(&call).await?)? == 1;
        self.hub.used(queue);
        Ok(if is_ended { Concluded::Ended } else { Concluded::NotOnItsWay })
    }

    /// Tasks as they would travel; see [`outlast_core::Porter::parcels`].
    pub(super) async fn parcels(
        &self,
        queue: &QueueName,
        ids: &[TaskId],
        now: Timestamp,
    ) -> Result<Vec<Found>, BrokerError> {
        check_batch("batch of ids", ids.len())?;
        let keys = self.root.queue(queue);
        let names = ["lease", "scheduled", "retry", "archived", "completed"];
        let mut call = Call::new(&PORTER_LOOK, names.map(|name| keys.key(name)).into());
        call.text(keys.prefix());
        for id in ids {
            call.text(id.as_str());
        }
        let answers = answer::list(self.admin.script(&call).await?)?;
        let is_there = |row: &Value| !matches!(row, Value::Nil | Value::Boolean(_));
        let there: Vec<bool> = answers.iter().map(is_there).collect();
        let rows = answers.into_iter().filter(is_there).collect();
        let mut found = self.read_rows(queue, rows, now).await?.into_iter();
        let mut next = |there: bool| match if there { found.next() } else { None } {
            Some(Ok(parcel)) => Found::Parcel(Box::new(parcel)),
            Some(Err((_, why))) => Found::Unreadable(why),
            None => Found::Missing,
        };
        Ok(there.into_iter().map(&mut next).collect())
    }

    /// Reads rows as parcels, with the time that their locks have left. What cannot be read is named with
    /// the reason.
    async fn read_rows(
        &self,
        queue: &QueueName,
        rows: Vec<Value>,
        now: Timestamp,
    ) -> Result<Vec<Result<Parcel, (TaskId, String)>>, BrokerError> {
        let rows = rows.into_iter().map(Row::read).collect::<Result<Vec<_>, _>>()?;
        let mut parcels: Vec<_> = rows
            .iter()
            .map(|row| row.parcel(self.root.as_str(), queue, now).map_err(|why| (row.id(), why)))
            .collect();
        let mut locked: Vec<&mut Parcel> =
            parcels.iter_mut().flatten().filter(|parcel| parcel.lock.is_some()).collect();
        if !locked.is_empty() {
            self.find_locks(queue, &mut locked, now).await?;
        }
        Ok(parcels)
    }
}

/// The collections that `porter_take.lua` and `porter_conclude.lua` take.
fn collections(keys: &Keys) -> Vec<String> {
    let names = [
        "outlast:move",
        "outlast:outgoing",
        "outlast:outgoing:counters",
        "pending",
        "scheduled",
        "retry",
        "archived",
        "completed",
        "groups",
        "outlast:groups",
    ];
    names.map(|name| keys.key(name)).into()
}

/// The counters of a queue by the last part of their keys: the totals, and the days that are kept.
fn counter_names(now: Timestamp) -> Vec<String> {
    let mut names = vec!["processed".to_owned(), "failed".to_owned()];
    for back in 0..=STATS_DAYS {
        let date = now.minus(DAY * back).date();
        names.extend([format!("processed:{date}"), format!("failed:{date}")]);
    }
    names
}

fn counts_of(value: Value) -> Result<Counts, BrokerError> {
    let mut counts = Counts::default();
    let mut days: BTreeMap<i64, DayCount> = BTreeMap::new();
    for (name, count) in crate::people::pairs(value)? {
        // Somebody else's doing: not worth a move that never ends.
        let Ok(count) = count.parse::<u64>() else {
            tracing::warn!(name, count, "a counter is no number and does not move");
            continue;
        };
        match name.split_once(':') {
            None if name == "processed" => counts.processed = count,
            None => counts.failed = count,
            Some((counter, date)) => {
                let Some(day) = day_of(date) else { continue };
                let entry = DayCount { day, processed: 0, failed: 0 };
                let entry = days.entry(day).or_insert(entry);
                if counter == "processed" { entry.processed = count } else { entry.failed = count }
            }
        }
    }
    counts.days = days.into_values().collect();
    Ok(counts)
}

/// A date as days since the epoch.
fn day_of(date: &str) -> Option<i64> {
    let moment: Timestamp = format!("{date}T00:00:00Z").parse().ok()?;
    Some(moment.as_days())
}

fn session_text(session: SessionId) -> String {
    format!("{:032x}", session.0)
}

fn session_of(text: &str) -> Result<SessionId, BrokerError> {
    u128::from_str_radix(text, 16).map(SessionId).map_err(|error| {
        BrokerError::new(Kind::Corrupt, format!("could not read the session {text:?} of a move"))
            .with_source(error)
    })
}

fn elsewhere(queue: &QueueName, target: &str) -> BrokerError {
    BrokerError::rejected(format!(
        "queue {queue} has a batch on its way to another broker (its epoch is {target}): finish that move \
         first"
    ))
}
