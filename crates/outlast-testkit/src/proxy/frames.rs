//! Where RESP values end in a stream that comes in pieces, and what the commands among them are called.
//!
//! It knows RESP2, RESP3 and inline commands, and keeps no more than a line and a name. Bytes that are none of these end the
//! counting, [`Frames::is_lost`], not the connection.

use super::Direction;

/// The longest header line, and the longest inline command.
const LINE_LEN_MAX: usize = 64 * 1024;

/// How deep values may be nested.
const DEPTH_MAX: usize = 32;

/// How much of a command's name is kept.
const NAME_LEN_MAX: usize = 32;

/// One direction of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    direction: Direction,
    line: Vec<u8>,
    /// Bytes of a bulk string that are still to come, its line break included.
    bulk_left: usize,
    /// The values still to come, of every array that is open.
    open: Vec<Level>,
    name: Option<Vec<u8>>,
    /// Whether the bulk string that is being read is the name.
    is_naming: bool,
    is_push: bool,
    is_lost: bool,
}

#[derive(Debug)]
struct Level {
    left: u64,
    /// An attribute stands before a value and is none.
    is_attribute: bool,
}

impl Frames {
    pub(super) fn new(direction: Direction) -> Self {
        Self {
            direction,
            line: Vec::new(),
            bulk_left: 0,
            open: Vec::new(),
            name: None,
            is_naming: false,
            is_push: false,
            is_lost: false,
        }
    }

    pub(super) fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether the stream is not RESP, or broke a limit; nothing is counted from there on.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Takes the next bytes. One name, in upper case, for every value that ends in them: that of the command, or nothing for a
    /// reply. Pushes of RESP3 answer nothing and are left out.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut ended = Vec::new();
        while !bytes.is_empty() && !self.is_lost {
            let taken = match self.bulk_left {
                0 => self.feed_line(bytes, &mut ended),
                _ => self.feed_bulk(bytes, &mut ended),
            };
            bytes = &bytes[taken..];
        }
        ended
    }

    fn feed_bulk(&mut self, bytes: &[u8], ended: &mut Vec<String>) -> usize {
        let taken = self.bulk_left.min(bytes.len());
        let name = self.name.get_or_insert_default();
        if self.is_naming {
            // Its line break is still in there: `take_name` trims it.
            let room = (NAME_LEN_MAX + 2).saturating_sub(name.len());
            name.extend_from_slice(&bytes[..taken.min(room)]);
        }
        self.bulk_left -= taken;
        if self.bulk_left == 0 {
            self.is_naming = false;
            self.value_ended(ended);
        }
        taken
    }

    fn feed_line(&mut self, bytes: &[u8], ended: &mut Vec<String>) -> usize {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let taken = end.map_or(bytes.len(), |at| at + 1);
        self.line.extend_from_slice(&bytes[..taken]);
        if self.line.len() > LINE_LEN_MAX {
            self.is_lost = true;
        } else if end.is_some() {
            let line = std::mem::take(&mut self.line);
            self.header(line.trim_ascii_end(), ended);
        }
        taken
    }

    fn header(&mut self, line: &[u8], ended: &mut Vec<String>) {
        let at_top = self.open.is_empty();
        let Some((kind, rest)) = line.split_first() else {
            // Servers pass over an empty line between commands.
            self.is_lost = self.direction == Direction::ToClient || !at_top;
            return;
        };
        if self.direction == Direction::ToServer && at_top && *kind != b'*' {
            let name = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
            self.name = Some(name[..name.len().min(NAME_LEN_MAX)].to_vec());
            return self.value_ended(ended);
        }
        if at_top {
            self.is_push = *kind == b'>';
        }
        let len = std::str::from_utf8(rest).ok().and_then(|text| text.parse::<i64>().ok());
        match (kind, len) {
            (b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(', _) => self.value_ended(ended),
            (b'$' | b'*', Some(-1)) => self.value_ended(ended),
            (b'$' | b'=' | b'!', Some(len)) => self.bulk(len),
            (b'*' | b'~' | b'>', Some(len)) => self.nest(len, false, ended),
            (b'%', Some(len)) => self.nest(len.saturating_mul(2), false, ended),
            (b'|', Some(len)) => self.nest(len.saturating_mul(2), true, ended),
            _ => self.is_lost = true,
        }
    }

    fn bulk(&mut self, len: i64) {
        let Some(len) = usize::try_from(len).ok().and_then(|len| len.checked_add(2)) else {
            self.is_lost = true;
            return;
        };
        self.bulk_left = len;
        self.is_naming = self.open.len() == 1 && self.name.is_none();
    }

    fn nest(&mut self, len: i64, is_attribute: bool, ended: &mut Vec<String>) {
        match u64::try_from(len) {
            Ok(0) if is_attribute => {}
            Ok(0) => self.value_ended(ended),
            Ok(left) if self.open.len() < DEPTH_MAX => self.open.push(Level { left, is_attribute }),
            Ok(_) | Err(_) => self.is_lost = true,
        }
    }

    /// A value is complete, and with it every array whose last it was.
    fn value_ended(&mut self, ended: &mut Vec<String>) {
        while let Some(level) = self.open.last_mut() {
            level.left -= 1;
            if level.left > 0 {
                return;
            }
            let was_attribute = level.is_attribute;
            self.open.pop();
            if was_attribute {
                return;
            }
        }
        let name = self.name.take().unwrap_or_default();
        if !self.is_push {
            ended.push(self.called(&name));
        }
        self.is_push = false;
    }

    fn called(&self, name: &[u8]) -> String {
        match self.direction {
            Direction::ToServer => String::from_utf8_lossy(name).trim_end().to_uppercase(),
            Direction::ToClient => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, and byte by byte.
    fn check(direction: Direction, stream: &str, expected: &[&str]) {
        let mut whole = Frames::new(direction);
        assert_eq!(whole.feed(stream.as_bytes()), expected, "{stream:?}");
        assert!(!whole.is_lost(), "{stream:?}");
        let mut piecemeal = Frames::new(direction);
        let pieces: Vec<String> = stream.bytes().flat_map(|byte| piecemeal.feed(&[byte])).collect();
        assert_eq!(pieces, expected, "{stream:?} byte by byte");
    }

    #[test]
    fn commands_are_counted_when_they_are_complete_and_called_by_their_first_word() {
        check(
            Direction::ToServer,
            "*2\r\n$3\r\nget\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n",
            &["GET", "PING"],
        );
        check(Direction::ToServer, "*2\r\n$3\r\nGET\r\n$4\r\nab", &[]);
        check(Direction::ToServer, "\r\nping\r\nset a b\r\n", &["PING", "SET"]);
        check(Direction::ToServer, "*2\r\n$3\r\nSET\r\n$6\r\n*1\r\n$4\r\n", &["SET"]);
        check(Direction::ToServer, "*2\r\n$0\r\n\r\n$1\r\na\r\n", &[""]);
        let long = format!("*1\r\n$50\r\n{}\r\n", "X".repeat(50));
        let mut frames = Frames::new(Direction::ToServer);
        assert!(frames.feed(long.as_bytes())[0].starts_with(&"X".repeat(NAME_LEN_MAX)));
    }

    #[test]
    fn replies_of_both_protocols_are_counted_and_pushes_and_attributes_are_not() {
        check(
            Direction::ToClient,
            "+OK\r\n-ERR x\r\n:1\r\n$-1\r\n*-1\r\n*0\r\n$1\r\na\r\n",
            &[""; 7],
        );
        check(Direction::ToClient, "*2\r\n*2\r\n:1\r\n:2\r\n$3\r\n\r\n+\r\n", &[""]);
        check(
            Direction::ToClient,
            "%1\r\n+a\r\n*1\r\n#t\r\n~1\r\n,1.5\r\n_\r\n(12\r\n=5\r\ntxt:a\r\n",
            &[""; 5],
        );
        check(Direction::ToClient, ">2\r\n+message\r\n$1\r\na\r\n+OK\r\n", &[""]);
        check(
            Direction::ToClient,
            "|1\r\n+ttl\r\n:9\r\n+OK\r\n*1\r\n|1\r\n+a\r\n:1\r\n:2\r\n",
            &["", ""],
        );
    }

    #[test]
    fn counting_ends_where_the_stream_is_not_resp() {
        let deep = "*1\r\n".repeat(DEPTH_MAX + 1);
        let endless = "x".repeat(LINE_LEN_MAX + 1);
        for bad in ["hello\n", "$x\r\n", "*-2\r\n", "\r\n", &deep, &endless] {
            let mut frames = Frames::new(Direction::ToClient);
            assert_eq!(frames.feed(bad.as_bytes()), [""; 0], "{bad:?}");
            assert!(frames.is_lost() && frames.feed(b"+OK\r\n").is_empty(), "{bad:?}");
        }
    }
}
