//! What is seen of an outage: by other processes of the machine, and in figures.

use std::sync::atomic::Ordering;
use std::time::Duration;

use outlast_core::Kind;
use outlast_survive::{Notice, Spool, SpoolLimits};
use outlast_testkit::fault::Fault;

use crate::kit::*;

/// What a process that has just started reads, until it is as it should be.
async fn until_read(spool: &Spool, bed: &Bed, is: impl Fn(&[Notice]) -> bool) -> Vec<Notice> {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let looking = async {
        loop {
            look.tick().await;
            let notices = spool.notices(bed.now()).expect("the spool is readable");
            if is(&notices) {
                return notices;
            }
        }
    };
    tokio::time::timeout(SOON, looking).await.expect("soon")
}

fn looked_at(bed: &Bed) -> Spool {
    let path = bed.folder.path().join("spool.db");
    Spool::open(path, SpoolLimits::default()).expect("the spool opens")
}

#[tokio::test]
async fn another_process_sees_since_when_and_why_and_that_it_is_over() {
    let bed = Bed::new();
    let spool = looked_at(&bed);
    bed.broken().await;
    let begun = bed.now();
    let notices = until_read(&spool, &bed, |notices| !notices.is_empty()).await;
    let [notice] = notices.as_slice() else { panic!("one process, not {notices:?}") };
    assert_eq!((notice.pid, notice.since), (std::process::id(), begun));
    assert_eq!(notice.kind, Kind::Unavailable.as_str());
    assert!(notice.reason.contains("planned fault") && notice.produce == "open", "{notice:?}");
    bed.faults.heal();
    until_read(&spool, &bed, <[Notice]>::is_empty).await;
}

#[tokio::test]
async fn a_process_that_ends_takes_its_notice_back_and_one_that_is_killed_is_forgotten() {
    let bed = Bed::new();
    let spool = looked_at(&bed);
    bed.broken().await;
    until_read(&spool, &bed, |notices| !notices.is_empty()).await;
    bed.survivor.stop().await;
    assert_eq!(spool.notices(bed.now()).expect("readable"), []);

    let killed = Bed::new();
    let spool = looked_at(&killed);
    killed.broken().await;
    until_read(&spool, &killed, |notices| !notices.is_empty()).await;
    let Bed { survivor, time, folder, .. } = killed;
    drop(survivor);
    let later = time.fetch_add(31_000, Ordering::SeqCst) + 31_000;
    let now = outlast_core::Timestamp::from_millis(later);
    assert_eq!(spool.notices(now).expect("readable"), []);
    drop(folder);
}

#[tokio::test]
async fn figures_have_stable_names_and_say_what_happened() {
    let bed = Bed::new();
    bed.broken().await;
    bed.enqueue(&["a", "b"]).await.expect("stored");
    bed.time.fetch_add(8_000, Ordering::SeqCst);
    let metrics = bed.survivor.metrics().expect("the spool is readable");
    let home = bed.status().homes[0].home.0.to_string();
    let value = |name: &str, labels: &[(&str, &str)]| metrics.value(name, labels);
    assert_eq!(value("outlast_stored_total", &[]), Some(2.0));
    assert_eq!(value("outlast_outages_total", &[]), Some(1.0));
    assert_eq!(value("outlast_spool_items", &[("store", "outbox")]), Some(2.0));
    assert_eq!(value("outlast_spool_oldest_seconds", &[("store", "outbox")]), Some(8.0));
    assert_eq!(value("outlast_outage_seconds", &[("home", &home)]), Some(8.0));
    let produce = [("home", home.as_str()), ("class", "produce")];
    assert!(value("outlast_breaker_state", &produce) > Some(0.0), "{metrics}");
    for class in ["consume", "admin"] {
        let labels = [("home", home.as_str()), ("class", class)];
        assert!(value("outlast_breaker_state", &labels).is_some(), "{class}: {metrics}");
    }

    let text = metrics.to_string();
    for line in [
        "# HELP outlast_stored_total Tasks stored in the outbox.",
        "# TYPE outlast_stored_total counter",
        "outlast_stored_total 2",
        "# TYPE outlast_spool_items gauge",
        "outlast_spool_items{store=\"outbox\"} 2",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
}

#[tokio::test]
async fn what_a_sick_broker_is_sent_is_counted() {
    let bed = Bed::new();
    bed.broken().await;
    assert_eq!(bed.status().counts.sick_calls, 0);
    bed.until("it was probed", |status| status.counts.sick_calls > 0).await;
    bed.down(Fault::Before(Kind::Unavailable));
    bed.faults.heal();
    bed.until("it is back", |status| status.homes.iter().all(|home| home.outage.is_none())).await;
}
