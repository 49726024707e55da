//! Leases whose time is over, among many others.

use outlast_core::Broker;
use outlast_testkit::conformance::words::{budget, t, tasks};

use crate::kit::{Place, own, shared};

/// A sweep looked at the first thousand leases whose second was over. Behind a thousand of a Go fleet's, which are left alone
/// for 30 s, ours were not seen.
#[tokio::test]
async fn leases_of_ours_are_taken_back_behind_thousands_of_foreign_ones() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    place.accept(&broker, tasks(&["ours"])).await;
    place.claim(&broker, 1).await;
    let fill = "for n = 1, 2500 do
            redis.call('ZADD', KEYS[1], ARGV[1], 'go' .. n)
            redis.call('LPUSH', KEYS[2], 'go' .. n)
        end";
    let until = t(25).as_seconds().to_string();
    place.raw(&["EVAL", fill, "2", &place.key("lease"), &place.key("active"), &until]);
    let swept = broker.sweep(&place.queue, t(40), budget(1000)).await.expect("answered");
    assert_eq!((swept.recovered, swept.more), (1, false), "theirs end at 25, ours at 31");
    assert_eq!((place.count("ZCARD", "lease"), place.count("LLEN", "active")), (2500, 2500));
}

/// A sweep took each lost task out of the active list by a command of its own: with thousands active each costs 100 µs, and a
/// worker of a thousand slots that vanished held up the server for a tenth of a second.
#[tokio::test]
async fn many_lost_tasks_among_many_running_ones_leave_the_list_at_once() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    for batch in 0..12 {
        let names: Vec<String> = (0..250).map(|nth| format!("t{batch}-{nth}")).collect();
        place.accept(&broker, tasks(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
        place.claim(&broker, 250).await;
    }
    // Every tenth lease goes on.
    let hold = "local ids = redis.call('LRANGE', KEYS[2], 0, -1)
        for nth = 1, #ids, 10 do
            redis.call('ZINCRBY', KEYS[1], 1000, ids[nth])
        end";
    place.raw(&["EVAL", hold, "2", &place.key("lease"), &place.key("active")]);
    let before = place.raw(&["LRANGE", &place.key("active"), "0", "-1"]);
    place.raw(&["CONFIG", "RESETSTAT"]);
    let swept = broker.sweep(&place.queue, t(100), budget(1000)).await.expect("answered");
    assert_eq!((swept.recovered, swept.more), (1000, true));
    let stats = place.raw(&["INFO", "commandstats"]).text().expect("a text");
    assert!(!stats.contains("cmdstat_lrem"), "{stats}");
    let [kept, held] =
        [("LLEN", "active"), ("ZCARD", "lease")].map(|(ask, key)| place.count(ask, key));
    assert_eq!((kept, held), (2000, 2000));
    while broker.sweep(&place.queue, t(100), budget(1000)).await.expect("answered").more {}
    let after = place.raw(&["LRANGE", &place.key("active"), "0", "-1"]);
    let expected: Vec<_> = before.items().iter().step_by(10).collect();
    assert_eq!(
        after.items().iter().collect::<Vec<_>>(),
        expected,
        "the others stand as they stood"
    );
}
