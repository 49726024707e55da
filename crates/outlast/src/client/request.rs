//! What a caller asks for: a task, its queue and its options, checked before it goes anywhere.

use std::time::Duration;

use bytes::Bytes;
use md5::{Digest, Md5};
use outlast_core::inspect::ScheduleOptions;
use outlast_core::task::TaskError;
use outlast_core::{
    GroupName, Headers, NewTask, Once, Place, QueueName, TaskId, TaskType, Timestamp, Unique,
    limits,
};
use outlast_survive::OnOutage;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// A type of task that the compiler knows: its name, its queue, its options and the shape of its payload
/// (JSON, as serde writes it).
///
/// ```
/// use outlast::{Task, TaskRequest};
/// use serde::{Deserialize, Serialize};
/// use std::time::Duration;
///
/// #[derive(Serialize, Deserialize)]
/// struct Welcome { user: u64 }
///
/// impl Task for Welcome {
///     const TYPE: &'static str = "email:welcome";
///     const QUEUE: &'static str = "mail";
///     fn options(request: TaskRequest) -> TaskRequest {
///         request.max_retry(5).timeout(Duration::from_secs(30))
///     }
/// }
///
/// let request = TaskRequest::typed(&Welcome { user: 42 });
/// assert!(request.check_options().is_ok());
/// ```
pub trait Task: Serialize + DeserializeOwned + Send + 'static {
    /// The type's name, to which a handler is bound.
    const TYPE: &'static str;
    /// The queue, unless the caller names another.
    const QUEUE: &'static str = "default";
    /// The options, unless the caller sets others.
    #[must_use]
    fn options(request: TaskRequest) -> TaskRequest {
        request
    }
}

/// A task to be enqueued. Options are checked as they are set; the first wrong one is what `enqueue`
/// answers, so that a chain needs no `?` at every link.
///
/// ```
/// use outlast::TaskRequest;
/// use std::time::Duration;
/// let request = TaskRequest::raw("report:nightly", r#"{"day":1}"#)
///     .queue("reports")
///     .max_retry(3)
///     .delay(Duration::from_secs(60))
///     .unique(Duration::from_secs(3600));
/// assert!(request.check_options().is_ok());
/// ```
///
/// The id is chosen when the request is made, so that enqueueing it again after an error stores it once.
/// A clone has the same id for that reason: to enqueue a second task like it, give it a
/// [`fresh_id`](Self::fresh_id), or the second is refused as a conflict.
#[derive(Clone, Debug)]
pub struct TaskRequest {
    queue: QueueName,
    task: Result<NewTask>,
    delay: Option<Duration>,
    unique_ttl: Option<Duration>,
    on_outage: Option<OnOutage>,
}

impl TaskRequest {
    /// A task of raw bytes.
    #[must_use]
    pub fn raw(task_type: &str, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        let task = TaskType::new(task_type).map(|kind| NewTask::new(new_id(), kind, payload));
        Self {
            queue: QueueName::default_queue(),
            task: task.map_err(Error::from),
            delay: None,
            unique_ttl: None,
            on_outage: None,
        }
    }

    /// A typed task, with its type's queue and options.
    #[must_use]
    pub fn typed<T: Task>(task: &T) -> Self {
        let request = match serde_json::to_vec(task) {
            Ok(payload) => Self::raw(T::TYPE, payload),
            Err(error) => Self { task: Err(error.into()), ..Self::raw(T::TYPE, Bytes::new()) },
        };
        T::options(request.queue(T::QUEUE))
    }

    fn try_set(mut self, set: impl FnOnce(&mut NewTask) -> Result<()>) -> Self {
        if let Ok(task) = &mut self.task
            && let Err(error) = set(task)
        {
            self.task = Err(error);
        }
        self
    }

    fn set(self, set: impl FnOnce(&mut NewTask)) -> Self {
        self.try_set(|task| {
            set(task);
            Ok(())
        })
    }

    /// In this queue.
    #[must_use]
    pub fn queue(mut self, queue: &str) -> Self {
        match QueueName::new(queue) {
            Ok(queue) => self.queue = queue,
            Err(error) => return self.try_set(|_| Err(error.into())),
        }
        self
    }

    /// With this id instead of a fresh one; a second task of the same id in the queue is refused.
    #[must_use]
    pub fn id(self, id: &str) -> Self {
        self.try_set(|task| {
            task.id = TaskId::new(id)?;
            Ok(())
        })
    }

    /// With a fresh id: another task like this one.
    ///
    /// ```
    /// use outlast::TaskRequest;
    /// let model = TaskRequest::raw("ping", "");
    /// let pings: Vec<_> = (0..3).map(|_| model.clone().fresh_id()).collect();
    /// assert_ne!(pings[0].task_id(), pings[1].task_id());
    /// ```
    #[must_use]
    pub fn fresh_id(self) -> Self {
        self.set(|task| task.id = new_id())
    }

    /// Retries after the first run before it is archived; 25 by default.
    #[must_use]
    pub fn max_retry(self, retries: u32) -> Self {
        self.set(|task| task.max_retry = retries)
    }

    /// How long one run may take, in whole seconds.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.set(|task| task.timeout = Some(timeout))
    }

    /// When every run must be over.
    #[must_use]
    pub fn deadline(self, deadline: Timestamp) -> Self {
        self.set(|task| task.deadline = Some(deadline))
    }

    /// Not before this moment.
    #[must_use]
    pub fn at(mut self, due: Timestamp) -> Self {
        self.delay = None;
        self.set(|task| task.due = Some(due))
    }

    /// Not before this long from the moment it is enqueued; ten years at most.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = Some(delay);
        self
    }

    /// Refused as a duplicate while a task of the same type and payload in the same queue is waiting or
    /// running, at most for `ttl`.
    #[must_use]
    pub fn unique(mut self, ttl: Duration) -> Self {
        self.unique_ttl = Some(ttl);
        self
    }

    /// What becomes of it if the broker is away: stored on this machine's disk, failed at once, or failed
    /// after a wait. The client's answer ([`Client::on_outage`](crate::Client::on_outage)) unless set.
    #[must_use]
    pub fn on_outage(mut self, on_outage: OnOutage) -> Self {
        self.on_outage = Some(on_outage);
        self
    }

    pub(crate) fn outage_answer(&self) -> Option<OnOutage> {
        self.on_outage
    }

    /// Kept this long after its success, with its result.
    #[must_use]
    pub fn retention(self, retention: Duration) -> Self {
        self.set(|task| task.retention = retention)
    }

    /// Waits in this group to be aggregated with others.
    #[must_use]
    pub fn group(self, group: &str) -> Self {
        self.try_set(|task| {
            task.group = Some(GroupName::new(group)?);
            Ok(())
        })
    }

    /// With a header; one of the same name is replaced.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.try_set(|task| {
            if name.trim().is_empty() {
                return Err(Error::invalid(format!("header name {name:?} is blank")));
            }
            task.headers.insert(name.to_owned(), value.to_owned());
            Ok(())
        })
    }

    /// With all these headers.
    #[must_use]
    pub fn headers(self, headers: &Headers) -> Self {
        headers.iter().fold(self, |request, (name, value)| request.header(name, value))
    }

    /// Before everything that waits in the queue.
    #[must_use]
    pub fn front(self) -> Self {
        self.set(|task| task.place = Place::Front)
    }

    /// Accepted only if no task was ever accepted with this key within `ttl`, whatever became of it:
    /// for webhooks and other callers that repeat themselves.
    #[must_use]
    pub fn once(self, key: &str, ttl: Duration) -> Self {
        self.set(|task| task.once = Some(Once { key: key.to_owned(), ttl }))
    }

    /// Checks what can be known without the time and without a broker.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), naming the option and its value.
    pub fn check_options(&self) -> Result<()> {
        self.task.as_ref().map(|_| ()).map_err(Clone::clone)
    }

    /// Resolves the request at `now`: relative options become absolute, everything is checked.
    pub(crate) fn resolve(
        self,
        now: Timestamp,
        payload_max: usize,
    ) -> Result<(QueueName, NewTask)> {
        let mut task = self.task?;
        if let Some(delay) = self.delay {
            check_delay(delay)?;
            task.due = Some(now.plus(delay));
        }
        if let Some(ttl) = self.unique_ttl {
            task.unique = Some(Unique { digest: digest(&task.payload), ttl });
        }
        let bytes = task.payload.len();
        if bytes > payload_max {
            let limit = payload_max;
            return Err(TaskError::PayloadTooLarge { bytes, limit }.into());
        }
        task.check(now)?;
        Ok((self.queue, task))
    }

    /// What a schedule shows of its request's options.
    pub(crate) fn schedule_options(&self) -> ScheduleOptions {
        let Ok(task) = &self.task else { return ScheduleOptions::default() };
        ScheduleOptions {
            max_retry: task.max_retry,
            timeout_s: task.timeout.map(|timeout| timeout.as_secs()),
            retention_s: Some(task.retention.as_secs()).filter(|&seconds| seconds > 0),
            unique_s: self.unique_ttl.map(|ttl| ttl.as_secs()),
            group: task.group.clone(),
            headers: task.headers.clone(),
        }
    }

    /// With the options that a schedule shows.
    pub(crate) fn with_schedule_options(mut self, options: ScheduleOptions) -> Self {
        self.unique_ttl = options.unique_s.map(Duration::from_secs);
        self.set(|task| {
            task.max_retry = options.max_retry;
            task.timeout = options.timeout_s.map(Duration::from_secs);
            task.retention = Duration::from_secs(options.retention_s.unwrap_or(0));
            task.group = options.group;
            task.headers = options.headers;
        })
    }

    /// The id it will have, if the request is right so far.
    #[must_use]
    pub fn task_id(&self) -> Option<&TaskId> {
        self.task.as_ref().ok().map(|task| &task.id)
    }

    /// The queue it will go to.
    #[must_use]
    pub fn queue_name(&self) -> &QueueName {
        &self.queue
    }

    /// The payload's bytes.
    #[must_use]
    pub fn payload(&self) -> Option<&Bytes> {
        self.task.as_ref().ok().map(|task| &task.payload)
    }

    /// The type's name.
    #[must_use]
    pub fn task_type(&self) -> Option<&TaskType> {
        self.task.as_ref().ok().map(|task| &task.task_type)
    }
}

impl<T: Task> From<T> for TaskRequest {
    fn from(task: T) -> Self {
        Self::typed(&task)
    }
}

/// More than the limit is a unit mistaken for another, and would be stored as a moment all the same.
fn check_delay(delay: Duration) -> std::result::Result<(), TaskError> {
    if delay <= limits::DURATION_MAX {
        return Ok(());
    }
    let value = outlast_core::duration::format(delay);
    Err(TaskError::Duration {
        option: "delay",
        value,
        why: "is too long: at most ten years are allowed",
    })
}

/// Ids in the order of time, so that they land next to each other in an index.
pub(crate) fn new_id() -> TaskId {
    TaskId::stored(uuid::Uuid::now_v7().hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
}

/// Lower-case hex MD5 of a payload, empty for none (contract §1.5: an absent payload hashes to nothing).
fn digest(payload: &Bytes) -> String {
    use std::fmt::Write as _;
    if payload.is_empty() {
        return String::new();
    }
    Md5::digest(payload).iter().fold(String::with_capacity(32), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_seconds(1000);

    #[test]
    fn the_first_wrong_option_is_the_answer() {
        let request = TaskRequest::raw("t", "").queue(" ").id("").header("", "x");
        let error = request.resolve(NOW, 1024).expect_err("a blank queue").to_string();
        assert!(error.starts_with("queue name \" \" is blank"), "{error}");
    }

    #[test]
    fn a_delay_counts_from_the_moment_of_enqueue_and_the_last_of_two_wins() {
        let request = TaskRequest::raw("t", "").at(NOW).delay(Duration::from_secs(5));
        let (_, task) = request.resolve(NOW, 1024).expect("right");
        assert_eq!(task.due, Some(Timestamp::from_seconds(1005)));
        let request = TaskRequest::raw("t", "").delay(Duration::from_secs(5)).at(NOW);
        assert_eq!(request.resolve(NOW, 1024).expect("right").1.due, Some(NOW));
    }

    #[test]
    fn a_delay_of_more_than_ten_years_is_a_unit_mistaken_for_another() {
        // The limit named delays, and nothing compared them with it.
        let delayed = |delay| TaskRequest::raw("t", "").delay(delay).resolve(NOW, 1024);
        assert!(delayed(limits::DURATION_MAX).is_ok());
        let error = delayed(limits::DURATION_MAX + Duration::from_millis(1)).expect_err("longer");
        assert!(error.to_string().starts_with("delay "), "{error}");
        assert!(error.to_string().ends_with("is too long: at most ten years are allowed"));
    }

    #[test]
    fn the_unique_digest_is_the_one_of_the_contract() {
        let digest_of = |payload: &'static str| {
            let request = TaskRequest::raw("t", payload).unique(Duration::from_secs(1));
            request.resolve(NOW, 1024).expect("right").1.unique.expect("unique").digest
        };
        assert_eq!(digest_of(""), "");
        assert_eq!(digest_of("{}"), "99914b932bd37a50b983c5e7c90ae93b");
    }

    #[test]
    fn a_payload_over_the_clients_limit_is_refused() {
        let error = TaskRequest::raw("t", "12345").resolve(NOW, 4).expect_err("too large");
        assert!(
            error.to_string().starts_with("payload of 5 bytes is too large: at most 4"),
            "{error}"
        );
    }
}
