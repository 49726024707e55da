//! `[queues]`: which queues a worker serves, and with which weights.

use std::collections::HashMap;

use outlast::QueueName;
use toml::Spanned;

use super::load::Asked;
use super::raw::RawQueue;
use super::resolve::Resolver;
use super::{Origin, QueueConfig, Sourced};

impl Resolver<'_> {
    pub(super) fn queues(
        &mut self,
        written: Vec<(Spanned<String>, Spanned<RawQueue>)>,
        asked: &Asked,
    ) -> Vec<QueueConfig> {
        let mut queues = Vec::new();
        for (name, queue) in written {
            let origin = self.origin(&name);
            let parsed = self.name("queues", &name, |text| QueueName::new(text));
            let RawQueue { weight, concurrency } = queue.get_ref();
            if weight == &Some(0) || concurrency == &Some(0) {
                self.wrong(
                    &queue,
                    format!(
                        "queue {name:?} has a weight or concurrency of 0",
                        name = name.get_ref()
                    ),
                );
            }
            let Some(name) = parsed else { continue };
            let weight = match weight {
                Some(weight) => Sourced::new(*weight, origin.clone()),
                None => Sourced::default(1),
            };
            let concurrency = concurrency.map(|most| Sourced::new(most, origin));
            queues.push(QueueConfig { name, weight, concurrency });
        }
        match &asked.queues {
            Some(text) => self.asked_queues(text, queues),
            None if queues.is_empty() => {
                let name = QueueName::default_queue();
                vec![QueueConfig { name, weight: Sourced::default(1), concurrency: None }]
            }
            None => queues,
        }
    }

    /// `--queues mail=6,default`: only these, with the weights given or else those of the file.
    fn asked_queues(&mut self, text: &str, written: Vec<QueueConfig>) -> Vec<QueueConfig> {
        let mut known: HashMap<QueueName, QueueConfig> =
            written.into_iter().map(|queue| (queue.name.clone(), queue)).collect();
        let mut queues: Vec<QueueConfig> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').map_or((part, None), |(n, w)| (n, Some(w)));
            let name = match QueueName::new(name.trim()) {
                Ok(name) if queues.iter().any(|queue| queue.name == name) => {
                    self.outside(format!("--queues names {name} twice"));
                    continue;
                }
                Ok(name) => name,
                Err(error) => {
                    self.outside(format!("--queues {text:?}: {error}"));
                    continue;
                }
            };
            let fresh = QueueConfig { name, weight: Sourced::default(1), concurrency: None };
            let mut queue = known.remove(&fresh.name).unwrap_or(fresh);
            match weight.map(|weight| weight.trim().parse::<u32>()) {
                None => {}
                Some(Ok(weight)) if weight > 0 => {
                    queue.weight = Sourced::new(weight, Origin::Flag("--queues"));
                }
                Some(_) => self.outside(format!("--queues {part:?} has no weight of 1 or more")),
            }
            queues.push(queue);
        }
        queues
    }
}
