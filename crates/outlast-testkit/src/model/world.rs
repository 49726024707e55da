//! Everything the model knows, and the rule that makes its writes repeatable.

use std::collections::BTreeMap;

use outlast_core::session::{Arrival, judge};
use outlast_core::{
    BrokerError, EnqueueVerdict, Kind, Lost, QueueName, Rest, SessionId, SettleVerdict, Stamp,
    TaskId, Timestamp,
};

use super::people::People;
use super::queue::Queue;

#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) queues: BTreeMap<QueueName, Queue>,
    /// `once` keys, with the task that used each and the moment until which it is remembered. They
    /// outlive their queue, like the lanes: removing a queue is no reason to run yesterday's tick again.
    pub(super) once: BTreeMap<(QueueName, String), (TaskId, Timestamp)>,
    lanes: BTreeMap<(QueueName, SessionId, u16), Lane>,
    pub(super) people: People,
    pub(super) archive_max: usize,
    /// Whose data it is: another one after a flush.
    pub(super) epoch: u64,
}

/// The last batch of a lane and the answer it got.
#[derive(Clone, Debug)]
struct Lane {
    seq: u64,
    answer: Answer,
    lost: Option<Lost>,
}

/// What a batch was answered. A claim's answer is what it took: a repeat hands out what is left of it.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Enqueue(Vec<EnqueueVerdict>),
    Claim(Vec<TaskId>, Rest),
    Settle(Vec<SettleVerdict>),
}

impl World {
    pub(super) fn new(archive_max: usize) -> Self {
        Self {
            queues: BTreeMap::new(),
            once: BTreeMap::new(),
            lanes: BTreeMap::new(),
            people: People::default(),
            archive_max,
            epoch: 0,
        }
    }

    /// Law L3: applies a batch the first time its stamp is seen, and gives the same answer afterwards.
    pub(super) fn once_per_stamp(
        &mut self,
        queue: &QueueName,
        stamp: Stamp,
        apply: impl FnOnce(&mut World) -> Answer,
    ) -> Result<(Answer, Option<Lost>), BrokerError> {
        let key = (queue.clone(), stamp.session, stamp.lane);
        let last = self.lanes.get(&key);
        let lost = match judge(last.map(|lane| lane.seq), stamp.seq) {
            Arrival::Next => None,
            Arrival::Gap { after_seq } => Some(Lost { after_seq }),
            Arrival::Ghost => return Err(ghost(&stamp)),
            Arrival::Repeat => {
                let lane = last.ok_or_else(|| ghost(&stamp))?;
                return Ok((lane.answer.clone(), lane.lost));
            }
        };
        let answer = apply(self);
        // A claim that found nothing leaves no record: its number is used again.
        if !matches!(&answer, Answer::Claim(ids, _) if ids.is_empty()) {
            self.lanes.insert(key, Lane { seq: stamp.seq, answer: answer.clone(), lost });
        }
        Ok((answer, lost))
    }
}

fn ghost(stamp: &Stamp) -> BrokerError {
    let Stamp { lane, seq, .. } = stamp;
    BrokerError::new(Kind::Superseded, format!("batch {seq} of lane {lane} was answered long ago"))
}

pub(super) fn other_verb(stamp: &Stamp) -> BrokerError {
    let Stamp { lane, seq, .. } = stamp;
    BrokerError::rejected(format!("batch {seq} of lane {lane} was sent with another verb before"))
}
