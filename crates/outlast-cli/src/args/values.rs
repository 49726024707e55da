//! How the values of options are read.

use std::time::Duration;

use outlast::{OnOutage, Timestamp, limits};

/// `1h30m`
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    outlast::duration::parse(text).map_err(|error| error.to_string())
}

/// `2026-11-24T02:30:00Z`
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse::<Timestamp>().map_err(|error| error.to_string())
}

/// A number of retries. One beyond the limit is a number all the same: its task is rejected.
pub(crate) fn max_retry(text: &str) -> Result<u32, String> {
    let most = limits::MAX_RETRY_MAX;
    text.parse().map_err(|_| format!("max retry {text:?} is no whole number from 0 to {most}"))
}

/// `NAME=VALUE`
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if name.trim().is_empty() => Err(format!("header {text:?} has no name")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("header {text:?} is not written as NAME=VALUE")),
    }
}

/// `store`, `fail` or a duration to wait
pub(crate) fn on_outage(text: &str) -> Result<OnOutage, String> {
    match text {
        "store" => Ok(OnOutage::Store),
        "fail" => Ok(OnOutage::Fail),
        other => duration(other)
            .map(OnOutage::Wait)
            .map_err(|_| "write store, fail, or how long to wait, such as 10s".to_owned()),
    }
}
