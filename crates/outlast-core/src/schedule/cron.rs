//! What does a cron spec say? Parsing, exactly as Go's `robfig/cron` v3 reads a standard spec.
//!
//! A `Cron` that exists is valid. Each field becomes a set of bits, one per value that matches,
//! so the search for the next tick never looks at text again.

use std::fmt;
use std::time::Duration;

use jiff::tz::TimeZone;

use super::error::{Blame, CronError, CronField, Fault, Piece};
use super::every;

/// The longest spec that is read. A list of all 60 minutes takes 170 bytes; a spec comes from
/// configuration and from other programs, so something must end it.
pub const SPEC_BYTES_MAX: usize = 512;

/// A parsed cron spec and the zone in which it is read.
///
/// Five fields: minute (0–59), hour (0–23), day of month (1–31), month (1–12 or `jan`–`dec`),
/// day of week (0–6 or `sun`–`sat`, Sunday is 0). A field is a list (`1,15`) of numbers, ranges
/// (`mon-fri`), steps (`*/5`, `10-40/10`; `5/15` is `5-59/15`), `*` or `?`. If both day fields
/// are restricted, either may match; a step above 1 restricts (`*/2`). In place of the fields:
/// `@yearly @annually @monthly @weekly @daily @midnight @hourly`, or `@every 1h30m` in whole
/// seconds, at least one. A prefix `TZ=Europe/Berlin` or `CRON_TZ=…` names the zone.
///
/// ```
/// use jiff::{Timestamp, tz::TimeZone};
/// use outlast_core::schedule::Cron;
///
/// let cron = Cron::parse("TZ=Europe/Berlin 30 2 * * mon-fri", &TimeZone::UTC)?;
/// let now: Timestamp = "2026-11-23T12:00:00Z".parse()?;
/// let next: Timestamp = "2026-11-24T01:30:00Z".parse()?;
/// assert_eq!(cron.next(now), Some(next));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    spec: String,
    zone: TimeZone,
    pub(super) rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Fields(Fields),
    Every { seconds: i64 },
}

/// Which values match: bit n stands for the value n.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minutes: u64,
    pub(super) hours: u64,
    pub(super) days_of_month: u64,
    pub(super) months: u64,
    pub(super) days_of_week: u64,
    pub(super) days: Days,
}

/// How the two day fields go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Days {
    /// One of them has a star, so the other decides.
    Both,
    /// Both are restricted: a day that matches either will do.
    Either,
}

impl Cron {
    /// Reads a spec; `default_zone` is used unless the spec names one (or says `TZ=Local`).
    ///
    /// ```
    /// use jiff::tz::TimeZone;
    /// use outlast_core::schedule::Cron;
    ///
    /// assert!(Cron::parse("*/15 8-17 * * MON-FRI", &TimeZone::UTC).is_ok());
    /// assert!(Cron::parse("@every 90s", &TimeZone::UTC).is_ok());
    /// assert_eq!(
    ///     Cron::parse("* * * * 7", &TimeZone::UTC).expect_err("Sunday is 0").to_string(),
    ///     r#"cron spec "* * * * 7": day of week: 7 at character 9 is over 6"#,
    /// );
    /// ```
    pub fn parse(spec: &str, default_zone: &TimeZone) -> Result<Cron, CronError> {
        if spec.len() > SPEC_BYTES_MAX {
            return Err(too_long(spec));
        }
        let (zone, rule) =
            zone_and_rule(spec, default_zone).map_err(|blame| blame.in_spec(spec))?;
        Ok(Cron { spec: spec.to_owned(), zone, rule })
    }

    /// The spec as it was written.
    ///
    /// ```
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::Cron;
    /// let cron = Cron::parse("@every 5m", &TimeZone::UTC)?;
    /// assert_eq!(cron.spec(), "@every 5m");
    /// # Ok::<(), outlast_core::schedule::CronError>(())
    /// ```
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// The zone whose wall clock the fields are compared with.
    ///
    /// ```
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::Cron;
    /// let cron = Cron::parse("TZ=Asia/Kolkata @daily", &TimeZone::UTC)?;
    /// assert_eq!(cron.zone().iana_name(), Some("Asia/Kolkata"));
    /// # Ok::<(), outlast_core::schedule::CronError>(())
    /// ```
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }

    /// The interval of an `@every` spec.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::Cron;
    /// let cron = Cron::parse("@every 1m2.9s", &TimeZone::UTC)?;
    /// assert_eq!(cron.every(), Some(Duration::from_secs(62)));
    /// # Ok::<(), outlast_core::schedule::CronError>(())
    /// ```
    pub fn every(&self) -> Option<Duration> {
        match self.rule {
            Rule::Fields(_) => None,
            Rule::Every { seconds } => Some(Duration::from_secs(seconds.unsigned_abs())),
        }
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.spec)
    }
}

/// Blames the first character that does not fit, and carries no more of the spec than fits.
fn too_long(spec: &str) -> CronError {
    let starts = spec.char_indices().map(|(start, _)| start);
    let end = starts.take_while(|start| *start <= SPEC_BYTES_MAX).last().unwrap_or(0);
    let rest = Piece { text: spec, column: 1 }.skip(end).first_char();
    rest.blame(CronField::Spec, Fault::TooLong(SPEC_BYTES_MAX)).in_spec(&spec[..end])
}

fn zone_and_rule<'a>(
    spec: &'a str,
    default_zone: &TimeZone,
) -> Result<(TimeZone, Rule), Blame<'a>> {
    let whole = Piece { text: spec, column: 1 };
    let prefix = ["TZ=", "CRON_TZ="].into_iter().find(|prefix| spec.starts_with(prefix));
    let Some(prefix) = prefix else {
        return Ok((default_zone.clone(), rule(whole)?));
    };
    let rest = whole.skip(prefix.len());
    let Some(space) = rest.text.find(' ') else {
        return Err(rest.blame(CronField::Zone, Fault::ZoneAlone));
    };
    let name = Piece { text: &rest.text[..space], ..rest };
    let zone = zone(name, default_zone)?;
    // Only behind a prefix does Go trim; " @daily" alone is an error there and here.
    Ok((zone, rule(rest.skip(space).trim())?))
}

/// Exact spelling only: Go reads zone files by name, so `europe/berlin` would work here and fail
/// there. Go also takes an empty name for UTC.
fn zone<'a>(name: Piece<'a>, default_zone: &TimeZone) -> Result<TimeZone, Blame<'a>> {
    match name.text {
        "" | "UTC" => return Ok(TimeZone::UTC),
        "Local" => return Ok(default_zone.clone()),
        _ => {}
    }
    let zone = TimeZone::get(name.text).ok().filter(|zone| !zone.is_unknown());
    let fault = match zone {
        None => Fault::ZoneUnknown,
        Some(zone) => match zone.iana_name() {
            Some(spelling) if spelling != name.text => Fault::ZoneSpelling(spelling.to_owned()),
            _ => return Ok(zone),
        },
    };
    Err(name.blame(CronField::Zone, fault))
}

fn rule(piece: Piece<'_>) -> Result<Rule, Blame<'_>> {
    if !piece.text.starts_with('@') {
        return Ok(Rule::Fields(fields(piece)?));
    }
    const EVERY: &str = "@every ";
    if piece.text.starts_with(EVERY) {
        let seconds = every::seconds(piece.skip(EVERY.len()))?;
        return Ok(Rule::Every { seconds });
    }
    let meaning = match piece.text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        _ => return Err(piece.blame(CronField::Descriptor, Fault::DescriptorUnknown)),
    };
    Ok(Rule::Fields(fields(Piece { text: meaning, column: 1 })?))
}

/// The values a field may have; its names stand for `min`, `min` + 1, ….
struct Bounds {
    field: CronField,
    min: u64,
    max: u64,
    names: &'static [&'static str],
}

const MINUTE: Bounds = Bounds { field: CronField::Minute, min: 0, max: 59, names: &[] };
const HOUR: Bounds = Bounds { field: CronField::Hour, min: 0, max: 23, names: &[] };
const DAY_OF_MONTH: Bounds = Bounds { field: CronField::DayOfMonth, min: 1, max: 31, names: &[] };
const MONTH: Bounds = Bounds {
    field: CronField::Month,
    min: 1,
    max: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const DAY_OF_WEEK: Bounds = Bounds {
    field: CronField::DayOfWeek,
    min: 0,
    max: 6,
    names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"],
};

/// What one field matches.
#[derive(Clone, Copy, Default)]
struct Set {
    bits: u64,
    has_star: bool,
}

fn fields(piece: Piece<'_>) -> Result<Fields, Blame<'_>> {
    let mut words = piece.split(char::is_whitespace).filter(|word| !word.text.is_empty());
    // The number of fields is checked first, as Go does: with a field too few, every other
    // complaint would be about the wrong field.
    let mut found = [piece.end(); 5];
    let bounds = [MINUTE, HOUR, DAY_OF_MONTH, MONTH, DAY_OF_WEEK];
    for (slot, bounds) in found.iter_mut().zip(&bounds) {
        *slot = words.next().ok_or_else(|| piece.end().blame(bounds.field, Fault::FieldMissing))?;
    }
    if let Some(word) = words.next() {
        return Err(word.blame(CronField::DayOfWeek, Fault::FieldUnknown));
    }
    let [minute, hour, day_of_month, month, day_of_week] = found;
    let minutes = set(minute, &MINUTE)?.bits;
    let hours = set(hour, &HOUR)?.bits;
    let days_of_month = set(day_of_month, &DAY_OF_MONTH)?;
    let months = set(month, &MONTH)?.bits;
    let days_of_week = set(day_of_week, &DAY_OF_WEEK)?;
    let has_star = days_of_month.has_star || days_of_week.has_star;
    Ok(Fields {
        minutes,
        hours,
        days_of_month: days_of_month.bits,
        months,
        days_of_week: days_of_week.bits,
        days: if has_star { Days::Both } else { Days::Either },
    })
}

fn set<'a>(word: Piece<'a>, bounds: &Bounds) -> Result<Set, Blame<'a>> {
    let mut set = Set::default();
    for element in word.split(|c| c == ',').filter(|element| !element.text.is_empty()) {
        let part = range(element, bounds)?;
        set.bits |= part.bits;
        set.has_star |= part.has_star;
    }
    Ok(set)
}

/// One element of a list: `*`, `n`, `a-b`, each with or without `/step`.
fn range<'a>(element: Piece<'a>, bounds: &Bounds) -> Result<Set, Blame<'a>> {
    let mut halves = element.split(|c| c == '/');
    let span = halves.next().unwrap_or(element);
    let step_piece = halves.next();

    let (low, high) = low_and_high(span, bounds)?;
    let step = step_piece.map_or(Ok(1), |piece| step(piece, bounds))?;
    if halves.next().is_some() {
        return Err(element.blame(bounds.field, Fault::Slashes));
    }
    let Some(low) = low else {
        // A star. A step above 1 makes it a restriction like any other.
        return Ok(Set { bits: bits(bounds.min, bounds.max, step), has_star: step == 1 });
    };
    let high = match high {
        Some(high) => high,
        None if step_piece.is_some() => bounds.max,
        None => low,
    };
    if low > high {
        return Err(span.blame(bounds.field, Fault::Backwards));
    }
    Ok(Set { bits: bits(low, high, step), has_star: false })
}

/// The two ends of a range; no low end means a star, no high end a single value.
fn low_and_high<'a>(
    span: Piece<'a>,
    bounds: &Bounds,
) -> Result<(Option<u64>, Option<u64>), Blame<'a>> {
    let mut ends = span.split(|c| c == '-');
    let low = ends.next().unwrap_or(span);
    if low.text == "*" || low.text == "?" {
        // Go does not look at what a hyphen adds to a star.
        return Ok((None, None));
    }
    let low = value(low, span, bounds)?;
    let high = ends.next().map(|high| value(high, span, bounds)).transpose()?;
    if ends.next().is_some() {
        return Err(span.blame(bounds.field, Fault::Hyphens));
    }
    Ok((Some(low), high))
}

/// A number or name within bounds. `span` is shown where there is nothing to show.
fn value<'a>(piece: Piece<'a>, span: Piece<'a>, bounds: &Bounds) -> Result<u64, Blame<'a>> {
    let named = bounds.names.iter().position(|name| same_name(name, piece.text));
    if let Some(index) = named {
        return Ok(bounds.min + index as u64);
    }
    let Some(number) = number(piece.text) else {
        let fault = match (bounds.names.first(), bounds.names.last()) {
            (Some(first), Some(last)) => Fault::NeitherNumberNorName(first, last),
            _ => Fault::NotANumber,
        };
        let shown = if piece.text.is_empty() { span } else { piece };
        return Err(shown.blame(bounds.field, fault));
    };
    if number < bounds.min {
        return Err(piece.blame(bounds.field, Fault::Under(bounds.min)));
    }
    if number > bounds.max {
        return Err(piece.blame(bounds.field, Fault::Over(bounds.max)));
    }
    Ok(number)
}

/// Go lowers names by Unicode's simple mapping, which also takes the Turkish `İ` to `i`.
fn same_name(name: &str, text: &str) -> bool {
    text.chars().map(|c| if c == 'İ' { 'i' } else { c.to_ascii_lowercase() }).eq(name.chars())
}

/// Digits with an optional plus, as Go's `Atoi`; what is too large is only very large here.
fn number(text: &str) -> Option<u64> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

fn step<'a>(piece: Piece<'a>, bounds: &Bounds) -> Result<u64, Blame<'a>> {
    const STEP_MAX: u64 = i64::MAX.unsigned_abs();
    match number(piece.text) {
        None | Some(0) => Err(piece.blame(bounds.field, Fault::Step)),
        Some(step) if step > STEP_MAX => Err(piece.blame(bounds.field, Fault::StepTooLarge)),
        Some(step) => Ok(step),
    }
}

fn bits(low: u64, high: u64, step: u64) -> u64 {
    let mut bits = 0;
    let mut value = low;
    while value <= high {
        bits |= 1 << value;
        value = value.saturating_add(step);
    }
    bits
}
