//! What happened that somebody should know: for logs, callbacks, metrics, the dashboard (law L10).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outlast_core::{Epoch, Home, Kind, QueueName, TaskId};
use tokio::sync::broadcast;

use crate::spool::Store;

/// Events that a listener may be behind. One that is further behind is told how many it has missed, and
/// the counters know them all.
const BEHIND_MAX: usize = 1024;

/// Something that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A home stopped answering.
    Down {
        /// Which.
        home: Home,
        /// What kind of failure opened its breaker.
        kind: Kind,
        /// The failure's text.
        reason: String,
    },
    /// A home answers again.
    Up {
        /// Which.
        home: Home,
        /// How long it did not.
        after: Duration,
    },
    /// A home refuses one queue, and serves the others.
    QueueRefused {
        /// Which home.
        home: Home,
        /// The queue.
        queue: QueueName,
        /// What the home answers.
        reason: String,
    },
    /// A home serves a queue again that it had refused.
    QueueAdmitted {
        /// Which home.
        home: Home,
        /// The queue.
        queue: QueueName,
        /// How long it did not.
        after: Duration,
    },
    /// A home's memory has become scarce: new tasks of some queues are held back (`Config::watermark`).
    MemoryScarce {
        /// Which home.
        home: Home,
        /// The share that is used.
        used_percent: u8,
    },
    /// A home has memory again.
    MemoryFree {
        /// Which home.
        home: Home,
        /// The share that is used.
        used_percent: u8,
    },
    /// Other data is behind the same home.
    EpochChanged {
        /// Which home.
        home: Home,
        /// What was there.
        from: Epoch,
        /// What is there now.
        to: Epoch,
    },
    /// Another run of the server answers: it was restarted, or another one has its place. It may have forgotten something.
    ServerChanged {
        /// The home.
        home: Home,
    },
    /// A task from the outbox was not stored, because one like it was there.
    Duplicate {
        /// Its queue.
        queue: QueueName,
        /// The task that was offered.
        id: String,
        /// The task that was there, if it is known.
        of: Option<TaskId>,
    },
    /// A task from the outbox was not stored, because another one of its id was there.
    IdConflict {
        /// Its queue.
        queue: QueueName,
        /// The id.
        id: String,
    },
    /// An item will not be delivered unless somebody says so.
    Quarantined {
        /// Where it came from.
        store: Store,
        /// Its queue.
        queue: QueueName,
        /// The task's id.
        id: String,
        /// Why.
        why: String,
    },
    /// Items were dropped to make room for newer ones: tasks of the outbox, as configured, or the oldest of a full quarantine.
    Dropped {
        /// The queue of the newer ones, or that of the dropped.
        queue: QueueName,
        /// The tasks' ids.
        ids: Vec<String>,
    },
    /// A journaled outcome came too late: its task had been given to another worker.
    LeaseLost {
        /// The task's queue.
        queue: QueueName,
        /// The task.
        id: String,
    },
    /// A journaled success was applied though its lease was lost: nobody had started the task again.
    Adopted {
        /// The task's queue.
        queue: QueueName,
        /// The task.
        id: String,
    },
    /// Items were sent again after so long that the broker may have forgotten the first time.
    PossibleRepeat {
        /// The store they came from.
        store: Store,
        /// Their queue.
        queue: QueueName,
        /// How many.
        count: u64,
    },
    /// The broker has forgotten what it had acknowledged.
    Lost {
        /// The queue it was noticed in.
        queue: QueueName,
        /// Acknowledged tasks and settlements that are offered again. The broker takes those that it has
        /// forgotten, and only those.
        offered_again: u64,
        /// Some that were acknowledged in the same time were no longer kept here.
        is_partly: bool,
    },
}

/// How often things happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Tasks that were stored in the outbox.
    pub stored: u64,
    /// Settlements that were journaled.
    pub journaled: u64,
    /// Tasks delivered from the outbox.
    pub delivered: u64,
    /// Settlements applied from the journal.
    pub applied: u64,
    /// Of those, adopted.
    pub adopted: u64,
    /// Journaled outcomes whose lease was lost.
    pub lease_lost: u64,
    /// Tasks from the outbox that were duplicates.
    pub duplicates: u64,
    /// Tasks from the outbox whose id was taken.
    pub id_conflicts: u64,
    /// Items put into quarantine.
    pub quarantined: u64,
    /// Tasks dropped to make room.
    pub dropped: u64,
    /// Items that may have been applied twice.
    pub possible_repeats: u64,
    /// Acknowledged items that the broker forgot, and that were offered again.
    pub offered_again: u64,
    /// Outages that have begun.
    pub outages: u64,
    /// Calls that a broker was sent while it was down: probes, and trials when one had succeeded.
    pub sick_calls: u64,
}

/// Tells everybody who listens, and counts.
#[derive(Debug)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    counts: [AtomicU64; COUNTERS],
}

/// Which number of [`Counts`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    Stored,
    Journaled,
    Delivered,
    Applied,
    Adopted,
    LeaseLost,
    Duplicates,
    IdConflicts,
    Quarantined,
    Dropped,
    PossibleRepeats,
    OfferedAgain,
    Outages,
    SickCalls,
}

const COUNTERS: usize = Counter::SickCalls as usize + 1;

impl Events {
    pub(crate) fn new() -> Self {
        Self { sender: broadcast::channel(BEHIND_MAX).0, counts: Default::default() }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }

    pub(crate) fn add(&self, counter: Counter, count: usize) {
        self.counts[counter as usize].fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn tell(&self, event: Event) {
        self.count(&event);
        log(&event);
        // Without a listener nobody is told, which is no fault.
        let _ = self.sender.send(event);
    }

    fn count(&self, event: &Event) {
        match event {
            Event::Down { .. } => self.add(Counter::Outages, 1),
            Event::Up { .. }
            | Event::EpochChanged { .. }
            | Event::ServerChanged { .. }
            | Event::QueueRefused { .. }
            | Event::QueueAdmitted { .. }
            | Event::MemoryScarce { .. }
            | Event::MemoryFree { .. } => {}
            Event::Duplicate { .. } => self.add(Counter::Duplicates, 1),
            Event::IdConflict { .. } => self.add(Counter::IdConflicts, 1),
            Event::Quarantined { .. } => self.add(Counter::Quarantined, 1),
            Event::Dropped { ids, .. } => self.add(Counter::Dropped, ids.len()),
            Event::LeaseLost { .. } => self.add(Counter::LeaseLost, 1),
            Event::Adopted { .. } => self.add(Counter::Adopted, 1),
            Event::PossibleRepeat { count, .. } => {
                self.add(Counter::PossibleRepeats, small(*count));
            }
            Event::Lost { offered_again, .. } => {
                self.add(Counter::OfferedAgain, small(*offered_again));
            }
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        let read = |counter: Counter| self.counts[counter as usize].load(Ordering::Relaxed);
        Counts {
            stored: read(Counter::Stored),
            journaled: read(Counter::Journaled),
            delivered: read(Counter::Delivered),
            applied: read(Counter::Applied),
            adopted: read(Counter::Adopted),
            lease_lost: read(Counter::LeaseLost),
            duplicates: read(Counter::Duplicates),
            id_conflicts: read(Counter::IdConflicts),
            quarantined: read(Counter::Quarantined),
            dropped: read(Counter::Dropped),
            possible_repeats: read(Counter::PossibleRepeats),
            offered_again: read(Counter::OfferedAgain),
            outages: read(Counter::Outages),
            sick_calls: read(Counter::SickCalls),
        }
    }
}

fn small(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// One line each. Down and up are the only two lines of an outage that goes well.
fn log(event: &Event) {
    match event {
        Event::Down { home, kind, reason } => {
            tracing::warn!(home = %home.0, %kind, reason, "the broker is down: what cannot wait is stored");
        }
        Event::Up { home, after } => {
            let after_ms = after.as_millis();
            tracing::info!(home = %home.0, after_ms, "the broker is back: what was stored is delivered");
        }
        Event::QueueRefused { home, queue, reason } => {
            tracing::warn!(home = %home.0, %queue, reason, "the broker refuses a queue: what cannot wait is stored");
        }
        Event::QueueAdmitted { home, queue, after } => {
            let after_ms = after.as_millis();
            tracing::info!(home = %home.0, %queue, after_ms, "the broker serves the queue again");
        }
        Event::MemoryScarce { home, used_percent } => {
            tracing::warn!(home = %home.0, used_percent, "the broker's memory is scarce: tasks of some queues are held back");
        }
        Event::MemoryFree { home, used_percent } => {
            tracing::info!(home = %home.0, used_percent, "the broker has memory again");
        }
        Event::EpochChanged { home, from, to } => {
            tracing::error!(home = %home.0, from = from.0, to = to.0, "other data is behind this broker");
        }
        Event::ServerChanged { home } => {
            tracing::info!(home = %home.0, "another run of the server answers: it is asked what it remembers");
        }
        Event::Duplicate { queue, id, of } => {
            let of = of.as_ref().map(TaskId::as_str);
            tracing::info!(%queue, id, of, "a stored task was a duplicate and is not delivered");
        }
        Event::IdConflict { queue, id } => {
            tracing::warn!(%queue, id, "a stored task is not delivered: another one has its id");
        }
        Event::Quarantined { store, queue, id, why } => {
            tracing::error!(store = store.as_str(), %queue, id, why, "put into quarantine");
        }
        Event::Dropped { queue, ids } => {
            let count = ids.len();
            let ids = ids.join(" ");
            tracing::error!(%queue, count, ids, "there was no room: the oldest tasks of the outbox or its quarantine were dropped");
        }
        Event::LeaseLost { queue, id } => {
            tracing::warn!(%queue, id, "a journaled outcome came too late: its lease was lost");
        }
        Event::Adopted { queue, id } => {
            tracing::info!(%queue, id, "a journaled success was adopted after its lease was lost");
        }
        Event::PossibleRepeat { store, queue, count } => {
            tracing::warn!(store = store.as_str(), %queue, count, "sent again after a long time: may be repeats");
        }
        Event::Lost { queue, offered_again, is_partly } => {
            tracing::error!(%queue, offered_again, is_partly, "the broker has forgotten what it had acknowledged");
        }
    }
}
