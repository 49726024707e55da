//! asynq's protobuf messages: what is stored of tasks, servers, workers and schedulers (contract §2).
//!
//! The codec is our own because a task's message outlives the program that wrote it: fields that we do
//! not know must survive when we rewrite it. Reading never panics, whatever the bytes are.

pub(crate) mod fleet;
pub(crate) mod options;
#[cfg(test)]
mod oracle;
pub(crate) mod task;
pub(crate) mod wire;

pub(crate) use fleet::{SchedulerEnqueueEvent, SchedulerEntry, ServerInfo, WorkerInfo};
pub(crate) use task::TaskMessage;
pub(crate) use wire::DecodeError;
