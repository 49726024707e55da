//! What happened, and what must not: the promises, as predicates over a recorded history.
//!
//! | promise | what is checked |
//! |---|---|
//! | L1 | a task that was accepted has run well by the end, unless the server forgot it and whoever handed it in had died or it was too long ago |
//! | L2, L3 | a task that has run well does not run again, unless something explains it; see [`Record::excuse`] |
//! | L3 | a new task is never called a duplicate or a conflict |
//! | order | tasks of one producer and queue reach a server that forgets nothing in the order in which they were handed in |

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use outlast::{Receipt, Verdict};

/// An outage of one process that lasts longer may cost it its leases: 30 s, extended every 7.5 s.
const LEASE_LEFT: Duration = Duration::from_secs(20);

/// How long others leave its leases alone when they have been away themselves: 15 s.
const GRACE_LEFT: Duration = Duration::from_secs(10);

/// Between two outages so close to each other no lease was extended.
const NOT_EXTENDED: Duration = Duration::from_secs(8);

/// How long the outcome of a run may be on its way: what the broker has not taken by then is journaled.
const REPORTED_AFTER: Duration = Duration::from_secs(3);

/// What was acknowledged is kept for 30 s: a margin of what the server needs to come back.
const KEPT_FOR: Duration = Duration::from_secs(25);

/// How long it takes until what was forgotten is offered again.
const OFFERED_WITHIN: Duration = Duration::from_secs(20);

/// What is printed of a history.
const LINES_MAX: usize = 60;

pub(crate) struct TaskRun {
    pub(crate) by: String,
    began: Duration,
    /// When it ended, and whether well.
    ended: Option<(Duration, bool)>,
}

#[derive(Default)]
struct Task {
    queue: String,
    accepted: Option<(Duration, String)>,
    runs: Vec<TaskRun>,
    taken_by_peer: Vec<Duration>,
}

/// A time in which a process could not say anything: its way was spoiled, it stood still, or the server was away for all.
#[derive(Clone)]
struct Away {
    who: String,
    from: Duration,
    to: Duration,
    /// How much of it was its own alone.
    own: Duration,
}

#[derive(Default)]
struct Record {
    now: Duration,
    tasks: BTreeMap<String, Task>,
    starts: Vec<(Duration, String)>,
    kills: Vec<(Duration, String)>,
    away: Vec<Away>,
    /// When the server forgot something.
    forgot: Vec<Duration>,
    machines: BTreeMap<String, usize>,
    log: Vec<(Duration, String)>,
    wrong: Vec<String>,
}

#[derive(Default)]
pub(crate) struct History(Mutex<Record>);

impl History {
    fn record(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap()
    }

    pub(crate) fn tick(&self, now: Duration) {
        self.record().now = now;
    }

    pub(crate) fn note(&self, line: String) {
        self.record().note(line);
    }

    pub(crate) fn wrong(&self, what: String) {
        let mut record = self.record();
        record.note(format!("WRONG: {what}"));
        record.wrong.push(what);
    }

    pub(crate) fn started(&self, who: &str, machine: usize) {
        let mut record = self.record();
        record.machines.insert(who.to_owned(), machine);
        let now = record.now;
        record.starts.push((now, who.to_owned()));
        record.note(format!("{who} starts"));
    }

    pub(crate) fn killed(&self, who: &str) {
        let mut record = self.record();
        let now = record.now;
        record.kills.push((now, who.to_owned()));
        record.note(format!("{who} is killed"));
    }

    pub(crate) fn away(&self, who: &str, (from, to): (Duration, Duration), is_own: bool) {
        let own = if is_own { to - from } else { Duration::ZERO };
        self.record().away.push(Away { who: who.to_owned(), from, to, own });
    }

    pub(crate) fn forgot(&self, how: &str) {
        let mut record = self.record();
        let now = record.now;
        record.forgot.push(now);
        record.note(format!("the server forgets: {how}"));
    }

    pub(crate) fn offered(&self, id: &str, queue: &str) {
        let mut record = self.record();
        let task = record.tasks.entry(id.to_owned()).or_default();
        task.queue = queue.to_owned();
    }

    pub(crate) fn answered(&self, id: &str, by: &str, receipt: &Receipt) {
        let mut record = self.record();
        let now = record.now;
        match &receipt.verdict {
            Verdict::Accepted { .. } | Verdict::Stored => {
                record.tasks.get_mut(id).unwrap().accepted = Some((now, by.to_owned()));
                record.note(format!("{id}: {receipt}"));
            }
            other => record.wrong.push(format!("L3: the new task {id} was answered {other:?}")),
        }
    }

    pub(crate) fn refused(&self, id: &str, error: &outlast::Error) {
        self.note(format!("{id}: refused: {error}"));
    }

    /// A run begins; its place among the task's runs.
    pub(crate) fn began(&self, id: &str, by: &str) -> usize {
        let mut record = self.record();
        let began = record.now;
        record.note(format!("{id}: runs on {by}"));
        let task = record.tasks.entry(id.to_owned()).or_default();
        task.runs.push(TaskRun { by: by.to_owned(), began, ended: None });
        task.runs.len() - 1
    }

    pub(crate) fn ended(&self, id: &str, run: usize, is_well: bool) {
        let mut record = self.record();
        let now = record.now;
        record.note(format!("{id}: ends {}", if is_well { "well" } else { "badly" }));
        record.tasks.get_mut(id).unwrap().runs[run].ended = Some((now, is_well));
    }

    pub(crate) fn recovered_by_peer(&self, id: &str) {
        let mut record = self.record();
        let now = record.now;
        record.note(format!("{id}: taken back by a peer"));
        record.tasks.entry(id.to_owned()).or_default().taken_by_peer.push(now);
    }

    /// True if every task that was accepted has run well, or nobody can expect it to.
    pub(crate) fn is_complete(&self) -> bool {
        let record = self.record();
        record.tasks.values().all(|task| task.has_run_well() || !record.must_run(task))
    }

    /// How many were accepted, and how many runs there were.
    pub(crate) fn size(&self) -> (usize, usize) {
        let record = self.record();
        let accepted = record.tasks.values().filter(|task| task.accepted.is_some()).count();
        (accepted, record.tasks.values().map(|task| task.runs.len()).sum())
    }

    /// Everything that must not have happened.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let record = self.record();
        let mut wrong = record.wrong.clone();
        for (id, task) in &record.tasks {
            if record.must_run(task) && !task.has_run_well() {
                wrong.push(format!("L1: {id} was accepted and has not run well"));
            }
            for (first, second) in task.runs.iter().zip(task.runs.iter().skip(1)) {
                if record.excuse(task, first, second).is_none() {
                    wrong.push(format!("L2: {id} ran again for no reason"));
                }
            }
        }
        wrong
    }

    /// What happened to these tasks, and around them.
    pub(crate) fn story(&self, of: &[String]) -> String {
        let record = self.record();
        let is_asked = |id: &str| of.iter().any(|what| what.contains(id));
        let is_told = |line: &str| match (line.split_once(": "), line.split_once("id: \"")) {
            (Some((id, _)), _) if record.tasks.contains_key(id) => is_asked(id),
            (_, Some((_, rest))) => is_asked(rest.split('"').next().unwrap_or_default()),
            _ => true,
        };
        let told = record.log.iter().filter(|(_, line)| is_told(line));
        let lines: Vec<_> =
            told.map(|(at, line)| format!("{:9.2} s  {line}\n", at.as_secs_f64())).collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].concat()
    }
}

impl Task {
    fn has_run_well(&self) -> bool {
        self.runs.iter().any(|run| run.ended.is_some_and(|(_, is_well)| is_well))
    }
}

impl Record {
    fn note(&mut self, line: String) {
        self.log.push((self.now, line));
    }

    fn was_killed(&self, who: &str, from: Duration, to: Duration) -> bool {
        self.kills.iter().any(|(at, killed)| killed == who && (from..=to).contains(at))
    }

    /// True if the process of a run had been killed and nobody else was there to report what it had journaled.
    fn is_left_alone(&self, first: &TaskRun, again: Duration) -> bool {
        let machine = self.machines.get(&first.by);
        let mut beside = self.machines.iter().filter(|(_, other)| Some(*other) == machine);
        let is_dead = |who: &str| {
            let born = self.starts.iter().rfind(|(at, born)| born == who && *at <= again);
            let died = self.kills.iter().rfind(|(at, died)| died == who && *at <= again);
            died.map(|(at, _)| *at) >= born.map(|(at, _)| *at)
        };
        beside.all(|(who, _)| is_dead(who))
    }

    /// The times in which a process could not extend its leases.
    fn outages(&self, who: &str) -> Vec<Away> {
        let mut of: Vec<Away> = self.away.iter().filter(|away| away.who == who).cloned().collect();
        of.sort_by_key(|away| away.from);
        let mut outages: Vec<Away> = Vec::new();
        for away in of {
            match outages.last_mut() {
                Some(last) if away.from <= last.to + NOT_EXTENDED => {
                    last.to = last.to.max(away.to);
                    last.own += away.own;
                }
                _ => outages.push(away),
            }
        }
        outages
    }

    /// Whether the promise holds for a task: it was accepted, and if the server forgot it, then when it was still kept by
    /// somebody who was alive.
    fn must_run(&self, task: &Task) -> bool {
        let Some((at, by)) = &task.accepted else { return false };
        let machine = self.machines.get(by);
        let is_beside = |who: &String| self.machines.get(who) == machine;
        self.forgot.iter().filter(|forgot| *forgot >= at).all(|forgot| {
            let offered = *forgot + OFFERED_WITHIN;
            let has_died = |(died, who): &(Duration, String)| {
                is_beside(who) && *died >= *at && *died <= offered
            };
            *forgot - *at <= KEPT_FOR && !self.kills.iter().any(has_died)
        })
    }

    /// Why a second run is not a broken promise.
    fn excuse(&self, task: &Task, first: &TaskRun, second: &TaskRun) -> Option<&'static str> {
        let (began, again) = (first.began, second.began);
        let reported = first.ended.map_or(again, |(at, _)| at + REPORTED_AFTER).min(again);
        let is_of_peer = first.by.starts_with("peer");
        let mut away = self.outages(&first.by);
        away.retain(|away| away.from < again && away.to > began);
        let is_long =
            |away: &Away| away.to.min(again) - away.from >= LEASE_LEFT && away.own >= GRACE_LEFT;
        if first.ended.is_some_and(|(_, is_well)| !is_well) {
            Some("it had failed")
        } else if is_of_peer || task.taken_by_peer.iter().any(|at| *at >= began && *at <= again) {
            Some("a peer repeats what it could not report, and takes what is not extended")
        } else if self.was_killed(&first.by, began, reported) {
            Some("its process died before it could report")
        } else if self.is_left_alone(first, again) {
            Some("its outcome waits on a disk where nobody is")
        } else if away.iter().any(is_long) {
            Some("others took it for dead")
        } else if self.forgot.iter().any(|at| *at + OFFERED_WITHIN >= began && *at <= again) {
            // Also soon after: a failure that is offered again may meet the new run of its task, which has the same holder.
            Some("the server had forgotten")
        } else {
            None
        }
    }
}
