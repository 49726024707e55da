//! The door to a server: a proxy on a port of its own. Open, it passes everything on; shut, it is a server that loads its
//! data: it answers every command with an error, and counts it. So a server that others use has an outage for the bench
//! alone, and what is sent to a sick one is known to the command.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections at once; a client and a worker have some dozens. One more is closed at once.
const CONNECTIONS_MAX: usize = 256;

/// Bytes of a word of a command; ours are batches of 8 MiB at most.
const WORD_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a server says while it loads its data.
const LOADING: &[u8] = b"-LOADING Redis is loading the dataset in memory\r\n";

/// A proxy; its connections end with it.
pub(super) struct Door {
    addr: SocketAddr,
    is_open: watch::Sender<bool>,
    commands: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Door {
    /// A door to the server of this address, such as `10.0.0.7:6379`; it is shut.
    pub(super) async fn to(server: String) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (addr, commands) = (listener.local_addr()?, Arc::new(AtomicU64::new(0)));
        let (is_open, state) = watch::channel(false);
        let task = tokio::spawn(serve(listener, server.into(), state, commands.clone()));
        Ok(Self { addr, is_open, commands, task })
    }

    pub(super) fn port(&self) -> u16 {
        self.addr.port()
    }

    pub(super) fn open(&self) {
        self.is_open.send_replace(true);
    }

    pub(super) fn shut(&self) {
        self.is_open.send_replace(false);
    }

    /// Commands that came while it was shut.
    pub(super) fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
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
    commands: Arc<AtomicU64>,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) if open.len() < CONNECTIONS_MAX => {
                    let (server, state) = (server.clone(), state.clone());
                    let commands = commands.clone();
                    // An error of a connection ends it, as a server would.
                    open.spawn(async move { pass(client, &server, state, &commands).await });
                }
                Ok(_) => tracing::warn!("the door has too many connections: one was closed"),
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
    mut client: TcpStream,
    server: &str,
    mut state: watch::Receiver<bool>,
    commands: &AtomicU64,
) -> io::Result<()> {
    // Whoever waits for more bytes before it sends would be seen as a slow server.
    client.set_nodelay(true)?;
    let is_open = *state.borrow_and_update();
    let served = async {
        if !is_open {
            return refuse(client, commands).await;
        }
        let mut server = TcpStream::connect(server).await?;
        server.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut server).await.map(|_| ())
    };
    tokio::select! {
        served = served => served,
        _ = state.changed() => Ok(()),
    }
}

/// Answers each command with an error, to the end of the connection.
async fn refuse(client: TcpStream, commands: &AtomicU64) -> io::Result<()> {
    let mut client = BufReader::new(client);
    while read_command(&mut client).await? {
        commands.fetch_add(1, Ordering::Relaxed);
        client.write_all(LOADING).await?;
    }
    Ok(())
}

/// Reads over one command, `*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`; false at the end of the connection.
async fn read_command(from: &mut (impl AsyncBufReadExt + Unpin)) -> io::Result<bool> {
    let Some(words) = read_head(from, '*').await? else { return Ok(false) };
    for _ in 0..words {
        let Some(bytes) = read_head(from, '$').await? else { return Ok(false) };
        let mut word = from.take(bytes as u64 + 2);
        tokio::io::copy_buf(&mut word, &mut tokio::io::sink()).await?;
    }
    Ok(true)
}

async fn read_head(
    from: &mut (impl AsyncBufReadExt + Unpin),
    sign: char,
) -> io::Result<Option<usize>> {
    let mut line = String::new();
    // The longest head has eleven characters.
    if from.take(32).read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let number = line.strip_prefix(sign).and_then(|number| number.trim_end().parse().ok());
    match number.filter(|number| *number <= WORD_BYTES_MAX) {
        Some(number) => Ok(Some(number)),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, format!("no command: {line:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_are_counted_whatever_is_in_them() {
        let text = b"*2\r\n$3\r\nSET\r\n$8\r\n*1\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n";
        let mut from = &text[..];
        let mut count = 0;
        while read_command(&mut from).await.expect("they are commands") {
            count += 1;
        }
        assert_eq!(count, 2);
        assert!(read_command(&mut &b"GET / HTTP/1.1\r\n"[..]).await.is_err());
    }

    #[tokio::test]
    async fn a_shut_door_answers_for_the_server_and_an_open_one_lets_it_answer() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let door = Door::to(server.local_addr().expect("bound").to_string()).await.expect("opens");
        let ask = async || {
            let mut client = TcpStream::connect(door.addr).await?;
            client.write_all(b"*1\r\n$4\r\nPING\r\n").await?;
            let mut line = String::new();
            BufReader::new(client).read_line(&mut line).await.map(|_| line)
        };
        assert!(ask().await.expect("is answered").starts_with("-LOADING"));
        assert_eq!(door.commands(), 1);
        door.open();
        let answer = async {
            let (mut client, _) = server.accept().await?;
            client.write_all(b"+PONG\r\n").await
        };
        let (asked, answered) = tokio::join!(ask(), answer);
        answered.expect("the server answers");
        assert_eq!((asked.expect("is answered").as_str(), door.commands()), ("+PONG\r\n", 1));
    }
}
