//! A task of the outbox as people see it, and as a line that `outlast task enqueue --file` reads.

use std::collections::BTreeMap;

use base64::Engine as _;
use clap::Args;
use outlast::Timestamp;
use outlast::broker::{NewTask, Place};
use outlast::duration::format;
use outlast::survive::{Shelf, Spool, StoredTask};
use serde::Serialize;

use super::Context;
use super::outbox::unread;
use crate::exit::{CliError, Exit, Outcome};
use crate::output;

/// Tasks that are read and printed at once: a payload may have megabytes.
const PAGE: u32 = 64;

/// Tasks of one id that are shown: an id is unique in its queue, so this is about queues.
const SHOWN_MAX: u32 = 100;

/// Which task.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The task's id
    #[arg(value_name = "ID")]
    id: String,
}

/// What is exported.
#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// The quarantine instead of what waits
    #[arg(long)]
    quarantine: bool,
}

/// A task with the names of the options that would enqueue it again.
#[derive(Debug, Serialize)]
struct Line<'a> {
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    queue: &'a str,
    id: &'a str,
    max_retry: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unique: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: &'a BTreeMap<String, String>,
}

impl<'a> Line<'a> {
    fn of(queue: &'a str, task: &'a NewTask) -> Self {
        // Text is text; other bytes would be lost in it.
        let text = std::str::from_utf8(&task.payload).ok();
        let base64 = || base64::engine::general_purpose::STANDARD.encode(&task.payload);
        Self {
            r#type: task.task_type.as_str(),
            payload: text,
            payload_base64: text.is_none().then(base64),
            queue,
            id: task.id.as_str(),
            max_retry: task.max_retry,
            timeout: task.timeout.map(format),
            deadline: task.deadline,
            at: task.due,
            unique: task.unique.as_ref().map(|unique| format(unique.ttl)),
            retention: Some(task.retention).filter(|kept| !kept.is_zero()).map(format),
            group: task.group.as_ref().map(|group| group.as_str()),
            headers: &task.headers,
        }
    }
}

/// A task with where it is.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    number: i64,
    /// `line` or `quarantine`.
    shelf: &'static str,
    stored_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    put_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(flatten)]
    task: Option<Line<'a>>,
    /// Why the task cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl<'a> Shown<'a> {
    fn of(stored: &'a StoredTask) -> Self {
        let put_away = stored.put_away.as_ref();
        Self {
            number: stored.id,
            shelf: match stored.shelf {
                Shelf::Line => "line",
                Shelf::Quarantine => "quarantine",
            },
            stored_at: stored.stored_at,
            put_at: put_away.map(|(at, _)| *at),
            why: put_away.map(|(_, why)| why.as_str()),
            task: stored.task.as_ref().ok().map(|task| Line::of(stored.queue.as_str(), task)),
            error: stored.task.as_ref().err().map(ToString::to_string),
        }
    }
}

/// Prints every task of this id, of whatever queues.
pub(super) async fn show(context: &Context, args: &ShowArgs) -> Outcome {
    let spool = context.spool().await?;
    let found = spool.find(&args.id, SHOWN_MAX).map_err(unread)?;
    for stored in &found {
        output::object(context.format(), &Shown::of(stored))?;
    }
    match found.is_empty() {
        false => Ok(Exit::Done),
        true => Err(CliError::not_found(format!("no task {} is in the outbox", args.id))),
    }
}

/// What could not be written as a line, or not all of it.
#[derive(Default)]
struct Lacking {
    unreadable: u64,
    once: u64,
    front: u64,
}

/// Prints all tasks as lines, however many there are. What an export cannot hold is said.
pub(super) async fn export(context: &Context, args: &ExportArgs) -> Outcome {
    let spool = context.spool().await?;
    let shelf = if args.quarantine { Shelf::Quarantine } else { Shelf::Line };
    let lacking = lines(&spool, shelf)?;
    for (count, what) in [
        (lacking.once, "are accepted once by their key, which no line can say"),
        (lacking.front, "go to the front of their queue, which no line can say"),
    ] {
        if count > 0 {
            tracing::warn!("{count} of the tasks {what}");
        }
    }
    match lacking.unreadable {
        0 => Ok(Exit::Done),
        count => Err(CliError::new(
            Exit::Partly,
            format!(
                "{count} tasks cannot be read and are not exported; `outlast outbox list` has them"
            ),
        )),
    }
}

fn lines(spool: &Spool, shelf: Shelf) -> Result<Lacking, CliError> {
    let (mut lacking, mut after) = (Lacking::default(), 0);
    loop {
        let page = spool.tasks(shelf, after, PAGE).map_err(unread)?;
        let Some(last) = page.last() else { return Ok(lacking) };
        after = last.id;
        let mut lines = Vec::with_capacity(page.len());
        for stored in &page {
            match &stored.task {
                Ok(task) => {
                    lacking.once += u64::from(task.once.is_some());
                    lacking.front += u64::from(task.place == Place::Front);
                    lines.push(Line::of(stored.queue.as_str(), task));
                }
                Err(error) => {
                    lacking.unreadable += 1;
                    tracing::warn!(number = stored.id, id = stored.name, %error, "not exported");
                }
            }
        }
        output::objects(&lines)?;
    }
}
