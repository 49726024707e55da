//! Handlers are plain async functions. This module turns them into one shape that the worker can call.

mod extract;
mod function;
mod middleware;
mod reply;
mod router;
mod run;

pub use extract::{
    Attempt, Cancel, FromRun, Json, Payload, RawPayload, ResultWriter, State, TaskHeaders, TaskInfo,
};
pub use function::{Blocking, Handler, blocking};
pub use middleware::Next;
pub(crate) use middleware::{Around, RunService, Service};
pub(crate) use reply::Then;
pub use reply::{Failure, IntoReply, JsonResult, Reply};
pub(crate) use router::Router;
pub use run::{CancelReason, Run};
pub(crate) use run::{States, lock};
