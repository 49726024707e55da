//! Enqueues many tasks: takes all lines that are ready as one batch, and prints their receipts before it
//! takes the next, in the order of the file.

use std::cmp::Ordering;
use std::io::BufRead;

use outlast::{Client, TaskRequest};
use tokio::sync::mpsc;

use super::Context;
use super::enqueue::ReceiptRow;
use super::lines::{self, Form, Item};
use super::progress;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format};

/// Lines enqueued at once. Four of the broker's batches, so that it is never without one.
const LINES_AT_ONCE: usize = 1024;

/// Lines read ahead: enough to never wait for the reader, little enough to hold in memory.
const LINES_AHEAD: usize = 4 * LINES_AT_ONCE;

/// Duplicates and conflicts named on stderr; a file that is enqueued a second time has nothing else.
const TAKEN_TOLD_MAX: usize = 10;

/// How many of each there were.
#[derive(Debug, Default)]
struct Counts {
    accepted: u64,
    duplicate: u64,
    conflict: u64,
    rejected: u64,
}

pub(crate) async fn run(context: &Context, source: Box<dyn BufRead + Send>, form: Form) -> Outcome {
    let client = context.client().await?;
    let (sender, mut items) = mpsc::channel(LINES_AHEAD);
    // A thread of its own: reading may block for as long as somebody types.
    let reader = std::thread::spawn(move || lines::read(source, &form, &sender));
    let bar = progress::counter("enqueued");
    let mut counts = Counts::default();
    let mut seen = 0;
    let mut batch = Vec::with_capacity(LINES_AT_ONCE);
    while items.recv_many(&mut batch, LINES_AT_ONCE).await > 0 {
        let first = batch.first().map_or(0, |item: &Item| item.line);
        let last = batch.last().map_or(0, |item: &Item| item.line);
        let rows = enqueue(&client, batch.drain(..)).await.map_err(|error| {
            let done = counts.accepted;
            CliError::new(
                error.exit(),
                format!(
                    "{done} tasks were accepted; stopped at lines {first} to {last}, of which some may \
                     be stored: tasks with an id of their own can be enqueued again"
                ),
            )
            .with_source(error)
        })?;
        counts.add(&rows);
        // A line about a line must not tear the bar.
        bar.suspend(|| told(context.format(), &rows, &mut seen))?;
        bar.inc(rows.len() as u64);
    }
    bar.finish_and_clear();
    match reader.join() {
        Ok(read) => read.map_err(|error| CliError::failed("could not read to the end", error))?,
        Err(_) => {
            return Err(CliError::new(
                Exit::Failed,
                "could not read to the end: the reader failed",
            ));
        }
    }
    if let Format::Table = context.format() {
        output::line(&counts.text())?;
    }
    Ok(counts.exit())
}

async fn enqueue(
    client: &Client,
    items: impl Iterator<Item = Item>,
) -> Result<Vec<ReceiptRow>, CliError> {
    let mut rows = Vec::new();
    let mut requests: Vec<TaskRequest> = Vec::new();
    for Item { line, task } in items {
        let error = task.map(|request| requests.push(request)).err();
        rows.push(ReceiptRow::unanswered(Some(line), error));
    }
    let receipts = client.enqueue_all(requests).await?;
    let asked = rows.iter_mut().filter(|row| row.error.is_none());
    for (row, receipt) in asked.zip(&receipts) {
        *row = ReceiptRow { line: row.line, ..ReceiptRow::from(receipt) };
    }
    Ok(rows)
}

/// Says what became of the lines: with JSON all of it, else what is wrong.
fn told(format: Format, rows: &[ReceiptRow], seen: &mut usize) -> Result<(), CliError> {
    if let Format::Json = format {
        output::objects(rows)?;
    }
    for row in rows {
        let Some(line) = row.line else { continue };
        if let Some(error) = &row.error {
            eprintln!("outlast: line {line}: {}", output::clean(error));
        } else if let (Format::Table, Some(why)) = (format, taken(row)) {
            *seen += 1;
            match (*seen).cmp(&TAKEN_TOLD_MAX) {
                Ordering::Less => eprintln!("outlast: line {line}: {why}"),
                Ordering::Equal => {
                    eprintln!("outlast: line {line}: {why}; there may be more, --json names all");
                }
                Ordering::Greater => {}
            }
        }
    }
    Ok(())
}

/// Why a line that is right was not enqueued.
fn taken(row: &ReceiptRow) -> Option<String> {
    let of = row.duplicate_of.as_ref().map(|of| format!(" of task {of}")).unwrap_or_default();
    let id = row.id.as_deref().unwrap_or_default();
    match row.receipt {
        "duplicate" => Some(output::clean(&format!("is a duplicate{of}"))),
        "conflict" => Some(output::clean(&format!("a task with id {id} is there already"))),
        _ => None,
    }
}

impl Counts {
    fn add(&mut self, rows: &[ReceiptRow]) {
        for row in rows {
            match row.receipt {
                "accepted" | "stored" => self.accepted += 1,
                "duplicate" => self.duplicate += 1,
                "conflict" => self.conflict += 1,
                _ => self.rejected += 1,
            }
        }
    }

    fn text(&self) -> String {
        let mut text = format!("{} accepted", self.accepted);
        let others = [
            (self.duplicate, "duplicate"),
            (self.conflict, "conflict"),
            (self.rejected, "rejected"),
        ];
        for (count, name) in others.into_iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(", {count} {name}"));
        }
        text
    }

    fn exit(&self) -> Exit {
        let refused = self.duplicate + self.conflict + self.rejected;
        match (self.accepted, refused, self.rejected) {
            (_, 0, _) => Exit::Done,
            (1.., ..) => Exit::Partly,
            (0, _, 0) => Exit::Conflict,
            (0, ..) => Exit::Usage,
        }
    }
}
