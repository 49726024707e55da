//! Where a listing goes on. A cursor is a line of fields between dots, each percent-encoded: ids are bytes
//! that other programs chose.
//!
//! | cursor | goes on |
//! |---|---|
//! | `l1.<right>.<left>.<ids after>.<ids before>` | in a list: at the first of these ids that is still there |
//! | `z1.<score>.<id>` | in sorted sets: behind this place |
//! | `n1.<id>` | among named ids, which go by their bytes: behind this one |

use bytes::Bytes;
use outlast_core::limits::NAME_BYTES_MAX;
use outlast_core::{BrokerError, Cursor};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};

/// Ids on each side of a place in a list that a cursor keeps: the place is found again as long as one of
/// them is there.
pub(super) const ANCHORS: usize = 8;

/// Where a listing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// In a list.
    Line(Line),
    /// In sorted sets: behind the member with this score, as Redis writes it, and this id.
    Member { score: String, id: Bytes },
    /// Among named ids.
    Named { id: Bytes },
}

/// A place in a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// Ids to its right, where tasks leave.
    pub(super) right: u64,
    /// Ids to its left.
    pub(super) left: u64,
    /// The ids that come next, nearest first.
    pub(super) after: Vec<Bytes>,
    /// The ids that were shown last, nearest first.
    pub(super) before: Vec<Bytes>,
}

impl At {
    /// The cursor of this place.
    pub(super) fn cursor(&self) -> Cursor {
        let list = |ids: &[Bytes]| ids.iter().map(encoded).collect::<Vec<_>>().join(",");
        Cursor(match self {
            At::Line(Line { right, left, after, before }) => {
                format!("l1.{right}.{left}.{}.{}", list(after), list(before))
            }
            At::Member { score, id } => format!("z1.{}.{}", encoded(score), encoded(id)),
            At::Named { id } => format!("n1.{}", encoded(id)),
        })
    }

    /// Reads a cursor.
    ///
    /// # Errors
    /// [`Kind::Rejected`](outlast_core::Kind::Rejected) names a text that no listing here made.
    pub(super) fn parse(cursor: &Cursor) -> Result<At, BrokerError> {
        let parts: Vec<&str> = cursor.0.split('.').collect();
        let read = match parts[..] {
            ["l1", right, left, after, before] => line(right, left, after, before),
            ["z1", score, id] => member(score, id),
            ["n1", id] => decoded(id).map(|id| At::Named { id }),
            _ => None,
        };
        read.ok_or_else(|| foreign(cursor))
    }
}

/// The answer to a cursor that is not of this listing.
pub(super) fn foreign(cursor: &Cursor) -> BrokerError {
    let shown: String = cursor.0.chars().take(64).collect();
    BrokerError::rejected(format!("cursor {shown:?} is not one of this listing"))
}

fn line(right: &str, left: &str, after: &str, before: &str) -> Option<At> {
    let (after, before) = (ids(after)?, ids(before)?);
    Some(At::Line(Line { right: place(right)?, left: place(left)?, after, before }))
}

/// A place in a list: no list of Redis holds 2^32 ids.
fn place(text: &str) -> Option<u64> {
    text.parse().ok().filter(|place| *place <= u64::from(u32::MAX))
}

fn ids(text: &str) -> Option<Vec<Bytes>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let ids: Vec<Bytes> = text.split(',').map(decoded).collect::<Option<_>>()?;
    (ids.len() <= ANCHORS).then_some(ids)
}

fn member(score: &str, id: &str) -> Option<At> {
    let score = String::from_utf8(decoded(score)?.to_vec()).ok()?;
    let number: f64 = score.parse().ok()?;
    (!number.is_nan()).then_some(At::Member { score, id: decoded(id)? })
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    percent_encode(bytes.as_ref(), NON_ALPHANUMERIC).to_string()
}

fn decoded(text: &str) -> Option<Bytes> {
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    // An id of another program may be longer than ours are; a key has its bounds all the same.
    (!bytes.is_empty() && bytes.len() <= 16 * NAME_BYTES_MAX).then(|| bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_back_whatever_its_ids_are() {
        let odd: Vec<Bytes> = vec!["a.b,c".into(), "%".into(), vec![0xff, 0].into()];
        let line = Line { right: 3, left: 7, after: odd.clone(), before: Vec::new() };
        let member = At::Member { score: "1795521600.25".into(), id: odd[0].clone() };
        for at in [At::Line(line), member, At::Named { id: odd[2].clone() }] {
            assert_eq!(At::parse(&at.cursor()).expect("our own"), at);
        }
    }

    #[test]
    fn what_is_no_cursor_is_named() {
        let many = format!("l1.1.1.{}.", ["a"; ANCHORS + 1].join(","));
        let long = format!("n1.{}", "a".repeat(16 * NAME_BYTES_MAX + 1));
        for text in ["", "l1", "l1.1.x..", "l1.-1.1..", "z1.nan.a", "z1.1", "n1.", &many, &long] {
            let error = At::parse(&Cursor(text.into())).expect_err(text);
            assert_eq!(error.kind(), outlast_core::Kind::Rejected, "{text}");
        }
    }
}
