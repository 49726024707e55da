//! What is wrong with a cron spec, and exactly where?
//!
//! The person who reads the message is looking at the spec, so it names the field, the character
//! and the text at fault. Whatever came from the spec is quoted and escaped when it is shown.

use std::fmt;

/// The part of a cron spec that an error is about.
///
/// ```
/// use outlast_core::schedule::CronField;
///
/// assert_eq!(CronField::DayOfMonth.to_string(), "day of month");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CronField {
    /// The spec as a whole.
    Spec,
    /// The first field, 0 to 59.
    Minute,
    /// The second field, 0 to 23.
    Hour,
    /// The third field, 1 to 31.
    DayOfMonth,
    /// The fourth field, 1 to 12 or `jan` to `dec`.
    Month,
    /// The fifth field, 0 to 6 or `sun` to `sat`.
    DayOfWeek,
    /// The zone named by a `TZ=` or `CRON_TZ=` prefix.
    Zone,
    /// A word with an `@`, such as `@daily`.
    Descriptor,
    /// The duration behind `@every`.
    Duration,
}

impl fmt::Display for CronField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CronField::Spec => "spec",
            CronField::Minute => "minute",
            CronField::Hour => "hour",
            CronField::DayOfMonth => "day of month",
            CronField::Month => "month",
            CronField::DayOfWeek => "day of week",
            CronField::Zone => "zone",
            CronField::Descriptor => "descriptor",
            CronField::Duration => "duration",
        })
    }
}

/// A cron spec that cannot be used: which field, which character, and why.
///
/// ```
/// use jiff::tz::TimeZone;
/// use outlast_core::schedule::{Cron, CronField};
///
/// let error = Cron::parse("5 61 * * *", &TimeZone::UTC).expect_err("an hour of 61");
/// assert_eq!(error.field(), CronField::Hour);
/// assert_eq!((error.column(), error.text()), (3, "61"));
/// assert_eq!(
///     error.to_string(),
///     r#"cron spec "5 61 * * *": hour: 61 at character 3 is over 23"#,
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cron spec {spec:?}: {field}: {} at character {column} {fault}", shown(text))]
pub struct CronError {
    spec: String,
    field: CronField,
    column: usize,
    text: String,
    fault: Fault,
}

impl CronError {
    /// The spec as it was written; cut off where it was too long.
    ///
    /// ```
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::Cron;
    /// let error = Cron::parse("@dayly", &TimeZone::UTC).expect_err("no such descriptor");
    /// assert_eq!(error.spec(), "@dayly");
    /// ```
    pub fn spec(&self) -> &str {
        &self.spec
    }

    /// The part of the spec that is at fault.
    ///
    /// ```
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::{Cron, CronField};
    /// let error = Cron::parse("* * * *", &TimeZone::UTC).expect_err("four fields");
    /// assert_eq!(error.field(), CronField::DayOfWeek);
    /// ```
    pub fn field(&self) -> CronField {
        self.field
    }

    /// Where the text at fault begins in the spec: characters, not bytes, from 1.
    ///
    /// ```
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::Cron;
    /// let error = Cron::parse("0 0 * * mon-fry", &TimeZone::UTC).expect_err("fry is no day");
    /// assert_eq!(error.column(), 13);
    /// ```
    pub fn column(&self) -> usize {
        self.column
    }

    /// The text at fault; empty where something is missing.
    ///
    /// ```
    /// # use jiff::tz::TimeZone;
    /// # use outlast_core::schedule::Cron;
    /// let error = Cron::parse("@every 5 m", &TimeZone::UTC).expect_err("a space");
    /// assert_eq!(error.text(), " m");
    /// ```
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// Plain for what is safe and plain, quoted and escaped for the rest: errors end in logs.
fn shown(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else if text.bytes().all(|byte| byte.is_ascii_graphic()) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}

/// What is wrong; continues "{text} at character {column} …".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("is past the limit of {0} bytes")]
    TooLong(usize),
    #[error("where a field is needed, there are five")]
    FieldMissing,
    #[error("comes after the fifth and last field (there is none for seconds)")]
    FieldUnknown,
    #[error("is not a number")]
    NotANumber,
    #[error("is neither a number nor a name from {0} to {1}")]
    NeitherNumberNorName(&'static str, &'static str),
    #[error("is under {0}")]
    Under(u64),
    #[error("is over {0}")]
    Over(u64),
    #[error("runs backwards")]
    Backwards,
    #[error("has more than one hyphen")]
    Hyphens,
    #[error("has more than one slash")]
    Slashes,
    #[error("is not a step of at least 1")]
    Step,
    #[error("is not a step that fits")]
    StepTooLarge,
    #[error("needs a space and a schedule after it")]
    ZoneAlone,
    #[error("is not a known time zone")]
    ZoneUnknown,
    #[error("must be spelled {0}")]
    ZoneSpelling(String),
    #[error(
        "is not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every"
    )]
    DescriptorUnknown,
    #[error("is not a duration such as 1h30m")]
    NotADuration,
    #[error("needs a unit (h, m, s, ms, us, ns) after it")]
    UnitMissing,
    #[error("is not a unit (h, m, s, ms, us, ns)")]
    UnitUnknown,
    #[error("is longer than 292 years")]
    DurationTooLong,
}

/// A piece of the spec, and the character where it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece<'a> {
    pub(super) text: &'a str,
    pub(super) column: usize,
}

impl<'a> Piece<'a> {
    /// The pieces between single characters that `is_separator` picks.
    pub(super) fn split(self, is_separator: impl Fn(char) -> bool) -> impl Iterator<Item = Self> {
        let mut column = self.column;
        self.text.split(is_separator).map(move |text| {
            let piece = Piece { text, column };
            column += text.chars().count() + 1;
            piece
        })
    }

    /// What is left behind the first `bytes` bytes, which must end between two characters.
    pub(super) fn skip(self, bytes: usize) -> Self {
        let (before, text) = self.text.split_at(bytes);
        Piece { text, column: self.column + before.chars().count() }
    }

    /// Without white space at both ends.
    pub(super) fn trim(self) -> Self {
        let start = self.text.len() - self.text.trim_start().len();
        let rest = self.skip(start);
        Piece { text: rest.text.trim_end(), ..rest }
    }

    /// The nothing behind the last character.
    pub(super) fn end(self) -> Self {
        self.skip(self.text.len())
    }

    /// Only the first character.
    pub(super) fn first_char(self) -> Self {
        let len = self.text.chars().next().map_or(0, char::len_utf8);
        Piece { text: &self.text[..len], ..self }
    }

    /// This piece is at fault.
    pub(super) fn blame(self, field: CronField, fault: Fault) -> Blame<'a> {
        Blame { field, piece: self, fault }
    }
}

/// An error on its way up to where the whole spec is known.
#[derive(Debug)]
pub(super) struct Blame<'a> {
    field: CronField,
    piece: Piece<'a>,
    fault: Fault,
}

impl Blame<'_> {
    pub(super) fn in_spec(self, spec: &str) -> CronError {
        CronError {
            spec: spec.to_owned(),
            field: self.field,
            column: self.piece.column,
            text: self.piece.text.to_owned(),
            fault: self.fault,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_know_the_character_where_they_begin() {
        let whole = Piece { text: "µ, b,,c", column: 4 };
        let pieces = whole.split(|c| c == ',').map(|piece| (piece.text, piece.column));
        assert_eq!(pieces.collect::<Vec<_>>(), [("µ", 4), (" b", 6), ("", 9), ("c", 10)]);
        assert_eq!(whole.skip(3).trim().column, 7);
        assert_eq!(whole.end().column, 11);
    }

    #[test]
    fn text_that_is_not_plain_is_quoted_and_escaped() {
        assert_eq!(["", "1-2", "a b", "\n"].map(shown), ["nothing", "1-2", "\"a b\"", "\"\\n\""]);
    }
}
