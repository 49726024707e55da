//! `outlast fsck`: what a broker holds, checked while it is in use.

use clap::Args;
use outlast::{Connection, Finding, QueueName, Repair};
use serde::Serialize;

use super::Context;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};

/// What to check.
#[derive(Args, Debug)]
pub(crate) struct FsckArgs {
    /// The queues; all there are unless some are named
    #[arg(value_name = "QUEUE")]
    queues: Vec<String>,
    /// Put right what is found
    #[arg(long)]
    repair: bool,
}

/// A finding as it is printed.
#[derive(Debug, Serialize)]
struct Found {
    queue: String,
    defect: &'static str,
    id: Option<String>,
    key: String,
    what: String,
    repaired: bool,
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        Self {
            queue: finding.queue.to_string(),
            defect: finding.defect.as_str(),
            id: finding.id.map(|id| id.to_string()),
            key: finding.key,
            what: finding.what,
            repaired: finding.repaired,
        }
    }
}

impl Row for Found {
    const HEAD: &'static [&'static str] = &["queue", "defect", "id", "what", "repaired"];
    const WIDE: Option<usize> = Some(3);
    fn cells(&self) -> Vec<String> {
        vec![
            self.queue.clone(),
            self.defect.to_owned(),
            self.id.clone().unwrap_or_else(|| self.key.clone()),
            self.what.clone(),
            if self.repaired { "yes" } else { "no" }.to_owned(),
        ]
    }
}

/// Rows of a table; `--json` has no limit.
const ROWS_MAX: usize = 1000;

/// What all queues together came to.
#[derive(Default)]
struct Total {
    rows: Vec<Found>,
    found: usize,
    left: usize,
    looked_at: u64,
    undecided: u64,
}

pub(crate) async fn run(context: &Context, args: &FsckArgs) -> Outcome {
    let connection = context.connect().await?;
    let queues = match args.queues.is_empty() {
        true => connection.fsck_queues().await?,
        false => named(&connection, &args.queues).await?,
    };
    let mut total = Total::default();
    for queue in &queues {
        let repair = if args.repair { Repair::Yes } else { Repair::No };
        check(&connection, queue, repair, context.format(), &mut total).await?;
    }
    if context.format() == Format::Table && total.found > 0 {
        output::rows(Format::Table, &total.rows)?;
        if total.found > total.rows.len() {
            eprintln!("{} more findings: --json prints all", total.found - total.rows.len());
        }
    }
    eprintln!(
        "{} queues, {} ids and keys looked at: {} findings, {} of them repaired",
        queues.len(),
        total.looked_at,
        total.found,
        total.found - total.left,
    );
    if total.undecided > 0 {
        eprintln!(
            "{} tasks were left undecided: their line is too long to be searched and has moved meanwhile; check again when it is shorter",
            total.undecided
        );
    }
    Ok(if total.left > 0 { Exit::Failed } else { Exit::Done })
}

/// The queues of the command line, each of which must have something to check.
async fn named(connection: &Connection, names: &[String]) -> Result<Vec<QueueName>, CliError> {
    let known = connection.fsck_queues().await?;
    let mut queues = Vec::new();
    for name in names {
        let queue = QueueName::new(name).map_err(outlast::Error::from)?;
        if !known.contains(&queue) {
            let hint = crate::suggest::hint(name, known.iter().map(QueueName::as_str));
            return Err(CliError::not_found(format!("no queue {queue}{hint}")));
        }
        queues.push(queue);
    }
    Ok(queues)
}

async fn check(
    connection: &Connection,
    queue: &QueueName,
    repair: Repair,
    format: Format,
    total: &mut Total,
) -> Result<(), CliError> {
    let mut check = connection.fsck(queue, repair)?;
    while let Some(step) =
        check.step(connection.clock().now()).await.map_err(outlast::Error::from)?
    {
        let found: Vec<Found> = step.findings.into_iter().map(Found::from).collect();
        total.found += found.len();
        total.left += found.iter().filter(|found| !found.repaired).count();
        total.looked_at += step.looked_at;
        total.undecided += step.undecided;
        match format {
            Format::Json => output::objects(&found)?,
            Format::Table => {
                let room = ROWS_MAX - total.rows.len();
                total.rows.extend(found.into_iter().take(room));
            }
        }
    }
    Ok(())
}
