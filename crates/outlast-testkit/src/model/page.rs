//! Pages and cursors. A cursor names the last row of its page, so that rows which come or go elsewhere
//! neither repeat nor hide one that stays.

use outlast_core::limits::PAGE_MAX;
use outlast_core::{BrokerError, Cursor, Page, PageRequest};

/// What a listing is ordered by: a number and, where numbers are equal, a name.
pub(super) type Key = (i64, String);

/// The part of `rows`, which are in the order of their keys, that the request asks for.
pub(super) fn page<T>(
    rows: Vec<(Key, T)>,
    request: &PageRequest,
) -> Result<Page<(Key, T)>, BrokerError> {
    super::check_count("page limit", request.limit, PAGE_MAX)?;
    let after = request.cursor.as_ref().map(read).transpose()?;
    let mut rest: Vec<_> = rows
        .into_iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after))
        .collect();
    let has_more = rest.len() > request.limit;
    rest.truncate(request.limit);
    let last = rest.last().map(|((number, name), _)| Cursor(format!("{number}/{name}")));
    Ok(Page { next: last.filter(|_| has_more), items: rest })
}

fn read(cursor: &Cursor) -> Result<Key, BrokerError> {
    let wrong = || BrokerError::rejected(format!("cursor {:?} is none of this broker's", cursor.0));
    let (number, name) = cursor.0.split_once('/').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, name.to_owned()))
}
