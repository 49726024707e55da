//! `outlast task`: enqueue tasks, look at them, act on them.

use clap::{Args, Subcommand};
use outlast::{Action, QueueName, TaskId, TaskView};

use super::Context;
use super::act::{self, ActArgs};
use super::enqueue::{self, EnqueueArgs};
use super::list::{self, ListArgs};
use crate::exit::{Exit, Outcome};
use crate::output;

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Enqueue one task, or many from a file or stdin
    Enqueue(Box<EnqueueArgs>),
    /// List the tasks of a queue
    List(ListArgs),
    /// Print one task with everything that is known of it
    Show(ShowArgs),
    /// Make tasks pending now
    Run(ActArgs),
    /// Put tasks among the archived: they run no more unless told to
    Archive(ActArgs),
    /// Delete tasks
    Delete(ActArgs),
    /// Ask the workers to cancel tasks that run; a cancelled task is retried
    Cancel(ActArgs),
}

/// Which one.
#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    /// The task's id
    #[arg(value_name = "ID")]
    id: String,
    /// Its queue
    #[arg(long, short, value_name = "QUEUE", default_value = "default")]
    queue: String,
}

pub(crate) async fn run(context: &Context, command: TaskCommand) -> Outcome {
    match command {
        TaskCommand::Enqueue(args) => enqueue::run(context, *args).await,
        TaskCommand::List(args) => list::run(context, &args).await,
        TaskCommand::Show(args) => show(context, &args).await,
        TaskCommand::Run(args) => act::run(context, &args, Action::Run).await,
        TaskCommand::Archive(args) => act::run(context, &args, Action::Archive).await,
        TaskCommand::Delete(args) => act::run(context, &args, Action::Delete).await,
        TaskCommand::Cancel(args) => act::run(context, &args, Action::Cancel).await,
    }
}

async fn show(context: &Context, args: &ShowArgs) -> Outcome {
    let queue = QueueName::new(&args.queue).map_err(outlast::Error::from)?;
    let id = TaskId::new(&args.id).map_err(outlast::Error::from)?;
    let task = context.inspector().await?.task(&queue, &id).await?;
    output::object(context.format(), &TaskView::from(&task))?;
    Ok(Exit::Done)
}
