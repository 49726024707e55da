//! What one side went through, as a table for people and as an object for programs.

use std::time::Duration;

use serde::Serialize;

use super::Fault;
use super::side::Whose;
use super::tally::{Left, Recovery, Sum};
use crate::rig::Sent;

/// One fault, as one side met it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Met {
    fault: Fault,
    lasted_ms: u64,
    /// Commands that were sent to the sick server.
    commands: u64,
    /// Connections that were opened to it.
    connections: u64,
    /// From the server's return to the first run of a task; none if there was none in time.
    first_run_ms: Option<u64>,
    /// From the server's return until everything had run that was accepted before it.
    backlog_empty_ms: Option<u64>,
}

/// One side.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    side: Whose,
    offered: u64,
    accepted: u64,
    /// Of the accepted: on this machine's disk, while the server could not take them.
    stored: u64,
    refused: u64,
    /// Of the accepted.
    executed: u64,
    lost: u64,
    repeated: u64,
    /// Accepted, not run yet, and kept by the server.
    waiting: u64,
    /// Run, and kept by the server to be run again.
    due_again: u64,
    /// The caller was told no, and they were run all the same.
    refused_but_run: u64,
    longest_call_ms: u64,
    longest_wait_ms: u64,
    faults: Vec<Met>,
}

impl Met {
    pub(crate) fn new(fault: Fault, lasted: Duration, sent: Sent, recovery: Recovery) -> Self {
        let (first_run_ms, backlog_empty_ms) =
            (recovery.first_run.map(ms), recovery.backlog_empty.map(ms));
        let Sent { commands, connections } = sent;
        Self { fault, lasted_ms: ms(lasted), commands, connections, first_run_ms, backlog_empty_ms }
    }

    /// Commands and connections a second.
    fn sent_per_second(&self) -> String {
        let seconds = (self.lasted_ms as f64 / 1000.0).max(0.001);
        let rate = |count: u64| count as f64 / seconds;
        format!("{:.1} + {:.1}", rate(self.commands), rate(self.connections))
    }

    fn recovery(&self) -> String {
        let shown = |ms: Option<u64>| ms.map_or("not in time".to_owned(), seconds);
        format!("{}, {}", shown(self.first_run_ms), shown(self.backlog_empty_ms))
    }
}

impl Report {
    pub(crate) fn new(side: Whose, sum: Sum, left: Left, faults: Vec<Met>) -> Self {
        Self {
            side,
            offered: sum.offered,
            accepted: sum.accepted,
            stored: sum.stored,
            refused: sum.refused,
            executed: sum.executed,
            lost: left.lost,
            repeated: sum.repeated,
            waiting: left.waiting,
            due_again: left.due_again,
            refused_but_run: sum.refused_but_run,
            longest_call_ms: ms(sum.longest_call),
            longest_wait_ms: ms(sum.longest_wait),
            faults,
        }
    }

    /// True if what was promised was kept: every accepted task has run, once, and none will run again. Only our
    /// own side promises it.
    pub(crate) fn is_kept(&self) -> bool {
        let broken = self.lost + self.repeated + self.waiting + self.due_again;
        self.side != Whose::Outlast || broken == 0
    }

    fn counts(&self) -> Vec<(String, String)> {
        let mut rows: Vec<(String, String)> = [
            ("tasks offered", self.offered),
            ("accepted", self.accepted),
            ("  of these stored on disk", self.stored),
            ("refused to the caller", self.refused),
            ("  of these run all the same", self.refused_but_run),
            ("accepted and executed", self.executed),
            ("lost", self.lost),
            ("repeated", self.repeated),
            ("executed and due again", self.due_again),
            ("still waiting at the end", self.waiting),
        ]
        .map(|(what, count)| (what.to_owned(), count.to_string()))
        .into();
        rows.push(("longest call of the producer".to_owned(), seconds(self.longest_call_ms)));
        rows.push(("longest way from call to run".to_owned(), seconds(self.longest_wait_ms)));
        rows
    }

    fn rows(&self) -> Vec<(String, String)> {
        let mut rows = self.counts();
        for met in &self.faults {
            let fault = met.fault.as_str();
            rows.push((format!("{fault}: commands/s + connects/s"), met.sent_per_second()));
            rows.push((format!("{fault}: first run, all caught up"), met.recovery()));
        }
        rows
    }
}

/// The sides beside each other.
pub(crate) fn table(reports: &[Report]) -> String {
    let columns: Vec<Vec<(String, String)>> = reports.iter().map(Report::rows).collect();
    let Some(first) = columns.first() else { return String::new() };
    let label = first.iter().map(|(what, _)| what.len()).max().unwrap_or_default();
    let width = |column: &Vec<(String, String)>| {
        column.iter().map(|(_, value)| value.len()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = columns.iter().map(|column| width(column).max(7)).collect();
    let mut text = " ".repeat(label);
    for (report, width) in reports.iter().zip(&widths) {
        text.push_str(&format!("  {:>width$}", report.side.as_str()));
    }
    for (row, (what, _)) in first.iter().enumerate() {
        text.push_str(&format!("\n{what:<label$}"));
        for (column, width) in columns.iter().zip(&widths) {
            text.push_str(&format!("  {:>width$}", column[row].1));
        }
    }
    text.push('\n');
    text
}

fn seconds(ms: u64) -> String {
    if ms < 1000 { format!("{ms} ms") } else { format!("{:.1} s", ms as f64 / 1000.0) }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(side: Whose, left: Left) -> Report {
        let sum = Sum { offered: 9, accepted: 9, executed: 9, ..Sum::default() };
        let sent = Sent { commands: 7, connections: 2 };
        let recovery =
            Recovery { first_run: Some(Duration::from_millis(1250)), backlog_empty: None };
        let met = Met::new(Fault::Kill, Duration::from_secs(5), sent, recovery);
        Report::new(side, sum, left, vec![met])
    }

    #[test]
    fn a_promise_is_broken_by_a_task_that_is_lost_waits_or_is_due_again() {
        let none = Left::default();
        assert!(report(Whose::Outlast, none).is_kept());
        for left in
            [Left { lost: 1, ..none }, Left { waiting: 1, ..none }, Left { due_again: 1, ..none }]
        {
            assert!(!report(Whose::Outlast, left).is_kept(), "{left:?}");
            assert!(report(Whose::Asynq, left).is_kept(), "{left:?}");
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_side() {
        let reports = [Whose::Outlast, Whose::Asynq].map(|side| report(side, Left::default()));
        let text = table(&reports);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(lines[0]), ["outlast", "asynq"], "{text}");
        assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{text}");
        assert!(text.contains("1.4 + 0.4           1.4 + 0.4"), "{text}");
        assert!(text.contains("1.2 s, not in time  1.2 s, not in time"), "{text}");
    }
}
