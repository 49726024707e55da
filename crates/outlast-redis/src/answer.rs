//! Reading what scripts answer. An answer of another shape than the script's is a typed error.

use bytes::Bytes;
use outlast_core::{BrokerError, Kind, Lost, Stamp};
use redis::Value;

/// How a stamped script ended: the first element of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Applied,
    Repeated,
    Ghost,
    Declined,
}

/// An answer `{status, lost, verb, …}`, or the status alone where nothing was lost and nothing is to be told.
pub(crate) struct Stamped {
    pub(crate) status: Status,
    pub(crate) lost: Option<Lost>,
    pub(crate) rest: std::vec::IntoIter<Value>,
}

/// Reads the head of a stamped answer, and refuses ghosts and repeats of another verb.
pub(crate) fn stamped(value: Value, stamp: Stamp, verb: &str) -> Result<Stamped, BrokerError> {
    let (words, is_bare) = match value {
        Value::Int(status) => (vec![Value::Int(status)], true),
        value => (list(value)?, false),
    };
    let mut rest = words.into_iter();
    let status = match int(rest.next().unwrap_or_default())? {
        0 => Status::Applied,
        1 => Status::Repeated,
        2 => Status::Ghost,
        _ => Status::Declined,
    };
    let Stamp { lane, seq, .. } = stamp;
    if status == Status::Ghost {
        let what = format!("batch {seq} of lane {lane} was answered long ago");
        return Err(BrokerError::new(Kind::Superseded, what));
    }
    if status == Status::Declined || is_bare {
        return Ok(Stamped { status, lost: None, rest });
    }
    let lost = u64::try_from(int(rest.next().unwrap_or_default())?).ok();
    let lost = lost.map(|after_seq| Lost { after_seq });
    let kept = text(rest.next().unwrap_or_default())?;
    // A repeat of the usual answer keeps no verb: nothing can be said about it.
    if !kept.is_empty() && kept != verb {
        return Err(BrokerError::rejected(format!(
            "batch {seq} of lane {lane} was sent with another verb before"
        )));
    }
    Ok(Stamped { status, lost, rest })
}

/// An exception among many: the place of the item from 1, what became of it, and a word on it.
pub(crate) struct Verdict {
    pub(crate) nth: usize,
    pub(crate) code: u8,
    pub(crate) word: String,
}

/// Reads `{{nth, code, word}, …}`.
pub(crate) fn verdicts(value: Value) -> Result<Vec<Verdict>, BrokerError> {
    list(value)?.into_iter().map(verdict).collect()
}

fn verdict(value: Value) -> Result<Verdict, BrokerError> {
    let mut parts = list(value)?.into_iter();
    let nth = int(parts.next().unwrap_or_default())?;
    let code = text(parts.next().unwrap_or_default())?;
    let word = text(parts.next().unwrap_or_default())?;
    let nth = usize::try_from(nth).map_err(|_| odd("a place below zero"))?;
    Ok(Verdict { nth, code: code.bytes().next().unwrap_or(b'?'), word })
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>, BrokerError> {
    match value {
        Value::Array(items) | Value::Set(items) => Ok(items),
        // An empty Lua table may come back as an empty map.
        Value::Map(items) if items.is_empty() => Ok(Vec::new()),
        Value::Nil => Ok(Vec::new()),
        other => Err(odd(&format!("{other:?} where a list was expected"))),
    }
}

pub(crate) fn int(value: Value) -> Result<i64, BrokerError> {
    match value {
        Value::Int(number) => Ok(number),
        Value::BulkString(bytes) => std::str::from_utf8(&bytes)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| odd("text where a number was expected")),
        Value::Nil => Ok(0),
        other => Err(odd(&format!("{other:?} where a number was expected"))),
    }
}

pub(crate) fn text(value: Value) -> Result<String, BrokerError> {
    match value {
        Value::BulkString(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Value::SimpleString(text) => Ok(text),
        Value::Int(number) => Ok(number.to_string()),
        Value::Double(number) => Ok(number.to_string()),
        Value::Okay => Ok("OK".into()),
        Value::Nil => Ok(String::new()),
        other => Err(odd(&format!("{other:?} where a text was expected"))),
    }
}

/// The bytes of a field, or `None` where it is absent.
pub(crate) fn bytes(value: Value) -> Result<Option<Bytes>, BrokerError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) => Ok(Some(text.into())),
        Value::Nil | Value::Boolean(false) => Ok(None),
        other => Err(odd(&format!("{other:?} where bytes were expected"))),
    }
}

fn odd(what: &str) -> BrokerError {
    BrokerError::new(Kind::Corrupt, format!("the server answered {what}"))
}
