//! The third oracle: what must hold of any history, whatever happened in it. Simulations record what
//! every process did at the broker ([`Recorded`]) and ask afterwards which laws were broken.
//!
//! | law | what is checked |
//! |---|---|
//! | L1 | an accepted task is stored, or somebody finished or deleted it |
//! | L2 | a finished task is not claimed again |
//! | L3 | the same stamp gets the same verdicts; a task has one holder at a time; only the holder's settlements are applied, and only the last holder's success is adopted |
//! | L5 | a settled task went where the table says |
//!
//! A history is of what the broker *applied*, so the recorder stands directly before the broker, behind
//! all planned faults. Sweeps say how many leases they took back and not whose: a second claim is
//! excused by any sweep since that took something back at a time when the lease was over.

mod lives;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use outlast_core::{
    Action, Claim, EnqueueVerdict, Extended, Hold, NewTask, QueueName, SettleVerdict, Settlement,
    Stamp, Swept, TaskId, TaskState, Timestamp,
};

pub use record::Recorded;

/// Something that the broker answered, or that somebody did by hand.
#[derive(Clone, Debug)]
pub enum Event {
    /// Tasks were offered.
    Enqueue {
        /// The batch's stamp.
        stamp: Stamp,
        /// What was offered.
        tasks: Arc<[NewTask]>,
        /// The answer.
        verdicts: Vec<EnqueueVerdict>,
    },
    /// Work was handed out.
    Claim {
        /// The batch's stamp.
        stamp: Stamp,
        /// What was handed out.
        claims: Vec<Claim>,
    },
    /// Outcomes were reported.
    Settle {
        /// The batch's stamp.
        stamp: Stamp,
        /// What was reported.
        settlements: Arc<[Settlement]>,
        /// The answer.
        verdicts: Vec<SettleVerdict>,
        /// The state of each task before and after, where the recorder looked; `None` in a pair is a
        /// task that is not stored.
        moves: Vec<(Option<TaskState>, Option<TaskState>)>,
    },
    /// Leases were held longer.
    Extend {
        /// Which leases.
        holds: Arc<[Hold]>,
        /// The answer.
        extended: Vec<Extended>,
    },
    /// Somebody swept.
    Sweep {
        /// When.
        now: Timestamp,
        /// What was moved.
        swept: Swept,
    },
    /// Somebody acted on a task, with success.
    ByHand {
        /// Which task.
        id: TaskId,
        /// What was done to it.
        action: Action,
    },
}

/// A law that was broken, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which law, such as `L1`.
    pub law: &'static str,
    /// What happened.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.law, self.what)
    }
}

/// What happened, in the order in which it was answered.
#[derive(Debug, Default)]
pub struct History(Mutex<Vec<(QueueName, Event)>>);

impl History {
    /// Adds an event.
    pub fn push(&self, queue: &QueueName, event: Event) {
        self.0.lock().expect("nobody panics while recording").push((queue.clone(), event));
    }

    /// How many events there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().expect("nobody panics while recording").len()
    }

    /// True if nothing has happened.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every task that the broker took, once, in the order in which it first did.
    #[must_use]
    pub fn taken(&self) -> Vec<(QueueName, TaskId)> {
        let mut seen = BTreeSet::new();
        let mut taken = Vec::new();
        for (queue, event) in self.0.lock().expect("nobody panics while recording").iter() {
            let Event::Enqueue { tasks, verdicts, .. } = event else { continue };
            for (task, verdict) in tasks.iter().zip(verdicts) {
                let key = (queue.clone(), task.id.clone());
                if matches!(verdict, EnqueueVerdict::Accepted { .. }) && seen.insert(key.clone()) {
                    taken.push(key);
                }
            }
        }
        taken
    }

    /// Every law that was broken; `left` are the tasks that are stored at the end, in whatever state.
    #[must_use]
    pub fn violations(&self, left: &BTreeMap<QueueName, BTreeSet<TaskId>>) -> Vec<Violation> {
        let mut lives = lives::Lives::default();
        for (queue, event) in self.0.lock().expect("nobody panics while recording").iter() {
            lives.live(queue, event);
        }
        lives.end(left)
    }
}
