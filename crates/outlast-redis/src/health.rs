//! How a server is: its role, its clock, and whose data it has.

use outlast_core::{BrokerError, Epoch, Health, Kind, Role, Timestamp};
use redis::{Cmd, Value};
use uuid::Uuid;

use crate::answer;
use crate::broker::Inner;

impl Inner {
    /// Looks after the server; see [`outlast_core::Broker::health`]. On a primary the probing write is the
    /// one that gives its data a name where it has none.
    ///
    /// # Errors
    /// What the server answers to the probing write. What our user may not ask is left out instead: the role
    /// is then what the probe shows, the clock unknown.
    pub(crate) async fn health(&self, _: Timestamp) -> Result<Health, BrokerError> {
        let about = self.admin.about().await?;
        let (role_asked, time_asked) = (redis::cmd("ROLE"), redis::cmd("TIME"));
        let (role, time) =
            futures_util::future::join(self.permitted(&role_asked), self.permitted(&time_asked))
                .await;
        let role = match role? {
            Some(value) => role_of(value)?,
            None => self.role_by_info().await?,
        };
        let clock = time?.map(clock_of).transpose()?.flatten();
        let key = self.root.own("epoch");
        let mut asked = redis::pipe();
        if role == Role::Primary {
            let fresh = Uuid::new_v4().simple().to_string();
            asked.cmd("SET").arg(&key).arg(fresh).arg("NX").ignore();
        }
        asked.cmd("GET").arg(&key);
        let found = self.admin.run_all(&asked).await?.into_iter().next_back();
        // A replica of a primary that was never looked at has none: it is empty until then.
        let epoch = Epoch(answer::text(found.unwrap_or_default())?);
        Ok(Health { role, clock, epoch, software: about.software })
    }

    /// The role where ROLE may not be asked; a server that tells nothing is taken for a primary, and the
    /// probing write finds out.
    async fn role_by_info(&self) -> Result<Role, BrokerError> {
        let mut info = redis::cmd("INFO");
        let Some(value) = self.permitted(info.arg("replication")).await? else {
            return Ok(Role::Primary);
        };
        let text = info_text(value)?;
        let is_replica = text.lines().any(|line| line.trim() == "role:slave");
        Ok(if is_replica { Role::Replica } else { Role::Primary })
    }

    /// The answer, or `None` for a command that our user may not use or the server does not have.
    async fn permitted(&self, command: &Cmd) -> Result<Option<Value>, BrokerError> {
        match self.admin.run(command).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.kind() == Kind::Misconfigured => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// INFO is a verbatim text in RESP3.
pub(crate) fn info_text(value: Value) -> Result<String, BrokerError> {
    match value {
        Value::VerbatimString { text, .. } => Ok(text),
        other => answer::text(other),
    }
}

fn role_of(value: Value) -> Result<Role, BrokerError> {
    let name = answer::list(value)?.into_iter().next().unwrap_or_default();
    Ok(if answer::text(name)? == "slave" { Role::Replica } else { Role::Primary })
}

/// TIME: seconds and microseconds.
fn clock_of(value: Value) -> Result<Option<Timestamp>, BrokerError> {
    let mut parts = answer::list(value)?.into_iter();
    let mut next = || answer::int(parts.next().unwrap_or_default());
    let (seconds, micros) = (next()?, next()?);
    let millis = seconds.saturating_mul(1000).saturating_add(micros / 1000);
    Ok((seconds != 0).then_some(Timestamp::from_millis(millis)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    #[test]
    fn a_clock_is_read_to_the_millisecond() {
        let time = Value::Array(vec![text("1795521600"), text("123456")]);
        let clock = clock_of(time).expect("readable");
        assert_eq!(clock, Some(Timestamp::from_millis(1_795_521_600_123)));
        assert!(clock_of(Value::Array(vec![text("noon")])).is_err());
    }

    #[test]
    fn a_replica_is_known_by_its_role() {
        for (name, role) in [("master", Role::Primary), ("slave", Role::Replica)] {
            let answer = Value::Array(vec![text(name), Value::Int(1), Value::Array(vec![])]);
            assert_eq!(role_of(answer).expect("readable"), role);
        }
    }
}
