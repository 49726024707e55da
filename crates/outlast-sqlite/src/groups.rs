//! Groups: who waits in them, which are ready, and the sets that a worker aggregates.
//!
//! `grp` holds one row per group with members, so that a claim finds the ready ones through an index
//! instead of counting members. A set is a row of `aggregation` with a lease; its members stay
//! *aggregating* and carry its number in `set_id`.

use std::collections::BTreeMap;

use outlast_core::limits::GROUP_SIZE_MAX;
use outlast_core::{GroupName, GroupPolicy, Timestamp};
use rusqlite::{Connection, params};

/// Groups that one claim looks at per policy and reason: those beyond are seen by the next claim, as
/// the ones before them have been taken by then.
const LOOK_MAX: usize = 1000;

const JOINED: &str = "INSERT INTO grp (queue, name, waiting, oldest, newest) \
     VALUES (?1, ?2, 1, ?3, ?3) ON CONFLICT DO UPDATE SET waiting = waiting + 1, \
     oldest = min(coalesce(oldest, ?3), ?3), newest = max(coalesce(newest, ?3), ?3)";

// The index is named: left to itself, SQLite walks the members of all groups in the order of their scores until it meets
// one of this group.
const CHANGED: &str = "UPDATE grp SET waiting = waiting + ?3, in_set = in_set + ?4, \
     oldest = (SELECT min(score) FROM task INDEXED BY task_group WHERE queue = ?1 AND grp = ?2 \
               AND state = 3 AND set_id IS NULL), \
     newest = (SELECT max(score) FROM task INDEXED BY task_group WHERE queue = ?1 AND grp = ?2 \
               AND state = 3 AND set_id IS NULL) \
     WHERE queue = ?1 AND name = ?2";

const DROP_EMPTY: &str =
    "DELETE FROM grp WHERE queue = ?1 AND name = ?2 AND waiting <= 0 AND in_set <= 0";

/// A task joined a group at `at`.
pub(crate) fn joined(conn: &Connection, qid: i64, group: &str, at: i64) -> rusqlite::Result<()> {
    conn.prepare_cached(JOINED)?.execute(params![qid, group, at])?;
    Ok(())
}

/// Members came or went: `waiting` and `in_set` are the differences. Call it after the tasks' rows
/// were changed; the oldest and the newest are looked up again.
pub(crate) fn changed(
    conn: &Connection,
    qid: i64,
    group: &str,
    waiting: i64,
    in_set: i64,
) -> rusqlite::Result<()> {
    conn.prepare_cached(CHANGED)?.execute(params![qid, group, waiting, in_set])?;
    conn.prepare_cached(DROP_EMPTY)?.execute(params![qid, group])?;
    Ok(())
}

/// True if a group of the queue has members that are in no set.
pub(crate) fn any_waits(conn: &Connection, qid: i64) -> rusqlite::Result<bool> {
    conn.prepare_cached("SELECT EXISTS (SELECT 1 FROM grp WHERE queue = ?1 AND waiting > 0)")?
        .query_row([qid], |row| row.get(0))
}

/// A group that is ready to be aggregated.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) group: String,
    pub(crate) size_max: usize,
    oldest: i64,
}

const FULL: &str = "SELECT name, oldest FROM grp WHERE queue = ?1 AND waiting >= max(1, ?2) \
     ORDER BY waiting DESC LIMIT ?3";
const DELAYED: &str = "SELECT name, oldest FROM grp WHERE queue = ?1 AND oldest <= ?2 \
     ORDER BY oldest LIMIT ?3";
const CALM: &str = "SELECT name, oldest FROM grp WHERE queue = ?1 AND newest <= ?2 \
     ORDER BY newest LIMIT ?3";

/// The groups that are ready under these policies (contract §3.5), oldest member first. A group is
/// judged by the first policy that matches it.
pub(crate) fn ready(
    conn: &Connection,
    qid: i64,
    policies: &[GroupPolicy],
    now: Timestamp,
) -> rusqlite::Result<Vec<Ready>> {
    let mut found: BTreeMap<String, Ready> = BTreeMap::new();
    for (at, policy) in policies.iter().enumerate() {
        for (sql, bound) in reasons(policy, now) {
            let mut select = conn.prepare_cached(sql)?;
            let mut rows = select.query(params![qid, bound, LOOK_MAX.cast_signed()])?;
            while let Some(row) = rows.next()? {
                let group: String = row.get(0)?;
                if policy_of(policies, &group) == Some(at) {
                    let size_max = size_max(policy).unwrap_or(usize::MAX).min(GROUP_SIZE_MAX);
                    let oldest = row.get::<_, Option<i64>>(1)?.unwrap_or(0);
                    found.insert(group.clone(), Ready { group, size_max, oldest });
                }
            }
        }
    }
    let mut ready: Vec<Ready> = found.into_values().collect();
    ready.sort_by_key(|ready| ready.oldest);
    Ok(ready)
}

/// Zero means no limit, as in asynq.
fn size_max(policy: &GroupPolicy) -> Option<usize> {
    policy.max_size.filter(|size| *size > 0)
}

fn reasons(policy: &GroupPolicy, now: Timestamp) -> Vec<(&'static str, i64)> {
    let mut reasons = vec![(CALM, now.minus(policy.grace).as_millis())];
    if let Some(size) = size_max(policy) {
        reasons.push((FULL, i64::try_from(size).unwrap_or(i64::MAX)));
    }
    if let Some(delay) = policy.max_delay.filter(|delay| !delay.is_zero()) {
        reasons.push((DELAYED, now.minus(delay).as_millis()));
    }
    reasons
}

fn policy_of(policies: &[GroupPolicy], group: &str) -> Option<usize> {
    let name = GroupName::stored(group);
    policies.iter().position(|policy| policy.matches(&name))
}

/// A set under its lease.
#[derive(Debug)]
pub(crate) struct Set {
    pub(crate) sid: i64,
    pub(crate) group: String,
    pub(crate) token: i64,
}

const SET_BY_ID: &str = "SELECT sid, grp, token FROM aggregation WHERE queue = ?1 AND id = ?2";

/// What the ids of sets begin with: a settlement of anything else need not be looked up among them.
pub(crate) const SET_PREFIX: &str = "set:";

/// The set that a lease is for, if it is one for a set.
pub(crate) fn find_set(conn: &Connection, qid: i64, id: &str) -> rusqlite::Result<Option<Set>> {
    use rusqlite::OptionalExtension;
    if !id.starts_with(SET_PREFIX) {
        return Ok(None);
    }
    conn.prepare_cached(SET_BY_ID)?
        .query_row(params![qid, id], |row| {
            Ok(Set { sid: row.get(0)?, group: row.get(1)?, token: row.get(2)? })
        })
        .optional()
}

/// Gives the members of a set back to their group, with the places they had.
pub(crate) fn give_back(conn: &Connection, qid: i64, set: &Set) -> rusqlite::Result<()> {
    let members = conn
        .prepare_cached("UPDATE task SET set_id = NULL WHERE set_id = ?1")?
        .execute([set.sid])?;
    end_set(conn, set)?;
    let members = members.cast_signed() as i64;
    changed(conn, qid, &set.group, members, -members)
}

/// Ends a set whose members are gone or given back.
pub(crate) fn end_set(conn: &Connection, set: &Set) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM aggregation WHERE sid = ?1")?.execute([set.sid])?;
    Ok(())
}
