//! What asynq's servers and schedulers tell about themselves: `ServerInfo`, `WorkerInfo`,
//! `SchedulerEntry`, `SchedulerEnqueueEvent` (contract §2.2 … §2.5).
//!
//! All of them are written anew with every beat by whoever they describe, so unknown fields are not
//! kept: nobody rewrites what another program wrote.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::task::text_of;
use super::wire::{DecodeError, Field, Fields, Writer, entry};

/// A moment on the wire: `google.protobuf.Timestamp`.
///
/// "Never" is Go's zero time, the first second of the year 1, and written like any other moment: Go
/// reads an absent one as 1970 (contract §2.4). Read, an absent one is [`Timestamp::NEVER`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timestamp {
    /// Seconds since the Unix epoch.
    pub(crate) seconds: i64,
    /// Nanoseconds on top, 0 … 999,999,999.
    pub(crate) nanos: i32,
}

impl Timestamp {
    /// Go's zero time.
    pub(crate) const NEVER: Timestamp = Timestamp { seconds: -62_135_596_800, nanos: 0 };

    /// The moment, rounded down to the millisecond and held to the range that can be shown; `None` for
    /// "never".
    pub(crate) fn moment(self) -> Option<outlast_core::Timestamp> {
        let millis = i64::from(self.nanos).div_euclid(1_000_000);
        let millis = self.seconds.saturating_mul(1000).saturating_add(millis);
        (self != Self::NEVER).then_some(outlast_core::Timestamp::from_millis(millis))
    }

    fn write(self, out: &mut Writer, number: u32) {
        let mut inner = Writer::with_room(20);
        inner.number(1, self.seconds);
        inner.number(2, self.nanos.into());
        out.always_bytes(number, &inner.finish());
    }

    /// Reads a moment into `into`; one that stands there twice is merged, as protobuf wants it.
    fn read(into: &mut Option<Timestamp>, field: &Field<'_>) -> Result<(), DecodeError> {
        let mut time = into.unwrap_or(Timestamp { seconds: 0, nanos: 0 });
        for inner in field.message()? {
            let inner = inner?;
            match inner.number {
                1 => time.seconds = inner.int64()?,
                2 => time.nanos = inner.int32()?,
                _ => {}
            }
        }
        *into = Some(time);
        Ok(())
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::NEVER
    }
}

impl From<outlast_core::Timestamp> for Timestamp {
    fn from(moment: outlast_core::Timestamp) -> Self {
        let millis = moment.as_millis().rem_euclid(1000);
        let nanos = i32::try_from(millis * 1_000_000).unwrap_or(0);
        Self { seconds: moment.as_seconds(), nanos }
    }
}

impl From<Option<outlast_core::Timestamp>> for Timestamp {
    fn from(moment: Option<outlast_core::Timestamp>) -> Self {
        moment.map_or(Self::NEVER, Self::from)
    }
}

/// A server as it shows itself, in `<root>:servers:{…}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerInfo {
    /// Where it runs.
    pub(crate) host: String,
    /// Its process.
    pub(crate) pid: i32,
    /// Its name, a UUID.
    pub(crate) server_id: String,
    /// How many tasks it runs at once.
    pub(crate) concurrency: i32,
    /// Its queues with their weights, as configured.
    pub(crate) queues: BTreeMap<String, i32>,
    /// Whether greater weights always go first.
    pub(crate) strict_priority: bool,
    /// `new`, `active`, `stopped` or `closed`.
    pub(crate) status: String,
    /// When it started.
    pub(crate) start_time: Timestamp,
    /// How many tasks it runs now.
    pub(crate) active_worker_count: i32,
}

impl ServerInfo {
    /// The message as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.bytes(1, self.host.as_bytes());
        out.number(2, self.pid.into());
        out.bytes(3, self.server_id.as_bytes());
        out.number(4, self.concurrency.into());
        for (queue, weight) in &self.queues {
            let mut entry = Writer::with_room(queue.len() + 24);
            entry.always_bytes(1, queue.as_bytes());
            entry.always_number(2, i64::from(*weight));
            out.always_bytes(5, &entry.finish());
        }
        out.number(6, self.strict_priority.into());
        out.bytes(7, self.status.as_bytes());
        self.start_time.write(&mut out, 8);
        out.number(9, self.active_worker_count.into());
        out.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the bytes, and where.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut info, mut start) = (Self::default(), None);
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => info.host = field.text()?.to_owned(),
                2 => info.pid = field.int32()?,
                3 => info.server_id = field.text()?.to_owned(),
                4 => info.concurrency = field.int32()?,
                5 => {
                    let (queue, weight) = entry(&field)?;
                    let weight = weight.map_or(Ok(0), |weight| weight.int32())?;
                    info.queues.insert(text_of(queue)?, weight);
                }
                6 => info.strict_priority = field.fact()?,
                7 => info.status = field.text()?.to_owned(),
                8 => Timestamp::read(&mut start, &field)?,
                9 => info.active_worker_count = field.int32()?,
                _ => {}
            }
        }
        info.start_time = start.unwrap_or_default();
        Ok(info)
    }
}

/// A running task as its server shows it, in `<root>:workers:{…}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WorkerInfo {
    /// Where it runs.
    pub(crate) host: String,
    /// Its process.
    pub(crate) pid: i32,
    /// The server's name.
    pub(crate) server_id: String,
    /// The task.
    pub(crate) task_id: String,
    /// Its type.
    pub(crate) task_type: String,
    /// Its payload.
    pub(crate) task_payload: Bytes,
    /// Its queue.
    pub(crate) queue: String,
    /// When the run began.
    pub(crate) start_time: Timestamp,
    /// When it must be over.
    pub(crate) deadline: Timestamp,
}

impl WorkerInfo {
    /// The message as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_room(self.task_payload.len() + 256);
        out.bytes(1, self.host.as_bytes());
        out.number(2, self.pid.into());
        out.bytes(3, self.server_id.as_bytes());
        out.bytes(4, self.task_id.as_bytes());
        out.bytes(5, self.task_type.as_bytes());
        out.bytes(6, &self.task_payload);
        out.bytes(7, self.queue.as_bytes());
        self.start_time.write(&mut out, 8);
        self.deadline.write(&mut out, 9);
        out.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the bytes, and where.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut info, mut start, mut deadline) = (Self::default(), None, None);
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => info.host = field.text()?.to_owned(),
                2 => info.pid = field.int32()?,
                3 => info.server_id = field.text()?.to_owned(),
                4 => info.task_id = field.text()?.to_owned(),
                5 => info.task_type = field.text()?.to_owned(),
                6 => info.task_payload = Bytes::copy_from_slice(field.bytes()?),
                7 => info.queue = field.text()?.to_owned(),
                8 => Timestamp::read(&mut start, &field)?,
                9 => Timestamp::read(&mut deadline, &field)?,
                _ => {}
            }
        }
        info.start_time = start.unwrap_or_default();
        info.deadline = deadline.unwrap_or_default();
        Ok(info)
    }
}

/// What a scheduler enqueues and when, an element of `<root>:schedulers:{…}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchedulerEntry {
    /// The entry's name.
    pub(crate) id: String,
    /// When it fires: a cron expression or `@every …`.
    pub(crate) spec: String,
    /// The type of its tasks.
    pub(crate) task_type: String,
    /// Their payload.
    pub(crate) task_payload: Bytes,
    /// Their options as texts; see [`options`](super::options).
    pub(crate) enqueue_options: Vec<String>,
    /// When it fires next.
    pub(crate) next_enqueue_time: Timestamp,
    /// When it fired last.
    pub(crate) prev_enqueue_time: Timestamp,
}

impl SchedulerEntry {
    /// The message as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_room(self.task_payload.len() + 256);
        out.bytes(1, self.id.as_bytes());
        out.bytes(2, self.spec.as_bytes());
        out.bytes(3, self.task_type.as_bytes());
        out.bytes(4, &self.task_payload);
        for option in &self.enqueue_options {
            out.always_bytes(5, option.as_bytes());
        }
        self.next_enqueue_time.write(&mut out, 6);
        self.prev_enqueue_time.write(&mut out, 7);
        out.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the bytes, and where.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut entry, mut next, mut prev) = (Self::default(), None, None);
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => entry.id = field.text()?.to_owned(),
                2 => entry.spec = field.text()?.to_owned(),
                3 => entry.task_type = field.text()?.to_owned(),
                4 => entry.task_payload = Bytes::copy_from_slice(field.bytes()?),
                5 => entry.enqueue_options.push(field.text()?.to_owned()),
                6 => Timestamp::read(&mut next, &field)?,
                7 => Timestamp::read(&mut prev, &field)?,
                _ => {}
            }
        }
        entry.next_enqueue_time = next.unwrap_or_default();
        entry.prev_enqueue_time = prev.unwrap_or_default();
        Ok(entry)
    }
}

/// A task that a scheduler enqueued, a member of `<root>:scheduler_history:<entry>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SchedulerEnqueueEvent {
    /// The task.
    pub(crate) task_id: String,
    /// When it was enqueued.
    pub(crate) enqueue_time: Timestamp,
}

impl SchedulerEnqueueEvent {
    /// The message as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_room(self.task_id.len() + 24);
        out.bytes(1, self.task_id.as_bytes());
        self.enqueue_time.write(&mut out, 2);
        out.finish()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with the bytes, and where.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut event, mut time) = (Self::default(), None);
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                1 => event.task_id = field.text()?.to_owned(),
                2 => Timestamp::read(&mut time, &field)?,
                _ => {}
            }
        }
        event.enqueue_time = time.unwrap_or_default();
        Ok(event)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::proto::oracle::{hex, unhex};

    #[test]
    fn entries_and_events_are_the_bytes_that_go_writes() {
        let entry = SchedulerEntry {
            id: "e1".into(),
            spec: "@every 30s".into(),
            task_type: "t".into(),
            enqueue_options: vec![r#"Queue("low")"#.into(), "MaxRetry(3)".into()],
            next_enqueue_time: outlast_core::Timestamp::from_seconds(1_700_000_000).into(),
            prev_enqueue_time: None.into(),
            ..SchedulerEntry::default()
        };
        let bytes = "0a026531120a406576657279203330731a01742a0c517565756528226c6f7722292a0b4d6178\
            526574727928332932060880e2cfaa063a0b088092b8c398feffffff01";
        assert_eq!(hex(&entry.encode()), bytes);
        assert_eq!(SchedulerEntry::decode(&unhex(bytes)), Ok(entry));

        let enqueue_time = Timestamp { seconds: 1_700_000_000, nanos: 5 };
        let event = SchedulerEnqueueEvent { task_id: "t1".into(), enqueue_time };
        assert_eq!(hex(&event.encode()), "0a02743112080880e2cfaa061005");
        assert_eq!(SchedulerEnqueueEvent::decode(&event.encode()), Ok(event));
    }

    #[test]
    fn never_is_neither_absent_nor_1970() {
        assert_eq!(Timestamp::NEVER.moment(), None);
        assert_eq!(Timestamp::from(None), Timestamp::NEVER);
        let absent = SchedulerEntry::decode(&[]).expect("an empty message");
        assert_eq!(absent.prev_enqueue_time.moment(), None);
        let epoch = SchedulerEntry::decode(&[0x3a, 0x00]).expect("an empty time");
        assert_eq!(epoch.prev_enqueue_time.moment(), Some(outlast_core::Timestamp::default()));
    }

    #[test]
    fn moments_keep_their_milliseconds_on_both_sides_of_the_epoch() {
        for millis in [0, 1, -1, 1_700_000_000_457, i64::MIN, i64::MAX] {
            let moment = outlast_core::Timestamp::from_millis(millis);
            let time = Timestamp::from(moment);
            assert!((0..1_000_000_000).contains(&time.nanos));
            assert_eq!(time.moment(), Some(moment));
        }
        let far = Timestamp { seconds: i64::MAX, nanos: i32::MAX };
        assert_eq!(far.moment(), Some(outlast_core::Timestamp::MAX));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = ServerInfo::decode(&bytes);
            let _ = WorkerInfo::decode(&bytes);
            let _ = SchedulerEntry::decode(&bytes);
            let _ = SchedulerEnqueueEvent::decode(&bytes);
        }
    }
}
