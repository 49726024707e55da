//! Whether the server may throw our keys away when its memory is full, and what to do about it.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use redis::Value;

use crate::answer;
use crate::broker::Inner;

/// Servers that were warned of. Of more, the log says nothing.
const WARNED_MAX: usize = 1000;

/// Those that this process has warned of: once is enough.
static WARNED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Inner {
    /// Warns, once per process and server, of a server that evicts keys. Where it may not be asked, nothing is
    /// known, and nothing said.
    pub(crate) async fn warn_of_eviction(&self) {
        let mut ask = redis::cmd("CONFIG");
        ask.arg("GET").arg("maxmemory-policy");
        let Ok(answer) = self.admin.run(&ask).await else { return };
        if let Some(policy) = setting_of(answer) {
            self.saw_policy(&policy);
        }
    }

    /// What the server does when its memory is full was seen.
    pub(crate) fn saw_policy(&self, policy: &str) {
        let server = self.server.shown();
        if policy != "noeviction" && is_first(server) {
            tracing::warn!(
                server,
                policy,
                "the server deletes tasks when its memory is full: set `maxmemory-policy noeviction`"
            );
        }
    }
}

fn is_first(server: &str) -> bool {
    let mut warned = WARNED.lock().unwrap_or_else(PoisonError::into_inner);
    warned.len() < WARNED_MAX && warned.insert(server.to_owned())
}

/// The value in the answer to CONFIG GET: a map, or a list from a server that speaks RESP2.
pub(crate) fn setting_of(answer: Value) -> Option<String> {
    let value = match answer {
        Value::Map(pairs) => pairs.into_iter().next()?.1,
        Value::Array(words) => words.into_iter().nth(1)?,
        _ => return None,
    };
    answer::text(value).ok().filter(|policy| !policy.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_is_read_in_both_protocols() {
        let text = |text: &str| Value::BulkString(text.into());
        let (name, value) = (text("maxmemory-policy"), text("allkeys-lru"));
        let map = Value::Map(vec![(name.clone(), value.clone())]);
        assert_eq!(setting_of(map).as_deref(), Some("allkeys-lru"));
        assert_eq!(setting_of(Value::Array(vec![name, value])).as_deref(), Some("allkeys-lru"));
        assert_eq!(setting_of(Value::Array(Vec::new())), None);
    }
}
