//! The two verbs whose arguments are spooled, seen as one: how an item is named, written, sent and judged.

use std::sync::Arc;

use async_trait::async_trait;
use outlast_core::record::{
    RecordError, decode_settlement, decode_task, encode_settlement, encode_task,
};
use outlast_core::{
    Broker, BrokerError, EnqueueVerdict, Lost, NewTask, QueueName, SettleVerdict, Settlement,
    Stamp, TaskId, Timestamp,
};

use crate::breaker::Class;
use crate::spool::{NewItem, Store};

/// The answer of either verb.
#[derive(Debug)]
pub(crate) struct Answer<V> {
    pub(crate) verdicts: Vec<V>,
    pub(crate) lost: Option<Lost>,
}

/// What a verdict means for an item that was stored.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    Adopted,
    LeaseLost,
    Duplicate { of: Option<TaskId> },
    IdConflict,
    Refused(String),
}

/// A verb that is repeated by calling it again.
#[async_trait]
pub(crate) trait Verb: Send + Sync + 'static {
    type Item: Clone + Send + Sync + 'static;
    type Verdict: Send + 'static;
    const STORE: Store;
    const CLASS: Class;

    fn id(item: &Self::Item) -> &TaskId;
    fn encode(item: &Self::Item) -> Vec<u8>;
    fn decode(record: &[u8]) -> Result<Self::Item, RecordError>;
    /// Why an item is not to be sent any more.
    fn outdated(item: &Self::Item, now: Timestamp) -> Option<String>;
    fn fate(verdict: Self::Verdict) -> Fate;
    async fn send(
        broker: Arc<dyn Broker>,
        queue: QueueName,
        stamp: Stamp,
        now: Timestamp,
        items: Arc<[Self::Item]>,
    ) -> Result<Answer<Self::Verdict>, BrokerError>;

    fn item(item: &Self::Item) -> NewItem {
        NewItem { name: Self::id(item).to_string(), record: Self::encode(item) }
    }

    fn unfit(record: &[u8], now: Timestamp) -> Option<String> {
        match Self::decode(record) {
            Ok(item) => Self::outdated(&item, now),
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Tasks, for the outbox.
pub(crate) struct Enqueues;

#[async_trait]
impl Verb for Enqueues {
    type Item = NewTask;
    type Verdict = EnqueueVerdict;
    const STORE: Store = Store::Outbox;
    const CLASS: Class = Class::Produce;

    fn id(task: &NewTask) -> &TaskId {
        &task.id
    }

    fn encode(task: &NewTask) -> Vec<u8> {
        encode_task(task)
    }

    fn decode(record: &[u8]) -> Result<NewTask, RecordError> {
        decode_task(record)
    }

    fn outdated(task: &NewTask, now: Timestamp) -> Option<String> {
        task.check(now).err().map(|error| error.to_string())
    }

    fn fate(verdict: EnqueueVerdict) -> Fate {
        match verdict {
            // A broker never answers `Stored`; a layer below that did would keep it.
            EnqueueVerdict::Accepted { .. } | EnqueueVerdict::Stored => Fate::Delivered,
            EnqueueVerdict::Duplicate { of } => Fate::Duplicate { of },
            EnqueueVerdict::IdConflict => Fate::IdConflict,
            EnqueueVerdict::Rejected(why) => Fate::Refused(why.to_string()),
        }
    }

    async fn send(
        broker: Arc<dyn Broker>,
        queue: QueueName,
        stamp: Stamp,
        now: Timestamp,
        tasks: Arc<[NewTask]>,
    ) -> Result<Answer<EnqueueVerdict>, BrokerError> {
        let answer = broker.enqueue(&queue, stamp, now, tasks).await?;
        Ok(Answer { verdicts: answer.verdicts, lost: answer.lost })
    }
}

/// Settlements, for the journal.
pub(crate) struct Settlements;

#[async_trait]
impl Verb for Settlements {
    type Item = Settlement;
    type Verdict = SettleVerdict;
    const STORE: Store = Store::Journal;
    const CLASS: Class = Class::Consume;

    fn id(settlement: &Settlement) -> &TaskId {
        &settlement.lease.id
    }

    fn encode(settlement: &Settlement) -> Vec<u8> {
        encode_settlement(settlement)
    }

    fn decode(record: &[u8]) -> Result<Settlement, RecordError> {
        decode_settlement(record)
    }

    /// An outcome is never too old to be reported: the fence decides.
    fn outdated(_: &Settlement, _: Timestamp) -> Option<String> {
        None
    }

    fn fate(verdict: SettleVerdict) -> Fate {
        match verdict {
            SettleVerdict::Applied | SettleVerdict::Journaled => Fate::Delivered,
            SettleVerdict::Adopted => Fate::Adopted,
            SettleVerdict::LeaseLost => Fate::LeaseLost,
            SettleVerdict::Rejected(why) => Fate::Refused(why.to_string()),
        }
    }

    async fn send(
        broker: Arc<dyn Broker>,
        queue: QueueName,
        stamp: Stamp,
        now: Timestamp,
        settlements: Arc<[Settlement]>,
    ) -> Result<Answer<SettleVerdict>, BrokerError> {
        let answer = broker.settle(&queue, stamp, now, settlements).await?;
        Ok(Answer { verdicts: answer.verdicts, lost: answer.lost })
    }
}
