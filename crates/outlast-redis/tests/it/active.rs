//! The list of active tasks: what ends leaves it, wherever it stands, and the others stay as they stood.

use outlast_core::Outcome;
use outlast_testkit::conformance::words::{stamp, tasks};
use outlast_testkit::resp::Reply;

use crate::kit::{Place, settle, settlement, shared};

const RUNNING: usize = 6000;

/// A member that is added to the leases for a moment, and taken out again, was also the id that a task may have: the lease of such a
/// task went with it, and it was run by two.
#[tokio::test]
async fn a_task_may_have_any_id_that_is_one() {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    let dashes = "-".repeat(65);
    let mut names: Vec<String> = (0..20).map(|nth| format!("t{nth}")).collect();
    names.push(dashes.clone());
    place.accept(&broker, tasks(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
    assert_eq!(place.claim(&broker, 50).await.len(), 21);
    assert_eq!(place.count("ZCARD", "lease"), 21);
    assert!(place.raw(&["ZSCORE", &place.key("lease"), &dashes]).text().is_some());
}

/// Ends tasks of a long list, by their places in it, and compares what is left.
async fn ended(places: &[usize]) {
    let Some(server) = shared() else { return };
    let place = Place::new(server);
    let broker = place.broker(&server.url());
    let mut running = Vec::new();
    for batch in 0..RUNNING / 200 {
        let names: Vec<String> = (0..200).map(|nth| format!("{batch}-{nth}")).collect();
        place.accept(&broker, tasks(&names.iter().map(String::as_str).collect::<Vec<_>>())).await;
        running.extend(place.claim(&broker, 200).await);
    }
    let listed = || {
        let ids = place.raw(&["LRANGE", &place.key("active"), "0", "-1"]);
        ids.items().iter().filter_map(Reply::text).collect::<Vec<_>>()
    };
    let mut expected = listed();
    assert_eq!(expected.len(), RUNNING);
    let ids: Vec<_> = places.iter().map(|place| expected[*place].clone()).collect();
    let of = |id: &String| running.iter().find(|task| task.lease.id.as_str() == id);
    let done = Outcome::Done { result: None };
    let batch: Vec<_> =
        ids.iter().filter_map(of).map(|task| settlement(&task.lease, done.clone())).collect();
    settle(&broker, &place.queue, stamp(9, 0, 1), &batch).await.expect("answered");
    expected.retain(|id| !ids.contains(id));
    assert_eq!(listed(), expected, "{places:?}");
}

#[tokio::test]
async fn one_task_of_a_long_list_ends_wherever_it_stands() {
    for at in [0, 40, 3000, RUNNING - 2, RUNNING - 1] {
        ended(&[at]).await;
    }
}

#[tokio::test]
async fn several_tasks_of_a_long_list_end_wherever_they_stand() {
    let last = RUNNING - 1;
    ended(&[0, 1, 2, 3, 4, 5]).await;
    ended(&[last, last - 1, last - 2, last - 5, last - 7]).await;
    ended(&[3, 9, last - 4, 3000, 25]).await;
    ended(&[2, 5, last]).await;
    // Lately claimed, but not last.
    ended(&(500..1500).step_by(7).collect::<Vec<_>>()).await;
    // So many in its middle that the whole list is written anew.
    ended(&(2500..RUNNING - 2500).step_by(7).collect::<Vec<_>>()).await;
}
