//! The record of each lane: the number of its last batch and the answer to it, written in the batch's
//! own transaction (law L3). The rules are core's ([`judge`]); this file reads, writes and encodes.

use outlast_core::limits::LANES_MAX;
use outlast_core::session::{Arrival, judge};
use outlast_core::{BrokerError, Kind, Lost, Stamp, Timestamp};
use rusqlite::{OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Fail;
use crate::tally::Q;
use crate::writer::Tx;

/// What a lane's record says about a batch.
pub(crate) enum Arrived {
    /// Apply it, and write the answer into this place.
    Apply(Place),
    /// It was applied before; this was the answer, and the loss that it reported.
    Repeat(Vec<u8>, Option<Lost>),
}

/// Where the answer of a batch belongs.
pub(crate) struct Place {
    qid: i64,
    rid: Option<i64>,
    stamp: Stamp,
    pub(crate) lost: Option<Lost>,
}

const SELECT: &str =
    "SELECT rid, seq, answer, lost_after FROM session WHERE queue = ?1 AND id = ?2 AND lane = ?3";
const UPDATE: &str =
    "UPDATE session SET seq = ?2, touched = ?3, answer = ?4, lost_after = ?5 WHERE rid = ?1";
const INSERT: &str = "INSERT INTO session (queue, id, lane, seq, touched, answer, lost_after) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";

/// A lane's record as it is stored.
struct Record {
    rid: i64,
    seq: i64,
    answer: Vec<u8>,
    lost_after: Option<i64>,
}

impl Record {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            rid: row.get(0)?,
            seq: row.get(1)?,
            answer: row.get(2)?,
            lost_after: row.get(3)?,
        })
    }
}

/// Judges a batch by its lane's record.
pub(crate) fn arrive(tx: &mut Tx<'_>, q: Q, stamp: &Stamp) -> Result<Arrived, Fail> {
    check(stamp)?;
    let qid = tx.tally.qid(q);
    let id = stamp.session.0.to_be_bytes();
    let record = tx
        .conn
        .prepare_cached(SELECT)?
        .query_row(params![qid, &id[..], stamp.lane], Record::read)
        .optional()?;
    let last = record.as_ref().map(|record| record.seq.unsigned_abs());
    let rid = record.as_ref().map(|record| record.rid);
    let place = |lost| Arrived::Apply(Place { qid, rid, stamp: *stamp, lost });
    match judge(last, stamp.seq) {
        Arrival::Next => Ok(place(None)),
        Arrival::Gap { after_seq } => Ok(place(Some(Lost { after_seq }))),
        Arrival::Repeat => {
            let (answer, lost) = record.map(|r| (r.answer, r.lost_after)).unwrap_or_default();
            let lost = lost.map(|after| Lost { after_seq: after.unsigned_abs() });
            Ok(Arrived::Repeat(answer, lost))
        }
        Arrival::Ghost => Err(superseded(stamp, last).into()),
    }
}

fn check(stamp: &Stamp) -> Result<(), BrokerError> {
    if stamp.lane >= LANES_MAX {
        let why = format!("lane {} does not exist: at most {LANES_MAX} are allowed", stamp.lane);
        return Err(BrokerError::rejected(why));
    }
    if stamp.seq == 0 || i64::try_from(stamp.seq).is_err() {
        let why = format!("batch number {} is out of range: numbers begin with 1", stamp.seq);
        return Err(BrokerError::rejected(why));
    }
    Ok(())
}

fn superseded(stamp: &Stamp, last: Option<u64>) -> BrokerError {
    let (seq, lane, last) = (stamp.seq, stamp.lane, last.unwrap_or(0));
    let what = format!("batch {seq} of lane {lane} is superseded: {last} was answered already");
    BrokerError::new(Kind::Superseded, what)
}

impl Place {
    /// Writes the batch's number and answer.
    pub(crate) fn record(&self, tx: &Tx<'_>, now: Timestamp, answer: &[u8]) -> Result<(), Fail> {
        let (seq, touched) = (self.stamp.seq.cast_signed(), now.as_millis());
        let lost = self.lost.map(|lost| lost.after_seq.cast_signed());
        match self.rid {
            Some(rid) => {
                tx.conn
                    .prepare_cached(UPDATE)?
                    .execute(params![rid, seq, touched, answer, lost])?;
            }
            None => {
                let id = self.stamp.session.0.to_be_bytes();
                let row = params![self.qid, &id[..], self.stamp.lane, seq, touched, answer, lost];
                tx.conn.prepare_cached(INSERT)?.execute(row)?;
            }
        }
        Ok(())
    }
}

/// An answer for the record: nothing if it is plain success throughout.
pub(crate) fn encode<T: Serialize>(answers: &[T], is_plain: impl Fn(&T) -> bool) -> Vec<u8> {
    if answers.iter().all(is_plain) {
        return Vec::new();
    }
    // Strings and numbers only: they always have a JSON form.
    serde_json::to_vec(answers).unwrap_or_default()
}

/// An answer out of the record; `plain` for each of `count` items if it is empty.
pub(crate) fn decode<T: DeserializeOwned + Clone>(
    record: &[u8],
    count: usize,
    plain: &T,
) -> Result<Vec<T>, Fail> {
    if record.is_empty() {
        return Ok(vec![plain.clone(); count]);
    }
    let answers: Vec<T> = serde_json::from_slice(record).map_err(|error| {
        BrokerError::new(Kind::Corrupt, "could not read the answer of an earlier batch")
            .with_source(error)
    })?;
    if answers.len() == count {
        return Ok(answers);
    }
    let had = answers.len();
    let why = format!("a batch of {count} items repeats the number of one of {had}");
    Err(BrokerError::rejected(why).into())
}
