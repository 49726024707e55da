//! The door to a server: a proxy on a port of its own that passes everything on and counts what comes to a server, also
//! to one that is dead. Where the server is, clients do not notice the door; where it is not, a connection is
//! closed as soon as it was made.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once; both sides of the demo together need a few dozen. One more is closed at once, and counted.
const CONNECTIONS_MAX: usize = 1024;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// A proxy; its connections end with it.
#[derive(Debug)]
pub(crate) struct Door {
    addr: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    commands: AtomicU64,
}

/// What came to the server so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) connections: u64,
    pub(crate) commands: u64,
}

impl Door {
    /// Opens a door to the server at this port of the loopback.
    pub(crate) async fn open(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, counts) = (listener.local_addr()?, Arc::new(Counts::default()));
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let task = tokio::spawn(serve(listener, to, counts.clone()));
        Ok(Self { addr, counts, task })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub(crate) fn sent(&self) -> Sent {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Sent { connections: read(&self.counts.connections), commands: read(&self.counts.commands) }
    }
}

impl Sent {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            connections: self.connections - before.connections,
            commands: self.commands - before.commands,
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, to: SocketAddr, counts: Arc<Counts>) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    counts.connections.fetch_add(1, Ordering::Relaxed);
                    if open.len() < CONNECTIONS_MAX {
                        open.spawn(pass(client, to, counts.clone()));
                    }
                }
                // Out of file descriptors: the connections that end make room.
                Err(error) => {
                    tracing::error!(%error, "could not accept a connection");
                    if open.join_next().await.is_none() {
                        return;
                    }
                }
            },
            Some(_) = open.join_next() => {}
        }
    }
}

/// Passes bytes on until one of both ends goes away: errors here are what the demo is about.
async fn pass(client: TcpStream, to: SocketAddr, counts: Arc<Counts>) {
    let Ok(server) = TcpStream::connect(to).await else { return };
    // Whoever waits for more bytes before it sends would be seen as a slow server.
    if client.set_nodelay(true).is_err() || server.set_nodelay(true).is_err() {
        return;
    }
    let (from_client, mut to_client) = client.into_split();
    let (mut from_server, to_server) = server.into_split();
    tokio::select! {
        _ = count(from_client, to_server, &counts) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
    }
}

async fn count(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, counts: &Counts) -> io::Result<()> {
    let (mut chunk, mut commands) = (vec![0; CHUNK_BYTES], Commands::default());
    loop {
        let size = from.read(&mut chunk).await?;
        if size == 0 {
            return Ok(());
        }
        counts.commands.fetch_add(commands.end_in(&chunk[..size]), Ordering::Relaxed);
        to.write_all(&chunk[..size]).await?;
    }
}

/// Where in a stream of commands we are: `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`, cut anywhere.
#[derive(Debug, Default)]
struct Commands {
    /// Words that the present command still has to come.
    words: u64,
    /// Bytes of the present word that still have to come, with its line end.
    word_bytes: usize,
    /// The head of a command or a word, as far as it has come: `*` or `$`, then a number.
    head: Option<u8>,
    number: u64,
}

impl Commands {
    /// How many commands end within these bytes.
    fn end_in(&mut self, mut bytes: &[u8]) -> u64 {
        let mut ended = 0;
        while let Some((&byte, rest)) = bytes.split_first() {
            if self.word_bytes > 0 {
                let size = self.word_bytes.min(bytes.len());
                self.word_bytes -= size;
                bytes = &bytes[size..];
                ended += u64::from(self.word_bytes == 0 && self.words == 0);
                continue;
            }
            bytes = rest;
            match byte {
                b'*' | b'$' => (self.head, self.number) = (Some(byte), 0),
                b'0'..=b'9' => {
                    self.number = self.number.saturating_mul(10) + u64::from(byte - b'0');
                }
                b'\n' => self.head_ends(),
                _ => {}
            }
        }
        ended
    }

    fn head_ends(&mut self) {
        match self.head.take() {
            Some(b'*') => self.words = self.number,
            Some(_) => {
                self.words = self.words.saturating_sub(1);
                self.word_bytes = usize::try_from(self.number).unwrap_or(usize::MAX - 2) + 2;
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_however_they_are_cut() {
        let one = "*2\r\n$3\r\nSET\r\n$8\r\n*1\r\n$0\r\n\r\n";
        let text = format!("{one}*1\r\n$4\r\nPING\r\n{one}");
        for size in 1..=text.len() {
            let mut commands = Commands::default();
            let ended: u64 = text.as_bytes().chunks(size).map(|part| commands.end_in(part)).sum();
            assert_eq!(ended, 3, "in parts of {size}");
        }
    }
}
