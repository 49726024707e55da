//! Outlast runs your background tasks, and keeps its promises while the broker is down.
//!
//! One file to start: the embedded broker needs no server. Any number of processes can share it.
//!
//! ```
//! use outlast::{Client, Failure, Payload, Task, Worker};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Welcome { user: u64 }
//!
//! impl Task for Welcome {
//!     const TYPE: &'static str = "email:welcome";
//!     const QUEUE: &'static str = "mail";
//! }
//!
//! async fn welcome(Payload(mail): Payload<Welcome>) -> Result<(), Failure> {
//!     println!("welcome, user {}", mail.user);
//!     Ok(())                                       // an Err is retried, with asynq's backoff
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> outlast::Result<()> {
//! let client = Client::open("sqlite::memory:").await?;       // or sqlite://tasks.db
//! let receipt = client.enqueue(Welcome { user: 42 }).await?;
//! println!("{receipt}");
//!
//! Worker::new(&client).queue("mail", 6).queue("default", 1).handle(welcome).exit_when_empty().run().await?;
//! # Ok(()) }
//! ```
//!
//! * [`Client`] enqueues: one task or many, now or later, unique, grouped, retained.
//! * [`Worker`] runs: handlers are async functions whose arguments say what they need.
//! * [`Schedule`] repeats: cron, time zones, no leader, each tick once.
//! * [`Inspector`] looks and acts: what the program `outlast` is made of.
//! * [`migration`] moves everything to another broker, while both are in use.
//! * [`testing`] is for your own tests: a broker in memory and a clock that stands still.
//!
//! # Features
//! `sqlite` (default): the embedded broker.

mod client;
mod clock;
mod connect;
mod error;
mod handler;
mod host;
mod inspector;
mod lanes;
mod mask;
pub mod migration;
mod open;
mod readiness;
mod schedule;
mod signal;
pub mod survive;
pub mod testing;
mod view;
mod worker;

pub use client::{Client, Enqueue, Receipt, Task, TaskRequest, Verdict};
pub use clock::Clock;
pub use connect::Connection;
pub use error::{Error, ErrorKind, Result};
pub use handler::{
    Attempt, Blocking, Cancel, CancelReason, Failure, FromRun, Handler, IntoReply, Json,
    JsonResult, Next, Payload, RawPayload, Reply, ResultWriter, Run, State, TaskHeaders, TaskInfo,
    blocking,
};
pub use inspector::Inspector;
pub use mask::mask_url;
pub use open::ConnectionBuilder;
pub use readiness::Readiness;
pub use schedule::{Schedule, Scheduler};
pub use signal::shutdown_signal;
pub use survive::OnOutage;
pub use view::TaskView;
pub use worker::{GroupBatch, Phase, QueueOptions, Summary, Worker, WorkerControl};

pub use outlast_core::fsck::{Defect, Finding, Fsck, FsckStep, Repair};
pub use outlast_core::inspect::{
    PriorityName, RunningTask, ScheduleOptions, ScheduleState, TickRecord, WorkerStatus,
};
pub use outlast_core::schedule::{Cron, CronError, Missed};
pub use outlast_core::{
    Acted, Action, Backoff, Broker, BrokerError, Controlled, Credentials, Cursor, DayStats,
    Durability, GroupName, GroupPolicy, GroupStats, Headers, Inspect, Kind, NameError, Page,
    PageRequest, QueueControl, QueueName, QueueStats, Refusal, ScheduleName, ScheduleView,
    Selector, TaskId, TaskRecord, TaskState, TaskType, Timestamp, WorkerView, duration, limits,
};

/// Everything a broker of your own needs to implement [`Broker`] and [`Inspect`].
pub mod broker {
    pub use outlast_core::broker::{
        Beat, BeatReply, Broker, Claim, ClaimedGroup, ClaimedTask, Claims, Command, EnqueueVerdict,
        Enqueued, Epoch, Extended, Health, Hold, Home, Interest, Lost, Memory, Recovery, Reject,
        Rest, Role, SettleVerdict, Settled, SweepBudget, Swept, Want, Woke, WorkerBeat, tick_id,
    };
    pub use outlast_core::{
        Attempt, Lease, LeaseToken, NewTask, Once, Outcome, Place, Porter, SessionId, Settlement,
        Stamp, Unique, porter, session, state,
    };
}
