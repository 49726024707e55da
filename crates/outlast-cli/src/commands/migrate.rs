//! `outlast migrate`: everything of one broker to another, while both are in use.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use outlast::migration::{self, Migration, Moved, QueueMove, StateCount, Step};
use outlast::{Clock, Connection, ErrorKind, Kind, QueueName, QueueStats, TaskState, Timestamp};
use serde::Serialize;

use super::{Context, progress};
use crate::args::duration;
use crate::exit::{CliError, Exit, Outcome};
use crate::output::{self, Format, Row};

/// Between two looks at tasks that are still running at the source.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Refused tasks, and missing ones, named on stderr; `--json` names more.
const TOLD_MAX: usize = 10;

/// What to move, and where.
#[derive(Args, Debug)]
pub(crate) struct MigrateArgs {
    /// The broker to move tasks from
    #[arg(long, value_name = "URL")]
    from: String,
    /// The broker to move tasks to; an embedded one is created
    #[arg(long, value_name = "URL", required_unless_present = "give_back")]
    to: Option<String>,
    /// Only this queue, without schedules; may be given several times
    #[arg(long = "queue", value_name = "QUEUE")]
    queues: Vec<String>,
    /// Print what there is to move, and move nothing
    #[arg(long)]
    dry_run: bool,
    /// How long to wait for tasks that are running at the source
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    wait: Duration,
    /// Tasks a second at most, so that both brokers have time for others
    #[arg(long, value_name = "TASKS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Put the batch that is on its way back into the source, for a target that is gone; no migrate may run
    #[arg(long, conflicts_with_all = ["to", "dry_run"])]
    give_back: bool,
}

/// The tasks of one state of one queue, as they are printed.
#[derive(Debug, Serialize)]
struct Line {
    queue: String,
    state: String,
    taken: u64,
    stored: u64,
    verified: u64,
    started: u64,
    changed: u64,
    refused: u64,
    left: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<Named>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mismatches: Vec<String>,
}

/// A task that was refused.
#[derive(Debug, Serialize)]
struct Named {
    id: String,
    why: String,
}

impl Row for Line {
    const HEAD: &'static [&'static str] =
        &["queue", "state", "taken", "stored", "verified", "started", "changed", "refused", "left"];
    fn cells(&self) -> Vec<String> {
        let counts = [
            self.taken,
            self.stored,
            self.verified,
            self.started,
            self.changed,
            self.refused,
            self.left,
        ];
        let names = [self.queue.clone(), self.state.clone()];
        names.into_iter().chain(counts.map(|count| count.to_string())).collect()
    }
}

/// What there is of a state, for `--dry-run`.
#[derive(Debug, Serialize)]
struct Planned {
    queue: String,
    state: &'static str,
    tasks: u64,
}

impl Row for Planned {
    const HEAD: &'static [&'static str] = &["queue", "state", "tasks"];
    fn cells(&self) -> Vec<String> {
        vec![self.queue.clone(), self.state.to_owned(), self.tasks.to_string()]
    }
}

pub(crate) async fn run(context: &Context, args: &MigrateArgs) -> Outcome {
    if context.global.broker.is_some() {
        return Err(CliError::usage("migrate takes --from and --to, and no --broker"));
    }
    let from = open(&args.from, End::Source).await?;
    let queues = chosen(&from, &args.queues).await?;
    if args.give_back {
        return give_back(&from, &queues).await;
    }
    let to = args.to.as_deref().unwrap_or_default();
    if args.dry_run {
        return plan(context.format(), &from, to, &queues).await;
    }
    let to = open(to, End::Target).await?;
    let migration = Migration::new(&from, &to).await?;
    if let Some(why) = migration.target_weakness().await? {
        eprintln!("outlast: the target {why}");
    }
    let mut run = Run::new(&migration, from.clock().clone(), &queues, args.rate);
    let outcome = run.all(&migration, &from, args).await;
    run.bar.finish_and_clear();
    // What was moved before something failed is told all the same.
    run.tell(context.format(), outcome.is_ok())?;
    outcome?;
    if args.queues.is_empty() {
        let schedules = migration.schedules().await?;
        eprintln!("{schedules} schedules: pauses and ticks copied");
    }
    Ok(run.exit())
}

#[derive(Clone, Copy, PartialEq)]
enum End {
    Source,
    Target,
}

async fn open(url: &str, end: End) -> Result<Connection, CliError> {
    let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:"));
    if path == Some(":memory:") {
        return Err(CliError::usage(format!(
            "{url} is the memory of this program and ends with it: name a file"
        )));
    }
    // Opening would create it, and then there would be nothing to move.
    if let Some(path) = path.filter(|path| end == End::Source && !path.is_empty())
        && !Path::new(path).exists()
    {
        return Err(CliError::not_found(format!("no file {path} to move tasks from")));
    }
    let which = if end == End::Source { "--from" } else { "--to" };
    Connection::without_spool(url).await.map_err(|error| {
        let exit = match error.kind() {
            ErrorKind::Invalid => Exit::Usage,
            _ => Exit::Unavailable,
        };
        CliError::new(exit, format!("could not open the broker of {which}")).with_source(error)
    })
}

/// A queue to move, with its numbers if it is listed.
struct Chosen {
    queue: QueueName,
    stats: Option<QueueStats>,
}

/// The queues of the command line, each of which must be there; all if none is named. asynq removes a queue
/// from the list while a batch of it is on its way: by its name it is found all the same.
async fn chosen(from: &Connection, names: &[String]) -> Result<Vec<Chosen>, CliError> {
    let inspector = from.inspector();
    if names.is_empty() {
        let all = inspector.queues().await?.into_iter();
        return Ok(all.map(|one| Chosen { queue: one.queue.clone(), stats: Some(one) }).collect());
    }
    let mut queues = Vec::new();
    for name in names {
        let queue = QueueName::new(name).map_err(outlast::Error::from)?;
        let stats = match inspector.queue(&queue).await {
            Ok(stats) => Some(stats),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !migration::is_on_its_way(from, &queue).await? {
                    return Err(error.into());
                }
                None
            }
            Err(error) => return Err(error.into()),
        };
        queues.push(Chosen { queue, stats });
    }
    Ok(queues)
}

async fn plan(format: Format, from: &Connection, to: &str, queues: &[Chosen]) -> Outcome {
    let path = to.strip_prefix("sqlite://").unwrap_or_default();
    if path.is_empty() || Path::new(path).exists() {
        Migration::new(from, &open(to, End::Target).await?).await?;
    }
    let mut rows = Vec::new();
    for stats in queues.iter().filter_map(|one| one.stats.as_ref()) {
        let there = TaskState::ALL.into_iter().filter(|state| stats.count(*state) > 0);
        rows.extend(there.map(|state| Planned {
            queue: stats.queue.to_string(),
            state: state.as_str(),
            tasks: stats.count(state),
        }));
    }
    output::rows(format, &rows)?;
    Ok(Exit::Done)
}

async fn give_back(from: &Connection, queues: &[Chosen]) -> Outcome {
    let mut tasks = 0;
    for chosen in queues {
        tasks += migration::give_back(from, &chosen.queue).await?;
    }
    eprintln!("{tasks} tasks given back to where they were");
    if tasks > 0 {
        eprintln!(
            "outlast: a migrate that was still running has them in its hands, and may put them into its \
             target: it fails and says so"
        );
    }
    Ok(Exit::Done)
}

/// A queue on its way, and what came of it so far.
struct Lane {
    queue: QueueMove,
    moved: Moved,
    active: u64,
}

/// All queues on their way.
struct Run {
    lanes: Vec<Lane>,
    bar: ProgressBar,
    pace: Pace,
    clock: Clock,
}

/// Keeps to a rate.
struct Pace {
    rate: Option<u32>,
    began: Timestamp,
    tasks: u64,
}

impl Pace {
    async fn after(&mut self, tasks: u64, now: Timestamp) {
        self.tasks += tasks;
        if let Some(rate) = self.rate {
            let due = Duration::from_secs_f64(self.tasks as f64 / f64::from(rate));
            tokio::time::sleep(due.saturating_sub(now.since(self.began))).await;
        }
    }
}

impl Run {
    fn new(migration: &Migration, clock: Clock, queues: &[Chosen], rate: Option<u32>) -> Self {
        Self {
            lanes: queues.iter().map(|chosen| Lane::new(migration, chosen)).collect(),
            bar: progress::counter("moved"),
            pace: Pace { rate, began: clock.now(), tasks: 0 },
            clock,
        }
    }

    /// Moves until nothing is left, or only what is still running after the time to wait.
    async fn all(
        &mut self,
        migration: &Migration,
        from: &Connection,
        args: &MigrateArgs,
    ) -> Result<(), CliError> {
        self.pass().await?;
        let end = self.clock.now().plus(args.wait);
        while self.active() > 0 && self.clock.now() < end {
            self.bar.set_message(format!("moved, {} still run", self.active()));
            tokio::time::sleep(LOOK_EVERY.min(end.since(self.clock.now()))).await;
            for lane in self.lanes.iter().filter(|lane| lane.active > 0) {
                lane.queue.sweep().await?;
            }
            self.pass().await?;
        }
        self.finish().await?;
        // What producers have brought meanwhile, also into queues that were not there when it began.
        if args.queues.is_empty() {
            for chosen in chosen(from, &[]).await? {
                if self.lanes.iter().all(|lane| *lane.queue.queue() != chosen.queue) {
                    self.lanes.push(Lane::new(migration, &chosen));
                }
            }
        }
        self.pass().await?;
        self.finish().await
    }

    async fn finish(&mut self) -> Result<(), CliError> {
        for lane in &mut self.lanes {
            lane.queue.finish().await?;
        }
        Ok(())
    }

    async fn pass(&mut self) -> Result<(), CliError> {
        for lane in &mut self.lanes {
            loop {
                match lane.queue.step().await.map_err(stopped)? {
                    Step::Batch(moved) => {
                        let stored = moved.stored();
                        lane.moved.add(moved);
                        self.bar.inc(stored);
                        self.pace.after(stored, self.clock.now()).await;
                    }
                    Step::Rest { active } => {
                        lane.active = active;
                        break;
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn active(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.active).sum()
    }

    fn tell(&self, format: Format, is_through: bool) -> Result<(), CliError> {
        let lines: Vec<Line> = self.lanes.iter().flat_map(Lane::lines).collect();
        if is_through || !lines.is_empty() {
            output::rows(format, &lines)?;
        }
        for lane in &self.lanes {
            lane.tell(format);
        }
        Ok(())
    }

    fn exit(&self) -> Exit {
        let moved = || self.lanes.iter().map(|lane| &lane.moved);
        if moved().any(|moved| moved.target_lost || moved.mismatched > 0) {
            return Exit::Failed;
        }
        let refused = moved().any(|moved| !moved.refused.is_empty());
        if refused || self.active() > 0 { Exit::Partly } else { Exit::Done }
    }
}

/// Why a move cannot go on. What the state of the two brokers forbids is no wrong use.
fn stopped(error: outlast::Error) -> CliError {
    match error.kind() {
        ErrorKind::Invalid | ErrorKind::Broker(Kind::Rejected) => {
            CliError::new(Exit::Conflict, "could not go on").with_source(error)
        }
        _ => error.into(),
    }
}

impl Lane {
    fn new(migration: &Migration, chosen: &Chosen) -> Self {
        let active = chosen.stats.as_ref().map_or(0, |stats| stats.active);
        Self { queue: migration.queue(&chosen.queue), moved: Moved::default(), active }
    }

    /// A line per state, with the refused and the different ones named.
    fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> =
            self.moved.states.iter().map(|(state, count)| self.line(*state, *count)).collect();
        if self.active > 0 {
            let none = self.line(TaskState::Active, StateCount::default());
            lines.push(Line { left: self.active, ..none });
        }
        let unreadable: Vec<Named> = self.refusals(None);
        if !unreadable.is_empty() {
            let none = self.line(TaskState::Archived, StateCount::default());
            let (state, refused) = ("unreadable".to_owned(), unreadable.len() as u64);
            lines.push(Line { state, refused, refusals: unreadable, mismatches: vec![], ..none });
        }
        lines
    }

    fn line(&self, state: TaskState, count: StateCount) -> Line {
        let missing = self.moved.mismatches.iter().filter(|task| task.state == state);
        let refusals = if count.refused > 0 { self.refusals(Some(state)) } else { Vec::new() };
        Line {
            queue: self.queue.queue().to_string(),
            state: state.as_str().to_owned(),
            taken: count.taken,
            stored: count.stored,
            verified: count.verified,
            started: count.gone,
            changed: count.changed,
            refused: count.refused,
            left: 0,
            refusals,
            mismatches: missing.map(|task| task.id.to_string()).collect(),
        }
    }

    fn refusals(&self, state: Option<TaskState>) -> Vec<Named> {
        let of = self.moved.refused.iter().filter(|task| task.state == state);
        of.map(|task| Named { id: task.id.to_string(), why: task.why.clone() }).collect()
    }

    fn tell(&self, format: Format) {
        let (queue, moved) = (self.queue.queue(), &self.moved);
        if format == Format::Table {
            for task in moved.refused.iter().take(TOLD_MAX) {
                let why = output::clean(&task.why);
                eprintln!("outlast: queue {queue}: task {} {why}; it stays where it was", task.id);
            }
            if moved.refused.len() > TOLD_MAX {
                let more = moved.refused.len() - TOLD_MAX;
                eprintln!("outlast: queue {queue}: {more} more were refused, --json names all");
            }
        }
        for task in moved.mismatches.iter().take(TOLD_MAX) {
            let (id, state) = (&task.id, task.state);
            eprintln!("outlast: queue {queue}: task {id} was stored as {state}, and is not there");
        }
        if moved.mismatched > TOLD_MAX as u64 {
            let more = moved.mismatched - TOLD_MAX as u64;
            eprintln!("outlast: queue {queue}: {more} more that were stored are not there");
        }
        if moved.target_lost {
            eprintln!(
                "outlast: queue {queue}: the target has lost tasks that it had stored before; its log or \
                 its replica was behind"
            );
        }
        if moved.runs > 0 {
            eprintln!("queue {queue}: counters of {} runs moved", moved.runs);
        }
        if self.active > 0 {
            eprintln!(
                "outlast: queue {queue}: {} tasks still run at the source; migrate again when they are done",
                self.active
            );
        }
    }
}
