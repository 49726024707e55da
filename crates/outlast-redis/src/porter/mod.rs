//! Either end of a move between brokers: each method of [`Porter`]. Everything goes by the admin connection,
//! in scripts of bounded size, so that workers are not held up.

mod known;
mod parcel;
mod put;
mod take;

use async_trait::async_trait;
use outlast_core::inspect::ScheduleState;
use outlast_core::porter::{Batch, Concluded, Conclusion, Delivered, Found, Load, OnceKey, Order};
use outlast_core::{BrokerError, Cursor, Page, Porter, QueueName, Stamp, TaskId, Timestamp};

use crate::broker::RedisBroker;

#[async_trait]
impl Porter for RedisBroker {
    async fn take(
        &self,
        queue: &QueueName,
        order: &Order,
        now: Timestamp,
    ) -> Result<Option<Batch>, BrokerError> {
        self.inner.take_batch(queue, order, now).await
    }

    async fn put(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        now: Timestamp,
        load: &Load,
    ) -> Result<Delivered, BrokerError> {
        self.inner.put_batch(queue, stamp, now, load).await
    }

    async fn conclude(
        &self,
        queue: &QueueName,
        stamp: Stamp,
        _: Timestamp,
        end: &Conclusion,
    ) -> Result<Concluded, BrokerError> {
        self.inner.conclude_batch(queue, stamp, end).await
    }

    async fn parcels(
        &self,
        queue: &QueueName,
        ids: &[TaskId],
        now: Timestamp,
    ) -> Result<Vec<Found>, BrokerError> {
        self.inner.parcels(queue, ids, now).await
    }

    async fn once_keys(
        &self,
        queue: &QueueName,
        cursor: Option<&Cursor>,
        now: Timestamp,
    ) -> Result<Page<OnceKey>, BrokerError> {
        self.inner.once_keys(queue, cursor, now).await
    }

    async fn hold_once(
        &self,
        queue: &QueueName,
        keys: &[OnceKey],
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        self.inner.hold_once(queue, keys, now).await
    }

    async fn weakness(&self) -> Result<Option<String>, BrokerError> {
        Ok(self.inner.weakness().await)
    }

    async fn schedule_states(&self, now: Timestamp) -> Result<Vec<ScheduleState>, BrokerError> {
        self.inner.schedule_states(now).await
    }
}
