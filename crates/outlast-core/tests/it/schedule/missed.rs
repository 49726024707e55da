//! Which ticks are due, and that a scheduler loses and doubles none.

use std::time::Duration;

use jiff::Timestamp;
use outlast_core::ScheduleName;
use outlast_core::broker::tick_id;
use outlast_core::schedule::{
    CatchUp, DUE_TICKS_MAX, DueTicks, Missed, SKIPPED_COUNT_MAX, due_ticks,
};
use proptest::prelude::*;

use super::{at, cron};

const POLICIES: [Missed; 3] = [Missed::Skip, Missed::Once, Missed::All];

fn policy(missed: Missed) -> CatchUp {
    CatchUp { missed, ..CatchUp::default() }
}

/// Times of 24 November 2026; the answer as (ticks, skipped).
fn check(missed: Missed, spec: &str, last: &str, now: &str, expected: (&[&str], u64)) {
    let day = |time: &str| at(&format!("2026-11-24T{time}Z"));
    let due = due_ticks(&cron(spec), Some(day(last)), day(now), &policy(missed));
    let ticks: Vec<Timestamp> = expected.0.iter().map(|time| day(time)).collect();
    let context = format!("{missed:?} of {spec} from {last} to {now}");
    assert_eq!((due.ticks, due.skipped), (ticks, expected.1), "{context}");
    assert_eq!((due.position, due.more), (day(now), false), "{context}");
}

#[test]
fn a_tick_that_was_just_reached_is_due_under_every_policy() {
    for missed in POLICIES {
        for now in ["10:00:00", "10:00:00.020", "10:00:09", "10:00:10"] {
            check(missed, "0 * * * *", "09:30:00", now, (&["10:00:00"], 0));
        }
        check(missed, "0 * * * *", "09:30:00", "09:59:59.999", (&[], 0));
        check(missed, "0 * * * *", "10:00:00", "10:00:05", (&[], 0));
    }
}

#[test]
fn missed_ticks_are_skipped_run_once_or_all_run() {
    let all: &[&str] = &["06:00:00", "07:00:00", "08:00:00", "09:00:00"];
    check(Missed::Skip, "0 * * * *", "05:30:00", "09:30:00", (&[], 4));
    check(Missed::Once, "0 * * * *", "05:30:00", "09:30:00", (&["09:00:00"], 3));
    check(Missed::All, "0 * * * *", "05:30:00", "09:30:00", (all, 0));
}

#[test]
fn a_tick_on_time_does_the_work_of_the_one_missed_run() {
    check(Missed::Skip, "0 * * * *", "07:30:00", "10:00:02", (&["10:00:00"], 2));
    check(Missed::Once, "0 * * * *", "07:30:00", "10:00:02", (&["10:00:00"], 2));
}

#[test]
fn every_tick_on_time_is_due_even_if_the_timer_was_late_for_several() {
    for missed in POLICIES {
        let ticks = &["10:00:01", "10:00:02", "10:00:03"];
        check(missed, "@every 1s", "10:00:00", "10:00:03.400", (ticks, 0));
    }
}

#[test]
fn a_tick_is_missed_only_when_it_is_later_than_the_tolerance() {
    check(Missed::Skip, "0 * * * *", "09:30:00", "10:00:10", (&["10:00:00"], 0));
    check(Missed::Skip, "0 * * * *", "09:30:00", "10:00:10.000000001", (&[], 1));
}

#[test]
fn without_a_tolerance_only_this_very_moment_is_on_time() {
    let strict = CatchUp { tolerance: Duration::ZERO, ..policy(Missed::Skip) };
    let last = Some(at("2026-11-24T09:30:00Z"));
    let due = |now| due_ticks(&cron("0 * * * *"), last, at(now), &strict).ticks.len();
    assert_eq!((due("2026-11-24T10:00:00Z"), due("2026-11-24T10:00:00.001Z")), (1, 0));
}

#[test]
fn a_schedule_that_starts_has_missed_nothing() {
    for missed in POLICIES {
        for now in ["2026-11-24T10:00:00Z", "2026-11-24T10:00:01Z"] {
            let due = due_ticks(&cron("* * * * *"), None, at(now), &policy(missed));
            let expected = DueTicks { ticks: vec![], skipped: 0, position: at(now), more: false };
            assert_eq!(due, expected);
        }
    }
}

#[test]
fn a_clock_that_goes_back_brings_no_tick_twice() {
    let last = at("2026-11-24T10:00:05Z");
    for missed in POLICIES {
        for now in ["2026-11-24T09:59:00Z", "2026-11-24T10:00:05Z"] {
            let due = due_ticks(&cron("* * * * *"), Some(last), at(now), &policy(missed));
            assert_eq!((due.ticks, due.position), (vec![], last));
        }
    }
}

#[test]
fn a_long_catch_up_comes_in_portions() {
    let minutely = cron("* * * * *");
    let (last, now) = (at("2026-11-20T00:00:00Z"), at("2026-11-24T00:00:30Z"));
    let mut position = last;
    let mut ticks = Vec::new();
    let mut portions = Vec::new();
    loop {
        let due = due_ticks(&minutely, Some(position), now, &policy(Missed::All));
        portions.push(due.ticks.len());
        ticks.extend(due.ticks);
        position = due.position;
        if !due.more {
            break;
        }
    }
    assert_eq!(portions, [DUE_TICKS_MAX, 1_000, 1_000, 1_000, 1_000, 760]);
    assert!(ticks.iter().copied().eq(minutely.ticks_after(last).take(4 * 24 * 60)));
    assert_eq!(position, now);
}

#[test]
fn a_limit_that_makes_no_progress_or_no_sense_is_moved_to_the_nearest_that_does() {
    let (last, now) = (at("2026-11-20T00:00:00Z"), at("2026-11-24T00:00:00Z"));
    for (ticks_max, expected) in [(0, 1), (1, 1), (7, 7), (usize::MAX, DUE_TICKS_MAX)] {
        let catch_up = CatchUp { ticks_max, ..policy(Missed::All) };
        let due = due_ticks(&cron("* * * * *"), Some(last), now, &catch_up);
        assert_eq!((due.ticks.len(), due.more), (expected, true));
    }
}

#[test]
fn the_latest_of_many_years_is_found_and_the_count_of_the_rest_ends() {
    let (last, now) = (at("2001-01-01T00:00:00Z"), at("2026-11-24T13:37:42Z"));
    for (spec, tick) in [
        ("@every 1s", "2026-11-24T13:37:31Z"),
        ("* * * * *", "2026-11-24T13:37:00Z"),
        ("* * * 1 *", "2026-01-31T23:59:00Z"),
        ("0 0 29 2 *", "2024-02-29T00:00:00Z"),
    ] {
        let tolerance = if spec == "@every 1s" { Duration::ZERO } else { Duration::from_secs(10) };
        let catch_up = CatchUp { tolerance, ..policy(Missed::Once) };
        // Not on a tick, so that even the every-second schedule has nothing on time.
        let now = if spec == "@every 1s" { at("2026-11-24T13:37:31.5Z") } else { now };
        let due = due_ticks(&cron(spec), Some(last), now, &catch_up);
        assert_eq!(due.ticks, [at(tick)], "{spec}");
        assert!(due.skipped <= SKIPPED_COUNT_MAX, "{spec}");
    }
}

#[test]
fn the_task_of_a_tick_has_the_same_name_in_every_scheduler() {
    let name = |text| {
        tick_id(&ScheduleName::stored("report"), outlast_core::Timestamp::from_jiff(at(text)))
    };
    assert_eq!(name("2026-11-24T02:30:00Z").as_str(), "report@2026-11-24T02:30:00Z");
    assert_eq!(name("1969-12-31T23:59:59Z").as_str(), "report@1969-12-31T23:59:59Z");
}

#[test]
fn policies_are_written_in_lower_case() {
    for (missed, text) in POLICIES.into_iter().zip([r#""skip""#, r#""once""#, r#""all""#]) {
        assert_eq!(serde_json::to_string(&missed).unwrap(), text);
        assert_eq!(serde_json::from_str::<Missed>(text).unwrap(), missed);
    }
    assert!(serde_json::from_str::<Missed>(r#""Skip""#).is_err());
}

#[test]
fn no_time_and_no_tolerance_makes_a_decision_panic() {
    let times = [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX];
    for spec in ["@every 8760h", "0 0 29 2 *", ", * * * *"] {
        for (last, now) in times.iter().flat_map(|last| times.map(|now| (*last, now))) {
            for missed in POLICIES {
                let catch_up = CatchUp { missed, tolerance: Duration::MAX, ticks_max: 10 };
                let due = due_ticks(&cron(spec), Some(last), now, &catch_up);
                assert!(due.position >= last);
            }
        }
    }
}

proptest! {
    /// The loop of a scheduler that is woken at odd times, and now and then sleeps too long.
    #[test]
    fn a_loop_gets_each_tick_once_and_in_order(
        spec in prop::sample::select(vec!["* * * * *", "@every 7s", "*/7 3-5 * * *", "0 0 * * *"]),
        naps_ms in prop::collection::vec(prop_oneof![1_i64..20_000, 1_i64..8_000_000], 1..40),
        ticks_max in 1_usize..20,
        missed in prop::sample::select(POLICIES.to_vec()),
    ) {
        let cron = cron(spec);
        let start = at("2026-11-24T00:00:00Z");
        let catch_up = CatchUp { missed, ticks_max, ..CatchUp::default() };
        let (mut now, mut position, mut ticks, mut skipped) = (start, start, Vec::new(), 0);
        for nap in naps_ms {
            now = Timestamp::from_millisecond(now.as_millisecond() + nap).unwrap();
            loop {
                let due = due_ticks(&cron, Some(position), now, &catch_up);
                prop_assert!(due.position >= position && due.position <= now);
                ticks.extend(due.ticks);
                skipped += due.skipped;
                position = due.position;
                if !due.more { break; }
            }
        }
        prop_assert_eq!(position, now);
        let expected: Vec<_> = cron.ticks_after(start).take_while(|tick| *tick <= now).collect();
        if missed == Missed::All {
            prop_assert_eq!(ticks, expected);
        } else {
            prop_assert!(ticks.is_sorted_by(|a, b| a < b));
            prop_assert!(ticks.iter().all(|tick| expected.contains(tick)));
            if skipped < SKIPPED_COUNT_MAX {
                prop_assert_eq!(ticks.len() as u64 + skipped, expected.len() as u64);
            }
        }
    }
}
