//! A private server for tests. To be replaced by the testkit's.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// The shell ends the server when its standard input closes: however the test ends, the kernel closes it.
const WATCH: &str = r#""$@" & pid=$!; cat >/dev/null; kill -9 $pid; wait"#;

/// A server of its own port and nothing on disk.
pub(crate) struct Server {
    port: u16,
    shell: Child,
    lifeline: Option<ChildStdin>,
}

impl Server {
    /// Starts one with further settings.
    pub(crate) fn start(settings: &[(&str, &str)]) -> Self {
        let port = free_port();
        let mut shell = Command::new("sh");
        shell.args(["-c", WATCH, "sh", "redis-server", "--port", &port.to_string()]);
        shell.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]);
        for (name, value) in settings {
            shell.args([format!("--{name}"), (*value).to_owned()]);
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut shell = shell.spawn().expect("a shell");
        let lifeline = shell.stdin.take();
        let log = BufReader::new(shell.stdout.take().expect("its output"));
        let mut lines = log.lines().map_while(Result::ok);
        let is_ready = lines.any(|line| line.contains("Ready to accept connections"));
        assert!(is_ready, "the server has started");
        // Whoever does not read it stops a server that writes.
        std::thread::spawn(move || lines.for_each(drop));
        Self { port, shell, lifeline }
    }

    /// One for all tests of this process that keep to namespaces of their own.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Sends a command that must succeed.
    pub(crate) fn command(&self, words: &[&str]) {
        let client = redis::Client::open(self.url()).expect("a URL");
        let mut connection = client.get_connection().expect("the server answers");
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        let _: redis::Value = command.query(&mut connection).expect("the command succeeds");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        self.shell.wait().expect("the shell ends");
    }
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
