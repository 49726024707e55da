//! Durations as people write them: `1h30m`, `500ms`, `2d`.

use std::fmt::Write as _;
use std::time::Duration;

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("duration {value:?} {why}; write it as 1h30m, 500ms or 2d")]
pub struct DurationError {
    value: String,
    why: String,
}

// Longest first, so that `ms` is not read as `m`.
const UNITS: [(&str, f64); 9] = [
    ("ms", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ns", 1e-9),
    ("w", 604_800.0),
    ("d", 86_400.0),
    ("h", 3_600.0),
    ("m", 60.0),
    ("s", 1.0),
];

/// Reads a duration: numbers with units (`w d h m s ms us ns`), added up; `0` needs no unit.
///
/// # Errors
/// [`DurationError`] names the text and what is wrong with it: no unit, a unit nobody knows, a sign, or
/// more than [`DURATION_MAX`](crate::limits::DURATION_MAX).
///
/// ```
/// use outlast_core::duration::parse;
/// use std::time::Duration;
/// assert_eq!(parse("1h30m")?, Duration::from_secs(5400));
/// assert_eq!(parse("1.5s")?, Duration::from_millis(1500));
/// assert!(parse("5").is_err());
/// # Ok::<(), outlast_core::duration::DurationError>(())
/// ```
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let fail = |why: String| DurationError { value: text.chars().take(64).collect(), why };
    let mut rest = text.trim();
    match rest {
        "" => return Err(fail("is empty".into())),
        "0" => return Ok(Duration::ZERO),
        _ if rest.starts_with(['-', '+']) => return Err(fail("has a sign".into())),
        _ => {}
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        if number.is_empty() {
            return Err(fail(format!("has no number before {tail:?}")));
        }
        let Some((unit, seconds)) = UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit))
        else {
            let unit: String = tail.chars().take_while(|c| c.is_alphabetic()).collect();
            return Err(fail(match unit.is_empty() {
                true => format!("has no unit after {number}"),
                false => format!("has the unit {unit:?}, which nobody knows"),
            }));
        };
        total = part(number, seconds)
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= crate::limits::DURATION_MAX)
            .ok_or_else(|| {
                fail(format!("has a part {number}{unit} that is no number or is over ten years"))
            })?;
        rest = &tail[unit.len()..];
    }
    Ok(total)
}

/// `number` of a unit of `seconds`. Whole numbers stay exact; a fraction goes through a double.
fn part(number: &str, seconds: f64) -> Option<Duration> {
    if let Ok(whole) = number.parse::<u32>() {
        let unit = Duration::try_from_secs_f64(seconds).ok()?;
        return unit.checked_mul(whole);
    }
    let value = number.parse::<f64>().ok()? * seconds;
    Duration::try_from_secs_f64(value).ok()
}

/// Writes a duration the way [`parse`] reads it, to the millisecond: `1h30m`, `2s500ms`, `0s`.
///
/// ```
/// use outlast_core::duration::format;
/// use std::time::Duration;
/// assert_eq!(format(Duration::from_millis(5_400_000)), "1h30m");
/// assert_eq!(format(Duration::from_millis(61_500)), "1m1s500ms");
/// assert_eq!(format(Duration::ZERO), "0s");
/// ```
#[must_use]
pub fn format(duration: Duration) -> String {
    let (secs, millis) = (duration.as_secs(), duration.subsec_millis());
    let parts =
        [(secs / 3600, "h"), (secs / 60 % 60, "m"), (secs % 60, "s"), (millis.into(), "ms")];
    let mut text = String::new();
    for (value, unit) in parts.into_iter().filter(|(value, _)| *value > 0) {
        let _ = write!(text, "{value}{unit}");
    }
    if text.is_empty() { "0s".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_durations_are_read_exactly() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1.5h", 5_400_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            (" 3s ", 3_000),
            ("1m0.5s", 60_500),
        ];
        for (text, millis) in cases {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn bad_durations_name_the_value_and_the_reason() {
        let cases = [
            ("", "is empty"),
            ("5", "has no unit after 5"),
            ("5 s", "has no unit after 5"),
            ("-1s", "has a sign"),
            ("5fortnights", "has the unit \"fortnights\", which nobody knows"),
            ("s", "has no number before \"s\""),
            ("1..5s", "has a part 1..5s that is no number or is over ten years"),
            ("11000d", "has a part 11000d that is no number or is over ten years"),
            ("99999999999999999999h", "has a part 99999999999999999999h that is no number"),
        ];
        for (text, why) in cases {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(why) && error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
