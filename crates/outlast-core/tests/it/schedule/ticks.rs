//! When a cron ticks: the properties that no table shows.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use outlast_core::schedule::Cron;
use proptest::prelude::*;

use super::{at, cron, cron_in};

#[test]
fn schedulers_that_start_at_different_times_agree_on_the_ticks_of_an_interval() {
    let every = cron("@every 7m");
    let expected = every.tick_after(at("2026-11-24T10:00:00Z"));
    let start = expected.unwrap().as_second() - 7 * 60;
    for second in start..start + 7 * 60 {
        let after = Timestamp::new(second, 123_456_789).unwrap();
        assert_eq!(every.tick_after(after), expected, "{after}");
    }
}

#[test]
fn an_interval_is_aligned_to_1970_and_ticks_strictly_later() {
    let cases = [
        ("@every 1h", "2026-11-24T10:00:00Z", "2026-11-24T11:00:00Z"),
        ("@every 1h", "2026-11-24T09:59:59.999Z", "2026-11-24T10:00:00Z"),
        ("@every 24h", "2026-11-24T10:00:00Z", "2026-11-25T00:00:00Z"),
        ("@every 1s", "1969-12-31T23:59:58.5Z", "1969-12-31T23:59:59Z"),
        ("@every 1h", "1969-12-31T22:30:00Z", "1969-12-31T23:00:00Z"),
        ("@every 1h", "1969-12-31T23:00:00Z", "1970-01-01T00:00:00Z"),
    ];
    for (spec, after, tick) in cases {
        assert_eq!(cron(spec).tick_after(at(after)), Some(at(tick)), "{spec} after {after}");
    }
}

#[test]
fn fields_tick_alike_for_one_process_and_for_many() {
    let cron = cron_in("Europe/Berlin", "*/20 2 * * *");
    let from = at("2026-10-24T00:00:00Z");
    let shared: Vec<_> = cron.ticks_after(from).take(20).collect();
    let mut own = vec![cron.next(from).unwrap()];
    while own.len() < 20 {
        own.push(cron.next(own[own.len() - 1]).unwrap());
    }
    assert_eq!(shared, own);
}

#[test]
fn a_day_that_a_zone_has_skipped_is_stepped_over() {
    // Go's search does not return here: Samoa had no 30 December 2011.
    let cases = [
        ("0 0 31 12 *", "2011-12-01T00:00:00Z", "2011-12-30T10:00:00Z"),
        ("0 5 * * sat", "2011-12-29T00:00:00Z", "2011-12-30T15:00:00Z"),
        ("0 0 30 12 *", "2011-12-29T00:00:00Z", "2012-12-29T10:00:00Z"),
    ];
    for (spec, after, tick) in cases {
        assert_eq!(cron_in("Pacific/Apia", spec).next(at(after)), Some(at(tick)), "{spec}");
    }
}

/// In 2009 the clock of St. John's went back from 0:01 to 23:01, so 1 November began twice, an
/// hour apart. Searches from the Saturday evening between went back to the first beginning, and
/// gave a tick that had been.
#[test]
fn a_search_is_not_led_back_to_a_midnight_that_comes_twice() {
    let cases = [
        ("7,37 * * * 0-4", "2009-11-01T02:37:00Z", "2009-11-01T03:37:00Z"),
        ("0 0 * * *", "2009-11-01T02:45:00Z", "2009-11-01T03:30:00Z"),
        ("30 0 1 11 *", "2009-11-01T03:15:00Z", "2009-11-01T04:00:00Z"),
    ];
    for (spec, after, tick) in cases {
        assert_eq!(cron_in("America/St_Johns", spec).next(at(after)), Some(at(tick)), "{spec}");
    }
}

#[test]
fn a_cron_that_matches_nothing_never_ticks() {
    for spec in [", * * * *", "* , * * *", "* * , * *", "* * * , *", "* * , * ,", "0 0 30 2 *"] {
        assert_eq!(cron(spec).next(at("2026-11-24T00:00:00Z")), None, "{spec}");
    }
}

#[test]
fn time_ends_without_a_panic() {
    for spec in ["* * * * *", "0 0 29 2 *", "@every 1s", "@every 2562047h", "@yearly"] {
        for zone in ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin"] {
            let cron = cron_in(zone, spec);
            for after in [Timestamp::MAX, Timestamp::MIN] {
                for answer in [cron.next(after), cron.tick_after(after)].into_iter().flatten() {
                    assert!(answer > after, "{spec} in {zone}");
                }
            }
            assert_eq!(cron.next(Timestamp::MAX), None, "{spec} in {zone}");
        }
    }
}

fn any_timestamp() -> impl Strategy<Value = Timestamp> {
    let range = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    (range, 0..1_000_000_000)
        .prop_filter_map("in range", |(second, nanosecond)| Timestamp::new(second, nanosecond).ok())
}

proptest! {
    #[test]
    fn a_tick_is_later_than_its_question_and_on_a_full_second(
        spec in "([1-5]?[0-9]|\\*) (1?[0-9]|\\*) ([1-9]|1[0-9]|2[0-9]|\\*) ([1-9]|\\*) ([0-6]|\\*)",
        zone in prop::sample::select(vec!["UTC", "Europe/Berlin", "Pacific/Apia", "Africa/Monrovia"]),
        after in any_timestamp(),
    ) {
        let cron = Cron::parse(&spec, &TimeZone::get(zone).unwrap()).unwrap();
        if let Some(tick) = cron.next(after) {
            prop_assert!(tick > after);
            prop_assert_eq!(tick.subsec_nanosecond(), 0);
            prop_assert_eq!(cron.zone().to_datetime(tick).second(), 0);
        }
    }

    #[test]
    fn an_interval_ticks_at_its_multiples(seconds in 1_i64..9_000_000_000, after in any_timestamp()) {
        let cron = cron(&format!("@every {seconds}s"));
        if let Some(tick) = cron.tick_after(after) {
            prop_assert!(tick > after);
            prop_assert_eq!(tick.as_second() % seconds, 0);
            prop_assert!(tick.as_second() - after.as_second() <= seconds + 1);
        }
    }
}
