//! Tasks and settlements as bytes that outlive the program: what the outbox and the journal keep on disk.
//!
//! An update of the program must read what the one before it stored, so the format is our own and does not
//! follow the types by itself:
//!
//! ```text
//! record = version (1)  kind (1)  field…  crc32c of all before (4, little endian)
//! field  = tag (1)  length (4, little endian)  bytes
//! ```
//!
//! Numbers are 8 bytes, little endian; durations are milliseconds. A field that is absent is `None`, empty or
//! zero. A field is never given another meaning: a new one gets a new tag, and a reader that does not know
//! a tag refuses the record instead of dropping what it says. The bytes of today are held by a test.

use std::time::Duration;

use bytes::Bytes;

use crate::task::Headers;
use crate::{
    Attempt, GroupName, Lease, LeaseToken, NewTask, Once, Outcome, Place, Settlement, TaskId,
    TaskType, Timestamp, Unique,
};

const VERSION: u8 = 1;
const TASK: u8 = 1;
const SETTLEMENT: u8 = 2;

/// Why bytes are no record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Shorter than it says, or longer.
    #[error("record of {0} bytes is cut off")]
    CutOff(usize),
    /// The bytes are not those that were written.
    #[error("record of {0} bytes does not match its checksum")]
    Damaged(usize),
    /// Written by a program that knows more.
    #[error(
        "record has version {version} and kind {kind}, which this program does not know: update it"
    )]
    Unknown {
        /// Its version.
        version: u8,
        /// What it holds.
        kind: u8,
    },
    /// A field that this program does not know.
    #[error("record holds field {0}, which this program does not know: update it")]
    Field(u8),
    /// A field that must be there and is not, or has no valid value.
    #[error("record has no valid {0}")]
    Missing(&'static str),
}

/// A task as bytes.
///
/// ```
/// use outlast_core::record::{decode_task, encode_task};
/// use outlast_core::{NewTask, TaskId, TaskType};
/// let task = NewTask::new(TaskId::new("42")?, TaskType::new("mail")?, "hello".into());
/// assert_eq!(decode_task(&encode_task(&task)).as_ref(), Ok(&task));
/// # Ok::<(), outlast_core::NameError>(())
/// ```
#[must_use]
pub fn encode_task(task: &NewTask) -> Vec<u8> {
    let mut out = Out::new(TASK, task.payload.len());
    put_task(&mut out, task);
    out.end()
}

/// The task that [`encode_task`] made bytes of.
///
/// # Errors
/// [`RecordError`] says what is wrong with the bytes.
pub fn decode_task(bytes: &[u8]) -> Result<NewTask, RecordError> {
    take_task(fields(bytes, TASK)?)
}

/// A settlement as bytes.
#[must_use]
pub fn encode_settlement(settlement: &Settlement) -> Vec<u8> {
    let mut out = Out::new(SETTLEMENT, 0);
    put_settlement(&mut out, settlement);
    out.end()
}

/// The settlement that [`encode_settlement`] made bytes of.
///
/// # Errors
/// [`RecordError`] says what is wrong with the bytes.
pub fn decode_settlement(bytes: &[u8]) -> Result<Settlement, RecordError> {
    take_settlement(fields(bytes, SETTLEMENT)?)
}

/// Appends the fields of a task alone, without version and checksum: for memory, where nobody else writes.
pub fn append_task(bytes: &mut Vec<u8>, task: &NewTask) {
    let mut out = Out(std::mem::take(bytes));
    put_task(&mut out, task);
    *bytes = out.0;
}

/// The task that [`append_task`] made bytes of.
///
/// # Errors
/// [`RecordError`] says what is wrong with the bytes.
pub fn read_task(bytes: &[u8]) -> Result<NewTask, RecordError> {
    take_task(each_field(bytes))
}

/// Appends the fields of a settlement alone, as [`append_task`] does.
pub fn append_settlement(bytes: &mut Vec<u8>, settlement: &Settlement) {
    let mut out = Out(std::mem::take(bytes));
    put_settlement(&mut out, settlement);
    *bytes = out.0;
}

/// The settlement that [`append_settlement`] made bytes of.
///
/// # Errors
/// [`RecordError`] says what is wrong with the bytes.
pub fn read_settlement(bytes: &[u8]) -> Result<Settlement, RecordError> {
    take_settlement(each_field(bytes))
}

fn put_settlement(out: &mut Out, settlement: &Settlement) {
    let Settlement { lease: Lease { id, token, until }, outcome } = settlement;
    out.text(1, id.as_str());
    out.number(2, i64::from(token.get()));
    out.number(3, until.as_millis());
    match outcome {
        Outcome::Done { result } => {
            out.number(10, 1);
            if let Some(result) = result {
                out.field(11, result);
            }
        }
        Outcome::Retry { at, error, attempt } => {
            out.number(10, 2);
            out.number(12, at.as_millis());
            out.text(13, error);
            out.number(14, i64::from(*attempt == Attempt::Spent));
        }
        Outcome::Snooze { until } => {
            out.number(10, 3);
            out.number(12, until.as_millis());
        }
        Outcome::Archive { error } => {
            out.number(10, 4);
            out.text(13, error);
        }
        Outcome::Revoke => out.number(10, 5),
        Outcome::Release => out.number(10, 6),
        Outcome::Aggregated { into } => {
            out.number(10, 7);
            out.field(15, &encode_task(into));
        }
    }
}

fn take_settlement<'a>(
    fields: impl Iterator<Item = Result<(u8, &'a [u8]), RecordError>>,
) -> Result<Settlement, RecordError> {
    let mut parts = Parts::default();
    for field in fields {
        let (tag, value) = field?;
        match tag {
            1 => parts.id = Some(TaskId::stored(text(value, "id")?)),
            2 => parts.token = u32::try_from(number(value)?).ok().and_then(LeaseToken::new),
            3 => parts.until = Some(Timestamp::from_millis(number(value)?)),
            10 => parts.outcome = number(value)?,
            11 => parts.result = Some(Bytes::copy_from_slice(value)),
            12 => parts.at = Some(Timestamp::from_millis(number(value)?)),
            13 => text(value, "error")?.clone_into(&mut parts.error),
            14 => parts.is_spent = number(value)? != 0,
            15 => parts.into = Some(decode_task(value)?),
            other => return Err(RecordError::Field(other)),
        }
    }
    parts.settlement()
}

/// What a settlement is put together from.
#[derive(Default)]
struct Parts {
    id: Option<TaskId>,
    token: Option<LeaseToken>,
    until: Option<Timestamp>,
    outcome: i64,
    result: Option<Bytes>,
    at: Option<Timestamp>,
    error: String,
    is_spent: bool,
    into: Option<NewTask>,
}

impl Parts {
    fn settlement(self) -> Result<Settlement, RecordError> {
        let missing = RecordError::Missing;
        let lease = Lease {
            id: self.id.ok_or(missing("id"))?,
            token: self.token.ok_or(missing("token"))?,
            until: self.until.ok_or(missing("lease end"))?,
        };
        let error = self.error;
        let outcome = match self.outcome {
            1 => Outcome::Done { result: self.result },
            2 => {
                let attempt = if self.is_spent { Attempt::Spent } else { Attempt::Kept };
                Outcome::Retry { at: self.at.ok_or(missing("time"))?, error, attempt }
            }
            3 => Outcome::Snooze { until: self.at.ok_or(missing("time"))? },
            4 => Outcome::Archive { error },
            5 => Outcome::Revoke,
            6 => Outcome::Release,
            7 => Outcome::Aggregated { into: Box::new(self.into.ok_or(missing("task"))?) },
            _ => return Err(missing("outcome")),
        };
        Ok(Settlement { lease, outcome })
    }
}

/// Every field by name: one that is added to the type must be added here, or this does not compile.
fn put_task(out: &mut Out, task: &NewTask) {
    let NewTask {
        id,
        task_type,
        payload,
        headers,
        due,
        max_retry,
        timeout,
        deadline,
        retention,
        unique,
        group,
        once,
        place,
    } = task;
    out.text(1, id.as_str());
    out.text(2, task_type.as_str());
    out.field(3, payload);
    for (name, value) in headers {
        out.text(4, name);
        out.text(5, value);
    }
    out.some(6, due.map(Timestamp::as_millis));
    out.number(7, i64::from(*max_retry));
    out.some(8, timeout.map(millis));
    out.some(9, deadline.map(Timestamp::as_millis));
    out.some(10, Some(millis(*retention)).filter(|retention| *retention > 0));
    if let Some(Unique { digest, ttl }) = unique {
        out.text(11, digest);
        out.number(12, millis(*ttl));
    }
    if let Some(group) = group {
        out.text(13, group.as_str());
    }
    if let Some(Once { key, ttl }) = once {
        out.text(14, key);
        out.number(15, millis(*ttl));
    }
    out.some(16, (*place == Place::Front).then_some(1));
}

fn take_task<'a>(
    fields: impl Iterator<Item = Result<(u8, &'a [u8]), RecordError>>,
) -> Result<NewTask, RecordError> {
    let (mut id, mut task_type, mut header) = (None, None, None);
    let (mut digest, mut key) = (None, None);
    let (mut unique_ttl, mut once_ttl) = (Duration::ZERO, Duration::ZERO);
    let empty = NewTask::new(TaskId::stored(""), TaskType::stored(""), Bytes::new());
    let mut task = NewTask { headers: Headers::new(), ..empty };
    for field in fields {
        let (tag, value) = field?;
        match tag {
            1 => id = Some(TaskId::stored(text(value, "id")?)),
            2 => task_type = Some(TaskType::stored(text(value, "type")?)),
            3 => task.payload = Bytes::copy_from_slice(value),
            4 => header = Some(text(value, "header")?.to_owned()),
            5 => {
                let name = header.take().ok_or(RecordError::Missing("header"))?;
                task.headers.insert(name, text(value, "header")?.to_owned());
            }
            6 => task.due = Some(Timestamp::from_millis(number(value)?)),
            7 => task.max_retry = u32::try_from(number(value)?).unwrap_or(u32::MAX),
            8 => task.timeout = Some(duration(value)?),
            9 => task.deadline = Some(Timestamp::from_millis(number(value)?)),
            10 => task.retention = duration(value)?,
            11 => digest = Some(text(value, "digest")?.to_owned()),
            12 => unique_ttl = duration(value)?,
            13 => task.group = Some(GroupName::stored(text(value, "group")?)),
            14 => key = Some(text(value, "once key")?.to_owned()),
            15 => once_ttl = duration(value)?,
            16 => task.place = Place::Front,
            other => return Err(RecordError::Field(other)),
        }
    }
    task.id = id.ok_or(RecordError::Missing("id"))?;
    task.task_type = task_type.ok_or(RecordError::Missing("type"))?;
    task.unique = digest.map(|digest| Unique { digest, ttl: unique_ttl });
    task.once = key.map(|key| Once { key, ttl: once_ttl });
    Ok(task)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn number(value: &[u8]) -> Result<i64, RecordError> {
    let bytes = <[u8; 8]>::try_from(value).map_err(|_| RecordError::Missing("number"))?;
    Ok(i64::from_le_bytes(bytes))
}

fn duration(value: &[u8]) -> Result<Duration, RecordError> {
    Ok(Duration::from_millis(u64::try_from(number(value)?).unwrap_or(0)))
}

fn text<'a>(value: &'a [u8], what: &'static str) -> Result<&'a str, RecordError> {
    std::str::from_utf8(value).map_err(|_| RecordError::Missing(what))
}

/// A record that is being written.
struct Out(Vec<u8>);

impl Out {
    fn new(kind: u8, payload: usize) -> Self {
        let mut bytes = Vec::with_capacity(payload + 192);
        bytes.extend([VERSION, kind]);
        Self(bytes)
    }

    fn field(&mut self, tag: u8, value: &[u8]) {
        // Whatever is stored has passed the limits of a task, which are far below this.
        let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
        self.0.push(tag);
        self.0.extend(length.to_le_bytes());
        self.0.extend(value);
    }

    fn text(&mut self, tag: u8, value: &str) {
        self.field(tag, value.as_bytes());
    }

    fn number(&mut self, tag: u8, value: i64) {
        self.field(tag, &value.to_le_bytes());
    }

    fn some(&mut self, tag: u8, value: Option<i64>) {
        if let Some(value) = value {
            self.number(tag, value);
        }
    }

    fn end(mut self) -> Vec<u8> {
        let sum = crc32c(&self.0);
        self.0.extend(sum.to_le_bytes());
        self.0
    }
}

/// The fields of a record of this kind, once its checksum was found right.
fn fields(
    bytes: &[u8],
    kind: u8,
) -> Result<impl Iterator<Item = Result<(u8, &[u8]), RecordError>>, RecordError> {
    let Some((body, sum)) = bytes.split_last_chunk::<4>().filter(|(body, _)| body.len() >= 2)
    else {
        return Err(RecordError::CutOff(bytes.len()));
    };
    if crc32c(body) != u32::from_le_bytes(*sum) {
        return Err(RecordError::Damaged(bytes.len()));
    }
    if body[..2] != [VERSION, kind] {
        return Err(RecordError::Unknown { version: body[0], kind: body[1] });
    }
    Ok(each_field(&body[2..]))
}

fn each_field(bytes: &[u8]) -> impl Iterator<Item = Result<(u8, &[u8]), RecordError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = next_field(&mut rest).ok_or(RecordError::CutOff(bytes.len()));
        if field.is_err() {
            rest = &[];
        }
        Some(field)
    })
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, after) = rest.split_first()?;
    let (length, after) = after.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (value, after) = after.split_at_checked(length)?;
    *rest = after;
    Some((tag, value))
}

/// CRC-32C (Castagnoli), eight bytes at a time: a stored task is summed up once when it is written and twice when it is
/// delivered.
fn crc32c(bytes: &[u8]) -> u32 {
    static TABLES: [[u32; 256]; 8] = tables();
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(!0, |sum: u32, word| {
        let word = (u64::from_le_bytes(*word) ^ u64::from(sum)).to_le_bytes();
        let each = word.iter().zip(TABLES.iter().rev());
        each.fold(0, |sum, (byte, table)| sum ^ table[usize::from(*byte)])
    });
    !rest.iter().fold(sum, |sum, byte| (sum >> 8) ^ TABLES[0][usize::from(sum as u8 ^ byte)])
}

/// What each byte adds to the sum, and what it adds when one to seven others follow it.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = (sum >> 1) ^ (0x82f6_3b78 * (sum & 1));
            bit += 1;
        }
        tables[0][byte] = sum;
        byte += 1;
    }
    let mut behind = 1;
    while behind < 8 {
        let mut byte = 0;
        while byte < 256 {
            let sum = tables[behind - 1][byte];
            tables[behind][byte] = (sum >> 8) ^ tables[0][(sum & 0xff) as usize];
            byte += 1;
        }
        behind += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_task() -> NewTask {
        let (id, name) = (TaskId::stored("id-1"), TaskType::stored("mail"));
        let mut task = NewTask::new(id, name, Bytes::from_static(b"\0payload"));
        task.headers = [("a".into(), "1".into()), ("b".into(), "ü".into())].into();
        task.due = Some(Timestamp::from_millis(1_795_500_000_123));
        task.max_retry = 3;
        task.timeout = Some(Duration::from_secs(60));
        task.deadline = Some(Timestamp::from_seconds(1_795_600_000));
        task.retention = Duration::from_secs(3600);
        task.unique = Some(Unique { digest: "d41d8cd9".into(), ttl: Duration::from_secs(5) });
        task.group = Some(GroupName::stored("g"));
        task.once = Some(Once { key: "k".into(), ttl: Duration::from_secs(7) });
        task.place = Place::Front;
        task
    }

    fn settlements() -> Vec<Settlement> {
        let at = Timestamp::from_seconds(1_795_500_000);
        let error = String::from("no route to host");
        let spent = Attempt::Spent;
        let outcomes = [
            Outcome::Done { result: None },
            Outcome::Done { result: Some(Bytes::from_static(b"42")) },
            Outcome::Retry { at, error: error.clone(), attempt: spent },
            Outcome::Retry { at, error: error.clone(), attempt: Attempt::Kept },
            Outcome::Snooze { until: at },
            Outcome::Archive { error },
            Outcome::Revoke,
            Outcome::Release,
            Outcome::Aggregated { into: Box::new(full_task()) },
        ];
        let token = LeaseToken::new(77).expect("a token");
        let lease = |n: usize| Lease { id: TaskId::stored(&format!("t{n}")), token, until: at };
        let settlement = |(n, outcome)| Settlement { lease: lease(n), outcome };
        outcomes.into_iter().enumerate().map(settlement).collect()
    }

    #[test]
    fn what_was_written_is_read_back_whole() {
        let plain = NewTask::new(TaskId::stored("1"), TaskType::stored("t"), Bytes::new());
        for task in [plain, full_task()] {
            assert_eq!(decode_task(&encode_task(&task)), Ok(task));
        }
        for settlement in settlements() {
            assert_eq!(decode_settlement(&encode_settlement(&settlement)), Ok(settlement));
        }
    }

    #[test]
    fn what_was_appended_to_other_bytes_is_read_back_from_behind_them() {
        let before = b"before".to_vec();
        let mut bytes = before.clone();
        append_task(&mut bytes, &full_task());
        assert!(bytes.starts_with(&before));
        assert_eq!(read_task(&bytes[before.len()..]), Ok(full_task()));
        for settlement in settlements() {
            let mut bytes = before.clone();
            append_settlement(&mut bytes, &settlement);
            assert_eq!(read_settlement(&bytes[before.len()..]), Ok(settlement));
        }
    }

    /// What the first release has written lies on disks. These bytes change only if every one of them can
    /// still be read: add records, change none.
    #[test]
    fn records_of_the_first_release_are_read_and_written_as_they_were() {
        let golden = include_str!("record.golden");
        let hex =
            |bytes: Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let mut written = vec![hex(encode_task(&full_task()))];
        written.extend(settlements().iter().map(|settlement| hex(encode_settlement(settlement))));
        assert_eq!(written, golden.lines().collect::<Vec<_>>(), "{}", written.join("\n"));
    }

    #[test]
    fn no_bit_of_a_record_can_flip_unseen() {
        let bytes = encode_task(&full_task());
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode_task(&flipped).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(decode_task(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn a_field_of_a_newer_program_is_refused_and_not_dropped() {
        let mut out = Out::new(TASK, 0);
        out.text(1, "id");
        out.text(2, "type");
        out.text(200, "what is to come");
        assert_eq!(decode_task(&out.end()), Err(RecordError::Field(200)));
        let newer = Out(vec![2, TASK]).end();
        assert_eq!(decode_task(&newer), Err(RecordError::Unknown { version: 2, kind: TASK }));
        assert!(decode_settlement(&encode_task(&full_task())).is_err(), "another kind");
    }

    #[test]
    fn the_checksum_is_the_one_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        let counted: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&counted), 0x46dd_794e);
    }
}
