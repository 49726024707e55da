//! `outlast task list`: the tasks of a queue, page by page.

use std::str::FromStr;

use clap::Args;
use outlast::{Cursor, Inspector, PageRequest, QueueName, TaskState, TaskView, Timestamp, limits};
use serde::Serialize;

use super::Context;
use super::selection::Selection;
use super::watch::{self, Watch};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Row};

/// Rows at most, unless asked for more.
const LIMIT_DEFAULT: usize = 100;

/// Characters of a payload in a table: enough for a path.
const PAYLOAD_CHARS: usize = 48;

/// Which tasks.
#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// The queue
    #[arg(long, short, value_name = "QUEUE", default_value = "default")]
    queue: String,
    #[command(flatten)]
    selection: Selection,
    /// Rows at most
    #[arg(long, value_name = "N", default_value_t = LIMIT_DEFAULT)]
    limit: usize,
    /// Go on where an earlier list ended: the next_cursor of its last row
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<Place>,
    #[command(flatten)]
    watch: Watch,
}

/// Where a list ended: in which state, and the broker's cursor there.
#[derive(Clone, Debug)]
struct Place {
    state: TaskState,
    cursor: Option<Cursor>,
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("cursor {text:?} is not one that a list has printed");
        let (state, cursor) = text.split_once(':').ok_or_else(wrong)?;
        let state = state.parse().map_err(|_| wrong())?;
        let cursor = Some(cursor).filter(|cursor| !cursor.is_empty());
        Ok(Self { state, cursor: cursor.map(|cursor| Cursor(cursor.to_owned())) })
    }
}

impl Place {
    fn text(&self) -> String {
        format!("{}:{}", self.state, self.cursor.as_ref().map_or("", |cursor| &cursor.0))
    }
}

/// A task as a row.
#[derive(Debug, Serialize)]
struct TaskRow {
    #[serde(flatten)]
    task: TaskView,
    /// In the last row, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<String>,
}

impl Row for TaskRow {
    const HEAD: &'static [&'static str] =
        &["id", "type", "state", "retried", "at", "payload", "result or error"];
    const WIDE: Option<usize> = Some(6);
    fn cells(&self) -> Vec<String> {
        let task = &self.task;
        let at = match task.state {
            TaskState::Completed => task.completed_at,
            TaskState::Archived => task.last_failed_at,
            TaskState::Active => task.started_at,
            _ => task.next_at,
        };
        let outcome = match task.state {
            TaskState::Completed | TaskState::Active => task.result.as_deref(),
            _ => task.last_error.as_deref(),
        };
        vec![
            task.id.clone(),
            task.task_type.clone(),
            task.state.to_string(),
            format!("{}/{}", task.retried, task.max_retry),
            output::time(at),
            payload(task),
            outcome.unwrap_or_default().trim_end().to_owned(),
        ]
    }
}

fn payload(task: &TaskView) -> String {
    match &task.payload {
        None => "(not text)".to_owned(),
        Some(text) if text.chars().nth(PAYLOAD_CHARS).is_some() => {
            text.chars().take(PAYLOAD_CHARS - 1).chain(['…']).collect()
        }
        Some(text) => text.clone(),
    }
}

pub(crate) async fn run(context: &Context, args: &ListArgs) -> Outcome {
    let queue = QueueName::new(&args.queue).map_err(outlast::Error::from)?;
    if args.limit == 0 {
        return Err(CliError::usage("limit 0 would list nothing: use 1 or more"));
    }
    let connection = context.connect().await?;
    let inspector = connection.inspector();
    watch::rows(context.format(), args.watch, async || {
        page(&inspector, &queue, args, connection.clock().now()).await
    })
    .await?;
    Ok(Exit::Done)
}

async fn page(
    inspector: &Inspector,
    queue: &QueueName,
    args: &ListArgs,
    now: Timestamp,
) -> Result<Vec<TaskRow>, CliError> {
    let mut rows: Vec<TaskRow> = Vec::new();
    let mut place = start(args)?;
    while let Some(Place { state, cursor }) = place.take() {
        let limit = (args.limit - rows.len()).min(limits::PAGE_MAX);
        let request = PageRequest { limit, cursor };
        let selector = args.selection.selector(state, now)?;
        let page = inspector.tasks(queue, &selector, &request).await?;
        let row = |task| TaskRow { task: TaskView::from(task), next_cursor: None };
        rows.extend(page.items.iter().map(row));
        place = match page.next {
            Some(cursor) => Some(Place { state, cursor: Some(cursor) }),
            None => after(state, args).map(|state| Place { state, cursor: None }),
        };
        if rows.len() >= args.limit {
            break;
        }
    }
    if let (Some(place), Some(last)) = (place, rows.last_mut())
        && (place.cursor.is_some() || more(inspector, queue, args, place.state).await?)
    {
        eprintln!("outlast: there are more: --cursor {}", place.text());
        last.next_cursor = Some(place.text());
    }
    Ok(rows)
}

/// Whether any state from `state` on has tasks: a page that ends with its state is the last one if all
/// that follow are empty.
async fn more(
    inspector: &Inspector,
    queue: &QueueName,
    args: &ListArgs,
    state: TaskState,
) -> Result<bool, CliError> {
    let stats = inspector.queue(queue).await?;
    let states = std::iter::successors(Some(state), |state| after(*state, args));
    Ok(states.into_iter().any(|state| stats.count(state) > 0))
}

fn start(args: &ListArgs) -> Result<Option<Place>, CliError> {
    match (&args.cursor, args.selection.state) {
        (Some(place), Some(state)) if place.state != state => Err(CliError::usage(format!(
            "cursor {:?} belongs to a list of state {}, not {state}",
            place.text(),
            place.state
        ))),
        (Some(place), _) => Ok(Some(place.clone())),
        (None, state) => {
            let state = state.unwrap_or(TaskState::ALL[0]);
            Ok(Some(Place { state, cursor: None }))
        }
    }
}

/// The state that is listed after this one: none, if only one was asked for.
fn after(state: TaskState, args: &ListArgs) -> Option<TaskState> {
    if args.selection.state.is_some() {
        return None;
    }
    let here = TaskState::ALL.iter().position(|listed| *listed == state)?;
    TaskState::ALL.get(here + 1).copied()
}
