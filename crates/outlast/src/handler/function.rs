//! From a function to a handler: an implementation for every number of arguments.

use std::future::Future;
use std::pin::Pin;

use super::extract::{FromRun, Needs};
use super::reply::{Failure, IntoReply, Reply};
use super::run::{Run, States, lock};

/// An async function whose arguments can be made from a run and whose result says how it ended.
///
/// `Args` is only there to tell functions of different arguments apart; it is never named.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no handler",
    label = "not a handler",
    note = "a handler is an async fn (or a closure that returns a future) of up to eight arguments that implement outlast::FromRun, such as Payload<T>, State<T> or TaskInfo; its result is (), text, bytes, or a Result of those; its future must be Send"
)]
pub trait Handler<Args>: Clone + Send + Sync + 'static {
    /// The task type that an argument implies.
    const TASK_TYPE: Option<&'static str>;

    /// Makes the arguments and runs the function.
    fn call(self, run: Run) -> impl Future<Output = Reply> + Send;

    /// What the arguments lack in this worker.
    #[doc(hidden)]
    fn missing(needs: &Needs<'_>) -> Vec<String>;
}

const fn first(types: &[Option<&'static str>]) -> Option<&'static str> {
    let mut at = 0;
    while at < types.len() {
        if types[at].is_some() {
            return types[at];
        }
        at += 1;
    }
    None
}

macro_rules! handler {
    ($($name:ident: $Arg:ident),*) => {
        impl<F, Fut, Out, $($Arg),*> Handler<($($Arg,)*)> for F
        where
            F: Fn($($Arg),*) -> Fut + Clone + Send + Sync + 'static,
            Fut: Future<Output = Out> + Send,
            Out: IntoReply,
            $($Arg: FromRun + Send,)*
        {
            const TASK_TYPE: Option<&'static str> = first(&[$($Arg::TASK_TYPE),*]);

            async fn call(self, run: Run) -> Reply {
                $(let $name = match $Arg::from_run(&run) {
                    Ok(arg) => arg,
                    Err(failure) => return Reply::Failed(failure),
                };)*
                // A handler that takes no run has no use for it while it runs.
                drop(run);
                self($($name),*).await.into_reply()
            }

            fn missing(needs: &Needs<'_>) -> Vec<String> {
                let ask: &[fn(&Needs<'_>) -> Option<String>] = &[$($Arg::missing),*];
                ask.iter().filter_map(|missing| missing(needs)).collect()
            }
        }
    };
}

handler!();
handler!(a: A);
handler!(a: A, b: B);
handler!(a: A, b: B, c: C);
handler!(a: A, b: B, c: C, d: D);
handler!(a: A, b: B, c: C, d: D, e: E);
handler!(a: A, b: B, c: C, d: D, e: E, f: G);
handler!(a: A, b: B, c: C, d: D, e: E, f: G, g: H);
handler!(a: A, b: B, c: C, d: D, e: E, f: G, g: H, h: I);

/// A handler that blocks its thread, made by [`blocking`].
#[derive(Clone, Debug)]
pub struct Blocking<F>(F);

/// Runs a plain function as a handler on the runtime's blocking pool. It takes one argument, the
/// [`Run`], and cannot be dropped: after a deadline it goes on until it looks at
/// [`Run::cancel_reason`], and keeps its slot so long.
///
/// ```
/// use outlast::{Run, blocking};
/// let hash = blocking(|run: Run| {
///     let sum: u64 = run.task().payload.iter().map(|&byte| u64::from(byte)).sum();
///     sum.to_string()
/// });
/// # let _ = hash;
/// ```
pub fn blocking<F, Out>(function: F) -> Blocking<F>
where
    F: Fn(Run) -> Out + Clone + Send + Sync + 'static,
    Out: IntoReply,
{
    Blocking(function)
}

/// Tells blocking handlers from the others; never named.
#[doc(hidden)]
#[derive(Debug)]
pub struct OnThread;

impl<F, Out> Handler<OnThread> for Blocking<F>
where
    F: Fn(Run) -> Out + Clone + Send + Sync + 'static,
    Out: IntoReply,
{
    const TASK_TYPE: Option<&'static str> = None;

    async fn call(self, run: Run) -> Reply {
        let slot = lock(&run.inner.slot).clone();
        let work = move || {
            let reply = (self.0)(run).into_reply();
            drop(slot);
            reply
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(reply) => reply,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => Reply::Failed(Failure::retry(error)),
            },
        }
    }

    fn missing(_: &Needs<'_>) -> Vec<String> {
        Vec::new()
    }
}

/// A handler whose types are forgotten.
pub(crate) type ErasedHandler =
    std::sync::Arc<dyn Fn(Run) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync>;

/// Forgets the types of a handler.
pub(crate) fn erase<A: 'static, H: Handler<A>>(handler: H) -> ErasedHandler {
    std::sync::Arc::new(move |run| Box::pin(handler.clone().call(run)))
}

/// What a handler lacks, asked when the worker starts.
pub(crate) type Missing = fn(&States) -> Vec<String>;

pub(crate) fn missing_of<A: 'static, H: Handler<A>>() -> Missing {
    |states| H::missing(&Needs(states))
}
