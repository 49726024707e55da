//! Handing out work: one script call leases as many tasks as a worker has room for.

use bytes::Bytes;
use outlast_core::limits::{BATCH_TASKS_MAX, GROUP_SIZE_MAX, SWEEP_MAX, check_count};
use outlast_core::{
    BrokerError, Claim, ClaimedGroup, ClaimedTask, Claims, GroupName, GroupPolicy, Kind, Lease,
    Lost, QueueName, Rest, Stamp, TaskId, TaskState, Timestamp, Want,
};
use redis::Value;

use crate::answer::{self, Stamped, Status, stamped};
use crate::broker::Inner;
use crate::conn::Call;
use crate::keys::Keys;
use crate::proto::wire::Fields;
use crate::record::{self, StoredTask, Unreadable};
use crate::scripts::{CLAIM, CLAIM_AGAIN, CLAIM_GROUPS, CLAIM_ONE, QUARANTINE};

/// Groups of a queue that one claim looks at; of more, so many are looked at by chance.
const GROUPS_LOOKED_AT: i64 = 1000;

/// Sets that one claim makes at most: each is a batch of its own.
const SETS_MAX: usize = 16;

impl Inner {
    pub(crate) async fn claim(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<Claims, BrokerError> {
        check_count("tasks_max", want.tasks_max, BATCH_TASKS_MAX)?;
        let keys = self.root.queue(queue);
        let taken = self.take(&keys, queue, stamp, now, want).await;
        match taken.as_ref().err().map(BrokerError::kind) {
            Some(Kind::Ambiguous) => self.long_answers.missed(stamp),
            _ => self.long_answers.came(stamp),
        }
        let (status, mut taken) = taken?;
        self.group_looks.looked(queue, now, &want.groups);
        if taken.ghosts > 0 {
            tracing::warn!(%queue, ghosts = taken.ghosts, "ids without a task were taken out of the line");
        }
        let mut claims = Vec::with_capacity(taken.tasks.len() + taken.sets.len());
        let mut corrupt = Vec::new();
        for set in std::mem::take(&mut taken.sets) {
            claims.push(Self::claimed_group(queue, want, set, now, &mut corrupt));
        }
        for task in std::mem::take(&mut taken.tasks) {
            claims.push(self.claimed_task(queue, want, task, now, &mut corrupt));
        }
        if status == Status::Applied && !claims.is_empty() {
            self.renewals.renewed(queue, &stamp, now);
        }
        if !corrupt.is_empty() {
            // The claim was applied whatever becomes of this: a record that stays leased comes round again.
            if let Err(error) = self.quarantine(&keys, now, &corrupt).await {
                tracing::error!(%queue, kind = %error.kind(), %error, "could not archive unreadable tasks");
            }
        }
        Ok(Claims { claims, rest: taken.rest, lost: taken.lost })
    }

    async fn take(
        &self,
        keys: &Keys,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Result<(Status, Taken), BrokerError> {
        if want.tasks_max == 1 && want.groups.is_empty() {
            let mut call = self.one_call(keys, queue, stamp, now, want);
            call.awaits(self.long_answers.expected(stamp));
            let answer = stamped(self.consume.script(&call).await?, stamp, "c")?;
            match answer.status {
                Status::Applied => return Ok((Status::Applied, Taken::one(answer, want, now)?)),
                Status::Declined => {}
                status => return Ok((status, self.taken_before(keys, stamp, want, answer).await?)),
            }
        }
        let mut call = self.claim_call(keys, queue, stamp, now, want);
        call.awaits(self.long_answers.expected(stamp));
        let answer = stamped(self.consume.script(&call).await?, stamp, "c")?;
        match answer.status {
            Status::Applied => Ok((Status::Applied, Taken::first(answer, want, now)?)),
            status => Ok((status, self.taken_before(keys, stamp, want, answer).await?)),
        }
    }

    fn one_call(
        &self,
        keys: &Keys,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Call {
        let names = ["pending", "active", "lease", "paused", "scheduled", "retry"];
        let mut all = vec![keys.session(stamp.session)];
        all.extend(names.map(|name| keys.key(name)));
        let mut call = Call::new(&CLAIM_ONE, all);
        self.add_stamp(&mut call, queue, stamp, now);
        call.text(keys.tasks()).text(seconds_with_fraction(now));
        call.text(record::score_text(score_of(now, want))).text(run_of(now, want));
        call
    }

    fn claim_call(
        &self,
        keys: &Keys,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        want: &Want,
    ) -> Call {
        let names = ["pending", "active", "lease", "paused", "scheduled", "retry", "groups"];
        let mut all = vec![keys.session(stamp.session)];
        all.extend(names.map(|name| keys.key(name)));
        all.push(keys.key("aggregation_sets"));
        let script = if want.groups.is_empty() { &CLAIM } else { &CLAIM_GROUPS };
        let mut call = Call::new(script, all);
        self.add_stamp(&mut call, queue, stamp, now);
        let sets = if want.groups.is_empty() { 0 } else { want.tasks_max.min(SETS_MAX) };
        call.text(keys.prefix()).text(seconds_with_fraction(now)).text(record::nanos_text(now));
        call.int(size(want.tasks_max)).int(size(want.bytes_max));
        call.text(record::score_text(score_of(now, want))).text(run_of(now, want));
        call.int(size(SWEEP_MAX)).int(GROUPS_LOOKED_AT).int(size(GROUP_SIZE_MAX)).int(size(sets));
        call.int(size(want.groups.len()));
        for policy in want.groups.iter() {
            add_policy(&mut call, policy);
        }
        for _ in 0..sets {
            call.text(uuid::Uuid::new_v4().to_string());
        }
        call
    }

    /// What an earlier call of this claim took, as far as it is still held.
    async fn taken_before(
        &self,
        keys: &Keys,
        stamp: Stamp,
        want: &Want,
        mut answer: Stamped,
    ) -> Result<Taken, BrokerError> {
        let mut kept = answer::list(answer.rest.next().unwrap_or_default())?.into_iter();
        let mut next = || kept.next().unwrap_or_default();
        let (ids, names) = (answer::list(next())?, answer::list(next())?);
        let rest = rest_of(next())?;
        let mut call =
            Call::new(&CLAIM_AGAIN, vec![keys.key("lease"), keys.key("aggregation_sets")]);
        call.text(keys.prefix()).text(record::fraction_text(want.token)).int(size(ids.len()));
        for name in ids.into_iter().chain(names) {
            call.text(answer::text(name)?);
        }
        call.awaits(self.long_answers.expected(stamp));
        let found = self.consume.script(&call).await?;
        Taken::again(found, rest, answer.lost)
    }

    fn claimed_task(
        &self,
        queue: &QueueName,
        want: &Want,
        TakenTask { score, run, id, read }: TakenTask,
        now: Timestamp,
        corrupt: &mut Vec<Corrupt>,
    ) -> Claim {
        let stored = StoredTask {
            run: run.as_deref(),
            score: Some(score),
            ..read.stored(TaskState::Active)
        };
        match record::record_of(queue, &id, &stored, now) {
            Ok(task) => {
                let is_plain = task.retention.is_zero() && !read.has_lock();
                self.held.add(queue, &id, want.token, is_plain);
                let until = record::moment_of_score(score);
                let lease = Lease { id, token: want.token, until };
                Claim::Task(Box::new(ClaimedTask { task, lease }))
            }
            Err(unreadable) => {
                let why = read.reason(&unreadable);
                corrupt.push(Corrupt { id: id.clone(), set: String::new(), why: why.clone() });
                Claim::Corrupt { id, why }
            }
        }
    }

    fn claimed_group(
        queue: &QueueName,
        want: &Want,
        TakenSet { score, name, members }: TakenSet,
        now: Timestamp,
        corrupt: &mut Vec<Corrupt>,
    ) -> Claim {
        let group = name.rsplit_once(':').map_or(name.as_str(), |(group, _)| group);
        let group = GroupName::stored(group);
        let mut tasks = Vec::with_capacity(members.len());
        for (id, read) in members {
            match record::record_of(queue, &id, &read.stored(TaskState::Aggregating), now) {
                Ok(task) => tasks.push(task),
                Err(unreadable) => {
                    let why = read.reason(&unreadable);
                    corrupt.push(Corrupt { id, set: name.clone(), why });
                }
            }
        }
        let lease = Lease {
            id: TaskId::stored(&name),
            token: want.token,
            until: record::moment_of_score(score),
        };
        Claim::Group(ClaimedGroup { group, tasks, lease })
    }

    /// Puts records that cannot be read among the archived, where people find them and nothing trips
    /// over them.
    async fn quarantine(
        &self,
        keys: &Keys,
        now: Timestamp,
        corrupt: &[Corrupt],
    ) -> Result<(), BrokerError> {
        let names = ["active", "lease", "archived"].map(|name| keys.key(name));
        let mut call = Call::new(&QUARANTINE, names.into());
        call.text(keys.prefix()).text(record::seconds_text(now));
        for Corrupt { id, set, why } in corrupt {
            call.text(id.as_str()).text(set.as_str()).text(why.as_str());
        }
        self.consume.script(&call).await.map(|_| ())
    }
}

/// A record that cannot be read, and the set in which it was found (or none).
struct Corrupt {
    id: TaskId,
    set: String,
    why: String,
}

/// What a claim took.
struct Taken {
    tasks: Vec<TakenTask>,
    sets: Vec<TakenSet>,
    rest: Rest,
    lost: Option<Lost>,
    ghosts: i64,
}

struct TakenTask {
    score: f64,
    run: Option<Bytes>,
    id: TaskId,
    read: Read,
}

struct TakenSet {
    score: f64,
    name: String,
    members: Vec<(TaskId, Read)>,
}

impl Taken {
    /// The answer of `claim.lua`, which does not repeat what the call said.
    fn first(mut answer: Stamped, want: &Want, now: Timestamp) -> Result<Self, BrokerError> {
        let mut next = || answer.rest.next().unwrap_or_default();
        let (score, run) = (score_of(now, want), Bytes::from(run_of(now, want)));
        let rest = rest_of(next())?;
        let task = |(id, read)| TakenTask { score, run: Some(run.clone()), id, read };
        let tasks = Read::all(answer::list(next())?)?.into_iter().map(task).collect();
        let set = |set| {
            let mut parts = answer::list(set)?.into_iter();
            let mut next = || parts.next().unwrap_or_default();
            let name = answer::text(next())?;
            Ok(TakenSet { score, name, members: Read::all(answer::list(next())?)? })
        };
        let sets =
            answer::list(next())?.into_iter().map(set).collect::<Result<_, BrokerError>>()?;
        Ok(Self { tasks, sets, rest, lost: answer.lost, ghosts: answer::int(next())? })
    }

    /// The answer of `claim_one.lua`: one task, or nothing.
    fn one(answer: Stamped, want: &Want, now: Timestamp) -> Result<Self, BrokerError> {
        let (score, run) = (score_of(now, want), Bytes::from(run_of(now, want)));
        let task = |(id, read)| TakenTask { score, run: Some(run.clone()), id, read };
        let tasks: Vec<_> = Read::all(answer.rest.collect())?.into_iter().map(task).collect();
        let rest = if tasks.is_empty() { Rest::Empty } else { Rest::More };
        Ok(Self { tasks, sets: Vec::new(), rest, lost: answer.lost, ghosts: 0 })
    }

    /// The answer of `claim_again.lua`.
    fn again(found: Value, rest: Rest, lost: Option<Lost>) -> Result<Self, BrokerError> {
        let mut found = answer::list(found)?.into_iter();
        let mut tasks = Vec::new();
        for task in answer::list(found.next().unwrap_or_default())? {
            let mut parts = answer::list(task)?.into_iter();
            let mut next = || parts.next().unwrap_or_default();
            let (score, run) = (score_in(next())?, answer::bytes(next())?);
            for (id, read) in Read::all(parts.collect())? {
                tasks.push(TakenTask { score, run: run.clone(), id, read });
            }
        }
        let mut sets = Vec::new();
        for set in answer::list(found.next().unwrap_or_default())? {
            let mut parts = answer::list(set)?.into_iter();
            let mut next = || parts.next().unwrap_or_default();
            let (score, name) = (score_in(next())?, answer::text(next())?);
            sets.push(TakenSet { score, name, members: Read::all(answer::list(next())?)? });
        }
        Ok(Self { tasks, sets, rest, lost, ghosts: 0 })
    }
}

fn rest_of(value: Value) -> Result<Rest, BrokerError> {
    Ok(match answer::text(value)?.as_str() {
        "M" => Rest::More,
        "P" => Rest::Paused,
        _ => Rest::Empty,
    })
}

fn score_in(value: Value) -> Result<f64, BrokerError> {
    Ok(answer::text(value)?.parse().unwrap_or_default())
}

/// The score of the leases that a claim takes.
fn score_of(now: Timestamp, want: &Want) -> f64 {
    record::lease_score(now.plus(want.lease), want.token)
}

/// What a claim writes into `o:run`.
fn run_of(now: Timestamp, want: &Want) -> String {
    format!("{}:{}", now.as_millis(), want.token.get())
}

/// The fields that a claim reads of every task.
struct Read {
    message: Option<Bytes>,
    result: Option<Bytes>,
    accepted: Option<Bytes>,
    losses: Option<Bytes>,
}

impl Read {
    /// Id and fields of several tasks, one after another.
    fn all(values: Vec<Value>) -> Result<Vec<(TaskId, Self)>, BrokerError> {
        let mut tasks = Vec::with_capacity(values.len() / 5);
        let mut values = values.into_iter();
        while let Some(id) = values.next() {
            let mut next = || values.next().unwrap_or_default();
            let read = Self {
                message: answer::bytes(next())?,
                result: answer::bytes(next())?,
                accepted: answer::bytes(next())?,
                losses: answer::bytes(next())?,
            };
            tasks.push((TaskId::stored(&answer::text(id)?), read));
        }
        Ok(tasks)
    }

    fn stored(&self, state: TaskState) -> StoredTask<'_> {
        StoredTask {
            msg: self.message.as_deref(),
            state: Some(state.as_str().as_bytes()),
            result: self.result.as_deref(),
            accepted: self.accepted.as_deref(),
            losses: self.losses.as_deref(),
            ..StoredTask::default()
        }
    }

    /// Why there is no task. Of a key of another kind, a script answers no field.
    fn reason(&self, unreadable: &Unreadable) -> String {
        match self.message {
            Some(_) => unreadable.to_string(),
            None => format!("{unreadable}; if its key exists, it holds data of another program"),
        }
    }

    /// True if the message names a lock: its field 10.
    fn has_lock(&self) -> bool {
        let message = self.message.as_deref().unwrap_or_default();
        Fields::of(message).any(|field| field.is_ok_and(|field| field.number == 10))
    }
}

fn add_policy(call: &mut Call, policy: &GroupPolicy) {
    match policy.pattern.strip_suffix('*') {
        Some(prefix) => call.text(prefix).fixed("p"),
        None => call.text(policy.pattern.as_str()).fixed(""),
    };
    call.text(policy.grace.as_secs_f64().to_string());
    call.text(policy.max_delay.map(|delay| delay.as_secs_f64().to_string()).unwrap_or_default());
    call.int(size(policy.max_size.unwrap_or(0)));
}

/// Seconds with their fraction: what a score is compared with.
pub(crate) fn seconds_with_fraction(now: Timestamp) -> String {
    let millis = now.as_millis();
    format!("{}.{:03}", millis.div_euclid(1000), millis.rem_euclid(1000))
}

pub(crate) fn size(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
