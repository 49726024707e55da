//! What is to be done with the bytes that pass, and what has passed: the state that the proxy's connections share. No I/O here.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::sync::watch;

use super::frames::Frames;
use super::{Counts, Direction, LOG_LEN_MAX};

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Close,
    Reset,
}

/// Rules for bytes, connections and replies, and the counts.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) is_black_hole: bool,
    pub(super) delay: PerDirection<Duration>,
    pub(super) cut_after: PerDirection<Option<u64>>,
    pub(super) lose: VecDeque<Lose>,
    pub(super) counts: Counts,
    pub(super) log: Vec<String>,
    pub(super) connections: BTreeMap<u64, Progress>,
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerDirection<T> {
    /// For [`Direction::ToServer`].
    pub to_server: T,
    /// For [`Direction::ToClient`].
    pub to_client: T,
}

/// The replies to be lost, of the first connection that sends a request that matches.
#[derive(Debug)]
pub(super) struct Lose {
    /// Only from a request of this name on.
    pub(super) command: Option<String>,
    pub(super) requests: u64,
}

/// How far a connection is.
#[derive(Debug)]
pub(super) struct Progress {
    pub(super) end: watch::Sender<Option<End>>,
    /// Whether bytes were dropped: what follows would make no sense to either side.
    pub(super) has_lost_bytes: bool,
    requests: u64,
    replies: u64,
    losing: Option<Losing>,
}

#[derive(Debug)]
struct Losing {
    /// Requests whose replies are still to be lost.
    left: u64,
    /// The number of the last request whose reply is lost.
    until: u64,
}

/// What to do with a piece.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) forward: usize,
    pub(super) delay: Duration,
    pub(super) is_last: bool,
}

impl<T> PerDirection<T> {
    pub(super) fn of(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

impl Plan {
    /// Adds a connection; the receiver learns when it is to end.
    pub(super) fn open(&mut self) -> (u64, watch::Receiver<Option<End>>) {
        let (end, ended) = watch::channel(None);
        let id = self.counts.connections;
        self.counts.connections += 1;
        self.counts.open += 1;
        let progress =
            Progress { end, has_lost_bytes: false, requests: 0, replies: 0, losing: None };
        self.connections.insert(id, progress);
        (id, ended)
    }

    pub(super) fn close(&mut self, id: u64) {
        if self.connections.remove(&id).is_some() {
            self.counts.open -= 1;
        }
    }

    /// Forgets every rule. Connections that lost bytes end.
    pub(super) fn heal(&mut self) {
        self.is_black_hole = false;
        self.delay = PerDirection::default();
        self.cut_after = PerDirection::default();
        self.lose.clear();
        for progress in self.connections.values().filter(|progress| progress.has_lost_bytes) {
            progress.end.send_replace(Some(End::Close));
        }
        self.connections.values_mut().for_each(|progress| progress.losing = None);
    }

    pub(super) fn end_all(&mut self, end: End) {
        for progress in self.connections.values() {
            progress.end.send_replace(Some(end));
        }
    }

    /// Judges the next piece of a connection, and counts what it holds.
    pub(super) fn judge(&mut self, id: u64, frames: &mut Frames, piece: &[u8]) -> Verdict {
        let direction = frames.direction();
        let ended = frames.feed(piece);
        let replies = match direction {
            // What is not RESP is taken to answer with every piece.
            Direction::ToClient if frames.is_lost() => 1,
            Direction::ToClient => ended.len() as u64,
            Direction::ToServer => {
                ended.into_iter().for_each(|name| self.request(id, name));
                0
            }
        };
        self.counts.replies += replies;
        let Some(progress) = self.connections.get_mut(&id) else {
            return Verdict { is_last: true, ..Verdict::default() };
        };
        progress.replies += replies;
        let losing = progress.losing.as_ref().filter(|_| direction == Direction::ToClient);
        if losing.is_some() || self.is_black_hole {
            let is_last = losing.is_some_and(|losing| losing.is_over(progress.replies));
            progress.has_lost_bytes = true;
            self.counts.bytes_dropped += piece.len() as u64;
            return Verdict { is_last, ..Verdict::default() };
        }
        let (forward, is_last) = take(self.cut_after.of(direction), piece.len());
        Verdict { forward, delay: *self.delay.of(direction), is_last }
    }

    /// Counts a request, and sees whether its reply is to be lost.
    fn request(&mut self, id: u64, name: String) {
        self.counts.requests += 1;
        if let Some(progress) = self.connections.get_mut(&id) {
            progress.requests += 1;
            if progress.losing.is_none() {
                let rule = self.lose.iter().position(|rule| rule.is_for(&name));
                let rule = rule.and_then(|at| self.lose.remove(at));
                progress.losing = rule.map(|rule| Losing { left: rule.requests, until: 0 });
            }
            if let Some(losing) = progress.losing.as_mut().filter(|losing| losing.left > 0) {
                losing.left -= 1;
                losing.until = progress.requests;
                self.counts.replies_lost += 1;
            }
        }
        match self.log.len() {
            LOG_LEN_MAX => self.counts.unlogged += 1,
            _ => self.log.push(name),
        }
    }
}

impl Lose {
    fn is_for(&self, name: &str) -> bool {
        self.command.as_deref().is_none_or(|command| command == name)
    }
}

impl Losing {
    /// Whether the server has answered all that was to be lost.
    fn is_over(&self, replies: u64) -> bool {
        self.left == 0 && replies >= self.until
    }
}

/// How much of a piece goes through before the cut, and whether the cut follows. The first cut uses the rule up.
fn take(budget: &mut Option<u64>, len: usize) -> (usize, bool) {
    let Some(left) = budget else { return (len, false) };
    match usize::try_from(*left) {
        Ok(rest) if rest <= len => {
            *budget = None;
            (rest, true)
        }
        Ok(_) | Err(_) => {
            *left -= len as u64;
            (len, false)
        }
    }
}
