//! asynq's exporter for Prometheus, and its dashboard in a terminal, on queues that Outlast has filled.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::go::program;
use super::states::STATES;
use super::world::{World, built, until};

/// A program whose output is read as it comes, killed when the test is over.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _gone_already = self.0.kill();
        let _gone_already = self.0.wait();
    }
}

/// What the exporter says, or none while it does not listen yet.
fn scrape(at: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[tokio::test]
async fn asynqs_exporter_counts_our_queues_and_tasks() {
    let Some(exporter) = built("asynq-exporter") else { return };
    let Some(world) = World::start().await else { return };
    let _ours = world.we_fill().await;
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (redis, port) = (world.redis.addr().to_string(), free.port().to_string());
    let mut command = Command::new(exporter);
    command.args(["--redis-addr", &redis, "--port", &port]);
    let _exporter = Running(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let said = until("the exporter listens", async || {
        tokio::task::spawn_blocking(move || scrape(free)).await.unwrap()
    })
    .await;
    for line in [
        "asynq_queue_size{queue=\"q\"} 7",
        "asynq_queue_paused_total{queue=\"q\"} 0",
        "asynq_tasks_processed_total{queue=\"q\"} 3",
        "asynq_tasks_failed_total{queue=\"q\"} 2",
    ] {
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    // Groups are younger than the exporter.
    for (state, _) in STATES.iter().filter(|(state, _)| state.to_string() != "aggregating") {
        let line = format!("asynq_tasks_enqueued_total{{queue=\"q\",state=\"{state}\"}} 1");
        assert!(said.lines().any(|said| said == line), "{line}: {said}");
    }
    let bytes = "asynq_queue_memory_usage_approx_bytes{queue=\"q\"} ";
    let bytes = said.lines().find_map(|line| line.strip_prefix(bytes)).unwrap();
    assert!(bytes.parse::<f64>().unwrap() > 0.0, "{bytes}");
}

/// A text as a terminal would show it, without the signs that move its cursor and change its colours.
fn plain(screen: &[u8]) -> String {
    let text = String::from_utf8_lossy(screen);
    let mut shown = String::new();
    for part in text.split('\u{1b}') {
        let ends = part.find(|sign: char| sign.is_ascii_alphabetic()).map_or(0, |at| at + 1);
        shown.push(' ');
        shown.push_str(part.get(ends..).unwrap_or_default());
    }
    shown
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn asynqs_dashboard_in_a_terminal_shows_our_queues() {
    if built("asynq").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let _ours = world.we_fill().await;
    let dash = format!(
        "stty rows 40 cols 150; exec '{}' dash --uri {} --refresh=1s",
        program("asynq").display(),
        world.redis.addr()
    );
    // A terminal of its own, from util-linux.
    let mut command = Command::new("script");
    command.args(["-qec", &dash, "/dev/null"]).env("TERM", "xterm");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut dash = Running(command.spawn().unwrap());
    let screen = Arc::new(Mutex::new(Vec::new()));
    let (mut output, seen) = (dash.0.stdout.take().unwrap(), screen.clone());
    std::thread::spawn(move || {
        let mut piece = [0; 4096];
        while let Ok(length @ 1..) = output.read(&mut piece) {
            seen.lock().unwrap().extend_from_slice(&piece[..length]);
        }
    });
    let shown = until("the queue is shown", async || {
        let shown = plain(&screen.lock().unwrap());
        shown.contains("0.67").then_some(shown)
    })
    .await;
    let words: Vec<&str> = shown.split_whitespace().collect();
    assert!(words.windows(3).any(|row| row == ["q", "RUN", "7"]), "{words:?}");
    assert!(
        words.windows(3).any(|row| row == ["3", "2", "0.67"]),
        "processed and failed: {words:?}"
    );
    assert!(!shown.contains("error"), "{words:?}");
}
