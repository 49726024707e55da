//! `outlast task run|archive|delete|cancel`: one action on the tasks that are named, or on all that a
//! selection matches, in bounded steps.

use clap::Args;
use outlast::{Acted, Action, Inspector, QueueName, Refusal, Selector, TaskId, TaskState, limits};
use serde::Serialize;

use super::selection::Selection;
use super::{Context, progress};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format};

/// Which tasks.
#[derive(Args, Debug)]
pub(crate) struct ActArgs {
    /// The ids of the tasks
    #[arg(value_name = "ID", conflicts_with_all = ["state", "task_type", "group", "text", "older_than", "all"])]
    ids: Vec<String>,
    /// Their queue
    #[arg(long, short, value_name = "QUEUE", default_value = "default")]
    queue: String,
    #[command(flatten)]
    selection: Selection,
    /// Every task of the queue that the action is meant for
    #[arg(long)]
    all: bool,
}

/// What was done, as an object.
#[derive(Debug, Serialize)]
struct Done {
    queue: QueueName,
    action: &'static str,
    changed: u64,
    refused: Vec<Refused>,
}

/// A task that was left as it is.
#[derive(Debug, Serialize)]
struct Refused {
    id: TaskId,
    why: String,
}

pub(crate) async fn run(context: &Context, args: &ActArgs, action: Action) -> Outcome {
    let queue = QueueName::new(&args.queue).map_err(outlast::Error::from)?;
    if args.ids.is_empty() && args.selection.is_everything() && !args.all {
        return Err(CliError::usage(
            "no tasks: give their ids, or a selection such as --state retry, or --all",
        ));
    }
    let connection = context.connect().await?;
    let selectors = match args.ids.is_empty() {
        true => selected(args, &action, connection.clock().now())?,
        false => named(&args.ids)?,
    };
    let acted = act(&connection.inspector(), &queue, &action, &selectors).await?;
    report(context.format(), queue, &action, acted)
}

fn named(ids: &[String]) -> Result<Vec<Selector>, CliError> {
    let ids: Result<Vec<TaskId>, _> = ids.iter().map(TaskId::new).collect();
    let ids = ids.map_err(outlast::Error::from)?;
    let chunk = |ids: &[TaskId]| Selector { ids: ids.to_vec(), ..Selector::default() };
    Ok(ids.chunks(limits::ACT_MAX).map(chunk).collect())
}

fn selected(
    args: &ActArgs,
    action: &Action,
    now: outlast::Timestamp,
) -> Result<Vec<Selector>, CliError> {
    let states = match args.selection.state {
        Some(state) => vec![state],
        None => meant_for(action).to_vec(),
    };
    states.into_iter().map(|state| args.selection.selector(state, now)).collect()
}

/// The states whose tasks an action is meant for, when none is named. What is completed is neither run
/// again nor archived unless somebody says so.
fn meant_for(action: &Action) -> &'static [TaskState] {
    use TaskState::{Active, Aggregating, Archived, Completed, Pending, Retry, Scheduled};
    match action {
        Action::Run => &[Scheduled, Retry, Archived, Aggregating],
        Action::Archive => &[Pending, Scheduled, Retry, Aggregating],
        Action::Cancel => &[Active],
        _ => &[Pending, Scheduled, Retry, Aggregating, Archived, Completed],
    }
}

async fn act(
    inspector: &Inspector,
    queue: &QueueName,
    action: &Action,
    selectors: &[Selector],
) -> Result<Acted, CliError> {
    let bar = progress::counter(past(action));
    let mut total = Acted::default();
    for selector in selectors {
        let before = total.changed;
        let step = inspector
            .act_all(queue, action, selector, |changed| bar.set_position(before + changed))
            .await?;
        total.changed += step.changed;
        total.refused.extend(step.refused);
    }
    bar.finish_and_clear();
    Ok(total)
}

fn report(format: Format, queue: QueueName, action: &Action, acted: Acted) -> Outcome {
    for (id, why) in &acted.refused {
        eprintln!("outlast: task {id} in {queue} {}", said(*why));
    }
    let exit = exit(&acted);
    let refused = acted.refused.into_iter();
    let refused = refused.map(|(id, why)| Refused { id, why: why.to_string() }).collect();
    let done = Done { queue, action: past(action), changed: acted.changed, refused };
    match format {
        Format::Json => output::objects(&[done])?,
        Format::Table => output::line(&format!("{} {}", done.changed, done.action))?,
    }
    Ok(exit)
}

fn said(why: Refusal) -> String {
    match why {
        Refusal::NotFound => "was not found".to_owned(),
        why => why.to_string(),
    }
}

fn exit(acted: &Acted) -> Exit {
    match (acted.changed, acted.refused.as_slice()) {
        (_, []) => Exit::Done,
        (0, refused) if refused.iter().all(|(_, why)| *why == Refusal::NotFound) => Exit::NotFound,
        (0, _) => Exit::Conflict,
        _ => Exit::Partly,
    }
}

/// What the tasks are now.
fn past(action: &Action) -> &'static str {
    match action {
        Action::Run => "made pending",
        Action::Archive => "archived",
        Action::Delete => "deleted",
        Action::Cancel => "asked to cancel",
        _ => "changed",
    }
}
