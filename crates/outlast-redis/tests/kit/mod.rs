//! The server that the tests of this process share: each keeps to a namespace of its own. Without one the
//! tests fail, because they would test nothing.

use outlast_testkit::server::RedisServer;

pub(crate) fn server() -> &'static RedisServer {
    RedisServer::shared().unwrap_or_else(|error| panic!("no server: {error}"))
}

/// Sends a command that must succeed.
pub(crate) fn command(words: &[&str]) {
    server().command(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
}
