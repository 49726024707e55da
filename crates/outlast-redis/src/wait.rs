//! Waiting for work without polling.

use std::time::Duration;

use outlast_core::{BrokerError, Command, Interest, QueueName, TaskId, Timestamp, Woke};
use redis::Value;
use tokio::time::Instant;

use crate::answer;
use crate::broker::Inner;
use crate::command;
use crate::conn::Call;
use crate::hub::{Seen, Subject};
use crate::record::moment_of_score;
use crate::scripts::WAIT_TELL;

/// After how much silence the waiters and sweepers of a process make sure, together, that their connection is alive: a
/// stream that is cut without a word says nothing more, which looks like a quiet queue.
pub(crate) const PROBE_EVERY: Duration = Duration::from_secs(3);

/// The shortest pause of a waiter before it asks whether another has probed.
const PROBE_PAUSE_MIN: Duration = Duration::from_millis(20);

/// How often a waiter looks where the server does not tell.
const POLL_EVERY: Duration = Duration::from_millis(200);

/// The longest pause before a waiter that was too late looks again, and before one that was often too late does.
const JITTER_MIN: Duration = Duration::from_micros(250);
/// See [`JITTER_MIN`].
const JITTER_MAX: Duration = Duration::from_millis(16);

impl Inner {
    pub(crate) async fn wait(
        &self,
        interest: &Interest,
        now: Timestamp,
        at_most: Duration,
    ) -> Result<Woke, BrokerError> {
        let subjects = self.subjects_of(interest, now);
        let is_contested = |subject: &&Subject| !matches!(subject, Subject::Groups(_));
        let contested: Vec<Subject> = subjects.iter().filter(is_contested).cloned().collect();
        let started = Instant::now();
        let end = started.checked_add(at_most);
        let mut bell = self.hub.listen();
        let mut was_rung = false;
        loop {
            bell.mark_unchanged();
            let is_told = self.watch.is_told().await?;
            let moment = now.plus(started.elapsed());
            let looked = self.look(&subjects, is_told).await?;
            let groups = self.groups_due(&looked, moment);
            let woke = woken(&looked, &groups, moment);
            if was_rung {
                self.learn(&woke);
            }
            if woke != Woke::default() {
                return Ok(woke);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Woke::default());
            }
            let group_look = groups.iter().map(|(_, due)| *due).min();
            let due = [next_due(&looked), group_look].into_iter().flatten().min();
            let due = due.map(|due| due.since(moment));
            let net = match is_told {
                true => self.watch.silence_left(PROBE_EVERY).max(PROBE_PAUSE_MIN),
                false => POLL_EVERY,
            };
            let pause = [left, due, Some(net)].into_iter().flatten().min().unwrap_or(net);
            let is_ringing = tokio::time::timeout(pause, bell.changed()).await.is_ok();
            // The bell rings for all waiters of the process; the others' changes are no reason to leave them room. Nor is a
            // new group, which nobody takes at once.
            was_rung = is_ringing && !self.hub.are_known(&contested);
            if was_rung {
                self.leave_room().await;
            } else if !is_ringing && is_told && pause == net {
                // Of a dead connection the next look tells more: it makes another.
                self.watch.probe(PROBE_EVERY).await;
            }
        }
    }

    /// What is there of each subject: as it is known, or else as the server says.
    async fn look(
        &self,
        subjects: &[Subject],
        is_told: bool,
    ) -> Result<Vec<(Subject, Seen)>, BrokerError> {
        let mut looked = Vec::with_capacity(subjects.len());
        let mut unknown = Vec::new();
        for subject in subjects {
            match self.hub.known(subject).filter(|_| is_told) {
                Some(seen) => looked.push((subject.clone(), seen)),
                None => unknown.push((subject.clone(), self.hub.mark(subject))),
            }
        }
        if unknown.is_empty() {
            return Ok(looked);
        }
        let mut pipe = redis::pipe();
        for (subject, _) in &unknown {
            self.add_look(&mut pipe, subject);
        }
        let mut answers = self.watch.run_all(&pipe).await?.into_iter();
        for (subject, mark) in unknown {
            let seen = seen(&subject, &mut answers)?;
            if is_told {
                self.hub.keep(&subject, mark, seen);
            }
            looked.push((subject, seen));
        }
        Ok(looked)
    }

    fn add_look(&self, pipe: &mut redis::Pipeline, subject: &Subject) {
        match subject {
            Subject::Queue(queue) => {
                let keys = self.root.queue(queue);
                pipe.cmd("LLEN").arg(keys.key("pending"));
                pipe.cmd("EXISTS").arg(keys.key("paused"));
                for waiting in ["scheduled", "retry"] {
                    pipe.cmd("ZRANGE").arg(keys.key(waiting)).arg(0).arg(0).arg("WITHSCORES");
                }
            }
            Subject::Groups(queue) => {
                pipe.cmd("EXISTS").arg(self.root.queue(queue).key("groups"));
            }
            Subject::Sweep(_) => {}
            Subject::Commands(token) => {
                pipe.cmd("LLEN").arg(self.root.own(&format!("commands:{}", token.get())));
            }
        }
    }

    /// Groups are looked for where the claims of this process had policies for them.
    fn subjects_of(&self, interest: &Interest, now: Timestamp) -> Vec<Subject> {
        let is_aggregated = |queue: &&QueueName| self.group_looks.next(queue, now).is_some();
        let queues = interest.queues.iter().cloned().map(Subject::Queue);
        let groups = interest.queues.iter().filter(is_aggregated).cloned().map(Subject::Groups);
        queues.chain(groups).chain(interest.token.map(Subject::Commands)).collect()
    }

    /// The queues that are not paused and have groups, and when these are to be looked at again.
    fn groups_due(
        &self,
        looked: &[(Subject, Seen)],
        now: Timestamp,
    ) -> Vec<(QueueName, Timestamp)> {
        let is_paused = |name: &QueueName| {
            looked.iter().any(|(subject, seen)| {
                matches!(seen, Seen::Queue { is_paused: true, .. })
                    && matches!(subject, Subject::Queue(queue) if queue == name)
            })
        };
        let grouped = looked.iter().filter_map(|(subject, seen)| match (subject, seen) {
            (Subject::Groups(queue), Seen::Groups { any: true }) => Some(queue),
            _ => None,
        });
        let open = grouped.filter(|queue| !is_paused(queue));
        open.filter_map(|queue| Some((queue.clone(), self.group_looks.next(queue, now)?))).collect()
    }

    /// Somebody else was quicker: leave more room next time. And less, if not.
    fn learn(&self, woke: &Woke) {
        let too_late = *woke == Woke::default();
        self.crowd.learn(too_late);
    }

    /// Lets others be quicker, if there seem to be any. A timer takes a millisecond even for no time at all.
    async fn leave_room(&self) {
        let window = self.crowd.window();
        if !window.is_zero() {
            tokio::time::sleep(window.mul_f64(rand::random::<f64>())).await;
        }
    }

    /// A client of asynq's wants a task cancelled: whoever runs it here is told as ever.
    pub(crate) async fn cancel_asked(&self, id: TaskId) {
        for (queue, token) in self.held.find(&id) {
            let command = Command::Cancel { queue, id: id.clone() };
            let mut call = Call::new(&WAIT_TELL, Vec::new());
            call.text(self.root.as_str()).text(token.get().to_string());
            call.text(command::encode(&command));
            if let Err(error) = self.admin.script(&call).await {
                tracing::warn!(%id, kind = %error.kind(), %error, "could not pass a cancel on");
            }
        }
    }
}

/// How many others wait for the same, as far as a waiter can tell: by how often it came too late.
#[derive(Debug, Default)]
pub(crate) struct Crowd(std::sync::atomic::AtomicU64);

impl Crowd {
    fn window(&self) -> Duration {
        Duration::from_micros(self.0.load(std::sync::atomic::Ordering::Relaxed))
    }

    fn learn(&self, too_late: bool) {
        let before = self.window();
        let after = match too_late {
            true => (2 * before).clamp(JITTER_MIN, JITTER_MAX),
            false if before <= JITTER_MIN => Duration::ZERO,
            false => before / 2,
        };
        let micros = u64::try_from(after.as_micros()).unwrap_or(0);
        self.0.store(micros, std::sync::atomic::Ordering::Relaxed);
    }
}

fn seen(subject: &Subject, answers: &mut impl Iterator<Item = Value>) -> Result<Seen, BrokerError> {
    let mut next = || answers.next().unwrap_or_default();
    let count = answer::int(next())?;
    let count = u64::try_from(count).unwrap_or(0);
    match subject {
        Subject::Commands(_) => return Ok(Seen::Commands { waiting: count }),
        Subject::Groups(_) => return Ok(Seen::Groups { any: count > 0 }),
        Subject::Queue(_) | Subject::Sweep(_) => {}
    }
    let is_paused = answer::int(next())? > 0;
    let heads = [head(next())?, head(next())?];
    let next_due = heads.into_iter().flatten().min();
    Ok(Seen::Queue { pending: count, is_paused, next_due })
}

/// The moment of the first member of a sorted set: `[[member, score]]`, or `[member, score]` from a server
/// that speaks RESP2.
pub(crate) fn head(value: Value) -> Result<Option<Timestamp>, BrokerError> {
    let mut items = answer::list(value)?;
    if let Some(Value::Array(_)) = items.first() {
        items = answer::list(items.swap_remove(0))?;
    }
    let Some(score) = items.into_iter().nth(1) else { return Ok(None) };
    let score = match score {
        Value::Double(score) => Some(score),
        other => answer::text(other)?.parse().ok(),
    };
    Ok(score.map(moment_of_score))
}

fn woken(looked: &[(Subject, Seen)], groups: &[(QueueName, Timestamp)], now: Timestamp) -> Woke {
    let mut woke = Woke::default();
    for (subject, seen) in looked {
        match (subject, seen) {
            (Subject::Queue(queue), Seen::Queue { pending, is_paused: false, next_due })
                if *pending > 0 || next_due.is_some_and(|due| due <= now) =>
            {
                woke.queues.push(queue.clone());
            }
            (Subject::Commands(_), Seen::Commands { waiting }) => woke.commands |= *waiting > 0,
            _ => {}
        }
    }
    for (queue, due) in groups {
        if *due <= now && !woke.queues.contains(queue) {
            woke.queues.push(queue.clone());
        }
    }
    woke
}

/// When the next task is due in a queue that is not paused.
fn next_due(looked: &[(Subject, Seen)]) -> Option<Timestamp> {
    let dues = looked.iter().filter_map(|(_, seen)| match seen {
        Seen::Queue { is_paused: false, next_due, .. } => *next_due,
        _ => None,
    });
    dues.min()
}
