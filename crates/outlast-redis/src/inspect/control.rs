//! Pausing, resuming and removing queues.

use std::time::Duration;

use outlast_core::limits::STATS_DAYS;
use outlast_core::{BrokerError, Controlled, QueueControl, QueueName, Timestamp};
use redis::Value;

use super::stats::count;
use crate::answer;
use crate::broker::Inner;
use crate::claim::size;
use crate::conn::Call;
use crate::keys::Keys;
use crate::record::seconds_text;
use crate::scripts::{CONTROL_EMPTY, CONTROL_REMOVE};

/// Tasks of a queue that one script deletes.
const DELETE_STEP: usize = 500;

/// How often a removal goes on after tasks came into the queue meanwhile.
const ROUNDS_MAX: usize = 5;

/// What the last step of a removal found.
enum Removal {
    Done,
    NoSuchQueue,
    NotEmpty,
}

/// Whether a removal has paused the queue itself, and so has to let it go on if it fails.
#[derive(Clone, Copy, PartialEq)]
enum PausedBy {
    Us,
    Others,
}

impl Inner {
    /// Controls a queue; see [`outlast_core::Inspect::control`].
    pub(super) async fn control(
        &self,
        queue: &QueueName,
        control: QueueControl,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        match control {
            QueueControl::Pause => self.pause(queue, now).await,
            QueueControl::Resume => self.resume(queue).await,
            QueueControl::RemoveIfEmpty => self.remove_if_empty(queue, now).await,
            QueueControl::RemoveWithTasks => self.remove_with_tasks(queue, now).await,
            other => Err(BrokerError::rejected(format!("control {other:?} is unknown here"))),
        }
    }

    async fn pause(&self, queue: &QueueName, now: Timestamp) -> Result<Controlled, BrokerError> {
        let paused = self.root.queue(queue).key("paused");
        // In a cluster these are two calls. The name comes first: what is listed can be resumed.
        let mut both = redis::pipe();
        both.cmd("SADD").arg(self.root.queues()).arg(queue.as_str());
        both.cmd("SET").arg(paused).arg(seconds_text(now)).arg("NX");
        Ok(match self.admin.run_all(&both).await?.pop() {
            Some(Value::Nil) | None => Controlled::Unchanged,
            Some(_) => Controlled::Applied,
        })
    }

    async fn resume(&self, queue: &QueueName) -> Result<Controlled, BrokerError> {
        let mut both = redis::pipe();
        both.cmd("DEL").arg(self.root.queue(queue).key("paused"));
        both.cmd("SISMEMBER").arg(self.root.queues()).arg(queue.as_str());
        let mut answers = self.admin.run_all(&both).await?.into_iter();
        let mut next = || answer::int(answers.next().unwrap_or_default());
        let (was_paused, is_known) = (next()? == 1, next()? == 1);
        Ok(match (was_paused, is_known) {
            // asynq pauses queues that nobody knows, without listing them.
            (true, _) => Controlled::Applied,
            (false, true) => Controlled::Unchanged,
            (false, false) => Controlled::NoSuchQueue,
        })
    }

    async fn remove_if_empty(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        if let Some(tasks) = self.on_its_way(queue).await? {
            return Ok(Controlled::NotEmpty { tasks });
        }
        for _ in 0..ROUNDS_MAX {
            match self.remove(queue, now).await? {
                Removal::Done => return Ok(Controlled::Applied),
                Removal::NoSuchQueue => return Ok(Controlled::NoSuchQueue),
                Removal::NotEmpty => {}
            }
            let tasks = self.tasks_in(queue, now).await?;
            // None: the last one went between the two looks.
            if tasks > 0 {
                return Ok(Controlled::NotEmpty { tasks });
            }
        }
        Ok(Controlled::NotEmpty { tasks: 1 })
    }

    /// Deletes the tasks step by step, and then the queue, if no task came meanwhile. Between the steps the
    /// queue is paused. A queue with tasks on their way to another broker is left alone. If this stops half-way, it stays so, and can be resumed or removed again.
    async fn remove_with_tasks(
        &self,
        queue: &QueueName,
        now: Timestamp,
    ) -> Result<Controlled, BrokerError> {
        if self.stats(queue, now).await?.is_none() {
            return Ok(Controlled::NoSuchQueue);
        }
        if let Some(tasks) = self.on_its_way(queue).await? {
            return Ok(Controlled::NotEmpty { tasks });
        }
        let mut paused_by = PausedBy::Others;
        for _ in 0..ROUNDS_MAX {
            let active = self.empty(queue, &mut paused_by, now).await?;
            if active > 0 {
                self.let_go(queue, paused_by).await?;
                return Ok(Controlled::Active { tasks: active });
            }
            match self.remove(queue, now).await? {
                Removal::Done => return Ok(Controlled::Applied),
                Removal::NoSuchQueue => return Ok(Controlled::NoSuchQueue),
                Removal::NotEmpty => {}
            }
        }
        self.let_go(queue, paused_by).await?;
        Ok(Controlled::NotEmpty { tasks: self.tasks_in(queue, now).await? })
    }

    /// How many tasks are on their way to another broker, at least one where only counters are; `None` if no
    /// batch is.
    async fn on_its_way(&self, queue: &QueueName) -> Result<Option<u64>, BrokerError> {
        let keys = self.root.queue(queue);
        let mut asked = redis::pipe();
        asked.cmd("HEXISTS").arg(keys.key("outlast:move")).arg("at");
        asked.cmd("HLEN").arg(keys.key("outlast:outgoing"));
        let mut answers = self.admin.run_all(&asked).await?.into_iter();
        let mut next = || count(answers.next().unwrap_or_default());
        let (is_there, tasks) = (next()? == 1, next()?);
        Ok(is_there.then_some(tasks.max(1)))
    }

    /// Deletes all tasks; stops, with their number, where tasks are active.
    async fn empty(
        &self,
        queue: &QueueName,
        paused_by: &mut PausedBy,
        now: Timestamp,
    ) -> Result<u64, BrokerError> {
        let keys = self.root.queue(queue);
        let mut all = collections(&keys);
        all.push(keys.key("paused"));
        let mut call = Call::new(&CONTROL_EMPTY, all);
        call.text(keys.prefix()).int(size(DELETE_STEP)).text(seconds_text(now));
        loop {
            let mut answer = answer::list(self.admin.script(&call).await?)?.into_iter();
            let mut next = || count(answer.next().unwrap_or_default());
            let (active, deleted, paused) = (next()?, next()?, next()?);
            if paused == 1 {
                *paused_by = PausedBy::Us;
            }
            if active > 0 || deleted == 0 {
                return Ok(active);
            }
        }
    }

    async fn remove(&self, queue: &QueueName, now: Timestamp) -> Result<Removal, BrokerError> {
        let keys = self.root.queue(queue);
        let mut all = collections(&keys);
        let rest = ["lease", "paused", "processed", "failed"];
        let moves = ["outlast:move", "outlast:outgoing", "outlast:outgoing:counters"];
        all.extend(rest.into_iter().chain(moves).map(|name| keys.key(name)));
        for back in 0..=STATS_DAYS {
            let day = now.minus(Duration::from_secs(u64::from(back) * 86_400));
            all.extend(["processed", "failed"].map(|counter| keys.day(counter, day)));
        }
        let mut call = Call::new(&CONTROL_REMOVE, all);
        // In a cluster the set of queues lies elsewhere: the name goes in a second call.
        call.text(keys.prefix()).text(self.root.queues()).text(queue.as_str());
        loop {
            return Ok(match answer::text(self.admin.script(&call).await?)?.as_str() {
                "M" => continue,
                "R" => Removal::Done,
                "U" => Removal::NoSuchQueue,
                _ => Removal::NotEmpty,
            });
        }
    }

    async fn let_go(&self, queue: &QueueName, paused_by: PausedBy) -> Result<(), BrokerError> {
        if paused_by == PausedBy::Us {
            self.resume(queue).await?;
        }
        Ok(())
    }

    async fn tasks_in(&self, queue: &QueueName, now: Timestamp) -> Result<u64, BrokerError> {
        Ok(self.stats(queue, now).await?.map_or(0, |stats| stats.size()))
    }
}

/// The collections in which tasks are, as the removing scripts take them.
fn collections(keys: &Keys) -> Vec<String> {
    let names = ["pending", "active", "scheduled", "retry", "archived", "completed", "groups"];
    let mut all: Vec<String> = names.map(|name| keys.key(name)).into();
    all.extend(["aggregation_sets", "outlast:groups"].map(|name| keys.key(name)));
    all
}
