//! A proxy that loses a reply. To be replaced by the testkit's.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A proxy that passes the first EVALSHA on, and cuts the connection instead of its reply.
pub(crate) struct LosingProxy {
    pub(crate) port: u16,
}

impl LosingProxy {
    /// In front of the server of this URL.
    pub(crate) fn start(url: &str) -> Self {
        let server = url.trim_start_matches("redis://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let is_armed = Arc::new(AtomicBool::new(true));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let server = TcpStream::connect(&server).expect("the server is there");
                pass(client, server, &is_armed);
            }
        });
        Self { port }
    }
}

fn pass(client: TcpStream, server: TcpStream, is_armed: &Arc<AtomicBool>) {
    let is_losing = Arc::new(AtomicBool::new(false));
    let (mut from, mut to) =
        (client.try_clone().expect("a handle"), server.try_clone().expect("a handle"));
    let (armed, losing) = (is_armed.clone(), is_losing.clone());
    std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let is_script = bytes[..count].windows(7).any(|word| word == b"EVALSHA");
            if is_script && armed.swap(false, Ordering::SeqCst) {
                losing.store(true, Ordering::SeqCst);
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    });
    let (mut from, mut to) = (server, client);
    std::thread::spawn(move || {
        let mut bytes = [0; 65_536];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if is_losing.load(Ordering::SeqCst) || to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Both).ok();
    });
}
