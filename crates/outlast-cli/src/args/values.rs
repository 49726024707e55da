//! How the values of options are read.

use std::time::Duration;

use outlast::Timestamp;

/// `1h30m`
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    outlast::duration::parse(text).map_err(|error| error.to_string())
}

/// `2026-11-24T02:30:00Z`
pub(crate) fn time(text: &str) -> Result<Timestamp, String> {
    text.parse::<Timestamp>().map_err(|error| error.to_string())
}

/// `NAME=VALUE`
pub(crate) fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, _)) if name.trim().is_empty() => Err(format!("header {text:?} has no name")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err(format!("header {text:?} is not written as NAME=VALUE")),
    }
}
