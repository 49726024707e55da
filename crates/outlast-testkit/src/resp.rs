//! Just enough RESP to set a test up: one command, one reply, over a blocking TCP connection. The code under
//! test uses a real client; this one exists so that looking at a server needs none of what is being tested.
//!
//! RESP2 only. Every wait is bounded by [`IO_WAIT`], every reply by [`REPLY_LEN_MAX`] and [`REPLY_DEPTH_MAX`].

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long connecting, sending or reading may take, each. A server that was stopped is noticed by it.
pub const IO_WAIT: Duration = Duration::from_secs(5);

/// The longest bulk string, and the longest array, that is read.
pub const REPLY_LEN_MAX: usize = 64 * 1024 * 1024;

/// How deep arrays may be nested.
pub const REPLY_DEPTH_MAX: usize = 16;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Nothing there: a null bulk string or a null array.
    Nil,
    /// A simple string, such as `OK`.
    Status(String),
    /// An error inside an array, as EXEC answers; outside of one it is [`CommandError::Refused`].
    Error(String),
    /// A number.
    Int(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Several replies.
    Array(Vec<Reply>),
}

/// Why a command has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The connection failed or took longer than [`IO_WAIT`].
    #[error("could not run {command} on {addr}")]
    Io {
        /// The command's first word.
        command: String,
        /// The server.
        addr: SocketAddr,
        /// What went wrong.
        source: io::Error,
    },
    /// The server answered with this error.
    #[error("the server refused {command}: {message}")]
    Refused {
        /// The command's first word.
        command: String,
        /// The server's words, the code first: `NOAUTH Authentication required.`
        message: String,
    },
}

/// One connection, for commands that belong together, such as MULTI and EXEC.
#[derive(Debug)]
pub struct Connection {
    addr: SocketAddr,
    stream: BufReader<TcpStream>,
}

impl Reply {
    /// The text of a status, of an error, of a number, or of bytes that are UTF-8.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Status(text) | Self::Error(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            Self::Bulk(bytes) => String::from_utf8(bytes.clone()).ok(),
            Self::Nil | Self::Array(_) => None,
        }
    }

    /// The number, also when it was sent as text.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        self.text()?.parse().ok()
    }

    /// The replies of an array; of anything else, none.
    #[must_use]
    pub fn items(&self) -> &[Reply] {
        match self {
            Self::Array(items) => items,
            Self::Nil | Self::Status(_) | Self::Error(_) | Self::Int(_) | Self::Bulk(_) => &[],
        }
    }
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`CommandError::Io`] when nobody listens there, or not within [`IO_WAIT`].
    pub fn open(addr: SocketAddr) -> Result<Self, CommandError> {
        let failed = |source| CommandError::Io { command: "CONNECT".to_owned(), addr, source };
        let stream = TcpStream::connect_timeout(&addr, IO_WAIT).map_err(failed)?;
        stream.set_nodelay(true).map_err(failed)?;
        stream.set_read_timeout(Some(IO_WAIT)).map_err(failed)?;
        stream.set_write_timeout(Some(IO_WAIT)).map_err(failed)?;
        Ok(Self { addr, stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its reply. After an I/O error the connection is of no use any more.
    ///
    /// # Errors
    ///
    /// [`CommandError::Refused`] when the server answers with an error, [`CommandError::Io`] when it does not answer.
    pub fn command<A: AsRef<[u8]>>(&mut self, words: &[A]) -> Result<Reply, CommandError> {
        let first = words.first().map(AsRef::as_ref).unwrap_or_default();
        let command = String::from_utf8_lossy(first).into_owned();
        let sent = self.stream.get_mut().write_all(&request(words));
        match sent.and_then(|()| read_reply(&mut self.stream, 0)) {
            Ok(Reply::Error(message)) => Err(CommandError::Refused { command, message }),
            Ok(reply) => Ok(reply),
            Err(source) => Err(CommandError::Io { command, addr: self.addr, source }),
        }
    }
}

/// A command as clients send it: an array of bulk strings.
#[must_use]
pub fn request<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Reads one reply.
///
/// # Errors
///
/// The stream's own, and [`io::ErrorKind::InvalidData`] for what is not RESP2 or goes beyond a limit.
pub fn read_reply(stream: &mut impl BufRead, depth: usize) -> io::Result<Reply> {
    let line = read_line(stream)?;
    let (kind, rest) = line.split_at_checked(1).ok_or_else(|| invalid("an empty line"))?;
    match kind {
        "+" => Ok(Reply::Status(rest.to_owned())),
        "-" => Ok(Reply::Error(rest.to_owned())),
        ":" => rest.parse().map(Reply::Int).map_err(|_| invalid(&line)),
        "$" => read_bulk(stream, rest),
        "*" if depth < REPLY_DEPTH_MAX => read_array(stream, rest, depth),
        _ => Err(invalid(&line)),
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.take(REPLY_LEN_MAX as u64).read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None if line.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
        None => Err(invalid(&line)),
    }
}

fn read_bulk(stream: &mut impl BufRead, len: &str) -> io::Result<Reply> {
    let Some(len) = parse_len(len)? else { return Ok(Reply::Nil) };
    let mut bytes = vec![0; len + 2];
    stream.read_exact(&mut bytes)?;
    match bytes.split_off(len).as_slice() {
        b"\r\n" => Ok(Reply::Bulk(bytes)),
        _ => Err(invalid("a bulk string of another length than announced")),
    }
}

fn read_array(stream: &mut impl BufRead, len: &str, depth: usize) -> io::Result<Reply> {
    let Some(len) = parse_len(len)? else { return Ok(Reply::Nil) };
    (0..len).map(|_| read_reply(stream, depth + 1)).collect::<io::Result<_>>().map(Reply::Array)
}

/// A length; none stands for null.
fn parse_len(text: &str) -> io::Result<Option<usize>> {
    match text.parse::<usize>() {
        Ok(len) if len <= REPLY_LEN_MAX => Ok(Some(len)),
        Err(_) if text == "-1" => Ok(None),
        Ok(_) | Err(_) => Err(invalid(text)),
    }
}

fn invalid(what: &str) -> io::Error {
    let shown: String = what.chars().take(80).collect();
    io::Error::new(io::ErrorKind::InvalidData, format!("not a reply in RESP2: {shown:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: impl Into<Option<Reply>>) {
        let read = read_reply(&mut io::Cursor::new(bytes), 0);
        assert_eq!(read.ok(), expected.into(), "{}", String::from_utf8_lossy(bytes));
    }

    #[test]
    fn replies_are_read_and_what_is_no_reply_is_an_error() {
        check(b"+OK\r\n", Reply::Status("OK".to_owned()));
        check(b"-ERR no\r\n", Reply::Error("ERR no".to_owned()));
        check(b":-7\r\n", Reply::Int(-7));
        check(b"$2\r\n\r\n\r\n", Reply::Bulk(b"\r\n".to_vec()));
        check(b"$-1\r\n", Reply::Nil);
        check(b"*-1\r\n", Reply::Nil);
        let nested = Reply::Array(vec![Reply::Int(1), Reply::Array(vec![])]);
        check(b"*2\r\n:1\r\n*0\r\n", nested);
        for bad in ["", "\r\n", "+OK", ":x\r\n", "$9\r\nab\r\n", "$1\r\nabc", "?1\r\n", "*1\r\n"] {
            check(bad.as_bytes(), None);
        }
        check("*1\r\n".repeat(REPLY_DEPTH_MAX + 1).as_bytes(), None);
        check("$99999999999\r\n".as_bytes(), None);
    }

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        assert_eq!(request(&["GET", "ä"]), "*2\r\n$3\r\nGET\r\n$2\r\nä\r\n".as_bytes());
    }
}
