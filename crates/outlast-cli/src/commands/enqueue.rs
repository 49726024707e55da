//! `outlast task enqueue`: one task from the command line, or one for each line of a file or of stdin.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use outlast::broker::Reject;
use outlast::{OnOutage, QueueName, Receipt, TaskRequest, Timestamp, Verdict, limits};
use serde::Serialize;

use super::Context;
use super::bulk;
use super::lines::Form;
use crate::args::{duration, header, max_retry, on_outage, time};
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};

/// What is enqueued.
#[derive(Args, Debug)]
pub(crate) struct EnqueueArgs {
    /// The type of the task, which says what handler runs it; with --file, of lines that name none
    #[arg(value_name = "TYPE")]
    task_type: Option<String>,
    /// The payload
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["payload_file", "file", "from_lines"])]
    payload: Option<OsString>,
    /// Take the payload from this file, or from stdin if it is -
    #[arg(long, value_name = "FILE", conflicts_with_all = ["file", "from_lines"])]
    payload_file: Option<PathBuf>,
    /// A task for each line of this file of JSON objects, or of stdin if it is -. The fields of an object:
    /// type, payload or payload_base64, queue, id, max_retry, timeout, deadline, in, at, unique, retention,
    /// group, headers
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A task for each line of stdin (or of --file), with the line as its payload
    #[arg(long, requires = "task_type")]
    from_lines: bool,
    #[command(flatten)]
    options: TaskOptions,
}

/// The options of a task; with --file, of every line that does not say otherwise.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TaskOptions {
    /// The queue [default: default]
    #[arg(long, short, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// The task's id; one that is in the queue is not enqueued again [default: a fresh one]
    #[arg(long, value_name = "ID", conflicts_with_all = ["file", "from_lines"])]
    pub(crate) id: Option<String>,
    /// Retries after the first run before it is archived [default: 25]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = max_retry)]
    pub(crate) max_retry: Option<u32>,
    /// How long one run may take, in whole seconds [default: 30m]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// When every run must be over, such as 2026-11-24T02:30:00Z
    #[arg(long, value_name = "T", value_parser = time)]
    pub(crate) deadline: Option<Timestamp>,
    /// Not before this long from now
    #[arg(long = "in", value_name = "D", value_parser = duration, conflicts_with = "at")]
    pub(crate) delay: Option<Duration>,
    /// Not before this moment
    #[arg(long, value_name = "T", value_parser = time)]
    pub(crate) at: Option<Timestamp>,
    /// Not if a task of the same type and payload waits or runs already; looked after for this long
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) unique: Option<Duration>,
    /// Keep the task and its result this long after its success [default: 0]
    #[arg(long, value_name = "D", value_parser = duration)]
    pub(crate) retention: Option<Duration>,
    /// Wait in this group to become one task with others
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: Option<String>,
    /// What becomes of it while the broker is away: store it on this machine, fail, or wait this long and
    /// then fail [default: store]
    #[arg(long, value_name = "store|fail|D", value_parser = on_outage)]
    pub(crate) on_outage: Option<OnOutage>,
    /// Metadata that travels with the task; may be given again
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
}

impl TaskOptions {
    /// The request for a task with these options.
    pub(crate) fn request(&self, task_type: &str, payload: Vec<u8>) -> TaskRequest {
        let set =
            |request: TaskRequest, (name, value): &(String, String)| request.header(name, value);
        let mut request = self.headers.iter().fold(TaskRequest::raw(task_type, payload), set);
        request = match &self.queue {
            Some(queue) => request.queue(queue),
            None => request,
        };
        request = match &self.id {
            Some(id) => request.id(id),
            None => request,
        };
        request = match &self.group {
            Some(group) => request.group(group),
            None => request,
        };
        self.limits(request)
    }

    fn limits(&self, mut request: TaskRequest) -> TaskRequest {
        if let Some(retries) = self.max_retry {
            request = request.max_retry(retries);
        }
        if let Some(timeout) = self.timeout {
            request = request.timeout(timeout);
        }
        if let Some(deadline) = self.deadline {
            request = request.deadline(deadline);
        }
        if let Some(delay) = self.delay {
            request = request.delay(delay);
        }
        if let Some(at) = self.at {
            request = request.at(at);
        }
        if let Some(on_outage) = self.on_outage {
            request = request.on_outage(on_outage);
        }
        if let Some(ttl) = self.unique {
            request = request.unique(ttl);
        }
        match self.retention {
            Some(retention) => request.retention(retention),
            None => request,
        }
    }
}

/// A receipt as it is printed.
#[derive(Debug, Serialize)]
pub(crate) struct ReceiptRow {
    pub(crate) id: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) state: Option<outlast::TaskState>,
    pub(crate) receipt: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) due: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duplicate_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
}

impl ReceiptRow {
    /// The receipt of a task that no broker was asked for. It names what was written, right or wrong.
    fn rejected(options: &TaskOptions, error: &outlast::Error) -> Self {
        let queue = options.queue.clone().or_else(|| Some(QueueName::default_queue().to_string()));
        Self { id: options.id.clone(), queue, ..Self::unanswered(None, Some(error.to_string())) }
    }

    /// The receipt of a task that is wrong, or has not been answered yet.
    pub(crate) fn unanswered(line: Option<u64>, error: Option<String>) -> Self {
        Self {
            id: None,
            queue: None,
            state: None,
            receipt: Verdict::Rejected(Reject("".into())).as_str(),
            due: None,
            duplicate_of: None,
            line,
            error,
        }
    }
}

impl From<&Receipt> for ReceiptRow {
    fn from(receipt: &Receipt) -> Self {
        let (duplicate_of, error) = match &receipt.verdict {
            Verdict::Duplicate { of } => (of.as_ref().map(ToString::to_string), None),
            Verdict::Rejected(why) => (None, Some(why.to_string())),
            _ => (None, None),
        };
        Self {
            id: Some(receipt.id.to_string()).filter(|id| !id.is_empty()),
            queue: Some(receipt.queue.to_string()),
            state: receipt.state,
            receipt: receipt.verdict.as_str(),
            due: receipt.due,
            duplicate_of,
            line: None,
            error,
        }
    }
}

impl Row for ReceiptRow {
    const HEAD: &'static [&'static str] = &["id", "queue", "state", "receipt"];
    fn cells(&self) -> Vec<String> {
        vec![
            self.id.clone().unwrap_or_default(),
            self.queue.clone().unwrap_or_default(),
            self.state.map(|state| state.to_string()).unwrap_or_default(),
            self.receipt.to_owned(),
        ]
    }
}

pub(crate) async fn run(context: &Context, args: EnqueueArgs) -> Outcome {
    let form = match (args.from_lines, args.task_type.clone()) {
        (true, Some(task_type)) => Some(Form::Lines { task_type, options: args.options.clone() }),
        (false, task_type) if args.file.is_some() => {
            Some(Form::Objects { task_type, options: args.options.clone() })
        }
        _ => None,
    };
    match form {
        Some(form) => {
            let source = source(args.file.as_deref().unwrap_or(Path::new("-")))?;
            bulk::run(context, source, form).await
        }
        None => one(context, args).await,
    }
}

/// How long a command that has stored a task stays while the outbox is delivered: its user waits for the prompt.
const LINGER_MAX: Duration = Duration::from_secs(2);

async fn one(context: &Context, args: EnqueueArgs) -> Outcome {
    let Some(task_type) = &args.task_type else {
        return Err(CliError::usage(
            "no TYPE: say which type of task, such as outlast task enqueue email:welcome",
        ));
    };
    let payload = payload(&args)?;
    let request = args.options.request(task_type, payload);
    // Before the broker is opened: what is wrong in itself needs none.
    if let Err(error) = request.check_options() {
        if let Format::Json = context.format() {
            output::objects(&[ReceiptRow::rejected(&args.options, &error)])?;
        }
        return Err(error.into());
    }
    let client = context.client().await?;
    let receipts = client.enqueue_all(vec![request]).await?;
    let rows: Vec<ReceiptRow> = receipts.iter().map(ReceiptRow::from).collect();
    output::rows(context.format(), &rows)?;
    // Behind tasks of an outage that is over: if every command only stored its own, nobody would deliver them.
    if let Some(survivor) = client.connection().survivor()
        && receipts.iter().any(|receipt| receipt.verdict == Verdict::Stored)
        && let Err(error) = survivor.linger(LINGER_MAX).await
    {
        tracing::warn!(%error, "could not see what waits in the outbox");
    }
    receipts.first().map_or(Ok(Exit::Done), ended)
}

/// How the program ends after the one task, and why on stderr.
fn ended(receipt: &Receipt) -> Outcome {
    let Receipt { id, queue, verdict, .. } = receipt;
    let why = match verdict {
        Verdict::Rejected(why) => return Err(CliError::usage(why.to_string())),
        Verdict::Duplicate { of: Some(of) } => format!("it is a duplicate of task {of} in {queue}"),
        Verdict::Duplicate { of: None } => format!("it is a duplicate of a task in {queue}"),
        Verdict::IdConflict => format!("a task with id {id} is in {queue} already"),
        _ => return Ok(Exit::Done),
    };
    Err(CliError::new(Exit::Conflict, format!("not enqueued: {why}")))
}

fn payload(args: &EnqueueArgs) -> Result<Vec<u8>, CliError> {
    if let Some(path) = &args.payload_file {
        // One byte over the limit is enough to be refused; the rest is not read.
        let mut payload = Vec::new();
        let most = limits::PAYLOAD_BYTES_MAX as u64 + 1;
        source(path)?.take(most).read_to_end(&mut payload).map_err(|error| unread(path, error))?;
        return Ok(payload);
    }
    Ok(args.payload.clone().map(OsString::into_vec).unwrap_or_default())
}

fn unread(path: &Path, error: std::io::Error) -> CliError {
    CliError::new(Exit::Usage, format!("could not read {}", path.display())).with_source(error)
}

fn source(path: &Path) -> Result<Box<dyn BufRead + Send>, CliError> {
    if path == Path::new("-") {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = File::open(path).map_err(|error| unread(path, error))?;
    Ok(Box::new(BufReader::with_capacity(1 << 16, file)))
}
