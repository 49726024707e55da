//! A private server for a test, and a broker on it.

use std::time::Duration;

use outlast_testkit::server::RedisServer;
use redis::{Cmd, Value};

use crate::{Options, RedisBroker};

/// How long a server may take to do what is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Private {
    pub(super) broker: RedisBroker,
    pub(super) port: u16,
    _server: RedisServer,
}

impl Private {
    pub(super) fn start() -> Self {
        let server = RedisServer::start().expect("redis-server is installed and starts");
        Self { broker: broker_at(&server.url()), port: server.port(), _server: server }
    }

    pub(super) async fn run(&self, words: &str) -> Value {
        let mut command = Cmd::new();
        for word in words.split_whitespace() {
            command.arg(word);
        }
        self.send(&command).await
    }

    pub(super) async fn send(&self, command: &Cmd) -> Value {
        self.broker.inner.admin.run(command).await.expect("the server answers")
    }

    pub(super) async fn text(&self, words: &str) -> String {
        crate::answer::text(self.run(words).await).expect("the command answers with a text")
    }

    pub(super) async fn bytes(&self, words: &str) -> Vec<u8> {
        let found =
            crate::answer::bytes(self.run(words).await).expect("the command answers with bytes");
        found.unwrap_or_default().to_vec()
    }

    pub(super) async fn list(&self, words: &str) -> Vec<String> {
        let items = crate::answer::list(self.run(words).await)
            .expect("the command answers with a list")
            .into_iter();
        items
            .map(|item| crate::answer::text(item).expect("the command answers with a text"))
            .collect()
    }
}

pub(super) fn broker_at(url: &str) -> RedisBroker {
    RedisBroker::new(url, Options::default()).expect("the URL of a test is a URL")
}

/// Asks again and again until it is so.
pub(super) async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let mut again = tokio::time::interval(Duration::from_millis(20));
    let waited = tokio::time::timeout(PATIENCE, async {
        while !is_so().await {
            again.tick().await;
        }
    });
    waited.await.expect("it becomes so");
}
