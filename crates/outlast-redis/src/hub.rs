//! What the server tells without being asked: which keys have changed (client tracking), and which tasks
//! asynq's clients want cancelled. Every waiter of this process shares it.
//!
//! A waiter looks at its queues once; while none of the keys it looked at has changed, what it saw is
//! still true, and waiting again costs no command (design §5).

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use outlast_core::{LeaseToken, QueueName, Timestamp};
use redis::{PushInfo, PushKind, Value};
use tokio::sync::watch;

use crate::keys::Root;

/// Queues and tokens whose last look is remembered.
const LOOKS_MAX: usize = 10_000;

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Queue(QueueName),
    /// Whether there are groups in this queue.
    Groups(QueueName),
    Commands(LeaseToken),
    /// What a sweep of this queue would find.
    Sweep(QueueName),
}

/// What was there when somebody looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Queue {
        pending: u64,
        is_paused: bool,
        next_due: Option<Timestamp>,
    },
    Groups {
        any: bool,
    },
    Commands {
        waiting: u64,
    },
    /// A sweep finds nothing from `since` until `until`: a clock that goes back knows nothing.
    Calm {
        since: Timestamp,
        until: Timestamp,
        next_due: Option<Timestamp>,
    },
}

#[derive(Debug)]
pub(crate) struct Hub {
    looks: Mutex<Looks>,
    /// Changes whenever a look has become old.
    bell: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Looks {
    seen: HashMap<Subject, Seen>,
    /// How often each subject has changed: a look that was under way meanwhile is not kept.
    changes: HashMap<Subject, u64>,
    /// Queues that this process has changed itself since the last sweep.
    used: HashSet<QueueName>,
    /// Counts as a change of everything.
    resets: u64,
}

impl Looks {
    fn change(&mut self, subject: Subject) {
        self.seen.remove(&subject);
        if self.changes.len() >= LOOKS_MAX {
            self.changes.clear();
            self.seen.clear();
            self.resets += 1;
        }
        *self.changes.entry(subject).or_default() += 1;
    }
}

impl Hub {
    pub(crate) fn new() -> Self {
        Self { looks: Mutex::default(), bell: watch::Sender::new(0) }
    }

    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears every change from now on.
    pub(crate) fn listen(&self) -> watch::Receiver<u64> {
        self.bell.subscribe()
    }

    /// What is known of a subject, if that is still true.
    pub(crate) fn known(&self, subject: &Subject) -> Option<Seen> {
        self.looks().seen.get(subject).copied()
    }

    /// True if nothing of these has changed since somebody looked.
    pub(crate) fn are_known(&self, subjects: &[Subject]) -> bool {
        let looks = self.looks();
        subjects.iter().all(|subject| looks.seen.contains_key(subject))
    }

    /// The state of a subject's changes, to be compared when the look is over.
    pub(crate) fn mark(&self, subject: &Subject) -> (u64, u64) {
        let looks = self.looks();
        (looks.resets, looks.changes.get(subject).copied().unwrap_or(0))
    }

    /// Keeps what was seen, unless it has changed since `mark`. False if it has.
    pub(crate) fn keep(&self, subject: &Subject, mark: (u64, u64), seen: Seen) -> bool {
        let mut looks = self.looks();
        let now = (looks.resets, looks.changes.get(subject).copied().unwrap_or(0));
        if now != mark {
            return false;
        }
        if looks.seen.len() >= LOOKS_MAX {
            looks.seen.clear();
        }
        looks.seen.insert(subject.clone(), seen);
        true
    }

    /// A subject has changed.
    pub(crate) fn changed(&self, subject: Subject) {
        // Nobody waits for what a sweep would find.
        let is_waited_for = !matches!(subject, Subject::Sweep(_));
        self.looks().change(subject);
        if is_waited_for {
            self.bell.send_modify(|count| *count += 1);
        }
    }

    /// This process is changing a queue itself: it need not be told of it first.
    pub(crate) fn used(&self, queue: &QueueName) {
        let mut looks = self.looks();
        looks.change(Subject::Sweep(queue.clone()));
        if looks.used.len() >= LOOKS_MAX {
            looks.used.clear();
        }
        looks.used.insert(queue.clone());
    }

    /// True if this process has changed the queue since it was asked last.
    pub(crate) fn was_used(&self, queue: &QueueName) -> bool {
        self.looks().used.remove(queue)
    }

    /// Nothing that was seen can be relied on: the connection is new, or the data is gone.
    pub(crate) fn reset(&self) {
        let mut looks = self.looks();
        looks.seen.clear();
        looks.resets += 1;
        drop(looks);
        self.bell.send_modify(|count| *count += 1);
    }

    /// Takes a message that nobody asked for. Answers the id of a task to be cancelled.
    pub(crate) fn take(&self, root: &Root, push: &PushInfo) -> Option<String> {
        match push.kind {
            PushKind::Disconnection => self.reset(),
            PushKind::Invalidate => match push.data.first() {
                Some(Value::Array(keys)) => {
                    keys.iter()
                        .flat_map(|key| subjects_of(root, key))
                        .for_each(|s| self.changed(s));
                }
                // FLUSHALL, or a server that has forgotten what it tracks.
                _ => self.reset(),
            },
            PushKind::Message => return push.data.get(1).and_then(text),
            _ => {}
        }
        None
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::SimpleString(text) => Some(text.clone()),
        _ => None,
    }
}

/// What a key that has changed is about.
fn subjects_of(root: &Root, key: &Value) -> Vec<Subject> {
    let Some(key) = text(key) else { return Vec::new() };
    if let Some(token) = key.strip_prefix(&root.own("commands:")) {
        let token = token.parse().ok().and_then(LeaseToken::new);
        return token.map(Subject::Commands).into_iter().collect();
    }
    // The last part has no brace; a queue's name might.
    let parts = key.strip_prefix(root.as_str()).and_then(|rest| rest.strip_prefix(":{"));
    let Some((queue, name)) = parts.and_then(|rest| rest.rsplit_once("}:")) else {
        return Vec::new();
    };
    let queue = QueueName::stored(queue);
    match name {
        "pending" | "paused" => vec![Subject::Queue(queue)],
        "scheduled" | "retry" => vec![Subject::Queue(queue.clone()), Subject::Sweep(queue)],
        "groups" => vec![Subject::Groups(queue.clone()), Subject::Sweep(queue)],
        _ => vec![Subject::Sweep(queue)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Subject {
        Subject::Queue(QueueName::stored("q"))
    }

    fn invalidate(key: &str) -> PushInfo {
        let keys = Value::Array(vec![Value::BulkString(key.as_bytes().to_vec())]);
        PushInfo { kind: PushKind::Invalidate, data: vec![keys] }
    }

    const EMPTY: Seen = Seen::Queue { pending: 0, is_paused: false, next_due: None };

    #[test]
    fn a_look_is_good_until_one_of_its_keys_changes() {
        let (hub, root) = (Hub::new(), Root::new("asynq"));
        assert!(hub.keep(&queue(), hub.mark(&queue()), EMPTY));
        hub.take(&root, &invalidate("asynq:{other}:pending"));
        assert_eq!(hub.known(&queue()), Some(EMPTY));
        hub.take(&root, &invalidate("asynq:{q}:pending"));
        assert_eq!(hub.known(&queue()), None);
    }

    #[test]
    fn a_change_during_a_look_is_not_slept_through() {
        let (hub, root) = (Hub::new(), Root::new("asynq"));
        let mark = hub.mark(&queue());
        hub.take(&root, &invalidate("asynq:{q}:paused"));
        assert!(!hub.keep(&queue(), mark, EMPTY), "what was seen may be older than the change");
        let mark = hub.mark(&queue());
        hub.reset();
        assert!(!hub.keep(&queue(), mark, EMPTY));
    }

    /// A worker waits for tasks and, beside that, for commands. Each task rang for both, the second found nothing, and took
    /// that for a crowd of others who had been quicker: tasks were started up to 16 ms late on an idle system.
    #[test]
    fn a_change_concerns_only_those_who_wait_for_it() {
        let (hub, root) = (Hub::new(), Root::new("asynq"));
        let commands = Subject::Commands(LeaseToken::new(7).expect("a token"));
        for (subject, seen) in [(queue(), EMPTY), (commands.clone(), Seen::Commands { waiting: 0 })]
        {
            assert!(hub.keep(&subject, hub.mark(&subject), seen));
        }
        hub.take(&root, &invalidate("asynq:{q}:pending"));
        assert!(hub.are_known(std::slice::from_ref(&commands)));
        assert!(!hub.are_known(&[queue()]));
        assert!(!hub.are_known(&[queue(), commands]));
    }

    #[test]
    fn commands_are_heard_by_their_token() {
        let root = Root::new("asynq");
        let key = Value::BulkString(b"asynq:outlast:commands:77".to_vec());
        let token = LeaseToken::new(77).expect("a token");
        assert_eq!(subjects_of(&root, &key), [Subject::Commands(token)]);
    }
}
