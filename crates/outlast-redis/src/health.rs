//! How a server is: its role, its clock, its memory, and whose data it has.

use outlast_core::{BrokerError, Epoch, Health, Memory, Role, Timestamp};
use uuid::Uuid;

use crate::answer;
use crate::broker::Inner;
use crate::conn::Call;
use crate::scripts::HEALTH;

impl Inner {
    /// Looks after the server; see [`outlast_core::Broker::health`]. One command on a connection of its own that costs one to
    /// make, so that a sick server can be asked every second (law L9). On a primary the probing write is the one that gives
    /// its data a name where it has none.
    ///
    /// # Errors
    /// What the server answers to the probing write, unless it is that there is no memory: what ends work needs none. What our
    /// user may not ask is left out instead: the role is then what the probe shows, clock and memory unknown.
    pub(crate) async fn health(&self, _: Timestamp) -> Result<Health, BrokerError> {
        let mut call = Call::new(&HEALTH, vec![self.root.own("epoch")]);
        call.text(Uuid::new_v4().simple().to_string());
        let mut parts = answer::list(self.probe.script_by_text(&call).await?)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let server = answer::text(next())?;
        let about = self.server.judge(&server)?;
        self.server.saw(&about);
        let replication = answer::text(next())?;
        let (role, run) = (role_of(&replication), run_of(&server, &replication));
        // A replica of a primary that was never looked at has none: it is empty until then.
        let epoch = Epoch(answer::text(next())?);
        let memory = answer::text(next())?;
        if let Some(policy) = field(&memory, "maxmemory_policy") {
            self.saw_policy(policy);
        }
        let memory =
            Memory { used_percent: used_percent(&memory), is_full: answer::int(next())? > 0 };
        let (clock, software) = (clock_of(&server), about.software);
        Ok(Health { role, clock, epoch, run, software, memory })
    }
}

/// A server that tells nothing has taken the write.
fn role_of(replication: &str) -> Role {
    let is_replica = replication.lines().any(|line| line.trim() == "role:slave");
    if is_replica { Role::Replica } else { Role::Primary }
}

/// Its run and the line of replicas that it belongs to: both change with a restart, the latter alone when it was given the data of
/// another server.
fn run_of(server: &str, replication: &str) -> String {
    let (run, line) = (field(server, "run_id"), field(replication, "master_replid"));
    if run.or(line).is_none() {
        return String::new();
    }
    format!("{}/{}", run.unwrap_or_default(), line.unwrap_or_default())
}

/// A field of what INFO says.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
}

/// What counts against `maxmemory`, in percent of it. A server that makes room by itself is always full, and refuses nothing.
fn used_percent(memory: &str) -> Option<u8> {
    let bytes = |name: &str| field(memory, name)?.parse::<u64>().ok();
    let most = bytes("maxmemory").filter(|most| *most > 0)?;
    field(memory, "maxmemory_policy").filter(|policy| *policy == "noeviction")?;
    let used = bytes("used_memory")?
        .saturating_sub(bytes("mem_not_counted_for_evict").unwrap_or_default());
    Some(u8::try_from(used.saturating_mul(100) / most).unwrap_or(u8::MAX))
}

/// The server's clock in its INFO, which counts microseconds.
fn clock_of(server: &str) -> Option<Timestamp> {
    let micros: i64 = field(server, "server_time_usec")?.parse().ok()?;
    Some(Timestamp::from_millis(micros / 1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_read_to_the_millisecond() {
        let clock = clock_of("# Server\r\nserver_time_usec:1795521600123456\r\n");
        assert_eq!(clock, Some(Timestamp::from_millis(1_795_521_600_123)));
        assert_eq!(clock_of("server_time_usec:noon"), None);
        assert_eq!(clock_of(""), None);
    }

    #[test]
    fn memory_is_a_share_of_what_new_tasks_may_use() {
        let info = |most: u64, policy: &str| {
            format!(
                "used_memory:900\r\nused_memory_rss:5000\r\nmaxmemory:{most}\r\nmaxmemory_policy:{policy}\r\n\
                 mem_not_counted_for_evict:100\r\n"
            )
        };
        assert_eq!(used_percent(&info(1000, "noeviction")), Some(80));
        assert_eq!(used_percent(&info(1, "noeviction")), Some(255));
        assert_eq!(used_percent(&info(0, "noeviction")), None);
        assert_eq!(used_percent(&info(1000, "allkeys-lru")), None);
        assert_eq!(used_percent(""), None);
    }

    #[test]
    fn a_run_is_another_one_after_a_restart_and_with_other_data() {
        let run = |run: &str, line: &str| {
            run_of(
                &format!("redis_version:7\r\nrun_id:{run}\r\n"),
                &format!("master_replid:{line}\r\n"),
            )
        };
        assert_eq!(run("a", "b"), "a/b");
        assert_ne!(run("a", "b"), run("c", "b"));
        assert_ne!(run("a", "b"), run("a", "c"));
        assert_eq!(run_of("", ""), "", "who may not ask knows nothing");
    }

    #[test]
    fn a_replica_is_known_by_its_role() {
        assert_eq!(role_of("# Replication\r\nrole:slave\r\n"), Role::Replica);
        assert_eq!(role_of("# Replication\r\nrole:master\r\n"), Role::Primary);
        assert_eq!(role_of(""), Role::Primary);
    }
}
