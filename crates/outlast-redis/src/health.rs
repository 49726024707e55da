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
        let role = role_of(&answer::text(next())?);
        // A replica of a primary that was never looked at has none: it is empty until then.
        let epoch = Epoch(answer::text(next())?);
        let memory = Memory {
            used_percent: used_percent(&answer::text(next())?),
            is_full: answer::int(next())? > 0,
        };
        Ok(Health { role, clock: clock_of(&server), epoch, software: about.software, memory })
    }
}

/// A server that tells nothing has taken the write.
fn role_of(replication: &str) -> Role {
    let is_replica = replication.lines().any(|line| line.trim() == "role:slave");
    if is_replica { Role::Replica } else { Role::Primary }
}

/// What counts against `maxmemory`, in percent of it. A server that makes room by itself is always full, and refuses nothing.
fn used_percent(memory: &str) -> Option<u8> {
    let field = |name: &str| {
        memory.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'))
    };
    let bytes = |name: &str| field(name)?.parse::<u64>().ok();
    let most = bytes("maxmemory").filter(|most| *most > 0)?;
    field("maxmemory_policy").filter(|policy| *policy == "noeviction")?;
    let used = bytes("used_memory")?
        .saturating_sub(bytes("mem_not_counted_for_evict").unwrap_or_default());
    Some(u8::try_from(used.saturating_mul(100) / most).unwrap_or(u8::MAX))
}

/// The server's clock in its INFO, which counts microseconds.
fn clock_of(server: &str) -> Option<Timestamp> {
    let micros = server.lines().find_map(|line| line.trim().strip_prefix("server_time_usec:"))?;
    let micros: i64 = micros.parse().ok()?;
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
    fn a_replica_is_known_by_its_role() {
        assert_eq!(role_of("# Replication\r\nrole:slave\r\n"), Role::Replica);
        assert_eq!(role_of("# Replication\r\nrole:master\r\n"), Role::Primary);
        assert_eq!(role_of(""), Role::Primary);
    }
}
