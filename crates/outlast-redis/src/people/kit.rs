//! A private server for a test, and a broker on it.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Cmd, Value};

use crate::{Options, RedisBroker};

/// How long a server may take to do what is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

pub(super) struct Private {
    pub(super) broker: RedisBroker,
    pub(super) port: u16,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Private {
    pub(super) async fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.expect("the loopback has a free port").port();
        let folder = tempfile::tempdir().expect("the system has a folder for temporary files");
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1", "--dir"])
            .arg(folder.path())
            .args(["--repl-diskless-sync-delay", "0"])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let broker = broker_at(&format!("redis://127.0.0.1:{port}"));
        let server = Self { broker, port, child, _folder: folder };
        until(async || server.broker.inner.admin.about().await.is_ok()).await;
        server
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

impl Drop for Private {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
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
