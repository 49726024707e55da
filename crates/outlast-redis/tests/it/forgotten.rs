//! The server has forgotten, or its records are not what they were.

use outlast_core::{Broker, EnqueueVerdict, Enqueued, Kind, Lost, Stamp};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{done, due, is_accepted, stamp, t, tasks};

use crate::kit::{Lossy, Place, enqueue, failed, own, settle, settlement, shared, want};

async fn send(broker: &RedisBroker, place: &Place, stamp: Stamp, names: &[&str]) -> Enqueued {
    let answer = broker.enqueue(&place.queue, stamp, t(0), tasks(names).into()).await;
    answer.expect("answered")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_to_a_server_that_was_flushed_is_applied_and_tells_of_the_loss() {
    let Some(server) = own() else { return };
    let l = Lossy::new(&server).await;
    for seq in 1..=3 {
        send(&l.through, &l.place, stamp(1, 0, seq), &["acknowledged"]).await;
    }
    l.lose(async |broker| {
        enqueue(&broker, &l.place.queue, stamp(1, 0, 4), tasks(&["a", "b"])).await
    })
    .await;
    l.place.raw(&["FLUSHALL"]);
    for broker in [&l.through, &l.other] {
        let answer = send(broker, &l.place, stamp(1, 0, 4), &["a", "b"]).await;
        assert_eq!(answer.lost, Some(Lost { after_seq: 0 }), "told to whoever repeats it");
        assert!(answer.verdicts.iter().all(is_accepted), "{answer:?}");
    }
    assert_eq!(l.place.pending(), 2);
    let ttl = l.place.raw(&["TTL", &l.place.session_key(1)]).int();
    assert!(ttl.is_some_and(|ttl| ttl > 80_000), "the new record ends too: {ttl:?}");
    let claims = l.through.claim(&l.place.queue, stamp(2, 0, 8), t(1), &want(5)).await;
    let claims = claims.expect("answered");
    assert_eq!((claims.claims.len(), claims.lost), (2, Some(Lost { after_seq: 0 })));
    let settled = l.through.settle(&l.place.queue, stamp(3, 0, 2), t(1), [].into()).await;
    assert_eq!(settled.expect("answered").lost, Some(Lost { after_seq: 0 }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_fell_back_tells_after_which_batch_all_is_lost() {
    let Some(server) = shared() else { return };
    let l = Lossy::new(server).await;
    for (seq, name) in [(1, "a"), (2, "b")] {
        send(&l.through, &l.place, stamp(1, 0, seq), &[name]).await;
    }
    // As a server that was rolled back to this moment is found later.
    for seq in [5, 5] {
        let answer = send(&l.through, &l.place, stamp(1, 0, seq), &["e"]).await;
        assert_eq!(answer.lost, Some(Lost { after_seq: 2 }));
        assert!(is_accepted(&answer.verdicts[0]));
    }
    assert_eq!(l.place.pending(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_expired_is_told_and_stores_nothing_twice_that_still_waits() {
    let Some(server) = shared() else { return };
    let l = Lossy::new(server).await;
    send(&l.through, &l.place, stamp(1, 0, 1), &["a"]).await;
    l.lose(async |broker| enqueue(&broker, &l.place.queue, stamp(1, 0, 2), tasks(&["b"])).await)
        .await;
    l.place.raw(&["PEXPIRE", &l.place.session_key(1), "0"]);
    let answer = send(&l.through, &l.place, stamp(1, 0, 2), &["b"]).await;
    assert_eq!(answer.lost, Some(Lost { after_seq: 0 }), "nobody can say what became of it");
    assert_eq!(answer.verdicts, [EnqueueVerdict::IdConflict]);
    assert_eq!(l.place.pending(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_does_not_make_anybody_think_that_the_record_was_kept_alive() {
    let Some(server) = shared() else { return };
    let l = Lossy::new(server).await;
    send(&l.through, &l.place, stamp(1, 0, 1), &["a"]).await;
    l.place.raw(&["EXPIRE", &l.place.session_key(1), "600"]);
    // As after a restart: what was not answered comes again, and then new work.
    send(&l.other, &l.place, stamp(1, 0, 1), &["a"]).await;
    send(&l.other, &l.place, stamp(1, 0, 2), &["b"]).await;
    let ttl = l.place.raw(&["TTL", &l.place.session_key(1)]).int();
    assert!(ttl.is_some_and(|ttl| ttl > 80_000), "{ttl:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_read_is_corrupt_and_nothing_is_done() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    place.accept(&broker, tasks(&["a", "b"])).await;
    let claimed = place.claim(&broker, 1).await;
    let batch = [settlement(&claimed[0].lease, done())];
    let other = place.broker(&server.url());
    let records = ["garbage", "", " ", "5x", "5 ", "5 \u{1}", "5 garbage", "5 \u{94}abcd", "-"];
    for record in records {
        place.raw(&["HSET", &place.session_key(1), "0", record]);
        let before = place.everything();
        let (queue, stamp) = (&place.queue, stamp(1, 0, 5));
        let server = server.addr().to_string();
        for said in [
            failed(enqueue(&broker, queue, stamp, tasks(&["x"])).await, Kind::Corrupt),
            failed(enqueue(&broker, queue, stamp, vec![due("x", t(9))]).await, Kind::Corrupt),
            failed(broker.claim(queue, stamp, t(1), &want(1)).await, Kind::Corrupt),
            failed(settle(&broker, queue, stamp, &batch).await, Kind::Corrupt),
            failed(settle(&other, queue, stamp, &batch).await, Kind::Corrupt),
        ] {
            assert!(said.contains(&server), "{record:?}: {said}");
        }
        assert_eq!(place.everything(), before, "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn scripts_that_the_server_has_lost_are_given_to_it_again_within_the_call() {
    let Some(server) = own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    place.accept(&broker, tasks(&["first"])).await;
    for round in 0..5_u128 {
        place.raw(&["SCRIPT", "FLUSH"]);
        let calls = (0..20_u128).map(|n| {
            let name = format!("{round}-{n}");
            let (broker, queue) = (&broker, &place.queue);
            async move { enqueue(broker, queue, stamp(100 + n, 0, 1), tasks(&[&name])).await }
        });
        let answers = futures_util::future::join_all(calls).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }
    assert_eq!(place.pending(), 21, "each once, the later rounds being repeats");
    place.raw(&["SCRIPT", "FLUSH"]);
    assert_eq!(place.claim(&broker, 30).await.len(), 21);
}
