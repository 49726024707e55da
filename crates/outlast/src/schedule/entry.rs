//! What a scheduler knows of one of its schedules.

use outlast_core::Timestamp;
use outlast_core::inspect::{ScheduleState, TickRecord};
use outlast_core::schedule::Missed;

use super::Schedule;

/// A schedule, and how far it has come.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) schedule: Schedule,
    /// Every tick up to here has been dealt with. `None` until the broker was asked.
    pub(super) position: Option<Timestamp>,
    /// When it began without the broker's word, until the broker says what was before.
    pub(super) assumed: Option<Timestamp>,
    pub(super) paused: bool,
}

impl Entry {
    pub(super) fn new(schedule: Schedule) -> Self {
        Self { schedule, position: None, assumed: None, paused: false }
    }

    /// True until the broker has said what it knows of it.
    pub(super) fn is_unknown(&self) -> bool {
        self.position.is_none() || self.assumed.is_some()
    }

    /// Begins without the broker's word.
    pub(super) fn assume(&mut self, now: Timestamp) {
        if self.position.is_none() {
            (self.position, self.assumed) = (Some(now), Some(now));
        }
    }

    /// Takes over what the broker knows. A schedule that was never seen begins now, and the beginning is
    /// recorded: its first tick may be missed, too. One that began without the broker's word catches up with
    /// what was before; ticks that it has enqueued meanwhile are taken once.
    pub(super) fn learn(&mut self, state: ScheduleState, now: Timestamp) -> Option<TickRecord> {
        self.paused = state.paused_since.is_some();
        let begun = self.assumed.take();
        if let Some(last) = state.last_tick {
            let catches_up =
                begun.is_some_and(|at| last < at && self.schedule.missed != Missed::Skip);
            self.position = if catches_up { Some(last) } else { self.position.max(Some(last)) };
            return None;
        }
        let tick = match self.position.replace(self.position.unwrap_or(now)) {
            None => now,
            Some(_) => begun?,
        };
        Some(TickRecord { schedule: state.name, tick, task: None, enqueued_at: now })
    }
}

#[cfg(test)]
mod tests {
    use outlast_core::ScheduleName;

    use super::super::hourly;
    use super::*;

    #[test]
    fn a_schedule_that_began_without_its_broker_catches_up_with_what_was_before() {
        let (before, begun, now) = (1_893_490_000, 1_893_499_200, 1_893_502_800);
        let check = |missed, last_tick: Option<i64>, position, first_record: Option<i64>| {
            let mut entry = Entry::new(hourly("a").missed(missed));
            entry.assume(Timestamp::from_seconds(begun));
            entry.assume(Timestamp::from_seconds(now));
            let state = ScheduleState {
                name: ScheduleName::stored("a"),
                paused_since: None,
                last_tick: last_tick.map(Timestamp::from_seconds),
            };
            let record = entry.learn(state, Timestamp::from_seconds(now));
            assert_eq!(entry.position, Some(Timestamp::from_seconds(position)), "{missed:?}");
            let first_record = first_record.map(Timestamp::from_seconds);
            assert_eq!(record.map(|record| record.tick), first_record, "{missed:?}");
            assert!(!entry.is_unknown());
        };
        check(Missed::Once, Some(before), before, None);
        check(Missed::All, Some(before), before, None);
        check(Missed::Skip, Some(before), begun, None);
        check(Missed::Once, Some(now), now, None);
        check(Missed::Once, None, begun, Some(begun));
    }
}
