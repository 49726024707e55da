//! A server of the bench's own, for whoever names none: in memory, on a free port of the loopback.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::bench::Outcome;
use crate::exit::{CliError, Exit};

/// What is looked for on the PATH, the first one first.
const NAMES: [&str; 2] = ["redis-server", "valkey-server"];

/// How long a start may take, on the busiest of machines; an idle one takes 20 ms.
const START_MAX: Duration = Duration::from_secs(15);

/// How often a server that starts is asked whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A process that ends with this.
pub(super) struct Server {
    port: u16,
    _child: Child,
}

impl Server {
    /// Starts a server that keeps nothing, in a folder that must exist.
    pub(super) async fn start(dir: &Path) -> Outcome<Self> {
        let program = find()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let mut child = Command::new(&program)
            .args(["--bind", "127.0.0.1", "--port", &port.to_string()])
            .args(["--save", "", "--appendonly", "no"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A Ctrl-C at the terminal is for the bench, which ends its server itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let client = redis::Client::open(url(port))?;
        let answers = async {
            while let Err(error) = client.get_multiplexed_async_connection().await {
                if let Some(ended) = child.try_wait()? {
                    return Err(format!("{} ended with {ended}: {error}", program.display()).into());
                }
                sleep(LOOK_EVERY).await;
            }
            Outcome::Ok(())
        };
        timeout(START_MAX, answers).await??;
        Ok(Self { port, _child: child })
    }

    pub(super) fn url(&self) -> String {
        url(self.port)
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}")
}

fn find() -> Result<PathBuf, CliError> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&folders).collect();
    let files = NAMES.iter().flat_map(|name| folders.iter().map(move |dir| dir.join(name)));
    files.into_iter().find(|path| path.is_file()).ok_or_else(|| {
        let what = format!(
            "bench --outage needs a server, and there is no {} on the PATH: install one, or name yours by \
             --broker redis://…",
            NAMES.join(" or ")
        );
        CliError::new(Exit::NotFound, what)
    })
}
