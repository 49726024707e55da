//! Stage one of the configuration: `outlast.toml` exactly as it was written, with the place of every
//! value. Nothing is interpreted here; keys that nobody knows are refused with the nearest known one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::problem::Problem;
use crate::suggest;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawConfig {
    pub(crate) broker: Option<Spanned<String>>,
    pub(crate) survive: RawSurvive,
    pub(crate) worker: RawWorker,
    pub(crate) queues: BTreeMap<Spanned<String>, Spanned<RawQueue>>,
    pub(crate) handler: Vec<Spanned<RawHandler>>,
    pub(crate) schedule: Vec<Spanned<RawSchedule>>,
    pub(crate) group: Vec<Spanned<RawGroup>>,
}

/// `[survive]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSurvive {
    pub(crate) spool: Option<Spanned<String>>,
    pub(crate) journal: Option<Spanned<String>>,
    pub(crate) patience: Option<Spanned<String>>,
    pub(crate) items_max: Option<Spanned<u64>>,
    pub(crate) bytes_max: Option<Spanned<u64>>,
    pub(crate) age_max: Option<Spanned<String>>,
    pub(crate) when_full: Option<Spanned<String>>,
    pub(crate) keep_for: Option<Spanned<String>>,
    pub(crate) keep_bytes: Option<Spanned<u64>>,
}

/// `[worker]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawWorker {
    pub(crate) slots: Option<Spanned<u32>>,
    pub(crate) shutdown: Option<Spanned<String>>,
    pub(crate) lease: Option<Spanned<String>>,
}

/// A queue below `[queues]`: `name = 3`, or `name = { weight = 3, concurrency = 8 }`.
#[derive(Debug, Default)]
pub(crate) struct RawQueue {
    pub(crate) weight: Option<u32>,
    pub(crate) concurrency: Option<u32>,
}

/// `[[handler]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawHandler {
    #[serde(rename = "type")]
    pub(crate) pattern: Option<Spanned<String>>,
    pub(crate) command: Option<Spanned<Vec<String>>>,
    pub(crate) url: Option<Spanned<String>>,
    pub(crate) timeout: Option<Spanned<String>>,
    pub(crate) concurrency: Option<Spanned<u32>>,
    pub(crate) snooze: Option<Spanned<String>>,
    pub(crate) output_max: Option<Spanned<u64>>,
}

/// `[[schedule]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawSchedule {
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) cron: Option<Spanned<String>>,
    pub(crate) timezone: Option<Spanned<String>>,
    #[serde(rename = "type")]
    pub(crate) task_type: Option<Spanned<String>>,
    pub(crate) payload: Option<Spanned<String>>,
    pub(crate) queue: Option<Spanned<String>>,
    pub(crate) missed: Option<Spanned<String>>,
}

/// `[[group]]`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawGroup {
    pub(crate) queue: Option<Spanned<String>>,
    pub(crate) name: Option<Spanned<String>>,
    pub(crate) grace: Option<Spanned<String>>,
    pub(crate) max_delay: Option<Spanned<String>>,
    pub(crate) max_size: Option<Spanned<u32>>,
    #[serde(rename = "type")]
    pub(crate) task_type: Option<Spanned<String>>,
}

impl RawConfig {
    /// Reads the text of the file at `path` (which is only named in the error).
    pub(crate) fn parse(path: &Path, text: &str) -> Result<Self, Problem> {
        toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| span.start);
            let message = suggest::unknown_field(error.message());
            let message = message.unwrap_or_else(|| error.message().to_owned());
            // The place and the message are all that this error holds: it is no source of its own.
            Problem::at(path, place.map(|at| line_of(text, at)), message)
        })
    }
}

/// The line on which the byte `at` is, counted from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or(text.as_bytes());
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

impl<'de> Deserialize<'de> for RawQueue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QueueVisitor)
    }
}

// Written by hand because `untagged` would lose the place and the message of an unknown key inside.
struct QueueVisitor;

impl<'de> Visitor<'de> for QueueVisitor {
    type Value = RawQueue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a weight, or a table with weight and concurrency")
    }

    fn visit_i64<E: de::Error>(self, weight: i64) -> Result<RawQueue, E> {
        let weight = u32::try_from(weight)
            .map_err(|_| E::custom(format!("weight {weight} is not between 1 and {}", u32::MAX)))?;
        Ok(RawQueue { weight: Some(weight), concurrency: None })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawQueue, A::Error> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Table {
            weight: Option<u32>,
            concurrency: Option<u32>,
        }
        let Table { weight, concurrency } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(RawQueue { weight, concurrency })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        RawConfig::parse(Path::new("outlast.toml"), text).expect_err(text).to_string()
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        let cases = [
            ("brokr = 'x'", "outlast.toml:1: unknown key \"brokr\"; did you mean \"broker\"?"),
            (
                "\n[worker]\nslot = 3",
                "outlast.toml:3: unknown key \"slot\"; did you mean \"slots\"?",
            ),
            (
                "[queues]\nmail = 3\nfiles = { concurency = 2 }",
                "outlast.toml:3: unknown key \"concurency\"; did you mean \"concurrency\"?",
            ),
            (
                "[[handler]]\ntype = 'x'\n[[handler]]\ncomand = ['x']",
                "outlast.toml:4: unknown key \"comand\"; did you mean \"command\"?",
            ),
            (
                "[worker]\nzzz = 3",
                "outlast.toml:2: unknown key \"zzz\"; known here are slots, shutdown, lease",
            ),
        ];
        for (text, message) in cases {
            assert_eq!(refusal(text), message);
        }
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_named_with_its_line() {
        assert!(refusal("[queues]\nmail = true").starts_with("outlast.toml:2: invalid type"));
        assert!(refusal("[queues]\nmail = -1").contains("weight -1"));
        assert!(refusal("[worker]\nslots = '3'").starts_with("outlast.toml:2: invalid type"));
    }
}
