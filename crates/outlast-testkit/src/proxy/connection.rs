//! One connection through the proxy: two pumps, and an end that may come from outside.

use std::future::pending;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::frames::Frames;
use super::plan::End;
use super::{Direction, Shared};

/// How much is read, judged and delayed at once.
const PIECE_LEN_MAX: usize = 16 * 1024;

/// Why a pump stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// The sender has no more to say; the other direction may go on.
    Eof,
    /// Either side is gone, or a rule ends the connection here.
    Over,
}

/// Serves a client until either side, or a rule, ends the connection.
pub(super) async fn serve(shared: Arc<Shared>, mut client: TcpStream) {
    let (id, mut ended) = shared.change(|plan| plan.open());
    let end = tokio::select! {
        biased;
        end = ended.wait_for(Option::is_some) => end.map(|end| *end).ok().flatten(),
        () = carry(&shared, id, &mut client) => None,
    };
    if end == Some(End::Reset) {
        // Fails only when the client has gone already.
        let _ = client.set_zero_linger();
    }
    drop(client);
    shared.change(|plan| plan.close(id));
}

async fn carry(shared: &Shared, id: u64, client: &mut TcpStream) {
    // Nothing is for the server while nothing gets through, not even the connection.
    if shared.look(|plan| plan.is_black_hole) {
        let (from_client, _to_client) = client.split();
        let frames = Frames::new(Direction::ToServer);
        pump(shared, id, frames, from_client, tokio::io::sink()).await;
        return;
    }
    let Ok(mut server) = TcpStream::connect(shared.upstream()).await else {
        shared.change(|plan| plan.counts.unreachable += 1);
        return;
    };
    // Fails only when a side has gone already, which the pumps notice.
    let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let up = pump(shared, id, Frames::new(Direction::ToServer), from_client, to_server);
    let down = pump(shared, id, Frames::new(Direction::ToClient), from_server, to_client);
    let up = async {
        match up.await {
            Stopped::Eof => pending().await,
            Stopped::Over => {}
        }
    };
    tokio::select! {
        biased;
        _ = down => {}
        () = up => {}
    }
}

/// Carries one direction, piece by piece, as the plan says.
async fn pump(
    shared: &Shared,
    id: u64,
    mut frames: Frames,
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
) -> Stopped {
    let direction = frames.direction();
    let mut buffer = vec![0; PIECE_LEN_MAX];
    loop {
        let piece = match from.read(&mut buffer).await {
            Ok(0) => {
                // Fails only when the receiver has gone; its own direction notices.
                let _ = to.shutdown().await;
                return Stopped::Eof;
            }
            Ok(len) => &buffer[..len],
            Err(_) => return Stopped::Over,
        };
        let verdict = shared.change(|plan| plan.judge(id, &mut frames, piece));
        if !verdict.delay.is_zero() {
            // Ends by its deadline alone, or with the connection.
            let _ = timeout(verdict.delay, pending::<()>()).await;
        }
        if to.write_all(&piece[..verdict.forward]).await.is_err() {
            return Stopped::Over;
        }
        shared.change(|plan| *plan.counts.bytes.of(direction) += verdict.forward as u64);
        if verdict.is_last {
            return Stopped::Over;
        }
    }
}
