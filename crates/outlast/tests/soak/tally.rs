//! Counting: every task by its id, from what the processes have written.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use crate::role::Role;

/// How long the outcome of a run may be on its way to the disk. A process that is killed meanwhile leaves a run that nobody knows
/// of.
const REPORTED_AFTER_MS: i64 = 2_000;

#[derive(Debug, Default)]
struct Task {
    accepted_at: Option<i64>,
    /// Who ran it, from when, and until when.
    runs: Vec<(usize, i64, Option<i64>)>,
}

/// What has come of everything so far.
#[derive(Default)]
pub(crate) struct Tally {
    tasks: HashMap<String, Task>,
    /// How far the file of each process was read.
    read: HashMap<usize, u64>,
    kills: Vec<(usize, i64)>,
    pub(crate) accepted: u64,
    pub(crate) refused: u64,
    pub(crate) runs: u64,
    pub(crate) explained: u64,
    pub(crate) slowest_ms: i64,
    pub(crate) wrong: Vec<String>,
}

impl Tally {
    pub(crate) fn killed(&mut self, who: usize, at: i64) {
        self.kills.push((who, at));
    }

    /// Reads what was written since the last time.
    pub(crate) fn read(&mut self, roles: &[Role]) {
        let mut lines: Vec<(i64, usize, String, String)> = Vec::new();
        for (who, role) in roles.iter().enumerate() {
            let from = self.read.entry(who).or_default();
            let Ok(mut file) = File::open(role.path("log")) else { continue };
            let mut text = String::new();
            file.seek(SeekFrom::Start(*from)).unwrap();
            file.read_to_string(&mut text).unwrap();
            // The last line may still be under way.
            let end = text.rfind('\n').map_or(0, |at| at + 1);
            *from += end as u64;
            for line in text[..end].lines() {
                let words: Vec<_> = line.split(' ').collect();
                let [at, what, id] = words[..] else { continue };
                lines.push((at.parse().unwrap(), who, what.to_owned(), id.to_owned()));
            }
        }
        lines.sort_by_key(|(at, ..)| *at);
        lines.into_iter().for_each(|(at, who, what, id)| self.happened(at, who, &what, &id));
    }

    fn happened(&mut self, at: i64, who: usize, what: &str, id: &str) {
        let kills = &self.kills;
        let task = self.tasks.entry(id.to_owned()).or_default();
        match what {
            "accepted" => {
                task.accepted_at = Some(at);
                self.accepted += 1;
            }
            "refused" => self.refused += 1,
            "began" => {
                self.runs += 1;
                if let Some((before, began, ended)) = task.runs.last() {
                    let reported = ended.map_or(at, |ended| ended + REPORTED_AFTER_MS);
                    let died = |(dead, when): &(usize, i64)| {
                        dead == before && (*began..=reported).contains(when)
                    };
                    match kills.iter().any(died) {
                        true => self.explained += 1,
                        false => {
                            self.wrong.push(format!("{id} ran again at {at}: {:?}", task.runs));
                        }
                    }
                }
                if let Some(accepted) = task.accepted_at.filter(|_| task.runs.is_empty()) {
                    self.slowest_ms = self.slowest_ms.max(at - accepted);
                }
                task.runs.push((who, at, None));
            }
            "ended" => {
                if let Some(run) = task.runs.iter_mut().rfind(|run| run.0 == who) {
                    run.2 = Some(at);
                }
            }
            "wrong" => self.wrong.push(format!("{id} was neither accepted nor refused")),
            _ => {}
        }
    }

    /// Tasks that were accepted and have not run to the end.
    pub(crate) fn open(&self) -> Vec<&str> {
        let is_open = |task: &Task| {
            task.accepted_at.is_some() && !task.runs.iter().any(|run| run.2.is_some())
        };
        self.tasks.iter().filter(|(_, task)| is_open(task)).map(|(id, _)| id.as_str()).collect()
    }
}
