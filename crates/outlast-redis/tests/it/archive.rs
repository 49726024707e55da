//! An archive stays within its bounds whoever fills it, also where no worker sweeps.

use outlast_core::limits::ARCHIVE_AGE;
use outlast_core::{Action, Inspect, PageRequest, Selector, Settlement};
use outlast_redis::{Options, RedisBroker};
use outlast_testkit::conformance::words::{archive, id, stamp, t, task, unique};

use crate::kit::{Place, settle, settlement, shared};

const KEPT: usize = 20;

/// A queue whose archive holds this many tasks that another program has put there, and a broker that keeps twenty.
fn filled(count: usize) -> Option<(Place, RedisBroker)> {
    let server = shared()?;
    let place = Place::new(server);
    let url = format!("{}/0?namespace={}", server.url(), place.namespace);
    let broker = RedisBroker::new(&url, Options::default().archive_max(KEPT)).expect("a broker");
    let fill = "for n = 1, tonumber(ARGV[2]) do
        redis.call('HSET', ARGV[1] .. 't:old' .. n, 'msg', '\\10\\1t', 'state', 'archived')
        redis.call('ZADD', ARGV[1] .. 'archived', ARGV[3] + n, 'old' .. n)
    end";
    let since = t(-10_000).as_seconds().to_string();
    place.raw(&["EVAL", fill, "0", &place.key(""), &count.to_string(), &since]);
    Some((place, broker))
}

/// Only a worker's sweep made room. Where all work was done by asynq's workers, or tasks were archived by hand on a queue without
/// one, the archive grew without end.
#[tokio::test]
async fn whoever_archives_makes_room() {
    let Some((place, broker)) = filled(300) else { return };
    place.accept(&broker, vec![task("a"), unique("b", "d", 900), task("c")]).await;
    let running = place.claim(&broker, 3).await;
    let batch: Vec<Settlement> =
        running[..2].iter().map(|claimed| settlement(&claimed.lease, archive())).collect();
    settle(&broker, &place.queue, stamp(1, 0, 1), &batch).await.expect("answered");
    assert_eq!(place.count("ZCARD", "archived"), 200, "two came, and a hundred and two went");
    assert_eq!(place.tasks().len(), 201, "with their records");
    for name in ["x", "y"] {
        place.accept(&broker, vec![task(name)]).await;
        let select = Selector { ids: [id(name)].into(), ..Selector::default() };
        let page = PageRequest::first(10);
        let acted = broker.act(&place.queue, &Action::Archive, &select, &page, t(3)).await;
        assert_eq!(acted.expect("answered").changed, 1);
    }
    assert_eq!(place.count("ZCARD", "archived"), 20);
    let newest = place.raw(&["ZRANGE", &place.key("archived"), "-1", "-1"]);
    assert_eq!(newest.items()[0].text().as_deref(), Some("y"));
}

#[tokio::test]
async fn who_archives_also_deletes_what_is_too_old_with_its_lock() {
    let Some((place, broker)) = filled(0) else { return };
    place.accept(&broker, vec![unique("old", "d", 20_000_000)]).await;
    let running = place.claim(&broker, 1).await;
    let batch = [settlement(&running[0].lease, archive())];
    settle(&broker, &place.queue, stamp(1, 0, 1), &batch).await.expect("answered");
    let then = i64::try_from(ARCHIVE_AGE.as_secs()).expect("90 days") + 10;
    place.accept(&broker, vec![task("new")]).await;
    let select = Selector { ids: [id("new")].into(), ..Selector::default() };
    let acted =
        broker.act(&place.queue, &Action::Archive, &select, &PageRequest::first(10), t(then)).await;
    assert_eq!(acted.expect("answered").changed, 1);
    assert_eq!(place.tasks(), ["new"]);
    place.accept(&broker, vec![unique("again", "d", 900)]).await;
}
