//! What happened to every task, by its id and in order, and what must hold of it afterwards, whatever the fault was.
//!
//! A producer writes down when it asks (`Invoked`) and what it is told (`Accepted`, `Stored`: yes; `Refused`: no; `Unclear`: it may
//! have arrived), a handler when a run begins and ends. What the broker still has is read at the end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use outlast::{ErrorKind, Kind, TaskState, Verdict};
use tokio::time::Instant;

/// One step in the life of a task, as somebody saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Invoked,
    Accepted,
    Stored,
    Refused,
    Unclear,
    Begun,
    Ended,
}

impl Step {
    /// What a producer was told.
    pub(crate) fn told(answer: &outlast::Result<outlast::Receipt>) -> Self {
        match answer {
            Ok(receipt) if receipt.verdict == Verdict::Stored => Step::Stored,
            Ok(receipt) if receipt.is_accepted() => Step::Accepted,
            Ok(_) => Step::Refused,
            Err(error) if error.kind() == ErrorKind::Broker(Kind::Ambiguous) => Step::Unclear,
            Err(_) => Step::Refused,
        }
    }
}

/// What one of the invariants says against a history.
pub(crate) type Violation = String;

/// The steps of every task.
#[derive(Debug, Default)]
pub(crate) struct History {
    lives: Mutex<BTreeMap<String, Vec<(Instant, Step)>>>,
}

/// A history in numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sum {
    /// Told yes, by the broker or by the disk.
    pub(crate) accepted: usize,
    pub(crate) stored: usize,
    pub(crate) refused: usize,
    pub(crate) runs: usize,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    /// The longest that a producer waited for its answer.
    pub(crate) longest: Duration,
}

impl History {
    pub(crate) fn add(&self, id: &str, step: Step) {
        let at = Instant::now();
        self.lives().entry(id.to_owned()).or_default().push((at, step));
    }

    /// Whether every task that was promised has run to its end.
    pub(crate) fn is_done(&self) -> bool {
        self.lives().values().all(|life| !is_promised(life) || count(life, Step::Ended) > 0)
    }

    /// The first yes of the broker itself that was asked for after `since`.
    pub(crate) fn first_accepted(&self, since: Instant) -> Option<Instant> {
        let asked = |life: &[(Instant, Step)]| life.first().is_some_and(|(at, _)| *at >= since);
        let lives = self.lives();
        let answers = lives.values().filter(|life| asked(life)).flatten();
        answers.filter(|(_, step)| *step == Step::Accepted).map(|(at, _)| *at).min()
    }

    pub(crate) fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        for life in self.lives().values() {
            let runs = count(life, Step::Begun);
            sum.accepted += usize::from(is_promised(life));
            sum.stored += count(life, Step::Stored);
            sum.refused += count(life, Step::Refused) + count(life, Step::Unclear);
            sum.runs += runs;
            sum.lost += usize::from(is_promised(life) && runs == 0);
            sum.repeated += runs.saturating_sub(1);
            sum.longest = sum.longest.max(waited(life));
        }
        sum
    }

    /// I1 to I4: nothing that was promised is lost, all of it has ended, nothing has run twice, and nothing was put away unrun. `left`
    /// is what the broker still has.
    pub(crate) fn violations(&self, left: &BTreeMap<String, TaskState>) -> Vec<Violation> {
        let lives = self.lives();
        let mut found = Vec::new();
        for (id, life) in lives.iter() {
            let (begun, ended) = (count(life, Step::Begun), count(life, Step::Ended));
            let state = left.get(id);
            if is_promised(life) && begun == 0 && state.is_none() {
                found.push(format!("I1: {id} is lost: {life:?}"));
            }
            if is_promised(life)
                && (ended == 0 || state.is_some_and(|s| *s != TaskState::Completed))
            {
                found.push(format!("I2: {id} is not done but {state:?}: {life:?}"));
            }
            if state == Some(&TaskState::Archived) {
                found
                    .push(format!("I4: {id} is archived after {begun} runs, none of which failed"));
            }
            if begun > 1 {
                found.push(format!("I3: {id} ran {begun} times: {life:?}"));
            }
            if begun > 0 && life.first().map(|(_, step)| *step) != Some(Step::Invoked) {
                found.push(format!("{id} ran, and nobody had enqueued it before: {life:?}"));
            }
        }
        found
    }

    fn lives(&self) -> MutexGuard<'_, BTreeMap<String, Vec<(Instant, Step)>>> {
        self.lives.lock().unwrap()
    }
}

fn is_promised(life: &[(Instant, Step)]) -> bool {
    count(life, Step::Accepted) + count(life, Step::Stored) > 0
}

fn count(life: &[(Instant, Step)], wanted: Step) -> usize {
    life.iter().filter(|(_, step)| *step == wanted).count()
}

/// From the question to the answer; until now if there is none.
fn waited(life: &[(Instant, Step)]) -> Duration {
    let at =
        |wanted: &[Step]| life.iter().find(|(_, step)| wanted.contains(step)).map(|(at, _)| *at);
    let told = at(&[Step::Accepted, Step::Stored, Step::Refused, Step::Unclear]);
    let asked = at(&[Step::Invoked]);
    asked.map_or(Duration::ZERO, |asked| told.unwrap_or_else(Instant::now).duration_since(asked))
}

mod tests {
    use super::{BTreeMap, History, Step, TaskState};

    /// A checker that finds nothing proves nothing.
    #[test]
    fn a_history_that_breaks_an_invariant_is_told_which() {
        let cases: [(&[Step], Option<TaskState>, &str); 5] = [
            (&[Step::Invoked, Step::Stored], None, "I1"),
            (&[Step::Invoked, Step::Accepted], Some(TaskState::Pending), "I2"),
            (&[Step::Invoked, Step::Accepted, Step::Begun, Step::Ended, Step::Begun], None, "I3"),
            (&[Step::Invoked, Step::Accepted], Some(TaskState::Archived), "I4"),
            (&[Step::Begun, Step::Ended], None, "nobody had enqueued it"),
        ];
        for (life, left, wanted) in cases {
            let history = History::default();
            life.iter().for_each(|step| history.add("a", *step));
            let left: BTreeMap<_, _> =
                left.map(|state| ("a".to_owned(), state)).into_iter().collect();
            let found = history.violations(&left);
            assert!(found.iter().any(|said| said.contains(wanted)), "{wanted}: {found:?}");
        }
    }

    #[test]
    fn a_history_in_which_all_is_well_breaks_nothing() {
        let history = History::default();
        for step in [Step::Invoked, Step::Stored, Step::Begun, Step::Ended] {
            history.add("a", step);
        }
        // Told no, but it had arrived: it may run, once.
        for step in [Step::Invoked, Step::Begun, Step::Unclear, Step::Ended] {
            history.add("b", step);
        }
        history.add("c", Step::Invoked);
        history.add("c", Step::Refused);
        assert_eq!(history.violations(&BTreeMap::new()), Vec::<String>::new());
        assert!(history.is_done());
        assert_eq!((history.sum().accepted, history.sum().runs, history.sum().lost), (1, 2, 0));
    }
}
