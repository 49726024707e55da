//! `TaskMessage`: what asynq stores of a task in the `msg` field of its hash (contract §2.1).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::wire::{DecodeError, Field, Fields, Writer, entry};

/// A task as every program of the system reads it. Zero and empty stand for "none".
///
/// Fields that a newer asynq may have added are kept in `unknown` and written back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskMessage {
    /// Which handler runs it.
    pub(crate) task_type: String,
    /// What the handler gets. None and empty are the same here.
    pub(crate) payload: Bytes,
    /// Its id; the id in the key is the one that counts.
    pub(crate) id: String,
    /// Its queue; the queue in the key is the one that counts.
    pub(crate) queue: String,
    /// Retries before it is archived.
    pub(crate) retry: i32,
    /// Retries so far.
    pub(crate) retried: i32,
    /// The last error's text.
    pub(crate) error_msg: String,
    /// How long a run may take, in seconds.
    pub(crate) timeout: i64,
    /// When every run must be over, in Unix seconds.
    pub(crate) deadline: i64,
    /// The whole key of the lock that it holds.
    pub(crate) unique_key: String,
    /// When it failed last, in Unix seconds.
    pub(crate) last_failed_at: i64,
    /// How long it is kept after its success, in seconds.
    pub(crate) retention: i64,
    /// When it succeeded, in Unix seconds.
    pub(crate) completed_at: i64,
    /// The group that it belongs to.
    pub(crate) group_key: String,
    /// Metadata that travels with it.
    pub(crate) headers: BTreeMap<String, String>,
    /// Fields we do not know, as they stood there.
    pub(crate) unknown: Vec<u8>,
}

impl TaskMessage {
    /// The message as bytes: known fields in the order of their numbers, then the unknown ones.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_room(self.room());
        out.bytes(1, self.task_type.as_bytes());
        out.bytes(2, &self.payload);
        out.bytes(3, self.id.as_bytes());
        out.bytes(4, self.queue.as_bytes());
        out.number(5, self.retry.into());
        out.number(6, self.retried.into());
        out.bytes(7, self.error_msg.as_bytes());
        out.number(8, self.timeout);
        out.number(9, self.deadline);
        out.bytes(10, self.unique_key.as_bytes());
        out.number(11, self.last_failed_at);
        out.number(12, self.retention);
        out.number(13, self.completed_at);
        out.bytes(14, self.group_key.as_bytes());
        for (name, value) in &self.headers {
            // Go writes both halves of an entry, also where they are empty.
            let mut entry = Writer::with_room(name.len() + value.len() + 12);
            entry.always_bytes(1, name.as_bytes());
            entry.always_bytes(2, value.as_bytes());
            out.always_bytes(15, &entry.finish());
        }
        out.raw(&self.unknown);
        out.finish()
    }

    /// Enough for most messages; a message of great numbers grows once.
    fn room(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(k, v)| k.len() + v.len() + 12).sum();
        let texts = self.task_type.len() + self.id.len() + self.queue.len() + self.error_msg.len();
        let keys = self.unique_key.len() + self.group_key.len() + self.unknown.len();
        texts + keys + self.payload.len() + headers + 80
    }

    /// Reads a message. Of a field that stands there twice the last one counts.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the bytes, and where.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut message = Self::default();
        // Payloads are large: only the last one is copied, and once.
        let mut payload: &[u8] = &[];
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                2 => payload = field.bytes()?,
                _ => message.take(&field)?,
            }
        }
        message.payload = Bytes::copy_from_slice(payload);
        Ok(message)
    }

    fn take(&mut self, field: &Field<'_>) -> Result<(), DecodeError> {
        match field.number {
            1 => self.task_type = field.text()?.to_owned(),
            3 => self.id = field.text()?.to_owned(),
            4 => self.queue = field.text()?.to_owned(),
            5 => self.retry = field.int32()?,
            6 => self.retried = field.int32()?,
            7 => self.error_msg = field.text()?.to_owned(),
            8 => self.timeout = field.int64()?,
            9 => self.deadline = field.int64()?,
            10 => self.unique_key = field.text()?.to_owned(),
            11 => self.last_failed_at = field.int64()?,
            12 => self.retention = field.int64()?,
            13 => self.completed_at = field.int64()?,
            14 => self.group_key = field.text()?.to_owned(),
            15 => {
                let (name, value) = entry(field)?;
                self.headers.insert(text_of(name)?, text_of(value)?);
            }
            _ => self.unknown.extend_from_slice(field.raw),
        }
        Ok(())
    }
}

/// The text of half a map entry; an absent one is empty.
pub(super) fn text_of(half: Option<Field<'_>>) -> Result<String, DecodeError> {
    half.map_or(Ok(String::new()), |half| half.text().map(str::to_owned))
}
