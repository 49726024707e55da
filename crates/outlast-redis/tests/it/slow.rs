//! Links that carry everything, slowly.

use std::time::Duration;

use outlast_core::{Broker, EnqueueVerdict, Kind, NewTask, Want};
use outlast_testkit::conformance::words::{stamp, t, task, tasks, tasks_of};
use outlast_testkit::proxy::Direction;

use crate::kit::{LONG, Lossy, enqueue, failed, moment, shared, want, within};

/// What each 16 KiB take: 340 KiB a second, so that a megabyte needs 3 s, longer than an answer to a small request may.
const PIECE: Duration = Duration::from_millis(48);

fn large(name: &str) -> NewTask {
    let mut task = task(name);
    task.payload = vec![b'x'; 1 << 20].into();
    task
}

/// The answer to a large batch was waited for as long as that to a small one; on a slow link its bytes alone took longer. The
/// connection was replaced and the batch sent again, for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_batch_on_a_slow_link_is_waited_for_and_so_is_what_comes_behind_it() {
    let Some(server) = shared() else { return };
    let lossy = Lossy::new(server).await;
    enqueue(&lossy.through, &lossy.place.queue, stamp(1, 0, 1), tasks(&["first"]))
        .await
        .expect("stored");
    lossy.proxy.delay(Direction::ToServer, PIECE);
    let send = async |session, tasks| {
        enqueue(&lossy.through, &lossy.place.queue, stamp(session, 0, 1), tasks).await
    };
    let behind = async {
        moment(Duration::from_millis(2200)).await;
        send(3, tasks(&["small"])).await
    };
    let both = async { tokio::join!(send(2, vec![large("large")]), behind) };
    let (large, small) = within(LONG, both).await;
    for stored in [large, small] {
        let stored = stored.expect("answered");
        assert!(matches!(stored[..], [EnqueueVerdict::Accepted { .. }]), "{stored:?}");
    }
    assert_eq!(lossy.proxy.counts().connections, 1, "no connection was given up");
}

/// The same the other way: how large the tasks are that a claim will find, nobody knows before. Its repeat expects more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_task_on_a_slow_link_is_claimed_by_a_repeat() {
    let Some(server) = shared() else { return };
    let lossy = Lossy::new(server).await;
    lossy.place.accept(&lossy.other, vec![large("large")]).await;
    let claim = async |want: Want| {
        lossy.through.claim(&lossy.place.queue, stamp(1, 0, 1), t(1), &want).await
    };
    lossy.proxy.delay(Direction::ToClient, PIECE);
    failed(within(LONG, claim(want(10))).await, Kind::Ambiguous);
    let claimed = tasks_of(within(LONG, claim(want(10))).await.expect("answered"));
    assert_eq!(claimed.len(), 1);
    assert_eq!(claimed[0].task.payload.len(), 1 << 20);
}
