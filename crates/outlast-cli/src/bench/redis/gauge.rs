//! What the server says of itself: the time its scripts took, its memory, the commands it was sent.

use std::time::Duration;

use futures_util::StreamExt;
use redis::Client;
use redis::aio::MultiplexedConnection;

use super::Outcome;

/// How long to wait for memory that the server frees in the background, look by look.
const FREEING_LOOKS_MAX: u32 = 200;
const FREEING_LOOK_EVERY: Duration = Duration::from_millis(20);

/// The commands that run scripts. What a script calls is listed again under its own name, so only these are summed:
/// for ours and for asynq's alike, whose work is all in scripts.
const SCRIPTS: [&str; 6] = ["eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"];

/// Reads the server's own numbers.
#[derive(Clone)]
pub(super) struct Gauge {
    client: Client,
    connection: MultiplexedConnection,
}

impl Gauge {
    pub(super) async fn new(client: &Client) -> Outcome<Self> {
        let connection = client.get_multiplexed_async_connection().await?;
        Ok(Self { client: client.clone(), connection })
    }

    /// What kind of server it is and how it keeps its data, in a few words.
    pub(super) async fn mode(&mut self) -> Outcome<String> {
        let info = self.info("server").await? + &self.info("persistence").await?;
        let software = match field(&info, "valkey_version") {
            Some(version) => format!("valkey {version}"),
            None => format!("redis {}", field(&info, "redis_version").unwrap_or("unknown")),
        };
        let aof = if field(&info, "aof_enabled") == Some("1") { "appendonly" } else { "in memory" };
        Ok(format!("{software}, {aof}"))
    }

    /// Microseconds that scripts have taken since the server was started.
    pub(super) async fn script_micros(&mut self) -> Outcome<u64> {
        let info = self.info("commandstats").await?;
        Ok(script_micros(&info))
    }

    /// Bytes in use, once what was deleted has been freed.
    pub(super) async fn memory(&mut self) -> Outcome<u64> {
        for _ in 0..FREEING_LOOKS_MAX {
            let info = self.info("memory").await?;
            if field(&info, "lazyfree_pending_objects").is_none_or(|left| left == "0") {
                let used = field(&info, "used_memory").and_then(|used| used.parse().ok());
                return used
                    .ok_or_else(|| "the server does not say how much memory it uses".into());
            }
            tokio::time::sleep(FREEING_LOOK_EVERY).await;
        }
        Err("the server does not come to an end with freeing memory".into())
    }

    /// Commands that clients send within this time. What scripts call is not sent by anybody, and not counted.
    pub(super) async fn commands(&self, time: Duration) -> Outcome<u64> {
        let monitor = self.client.get_async_monitor().await?;
        let mut seen = monitor.into_on_message::<String>();
        let mut count = 0;
        let watch = async {
            while let Some(line) = seen.next().await {
                count += u64::from(!is_of_a_script(&line));
            }
        };
        match tokio::time::timeout(time, watch).await {
            Err(_) => Ok(count),
            Ok(()) => Err("the server has ended the watch over its commands".into()),
        }
    }

    async fn info(&mut self, section: &str) -> Outcome<String> {
        Ok(redis::cmd("INFO").arg(section).query_async(&mut self.connection).await?)
    }
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

fn script_micros(info: &str) -> u64 {
    let of = |name: &str| -> u64 {
        let line = field(info, &format!("cmdstat_{name}")).unwrap_or_default();
        let micros = line.split(',').find_map(|part| part.strip_prefix("usec="));
        micros.and_then(|micros| micros.parse().ok()).unwrap_or(0)
    };
    SCRIPTS.into_iter().map(of).sum()
}

/// A line of MONITOR is `time [db address] "command" …`; the address of what a script calls is `lua`.
fn is_of_a_script(line: &str) -> bool {
    let address = line.split(['[', ']']).nth(1).and_then(|source| source.split(' ').nth(1));
    address == Some("lua")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_scripts_is_summed() {
        let info = "# Commandstats\r\ncmdstat_hset:calls=9,usec=900,usec_per_call=100.00\r\n\
            cmdstat_evalsha:calls=3,usec=1000,usec_per_call=333.33,rejected_calls=0\r\n\
            cmdstat_eval:calls=1,usec=234,usec_per_call=234.00\r\ncmdstat_evalsha_ro:calls=1,usec=6\r\n";
        assert_eq!(script_micros(info), 1240);
        assert_eq!(script_micros(""), 0);
    }

    #[test]
    fn what_a_script_calls_is_told_from_what_a_client_sends() {
        assert!(is_of_a_script("1339518083.107412 [0 lua] \"set\" \"a\" \"[0 127.0.0.1:1]\""));
        assert!(!is_of_a_script("1339518083.107412 [0 127.0.0.1:60866] \"set\" \"[0 lua]\""));
    }
}
