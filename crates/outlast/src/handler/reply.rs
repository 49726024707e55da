//! What a handler returns: anything that says how the run ended.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use outlast_core::Timestamp;
use serde::Serialize;

/// How a run ended, as its handler says.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reply {
    /// Well; the bytes are kept as the result if the task has a retention.
    Done(Option<Bytes>),
    /// Not well.
    Failed(Failure),
}

/// Why a run did not end well, and what should become of the task.
///
/// Every error converts into a `Failure` that is retried by the worker's backoff, so that `?` does what
/// one expects. The other ways out are made by name.
///
/// ```
/// use outlast::Failure;
/// use std::time::Duration;
///
/// async fn handler() -> Result<(), Failure> {
///     let text = std::fs::read_to_string("/no/such/file")?;          // retried
///     if text.is_empty() {
///         return Err(Failure::archive("the file is empty"));          // no retry
///     }
///     Err(Failure::snooze(Duration::from_secs(60)))                   // later, no retry spent
/// }
/// ```
#[derive(Debug)]
pub struct Failure {
    pub(crate) then: Then,
    error: Box<dyn StdError + Send + Sync>,
}

/// What should become of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Retry,
    RetryAt(Timestamp),
    RetryIn(Duration),
    Snooze(Duration),
    Archive,
    Revoke,
    /// The run was broken off by the worker's shutdown: nothing happened.
    Release,
}

impl Failure {
    fn new(then: Then, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { then, error: error.into() }
    }

    /// Runs again after the worker's backoff, as long as retries are left.
    pub fn retry(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Then::Retry, error)
    }

    /// Runs again at `at`, as long as retries are left.
    pub fn retry_at(at: Timestamp, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Then::RetryAt(at), error)
    }

    /// Runs again after `delay`, as long as retries are left.
    pub fn retry_in(delay: Duration, error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Then::RetryIn(delay), error)
    }

    /// Runs again after `delay`; this run counts as none.
    #[must_use]
    pub fn snooze(delay: Duration) -> Self {
        Self::new(Then::Snooze(delay), "snoozed")
    }

    /// Put among the archived, whatever retries are left.
    pub fn archive(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Then::Archive, error)
    }

    /// Dropped: no longer wanted.
    #[must_use]
    pub fn revoke() -> Self {
        Self::new(Then::Revoke, "revoked")
    }

    /// Given back as if it had never been claimed. For handlers that end early because
    /// [`Cancel`](crate::Cancel) said that the worker shuts down.
    #[must_use]
    pub fn release() -> Self {
        Self::new(Then::Release, "released")
    }

    /// The error below, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: StdError + 'static>(&self) -> Option<&E> {
        self.error.downcast_ref()
    }

    /// The error with everything below it in one line.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.error.to_string();
        let mut below = self.error.source();
        while let Some(source) = below {
            let source_text = source.to_string();
            // Some errors print their source themselves; once is enough.
            if !text.contains(&source_text) {
                text.push_str(": ");
                text.push_str(&source_text);
            }
            below = source.source();
        }
        text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

// `Failure` is no `Error` itself, or this conversion would overlap with the reflexive one.
impl<E: StdError + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::retry(error)
    }
}

/// A failure among errors, and by way of `?` in a function that returns boxed ones: a handler finds it
/// again, with what should become of the task.
impl From<Failure> for Box<dyn StdError + Send + Sync> {
    fn from(failure: Failure) -> Self {
        Box::new(Boxed(failure))
    }
}

/// The `Error` that a `Failure` cannot be itself.
#[derive(Debug)]
struct Boxed(Failure);

impl fmt::Display for Boxed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.error, f)
    }
}

impl StdError for Boxed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.error.source()
    }
}

/// A result that is stored as JSON.
#[derive(Clone, Debug)]
pub struct JsonResult<T>(pub T);

/// What a handler may return: `()`, text, bytes, [`JsonResult`], a [`Reply`], or a `Result` of one of
/// them with any error: [`Failure`], your own types that implement `Error`, boxed errors, text, and
/// whatever else converts into `Box<dyn Error + Send + Sync>`, such as `anyhow::Error`.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    label = "this handler returns `{Self}`",
    note = "return (), String, Vec<u8>, Bytes, JsonResult<T>, Reply, or a Result of one of them whose error is outlast::Failure, implements Error, or is text"
)]
pub trait IntoReply {
    /// The reply it stands for.
    fn into_reply(self) -> Reply;
}

impl IntoReply for Reply {
    fn into_reply(self) -> Reply {
        self
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Reply {
        Reply::Done(None)
    }
}

impl IntoReply for Bytes {
    fn into_reply(self) -> Reply {
        Reply::Done(Some(self))
    }
}

impl IntoReply for Vec<u8> {
    fn into_reply(self) -> Reply {
        Reply::Done(Some(self.into()))
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Reply {
        Reply::Done(Some(self.into()))
    }
}

impl IntoReply for &'static str {
    fn into_reply(self) -> Reply {
        Reply::Done(Some(Bytes::from_static(self.as_bytes())))
    }
}

impl<T: Serialize> IntoReply for JsonResult<T> {
    fn into_reply(self) -> Reply {
        match serde_json::to_vec(&self.0) {
            Ok(result) => Reply::Done(Some(result.into())),
            Err(error) => Reply::Failed(Failure::archive(error)),
        }
    }
}

// By way of the box, and not of `Into<Failure>`: `Box<dyn Error>` and text are no `Error`, so `Failure`
// cannot be made of them by `From`, but everything that is an error can be boxed.
impl<T: IntoReply, E: Into<Box<dyn StdError + Send + Sync>>> IntoReply for Result<T, E> {
    fn into_reply(self) -> Reply {
        let error = match self {
            Ok(value) => return value.into_reply(),
            Err(error) => error.into(),
        };
        Reply::Failed(match error.downcast::<Boxed>() {
            Ok(boxed) => boxed.0,
            Err(error) => Failure::retry(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("could not send")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn a_failures_text_holds_the_whole_chain_once() {
        let failure = Failure::from(Outer(std::io::Error::other("no route")));
        assert_eq!(failure.text(), "could not send: no route");
        assert!(failure.downcast_ref::<Outer>().is_some());
        assert_eq!(Failure::archive("plain text").text(), "plain text");
    }

    /// The failure that a handler's result stands for.
    fn failure_of(result: impl IntoReply) -> Failure {
        match result.into_reply() {
            Reply::Failed(failure) => failure,
            Reply::Done(_) => panic!("it ended well"),
        }
    }

    #[test]
    fn a_handler_may_return_any_error() {
        // "A Result of those with any error", said the page; boxed errors and text did not compile.
        type Boxing = Box<dyn StdError + Send + Sync>;
        let failures = [
            failure_of(Err::<(), Boxing>("why".into())),
            failure_of(Err::<(), String>("why".to_owned())),
            failure_of(Err::<(), &'static str>("why")),
            failure_of(Err::<(), std::io::Error>(std::io::Error::other("why"))),
        ];
        for failure in failures {
            assert_eq!((failure.then, failure.text()), (Then::Retry, "why".to_owned()));
        }
        assert!(failure_of(Err::<(), _>(std::fmt::Error)).downcast_ref::<fmt::Error>().is_some());
    }

    #[test]
    fn a_failure_says_what_becomes_of_the_task_also_from_within_a_box() {
        let run = || -> Result<(), Box<dyn StdError + Send + Sync>> {
            Err(Failure::archive(Outer(std::io::Error::other("no route"))))?
        };
        let text = run().expect_err("it fails").to_string();
        assert_eq!(text, "could not send");
        for failure in [failure_of(run()), failure_of(Err::<(), _>(Failure::archive("x")))] {
            assert_eq!(failure.then, Then::Archive);
        }
        assert_eq!(failure_of(run()).text(), "could not send: no route");
    }

    #[test]
    fn errors_convert_by_the_question_mark_and_are_retried() {
        let run = || -> Result<(), Failure> {
            std::fs::read("/no/such/file/anywhere")?;
            Ok(())
        };
        assert!(matches!(run().into_reply(), Reply::Failed(f) if f.then == Then::Retry));
    }
}
