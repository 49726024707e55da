//! Either end of a move between brokers: each method of [`Porter`] on its way to the writer or the readers.
//!
//! Every step waits for the disk, unlike a claim: what a power cut undoes at one end only would be lost or
//! there twice.

mod known;
mod put;
mod take;

use async_trait::async_trait;
use outlast_core::inspect::ScheduleState;
use outlast_core::limits::check_batch;
use outlast_core::porter::{Batch, Concluded, Conclusion, Delivered, Found, Load, OnceKey, Order};
use outlast_core::{BrokerError, Cursor, Page, Porter, QueueName, Stamp, TaskId, Timestamp};

use crate::broker::SqliteBroker;
use crate::writer::weight;

pub(crate) use take::outgoing;

#[async_trait]
impl Porter for SqliteBroker {
    async fn take(
        &self,
        queue: &QueueName,
        order: &Order,
        now: Timestamp,
    ) -> Result<Option<Batch>, BrokerError> {
        order.check()?;
        let (queue, order) = (queue.clone(), order.clone());
        let weight = weight(order.tasks_max, order.bytes_max);
        self.write("could not take tasks to move", weight, move |tx| {
            take::take(tx, &queue, &order, now)
        })
        .await
    }

    async fn put(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        load: &Load,
    ) -> Result<Delivered, BrokerError> {
        check_batch("batch of tasks", load.parcels.len())?;
        let (queue, load) = (queue.clone(), load.clone());
        let weight = weight(load.parcels.len(), load.bytes());
        self.write("could not store tasks that move", weight, move |tx| {
            put::put(tx, &queue, &stamp, now, &load)
        })
        .await
    }

    async fn conclude(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        end: &Conclusion,
    ) -> Result<Concluded, BrokerError> {
        let (queue, end) = (queue.clone(), end.clone());
        let weight = outlast_core::limits::BATCH_TASKS_MAX;
        self.write("could not conclude a batch", weight, move |tx| {
            take::conclude(tx, &queue, &stamp, now, &end)
        })
        .await
    }

    async fn parcels(
        &self,
        queue: &QueueName,
        ids: &[TaskId],
        now: Timestamp,
    ) -> Result<Vec<Found>, BrokerError> {
        check_batch("batch of ids", ids.len())?;
        let (queue, ids) = (queue.clone(), ids.to_vec());
        self.read("could not read tasks", move |conn| take::parcels(conn, &queue, &ids, now)).await
    }

    async fn once_keys(
        &self,
        queue: &QueueName,
        cursor: Option<&Cursor>,
        now: Timestamp,
    ) -> Result<Page<OnceKey>, BrokerError> {
        let (queue, cursor) = (queue.clone(), cursor.cloned());
        self.read("could not list once keys", move |conn| {
            known::once_keys(conn, &queue, cursor.as_ref(), now)
        })
        .await
    }

    async fn hold_once(
        &self,
        queue: &QueueName,
        keys: &[OnceKey],
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        check_batch("batch of once keys", keys.len())?;
        let (queue, keys) = (queue.clone(), keys.to_vec());
        self.write("could not hold once keys", keys.len(), move |tx| {
            known::hold_once(tx, &queue, &keys, now)
        })
        .await
    }

    async fn weakness(&self) -> Result<Option<String>, BrokerError> {
        // Every step waits for the disk.
        Ok(None)
    }

    async fn schedule_states(&self, _now: Timestamp) -> Result<Vec<ScheduleState>, BrokerError> {
        self.read("could not list schedules", known::schedule_states).await
    }
}
