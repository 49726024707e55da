//! A worker of asynq's, by the rules of the contract: no tokens, no stamps, no grace. Leases of 30 s, extended every 5 s; a
//! recoverer that comes by once a minute; what could not be reported is tried again until the lease is over, and then dropped.

use std::sync::Arc;
use std::time::Duration;

use outlast::{QueueName, Timestamp};
use outlast_core::TaskId;
use outlast_testkit::model::{FOREIGN_LEASE, ModelBroker};

use crate::history::History;
use crate::work;

const SLOTS: usize = 3;
const BEAT: Duration = Duration::from_secs(5);
const RECOVER: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);

struct Job {
    queue: QueueName,
    id: TaskId,
    ends_at: Timestamp,
    lease_until: Timestamp,
    /// Its place in the task's runs.
    run: usize,
    has_ended: bool,
}

pub(crate) struct Peer {
    name: String,
    model: Arc<ModelBroker>,
    history: Arc<History>,
    queues: Vec<QueueName>,
    jobs: Vec<Job>,
    beats_at: Timestamp,
    recovers_at: Timestamp,
    polls_at: Timestamp,
}

impl Peer {
    pub(crate) fn new(
        name: String,
        (model, history): (Arc<ModelBroker>, Arc<History>),
        queues: Vec<QueueName>,
        now: Timestamp,
    ) -> Self {
        let (beats_at, recovers_at, polls_at) = (now, now, now);
        Self { name, model, history, queues, jobs: Vec::new(), beats_at, recovers_at, polls_at }
    }

    /// Its turn; `reaches` says whether the server answers.
    pub(crate) fn turn(&mut self, now: Timestamp, reaches: bool) {
        self.end_runs(now);
        if reaches {
            self.beat(now);
            self.recover(now);
            self.report(now);
            self.poll(now);
        }
        // asynq cancels it and writes nothing.
        self.jobs.retain(|job| job.lease_until > now);
    }

    fn end_runs(&mut self, now: Timestamp) {
        for job in self.jobs.iter_mut().filter(|job| !job.has_ended && job.ends_at <= now) {
            job.has_ended = true;
            self.history.ended(job.id.as_str(), job.run, true);
        }
    }

    fn beat(&mut self, now: Timestamp) {
        if now < self.beats_at {
            return;
        }
        self.beats_at = now.plus(BEAT);
        for job in self.jobs.iter_mut().filter(|job| !job.has_ended) {
            self.model.foreign_extend(&job.queue, &job.id, now);
            job.lease_until = now.plus(FOREIGN_LEASE);
        }
        self.queues.iter().for_each(|queue| self.model.foreign_forward(queue, now));
    }

    fn recover(&mut self, now: Timestamp) {
        if now < self.recovers_at {
            return;
        }
        self.recovers_at = now.plus(RECOVER);
        for queue in &self.queues {
            for id in self.model.foreign_recover(queue, now) {
                self.history.recovered_by_peer(id.as_str());
            }
        }
    }

    fn report(&mut self, now: Timestamp) {
        self.jobs.retain(|job| {
            if job.has_ended {
                self.model.foreign_done(&job.queue, &job.id, now);
            }
            !job.has_ended
        });
    }

    fn poll(&mut self, now: Timestamp) {
        while self.jobs.len() < SLOTS && now >= self.polls_at {
            let taken = self.queues.iter().find_map(|queue| self.model.foreign_take(queue, now));
            let Some(task) = taken else {
                self.polls_at = now.plus(POLL);
                return;
            };
            let run = self.history.began(task.id.as_str(), &self.name);
            self.jobs.push(Job {
                ends_at: now.plus(work::duration(task.id.as_str())),
                lease_until: now.plus(FOREIGN_LEASE),
                queue: task.queue,
                id: task.id,
                run,
                has_ended: false,
            });
        }
    }
}
