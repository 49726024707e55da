//! Taking what other programs have left in a queue: nothing that cannot be moved is lost by it.

use outlast_core::porter::{Conclusion, Order, Parcel, PutVerdict};
use outlast_core::{Broker, Epoch, Kind, Porter, SessionId};
use outlast_redis::RedisBroker;
use outlast_testkit::conformance::words::{grouped, stamp, t, task, unique};
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
