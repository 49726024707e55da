//! What is the next tick after a time?
//!
//! A cron with fields is searched as Go's `robfig/cron` searches: month, day, hour, minute and
//! second in turn; a field that does not match is stepped until it does, and a field that wraps
//! around sends the search back to the month. Months and days are stepped on the wall clock,
//! hours and minutes in real time. That order decides what happens when the clock jumps (a time
//! in the gap is passed over, a time that comes twice ticks twice), so it is kept step by step.
//!
//! Promise: the answer is later than the question, no input panics, and a search is short: at
//! most a step per month and day of five years, some ten microseconds.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::cron::{Cron, Days, Fields, Rule};

/// How far a search looks: a cron without a tick by the end of the fifth calendar year ahead is
/// taken to have none. It is Go's limit too, and why 29 February 2096 is followed by no other
/// (the next is in 2104).
const SEARCH_YEARS_MAX: i16 = 5;

const MINUTE_SECONDS: i64 = 60;
const HOUR_SECONDS: i64 = 3_600;

impl Cron {
    /// The first tick later than `after`; `None` if there is none within five years.
    ///
    /// Exactly what Go's `Schedule.Next` answers, also for `@every`, whose ticks are counted from
    /// `after`: two processes that start at different times tick at different times. Schedulers
    /// that must agree use [`Cron::tick_after`].
    ///
    /// ```
    /// use jiff::{Timestamp, tz::TimeZone};
    /// use outlast_core::schedule::Cron;
    ///
    /// let at = |text: &str| text.parse::<Timestamp>();
    /// let daily = Cron::parse("30 2 * * *", &TimeZone::get("Europe/Berlin")?)?;
    /// assert_eq!(daily.next(at("2026-11-24T00:00:00Z")?), Some(at("2026-11-24T01:30:00Z")?));
    /// // On 28 March 2027 the clock jumps over 2:30.
    /// assert_eq!(daily.next(at("2027-03-27T12:00:00Z")?), Some(at("2027-03-29T00:30:00Z")?));
    ///
    /// let every = Cron::parse("@every 5m", &TimeZone::UTC)?;
    /// assert_eq!(every.next(at("2026-11-24T00:01:02.5Z")?), Some(at("2026-11-24T00:06:02Z")?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = floor_second(after);
        let tick = match &self.rule {
            Rule::Fields(fields) => search(fields, self.zone(), after)?,
            Rule::Every { seconds } => after.checked_add(*seconds)?,
        };
        Timestamp::from_second(tick).ok()
    }

    /// The first tick later than `after` on which all schedulers agree.
    ///
    /// The same as [`Cron::next`], except that the ticks of `@every d` are the multiples of `d`
    /// since 1970 (UTC, leap seconds aside): `@every 5m` ticks at :00, :05, :10, whoever asks.
    /// These are the ticks that a scheduler runs, and that `outlast schedule next` prints.
    ///
    /// ```
    /// use jiff::{Timestamp, tz::TimeZone};
    /// use outlast_core::schedule::Cron;
    ///
    /// let at = |text: &str| text.parse::<Timestamp>();
    /// let every = Cron::parse("@every 5m", &TimeZone::UTC)?;
    /// assert_eq!(every.tick_after(at("2026-11-24T00:01:02.5Z")?), Some(at("2026-11-24T00:05:00Z")?));
    /// assert_eq!(every.tick_after(at("2026-11-24T00:05:00Z")?), Some(at("2026-11-24T00:10:00Z")?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn tick_after(&self, after: Timestamp) -> Option<Timestamp> {
        let Rule::Every { seconds } = self.rule else {
            return self.next(after);
        };
        let ticks_before = floor_second(after).div_euclid(seconds);
        let tick = ticks_before.checked_add(1)?.checked_mul(seconds)?;
        Timestamp::from_second(tick).ok()
    }

    /// The ticks later than `after` in order, each found by [`Cron::tick_after`] from the last.
    ///
    /// ```
    /// use jiff::{Timestamp, tz::TimeZone};
    /// use outlast_core::schedule::Cron;
    ///
    /// let cron = Cron::parse("0 12 * * fri", &TimeZone::UTC)?;
    /// let now: Timestamp = "2026-11-24T00:00:00Z".parse()?;
    /// let ticks: Vec<String> = cron.ticks_after(now).take(2).map(|tick| tick.to_string()).collect();
    /// assert_eq!(ticks, ["2026-11-27T12:00:00Z", "2026-12-04T12:00:00Z"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn ticks_after(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.tick_after(after), |tick| self.tick_after(*tick))
    }
}

/// The second that `time` lies in. jiff rounds towards 1970, which is later before it.
pub(super) fn floor_second(time: Timestamp) -> i64 {
    time.as_second() - i64::from(time.subsec_nanosecond() < 0)
}

/// What became of a field.
#[derive(PartialEq, Eq)]
enum Step {
    /// It matches here; look at the next field.
    Matches,
    /// It wrapped around, so the fields above it have to be looked at again.
    Wrapped,
}

/// Where midnight comes twice (until 2011 the clock of St. John's went back from 0:01 to 23:01) a
/// search can be led back before its question; Go then gives the same tick again and again. Here
/// the question moves on, minute by minute so that no tick is passed over.
fn search(fields: &Fields, zone: &TimeZone, after: i64) -> Option<i64> {
    if fields.never_match() {
        return None;
    }
    let mut first = after.checked_add(1)?;
    loop {
        let tick = search_from(fields, zone, first)?;
        if tick > after {
            return Some(tick);
        }
        first = first.checked_add(MINUTE_SECONDS - first.rem_euclid(MINUTE_SECONDS))?;
    }
}

/// `first` may be the tick itself.
fn search_from(fields: &Fields, zone: &TimeZone, first: i64) -> Option<i64> {
    let mut search = Search::new(fields, zone, first)?;
    let year_max = search.wall.year().saturating_add(SEARCH_YEARS_MAX);
    while search.wall.year() <= year_max {
        if search.find_month()? == Step::Matches
            && search.find_day()? == Step::Matches
            && search.find_hour()? == Step::Matches
            && search.find_minute()? == Step::Matches
            && search.find_second()? == Step::Matches
        {
            return Some(search.second);
        }
    }
    None
}

impl Fields {
    /// A field of commas alone is empty. Without this check such a search would look at every
    /// minute of five years.
    fn never_match(&self) -> bool {
        let no_day = match self.days {
            Days::Both => self.days_of_month == 0 || self.days_of_week == 0,
            Days::Either => self.days_of_month == 0 && self.days_of_week == 0,
        };
        self.minutes == 0 || self.hours == 0 || self.months == 0 || no_day
    }

    fn match_day(&self, date: Date) -> bool {
        let day_of_month = has(self.days_of_month, date.day());
        let day_of_week = has(self.days_of_week, date.weekday().to_sunday_zero_offset());
        match self.days {
            Days::Both => day_of_month && day_of_week,
            Days::Either => day_of_month || day_of_week,
        }
    }
}

fn has(bits: u64, value: i8) -> bool {
    bits & (1 << value) != 0
}

/// A moment on its way forward. Each method returns `None` at the end of time.
struct Search<'a> {
    fields: &'a Fields,
    zone: &'a TimeZone,
    /// Since 1970.
    second: i64,
    /// The same moment on the wall clock of `zone`.
    wall: DateTime,
    /// Whether the fields below the first one that did not match were set to their beginning.
    /// It is done once: afterwards every step begins at a beginning, or where a jump of the clock
    /// has put it.
    is_reset: bool,
}

impl<'a> Search<'a> {
    fn new(fields: &'a Fields, zone: &'a TimeZone, second: i64) -> Option<Search<'a>> {
        let wall = zone.to_datetime(Timestamp::from_second(second).ok()?);
        Some(Search { fields, zone, second, wall, is_reset: false })
    }

    fn find_month(&mut self) -> Option<Step> {
        while !has(self.fields.months, self.wall.month()) {
            if self.first_reset() {
                self.go_to(self.wall.date().first_of_month(), 0)?;
            }
            self.next_month()?;
            if self.wall.month() == 1 {
                return Some(Step::Wrapped);
            }
        }
        Some(Step::Matches)
    }

    fn find_day(&mut self) -> Option<Step> {
        while !self.fields.match_day(self.wall.date()) {
            if self.first_reset() {
                self.go_to(self.wall.date(), 0)?;
            }
            self.next_day()?;
            if self.wall.day() == 1 {
                return Some(Step::Wrapped);
            }
        }
        Some(Step::Matches)
    }

    fn find_hour(&mut self) -> Option<Step> {
        while !has(self.fields.hours, self.wall.hour()) {
            if self.first_reset() {
                let hour = i64::from(self.wall.hour());
                self.go_to(self.wall.date(), hour * HOUR_SECONDS)?;
            }
            self.wait(HOUR_SECONDS)?;
            if self.wall.hour() == 0 {
                return Some(Step::Wrapped);
            }
        }
        Some(Step::Matches)
    }

    fn find_minute(&mut self) -> Option<Step> {
        while !has(self.fields.minutes, self.wall.minute()) {
            if self.first_reset() {
                self.wait(-self.second.rem_euclid(MINUTE_SECONDS))?;
            }
            self.wait(MINUTE_SECONDS)?;
            if self.wall.minute() == 0 {
                return Some(Step::Wrapped);
            }
        }
        Some(Step::Matches)
    }

    /// Ticks are on the full minute of the wall clock, which in a zone with odd seconds (local
    /// mean time) is not one of UTC.
    fn find_second(&mut self) -> Option<Step> {
        if self.wall.second() == 0 {
            return Some(Step::Matches);
        }
        self.is_reset = true;
        self.wait(MINUTE_SECONDS - i64::from(self.wall.second()))?;
        Some(Step::Wrapped)
    }

    /// Whether the reset is still to be done; from now on it is.
    fn first_reset(&mut self) -> bool {
        !std::mem::replace(&mut self.is_reset, true)
    }

    fn next_month(&mut self) -> Option<()> {
        let date = self.wall.date();
        let first = match date.month() {
            12 => Date::new(date.year().checked_add(1)?, 1, 1),
            month => Date::new(date.year(), month + 1, 1),
        };
        // A day that the month does not have runs into the one after.
        let days = jiff::SignedDuration::from_hours(24 * (i64::from(date.day()) - 1));
        let date = first.ok()?.checked_add(days).ok()?;
        self.go_to(date, self.second_of_day())
    }

    /// The next day at midnight, or near it where the clock jumps at midnight.
    fn next_day(&mut self) -> Option<()> {
        let before = self.second;
        let second_of_day = self.second_of_day();
        let mut date = self.wall.date();
        // Where a day, or half of one, is missing, a step can lead back to where we were; then
        // one more is taken. (Go stays there for ever.)
        while self.second <= before {
            date = date.tomorrow().ok()?;
            self.go_to(date, second_of_day)?;
            self.correct_midnight()?;
        }
        Some(())
    }

    /// Undoes what a jump of the clock has added to midnight, or taken from it.
    fn correct_midnight(&mut self) -> Option<()> {
        match i64::from(self.wall.hour()) {
            hour if hour > 12 => self.wait((24 - hour) * HOUR_SECONDS),
            hour => self.wait(-hour * HOUR_SECONDS),
        }
    }

    fn second_of_day(&self) -> i64 {
        let time = self.wall.time();
        let minutes = i64::from(time.hour()) * 60 + i64::from(time.minute());
        minutes * MINUTE_SECONDS + i64::from(time.second())
    }

    /// Real time passes.
    fn wait(&mut self, seconds: i64) -> Option<()> {
        self.move_to(self.second.checked_add(seconds)?)
    }

    /// To a time of the wall clock. Where it does not exist or comes twice, the offset that Go
    /// takes: read the wall clock as if it were UTC, take the offset of that moment, and correct
    /// it once.
    fn go_to(&mut self, date: Date, second_of_day: i64) -> Option<()> {
        let midnight = jiff::tz::Offset::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        let as_utc = midnight.as_second().checked_add(second_of_day)?;
        let guess = as_utc.checked_sub(self.offset_at(as_utc)?)?;
        self.move_to(as_utc.checked_sub(self.offset_at(guess)?)?)
    }

    fn offset_at(&self, second: i64) -> Option<i64> {
        let time = Timestamp::from_second(second).ok()?;
        Some(i64::from(self.zone.to_offset(time).seconds()))
    }

    fn move_to(&mut self, second: i64) -> Option<()> {
        self.wall = self.zone.to_datetime(Timestamp::from_second(second).ok()?);
        self.second = second;
        Some(())
    }
}
