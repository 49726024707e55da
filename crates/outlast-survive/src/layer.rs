//! How a layer hands through the verbs that it leaves alone: it writes its own and names the others, so that a
//! reader sees at once what it changes.
//!
//! ```text
//! layer! { Journal, hands through [enqueue rest],
//!     async fn claim(…) { … }
//!     async fn settle(…) { … }
//! }
//! ```

/// Implements `Broker` for a layer whose field `below` is the next broker. `rest` stands for the verbs that
/// need no stamp: extend, sweep, wait, beat, home, health.
macro_rules! layer {
    (@ $layer:ty, [], { $($body:tt)* }) => {
        #[async_trait::async_trait]
        impl outlast_core::Broker for $layer { $($body)* }
    };
    (@ $layer:ty, [enqueue $($more:ident)*], { $($body:tt)* }) => {
        layer! { @ $layer, [$($more)*], { $($body)*
            async fn enqueue(
                &self,
                queue: &outlast_core::QueueName,
                stamp: outlast_core::Stamp,
                now: outlast_core::Timestamp,
                tasks: std::sync::Arc<[outlast_core::NewTask]>,
            ) -> Result<outlast_core::Enqueued, outlast_core::BrokerError> {
                self.below.enqueue(queue, stamp, now, tasks).await
            }
        } }
    };
    (@ $layer:ty, [claim $($more:ident)*], { $($body:tt)* }) => {
        layer! { @ $layer, [$($more)*], { $($body)*
            async fn claim(
                &self,
                queue: &outlast_core::QueueName,
                stamp: outlast_core::Stamp,
                now: outlast_core::Timestamp,
                want: &outlast_core::Want,
            ) -> Result<outlast_core::Claims, outlast_core::BrokerError> {
                self.below.claim(queue, stamp, now, want).await
            }
        } }
    };
    (@ $layer:ty, [settle $($more:ident)*], { $($body:tt)* }) => {
        layer! { @ $layer, [$($more)*], { $($body)*
            async fn settle(
                &self,
                queue: &outlast_core::QueueName,
                stamp: outlast_core::Stamp,
                now: outlast_core::Timestamp,
                settlements: std::sync::Arc<[outlast_core::Settlement]>,
            ) -> Result<outlast_core::Settled, outlast_core::BrokerError> {
                self.below.settle(queue, stamp, now, settlements).await
            }
        } }
    };
    (@ $layer:ty, [rest $($more:ident)*], { $($body:tt)* }) => {
        layer! { @ $layer, [$($more)*], { $($body)*
            async fn extend(
                &self,
                queue: &outlast_core::QueueName,
                now: outlast_core::Timestamp,
                holds: std::sync::Arc<[outlast_core::Hold]>,
                by: std::time::Duration,
            ) -> Result<Vec<outlast_core::Extended>, outlast_core::BrokerError> {
                self.below.extend(queue, now, holds, by).await
            }

            async fn sweep(
                &self,
                queue: &outlast_core::QueueName,
                now: outlast_core::Timestamp,
                budget: outlast_core::SweepBudget,
            ) -> Result<outlast_core::Swept, outlast_core::BrokerError> {
                self.below.sweep(queue, now, budget).await
            }

            async fn wait(
                &self,
                interest: &outlast_core::Interest,
                now: outlast_core::Timestamp,
                at_most: std::time::Duration,
            ) -> Result<outlast_core::Woke, outlast_core::BrokerError> {
                self.below.wait(interest, now, at_most).await
            }

            async fn beat(
                &self,
                now: outlast_core::Timestamp,
                beat: &outlast_core::Beat,
            ) -> Result<outlast_core::BeatReply, outlast_core::BrokerError> {
                self.below.beat(now, beat).await
            }

            fn home(&self, queue: &outlast_core::QueueName) -> outlast_core::Home {
                self.below.home(queue)
            }

            async fn health(
                &self,
                home: &outlast_core::Home,
                now: outlast_core::Timestamp,
            ) -> Result<outlast_core::Health, outlast_core::BrokerError> {
                self.below.health(home, now).await
            }
        } }
    };
    ($layer:ty, hands through [$($verb:ident)*], $($own:tt)*) => {
        layer! { @ $layer, [$($verb)*], { $($own)* } }
    };
}

pub(crate) use layer;
