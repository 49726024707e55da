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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::oracle::{hex, unhex};

    const A: &str = "0a0a656d61696c3a73656e6412087b226964223a377d1a2431313131313131312d323232322d\
        333333332d343434342d353535353535353535353535220764656661756c74281940880e";
    const FULL: &str = "0a0a656d61696c3a73656e6412087b226964223a377d1a2431313131313131312d323232322d\
        333333332d343434342d353535353535353535353535220764656661756c74281930023a04626f6f6d40880e48\
        90fecfaa0652426173796e713a7b64656661756c747d3a756e697175653a656d61696c3a73656e643a66393039\
        363836633461646636346637613863343638623239653665363661615880e2cfaa0660901c68e4e2cfaa067202\
        67317a060a016b120176";

    fn task_a() -> TaskMessage {
        TaskMessage {
            task_type: "email:send".into(),
            payload: r#"{"id":7}"#.into(),
            id: "11111111-2222-3333-4444-555555555555".into(),
            queue: "default".into(),
            retry: 25,
            timeout: 1800,
            ..TaskMessage::default()
        }
    }

    fn full() -> TaskMessage {
        TaskMessage {
            retried: 2,
            error_msg: "boom".into(),
            deadline: 1_700_003_600,
            unique_key: "asynq:{default}:unique:email:send:f909686c4adf64f7a8c468b29e6e66aa".into(),
            last_failed_at: 1_700_000_000,
            retention: 3600,
            completed_at: 1_700_000_100,
            group_key: "g1".into(),
            headers: [("k".into(), "v".into())].into(),
            ..task_a()
        }
    }

    #[test]
    fn messages_are_the_bytes_that_go_writes() {
        for (message, bytes) in [(task_a(), A), (full(), FULL)] {
            assert_eq!(hex(&message.encode()), bytes);
            assert_eq!(TaskMessage::decode(&unhex(bytes)), Ok(message));
        }
        assert_eq!(TaskMessage::decode(&[]), Ok(TaskMessage::default()));
        assert!(TaskMessage::default().encode().is_empty());
    }

    #[test]
    fn the_last_value_of_a_field_wins_and_unknown_fields_survive() {
        // Type "a", field 16 = 1, payload "x", type "b", payload "y", field 17 = "z".
        let bytes = unhex("0a01618001011201780a01621201798a01017a");
        let message = TaskMessage::decode(&bytes).expect("a message");
        assert_eq!((&message.task_type[..], &message.payload[..]), ("b", &b"y"[..]));
        assert_eq!(hex(&message.encode()), "0a01621201798001018a01017a");
    }

    #[test]
    fn negative_numbers_take_ten_bytes() {
        let message = TaskMessage { retry: -1, timeout: -2, ..TaskMessage::default() };
        let bytes = "28ffffffffffffffffff0140feffffffffffffffff01";
        assert_eq!(hex(&message.encode()), bytes);
        assert_eq!(TaskMessage::decode(&unhex(bytes)), Ok(message));
    }

    #[test]
    fn a_poisoned_message_is_refused_with_field_and_place() {
        for (bytes, wanted) in [
            ("0a02ff61", "the text of field 1 is not UTF-8 at byte 2"),
            ("7a030a01ff", "the text of field 1 is not UTF-8 at byte 4"),
            ("0801", "field 1 is no text at byte 1"),
            ("2a0101", "field 5 is no number at byte 2"),
        ] {
            let error = TaskMessage::decode(&unhex(bytes)).expect_err(bytes);
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn half_a_header_is_an_empty_name_or_value() {
        let message = TaskMessage::decode(&unhex("7a030a016b7a03120176")).expect("a message");
        let wanted = [("k".into(), String::new()), (String::new(), "v".into())];
        assert_eq!(message.headers, wanted.into());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(message) = TaskMessage::decode(&bytes) {
                prop_assert_eq!(TaskMessage::decode(&message.encode()), Ok(message));
            }
        }

        #[test]
        fn a_damaged_message_never_panics(at in 0_usize..200, byte in any::<u8>()) {
            let mut bytes = full().encode();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = TaskMessage::decode(&bytes);
            let _ = TaskMessage::decode(&bytes[..at]);
        }
    }
}
