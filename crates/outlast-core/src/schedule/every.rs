//! How long is the interval of `@every`? Durations as Go writes them, in whole seconds.

use super::error::{Blame, CronField, Fault, Piece};

/// Go counts a duration in nanoseconds, in 64 bits with a sign; a negative one reaches one further.
const NANOS_MAX: u64 = 1 << 63;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// The whole seconds of a Go duration such as `1h30m`, `1.5h`, `90s`; at least 1.
///
/// Go starts an `@every` of less than a second, and even a negative one, once a second.
pub(super) fn seconds(piece: Piece<'_>) -> Result<i64, Blame<'_>> {
    let nanos = nanos(piece)?;
    if piece.text.starts_with('-') {
        return Ok(1);
    }
    let nanos = i64::try_from(nanos)
        .map_err(|_| piece.blame(CronField::Duration, Fault::DurationTooLong))?;
    Ok((nanos / NANOS_PER_SECOND).max(1))
}

/// The size of a duration without its sign: terms of a decimal number and a unit, or a bare 0.
fn nanos(piece: Piece<'_>) -> Result<u64, Blame<'_>> {
    let mut rest = if piece.text.starts_with(['+', '-']) { piece.skip(1) } else { piece };
    if rest.text == "0" {
        return Ok(0);
    }
    if rest.text.is_empty() {
        return Err(piece.blame(CronField::Duration, Fault::NotADuration));
    }
    let too_long = || piece.blame(CronField::Duration, Fault::DurationTooLong);
    let mut sum = 0_u64;
    while !rest.text.is_empty() {
        let (term, behind) = term(rest)?;
        // Two terms of exactly 2^63 ns are an error here; Go wraps around to zero.
        sum = term.and_then(|term| sum.checked_add(term)).ok_or_else(too_long)?;
        if sum > NANOS_MAX {
            return Err(too_long());
        }
        rest = behind;
    }
    Ok(sum)
}

/// One term such as `1.5h`, and what is behind it. `None` where it is too long.
fn term(piece: Piece<'_>) -> Result<(Option<u64>, Piece<'_>), Blame<'_>> {
    let whole = digits(piece.text);
    let behind = &piece.text[whole.len()..];
    let fraction = behind.strip_prefix('.').map(digits);
    let number_len = whole.len() + fraction.map_or(0, |fraction| 1 + fraction.len());
    if whole.is_empty() && fraction.is_none_or(str::is_empty) {
        return Err(piece.blame(CronField::Duration, Fault::NotADuration));
    }
    let after = piece.skip(number_len);
    let unit_len = after.text.find(|c: char| c == '.' || c.is_ascii_digit());
    let unit = Piece { text: &after.text[..unit_len.unwrap_or(after.text.len())], ..after };
    if unit.text.is_empty() {
        let number = Piece { text: &piece.text[..number_len], ..piece };
        return Err(number.blame(CronField::Duration, Fault::UnitMissing));
    }
    let nanos_per_unit = nanos_per_unit(unit.text)
        .ok_or_else(|| unit.blame(CronField::Duration, Fault::UnitUnknown))?;
    Ok((in_nanos(whole, fraction.unwrap_or(""), nanos_per_unit), after.skip(unit.text.len())))
}

fn digits(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    &text[..end]
}

fn nanos_per_unit(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        // Two characters look like this: the micro sign and the Greek mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

fn in_nanos(whole: &str, fraction: &str, nanos_per_unit: u64) -> Option<u64> {
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let whole = whole.checked_mul(nanos_per_unit).filter(|nanos| *nanos <= NANOS_MAX)?;
    let (digits, scale) = fraction_parts(fraction);
    // Floating point on purpose, in this order: Go does it so, and the last nanosecond decides
    // whether a second is counted.
    let part = (digits as f64 * (nanos_per_unit as f64 / scale)) as u64;
    whole.checked_add(part).filter(|nanos| *nanos <= NANOS_MAX)
}

/// The fraction as digits / scale; digits that no longer fit in 63 bits are dropped.
fn fraction_parts(fraction: &str) -> (u64, f64) {
    let mut digits = 0_u64;
    let mut scale = 1.0;
    for byte in fraction.bytes() {
        if digits > i64::MAX.unsigned_abs() / 10 {
            break;
        }
        let longer = digits * 10 + u64::from(byte - b'0');
        if longer > NANOS_MAX {
            break;
        }
        digits = longer;
        scale *= 10.0;
    }
    (digits, scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<u64> {
        nanos(Piece { text, column: 1 }).ok()
    }

    #[test]
    fn a_duration_is_a_sum_of_decimal_terms() {
        let cases = [
            ("0", Some(0)),
            ("1ns", Some(1)),
            ("1.9ns", Some(1)),
            (".5us", Some(500)),
            ("1.ms", Some(1_000_000)),
            ("1h2m3.5s", Some(3_723_500_000_000)),
            ("1s1s", Some(2_000_000_000)),
            ("9223372036854775808ns", Some(NANOS_MAX)),
            ("9223372036854775809ns", None),
            ("9223372036854775808ns1ns", None),
            ("99999999999999999999999ns", None),
            ("", None),
            (".s", None),
            ("1", None),
            ("1 s", None),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn digits_of_a_fraction_that_do_not_fit_are_dropped() {
        assert_eq!(fraction_parts("25"), (25, 100.0));
        assert_eq!(fraction_parts("3333333333333333333333"), (3_333_333_333_333_333_333, 1e19));
    }
}
