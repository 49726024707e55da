//! What a producer gets for a task: whether it was accepted, and how safely (law L1).

use std::fmt;

use outlast_core::broker::{EnqueueVerdict, Reject};
use outlast_core::{Durability, QueueName, TaskId, TaskState, Timestamp};

use crate::error::{Error, ErrorKind, Result};

/// The answer to an enqueue.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Receipt {
    /// The task's id.
    pub id: TaskId,
    /// The queue it was offered to.
    pub queue: QueueName,
    /// The state in which it was stored; `None` if it was not.
    pub state: Option<TaskState>,
    /// When it is due, if it is scheduled.
    pub due: Option<Timestamp>,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a task that was offered.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// In the broker.
    Accepted {
        /// How safely.
        level: Durability,
    },
    /// In the outbox on this machine's disk, to be delivered when the broker is back.
    Stored,
    /// Not stored: it is a duplicate.
    Duplicate {
        /// Of this task, if it is known.
        of: Option<TaskId>,
    },
    /// Not stored: a task of this id is in the queue.
    IdConflict,
    /// Not stored: wrong in itself.
    Rejected(Reject),
}

impl Verdict {
    /// The verdict in one word, as the program prints it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Verdict::Accepted { .. } => "accepted",
            Verdict::Stored => "stored",
            Verdict::Duplicate { .. } => "duplicate",
            Verdict::IdConflict => "conflict",
            Verdict::Rejected(_) => "rejected",
        }
    }
}

impl From<EnqueueVerdict> for Verdict {
    fn from(verdict: EnqueueVerdict) -> Self {
        match verdict {
            EnqueueVerdict::Accepted { level } => Verdict::Accepted { level },
            EnqueueVerdict::Stored => Verdict::Stored,
            EnqueueVerdict::Duplicate { of } => Verdict::Duplicate { of },
            EnqueueVerdict::IdConflict => Verdict::IdConflict,
            EnqueueVerdict::Rejected(why) => Verdict::Rejected(why),
        }
    }
}

impl Receipt {
    /// True if the task is safe: in the broker or in the outbox.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        match self.verdict {
            Verdict::Accepted { .. } | Verdict::Stored => true,
            Verdict::Duplicate { .. } | Verdict::IdConflict | Verdict::Rejected(_) => false,
        }
    }

    /// The receipt of a task that is safe; whatever else became of it is an error. For callers who have
    /// no other plan for a refusal, and would not notice one behind a `?`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a task that was rejected, [`ErrorKind::Duplicate`] for a duplicate and
    /// for an id that is taken.
    ///
    /// ```
    /// use outlast::{Client, ErrorKind, TaskRequest};
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
    /// # let client = Client::open("sqlite::memory:").await?;
    /// let order = || TaskRequest::raw("ship", "").id("order-7");
    /// client.enqueue(order()).await?.accepted()?;
    /// let error = client.enqueue(order()).await?.accepted().unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Duplicate);
    /// # Ok(()) }
    /// ```
    pub fn accepted(self) -> Result<Self> {
        let kind = match self.verdict {
            Verdict::Accepted { .. } | Verdict::Stored => return Ok(self),
            Verdict::Duplicate { .. } | Verdict::IdConflict => ErrorKind::Duplicate,
            Verdict::Rejected(_) => ErrorKind::Invalid,
        };
        Err(Error::new(kind, format!("task not stored: {self}")))
    }

    pub(crate) fn rejected(id: Option<TaskId>, queue: QueueName, error: &Error) -> Self {
        let verdict = Verdict::Rejected(Reject(error.to_string().into()));
        Self {
            id: id.unwrap_or_else(|| TaskId::stored("")),
            queue,
            state: None,
            due: None,
            verdict,
        }
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} in {}", self.verdict.as_str(), self.id, self.queue)?;
        match (&self.verdict, self.state, self.due) {
            (Verdict::Duplicate { of: Some(of) }, ..) => write!(f, ", a duplicate of {of}"),
            (Verdict::Rejected(why), ..) => write!(f, ": {why}"),
            (_, _, Some(due)) => write!(f, ", due {due}"),
            (_, Some(state), None) => write!(f, ", {state}"),
            _ => Ok(()),
        }
    }
}
