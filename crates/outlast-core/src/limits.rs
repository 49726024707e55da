//! Every bound of Outlast, with its reason (law L6). What happens when one is reached is said where it
//! is enforced; nothing is dropped silently.

use std::time::Duration;

use crate::BrokerError;

/// Tasks in one batch of any verb. Throughput is flat from about 100 on, and a larger batch only makes
/// everybody else wait longer for the writer.
pub const BATCH_TASKS_MAX: usize = 256;

/// Payload bytes at which a batch is closed. A single larger task travels alone.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// The payload size a client accepts unless it is configured otherwise. Queues hold references to data;
/// whoever needs more says so.
pub const PAYLOAD_BYTES_DEFAULT: usize = 1024 * 1024;

/// The payload size no configuration can exceed: beyond it one task fills a worker's whole budget.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of a queue name, task type, task id, group or schedule name. They become parts of keys.
pub const NAME_BYTES_MAX: usize = 255;

/// Headers of one task, and the bytes of all of them together: they are read with every claim.
pub const HEADERS_MAX: usize = 64;
/// See [`HEADERS_MAX`].
pub const HEADERS_BYTES_MAX: usize = 16 * 1024;

/// Bytes kept of an error text. The beginning names the error, the rest belongs in a log.
pub const ERROR_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a task's result. As with payloads, larger results belong in a store made for them.
pub const RESULT_BYTES_MAX: usize = 1024 * 1024;

/// Retries a task may ask for. The default backoff reaches a week between tries long before.
pub const MAX_RETRY_MAX: u32 = 1_000_000;

/// Retries of a task that says nothing (asynq's default, contract §2.6).
pub const MAX_RETRY_DEFAULT: u32 = 25;

/// Run time of a task that names neither timeout nor deadline (asynq's default, contract §2.6).
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// Longest duration an option accepts (timeout, retention, delay, unique): ten years. More is a unit
/// mistaken for another.
pub const DURATION_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

/// How long a claim holds before it must be extended (asynq's lease, contract §4.5).
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);

/// Leases a task may lose before it is archived: a lost lease is not an attempt, but a task that kills
/// every worker it meets must not circulate forever.
pub const LOSSES_MAX: u32 = 25;

/// Lease tokens are below 2^20: a token is the fraction of a lease score that a double keeps exactly.
pub const LEASE_TOKEN_MAX: u32 = (1 << 20) - 1;

/// Rows one page of an inspection holds at most.
pub const PAGE_MAX: usize = 1000;

/// Tasks one bulk action touches per call; callers repeat with the cursor, so nobody waits for long.
pub const ACT_MAX: usize = 1000;

/// Tasks one sweep moves per kind of work; `more` says that the caller should sweep again.
pub const SWEEP_MAX: usize = 1000;

/// Tasks of one group that are aggregated at once, whatever the group's own `max_size` says.
pub const GROUP_SIZE_MAX: usize = 1000;

/// How long daily statistics are kept (asynq's 90 days, contract §3.0).
pub const STATS_DAYS: u32 = 90;

/// How long archived tasks are kept (asynq's 90 days, contract §1.3).
pub const ARCHIVE_AGE: Duration = Duration::from_secs(90 * 24 * 3600);

/// Ticks kept in a schedule's history (asynq's 1,000, contract §3.0).
pub const TICKS_KEPT: usize = 1000;

/// How long a schedule is still listed that its scheduler keeps no more: longer than schedulers take from beat to beat, so that
/// one that another scheduler keeps is never missing.
pub const ENDED_LISTED: Duration = Duration::from_secs(6);

/// Lanes of a session, which is to say batches of one kind that may be under way at once per queue.
pub const LANES_MAX: u16 = 64;

/// How long a session's record is kept after its last batch (design §5).
pub const SESSION_TTL: Duration = Duration::from_secs(24 * 3600);

/// Running tasks a worker lists in one beat; the rest is counted, not listed.
pub const BEAT_RUNNING_MAX: usize = 1000;

/// The longest payload that a beat shows of a running task, and the bytes of all that one beat shows: it comes every few
/// seconds. Longer ones, and those beyond, are left out: whoever wants them looks at the task.
pub const BEAT_PAYLOAD_MAX: usize = 4 * 1024;
/// See [`BEAT_PAYLOAD_MAX`].
pub const BEAT_PAYLOADS_MAX: usize = 256 * 1024;

/// Refuses a number that is zero or beyond its limit.
///
/// # Errors
/// [`Kind::Rejected`](crate::Kind::Rejected) with the name, the number and the limit.
///
/// ```
/// use outlast_core::limits::{PAGE_MAX, check_count};
/// assert!(check_count("page limit", 30, PAGE_MAX).is_ok());
/// let error = check_count("page limit", 0, PAGE_MAX).expect_err("a page of nothing");
/// assert_eq!(error.to_string(), "page limit 0 is out of bounds: 1 to 1000 are allowed");
/// ```
pub fn check_count(what: &str, count: usize, max: usize) -> Result<(), BrokerError> {
    if (1..=max).contains(&count) {
        return Ok(());
    }
    Err(BrokerError::rejected(format!("{what} {count} is out of bounds: 1 to {max} are allowed")))
}

/// As [`check_count`] for a batch: an empty one is fine, there is nothing to refuse in it.
///
/// # Errors
/// As [`check_count`].
pub fn check_batch(what: &str, count: usize) -> Result<(), BrokerError> {
    check_count(what, count.max(1), BATCH_TASKS_MAX)
}

/// The beginning of a text, at most `bytes_max` bytes of it, cut between characters.
///
/// ```
/// use outlast_core::limits::beginning;
/// assert_eq!(beginning("né", 2), "n");
/// assert_eq!(beginning("né", 3), "né");
/// ```
#[must_use]
pub fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}
