//! Taking what other programs have left in a queue: nothing that cannot be moved is lost by it.

use outlast_core::porter::{Concluded, Conclusion, Order, Parcel, PutVerdict};
use outlast_core::{Broker, Epoch, Kind, Porter, SessionId};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{budget, grouped, stamp, t, task, unique};
use outlast_testkit::server::RedisServer;

use crate::kit::Place;

fn order() -> Order {
    Order {
        target: Some(Epoch("elsewhere".into())),
        session: SessionId(1),
        tasks_max: 256,
        bytes_max: 1 << 20,
        except: Vec::new(),
    }
}

async fn enqueue(place: &Place, broker: &RedisBroker, tasks: Vec<outlast_core::NewTask>) {
    let sent = broker.enqueue(&place.queue, stamp(9, 0, 1), t(0), tasks.into()).await;
    sent.expect("the tasks are stored");
}

fn names(parcels: &[Parcel]) -> Vec<&str> {
    parcels.iter().map(|parcel| parcel.task.id.as_str()).collect()
}

/// An id that is no text could not be named when the batch ends, and what was not named was forgotten.
#[tokio::test]
async fn what_cannot_be_named_or_has_no_record_goes_back_to_where_it_was() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![task("a")]).await;
    let script = "redis.call('LPUSH', KEYS[1], '\\255odd', 'ghost') \
         redis.call('HSET', KEYS[2] .. '\\255odd', 'msg', redis.call('HGET', KEYS[2] .. 'a', 'msg'), 'state', 'pending')";
    place.raw(&["EVAL", script, "2", &place.key("pending"), &place.key("t:")]);
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    let batch = batch.expect("there are tasks");
    assert_eq!(names(&batch.load.parcels), ["a"]);
    let why: Vec<_> = batch.unreadable.iter().map(|(_, why)| why.as_str()).collect();
    assert_eq!(why, ["its id is not valid UTF-8", "field msg is missing"]);
    let end = Conclusion::Stored { ids: vec![batch.load.parcels[0].task.id.clone()] };
    broker.conclude(&place.queue, batch.stamp, t(2), &end).await.expect("is concluded");
    assert_eq!(place.pending(), 2);
    let left = place.raw(&[
        "EVAL",
        "return redis.call('HLEN', KEYS[1] .. '\\255odd')",
        "1",
        &place.key("t:"),
    ]);
    assert_eq!(left.int(), Some(2));
    assert_eq!(place.raw(&["EXISTS", &place.key("t:ghost"), &place.key("t:a")]).int(), Some(0));
}

#[tokio::test]
async fn an_id_that_is_in_the_line_twice_is_taken_once() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![task("a"), task("b")]).await;
    place.raw(&["LPUSH", &place.key("pending"), "a"]);
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    assert_eq!(names(&batch.expect("there are tasks").load.parcels), ["a", "b"]);
    assert_eq!(place.pending(), 0);
}

#[tokio::test]
async fn a_lock_of_another_task_is_not_given_away() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![unique("a", "d", 900)]).await;
    let lock = place.key("unique:t:d");
    place.raw(&["SET", &lock, "another", "EX", "900"]);
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    let batch = batch.expect("there is a task");
    let held = batch.load.parcels[0].lock.as_ref().expect("it is unique");
    assert_eq!((held.digest.as_str(), held.held_until), ("d", None));
    let end = Conclusion::Stored { ids: vec![batch.load.parcels[0].task.id.clone()] };
    broker.conclude(&place.queue, batch.stamp, t(2), &end).await.expect("is concluded");
    assert_eq!(place.raw(&["GET", &lock]).text().as_deref(), Some("another"));
}

/// What had been picked by then was in no place any more.
#[tokio::test]
async fn a_key_of_another_kind_fails_a_take_before_anything_has_left_its_place() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![task("a"), grouped("b", "g")]).await;
    let members = place.key("g:g");
    place.raw(&["DEL", &members]);
    place.raw(&["SET", &members, "of another program"]);
    let before = place.everything();
    let failed = broker.take(&place.queue, &order(), t(1)).await.expect_err("cannot be read");
    assert_eq!(failed.kind(), Kind::Corrupt, "{failed}");
    assert_eq!(place.everything(), before);
    place.raw(&["DEL", &members]);
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    assert_eq!(names(&batch.expect("there is a task").load.parcels), ["a"]);
}

/// The queue was listed last, after its tasks were stored and before the batch was remembered: the repeat met its
/// own tasks, called them conflicts, and they went back to the source, too.
#[tokio::test]
async fn a_put_that_cannot_list_its_queue_stores_nothing() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let (from, to) = (Place::new(server), Place::new(server));
    let (source, target) = (from.broker(&server.url()), to.broker(&server.url()));
    enqueue(&from, &source, vec![task("a")]).await;
    let batch = source.take(&from.queue, &order(), t(1)).await.expect("is answered");
    let batch = batch.expect("there is a task");
    let queues = format!("{}:queues", to.namespace);
    to.raw(&["SET", &queues, "of another program"]);
    let before = to.everything();
    let failed = target.put(&to.queue, batch.stamp, t(2), &batch.load).await;
    assert_eq!(failed.expect_err("cannot be listed").kind(), Kind::Corrupt);
    assert_eq!(to.everything(), before);
    to.raw(&["DEL", &queues]);
    let stored = target.put(&to.queue, batch.stamp, t(3), &batch.load).await.expect("is answered");
    assert_eq!((stored.verdicts, stored.is_repeat), (vec![PutVerdict::Stored], false));
}

/// Its key could not be read, and no task of the queue was moved any more.
#[tokio::test]
async fn a_task_whose_key_holds_data_of_another_program_is_named_and_the_others_move() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![task("a"), task("bad"), grouped("odd", "g"), task("c")]).await;
    for id in ["bad", "odd"] {
        place.raw(&["DEL", &place.key(&format!("t:{id}"))]);
        place.raw(&["RPUSH", &place.key(&format!("t:{id}")), "of", "another program"]);
    }
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    let batch = batch.expect("there are tasks");
    assert_eq!(names(&batch.load.parcels), ["a", "c"]);
    let unreadable: Vec<_> = batch.unreadable.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(unreadable, ["bad", "odd"]);
    let ids = batch.load.parcels.iter().map(|parcel| parcel.task.id.clone()).collect();
    let end = Conclusion::Stored { ids };
    let concluded = broker.conclude(&place.queue, batch.stamp, t(2), &end).await;
    assert_eq!(concluded.expect("is answered"), Concluded::Ended);
    assert_eq!(place.raw(&["LINDEX", &place.key("pending"), "0"]).text().as_deref(), Some("bad"));
    assert_eq!(place.raw(&["ZCARD", &place.key("g:g")]).int(), Some(1));
    assert_eq!(place.count("LLEN", "t:bad") + place.count("LLEN", "t:odd"), 4);
    assert_eq!(place.raw(&["EXISTS", &place.key("t:a"), &place.key("t:c")]).int(), Some(0));
}

/// The ghost's place was given to the new task: a second place for one that ran, or the task itself was taken along
/// and forgotten.
#[tokio::test]
async fn a_task_that_got_the_id_of_a_ghost_that_was_taken_is_left_alone() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    for is_given_back in [true, false] {
        let place = Place::new(server);
        let broker = place.broker(&server.url());
        enqueue(&place, &broker, vec![task("a")]).await;
        place.raw(&["LPUSH", &place.key("pending"), "ghost"]);
        let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
        assert_eq!(batch.expect("there are tasks").unreadable.len(), 1);
        place.accept(&broker, vec![task("ghost")]).await;
        assert_eq!(place.claim(&broker, 1).await.len(), 1);
        let again = broker.take(&place.queue, &order(), t(2)).await.expect("is answered");
        let again = again.expect("it is on its way");
        assert_eq!(names(&again.load.parcels), ["a"]);
        let ids = ["a", "ghost"].map(outlast_testkit::conformance::words::id).into();
        let end = if is_given_back { Conclusion::GivenBack } else { Conclusion::Stored { ids } };
        broker.conclude(&place.queue, again.stamp, t(3), &end).await.expect("is answered");
        let state = place.raw(&["HGET", &place.key("t:ghost"), "state"]).text();
        assert_eq!(state.as_deref(), Some("active"));
        assert_eq!(place.pending(), i64::from(is_given_back));
    }
}

/// The name of its group was asked of its record, and it came back into a group without a name.
#[tokio::test]
async fn a_member_whose_record_does_not_name_its_group_goes_back_into_it() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![grouped("a", "g with a space")]).await;
    place.raw(&["HDEL", &place.key("t:a"), "group"]);
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    let stamp = batch.expect("there is a task").stamp;
    let end = Conclusion::GivenBack;
    broker.conclude(&place.queue, stamp, t(2), &end).await.expect("is answered");
    assert_eq!(place.raw(&["ZCARD", &place.key("g:g with a space")]).int(), Some(1));
    assert_eq!(place.raw(&["EXISTS", &place.key("g:")]).int(), Some(0));
}

/// Counters that a deleted move had left behind would have moved once more, with the next ones.
#[tokio::test]
async fn counters_that_a_deleted_move_has_left_do_not_move() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    place.raw(&["HSET", &place.key("outlast:outgoing:counters"), "failed", "7"]);
    place.raw(&["SET", &place.key("processed"), "3"]);
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    let counts = batch.expect("there are counters").load.counts;
    assert_eq!((counts.processed, counts.failed), (3, 0));
}

/// asynq's RemoveQueue sees no task on its way: the queue was not listed any more, and its batch not found.
#[tokio::test]
async fn a_queue_that_go_has_removed_is_listed_again_when_its_batch_comes_back() {
    let Some(server) = RedisServer::or_skip(RedisServer::shared()) else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    enqueue(&place, &broker, vec![task("a")]).await;
    let batch = broker.take(&place.queue, &order(), t(1)).await.expect("is answered");
    let queues = format!("{}:queues", place.namespace);
    let is_listed = || place.raw(&["SISMEMBER", &queues, place.queue.as_str()]).int() == Some(1);
    place.raw(&["SREM", &queues, place.queue.as_str()]);
    broker.sweep(&place.queue, t(2), budget(100)).await.expect("is answered");
    assert!(is_listed(), "by a sweep");
    place.raw(&["SREM", &queues, place.queue.as_str()]);
    let (stamp, end) = (batch.expect("there is a task").stamp, Conclusion::GivenBack);
    broker.conclude(&place.queue, stamp, t(3), &end).await.expect("is answered");
    assert!(is_listed(), "by the end of the batch");
}

#[tokio::test]
async fn a_server_that_does_not_write_at_once_says_what_a_crash_would_lose() {
    let Some(server) = crate::kit::own() else { return };
    let place = Place::new(&server);
    let broker = place.broker(&server.url());
    let says = async |settings: [&str; 2]| {
        place.raw(&["CONFIG", "SET", "appendfsync", settings[1]]);
        place.raw(&["CONFIG", "SET", "appendonly", settings[0]]);
        broker.weakness().await.expect("is answered")
    };
    let none = says(["no", "everysec"]).await.expect("there is no log");
    assert!(none.contains("keeps no log"), "{none}");
    let late = says(["yes", "everysec"]).await.expect("it writes later");
    assert!(late.contains("every second"), "{late}");
    assert_eq!(says(["yes", "always"]).await, None);
}
