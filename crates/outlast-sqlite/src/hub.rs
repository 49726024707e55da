//! Who waits for what in this process, and telling them after a commit. A waiter is told what happened
//! instead of being sent to look, so that a busy queue costs the waiters of other queues nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use outlast_core::{Interest, LeaseToken, QueueName};
use tokio::sync::Notify;

/// What a transaction has made of the queues: said to waiters after its commit.
#[derive(Debug, Default)]
pub(crate) struct News {
    queues: Vec<QueueNews>,
    commands: Vec<LeaseToken>,
    /// Another process has committed something: everybody has to look.
    foreign: bool,
}

#[derive(Debug)]
struct QueueNews {
    queue: QueueName,
    ready: bool,
    due: Option<i64>,
}

impl News {
    pub(crate) fn new(foreign: bool) -> Self {
        Self { foreign, ..Self::default() }
    }

    fn of(&mut self, queue: &QueueName) -> &mut QueueNews {
        let at = match self.queues.iter().position(|news| news.queue == *queue) {
            Some(at) => at,
            None => {
                self.queues.push(QueueNews { queue: queue.clone(), ready: false, due: None });
                self.queues.len() - 1
            }
        };
        &mut self.queues[at]
    }

    pub(crate) fn ready(&mut self, queue: &QueueName) {
        self.of(queue).ready = true;
    }

    pub(crate) fn due(&mut self, queue: &QueueName, at: i64) {
        let news = self.of(queue);
        news.due = Some(news.due.map_or(at, |due| due.min(at)));
    }

    pub(crate) fn command(&mut self, token: LeaseToken) {
        self.commands.push(token);
    }

    /// True if other processes may have something to do because of it.
    pub(crate) fn is_for_others(&self) -> bool {
        !self.queues.is_empty() || !self.commands.is_empty()
    }

    fn is_empty(&self) -> bool {
        !self.is_for_others() && !self.foreign
    }
}

/// What a waiter was told since it last asked.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) ready: Vec<QueueName>,
    pub(crate) commands: bool,
    /// The state has to be looked at again: a new due time, or another process.
    pub(crate) look: bool,
}

/// Everybody who waits.
#[derive(Default)]
pub(crate) struct Hub {
    waiters: Mutex<Waiters>,
}

#[derive(Default)]
struct Waiters {
    next: u64,
    waiting: HashMap<u64, Arc<Seat>>,
}

struct Seat {
    queues: Vec<QueueName>,
    token: Option<LeaseToken>,
    told: Mutex<Told>,
    notify: Notify,
}

/// A registered waiter; dropping it unregisters.
pub(crate) struct Waiter {
    hub: Arc<Hub>,
    number: u64,
    seat: Arc<Seat>,
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a waiter: whatever commits from now on is told to it.
    pub(crate) fn register(self: &Arc<Self>, interest: &Interest) -> Waiter {
        let seat = Arc::new(Seat {
            queues: interest.queues.clone(),
            token: interest.token,
            told: Mutex::default(),
            notify: Notify::new(),
        });
        let mut waiters = self.lock();
        let number = waiters.next;
        waiters.next += 1;
        waiters.waiting.insert(number, Arc::clone(&seat));
        Waiter { hub: Arc::clone(self), number, seat }
    }

    pub(crate) fn publish(&self, news: &News) {
        if news.is_empty() {
            return;
        }
        for seat in self.lock().waiting.values() {
            seat.tell(news);
        }
    }
}

impl Seat {
    fn tell(&self, news: &News) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut wake = news.foreign;
        told.look |= news.foreign;
        for one in news.queues.iter().filter(|one| self.queues.contains(&one.queue)) {
            wake = true;
            told.look |= one.due.is_some();
            if one.ready && !told.ready.contains(&one.queue) {
                told.ready.push(one.queue.clone());
            }
        }
        if self.token.is_some_and(|token| news.commands.contains(&token)) {
            told.commands = true;
            wake = true;
        }
        if wake {
            self.notify.notify_one();
        }
    }
}

impl Waiter {
    /// Waits until something was told. A note from before the call counts.
    pub(crate) async fn told(&self) -> Told {
        self.seat.notify.notified().await;
        std::mem::take(&mut *self.seat.told.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.hub.lock().waiting.remove(&self.number);
    }
}
