//! When is a periodic task due, and which ticks were missed?
//!
//! A [`Cron`] is parsed once, at the door, and then answers the same question for ever: the next
//! tick after a time. [`due_ticks`] is what a scheduler asks on every turn of its loop: which
//! ticks are due between its last position and now. [`tick_id`](crate::broker::tick_id) names the task of a tick.
//!
//! Schedules need no leader because nothing here depends on the process that asks: every
//! scheduler computes the same ticks ([`Cron::tick_after`]) and gives them the same task ids, and
//! the broker lets the first one in. Time is an argument; nothing here reads a clock. The one
//! thing taken from the machine is its time zone database, when a spec names a zone.
//!
//! # Which specs, and which ticks
//!
//! Those of Go's `robfig/cron` v3 (`ParseStandard`), so that a schedule can move between Go and
//! Rust without moving its ticks. A table made by the real Go package is part of the tests
//! (`tests/fixtures/cron_vectors.tsv`). Its odd corners are kept on purpose, because a schedule
//! that ticks here and not there runs a task once too often:
//!
//! - `30 2 * * *` does not run on the day whose clock jumps from 2:00 to 3:00, and runs twice on
//!   the day whose clock shows 2:30 twice.
//! - Where the clock jumps *at midnight* to 1:00 in a zone east of Greenwich (Cairo, Beirut), a
//!   search that steps there from an earlier day passes over the whole day of the jump:
//!   `0 5 25 4 *` in `Africa/Cairo` has no tick in 2025. In a zone west of it (Bahia, Havana)
//!   a search from the evening before may take that day for the one before. On such days two
//!   searches from different times can disagree; whoever cannot have that uses UTC.
//! - An element of a list may be empty (`1,,2`), and `*-` swallows what follows it (`*-5` is `*`).
//!   A field of commas alone matches nothing: such a cron never ticks.
//! - A negative or zero `@every` is one second.
//!
//! It differs in six places, each by intent:
//!
//! - Go gives the same tick for ever where the clock goes back over midnight (St. John's until
//!   2011), and its scheduler would run the task in a loop. Here a tick is always later.
//! - Go's search never returns where twelve hours or more are missing and the search has to cross
//!   them by day (Samoa skipped 30 December 2011). Here it steps over them.
//! - Go panics on `TZ=UTC` with nothing behind it. Here it is an error.
//! - To Go a zone is a path below its zone files, so it takes `Pacific//Auckland` and, where there
//!   are such files, `right/UTC`. Here it is a name, spelled exactly.
//! - A spec is at most [`SPEC_BYTES_MAX`] long.
//! - Time ends with the year 9999, where [`Cron::next`] answers `None`.

mod cron;
mod error;
mod every;
mod missed;
mod next;

pub use cron::{Cron, SPEC_BYTES_MAX};
pub use error::{CronError, CronField};
pub use missed::{
    CatchUp, DUE_TICKS_MAX, DueTicks, Missed, SKIPPED_COUNT_MAX, TOLERANCE_DEFAULT, due_ticks,
};
