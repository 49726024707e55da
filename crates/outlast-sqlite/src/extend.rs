//! Holding leases longer, and storing what handlers have written so far.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::limits::check_batch;
use outlast_core::{Extended, Hold, QueueName, Timestamp};
use rusqlite::params;

use crate::error::Fail;
use crate::groups;
use crate::writer::Tx;

/// Not a transition: an active task stays active, only its lease ends later.
const EXTEND: &str = "UPDATE task SET score = ?4 \
     WHERE queue = ?1 AND id = ?2 AND state = 1 AND token = ?3";
const EXTEND_WITH_RESULT: &str = "UPDATE task SET score = ?4, result = ?5 \
     WHERE queue = ?1 AND id = ?2 AND state = 1 AND token = ?3";
const EXTEND_SET: &str = "UPDATE aggregation SET until = ?2 WHERE sid = ?1";

/// Extends leases; see [`outlast_core::Broker::extend`].
pub(crate) fn extend(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    now: Timestamp,
    holds: &Arc<[Hold]>,
    by: Duration,
) -> Result<Vec<Extended>, Fail> {
    check_batch("batch of holds", holds.len())?;
    let until = now.plus(by);
    let Some(q) = tx.tally.find(tx.conn, queue)? else {
        return Ok(vec![Extended::Lost; holds.len()]);
    };
    let qid = tx.tally.qid(q);
    holds
        .iter()
        .map(|hold| {
            let held = one(tx, qid, hold, until)?;
            Ok(if held { Extended::Until(until) } else { Extended::Lost })
        })
        .collect()
}

fn one(tx: &Tx<'_>, qid: i64, hold: &Hold, until: Timestamp) -> Result<bool, Fail> {
    let (id, token) = (hold.lease.id.as_str(), hold.lease.token.get());
    let until = until.as_millis();
    if let Some(set) = groups::find_set(tx.conn, qid, id)? {
        let held = set.token == i64::from(token);
        if held {
            tx.conn.prepare_cached(EXTEND_SET)?.execute([set.sid, until])?;
        }
        return Ok(held);
    }
    let changed = match &hold.result {
        None => tx.conn.prepare_cached(EXTEND)?.execute(params![qid, id, token, until])?,
        Some(result) => tx.conn.prepare_cached(EXTEND_WITH_RESULT)?.execute(params![
            qid,
            id,
            token,
            until,
            &result[..]
        ])?,
    };
    Ok(changed > 0)
}
