//! Which ticks are due now, and what becomes of those that were missed?
//!
//! A scheduler keeps one position per schedule: every tick up to it is decided, run or skipped.
//!
//! ```text
//!        position                            now
//!  ─────────┼──|─────|─────|─────|────┊──|────┼──────►
//!           └──────── missed ─────────┘└ on time ┘
//!                                   now − tolerance
//! ```
//!
//! [`due_ticks`] decides the ticks between the two and returns the new position. Ticks on time
//! are always due; the policy speaks about the missed ones. A loop that enqueues what it gets and
//! only then keeps the new position loses no tick; if it dies in between, it gets the same ticks
//! again, with the same task ids.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::next::floor_second;

/// The most ticks one answer holds; what is due beyond that comes with the next question. Bounds
/// memory and the batch that is enqueued between two writes of the position.
pub const DUE_TICKS_MAX: usize = 1_000;

/// Where the count of skipped ticks ends: it is for people, who read it as "1,000 or more". An
/// exact count of the seconds of a year would take as long as running them.
pub const SKIPPED_COUNT_MAX: u64 = 1_000;

/// How late a tick may be noticed and still be on time, unless configured. Longer than a timer,
/// a busy machine or a slow write is late; shorter than the minute between two ticks of a cron.
pub const TOLERANCE_DEFAULT: Duration = Duration::from_secs(10);

/// What to do about ticks that nobody ran in time, because no scheduler was up.
///
/// ```
/// use outlast_core::schedule::Missed;
///
/// assert_eq!(serde_json::from_str::<Missed>(r#""once""#)?, Missed::Once);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// Forget them, as asynq does. The default.
    #[default]
    Skip,
    /// Run the latest one, unless one that is on time will do its work.
    Once,
    /// Run each of them, in order.
    All,
}

/// How to catch up.
///
/// ```
/// use outlast_core::schedule::{CatchUp, DUE_TICKS_MAX, Missed};
///
/// let catch_up = CatchUp { missed: Missed::All, ..CatchUp::default() };
/// assert_eq!(catch_up.ticks_max, DUE_TICKS_MAX);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// What to do about missed ticks.
    pub missed: Missed,
    /// How late a tick is not missed yet.
    pub tolerance: Duration,
    /// The most ticks in one answer, between 1 and [`DUE_TICKS_MAX`]; others are taken as the
    /// nearest of these.
    pub ticks_max: usize,
}

impl Default for CatchUp {
    fn default() -> CatchUp {
        let missed = Missed::default();
        CatchUp { missed, tolerance: TOLERANCE_DEFAULT, ticks_max: DUE_TICKS_MAX }
    }
}

/// The ticks to run now, and where that leaves the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueTicks {
    /// To be enqueued, in order.
    pub ticks: Vec<Timestamp>,
    /// How many ticks were passed over; [`SKIPPED_COUNT_MAX`] means that many or more.
    pub skipped: u64,
    /// Every tick up to here is decided. Keep it once `ticks` are enqueued; it is the next `last`.
    pub position: Timestamp,
    /// The limit was reached: more is due, ask again without waiting.
    pub more: bool,
}

/// Which ticks are due at `now`, if every tick up to `last` is decided?
///
/// Without a `last` the schedule begins now: nothing is missed. If the clock went back and `now`
/// is before `last`, nothing is due until it has passed `last` again, so no tick comes twice.
/// Whoever asks should wait until [`Cron::tick_after`] the new position, but may ask any time.
///
/// ```
/// use jiff::{Timestamp, tz::TimeZone};
/// use outlast_core::schedule::{CatchUp, Cron, Missed, due_ticks};
///
/// let at = |text: &str| text.parse::<Timestamp>();
/// let hourly = Cron::parse("@hourly", &TimeZone::UTC)?;
/// let last = Some(at("2026-11-24T00:30:00Z")?);
/// let once = CatchUp { missed: Missed::Once, ..CatchUp::default() };
///
/// let due = due_ticks(&hourly, last, at("2026-11-24T04:30:00Z")?, &once);
/// assert_eq!(due.ticks, [at("2026-11-24T04:00:00Z")?]);
/// assert_eq!(due.skipped, 3);
/// assert_eq!(due.position, at("2026-11-24T04:30:00Z")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn due_ticks(
    cron: &Cron,
    last: Option<Timestamp>,
    now: Timestamp,
    catch_up: &CatchUp,
) -> DueTicks {
    let Some(last) = last.filter(|last| *last < now) else {
        let position = last.unwrap_or(now);
        return DueTicks { ticks: Vec::new(), skipped: 0, position, more: false };
    };
    if catch_up.missed == Missed::All {
        return in_order(cron, last, now, catch_up.ticks_max);
    }
    let missed_end = missed_end(last, now, catch_up.tolerance);
    let mut due = in_order(cron, missed_end, now, catch_up.ticks_max);
    due.skipped = count(cron, last, missed_end);
    if catch_up.missed == Missed::Once && due.ticks.is_empty() {
        due.ticks.extend(latest(cron, last, missed_end));
        due.skipped = due.skipped.saturating_sub(due.ticks.len() as u64);
    }
    due
}

/// Ticks up to here are missed, later ones are on time. A tick exactly `tolerance` ago is on time,
/// hence the nanosecond: searches begin behind the moment they are given.
fn missed_end(last: Timestamp, now: Timestamp, tolerance: Duration) -> Timestamp {
    let late = now
        .checked_sub(tolerance)
        .and_then(|on_time| on_time.checked_sub(Duration::from_nanos(1)))
        .unwrap_or(Timestamp::MIN);
    late.max(last)
}

/// Every tick later than `start` and up to `now`, as many as fit.
fn in_order(cron: &Cron, start: Timestamp, now: Timestamp, ticks_max: usize) -> DueTicks {
    let ticks_max = ticks_max.clamp(1, DUE_TICKS_MAX);
    let mut rest = ticks_between(cron, start, now);
    let ticks: Vec<Timestamp> = rest.by_ref().take(ticks_max).collect();
    let more = rest.next().is_some();
    let position = ticks.last().copied().filter(|_| more).unwrap_or(now);
    DueTicks { ticks, skipped: 0, position, more }
}

fn count(cron: &Cron, start: Timestamp, end: Timestamp) -> u64 {
    ticks_between(cron, start, end).take(SKIPPED_COUNT_MAX as usize).count() as u64
}

/// Later than `start`, up to and with `end`.
fn ticks_between(cron: &Cron, start: Timestamp, end: Timestamp) -> impl Iterator<Item = Timestamp> {
    cron.ticks_after(start).take_while(move |tick| *tick <= end)
}

/// The last tick later than `start` and up to `end`, by halving: years of seconds are 30 steps.
fn latest(cron: &Cron, start: Timestamp, end: Timestamp) -> Option<Timestamp> {
    let tick_until_end = |after| cron.tick_after(after).filter(|tick| *tick <= end);
    let mut found = tick_until_end(start)?;
    // Known: `found` is a tick, and there is none behind `clear`.
    let mut clear = floor_second(end);
    while found.as_second() < clear {
        let middle = found.as_second() + (clear - found.as_second()) / 2;
        match Timestamp::from_second(middle).ok().and_then(tick_until_end) {
            Some(tick) => found = tick,
            None => clear = middle,
        }
    }
    Some(found)
}
