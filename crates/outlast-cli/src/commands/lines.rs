//! Reads lines and makes tasks of them: plain lines that are payloads, or JSON objects.
//!
//! A line that is wrong is an item like the others, with its number and the reason, and does not hold up
//! the lines behind it. Blank lines are passed over.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use outlast::{TaskRequest, Timestamp, duration};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::enqueue::TaskOptions;
use crate::suggest;

/// Bytes of a line: room for a payload of the client's limit in which every byte is escaped. A longer
/// line is refused; what it holds is read over, not kept.
const LINE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Characters shown of a value that is wrong.
const SHOWN_CHARS: usize = 60;

/// What a line is.
#[derive(Debug)]
pub(crate) enum Form {
    /// A payload.
    Lines { task_type: String, options: TaskOptions },
    /// A JSON object with the names of the options; what it does not name is taken from here.
    Objects { task_type: Option<String>, options: TaskOptions },
}

/// What became of a line.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its number, from 1.
    pub(crate) line: u64,
    /// The task, or what is wrong.
    pub(crate) task: Result<TaskRequest, String>,
}

/// Reads to the end and sends an item for every line; ends early if nobody receives any more.
pub(crate) fn read(
    mut source: impl BufRead,
    form: &Form,
    items: &mpsc::Sender<Item>,
) -> std::io::Result<()> {
    let mut text = Vec::new();
    for line in 1.. {
        text.clear();
        let most = LINE_BYTES_MAX as u64 + 1;
        if source.by_ref().take(most).read_until(b'\n', &mut text)? == 0 {
            break;
        }
        let is_whole = text.last() == Some(&b'\n') || text.len() <= LINE_BYTES_MAX;
        if !is_whole {
            skip_line(&mut source)?;
        }
        let text = text.strip_suffix(b"\n").unwrap_or(&text);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let task = match is_whole {
            true => form.task(text),
            false => Err(format!("is longer than {LINE_BYTES_MAX} bytes")),
        };
        if items.blocking_send(Item { line, task }).is_err() {
            break;
        }
    }
    Ok(())
}

fn skip_line(source: &mut impl BufRead) -> std::io::Result<()> {
    loop {
        let buffer = source.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let (used, is_over) = (end.map_or(buffer.len(), |at| at + 1), end.is_some());
        source.consume(used);
        if is_over || used == 0 {
            return Ok(());
        }
    }
}

impl Form {
    fn task(&self, line: &[u8]) -> Result<TaskRequest, String> {
        let request = match self {
            Form::Lines { task_type, options } => options.request(task_type, line.to_vec()),
            Form::Objects { task_type, options } => object(line, task_type.as_deref(), options)?,
        };
        request.check_options().map_err(|error| error.to_string())?;
        Ok(request)
    }
}

/// A line of JSON. The names are those of the options, as scripts rely on.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(rename = "type")]
    task_type: Option<String>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
    payload_base64: Option<String>,
    queue: Option<String>,
    id: Option<String>,
    max_retry: Option<u32>,
    timeout: Option<String>,
    deadline: Option<String>,
    r#in: Option<String>,
    at: Option<String>,
    unique: Option<String>,
    retention: Option<String>,
    group: Option<String>,
    #[serde(alias = "header")]
    headers: Option<BTreeMap<String, String>>,
}

fn object(
    text: &[u8],
    task_type: Option<&str>,
    defaults: &TaskOptions,
) -> Result<TaskRequest, String> {
    let text = std::str::from_utf8(text)
        .map_err(|error| format!("is not valid UTF-8 from byte {} on", error.valid_up_to() + 1))?;
    let line: Line<'_> = serde_json::from_str(text)
        .map_err(|error| wrong_field(text).unwrap_or_else(|| explain(&error)))?;
    let task_type = line.task_type.as_deref().or(task_type).ok_or("names no type")?.to_owned();
    let payload = line.payload()?;
    let options = line.options(defaults)?;
    Ok(options.request(&task_type, payload))
}

impl Line<'_> {
    /// Text is taken as it is; any other JSON value is the payload itself, as it is written.
    fn payload(&self) -> Result<Vec<u8>, String> {
        match (self.payload, &self.payload_base64) {
            (Some(_), Some(_)) => Err("has a payload and a payload_base64".to_owned()),
            (None, None) => Ok(Vec::new()),
            (None, Some(text)) => {
                use base64::Engine as _;
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                decoded.map_err(|error| format!("payload_base64 is wrong: {error}"))
            }
            (Some(raw), None) if raw.get().starts_with('"') => {
                let text: String =
                    serde_json::from_str(raw.get()).map_err(|error| explain(&error))?;
                Ok(text.into_bytes())
            }
            (Some(raw), None) => Ok(raw.get().as_bytes().to_vec()),
        }
    }

    fn options(self, defaults: &TaskOptions) -> Result<TaskOptions, String> {
        let d = defaults.clone();
        let long = |name: &str, text: Option<String>| {
            let parse = |text: String| duration::parse(&text).map_err(|e| format!("{name}: {e}"));
            text.map(parse).transpose()
        };
        let when = |name: &str, text: Option<String>| {
            let parse =
                |text: String| text.parse::<Timestamp>().map_err(|e| format!("{name}: {e}"));
            text.map(parse).transpose()
        };
        // One of a line's `in` and `at` replaces whichever of them is the default.
        let (delay, at) = match (long("in", self.r#in)?, when("at", self.at)?) {
            (Some(_), Some(_)) => return Err("has an in and an at".to_owned()),
            (None, None) => (d.delay, d.at),
            own => own,
        };
        Ok(TaskOptions {
            queue: self.queue.or(d.queue),
            id: self.id,
            max_retry: self.max_retry.or(d.max_retry),
            timeout: long("timeout", self.timeout)?.or(d.timeout),
            deadline: when("deadline", self.deadline)?.or(d.deadline),
            delay,
            at,
            unique: long("unique", self.unique)?.or(d.unique),
            retention: long("retention", self.retention)?.or(d.retention),
            group: self.group.or(d.group),
            on_outage: d.on_outage,
            // Both; the line's own come last, and the last one counts.
            headers: d.headers.into_iter().chain(self.headers.into_iter().flatten()).collect(),
        })
    }
}

/// The first field whose value is of the wrong kind, with its name, which serde's message lacks. Looked
/// for only once the line is known to be wrong.
fn wrong_field(text: &str) -> Option<String> {
    let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
    fields.iter().filter(|(_, value)| !value.is_null()).find_map(|(name, value)| {
        let (is_right, wanted) = match name.as_str() {
            "type" | "payload_base64" | "queue" | "id" | "group" => (value.is_string(), "text"),
            "timeout" | "in" | "unique" | "retention" => {
                (value.is_string(), "text such as \"1h30m\"")
            }
            "deadline" | "at" => (value.is_string(), "text such as \"2026-11-24T02:30:00Z\""),
            "max_retry" => {
                let retries = value.as_u64().and_then(|retries| u32::try_from(retries).ok());
                (retries.is_some(), "a whole number from 0 on")
            }
            "headers" | "header" => {
                let values = value.as_object().map(|headers| headers.values());
                let is_text = values.is_some_and(|mut values| values.all(Value::is_string));
                (is_text, "an object of text")
            }
            _ => (true, ""),
        };
        let shown: String = value.to_string().chars().take(SHOWN_CHARS).collect();
        (!is_right).then(|| format!("{name}: {shown} is not {wanted}"))
    })
}

/// What is wrong with the JSON, without serde's "line 1": the number of the line is the file's.
fn explain(error: &serde_json::Error) -> String {
    let place = format!(" at line {} column {}", error.line(), error.column());
    let text = error.to_string();
    let text = text.strip_suffix(&place).unwrap_or(&text);
    match suggest::unknown_field(text) {
        Some(text) => text,
        None => format!("is no good JSON: {text} at character {}", error.column()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &[u8], form: &Form) -> Vec<(u64, Result<TaskRequest, String>)> {
        let (sender, mut receiver) = mpsc::channel(64);
        read(text, form, &sender).expect("memory can be read");
        drop(sender);
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|item| (item.line, item.task)).collect()
    }

    fn objects() -> Form {
        Form::Objects { task_type: None, options: TaskOptions::default() }
    }

    fn refusal(line: &str) -> String {
        let (_, task) = items(line.as_bytes(), &objects()).remove(0);
        task.expect_err(line)
    }

    #[test]
    fn a_bad_line_is_named_and_the_others_are_tasks() {
        let text = b"{\"type\":\"a\"}\n\n{\"type\":}\n{\"type\":\"b\",\"payload\":{\"x\":1}}";
        let found = items(text, &objects());
        let lines: Vec<(u64, bool)> =
            found.iter().map(|(line, task)| (*line, task.is_ok())).collect();
        assert_eq!(lines, [(1, true), (3, false), (4, true)]);
        let last = found[2].1.as_ref().expect("is good");
        assert_eq!(last.payload().map(|p| &p[..]), Some(&b"{\"x\":1}"[..]));
    }

    #[test]
    fn what_is_wrong_is_said_in_words() {
        let cases = [
            ("{}", "names no type"),
            ("{\"typ\":\"a\"}", "unknown key \"typ\"; did you mean \"type\"?"),
            ("{\"type\":\"a\",\"timeout\":\"x\"}", "timeout: duration \"x\" has no number"),
            ("{\"type\":\"a\",\"at\":\"noon\"}", "at: time \"noon\" is not RFC 3339"),
            ("{\"type\":\" \"}", "task type \" \" is blank"),
            (
                "{\"type\":\"a\",\"in\":\"1s\",\"at\":\"2026-11-24T02:30:00Z\"}",
                "has an in and an at",
            ),
            ("{\"type\":\"a\",\"timeout\":90}", "timeout: 90 is not text such as \"1h30m\""),
            ("{\"type\":7}", "type: 7 is not text"),
            ("{\"type\":\"a\",\"max_retry\":-1}", "max_retry: -1 is not a whole number"),
            ("{\"type\":\"a\",\"header\":{\"n\":1}}", "header: {\"n\":1} is not an object of text"),
            ("[1]", "is no good JSON: invalid type"),
            ("{\"type\":\"a\",\"payload_base64\":\"%\"}", "payload_base64 is wrong"),
        ];
        for (line, message) in cases {
            assert!(refusal(line).starts_with(message), "{}", refusal(line));
        }
        let (_, task) = items(b"{\"type\":\"\xff\"}", &objects()).remove(0);
        assert_eq!(task.expect_err("no UTF-8"), "is not valid UTF-8 from byte 10 on");
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_and_the_next_one_read() {
        let form = Form::Lines { task_type: "a".into(), options: TaskOptions::default() };
        let mut text = vec![b'x'; LINE_BYTES_MAX + 10];
        text.extend_from_slice(b"\nshort\r\n");
        let found = items(&text, &form);
        assert!(found[0].1.is_err());
        let short = found[1].1.as_ref().expect("is good");
        assert_eq!((found[1].0, short.payload().map(|p| &p[..])), (2, Some(&b"short"[..])));
    }
}
