//! Code around every handler: one async function with `next`, or any tower layer.
//!
//! Tower stays inside (ADR 0007): a layer is taken by its bound, and nobody has to name a service type.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::util::BoxCloneSyncService;

use super::reply::Reply;
use super::router::Router;
use super::run::Run;

/// What the worker calls for each run: the router with everything that was put around it.
pub(crate) type RunService = BoxCloneSyncService<Run, Reply, Infallible>;

/// The innermost service: finds the handler and calls it.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Router>);

impl tower::Service<Run> for Service {
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, run: Run) -> Self::Future {
        let reply = self.0.call(run);
        Box::pin(async move { Ok(reply.await) })
    }
}

/// The rest of the chain, to be run once.
pub struct Next(RunService);

impl Next {
    /// Runs what is inside: further middleware, then the handler.
    pub async fn run(mut self, run: Run) -> Reply {
        match tower::Service::call(&mut self.0, run).await {
            Ok(reply) => reply,
            Err(never) => match never {},
        }
    }
}

impl std::fmt::Debug for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Next")
    }
}

/// An `around` function as a service.
#[derive(Clone)]
pub(crate) struct Around<F> {
    pub(crate) function: F,
    pub(crate) inner: RunService,
}

impl<F, Fut> tower::Service<Run> for Around<F>
where
    F: Fn(Run, Next) -> Fut,
    Fut: Future<Output = Reply> + Send + 'static,
{
    type Response = Reply;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Reply, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, run: Run) -> Self::Future {
        let reply = (self.function)(run, Next(self.inner.clone()));
        Box::pin(async move { Ok(reply.await) })
    }
}
