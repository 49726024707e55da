//! Pausing, resuming and removing queues.

use outlast_core::{Controlled, QueueControl, QueueName, TaskState, Timestamp};

use crate::error::Fail;
use crate::tally::Q;
use crate::writer::Tx;

/// Controls a queue; see [`outlast_core::Inspect::control`].
pub(super) fn control(
    tx: &mut Tx<'_>,
    queue: &QueueName,
    control: QueueControl,
    now: Timestamp,
) -> Result<Controlled, Fail> {
    if control == QueueControl::Pause {
        return pause(tx, queue, now);
    }
    let Some(q) = tx.tally.find(tx.conn, queue)?.filter(|q| tx.tally.row(*q).listed) else {
        return Ok(Controlled::NoSuchQueue);
    };
    let outgoing = crate::porter::outgoing(tx.conn, tx.tally.qid(q))?;
    match control {
        QueueControl::RemoveIfEmpty | QueueControl::RemoveWithTasks if outgoing > 0 => {
            Ok(Controlled::NotEmpty { tasks: outgoing })
        }
        QueueControl::Resume => Ok(resume(tx, queue, q)),
        QueueControl::RemoveIfEmpty => match tx.tally.row(q).size() {
            0 => remove(tx, queue, q),
            tasks => Ok(Controlled::NotEmpty { tasks: tasks.unsigned_abs() }),
        },
        QueueControl::RemoveWithTasks => match tx.tally.row(q).count(TaskState::Active) {
            0 => remove(tx, queue, q),
            tasks => Ok(Controlled::Active { tasks: tasks.unsigned_abs() }),
        },
        _ => Ok(Controlled::Unchanged),
    }
}

fn pause(tx: &mut Tx<'_>, queue: &QueueName, now: Timestamp) -> Result<Controlled, Fail> {
    let q = tx.tally.open(tx.conn, queue)?;
    let row = tx.tally.row(q);
    if row.paused_since.is_some() {
        return Ok(Controlled::Unchanged);
    }
    row.listed = true;
    row.paused_since = Some(now.as_millis());
    Ok(Controlled::Applied)
}

fn resume(tx: &mut Tx<'_>, queue: &QueueName, q: Q) -> Controlled {
    match tx.tally.row(q).paused_since.take() {
        None => Controlled::Unchanged,
        Some(_) => {
            tx.ready(queue);
            Controlled::Applied
        }
    }
}

/// Takes the name from the queue, which removes it for everybody at once, however many tasks it has.
/// Its rows are deleted afterwards in steps (Event::DeleteByHand). Its sessions move to a new row:
/// without them a repeated batch of before the removal would be applied again.
fn remove(tx: &mut Tx<'_>, queue: &QueueName, q: Q) -> Result<Controlled, Fail> {
    let old = tx.tally.qid(q);
    tx.tally.flush(tx.conn)?;
    tx.conn.prepare_cached("UPDATE queue SET name = NULL WHERE qid = ?1")?.execute([old])?;
    tx.tally.forget(q);
    let new = tx.tally.open(tx.conn, queue)?;
    let new = tx.tally.qid(new);
    tx.conn
        .prepare_cached("UPDATE session SET queue = ?2 WHERE queue = ?1")?
        .execute([old, new])?;
    Ok(Controlled::Applied)
}
