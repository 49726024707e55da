//! What became of a batch that had been stored: counted, told, and sorted into gone and quarantine.

use outlast_core::QueueName;

use crate::event::{Counter, Event, Events};
use crate::spool::Store;
use crate::verb::{Fate, Verb};

/// The fates of a batch's items, in order.
pub(crate) struct Report(Vec<(String, Fate)>);

impl Report {
    pub(crate) fn of<V: Verb>(items: &[V::Item], verdicts: Vec<V::Verdict>) -> Self {
        let fates = verdicts.into_iter().map(V::fate);
        Self(items.iter().map(|item| V::id(item).to_string()).zip(fates).collect())
    }

    pub(crate) fn has_refused(&self) -> bool {
        self.refused().next().is_some()
    }

    /// The places of the items that are refused, and why.
    pub(crate) fn refused(&self) -> impl Iterator<Item = (usize, &str)> {
        self.0.iter().enumerate().filter_map(|(place, (_, fate))| match fate {
            Fate::Refused(why) => Some((place, why.as_str())),
            Fate::Delivered
            | Fate::Adopted
            | Fate::LeaseLost
            | Fate::Duplicate { .. }
            | Fate::IdConflict => None,
        })
    }

    /// Counts and tells each fate once.
    pub(crate) fn tell(self, events: &Events, store: Store, queue: &QueueName) {
        let is_in = |fate: &Fate| matches!(fate, Fate::Delivered | Fate::Adopted);
        let delivered = self.0.iter().filter(|(_, fate)| is_in(fate)).count();
        let counter = match store {
            Store::Outbox => Counter::Delivered,
            Store::Journal => Counter::Applied,
        };
        events.add(counter, delivered);
        for (id, fate) in self.0 {
            let queue = queue.clone();
            events.tell(match fate {
                Fate::Delivered => continue,
                Fate::Adopted => Event::Adopted { queue, id },
                Fate::LeaseLost => Event::LeaseLost { queue, id },
                Fate::Duplicate { of } => Event::Duplicate { queue, id, of },
                Fate::IdConflict => Event::IdConflict { queue, id },
                Fate::Refused(why) => Event::Quarantined { store, queue, id, why },
            });
        }
    }
}
