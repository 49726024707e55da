//! Which commands of the scripts the server's user may not use. A script that is refused one in the middle of its work has done
//! the first half: so it is known before, and no script begins that could not end.
//!
//! Asked with the first connection of a user, with the next one after the server refused a login or a call, and again whenever a
//! permission turned out to be missing: it may have been given meanwhile. What is taken away from a user in silence, while it is
//! connected or while its server restarts, shows when a script meets it; so does everything on Redis 6.2, which cannot be asked.

use std::sync::{Arc, Mutex, PoisonError};

use outlast_core::{BrokerError, Kind};
use redis::{Cmd, Value};

use crate::answer;
use crate::keys::Root;
use crate::scripts::{Dialect, PERMISSIONS, Script};

/// The commands that are refused to one user, on all its connections.
#[derive(Clone, Debug, Default)]
pub(crate) struct Refused(Arc<Mutex<Vec<String>>>);

impl Refused {
    pub(crate) fn set(&self, names: Vec<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = names;
    }

    /// The error of a script that would meet one of them.
    pub(crate) fn check(&self, script: &Script, shown: &str) -> Result<(), BrokerError> {
        let names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let missing: Vec<&str> =
            names.iter().map(String::as_str).filter(|name| script.uses(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        let what = format!(
            "{shown} (the user lacks a permission: see docs/redis-keys.md): it may not use {missing}, and nothing was done"
        );
        Err(BrokerError::new(Kind::Misconfigured, what))
    }
}

/// What the server is asked, if it can be.
pub(crate) fn question(dialect: Dialect, root: &Root) -> Option<Cmd> {
    if dialect == Dialect::Plain {
        return None;
    }
    // By its text: it is the first script on a connection, and the server may have lost them all.
    let mut ask = redis::cmd("EVAL_RO");
    ask.arg(&PERMISSIONS.on(dialect).text).arg(0).arg(root.own("permissions"));
    Some(ask)
}

/// The names in the answer.
pub(crate) fn refused(answer: Value) -> Result<Vec<String>, BrokerError> {
    let refused = answer::list(answer)?.into_iter().next().unwrap_or_default();
    answer::list(refused)?.into_iter().map(answer::text).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, RedisBroker};
    use outlast_testkit::server::RedisServer;

    /// A row with too few arguments is refused for that, and says nothing about permissions.
    #[tokio::test]
    async fn the_server_takes_every_row_of_the_question() {
        let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
        let broker = RedisBroker::new(&server.url(), Options::default()).expect("a broker");
        let admin = &broker.inner.admin;
        let dialect = admin.about().await.expect("the server answers").dialect;
        // Redis 6.2 cannot be asked.
        let Some(question) = question(dialect, &broker.inner.root) else { return };
        let answer = admin.run(&question).await.expect("the server answers");
        let [refused, odd] = &answer::list(answer).expect("a list")[..] else {
            panic!("two lists")
        };
        assert_eq!((refused, odd), (&Value::Array(vec![]), &Value::Array(vec![])));
    }
}
