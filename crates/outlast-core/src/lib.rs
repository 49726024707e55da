//! The words and the laws of Outlast: types, the state table, retry and schedule maths, and the two
//! traits every broker implements, [`Broker`] and [`Inspect`].
//!
//! This crate does no I/O, knows no runtime and reads no clock: time is an argument (law L7), so every
//! function here gives the same answer for the same arguments. It is internal to the `outlast` crate,
//! which re-exports what its users need; the version numbers move together.
//!
//! Reading order: [`limits`] (what is bounded), [`state`] (what may happen to a task), [`broker`] (the
//! few verbs), [`inspect`] (the few questions), [`session`] (why a batch can be repeated), [`porter`] (how
//! tasks move between brokers).

pub mod broker;
pub mod duration;
pub mod error;
pub mod fsck;
pub mod group_looks;
pub mod inspect;
pub mod limits;
pub mod login;
pub mod name;
pub mod outcome;
pub mod pick;
pub mod porter;
pub mod record;
pub mod retry;
pub mod schedule;
pub mod session;
pub mod state;
pub mod task;
pub mod time;

pub use broker::{
    Beat, BeatReply, Broker, Claim, ClaimedGroup, ClaimedTask, Claims, Command, EnqueueVerdict,
    Enqueued, Epoch, Extended, GroupPolicy, Health, Held, Hold, Home, Interest, Lost, Memory,
    Reject, Rest, Role, SettleVerdict, Settled, SweepBudget, Swept, Want, Woke, WorkerBeat,
};
pub use error::{BrokerError, Kind};
pub use fsck::{Defect, Finding, Fsck, FsckStep, Repair};
pub use group_looks::GroupLooks;
pub use inspect::{
    Acted, Action, Controlled, Cursor, DayStats, GroupStats, Inspect, Page, PageRequest,
    QueueControl, QueueStats, Refusal, ScheduleControl, ScheduleView, Selector, WorkerView,
};
pub use login::{Credentials, Login};
pub use name::{GroupName, NameError, QueueName, ScheduleName, TaskId, TaskType};
pub use outcome::{Attempt, Outcome, Settlement};
pub use porter::Porter;
pub use retry::Backoff;
pub use session::{Durability, Session, SessionId, Stamp};
pub use state::TaskState;
pub use task::{Headers, Lease, LeaseToken, NewTask, Once, Place, TaskRecord, Unique};
pub use time::Timestamp;
