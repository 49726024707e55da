//! What a spec says, and what is said about one that says nothing.

use std::time::Duration;

use jiff::tz::TimeZone;
use outlast_core::schedule::{Cron, CronField, SPEC_BYTES_MAX};
use proptest::prelude::*;

use super::cron;

fn message(spec: &str) -> String {
    Cron::parse(spec, &TimeZone::UTC).expect_err(spec).to_string()
}

#[test]
fn an_error_names_the_field_the_character_and_the_reason() {
    let cases = [
        ("61 * * * *", "minute: 61 at character 1 is over 59"),
        ("0,15,75 * * * *", "minute: 75 at character 6 is over 59"),
        ("0-99 * * * *", "minute: 99 at character 3 is over 59"),
        ("*/0 * * * *", "minute: 0 at character 3 is not a step of at least 1"),
        ("*/-2 * * * *", "minute: -2 at character 3 is not a step of at least 1"),
        (
            "*/9999999999999999999999 * * * *",
            "minute: 9999999999999999999999 at character 3 is not a step that fits",
        ),
        (
            "99999999999999999999999 * * * *",
            "minute: 99999999999999999999999 at character 1 is over 59",
        ),
        ("-5 * * * *", "minute: -5 at character 1 is not a number"),
        ("1-2-3 * * * *", "minute: 1-2-3 at character 1 has more than one hyphen"),
        ("1/2/3 * * * *", "minute: 1/2/3 at character 1 has more than one slash"),
        ("/5 * * * *", "minute: nothing at character 1 is not a number"),
        ("0  24 * * *", "hour: 24 at character 4 is over 23"),
        ("0 5-3 * * *", "hour: 5-3 at character 3 runs backwards"),
        ("0 x * * *", "hour: x at character 3 is not a number"),
        ("0 0 0 * *", "day of month: 0 at character 5 is under 1"),
        ("0 0 L * *", "day of month: L at character 5 is not a number"),
        ("0 0 * 13 *", "month: 13 at character 7 is over 12"),
        (
            "0 0 * january *",
            "month: january at character 7 is neither a number nor a name from jan to dec",
        ),
        ("* * * * 7", "day of week: 7 at character 9 is over 6"),
        (
            "* * * * mon-fry",
            "day of week: fry at character 13 is neither a number nor a name from sun to sat",
        ),
        ("", "minute: nothing at character 1 where a field is needed, there are five"),
        ("* * * *", "day of week: nothing at character 8 where a field is needed, there are five"),
        (
            "0 30 2 * * *",
            "day of week: * at character 12 comes after the fifth and last field (there is none for seconds)",
        ),
        ("TZ=UTC", "zone: UTC at character 4 needs a space and a schedule after it"),
        ("TZ=Mars/Olympus * * * * *", "zone: Mars/Olympus at character 4 is not a known time zone"),
        (
            "CRON_TZ=europe/berlin @daily",
            "zone: europe/berlin at character 9 must be spelled Europe/Berlin",
        ),
        ("TZ=UTC  60 * * * *", "minute: 60 at character 9 is over 59"),
        (
            "@dayly",
            "descriptor: @dayly at character 1 is not one of @yearly, @annually, @monthly, @weekly, \
             @daily, @midnight, @hourly, @every",
        ),
        ("@every ", "duration: nothing at character 8 is not a duration such as 1h30m"),
        ("@every x", "duration: x at character 8 is not a duration such as 1h30m"),
        ("@every 1h30", "duration: 30 at character 10 needs a unit (h, m, s, ms, us, ns) after it"),
        ("@every 1d", "duration: d at character 9 is not a unit (h, m, s, ms, us, ns)"),
        ("@every 9999999h", "duration: 9999999h at character 8 is longer than 292 years"),
        ("TZ=UTC @every 1h5x", "duration: x at character 18 is not a unit (h, m, s, ms, us, ns)"),
    ];
    for (spec, expected) in cases {
        assert_eq!(message(spec), format!("cron spec {spec:?}: {expected}"));
    }
}

#[test]
fn an_error_counts_characters_and_escapes_what_it_shows() {
    // A message ends in a terminal or a log: nothing in it may move the cursor.
    let error = Cron::parse("0\u{a0}µµ,\u{1b}[31m * * *", &TimeZone::UTC).unwrap_err();
    assert_eq!((error.field(), error.column(), error.text()), (CronField::Hour, 3, "µµ"));
    let error = Cron::parse("µ \u{1b}[31m * * *", &TimeZone::UTC).unwrap_err();
    assert_eq!(error.field(), CronField::Minute);
    let error = Cron::parse("0\u{2003}1,\u{1b}[31m\n* * *", &TimeZone::UTC).unwrap_err();
    assert_eq!((error.column(), error.text()), (5, "\u{1b}[31m"));
    assert!(!error.to_string().contains(char::is_control), "{error}");
}

#[test]
fn a_spec_has_a_longest_length() {
    let fits = format!("{}5 * * * *", " ".repeat(SPEC_BYTES_MAX - 9));
    assert!(Cron::parse(&fits, &TimeZone::UTC).is_ok());

    let error = Cron::parse(&format!(" {fits}"), &TimeZone::UTC).unwrap_err();
    assert_eq!((error.field(), error.column(), error.text()), (CronField::Spec, 513, "*"));
    assert_eq!(error.spec().len(), SPEC_BYTES_MAX);

    // The limit falls into the middle of a character.
    let error = Cron::parse(&format!("5{}", "µ".repeat(400)), &TimeZone::UTC).unwrap_err();
    assert_eq!((error.column(), error.text(), error.spec().len()), (257, "µ", 511));
}

#[test]
fn an_interval_is_whole_seconds_and_at_least_one() {
    let cases = [
        ("@every 1h30m", 5_400),
        ("@every 1.5h", 5_400),
        ("@every 1m2.9s", 62),
        ("@every 2500ms", 2),
        ("@every 2500000µs", 2),
        ("@every 2500000μs", 2),
        ("@every 999ms", 1),
        ("@every 0", 1),
        ("@every -1h", 1),
        ("@every 0.5000000000000h", 1_800),
    ];
    for (spec, seconds) in cases {
        assert_eq!(cron(spec).every(), Some(Duration::from_secs(seconds)), "{spec}");
    }
    assert_eq!(cron("@hourly").every(), None);
}

#[test]
fn a_spec_without_a_zone_and_local_mean_the_default_zone() {
    let kolkata = TimeZone::get("Asia/Kolkata").unwrap();
    for (spec, zone) in [
        ("@daily", "Asia/Kolkata"),
        ("TZ=Local @daily", "Asia/Kolkata"),
        ("TZ= @daily", "UTC"),
        ("CRON_TZ=Europe/Berlin @daily", "Europe/Berlin"),
    ] {
        let cron = Cron::parse(spec, &kolkata).unwrap();
        assert_eq!(cron.zone().iana_name(), Some(zone), "{spec}");
        assert_eq!(cron.to_string(), spec);
    }
}

#[test]
fn the_longest_spec_is_read() {
    let spec = format!("{}0 * * * *", "0,".repeat((SPEC_BYTES_MAX - 9) / 2));
    assert!(Cron::parse(&spec, &TimeZone::UTC).is_ok());
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(spec in "(TZ=|CRON_TZ=|@every |@)?.{0,40}") {
        let _ = Cron::parse(&spec, &TimeZone::UTC);
    }

    #[test]
    fn text_that_looks_like_a_spec_is_read_or_its_fault_is_located(
        spec in "(TZ=UTC )?(@every [-+]?([0-9]{0,20}\\.?[0-9]{0,20}(h|m|s|ms|µs|ns)?){0,3}|([0-9*?/,a-z-]{1,6} ){4}[0-9*?]{1,2})"
    ) {
        if let Err(error) = Cron::parse(&spec, &TimeZone::UTC) {
            let there: String = spec.chars().skip(error.column() - 1).collect();
            prop_assert!(there.starts_with(error.text()), "{error}");
        }
    }
}
