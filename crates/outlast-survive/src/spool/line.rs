//! The life of an item, as SQL: stored, formed into a batch, answered, or put into quarantine.
//!
//! ```text
//!   store ──► waiting ── next ──► batch ── answered ──► gone
//!                │  ▲               │ │
//!                │  └── dissolve ───┘ └── refused ──┐
//!                └── unfit: expired, unreadable ────┴──► quarantine
//! ```
//!
//! Every function runs inside a transaction of the writer.

use outlast_core::limits::BATCH_BYTES_MAX;
use outlast_core::{QueueName, Stamp, Timestamp};
use rusqlite::{Connection, params};

use super::error::{SpoolError, SpoolErrorKind};
use super::{
    Batch, ITEMS_MAX, Item, Kept, Parcel, Quarantined, SpoolLimits, Store, WhenFull,
    durability_number, durability_of, session_of,
};

type Answer<T> = rusqlite::Result<Result<T, SpoolError>>;

/// Why a stored record is not to be sent at this time, or never; `None` if it is.
pub(crate) type Unfit = fn(&[u8], Timestamp) -> Option<String>;

pub(super) fn store(conn: &Connection, limits: &SpoolLimits, parcel: &Parcel) -> Answer<Kept> {
    let room = match make_room(conn, limits, parcel)? {
        Ok(dropped) => dropped,
        Err(full) => return Ok(Err(full)),
    };
    let batch = match &parcel.stamp {
        Some(stamp) => Some(insert_batch(conn, (parcel.store, &parcel.queue), stamp, parcel.now)?),
        None => None,
    };
    let mut insert = conn.prepare_cached(
        "INSERT INTO item (store, queue, name, durability, stored_at, batch, record)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    for item in parcel.items.iter() {
        insert.execute(params![
            parcel.store.number(),
            parcel.queue.as_str(),
            item.name,
            durability_number(parcel.durability),
            parcel.now.as_millis(),
            batch,
            item.record,
        ])?;
    }
    Ok(Ok(Kept { batch, last: conn.last_insert_rowid(), dropped: room }))
}

/// The names of those that were dropped for the parcel, or that there is no room for it: then nothing is
/// dropped either.
fn make_room(conn: &Connection, limits: &SpoolLimits, parcel: &Parcel) -> Answer<Vec<String>> {
    let items = parcel.items.len() as u64;
    let bytes: u64 = parcel.items.iter().map(|item| item.record.len() as u64).sum();
    let fits = |(has_items, has_bytes): (u64, u64)| {
        has_items + items <= limits.items_max && has_bytes + bytes <= limits.bytes_max
    };
    let has = totals(conn, parcel.store)?;
    if fits(has) {
        return Ok(Ok(Vec::new()));
    }
    // The journal drops nothing: what a settlement says cannot be found out again.
    let may_drop = parcel.store == Store::Outbox && limits.when_full == WhenFull::DropOldest;
    if may_drop && fits((0, 0)) {
        let mut dropped = Vec::new();
        conn.execute_batch("SAVEPOINT room")?;
        while !fits(totals(conn, parcel.store)?) {
            let gone = drop_oldest(conn, parcel.store)?;
            if gone.is_empty() {
                break;
            }
            dropped.extend(gone);
        }
        // Too much of it has been numbered: the refusal is all that remains of the attempt.
        let has_room = fits(totals(conn, parcel.store)?);
        conn.execute_batch(if has_room {
            "RELEASE room"
        } else {
            "ROLLBACK TO room; RELEASE room"
        })?;
        if has_room {
            return Ok(Ok(dropped));
        }
    }
    Ok(Err(full(parcel.store, has, limits)))
}

fn full(store: Store, (items, bytes): (u64, u64), limits: &SpoolLimits) -> SpoolError {
    let what = format!(
        "the {} is full: {items} items of {bytes} bytes wait, {} of {} bytes are allowed",
        store.as_str(),
        limits.items_max,
        limits.bytes_max
    );
    SpoolError::new(SpoolErrorKind::Full, what)
}

/// Whether one more task would be taken. The write changes nothing, but goes the whole way to the disk.
pub(super) fn check(conn: &Connection, limits: &SpoolLimits) -> Answer<()> {
    let has @ (items, bytes) = totals(conn, Store::Outbox)?;
    let is_full = items >= limits.items_max || bytes >= limits.bytes_max;
    if is_full && limits.when_full != WhenFull::DropOldest {
        return Ok(Err(full(Store::Outbox, has, limits)));
    }
    let sql = "UPDATE meter SET items = items WHERE store = ?1 AND queue = ''";
    conn.prepare_cached(sql)?.execute([Store::Outbox.number()])?;
    Ok(Ok(()))
}

/// What has been numbered is under way and stays.
fn drop_oldest(conn: &Connection, store: Store) -> rusqlite::Result<Vec<String>> {
    let sql = "DELETE FROM item WHERE id IN
               (SELECT id FROM item WHERE store = ?1 AND batch IS NULL ORDER BY id LIMIT ?2) RETURNING name";
    let mut statement = conn.prepare_cached(sql)?;
    let rows = statement.query_map(params![store.number(), 16], |row| row.get(0))?;
    rows.collect()
}

pub(super) fn totals(conn: &Connection, store: Store) -> rusqlite::Result<(u64, u64)> {
    let sql = "SELECT items, bytes FROM meter WHERE store = ?1 AND queue = ''";
    conn.prepare_cached(sql)?.query_row([store.number()], |row| {
        Ok((
            row.get::<_, i64>(0)?.max(0).unsigned_abs(),
            row.get::<_, i64>(1)?.max(0).unsigned_abs(),
        ))
    })
}

fn insert_batch(
    conn: &Connection,
    (store, queue): (Store, &QueueName),
    stamp: &Stamp,
    now: Timestamp,
) -> rusqlite::Result<i64> {
    let sql = "INSERT INTO batch (store, queue, session, lane, seq, stamped_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    conn.prepare_cached(sql)?.execute(params![
        store.number(),
        queue.as_str(),
        stamp.session.0.to_be_bytes(),
        stamp.lane,
        i64::try_from(stamp.seq).unwrap_or(i64::MAX),
        now.as_millis(),
    ])?;
    Ok(conn.last_insert_rowid())
}

/// What [`next`] is asked for.
pub(super) struct Form<'a> {
    pub(super) store: Store,
    pub(super) queue: &'a QueueName,
    pub(super) fresh: Stamp,
    pub(super) now: Timestamp,
    pub(super) limits: &'a SpoolLimits,
    pub(super) unfit: Unfit,
}

/// What goes into quarantine, and what had to leave it.
#[derive(Debug, Default)]
pub(crate) struct PutAway {
    pub(crate) items: Vec<Quarantined>,
    pub(crate) dropped: Dropped,
}

/// The oldest of the quarantine that were dropped for newer ones: their queues and names.
pub(crate) type Dropped = Vec<(QueueName, String)>;

/// An item in its line.
struct Place {
    item: Item,
    batch: Option<i64>,
    durability: i64,
    stored_at: i64,
    alone: bool,
}

pub(super) fn next(conn: &Connection, form: &Form<'_>) -> Answer<(Option<Batch>, PutAway)> {
    let mut line = conn.prepare_cached(
        "SELECT id, name, record, batch, durability, stored_at, alone FROM item
         WHERE store = ?1 AND queue = ?2 ORDER BY id",
    )?;
    let mut rows = line.query_map(params![form.store.number(), form.queue.as_str()], place)?;
    let (mut chosen, mut put_away) = (Vec::<Place>::new(), Vec::new());
    let (mut before, mut bytes) = (None, 0);
    for place in rows.by_ref() {
        let place = place?;
        if place.batch.is_some() {
            // It goes first if nothing stands before it.
            before = place.batch.filter(|_| chosen.is_empty());
            break;
        }
        if let Some(why) = why_unfit(form, &place) {
            put_away.push((place, why));
            // However many are unfit, a transaction takes no more of them than of others.
            if put_away.len() >= ITEMS_MAX {
                break;
            }
            continue;
        }
        bytes += place.item.record.len();
        let first = chosen.first();
        let ends = first.is_some_and(|first| first.alone || first.durability != place.durability)
            || place.alone
            || bytes > BATCH_BYTES_MAX;
        if ends && first.is_some() {
            break;
        }
        chosen.push(place);
        if chosen.len() >= ITEMS_MAX {
            break;
        }
    }
    drop(rows);
    let put_away = put_all_away(conn, form, put_away)?;
    let batch = match before {
        Some(batch) => Some(numbered(conn, batch)?),
        None => number(conn, form, chosen)?,
    };
    Ok(Ok((batch, put_away)))
}

fn place(row: &rusqlite::Row<'_>) -> rusqlite::Result<Place> {
    Ok(Place {
        item: Item { id: row.get(0)?, name: row.get(1)?, record: row.get(2)? },
        batch: row.get(3)?,
        durability: row.get(4)?,
        stored_at: row.get(5)?,
        alone: row.get(6)?,
    })
}

fn why_unfit(form: &Form<'_>, place: &Place) -> Option<String> {
    let age = form.now.since(Timestamp::from_millis(place.stored_at));
    // An outcome is reported however late: the lease decides, and a run that is not reported runs again.
    if form.store == Store::Outbox && age > form.limits.age_max {
        return Some(format!("older than {}", outlast_core::duration::format(form.limits.age_max)));
    }
    (form.unfit)(&place.item.record, form.now)
}

/// Numbers what was chosen: the batch exists from here on, and goes as it is.
fn number(
    conn: &Connection,
    form: &Form<'_>,
    chosen: Vec<Place>,
) -> rusqlite::Result<Option<Batch>> {
    let Some(first) = chosen.first() else { return Ok(None) };
    let stamp = Stamp { durability: durability_of(first.durability), ..form.fresh };
    let id = insert_batch(conn, (form.store, form.queue), &stamp, form.now)?;
    let mut into = conn.prepare_cached("UPDATE item SET batch = ?1 WHERE id = ?2")?;
    for place in &chosen {
        into.execute([id, place.item.id])?;
    }
    let items = chosen.into_iter().map(|place| place.item).collect();
    Ok(Some(Batch { id, stamp, stamped_at: form.now, is_fresh: true, items }))
}

/// A batch that was numbered before.
fn numbered(conn: &Connection, id: i64) -> rusqlite::Result<Batch> {
    let mut items = conn.prepare_cached(
        "SELECT id, name, record, durability FROM item WHERE batch = ?1 ORDER BY id",
    )?;
    let rows = items.query_map([id], |row| {
        let item = Item { id: row.get(0)?, name: row.get(1)?, record: row.get(2)? };
        Ok((item, row.get::<_, i64>(3)?))
    })?;
    let items: Vec<(Item, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    let durability = durability_of(items.first().map_or(1, |(_, durability)| *durability));
    let sql = "SELECT session, lane, seq, stamped_at FROM batch WHERE id = ?1";
    let (stamp, stamped_at) = conn.prepare_cached(sql)?.query_row([id], |row| {
        let seq = row.get::<_, i64>(2)?.max(0).unsigned_abs();
        let session = session_of(row.get(0)?);
        let stamp = Stamp { session, lane: row.get(1)?, seq, durability };
        Ok((stamp, Timestamp::from_millis(row.get(3)?)))
    })?;
    Ok(Batch {
        id,
        stamp,
        stamped_at,
        is_fresh: false,
        items: items.into_iter().map(|(item, _)| item).collect(),
    })
}

fn put_all_away(
    conn: &Connection,
    form: &Form<'_>,
    places: Vec<(Place, String)>,
) -> rusqlite::Result<PutAway> {
    let mut put_away = PutAway::default();
    for (place, why) in places {
        let dropped = quarantine(conn, form.limits, place.item.id, form.now, &why)?;
        put_away.dropped.extend(dropped);
        put_away.items.push(Quarantined {
            id: conn.last_insert_rowid(),
            store: form.store,
            queue: form.queue.clone(),
            name: place.item.name,
            stored_at: Timestamp::from_millis(place.stored_at),
            put_at: form.now,
            why,
        });
    }
    Ok(put_away)
}

fn quarantine(
    conn: &Connection,
    limits: &SpoolLimits,
    item: i64,
    now: Timestamp,
    why: &str,
) -> rusqlite::Result<Dropped> {
    let found = conn
        .prepare_cached(
            "INSERT INTO quarantine (store, queue, name, durability, stored_at, put_at, why, record)
             SELECT store, queue, name, durability, stored_at, ?2, ?3, record FROM item WHERE id = ?1",
        )?
        .execute(params![item, now.as_millis(), why])?;
    if found == 0 {
        // Somebody else was answered before.
        return Ok(Dropped::new());
    }
    let put = conn.last_insert_rowid();
    conn.prepare_cached("DELETE FROM item WHERE id = ?1")?.execute([item])?;
    debug_assert_eq!(put, conn.last_insert_rowid(), "a deletion changes no row id");
    make_room_beside(conn, limits, put)
}

/// The oldest of the quarantine go while it is larger than the line itself may be: all that waited has a place there, once.
fn make_room_beside(
    conn: &Connection,
    limits: &SpoolLimits,
    put: i64,
) -> rusqlite::Result<Dropped> {
    let mut shelf = conn.prepare_cached(
        "SELECT store, items, bytes FROM shelf WHERE store = (SELECT store FROM quarantine WHERE id = ?1)",
    )?;
    let mut oldest = conn.prepare_cached(
        "DELETE FROM quarantine WHERE id =
         (SELECT id FROM quarantine WHERE store = ?1 AND id <> ?2 ORDER BY id LIMIT 1) RETURNING queue, name",
    )?;
    let mut dropped = Dropped::new();
    loop {
        let (store, items, bytes) = shelf.query_row([put], |row| {
            let count = |place| row.get::<_, i64>(place).map(|count| count.max(0).unsigned_abs());
            Ok((row.get::<_, i64>(0)?, count(1)?, count(2)?))
        })?;
        if items <= limits.items_max && bytes <= limits.bytes_max {
            return Ok(dropped);
        }
        let mut rows = oldest.query([store, put])?;
        let Some(row) = rows.next()? else { return Ok(dropped) };
        dropped.push((QueueName::stored(&row.get::<_, String>(0)?), row.get(1)?));
    }
}

pub(super) fn answered(
    conn: &Connection,
    limits: &SpoolLimits,
    (batch, now): (i64, Timestamp),
    refused: &[(i64, String)],
) -> Answer<(bool, Dropped)> {
    let mut dropped = Dropped::new();
    for (item, why) in refused {
        dropped.extend(quarantine(conn, limits, *item, now, why)?);
    }
    conn.prepare_cached("DELETE FROM item WHERE batch = ?1")?.execute([batch])?;
    let gone = conn.prepare_cached("DELETE FROM batch WHERE id = ?1")?.execute([batch])?;
    Ok(Ok((gone > 0, dropped)))
}

pub(super) fn dissolve(conn: &Connection, batch: i64) -> Answer<()> {
    let sql = "UPDATE item SET batch = NULL, alone = 1 WHERE batch = ?1";
    conn.prepare_cached(sql)?.execute([batch])?;
    conn.prepare_cached("DELETE FROM batch WHERE id = ?1")?.execute([batch])?;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use outlast_core::{Durability, SessionId};

    use super::*;
    use crate::spool::{NewItem, Spool};

    const NOW: Timestamp = Timestamp::from_seconds(1_800_000_000);

    fn parcel(count: usize, stamp: Option<Stamp>) -> Parcel {
        let item = |n| NewItem { name: format!("t{n}"), record: vec![0; 8] };
        let items: Arc<[NewItem]> = (0..count).map(item).collect();
        let (queue, durability) = (QueueName::stored("q"), Durability::Accepted);
        Parcel { store: Store::Outbox, queue, now: NOW, durability, stamp, items }
    }

    fn stamp() -> Stamp {
        Stamp { session: SessionId(1), lane: 0, seq: 1, durability: Durability::Accepted }
    }

    #[tokio::test]
    async fn a_mass_of_items_that_have_expired_is_put_away_a_batch_at_a_time() {
        // The check of how many there are stood behind the branch that collects them: all that had expired
        // was read into memory and moved in one transaction.
        let folder = tempfile::tempdir().expect("a folder");
        let limits = SpoolLimits::default();
        let spool = Spool::open(folder.path().join("spool.db"), limits).expect("opens");
        spool.store(parcel(2 * ITEMS_MAX + 10, None)).await.expect("is stored");
        let (queue, late) = (QueueName::stored("q"), NOW.plus(2 * limits.age_max));
        let mut put_away = Vec::new();
        for _ in 0..4 {
            let next = spool.next((Store::Outbox, &queue), stamp(), late, |_, _| None).await;
            let (batch, away) = next.expect("is readable");
            assert!(batch.is_none());
            put_away.push(away.items.len());
        }
        assert_eq!(put_away, [ITEMS_MAX, ITEMS_MAX, 10, 0]);
    }

    #[tokio::test]
    async fn nothing_is_dropped_where_what_has_been_numbered_leaves_no_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits =
            SpoolLimits { items_max: 40, when_full: WhenFull::DropOldest, ..Default::default() };
        let spool = Spool::open(folder.path().join("spool.db"), limits).expect("opens");
        spool.store(parcel(18, None)).await.expect("is stored");
        spool.store(parcel(20, Some(stamp()))).await.expect("is stored");
        let refused = spool.store(parcel(21, None)).await.expect_err("20 of 40 stay");
        assert_eq!(refused.kind(), SpoolErrorKind::Full);
        assert_eq!(spool.waiting(Store::Outbox).expect("readable").items, 38);
        let kept = spool.store(parcel(20, None)).await.expect("all others go");
        assert_eq!(kept.dropped.len(), 18);
    }

    /// It had no limit, so that a producer of tasks that nobody takes filled the disk with them; and then one of ten thousand, so that
    /// a clock that was set dropped all others of a long outage.
    #[tokio::test]
    async fn a_quarantine_has_room_for_all_that_waited_and_drops_its_oldest_beyond() {
        let folder = tempfile::tempdir().expect("a folder");
        for limits in [
            SpoolLimits { items_max: 100, ..Default::default() },
            SpoolLimits { bytes_max: 800, ..Default::default() },
        ] {
            let path = folder.path().join(format!("{}.db", limits.items_max));
            let spool = Spool::open(path, limits).expect("opens");
            let (queue, late) = (QueueName::stored("q"), NOW.plus(2 * limits.age_max));
            let put_away = async |count| {
                spool.store(parcel(count, None)).await.expect("is stored");
                let next = spool.next((Store::Outbox, &queue), stamp(), late, |_, _| None).await;
                let (_, away) = next.expect("is readable");
                (away.items.len(), away.dropped.len())
            };
            assert_eq!(put_away(100).await, (100, 0));
            assert_eq!(put_away(3).await, (3, 3));
            let waiting = spool.waiting(Store::Outbox).expect("readable");
            assert_eq!((waiting.items, waiting.quarantined), (0, 100));
            assert_eq!(spool.quarantine(Store::Outbox, 1).expect("lists")[0].name, "t3");
        }
    }

    /// Whoever was answered second, with a refusal, met a room that nothing had been put into: an error, and no turn of the drain.
    #[tokio::test]
    async fn a_refusal_of_what_somebody_else_has_had_answered_is_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let spool = Spool::open(folder.path().join("spool.db"), SpoolLimits::default());
        let spool = spool.expect("opens");
        let kept = spool.store(parcel(1, Some(stamp()))).await.expect("is stored");
        let batch = kept.batch.expect("it has a stamp");
        assert!(spool.answered(batch, NOW, Vec::new()).await.expect("is written").0);
        let refused = vec![(kept.last, "too late".to_owned())];
        let again = spool.answered(batch, NOW, refused).await.expect("is no error");
        assert_eq!(again, (false, Dropped::new()));
    }
}
