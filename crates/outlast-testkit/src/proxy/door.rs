//! The listening side of the proxy: accepts, or is shut so that the kernel itself refuses.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection::serve;
use super::{CONNECTIONS_MAX, Shared};

/// Whether the door is open, as it is or as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    Shut,
    /// It could not be opened again: the port has gone to somebody else.
    Stuck(String),
}

/// Accepts connections while `wanted` says open; `actual` follows. Ends, with all connections, when it is aborted or the proxy is
/// dropped.
pub(super) async fn keep(
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: TcpListener,
    mut wanted: watch::Receiver<Door>,
    actual: watch::Sender<Door>,
) {
    let mut connections = JoinSet::new();
    let mut listener = Some(listener);
    loop {
        let open = *wanted.borrow_and_update() == Door::Open;
        if open && listener.is_none() {
            let bound = TcpListener::bind(addr).await;
            let door = match &bound {
                Ok(_) => Door::Open,
                Err(error) => Door::Stuck(error.to_string()),
            };
            listener = bound.ok();
            actual.send_replace(door);
        } else if !open {
            listener = None;
            actual.send_replace(Door::Shut);
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            accepted = accept(listener.as_ref()) => match accepted {
                Ok((client, _)) if connections.len() < CONNECTIONS_MAX => {
                    connections.spawn(serve(shared.clone(), client));
                }
                Ok(_) | Err(_) => shared.change(|plan| plan.counts.turned_away += 1),
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(
    listener: Option<&TcpListener>,
) -> std::io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}
