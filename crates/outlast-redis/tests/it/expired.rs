//! Leases whose time is over, among many others.

use outlast_core::broker::Recovery;
use outlast_core::{Broker, Held, Hold, LeaseToken, SweepBudget, Want};
use outlast_testkit::conformance::words::{budget, secs, stamp, t, tasks};

use crate::kit::{Place, own, shared, token, want};

/// Tasks of a worker that was killed waited until their leases had run out, up to half a minute.
#[tokio::test]
async fn leases_of_a_worker_that_is_taken_for_dead_are_taken_back_before_they_run_out() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    place.accept(&broker, tasks(&["dead-1", "dead-2", "extended", "other"])).await;
    let claimed = place.claim(&broker, 3).await;
    let other = Want { token: LeaseToken::new(5).expect("a token"), ..want(1) };
    broker.claim(&place.queue, stamp(8, 0, 1), t(1), &other).await.expect("answered");
    let hold = Hold { lease: claimed[2].lease.clone(), result: None };
    broker.extend(&place.queue, t(6), [hold].into(), secs(30)).await.expect("answered");
    let sweep = async |recovery, vanished| {
        let budget = SweepBudget { moves_max: 100, recovery, vanished };
        broker.sweep(&place.queue, t(20), budget).await.expect("answered")
    };
    let told = sweep(Recovery::Allowed, None).await;
    let dead = Held { token: token(), until: t(31) };
    let mut held = told.held.expect("somebody has looked");
    held.sort_by_key(|holder| holder.token.get());
    assert_eq!(held, [Held { token: other.token, until: t(31) }, dead]);
    assert_eq!(sweep(Recovery::Withheld, Some(dead)).await.recovered, 0, "others report first");
    assert_eq!(sweep(Recovery::Allowed, Some(dead)).await.recovered, 2);
    assert_eq!(place.count("ZCARD", "lease"), 2, "that of another worker, and what was extended");
    assert_eq!(place.count("ZCARD", "retry"), 2);
    assert_eq!(sweep(Recovery::Allowed, Some(dead)).await.recovered, 0);
    // What another program has put there says nothing about anybody.
    place.raw(&["ZADD", &place.key("lease"), "+inf", "other-1", "-inf", "other-2"]);
    let rest = SweepBudget { moves_max: 100, recovery: Recovery::Withheld, vanished: None };
    let later = broker.sweep(&place.queue, t(25), rest).await.expect("answered");
    assert_eq!(later.held.map(|held| held.len()), Some(2));
}

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
