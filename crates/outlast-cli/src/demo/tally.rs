//! Every task of one side by its number: what its caller was told, and how often it was run.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Tasks of a demo at most, some 60 bytes each. The arguments are checked against it; a producer that comes so far
/// all the same offers no more.
pub(crate) const TASKS_MAX: usize = 1_000_000;

/// How often a recovery is looked at: this is how exact its times are.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What the caller of an enqueue was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The server has it.
    Accepted,
    /// This machine's disk has it.
    Stored,
    /// Nobody has it.
    Refused,
}

/// The counts of one side.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    tasks: Vec<Task>,
    longest_call: Duration,
    back: Option<Back>,
}

/// A task. Without an answer, its caller still waits.
#[derive(Clone, Copy, Debug, Default)]
struct Task {
    answered: Option<(Answer, Instant)>,
    first_run: Option<Instant>,
    runs: u32,
}

/// The server is back since then, and a task was run for the first time then.
#[derive(Clone, Copy, Debug)]
struct Back {
    since: Instant,
    first_run: Option<Instant>,
}

/// All there is to say about the tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) offered: u64,
    /// The caller was told that it is safe.
    pub(crate) accepted: u64,
    /// Of those, on this machine's disk.
    pub(crate) stored: u64,
    pub(crate) refused: u64,
    /// Accepted tasks that were run.
    pub(crate) executed: u64,
    /// Runs of any task beyond its first.
    pub(crate) repeated: u64,
    /// Refused tasks that were run all the same.
    pub(crate) refused_but_run: u64,
    pub(crate) longest_call: Duration,
    /// From the answer to the run.
    pub(crate) longest_wait: Duration,
}

/// How long after the server's return.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Recovery {
    /// A task was run.
    pub(crate) first_run: Option<Duration>,
    /// All were run that had been accepted before.
    pub(crate) backlog_empty: Option<Duration>,
}

/// What became of the tasks that the server still has at the end, and of those that nobody has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    /// Accepted, not run, and nobody has it.
    pub(crate) lost: u64,
    /// Accepted and not run yet.
    pub(crate) waiting: u64,
    /// Run, and kept by the server to be run again.
    pub(crate) due_again: u64,
}

impl Tally {
    /// The number of the next task.
    pub(crate) fn offer(&self) -> Option<usize> {
        let mut state = self.state();
        let number = state.tasks.len();
        (number < TASKS_MAX).then(|| {
            state.tasks.push(Task::default());
            number
        })
    }

    /// The caller of this task was told something, after so long.
    pub(crate) fn answer(&self, number: usize, answer: Answer, took: Duration) {
        let mut state = self.state();
        state.longest_call = state.longest_call.max(took);
        if let Some(task) = state.tasks.get_mut(number) {
            task.answered = Some((answer, Instant::now()));
        }
    }

    /// A handler was given the task of this id. Nobody else enqueues here, so an id that is none of ours is a
    /// mistake.
    pub(crate) fn run(&self, id: &str) {
        let (now, mut state) = (Instant::now(), self.state());
        let Some(task) = number(id).and_then(|number| state.tasks.get_mut(number)) else {
            tracing::error!(id, "a task was run that nobody has enqueued");
            return;
        };
        task.runs += 1;
        task.first_run.get_or_insert(now);
        if let Some(back) = &mut state.back {
            back.first_run.get_or_insert(now);
        }
    }

    pub(crate) fn sum(&self) -> Sum {
        let state = self.state();
        let (offered, longest_call) = (state.tasks.len() as u64, state.longest_call);
        let mut sum = Sum { offered, longest_call, ..Sum::default() };
        for task in &state.tasks {
            task.add_to(&mut sum);
        }
        sum
    }

    /// Accepted tasks that have not been run.
    pub(crate) fn unrun(&self) -> usize {
        self.state().tasks.iter().filter(|task| task.is_due(None)).count()
    }

    /// The server is back now: waits until all tasks are run that had been accepted before, so long at most.
    pub(crate) async fn recovery(&self, at_most: Duration) -> Recovery {
        let since = Instant::now();
        self.state().back = Some(Back { since, first_run: None });
        let mut empty = None;
        while since.elapsed() < at_most {
            let is_due = self.state().tasks.iter().any(|task| task.is_due(Some(since)));
            if !is_due {
                empty.get_or_insert(since.elapsed());
            }
            if empty.is_some() && self.first_run().is_some() {
                break;
            }
            sleep(LOOK_EVERY).await;
        }
        Recovery { first_run: self.first_run(), backlog_empty: empty }
    }

    fn first_run(&self) -> Option<Duration> {
        let back = self.state().back?;
        back.first_run.map(|at| at - back.since)
    }

    /// What is to be said of the tasks that the server still has.
    pub(crate) fn left(&self, kept: &[String]) -> Left {
        let state = self.state();
        let kept: HashSet<usize> = kept.iter().filter_map(|id| number(id)).collect();
        let mut left = Left::default();
        for (number, task) in state.tasks.iter().enumerate() {
            match (task.is_due(None), task.runs > 0, kept.contains(&number)) {
                (true, _, true) => left.waiting += 1,
                (true, _, false) => left.lost += 1,
                (false, true, true) => left.due_again += 1,
                (false, _, _) => {}
            }
        }
        left
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is half done when the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Task {
    /// True if it was accepted, before a time if one is given, and has not been run.
    fn is_due(&self, before: Option<Instant>) -> bool {
        let in_time = |at: Instant| before.is_none_or(|before| at <= before);
        match self.answered {
            Some((Answer::Accepted | Answer::Stored, at)) => self.runs == 0 && in_time(at),
            Some((Answer::Refused, _)) | None => false,
        }
    }

    fn add_to(&self, sum: &mut Sum) {
        let has_run = u64::from(self.runs > 0);
        sum.repeated += u64::from(self.runs.saturating_sub(1));
        let Some((answer, at)) = self.answered else { return };
        match answer {
            Answer::Refused => {
                sum.refused += 1;
                sum.refused_but_run += has_run;
                return;
            }
            Answer::Stored => sum.stored += 1,
            Answer::Accepted => {}
        }
        sum.accepted += 1;
        sum.executed += has_run;
        // A worker may be quicker than the answer to the caller.
        let wait = self.first_run.map(|run| run.saturating_duration_since(at));
        sum.longest_wait = sum.longest_wait.max(wait.unwrap_or_default());
    }
}

/// The id of a task.
pub(crate) fn id(number: usize) -> String {
    format!("demo-{number}")
}

fn number(id: &str) -> Option<usize> {
    id.strip_prefix("demo-")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_task_is_counted_for_what_became_of_it() {
        let tally = Tally::default();
        let answers = [Answer::Accepted, Answer::Accepted, Answer::Stored, Answer::Refused];
        for answer in answers.into_iter().chain([Answer::Accepted; 2]) {
            let number = tally.offer().expect("there is room");
            tally.answer(number, answer, Duration::from_millis(7));
        }
        // 0 once, 1 twice, 2 once and kept, 3 although it was refused, 4 not and kept, 5 not and gone.
        let runs = ["demo-0", "demo-1", "demo-1", "demo-2", "demo-3", "other-9"];
        runs.iter().for_each(|id| tally.run(id));
        let sum = tally.sum();
        assert_eq!((sum.offered, sum.accepted, sum.stored, sum.refused), (6, 5, 1, 1));
        assert_eq!((sum.executed, sum.repeated, sum.refused_but_run), (3, 1, 1));
        assert_eq!((sum.longest_call, tally.unrun()), (Duration::from_millis(7), 2));
        let left = tally.left(&["demo-2".to_owned(), "demo-4".to_owned()]);
        assert_eq!(left, Left { lost: 1, waiting: 1, due_again: 1 });
    }

    #[tokio::test]
    async fn a_recovery_is_over_when_what_had_been_accepted_is_run() {
        let tally = Tally::default();
        let number = tally.offer().expect("there is room");
        tally.answer(number, Answer::Stored, Duration::ZERO);
        let never = Duration::from_secs(3600);
        let (recovery, ()) = tokio::join!(tally.recovery(never), async { tally.run("demo-0") });
        let (first, empty) = (recovery.first_run.expect("one ran"), recovery.backlog_empty);
        assert!(empty.is_some_and(|empty| empty >= first), "{recovery:?}");
        // Later nothing runs, and nobody waits for it for ever.
        assert!(tally.recovery(Duration::ZERO).await.first_run.is_none());
    }
}
