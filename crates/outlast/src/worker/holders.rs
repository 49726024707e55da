//! Which other workers have stopped extending their leases? One that lives extends all of them every five seconds, or four times in
//! their length. Where the earliest end has stood still for three fifths of that its worker is dead, or cut off: what it was doing need
//! not wait until nothing is left (design §5: a wrong guess is fenced).

use std::collections::HashMap;
use std::time::Duration;

use outlast_core::{Held, LeaseToken, Timestamp};
use tokio::time::Instant;

/// Workers that are watched in a queue at most: a sweep tells of fewer.
const HOLDERS_MAX: usize = 100;

/// How long a lease must be found unextended, by at least two looks: this process may itself have been held up.
const WATCHED_FOR: Duration = Duration::from_secs(2);

/// The holders of leases in one queue, as its sweeps have told of them.
#[derive(Debug, Default)]
pub(super) struct Holders(HashMap<LeaseToken, Holder>);

#[derive(Debug)]
struct Holder {
    until: Timestamp,
    /// The most that was ever left of it: about the length of its leases.
    most: Duration,
    /// Since when its end is the same, by a clock that nobody sets: what is left of it may be wrong after a step of another one.
    same_since: Instant,
    /// Since when it has been found to be overdue.
    overdue_since: Option<Instant>,
}

impl Holders {
    /// A sweep at `now` has told of these.
    pub(super) fn saw(&mut self, held: &[Held], own: LeaseToken, now: Timestamp, at: Instant) {
        let is_there = |token: &LeaseToken| held.iter().any(|holder| holder.token == *token);
        self.0.retain(|token, _| is_there(token));
        for &Held { token, until } in held.iter().filter(|holder| holder.token != own) {
            if self.0.len() >= HOLDERS_MAX && !self.0.contains_key(&token) {
                continue;
            }
            let left = until.since(now);
            let fresh = Holder { until, most: left, same_since: at, overdue_since: None };
            let holder = self.0.entry(token).or_insert(fresh);
            if holder.until != until {
                (holder.until, holder.same_since) = (until, at);
                holder.most = holder.most.max(left);
            }
            let is_overdue = 5 * at.duration_since(holder.same_since) >= 3 * holder.most;
            holder.overdue_since = is_overdue.then(|| holder.overdue_since.unwrap_or(at));
        }
    }

    /// One whose leases are to be taken back although they have not run out.
    pub(super) fn vanished(&self, at: Instant) -> Option<Held> {
        let is_vanished = |holder: &Holder| {
            holder.overdue_since.is_some_and(|since| at.duration_since(since) >= WATCHED_FOR)
        };
        let (token, holder) = self.0.iter().find(|(_, holder)| is_vanished(holder))?;
        Some(Held { token: *token, until: holder.until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: i64 = 30;

    struct World {
        holders: Holders,
        begun: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { holders: Holders::default(), begun: Instant::now() }
        }

        /// A sweep at this second, in which the earliest lease of a worker ends at another one. Who is taken for dead afterwards.
        fn sweep(&mut self, second: i64, held: &[(u32, i64)]) -> Option<Held> {
            let token = |number| LeaseToken::new(number).expect("a token");
            let until = Timestamp::from_seconds;
            let held: Vec<_> = held
                .iter()
                .map(|(number, end)| Held { token: token(*number), until: until(*end) })
                .collect();
            let at = self.begun + Duration::from_secs(second.unsigned_abs());
            self.holders.saw(&held, token(99), Timestamp::from_seconds(second), at);
            self.holders.vanished(at)
        }
    }

    #[test]
    fn a_worker_that_extends_is_never_taken_for_dead_however_long_its_leases() {
        for lease in [3, LEASE, 600] {
            let mut world = World::new();
            let every = (lease / 4).clamp(1, 5);
            for second in 0..2 * lease {
                let extended = second - second % every;
                assert_eq!(world.sweep(second, &[(1, extended + lease)]), None, "{second}");
            }
        }
    }

    #[test]
    fn one_that_stopped_is_after_three_fifths_of_its_lease_and_that_was_seen_for_a_while() {
        let mut world = World::new();
        let gone: Vec<i64> =
            (0..LEASE).filter(|second| world.sweep(*second, &[(1, LEASE)]).is_some()).collect();
        assert_eq!(gone.first(), Some(&20), "18, and two seconds later");
        assert_eq!(world.sweep(LEASE, &[(1, 2 * LEASE)]), None, "it was alive");
    }

    /// What was left was compared with what had been left before the clock of a worker was set back: it was taken for dead every five
    /// seconds.
    #[test]
    fn a_worker_whose_clock_is_set_and_which_extends_is_not_taken_for_dead() {
        let mut world = World::new();
        for second in 0..120 {
            let (extended, behind) = (second - second % 5, if second < 30 { 0 } else { 22 });
            let held = world.sweep(second, &[(1, extended + LEASE - behind)]);
            assert_eq!(held, None, "{second}");
        }
    }

    #[test]
    fn a_worker_does_not_watch_itself_and_one_that_holds_nothing_is_forgotten() {
        let mut world = World::new();
        for second in 0..LEASE {
            assert_eq!(world.sweep(second, &[(99, LEASE)]), None);
        }
        world.sweep(0, &[(1, LEASE)]);
        world.sweep(1, &[]);
        assert!(world.holders.0.is_empty());
    }

    #[test]
    fn who_begins_to_watch_late_waits_for_three_fifths_of_what_it_saw() {
        let mut world = World::new();
        let gone: Vec<i64> =
            (18..LEASE).filter(|second| world.sweep(*second, &[(1, LEASE)]).is_some()).collect();
        assert_eq!(gone.first(), Some(&28));
    }
}
