//! Moves bytes between a command and us: the payload in, the beginning of stdout and the end of stderr
//! out. Never more memory than the limits, never a stop, however much the command prints.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

/// Bytes kept of stderr: the last ones, because that is where programs say why they end.
const STDERR_KEPT: usize = 4 * 1024;

/// Bytes read at once beyond what is kept. As large as a pipe, so that a command that prints much is
/// slowed down little.
const CHUNK: usize = 64 * 1024;

/// Room made at once for output that is kept: most commands print a line.
const ROOM: usize = 512;

/// The pipes of one command.
pub(super) struct Pipes {
    stdin: Option<ChildStdin>,
    payload: Bytes,
    out: Option<ChildStdout>,
    err: Option<ChildStderr>,
    pub(super) stdout: Head,
    pub(super) stderr: Tail,
}

impl Pipes {
    pub(super) fn new(child: &mut Child, payload: Bytes, output_max: usize) -> Self {
        Self {
            // Without a payload there is nothing to write: closed at once.
            stdin: child.stdin.take().filter(|_| !payload.is_empty()),
            payload,
            out: child.stdout.take(),
            err: child.stderr.take(),
            stdout: Head::new(output_max),
            stderr: Tail::default(),
        }
    }

    /// Moves bytes until all pipes are closed. Can be dropped and called again at any point.
    pub(super) async fn drive(&mut self) {
        while self.stdin.is_some() || self.out.is_some() || self.err.is_some() {
            let Self { stdin, payload, out, err, stdout, stderr } = self;
            tokio::select! {
                is_open = feed(stdin.as_mut(), payload), if stdin.is_some() => {
                    if !is_open { *stdin = None; }
                }
                is_open = stdout.read(out.as_mut()), if out.is_some() => {
                    if !is_open { *out = None; }
                }
                is_open = stderr.read(err.as_mut()), if err.is_some() => {
                    if !is_open { *err = None; }
                }
            }
        }
    }

    /// Moves bytes, and when there is nothing more to move, waits to be dropped.
    pub(super) async fn drive_forever(&mut self) -> Infallible {
        self.drive().await;
        std::future::pending().await
    }
}

/// Writes some of the payload. False when there is nothing more to write, or nobody who reads: a command
/// may close its stdin whenever it likes.
async fn feed(stdin: Option<&mut ChildStdin>, payload: &mut Bytes) -> bool {
    let Some(stdin) = stdin else { return false };
    match stdin.write(payload).await {
        Ok(written) => {
            let _ = payload.split_to(written);
            !payload.is_empty()
        }
        Err(_) => false,
    }
}

/// The beginning of what is read, and how much it was.
pub(super) struct Head {
    kept: BytesMut,
    most: usize,
    total: u64,
    rest: Vec<u8>,
}

impl Head {
    fn new(most: usize) -> Self {
        Self { kept: BytesMut::new(), most, total: 0, rest: Vec::new() }
    }

    async fn read(&mut self, from: Option<&mut ChildStdout>) -> bool {
        let Some(from) = from else { return false };
        let room = self.most - self.kept.len();
        let read = if room > 0 {
            if self.kept.capacity() == self.kept.len() {
                self.kept.reserve(room.min(ROOM.max(self.kept.len())));
            }
            from.take(room as u64).read_buf(&mut self.kept).await
        } else {
            // Read and forgotten: a command that prints more than is kept must not be blocked.
            self.rest.resize(CHUNK, 0);
            from.read(&mut self.rest).await
        };
        let read = read.unwrap_or_default();
        self.total += read as u64;
        read > 0
    }

    pub(super) fn cut_from(&self) -> Option<u64> {
        (self.total > self.kept.len() as u64).then_some(self.total)
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.kept.freeze()
    }
}

/// The end of what is read.
#[derive(Default)]
pub(super) struct Tail {
    kept: Vec<u8>,
}

impl Tail {
    async fn read(&mut self, from: Option<&mut ChildStderr>) -> bool {
        let Some(from) = from else { return false };
        // Twice what is kept, so that bytes are moved to the front once in a while, not at every read.
        if self.kept.len() >= 2 * STDERR_KEPT {
            self.kept.drain(..self.kept.len() - STDERR_KEPT);
        }
        let room = (2 * STDERR_KEPT - self.kept.len()) as u64;
        self.kept.reserve(ROOM);
        let read = from.take(room).read_buf(&mut self.kept).await;
        read.is_ok_and(|read| read > 0)
    }

    /// The last bytes as text, from the first whole character on.
    pub(super) fn into_text(self) -> String {
        let mut end = &self.kept[self.kept.len().saturating_sub(STDERR_KEPT)..];
        if end.len() < self.kept.len() {
            let is_part = |byte: &u8| byte & 0b1100_0000 == 0b1000_0000;
            end = &end[end.iter().take_while(|byte| is_part(byte)).count()..];
        }
        String::from_utf8_lossy(end).into_owned()
    }
}
