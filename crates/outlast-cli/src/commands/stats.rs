//! `outlast stats`: all queues together, in one row.

use clap::Args;
use outlast::{QueueStats, TaskState};
use serde::Serialize;

use super::Context;
use super::rate::Rates;
use super::watch::{self, Watch};
use crate::exit::{Exit, Outcome};
use crate::output::Row;

/// How to look.
#[derive(Args, Debug)]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    watch: Watch,
}

/// The numbers.
#[derive(Debug, Default, Serialize)]
struct Stats {
    queues: usize,
    workers: usize,
    active: u64,
    pending: u64,
    aggregating: u64,
    scheduled: u64,
    retry: u64,
    archived: u64,
    completed: u64,
    processed_today: u64,
    failed_today: u64,
    processed_total: u64,
    failed_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
}

impl Stats {
    fn sum(queues: &[QueueStats], workers: usize) -> Self {
        let of = |state| queues.iter().map(|queue| queue.count(state)).sum();
        let sum = |number: fn(&QueueStats) -> u64| queues.iter().map(number).sum();
        Self {
            queues: queues.len(),
            workers,
            active: of(TaskState::Active),
            pending: of(TaskState::Pending),
            aggregating: of(TaskState::Aggregating),
            scheduled: of(TaskState::Scheduled),
            retry: of(TaskState::Retry),
            archived: of(TaskState::Archived),
            completed: of(TaskState::Completed),
            processed_today: sum(|queue| queue.processed_today),
            failed_today: sum(|queue| queue.failed_today),
            processed_total: sum(|queue| queue.processed_total),
            failed_total: sum(|queue| queue.failed_total),
            rate: None,
        }
    }
}

impl Row for Stats {
    const HEAD: &'static [&'static str] = &[
        "queues",
        "workers",
        "pending",
        "active",
        "scheduled",
        "retry",
        "archived",
        "completed",
        "grouped",
        "done today",
        "failed today",
        "done ever",
        "rate/s",
    ];
    fn cells(&self) -> Vec<String> {
        let counts = [
            self.queues as u64,
            self.workers as u64,
            self.pending,
            self.active,
            self.scheduled,
            self.retry,
            self.archived,
            self.completed,
            self.aggregating,
            self.processed_today,
            self.failed_today,
            self.processed_total,
        ];
        let mut cells = Vec::from(counts.map(|count| count.to_string()));
        cells.push(self.rate.map(|rate| format!("{rate:.0}")).unwrap_or_default());
        cells
    }
}

pub(crate) async fn run(context: &Context, args: &StatsArgs) -> Outcome {
    let connection = context.connect().await?;
    let inspector = connection.inspector();
    let mut rates = Rates::default();
    watch::rows(context.format(), args.watch, async || {
        let queues = inspector.queues().await?;
        let mut stats = Stats::sum(&queues, inspector.workers().await?.len());
        stats.rate = rates.of("all", stats.processed_total, connection.clock().now());
        Ok(vec![stats])
    })
    .await?;
    Ok(Exit::Done)
}
