//! Schedules: what a spec says, when it ticks, and what becomes of missed ticks.

mod missed;
mod spec;
mod ticks;
mod vectors;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use outlast_core::schedule::Cron;

fn cron(spec: &str) -> Cron {
    Cron::parse(spec, &TimeZone::UTC).unwrap()
}

fn cron_in(zone: &str, spec: &str) -> Cron {
    Cron::parse(spec, &TimeZone::get(zone).unwrap()).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}
