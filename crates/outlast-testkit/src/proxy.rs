//! A TCP proxy that spoils connections on purpose: what networks do to a client and a server, scripted while both run.
//!
//! ```text
//! client ──► TcpProxy ──► server
//!               │ pass · lose replies · cut · delay · black hole · refuse · reset
//! ```
//!
//! It reads the commands and counts the replies that pass (RESP2 and RESP3), so that a rule can say "the reply to the next EVALSHA". Other
//! protocols pass too; of them only bytes are known. Rules that name a number of requests or bytes hold once; the others hold until
//! [`TcpProxy::heal`]. Everything ends when the proxy is dropped.
//!
//! Counting replies takes one reply per request for granted: SUBSCRIBE to several channels in RESP2, MONITOR and CLIENT REPLY
//! OFF break that, on their own connection.

mod connection;
mod door;
mod frames;
mod plan;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use door::Door;
pub use plan::PerDirection;
use plan::{End, Lose, Plan};

/// Connections at a time. Further ones are closed at once and counted as turned away.
pub const CONNECTIONS_MAX: usize = 1024;

/// Commands in the log. Further ones are counted only.
pub const LOG_LEN_MAX: usize = 65_536;

/// A way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Requests.
    ToServer,
    /// Replies.
    ToClient,
}

/// What has passed so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections accepted.
    pub connections: u64,
    /// Those of them that are still open.
    pub open: u64,
    /// Connections for which the server could not be reached; they were closed.
    pub unreachable: u64,
    /// Connections that were not accepted, because of [`CONNECTIONS_MAX`] or because accepting failed.
    pub turned_away: u64,
    /// Bytes forwarded.
    pub bytes: PerDirection<u64>,
    /// Bytes read and not forwarded, by a black hole or because a reply was to be lost.
    pub bytes_dropped: u64,
    /// Commands seen complete, forwarded or not.
    pub requests: u64,
    /// Replies seen complete, forwarded or not.
    pub replies: u64,
    /// Requests that were forwarded so that their replies are lost.
    pub replies_lost: u64,
    /// Commands beyond [`LOG_LEN_MAX`].
    pub unlogged: u64,
}

/// A proxy before one server, on a loopback port of its own.
#[derive(Debug)]
pub struct TcpProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    wanted: watch::Sender<Door>,
    actual: watch::Receiver<Door>,
    door: JoinHandle<()>,
}

/// What the connections and the proxy's owner share.
#[derive(Debug)]
struct Shared {
    upstream: Mutex<SocketAddr>,
    plan: Mutex<Plan>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn upstream(&self) -> SocketAddr {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look<T>(&self, look: impl FnOnce(&Plan) -> T) -> T {
        look(&self.plan.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes the plan; whoever waits looks again after it.
    fn change<T>(&self, change: impl FnOnce(&mut Plan) -> T) -> T {
        let result = change(&mut self.plan.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_replace(());
        result
    }
}

impl TcpProxy {
    /// Listens, and passes everything to `upstream` for now. It need not be there yet.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let (changed, _) = watch::channel(());
        let shared =
            Arc::new(Shared { upstream: Mutex::new(upstream), plan: Mutex::default(), changed });
        let (wanted, wants) = watch::channel(Door::Open);
        let (tells, actual) = watch::channel(Door::Open);
        let door = tokio::spawn(door::keep(shared.clone(), addr, listener, wants, tells));
        Ok(Self { addr, shared, wanted, actual, door })
    }

    /// Where clients connect.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `redis://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Applied, but the reply is lost: the next request with this first word goes through, nothing that the server sends from then
    /// on does, and once the server has answered it the connection is closed. Said twice, it happens to two connections.
    pub fn lose_next_reply_to(&self, command: &str) {
        let command = Some(command.to_uppercase());
        self.shared.change(|plan| plan.lose.push_back(Lose { command, requests: 1 }));
    }

    /// The same for the next `requests` requests, whatever they are, of the next connection that sends one. That connection is
    /// closed when the last of them was answered; a client that waits for the first reply before it sends on waits in vain.
    pub fn lose_replies(&self, requests: u64) {
        self.shared.change(|plan| plan.lose.push_back(Lose { command: None, requests }));
    }

    /// Lets `bytes` more bytes through in a direction, all connections together, then closes the connection that carries the
    /// last of them, in the middle of a value if so it falls.
    pub fn cut_after(&self, direction: Direction, bytes: u64) {
        self.shared.change(|plan| *plan.cut_after.of(direction) = Some(bytes));
    }

    /// Holds back every piece (16 KiB at most) of a direction for so long; one after the other, so it limits throughput too.
    pub fn delay(&self, direction: Direction, by: Duration) {
        self.shared.change(|plan| *plan.delay.of(direction) = by);
    }

    /// Accepts and reads, and forwards nothing in either direction: the connections are there, nobody answers.
    pub fn black_hole(&self) {
        self.shared.change(|plan| plan.is_black_hole = true);
    }

    /// Connections that are made from now on lead to another server, as after a change of a name. Those that are there stay.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Closes every connection (FIN). New ones are accepted.
    pub fn close_connections(&self) {
        self.shared.change(|plan| plan.end_all(End::Close));
    }

    /// Resets every connection (RST). New ones are accepted.
    pub fn reset_connections(&self) {
        self.shared.change(|plan| plan.end_all(End::Reset));
    }

    /// Stops listening: from here on the kernel refuses new connections. Those that are there stay.
    ///
    /// # Errors
    ///
    /// When the proxy's task has ended with its runtime.
    pub async fn refuse(&self) -> io::Result<()> {
        self.set_door(Door::Shut).await
    }

    /// Back to normal: forgets every rule, listens again, and closes the connections that lost bytes, for what came after the
    /// gap would make no sense.
    ///
    /// # Errors
    ///
    /// When somebody else has taken the port while it was refused.
    pub async fn heal(&self) -> io::Result<()> {
        self.shared.change(Plan::heal);
        self.set_door(Door::Open).await
    }

    /// What has passed so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.look(|plan| plan.counts)
    }

    /// The first words of all commands so far, in upper case, in the order in which they were complete.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.shared.look(|plan| plan.log.clone())
    }

    /// How often a command was seen.
    #[must_use]
    pub fn seen(&self, command: &str) -> usize {
        let command = command.to_uppercase();
        self.shared.look(|plan| plan.log.iter().filter(|name| **name == command).count())
    }

    /// Waits until the counts are as wanted. Put a timeout around it.
    pub async fn until(&self, wanted: impl Fn(&Counts) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.shared.look(|plan| wanted(&plan.counts)) {
                return;
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn set_door(&self, door: Door) -> io::Result<()> {
        self.wanted.send_replace(door.clone());
        let mut actual = self.actual.clone();
        let gone = || io::Error::other("the proxy has ended with its runtime");
        let reached = actual.wait_for(|now| *now == door || matches!(now, Door::Stuck(_))).await;
        match &*reached.map_err(|_| gone())? {
            Door::Stuck(why) => {
                Err(io::Error::new(io::ErrorKind::AddrInUse, format!("{}: {why}", self.addr)))
            }
            Door::Open | Door::Shut => Ok(()),
        }
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.door.abort();
    }
}
