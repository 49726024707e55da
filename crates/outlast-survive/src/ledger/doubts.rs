//! The homes that failed and have not been asked since what they remember.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use outlast_core::{Home, Kind, QueueName};
use tokio::time::Instant;

/// Between two questions to a queue that is refused or held back: as often as the breaker tries it.
const REFUSED_EVERY: Duration = Duration::from_secs(5);

pub(super) type Queues = HashSet<QueueName>;

/// Homes in doubt, and whether they answer again. As many as there are homes.
#[derive(Default)]
pub(super) struct Doubts {
    homes: HashMap<Home, Answers>,
}

/// Whether a home that failed answers again.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Answers {
    NotYet,
    Again,
    /// It is being asked. What it may have to be offered is kept until it was.
    Asking,
    /// It was, and these queues were refused or held back: they are asked again later.
    Refused {
        again_at: Instant,
        queues: Queues,
    },
}

/// What the end of a call says of the home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    /// It has answered.
    Here,
    /// It has not: it may come back with other data, or another one in its place.
    Away,
    /// The breaker refuses like this too, and the home may not have heard of the call.
    Nothing,
}

pub(super) fn says(error: Kind) -> Says {
    match error {
        Kind::Unavailable | Kind::Ambiguous => Says::Away,
        Kind::Busy | Kind::Misconfigured => Says::Nothing,
        Kind::Rejected | Kind::Corrupt | Kind::Superseded => Says::Here,
    }
}

impl Doubts {
    pub(super) fn is_empty(&self) -> bool {
        self.homes.is_empty()
    }

    /// The home failed: it may have forgotten when it answers again.
    pub(super) fn add(&mut self, home: &Home) {
        self.homes.insert(home.clone(), Answers::NotYet);
    }

    /// The home answers. True if it was in doubt and did not yet.
    pub(super) fn answers(&mut self, home: &Home) -> bool {
        match self.homes.get_mut(home) {
            Some(answers @ Answers::NotYet) => {
                *answers = Answers::Again;
                true
            }
            Some(Answers::Again | Answers::Asking | Answers::Refused { .. }) | None => false,
        }
    }

    /// The homes that are to be asked what they remember now, and which of their queues if not all. They stay in doubt until
    /// they were.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Home, Option<Queues>)> {
        let mut homes = Vec::new();
        for (home, answers) in &mut self.homes {
            let queues = match answers {
                Answers::NotYet => continue,
                Answers::Refused { again_at, .. } if *again_at > now => continue,
                Answers::Refused { queues, .. } => Some(std::mem::take(queues)),
                // One that is being asked here is one whose asker was dropped: there is one at a time.
                Answers::Again | Answers::Asking => None,
            };
            *answers = Answers::Asking;
            homes.push((home.clone(), queues));
        }
        homes
    }

    /// The home was asked, and refused the questions of these queues. If there are none it is in doubt no more. Nothing changes if it
    /// has failed meanwhile.
    pub(super) fn asked(&mut self, home: &Home, refused: Queues, now: Instant) {
        if self.homes.get(home) != Some(&Answers::Asking) {
            return;
        }
        if refused.is_empty() {
            self.homes.remove(home);
        } else {
            let again_at = now + REFUSED_EVERY;
            self.homes.insert(home.clone(), Answers::Refused { again_at, queues: refused });
        }
    }

    /// When the next of the queues that were refused is to be asked again.
    pub(super) fn again_at(&self) -> Option<Instant> {
        let again_at = |answers: &Answers| match answers {
            Answers::Refused { again_at, .. } => Some(*again_at),
            Answers::NotYet | Answers::Again | Answers::Asking => None,
        };
        self.homes.values().filter_map(again_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_was_refused_is_asked_again_after_a_while_and_alone() {
        let (mut doubts, home, now) = (Doubts::default(), Home("here".into()), Instant::now());
        doubts.add(&home);
        assert!(doubts.answers(&home));
        assert_eq!(doubts.take(now), [(home.clone(), None)]);
        let refused = Queues::from([QueueName::stored("q")]);
        doubts.asked(&home, refused.clone(), now);
        assert!(!doubts.answers(&home), "what other queues are answered changes nothing");
        assert!(doubts.take(now).is_empty());
        assert_eq!(doubts.again_at(), Some(now + REFUSED_EVERY));
        assert_eq!(doubts.take(now + REFUSED_EVERY), [(home.clone(), Some(refused))]);
        doubts.asked(&home, Queues::new(), now);
        assert!(doubts.is_empty() && doubts.again_at().is_none());
    }
}
