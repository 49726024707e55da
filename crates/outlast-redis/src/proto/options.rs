//! The text form of enqueue options in a `SchedulerEntry` (contract §2.8): `Name(argument)`, written as
//! Go writes it and read back.
//!
//! Go reads an argument up to the first `)`, and so skips names that hold one; we read up to the last.

use std::fmt;

use outlast_core::Timestamp;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const WEEKDAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];

/// One option. `Display` is its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TaskOption {
    /// Retries; a negative number is written as zero.
    MaxRetry(i64),
    /// The queue.
    Queue(String),
    /// The task's id.
    TaskId(String),
    /// The group to wait in.
    Group(String),
    /// How long a run may take.
    Timeout(GoDuration),
    /// When every run must be over, to the second.
    Deadline(Timestamp),
    /// How long the unique lock holds.
    Unique(GoDuration),
    /// When to run, to the second.
    ProcessAt(Timestamp),
    /// How long to wait before the run.
    ProcessIn(GoDuration),
    /// How long the task is kept after its success.
    Retention(GoDuration),
    /// A header: its name and value.
    Header(String, String),
}

impl fmt::Display for TaskOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TaskOption::MaxRetry(count) => write!(f, "MaxRetry({})", (*count).max(0)),
            TaskOption::Queue(name) => write!(f, "Queue({})", quoted(name)),
            TaskOption::TaskId(id) => write!(f, "TaskID({})", quoted(id)),
            TaskOption::Group(name) => write!(f, "Group({})", quoted(name)),
            TaskOption::Timeout(span) => write!(f, "Timeout({span})"),
            TaskOption::Deadline(moment) => write!(f, "Deadline({})", date_text(*moment)),
            TaskOption::Unique(span) => write!(f, "Unique({span})"),
            TaskOption::ProcessAt(moment) => write!(f, "ProcessAt({})", date_text(*moment)),
            TaskOption::ProcessIn(span) => write!(f, "ProcessIn({span})"),
            TaskOption::Retention(span) => write!(f, "Retention({span})"),
            TaskOption::Header(name, value) => {
                write!(f, "Header([{},{}])", json_text(name), json_text(value))
            }
        }
    }
}

impl TaskOption {
    /// Reads an option; `None` if the text is none, or one that we do not know.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let argument = &rest[..rest.rfind(')')?];
        match name {
            "MaxRetry" => argument.parse().ok().map(|count: i64| Self::MaxRetry(count.max(0))),
            "Queue" => unquoted(argument).map(Self::Queue),
            "TaskID" => unquoted(argument).map(Self::TaskId),
            "Group" => unquoted(argument).map(Self::Group),
            "Timeout" => GoDuration::parse(argument).map(Self::Timeout),
            "Deadline" => moment_of(argument).map(Self::Deadline),
            "Unique" => GoDuration::parse(argument).map(Self::Unique),
            "ProcessAt" => moment_of(argument).map(Self::ProcessAt),
            "ProcessIn" => GoDuration::parse(argument).map(Self::ProcessIn),
            "Retention" => GoDuration::parse(argument).map(Self::Retention),
            "Header" => {
                let (name, value) = serde_json::from_str(argument).ok()?;
                Some(Self::Header(name, value))
            }
            _ => None,
        }
    }
}

/// A duration as Go has it: nanoseconds, with a sign. `Display` is Go's text, such as `1h30m0s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GoDuration {
    /// Nanoseconds.
    pub(crate) nanos: i64,
}

impl From<std::time::Duration> for GoDuration {
    /// The duration, or the longest that Go has: 292 years.
    fn from(span: std::time::Duration) -> Self {
        Self { nanos: i64::try_from(span.as_nanos()).unwrap_or(i64::MAX) }
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos < 0 {
            f.write_str("-")?;
        }
        let nanos = self.nanos.unsigned_abs();
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{nanos}ns"),
            1_000..1_000_000 => write!(f, "{}µs", decimal(nanos, 3)),
            1_000_000..1_000_000_000 => write!(f, "{}ms", decimal(nanos, 6)),
            _ => {
                let minutes = nanos / 60_000_000_000;
                if minutes >= 60 {
                    write!(f, "{}h", minutes / 60)?;
                }
                if minutes > 0 {
                    write!(f, "{}m", minutes % 60)?;
                }
                write!(f, "{}s", decimal(nanos % 60_000_000_000, 9))
            }
        }
    }
}

/// `value / 10^places`, without zeros at the end.
fn decimal(value: u64, places: usize) -> String {
    let text = format!("{value:0width$}", width = places + 1);
    let (whole, fraction) = text.split_at(text.len() - places);
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

// Longest first, so that `ms` is not read as `m`. Go knows both signs for micro.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

impl GoDuration {
    /// Reads Go's text of a duration; `None` if it is none, or too long for Go.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        if unsigned == "0" {
            return Some(Self { nanos: 0 });
        }
        if unsigned.is_empty() {
            return None;
        }
        let (mut rest, mut total) = (unsigned, 0_i128);
        while !rest.is_empty() {
            let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
            let (number, tail) = rest.split_at(end);
            let (unit, nanos) = UNITS.into_iter().find(|(unit, _)| tail.starts_with(unit))?;
            total = total.checked_add(part(number, nanos)?)?;
            rest = &tail[unit.len()..];
        }
        let signed = if text.starts_with('-') { -total } else { total };
        i64::try_from(signed).ok().map(|nanos| Self { nanos })
    }
}

/// `number` of a unit of `nanos`, rounded down to the nanosecond.
fn part(number: &str, nanos: u128) -> Option<i128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // Eighteen digits behind the point are more than any unit can show.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = |text: &str| if text.is_empty() { Some(0_u64) } else { text.parse().ok() };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = u128::from(digits(fraction)?) * nanos / scale;
    i128::try_from(u128::from(digits(whole)?) * nanos + parts).ok()
}

/// A moment as Go's Unix date layout has it, in UTC: `Fri Nov  3 08:26:40 UTC 2023`.
fn date_text(moment: Timestamp) -> String {
    let whole = Timestamp::from_seconds(moment.as_seconds());
    whole.to_jiff().strftime("%a %b %e %H:%M:%S UTC %Y").to_string()
}

/// Reads Go's Unix date layout. A zone's abbreviation, other than UTC and GMT, says too little to know the
/// moment: `None`. Zones without one are written as their offset, such as `+0330`, and are read.
fn moment_of(text: &str) -> Option<Timestamp> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [weekday, month, day, time, zone, year] = words[..] else { return None };
    let month = 1 + MONTHS.iter().position(|name| *name == month)?;
    let day: i64 = digits(day, 1..=2)?;
    let year: i64 = digits(year, 4..=4)?;
    let clock: Vec<&str> = time.split(':').collect();
    let [hours, minutes, seconds] = clock[..] else { return None };
    let (hours, minutes, seconds) =
        (digits(hours, 2..=2)?, digits(minutes, 2..=2)?, digits(seconds, 2..=2)?);
    let month = i64::try_from(month).ok()?;
    let is_date = WEEKDAYS.contains(&weekday) && (1..=month_days(year, month)).contains(&day);
    if !is_date || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let of_day = hours * 3600 + minutes * 60 + seconds;
    let local = days_since_epoch(year, month, day) * 86_400 + of_day;
    Some(Timestamp::from_seconds(local - offset_of(zone)?))
}

fn digits(text: &str, length: std::ops::RangeInclusive<usize>) -> Option<i64> {
    let all = text.bytes().all(|byte| byte.is_ascii_digit());
    (all && length.contains(&text.len())).then(|| text.parse().ok())?
}

/// Seconds east of Greenwich.
fn offset_of(zone: &str) -> Option<i64> {
    if matches!(zone, "UTC" | "GMT") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let number = zone.strip_prefix(['+', '-'])?;
    let (hours, minutes) = match number.len() {
        2 => (digits(number, 2..=2)?, 0),
        4 => (digits(number, 4..=4)? / 100, digits(number, 4..=4)? % 100),
        _ => return None,
    };
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn month_days(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    // Years begin in March here, so that the leap day is the last one.
    let year = if month < 3 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// A text in quotes, as Go's `strconv.Quote` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x07' => out.push_str("\\a"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x0b' => out.push_str("\\v"),
            c if c < ' ' || c == '\x7f' => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if is_printable(c) => out.push(c),
            c if c as u32 > 0xffff => out.push_str(&format!("\\U{:08x}", c as u32)),
            c => out.push_str(&format!("\\u{:04x}", c as u32)),
        }
    }
    out.push('"');
    out
}

/// Whether Go would show the character itself: a letter, mark, number, sign or the ASCII space. Go and
/// Rust may know different versions of Unicode; both texts are read back as the same name.
fn is_printable(c: char) -> bool {
    // Behind another character, because a mark that stands alone is escaped, and is printable to Go.
    c.is_ascii_graphic()
        || c == ' '
        || !['a', c].iter().collect::<String>().escape_debug().any(|c| c == '\\')
}

/// Reads what `strconv.Quote` wrote, or any other string literal of Go.
fn unquoted(text: &str) -> Option<String> {
    if let Some(raw) = text.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) {
        return (!raw.contains('`')).then(|| raw.replace('\r', ""));
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let (mut out, mut rest) = (Vec::with_capacity(inner.len()), inner.chars());
    while let Some(c) = rest.next() {
        match c {
            '"' | '\n' => return None,
            '\\' => unescape(&mut rest, &mut out)?,
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    String::from_utf8(out).ok()
}

/// Reads what follows a backslash.
fn unescape(rest: &mut std::str::Chars<'_>, out: &mut Vec<u8>) -> Option<()> {
    let escape = rest.next()?;
    let byte = match escape {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => u8::try_from(code(rest, 2, 16)?).ok()?,
        '0'..='7' => {
            let rest_of_it = code(rest, 2, 8)?;
            u8::try_from(escape.to_digit(8)? * 64 + rest_of_it).ok()?
        }
        'u' | 'U' => {
            let c = char::from_u32(code(rest, if escape == 'u' { 4 } else { 8 }, 16)?)?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(());
        }
        _ => return None,
    };
    out.push(byte);
    Some(())
}

fn code(rest: &mut std::str::Chars<'_>, length: usize, radix: u32) -> Option<u32> {
    let mut value = 0_u32;
    for _ in 0..length {
        value = value.checked_mul(radix)?.checked_add(rest.next()?.to_digit(radix)?)?;
    }
    Some(value)
}

/// A JSON string as Go writes it: what HTML or JavaScript would take for its own is escaped.
fn json_text(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                out.push_str(&format!("\\u{:04x}", c as u32));
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn go(nanos: i64) -> GoDuration {
        GoDuration { nanos }
    }

    #[test]
    fn options_are_written_as_go_writes_them() {
        let at = Timestamp::from_seconds;
        let cases = [
            (TaskOption::MaxRetry(-3), "MaxRetry(0)"),
            (TaskOption::Queue("a b\"é)x".into()), r#"Queue("a b\"é)x")"#),
            (TaskOption::Timeout(Duration::from_secs(5400).into()), "Timeout(1h30m0s)"),
            (TaskOption::Timeout(Duration::from_millis(1500).into()), "Timeout(1.5s)"),
            (TaskOption::Timeout(go(0)), "Timeout(0s)"),
            (TaskOption::Unique(go(129_600_000_250_000)), "Unique(36h0m0.00025s)"),
            (TaskOption::Deadline(at(1_700_000_000)), "Deadline(Tue Nov 14 22:13:20 UTC 2023)"),
            (TaskOption::ProcessAt(at(1_699_000_000)), "ProcessAt(Fri Nov  3 08:26:40 UTC 2023)"),
            (TaskOption::ProcessIn(go(-5_000_000_000)), "ProcessIn(-5s)"),
            (TaskOption::Retention(Duration::from_secs(86_400).into()), "Retention(24h0m0s)"),
            (TaskOption::TaskId("id1".into()), r#"TaskID("id1")"#),
            (TaskOption::Group("g".into()), r#"Group("g")"#),
            (
                TaskOption::Header("k".into(), "<a&b>".into()),
                r#"Header(["k","\u003ca\u0026b\u003e"])"#,
            ),
        ];
        for (option, text) in cases {
            assert_eq!(option.to_string(), text);
            let read = TaskOption::parse(text).expect(text);
            assert_eq!(read.to_string(), text, "read back");
        }
    }

    #[test]
    fn what_is_no_option_is_none() {
        let cases = [
            "",
            "MaxRetry",
            "MaxRetry(",
            "MaxRetry)",
            ")(",
            "MaxRetry(x)",
            "Queue(low)",
            "Queue(\")",
            "Queue(\"\\q\")",
            "Queue(\"\\xff\")",
            "Queue(\"\\u12\")",
            "Timeout()",
            "Timeout(-)",
            "Timeout(5)",
            "Timeout(.s)",
            "Timeout(1.2.3s)",
            "Timeout(9999999999h)",
            "Timeout(18446744073709551616s)",
            "Header([\"k\"])",
            "Header(1)",
            "Unheard(1)",
            "Deadline(Tue Nov 31 22:13:20 UTC 2023)",
            "Deadline(Tue Nov 14 24:13:20 UTC 2023)",
            "Deadline(Tue Nov 14 22:13:20 CET 2023)",
            "Deadline(Tue Nov 14 22:13:20 2023)",
        ];
        for text in cases {
            assert_eq!(TaskOption::parse(text), None, "{text}");
        }
    }

    #[test]
    fn zones_without_a_name_are_read_by_their_offset() {
        let cases = [
            ("+0330", 1_700_000_000 - 12_600),
            ("-05", 1_700_000_000 + 18_000),
            ("GMT", 1_700_000_000),
        ];
        for (zone, seconds) in cases {
            let text = format!("Deadline(Tue Nov 14 22:13:20 {zone} 2023)");
            let wanted = TaskOption::Deadline(Timestamp::from_seconds(seconds));
            assert_eq!(TaskOption::parse(&text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn durations_have_the_unit_that_go_gives_them() {
        let cases = [
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (300_000_000, "300ms"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ];
        for (nanos, text) in cases {
            assert_eq!(go(nanos).to_string(), text);
            assert_eq!(GoDuration::parse(text), Some(go(nanos)), "{text}");
        }
        assert_eq!(GoDuration::parse("+1.5h1μs1us.5s"), Some(go(5_400_500_002_000)));
        assert_eq!(GoDuration::parse("-0"), Some(go(0)));
    }

    #[test]
    fn quotes_escape_what_go_does_not_show() {
        let text = "\x07\x08\x0c\n\r\t\x0b\\\x01\x7f\u{a0}\u{200b}\u{e000}\u{10ffff}e\u{301}日🙂";
        let wanted = r#""\a\b\f\n\r\t\v\\\x01\x7f\u00a0\u200b\ue000\U0010ffffe"#;
        assert_eq!(quoted(text), format!("{wanted}\u{301}日🙂\""));
        assert_eq!(quoted("\u{301}"), "\"\u{301}\"", "a mark alone is shown, too");
        assert_eq!(unquoted(r#""\141\x62""#).as_deref(), Some("ab"));
        assert_eq!(unquoted("`a\\b`").as_deref(), Some("a\\b"));
    }

    proptest! {
        #[test]
        fn every_name_and_header_is_read_back(name in any::<String>(), value in any::<String>()) {
            for option in [
                TaskOption::Queue(name.clone()),
                TaskOption::TaskId(name.clone()),
                TaskOption::Group(name.clone()),
                TaskOption::Header(name.clone(), value.clone()),
            ] {
                prop_assert_eq!(TaskOption::parse(&option.to_string()), Some(option));
            }
        }

        #[test]
        fn every_duration_and_moment_is_read_back(
            nanos in any::<i64>(),
            seconds in -62_135_596_800_i64..=253_402_207_200,
        ) {
            let duration = TaskOption::Unique(go(nanos));
            prop_assert_eq!(TaskOption::parse(&duration.to_string()), Some(duration));
            let moment = TaskOption::Deadline(Timestamp::from_seconds(seconds));
            prop_assert_eq!(TaskOption::parse(&moment.to_string()), Some(moment));
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in any::<String>()) {
            for name in ["MaxRetry", "Queue", "Timeout", "Deadline", "Header"] {
                let _ = TaskOption::parse(&format!("{name}({text})"));
                let _ = TaskOption::parse(&text);
            }
        }
    }
}
