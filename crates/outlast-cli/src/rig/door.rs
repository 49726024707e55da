//! The door to a server: a proxy on a port of its own that counts what comes. Open, it passes everything on, and where the
//! server is not a connection is closed as soon as it was made. Shut, it is a server that loads its data: it answers every
//! command with an error. So a server that others use can have an outage for one process alone.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once; two clients and two workers together need a few dozen. One more is closed at once, and counted.
const CONNECTIONS_MAX: usize = 1024;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a server says while it loads its data.
const LOADING: &[u8] = b"-LOADING Redis is loading the dataset in memory\r\n";

/// A proxy; its connections end with it.
#[derive(Debug)]
pub(crate) struct Door {
    addr: SocketAddr,
    is_open: watch::Sender<bool>,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    commands: AtomicU64,
}

/// What came so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    pub(crate) connections: u64,
    pub(crate) commands: u64,
}

impl Door {
    /// An open door to the server of this address, such as `10.0.0.7:6379`.
    pub(crate) async fn to(server: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, counts) = (listener.local_addr()?, Arc::new(Counts::default()));
        let (is_open, state) = watch::channel(true);
        let task = tokio::spawn(serve(listener, server.into(), state, counts.clone()));
        Ok(Self { addr, is_open, counts, task })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections that were answered while it was shut end.
    pub(crate) fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Connections to the server end.
    pub(crate) fn shut(&self) {
        self.is_open.send_replace(false);
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

async fn serve(
    listener: TcpListener,
    server: Arc<str>,
    state: watch::Receiver<bool>,
    counts: Arc<Counts>,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    counts.connections.fetch_add(1, Ordering::Relaxed);
                    if open.len() < CONNECTIONS_MAX {
                        let (server, state) = (server.clone(), state.clone());
                        let counts = counts.clone();
                        // An error of a connection ends it, as a server would.
                        open.spawn(async move { pass(client, &server, state, &counts).await });
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

/// Serves a connection for as long as the door stays as it is.
async fn pass(
    client: TcpStream,
    server: &str,
    mut state: watch::Receiver<bool>,
    counts: &Counts,
) -> io::Result<()> {
    // Whoever waits for more bytes before it sends would be seen as a slow server.
    client.set_nodelay(true)?;
    let is_open = *state.borrow_and_update();
    let (from_client, to_client) = client.into_split();
    let served = async {
        match is_open {
            true => pass_on(from_client, to_client, server, counts).await,
            false => refuse(from_client, to_client, counts).await,
        }
    };
    tokio::select! {
        served = served => served,
        _ = state.changed() => Ok(()),
    }
}

/// Passes bytes on until one of both ends goes away.
async fn pass_on(
    from_client: OwnedReadHalf,
    mut to_client: OwnedWriteHalf,
    server: &str,
    counts: &Counts,
) -> io::Result<()> {
    let server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;
    let (mut from_server, to_server) = server.into_split();
    tokio::select! {
        ended = count(from_client, to_server, counts) => ended,
        ended = copy(&mut from_server, &mut to_client) => ended.map(|_| ()),
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

/// Answers each command with an error, to the end of the connection.
async fn refuse(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counts: &Counts,
) -> io::Result<()> {
    let (mut chunk, mut commands) = (vec![0; CHUNK_BYTES], Commands::default());
    loop {
        let size = from.read(&mut chunk).await?;
        if size == 0 {
            return Ok(());
        }
        for _ in 0..commands.end_in(&chunk[..size]) {
            counts.commands.fetch_add(1, Ordering::Relaxed);
            to.write_all(LOADING).await?;
        }
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
    use tokio::io::{AsyncBufReadExt, BufReader};

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

    #[tokio::test]
    async fn a_shut_door_answers_for_the_server_and_an_open_one_lets_it_answer() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let door = Door::to(server.local_addr().expect("bound").to_string()).await.expect("opens");
        let ask = async || {
            let mut client = TcpStream::connect(door.addr()).await?;
            client.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
            let mut line = String::new();
            BufReader::new(client).read_line(&mut line).await.map(|_| line)
        };
        door.shut();
        assert!(ask().await.expect("is answered").starts_with("-LOADING"));
        door.open();
        let answer = async {
            let (mut client, _) = server.accept().await?;
            client.write_all(b"+PONG\r\n").await
        };
        let (asked, answered) = tokio::join!(ask(), answer);
        answered.expect("the server answers");
        assert_eq!(asked.expect("is answered"), "+PONG\r\n");
        assert_eq!(door.sent().connections, 2);
    }
}
