//! What is copied and not moved, because it is the same however often it is done: `once` keys.

use std::time::Duration;

use bytes::Bytes;
use outlast_core::limits::check_batch;
use outlast_core::porter::OnceKey;
use outlast_core::{BrokerError, Cursor, Page, QueueName, TaskId, Timestamp};

use super::parcel::ttl_of;
use crate::answer;
use crate::broker::Inner;
use crate::fsck::{escaped, scan_of, scanned};

impl Inner {
    /// A page of the `once` keys that hold: a step of a pass over all keys of the server.
    pub(super) async fn once_keys(
        &self,
        queue: &QueueName,
        cursor: Option<&Cursor>,
        now: Timestamp,
    ) -> Result<Page<OnceKey>, BrokerError> {
        let start = self.root.queue(queue).once("");
        let from = cursor.map_or("0", |cursor| cursor.0.as_str());
        let scan = scan_of(&format!("{}*", escaped(&start)), from.as_bytes());
        let (next, keys) = scanned(self.admin.run(&scan).await?)?;
        let keys: Vec<String> =
            keys.iter().map(|key: &Bytes| String::from_utf8_lossy(key).into_owned()).collect();
        let mut items = Vec::new();
        if !keys.is_empty() {
            let mut asked = redis::pipe();
            for key in &keys {
                asked.cmd("GET").arg(key).cmd("PTTL").arg(key);
            }
            let mut answers = self.admin.run_all(&asked).await?.into_iter();
            for key in &keys {
                let owner = answer::text(answers.next().unwrap_or_default())?;
                let left = ttl_of(answer::int(answers.next().unwrap_or_default())?);
                let name = key.strip_prefix(&start).unwrap_or(key).to_owned();
                if let Some(left) = left {
                    let (owner, until) = (TaskId::stored(&owner), now.plus(left));
                    items.push(OnceKey { key: name, owner, until });
                }
            }
        }
        let next = next.map(|next| Cursor(String::from_utf8_lossy(&next).into_owned()));
        Ok(Page { items, next })
    }

    /// Takes over the keys that nobody holds.
    pub(super) async fn hold_once(
        &self,
        queue: &QueueName,
        keys: &[OnceKey],
        now: Timestamp,
    ) -> Result<(), BrokerError> {
        check_batch("batch of once keys", keys.len())?;
        let names = self.root.queue(queue);
        let mut all = redis::pipe();
        for key in keys {
            let left = key.until.since(now);
            if left >= Duration::from_millis(1) {
                let set = all.cmd("SET").arg(names.once(&key.key)).arg(key.owner.as_str());
                set.arg("NX").arg("PX").arg(left.as_millis().to_string());
            }
        }
        if !all.is_empty() {
            self.admin.run_all(&all).await?;
        }
        Ok(())
    }
}
