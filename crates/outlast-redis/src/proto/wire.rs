//! The protobuf wire format: tags, varints, fixed and length-delimited values, and an iterator over the
//! fields of a message. It knows no message; it never panics and never reads past its bytes.
//!
//! ```text
//! field   = tag value             tag = varint of number << 3 | type, numbers 1 … 2^29 − 1
//! type    = 0 varint | 1 eight bytes | 2 length and bytes | 3 … 4 a group | 5 four bytes
//! ```

use std::fmt;

/// Field numbers end here, as in Go.
const NUMBER_MAX: u64 = (1 << 29) - 1;

/// Groups within groups that are followed; nobody writes any, so deeper nesting is an attack on the stack.
const GROUP_DEPTH_MAX: usize = 64;

/// Why bytes are no message: what is wrong, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{flaw} at byte {at}")]
pub(crate) struct DecodeError {
    /// What is wrong.
    pub(crate) flaw: Flaw,
    /// Where, counted from the first byte of the outermost message.
    pub(crate) at: usize,
}

/// What can be wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It ends within a field.
    Truncated,
    /// A varint does not fit in 64 bits.
    VarintTooLong,
    /// A field number that is zero or too great.
    Number(u64),
    /// A wire type that does not exist.
    WireType(u8),
    /// A known field of another wire type than it must have.
    Mismatch {
        /// The field's number.
        field: u32,
        /// What it must be.
        wanted: &'static str,
    },
    /// A text that is not UTF-8.
    Utf8 {
        /// The field's number.
        field: u32,
    },
    /// The end of a group that was not begun.
    GroupEnd(u32),
    /// Groups nested more than [`GROUP_DEPTH_MAX`] deep.
    GroupTooDeep,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Truncated => f.write_str("the message ends within a field"),
            Flaw::VarintTooLong => f.write_str("a varint has more than 64 bits"),
            Flaw::Number(number) => write!(f, "field number {number} is not allowed"),
            Flaw::WireType(found) => write!(f, "wire type {found} does not exist"),
            Flaw::Mismatch { field, wanted } => write!(f, "field {field} is no {wanted}"),
            Flaw::Utf8 { field } => write!(f, "the text of field {field} is not UTF-8"),
            Flaw::GroupEnd(field) => write!(f, "group {field} ends where it did not begin"),
            Flaw::GroupTooDeep => write!(f, "groups are nested over {GROUP_DEPTH_MAX} deep"),
        }
    }
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// A number: `int32`, `int64`, `bool`.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Bytes, a text or a message.
    Bytes(&'a [u8]),
    /// Everything between the two tags of a group.
    Group,
    /// Four bytes.
    Fixed32(u32),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// Its number.
    pub(crate) number: u32,
    /// What it holds.
    pub(crate) value: Value<'a>,
    /// Tag and value as they stand there, for fields that are only passed on.
    pub(crate) raw: &'a [u8],
    /// Where its value begins.
    at: usize,
}

impl<'a> Field<'a> {
    fn fail(&self, flaw: Flaw) -> DecodeError {
        DecodeError { flaw, at: self.at }
    }

    fn mismatch(&self, wanted: &'static str) -> DecodeError {
        self.fail(Flaw::Mismatch { field: self.number, wanted })
    }

    /// The bytes of a `bytes` field.
    pub(crate) fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.mismatch("sequence of bytes")),
        }
    }

    /// The text of a `string` field.
    pub(crate) fn text(&self) -> Result<&'a str, DecodeError> {
        match self.value {
            Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Ok(text),
                Err(error) => Err(DecodeError {
                    flaw: Flaw::Utf8 { field: self.number },
                    at: self.at + error.valid_up_to(),
                }),
            },
            _ => Err(self.mismatch("text")),
        }
    }

    /// The number of an `int64` field.
    pub(crate) fn int64(&self) -> Result<i64, DecodeError> {
        match self.value {
            Value::Varint(bits) => Ok(bits.cast_signed()),
            _ => Err(self.mismatch("number")),
        }
    }

    /// The number of an `int32` field: the low 32 bits, as every decoder takes them.
    pub(crate) fn int32(&self) -> Result<i32, DecodeError> {
        Ok(self.int64()? as i32)
    }

    /// The fact of a `bool` field.
    pub(crate) fn fact(&self) -> Result<bool, DecodeError> {
        Ok(self.int64()? != 0)
    }

    /// The fields of an embedded message.
    pub(crate) fn message(&self) -> Result<Fields<'a>, DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(Fields { bytes, at: 0, base: self.at }),
            _ => Err(self.mismatch("message")),
        }
    }
}

/// The fields of a message, in the order in which they were written. It ends after the first error.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where `bytes` begin in the outermost message.
    base: usize,
}

impl<'a> Fields<'a> {
    /// The fields of the message `bytes`.
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, base: 0 }
    }

    fn fail(&self, flaw: Flaw, at: usize) -> DecodeError {
        DecodeError { flaw, at: self.base + at }
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let (start, mut value) = (self.at, 0_u64);
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else {
                return Err(self.fail(Flaw::Truncated, self.bytes.len()));
            };
            self.at += 1;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.fail(Flaw::VarintTooLong, start))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(length).ok().and_then(|length| rest.get(..length)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(self.fail(Flaw::Truncated, self.bytes.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        match self.bytes[self.at..].first_chunk::<N>() {
            Some(taken) => {
                self.at += N;
                Ok(*taken)
            }
            None => Err(self.fail(Flaw::Truncated, self.bytes.len())),
        }
    }

    /// The number and wire type of the next field.
    fn tag(&mut self) -> Result<(u32, u8), DecodeError> {
        let start = self.at;
        let tag = self.varint()?;
        match u32::try_from(tag >> 3) {
            Ok(number) if number > 0 && u64::from(number) <= NUMBER_MAX => {
                Ok((number, (tag & 7) as u8))
            }
            _ => Err(self.fail(Flaw::Number(tag >> 3), start)),
        }
    }

    fn field(&mut self, depth: usize) -> Result<Field<'a>, DecodeError> {
        let start = self.at;
        let (number, kind) = self.tag()?;
        let mut at = self.at;
        let value = match kind {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = self.varint()?;
                at = self.at;
                Value::Bytes(self.take(length)?)
            }
            3 => {
                self.skip_group(number, depth)?;
                Value::Group
            }
            4 => return Err(self.fail(Flaw::GroupEnd(number), start)),
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            other => return Err(self.fail(Flaw::WireType(other), start)),
        };
        Ok(Field { number, value, raw: &self.bytes[start..self.at], at: self.base + at })
    }

    fn skip_group(&mut self, number: u32, depth: usize) -> Result<(), DecodeError> {
        if depth == GROUP_DEPTH_MAX {
            return Err(self.fail(Flaw::GroupTooDeep, self.at));
        }
        loop {
            let start = self.at;
            match self.tag()? {
                (end, 4) if end == number => return Ok(()),
                (_, _) => self.at = start,
            }
            self.field(depth + 1)?;
        }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let field = self.field(0);
        if field.is_err() {
            self.at = self.bytes.len();
        }
        Some(field)
    }
}

/// Writes fields one after the other. Zero values are left out, as proto3 wants it, except by the
/// verbs that say otherwise.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// A writer with room for `bytes` bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// What was written.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn tag(&mut self, number: u32, kind: u8) {
        self.varint(u64::from(number) << 3 | u64::from(kind));
    }

    /// A `bytes` field, even if it is empty: elements of lists and embedded messages.
    pub(crate) fn always_bytes(&mut self, number: u32, bytes: &[u8]) {
        self.tag(number, 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// A `bytes` or `string` field.
    pub(crate) fn bytes(&mut self, number: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.always_bytes(number, bytes);
        }
    }

    /// An `int64` field; an `int32` one after widening, so that negative numbers take ten bytes.
    pub(crate) fn number(&mut self, number: u32, value: i64) {
        if value != 0 {
            self.always_number(number, value);
        }
    }

    /// An `int64` field, even if it is zero: the values of maps.
    pub(crate) fn always_number(&mut self, number: u32, value: i64) {
        self.tag(number, 0);
        self.varint(value.cast_unsigned());
    }

    /// Fields that stand there already, byte for byte.
    pub(crate) fn raw(&mut self, fields: &[u8]) {
        self.0.extend_from_slice(fields);
    }
}

/// The two halves of an entry of a `map`, where both are there: key in field 1, value in field 2.
/// An absent half is `None`, which stands for its type's zero value.
pub(crate) type Entry<'a> = (Option<Field<'a>>, Option<Field<'a>>);

/// Reads the entry of a `map` field. Other fields of an entry are not kept: no encoder writes any.
pub(crate) fn entry<'a>(field: &Field<'a>) -> Result<Entry<'a>, DecodeError> {
    let mut halves = (None, None);
    for half in field.message()? {
        let half = half?;
        match half.number {
            1 => halves.0 = Some(half),
            2 => halves.1 = Some(half),
            _ => {}
        }
    }
    Ok(halves)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn error_of(bytes: &[u8]) -> String {
        let found: Result<Vec<_>, _> = Fields::of(bytes).collect();
        found.expect_err("must be refused").to_string()
    }

    #[test]
    fn bytes_that_are_no_message_are_refused_with_the_flaw_and_the_place() {
        let cases: [(&[u8], &str); 11] = [
            (&[0x80], "the message ends within a field at byte 1"),
            (&[0x08], "the message ends within a field at byte 1"),
            (&[0x0a, 0x02, 0x61], "the message ends within a field at byte 3"),
            (&[0x09, 1, 2, 3], "the message ends within a field at byte 4"),
            (&[0x0d, 1, 2, 3], "the message ends within a field at byte 4"),
            (&[0x00, 0x01], "field number 0 is not allowed at byte 0"),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
                "a varint has more than 64 bits at byte 1",
            ),
            (
                &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
                "a varint has more than 64 bits at byte 1",
            ),
            (&[0x0e], "wire type 6 does not exist at byte 0"),
            (&[0x0c], "group 1 ends where it did not begin at byte 0"),
            (
                &[0x80, 0x80, 0x80, 0x80, 0x10, 0x00],
                "field number 536870912 is not allowed at byte 0",
            ),
        ];
        for (bytes, message) in cases {
            assert_eq!(error_of(bytes), message, "{bytes:02x?}");
        }
        assert!(error_of(&[0x0b; 200]).starts_with("groups are nested over 64 deep"));
    }

    #[test]
    fn the_length_of_the_universe_is_no_reason_to_panic() {
        let bytes = [0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(error_of(&bytes), "the message ends within a field at byte 11");
    }

    #[test]
    fn a_group_is_one_field_with_everything_in_it() {
        // Field 1 begins a group that holds field 2 = 5 and a group 3, then field 4 = 1.
        let bytes = [0x0b, 0x10, 0x05, 0x1b, 0x1c, 0x0c, 0x20, 0x01];
        let fields: Vec<_> = Fields::of(&bytes).map(|f| f.expect("a field")).collect();
        assert_eq!(fields.len(), 2);
        assert_eq!((fields[0].number, fields[0].value), (1, Value::Group));
        assert_eq!(fields[0].raw, &bytes[..6]);
        assert_eq!((fields[1].number, fields[1].value), (4, Value::Varint(1)));
    }

    #[test]
    fn fixed_values_are_little_endian() {
        let bytes = [0x0d, 1, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0, 0, 0];
        let values: Vec<_> = Fields::of(&bytes).map(|f| f.expect("a field").value).collect();
        assert_eq!(values, [Value::Fixed32(1), Value::Fixed64(2)]);
    }

    #[test]
    fn an_error_within_an_embedded_message_counts_from_the_outermost_byte() {
        let bytes = [0x0a, 0x03, 0x12, 0x01, 0xff];
        let outer = Fields::of(&bytes).next().expect("a field").expect("whole");
        let inner = outer.message().expect("a message").next().expect("a field").expect("whole");
        let error = inner.text().expect_err("not UTF-8");
        assert_eq!(error.to_string(), "the text of field 2 is not UTF-8 at byte 4");
    }

    proptest! {
        #[test]
        fn fields_cover_their_bytes_and_garbage_never_panics(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut covered = 0;
            for field in Fields::of(&bytes) {
                match field {
                    Ok(field) => covered += field.raw.len(),
                    Err(error) => {
                        prop_assert!(error.at <= bytes.len());
                        return Ok(());
                    }
                }
            }
            prop_assert_eq!(covered, bytes.len());
        }

        #[test]
        fn every_number_is_read_back(value in any::<i64>(), number in 1_u32..(1 << 29)) {
            let mut writer = Writer::default();
            writer.number(number, value);
            let bytes = writer.finish();
            let read = Fields::of(&bytes).next().map(|f| f.expect("whole"));
            prop_assert_eq!(read.is_none(), value == 0);
            if let Some(field) = read {
                prop_assert_eq!(field.number, number);
                prop_assert_eq!(field.int64(), Ok(value));
            }
        }
    }
}
