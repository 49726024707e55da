//! The demo while it runs: a line for each side every second, and a strip of marks that is printed at the end.

use std::convert::Infallible;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::side::Seen;
use super::tally::Sum;
use super::{Fault, Plan};

/// Marks of a strip that is as long as planned; one that takes longer has at most twice as many.
const MARKS: u32 = 40;

/// The shortest time that a mark stands for.
const MARK_MIN: Duration = Duration::from_millis(500);

/// How often a line is printed.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// What watches all sides.
pub(crate) struct View {
    sides: Vec<(Seen, Sum, Strip)>,
    every: Duration,
    begun: Instant,
    lines: Lines,
}

/// One side over time: a mark for each moment.
#[derive(Clone, Debug)]
pub(crate) struct Strip {
    side: &'static str,
    server: String,
    producer: String,
    worker: String,
}

/// On a screen a line is drawn over; elsewhere one follows the other.
enum Lines {
    Screen { _all: MultiProgress, bars: Vec<ProgressBar> },
    Plain,
}

impl View {
    pub(crate) fn new(sides: Vec<Seen>, plan: &Plan) -> Self {
        let lines = Lines::new(sides.len());
        let strip = |seen: Seen| {
            let side = seen.whose.as_str();
            let [server, producer, worker] = [const { String::new() }; 3];
            (seen, Sum::default(), Strip { side, server, producer, worker })
        };
        let sides = sides.into_iter().map(strip).collect();
        // asynq's recoveries take about as long as the faults.
        let takes = plan.takes() * if plan.asynq.is_some() { 2 } else { 1 };
        let every = (takes / MARKS).max(MARK_MIN);
        Self { sides, every, begun: Instant::now(), lines }
    }

    /// Looks again and again. Safe to drop.
    pub(crate) async fn watch(&mut self) -> Infallible {
        let (mut marks, mut lines) = (interval(self.every), interval(LINE_EVERY));
        marks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        lines.set_missed_tick_behavior(MissedTickBehavior::Delay);
        marks.tick().await;
        loop {
            tokio::select! {
                _ = marks.tick() => self.mark(),
                _ = lines.tick() => self.line(),
            }
        }
    }

    fn mark(&mut self) {
        for (seen, before, strip) in &mut self.sides {
            let sum = seen.tally.sum();
            if strip.server.chars().count() < 2 * MARKS as usize {
                strip.add(seen.fault.borrow().is_some(), before, &sum);
            }
            *before = sum;
        }
    }

    fn line(&self) {
        let at = self.begun.elapsed().as_secs();
        for (place, (seen, _, _)) in self.sides.iter().enumerate() {
            let fault = seen.fault.borrow().map_or("well", Fault::as_str);
            let (side, sum) = (seen.whose.as_str(), seen.tally.sum());
            self.lines.show(
                place,
                format!(
                    "{at:>3} s {side:<7} {fault:<7} accepted {:>5} stored {:>5} refused {:>4} executed {:>5} \
                     longest call {} ms",
                    sum.accepted,
                    sum.stored,
                    sum.refused,
                    sum.executed,
                    sum.longest_call.as_millis()
                ),
            );
        }
    }

    /// What was seen.
    pub(crate) fn end(self) -> Vec<Strip> {
        self.lines.end();
        self.sides.into_iter().map(|(_, _, strip)| strip).collect()
    }
}

impl Strip {
    fn add(&mut self, is_sick: bool, before: &Sum, now: &Sum) {
        let [accepted, stored] = [now.accepted - before.accepted, now.stored - before.stored];
        let refused = now.refused - before.refused;
        let executed = now.executed - before.executed;
        self.server.push(if is_sick { '╌' } else { '█' });
        self.producer.push(match (accepted, stored, refused) {
            (0, _, 0) => '·',
            (0, _, _) => 'x',
            (_, 0, _) => '█',
            (_, _, _) => '▒',
        });
        self.worker.push(if executed == 0 { '·' } else { '█' });
    }

    /// Three lines for people.
    pub(crate) fn text(&self) -> String {
        let Self { side, server, producer, worker } = self;
        format!(
            "{side:<7}  server    {server}\n         producer  {producer}\n         worker    {worker}\n"
        )
    }
}

impl Lines {
    fn new(count: usize) -> Self {
        if !std::io::stderr().is_terminal() {
            return Lines::Plain;
        }
        let all = MultiProgress::new();
        let bar = |_| {
            let bar = all.add(ProgressBar::new_spinner());
            // A template that indicatif cannot read leaves its own style.
            if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
                bar.set_style(style);
            }
            bar
        };
        let bars = (0..count).map(bar).collect();
        Lines::Screen { _all: all, bars }
    }

    fn show(&self, place: usize, line: String) {
        match self {
            Lines::Screen { bars, .. } => bars[place].set_message(line),
            Lines::Plain => {
                // Somebody who has stopped reading wants no more of it; the demo goes on.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        }
    }

    fn end(&self) {
        match self {
            Lines::Screen { bars, .. } => bars.iter().for_each(ProgressBar::finish_and_clear),
            Lines::Plain => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strip_shows_what_callers_were_told_and_whether_tasks_ran() {
        let [server, producer, worker] = [const { String::new() }; 3];
        let mut strip = Strip { side: "outlast", server, producer, worker };
        let sum = |accepted, stored, refused, executed| Sum {
            accepted,
            stored,
            refused,
            executed,
            ..Sum::default()
        };
        let seen =
            [sum(0, 0, 0, 0), sum(5, 0, 0, 4), sum(9, 4, 0, 5), sum(9, 4, 2, 5), sum(9, 4, 2, 9)];
        for pair in seen.windows(2) {
            strip.add(pair[1].stored > 0, &pair[0], &pair[1]);
        }
        let lines = "outlast  server    █╌╌╌\n         producer  █▒x·\n         worker    ██·█\n";
        assert_eq!(strip.text(), lines);
    }
}
