//! Queues in numbers, their days and their groups.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use outlast_core::limits::STATS_DAYS;
use outlast_core::{
    BrokerError, DayStats, GroupName, GroupStats, Kind, QueueName, QueueStats, Timestamp,
};
use redis::Value;

use super::walk::CALLS_AT_ONCE;
use crate::answer;
use crate::broker::Inner;
use crate::conn::Call;
use crate::keys::Keys;
use crate::record::moment_of_score;
use crate::scripts::{INSPECT_BYTES, INSPECT_SIZES, INSPECT_STATS};

/// Groups and aggregation sets that are counted within one call; more are counted chunk by chunk.
const GROUPS_AT_ONCE: i64 = 500;

/// Names or keys per command where there may be many.
const CHUNK: usize = 1000;

/// Tasks of a collection, and groups, whose memory is measured (asynq's samples, contract §3.7).
const SAMPLED_TASKS: i64 = 20;
const SAMPLED_GROUPS: i64 = 5;

impl Inner {
    /// All queues, by name.
    pub(super) async fn queues(&self, now: Timestamp) -> Result<Vec<QueueStats>, BrokerError> {
        let names = self.scan_set(&self.root.queues()).await?;
        let names: Vec<QueueName> = names.iter().map(|name| QueueName::stored(name)).collect();
        let mut calls = Vec::with_capacity(names.len());
        for name in &names {
            calls.push(self.stats(name, now));
        }
        let found: Vec<Option<QueueStats>> =
            stream::iter(calls).buffered(CALLS_AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// One queue, with the memory that it takes.
    pub(super) async fn queue(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError> {
        let Some(mut stats) = self.stats(queue, now).await? else { return Ok(None) };
        stats.bytes = self.bytes(queue, stats.aggregating).await?;
        Ok(Some(stats))
    }

    /// A queue in numbers, without its memory; `None` if it is not listed.
    pub(super) async fn stats(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Option<QueueStats>, BrokerError> {
        let keys = self.root.queue(queue);
        let names = ["pending", "active", "scheduled", "retry", "archived", "completed", "groups"];
        let mut all: Vec<String> = names.map(|name| keys.key(name)).into();
        all.extend(["aggregation_sets", "outlast:groups", "paused"].map(|name| keys.key(name)));
        all.extend(["processed", "failed"].map(|counter| keys.day(counter, now)));
        all.extend(["processed", "failed"].map(|counter| keys.key(counter)));
        let mut call = Call::new(&INSPECT_STATS, all);
        // In a cluster the set of queues lies elsewhere, and is asked by a call of its own.
        call.text(keys.prefix()).text(self.root.queues()).text(queue.as_str());
        call.int(GROUPS_AT_ONCE);
        let answer = answer::list(self.admin.script(&call).await?)?;
        let (is_known, counted, mut stats) = numbers(queue, answer)?;
        if !is_known {
            return Ok(None);
        }
        if counted == Groups::TooMany {
            let groups = self.groups(queue).await?;
            stats.groups = groups.len() as u64;
            stats.aggregating = groups.iter().map(|group| group.size).sum();
        }
        Ok(Some(stats))
    }

    /// Roughly the bytes of a queue; `None` where the server does not tell.
    async fn bytes(&self, queue: &QueueName, aggregating: u64) -> Result<Option<u64>, BrokerError> {
        let keys = self.root.queue(queue);
        let names = ["pending", "active", "scheduled", "retry", "archived", "completed", "groups"];
        let mut call = Call::new(&INSPECT_BYTES, names.map(|name| keys.key(name)).into());
        call.text(keys.prefix()).int(SAMPLED_TASKS).int(SAMPLED_GROUPS);
        call.text(aggregating.to_string());
        match self.admin.script(&call).await {
            Ok(bytes) => Ok(answer::text(bytes)?.parse().ok()),
            // A forbidden command is the script's affair; whatever else a server may have against this
            // question is no reason to refuse the numbers.
            Err(error) if matches!(error.kind(), Kind::Misconfigured | Kind::Rejected) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last days of a queue, newest first. Days without a run are zero.
    pub(super) async fn history(
        &self,
        queue: &QueueName,
        now: Timestamp,
        days: u32,
    ) -> Result<Vec<DayStats>, BrokerError> {
        let keys = self.root.queue(queue);
        let day = |back: u32| now.minus(Duration::from_secs(u64::from(back) * 86_400));
        let days: Vec<Timestamp> = (0..days.min(STATS_DAYS)).map(day).collect();
        if days.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("MGET");
        for at in &days {
            command.arg(keys.day("processed", *at)).arg(keys.day("failed", *at));
        }
        let mut counters = answer::list(self.admin.run(&command).await?)?.into_iter();
        let mut next = || counters.next().unwrap_or_default();
        let each = days.iter().map(|at| {
            let (processed, failed) = (count(next())?, count(next())?);
            Ok(DayStats { queue: queue.clone(), date: at.date(), processed, failed })
        });
        each.collect()
    }

    /// The groups that have members, those of claimed sets included, by name.
    pub(super) async fn groups(&self, queue: &QueueName) -> Result<Vec<GroupStats>, BrokerError> {
        let keys = self.root.queue(queue);
        let names = self.group_names(&keys).await?;
        let mut of: Vec<(String, String)> = Vec::new();
        for group in names {
            let key = keys.key(&format!("g:{group}"));
            of.push((group, key));
        }
        of.extend(self.sets(&keys).await?);
        let mut sizes: BTreeMap<GroupName, u64> = BTreeMap::new();
        for chunk in of.chunks(CHUNK) {
            let all = chunk.iter().map(|(_, key)| key.clone()).collect();
            let found = self.admin.script(&Call::new(&INSPECT_SIZES, all)).await?;
            for ((group, _), members) in chunk.iter().zip(answer::list(found)?) {
                *sizes.entry(GroupName::stored(group)).or_default() += count(members)?;
            }
        }
        sizes.retain(|_, size| *size > 0);
        Ok(sizes.into_iter().map(|(group, size)| GroupStats { group, size }).collect())
    }

    /// The names of groups, also of those that asynq has dropped while tasks wait in them.
    pub(super) async fn group_names(&self, keys: &Keys) -> Result<BTreeSet<String>, BrokerError> {
        let mut names = self.scan_set(&keys.key("groups")).await?;
        names.extend(self.scan_set(&keys.key("outlast:groups")).await?);
        Ok(names)
    }

    /// The claimed sets, each with its group.
    pub(super) async fn sets(&self, keys: &Keys) -> Result<Vec<(String, String)>, BrokerError> {
        let (key, start) = (keys.key("aggregation_sets"), keys.prefix().len() + 2);
        let mut sets = Vec::new();
        loop {
            let mut command = redis::cmd("ZRANGE");
            command.arg(&key).arg(sets.len()).arg(sets.len() + CHUNK - 1);
            let chunk = answer::list(self.admin.run(&command).await?)?;
            let is_last = chunk.len() < CHUNK;
            for set in chunk {
                let set = answer::text(set)?;
                // A group may hold colons; the id of the set holds none.
                let group = set.get(start..).and_then(|name| name.rsplit_once(':'));
                let group = group.map_or("", |(group, _)| group).to_owned();
                sets.push((group, set));
            }
            if is_last {
                return Ok(sets);
            }
        }
    }

    /// All members of a set, in steps.
    async fn scan_set(&self, key: &str) -> Result<BTreeSet<String>, BrokerError> {
        let mut members = BTreeSet::new();
        let mut cursor = String::from("0");
        loop {
            let mut command = redis::cmd("SSCAN");
            command.arg(key).arg(&cursor).arg("COUNT").arg(CHUNK);
            let mut parts = answer::list(self.admin.run(&command).await?)?.into_iter();
            cursor = answer::text(parts.next().unwrap_or_default())?;
            for member in answer::list(parts.next().unwrap_or_default())? {
                members.insert(answer::text(member)?);
            }
            if cursor == "0" {
                return Ok(members);
            }
        }
    }
}

/// Whether the groups could be counted in the same call.
#[derive(PartialEq)]
enum Groups {
    Counted,
    TooMany,
}

/// Reads the answer of `inspect_stats.lua`; and whether the queue is listed.
fn numbers(
    queue: &QueueName,
    answer: Vec<Value>,
) -> Result<(bool, Groups, QueueStats), BrokerError> {
    let mut parts = answer.into_iter();
    let mut next = || parts.next().unwrap_or_default();
    let mut stats = QueueStats::empty(queue.clone());
    let is_known = answer::int(next())? == 1;
    stats.pending = count(next())?;
    stats.active = count(next())?;
    stats.scheduled = count(next())?;
    stats.retry = count(next())?;
    stats.archived = count(next())?;
    stats.completed = count(next())?;
    let since = number::<i128>(next())?;
    stats.oldest_pending = since.map(|nanos| millis_of(nanos.div_euclid(1_000_000)));
    let due = [number::<f64>(next())?, number::<f64>(next())?];
    stats.next_due = due.into_iter().flatten().map(moment_of_score).min();
    stats.paused_since = number(next())?.map(Timestamp::from_seconds);
    stats.processed_today = count(next())?;
    stats.failed_today = count(next())?;
    stats.processed_total = count(next())?;
    stats.failed_total = count(next())?;
    let groups = answer::int(next())?;
    stats.groups = u64::try_from(groups).unwrap_or(0);
    stats.aggregating = count(next())?;
    let counted = if groups < 0 { Groups::TooMany } else { Groups::Counted };
    Ok((is_known, counted, stats))
}

fn millis_of(millis: i128) -> Timestamp {
    let end = if millis < 0 { i64::MIN } else { i64::MAX };
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(end))
}

/// A number that may be absent. What another program wrote there and is none counts as absent.
fn number<T: std::str::FromStr>(value: Value) -> Result<Option<T>, BrokerError> {
    let bytes = answer::bytes(value)?;
    Ok(bytes.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.parse().ok()))
}

/// A counter: absent is zero.
pub(super) fn count(value: Value) -> Result<u64, BrokerError> {
    Ok(u64::try_from(answer::int(value)?).unwrap_or(0))
}
