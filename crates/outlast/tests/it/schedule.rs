//! Schedules: each tick once, whoever enqueues it and whatever became of its task.

use std::future::Future;
use std::time::Duration;

use outlast::testing::TestBed;
use outlast::{
    ErrorKind, Missed, PageRequest, Schedule, ScheduleName, Scheduler, TaskRequest, TaskState,
    Worker,
};

use super::soon;

const HOUR: Duration = Duration::from_secs(3600);

fn hourly(missed: Missed) -> Schedule {
    Schedule::new("hourly", "0 * * * *", TaskRequest::raw("tick", "")).unwrap().missed(missed)
}

/// Runs a scheduler until `done` holds.
async fn run_until<F: Future<Output = bool>>(
    bed: &TestBed,
    schedule: Schedule,
    mut done: impl FnMut() -> F,
) {
    let scheduler = Scheduler::new(bed.client().connection());
    scheduler.add(schedule).unwrap();
    let wait = async {
        while !done().await {
            tokio::task::yield_now().await;
        }
    };
    soon("the ticks", scheduler.run_until(wait)).await;
}

async fn ticks(bed: &TestBed) -> Vec<String> {
    let name = ScheduleName::new("hourly").unwrap();
    let page = bed.inspector().ticks(&name, &PageRequest::first(100)).await.unwrap();
    let enqueued = page.items.into_iter().filter_map(|tick| tick.task);
    enqueued.map(|id| id.to_string()).collect()
}

async fn registered(bed: &TestBed) -> bool {
    let schedules = bed.inspector().schedules().await.unwrap();
    schedules.iter().any(|(_, state)| state.last_tick.is_some())
}

#[tokio::test]
async fn ticks_missed_while_nobody_ran_follow_the_policy() {
    for (missed, expected) in [(Missed::Skip, 0), (Missed::Once, 1), (Missed::All, 5)] {
        let bed = TestBed::new().await.unwrap();
        run_until(&bed, hourly(missed), || registered(&bed)).await;
        bed.advance(HOUR * 5 + Duration::from_secs(60));
        // A marker tells that the scheduler has been through its round.
        let mark = Schedule::new("mark", "@every 1s", TaskRequest::raw("mark", "")).unwrap();
        let scheduler = Scheduler::new(bed.client().connection());
        scheduler.add(hourly(missed)).unwrap();
        scheduler.add(mark).unwrap();
        let through = async {
            while bed.inspector().schedules().await.unwrap().len() < 2
                || ticks(&bed).await.len() < expected
            {
                tokio::task::yield_now().await;
            }
        };
        soon("the catch-up", scheduler.run_until(through)).await;
        assert_eq!(ticks(&bed).await.len(), expected, "{missed:?}");
        bed.assert_count("default", TaskState::Pending, expected).await;
    }
}

#[tokio::test]
async fn two_schedulers_enqueue_each_tick_once_even_if_the_first_ones_task_is_done() {
    let bed = TestBed::new().await.unwrap();
    run_until(&bed, hourly(Missed::All), || registered(&bed)).await;
    bed.advance(HOUR * 3);
    run_until(&bed, hourly(Missed::All), || async { ticks(&bed).await.len() == 3 }).await;
    let worker = Worker::new(bed.client()).handle_type("tick", async || {});
    assert_eq!(bed.drain(worker).await.unwrap().succeeded, 3);
    bed.assert_empty("default").await;

    // A scheduler that knows nothing of the ticks' fate offers them again: they stay done.
    let id = ticks(&bed).await.pop().unwrap();
    let again = TaskRequest::raw("tick", "").id(&id).once(&id, HOUR);
    assert!(!bed.client().enqueue(again).await.unwrap().is_accepted());
    bed.assert_empty("default").await;
}

#[tokio::test]
async fn a_tick_has_the_same_id_in_every_scheduler() {
    let bed = TestBed::new().await.unwrap();
    run_until(&bed, hourly(Missed::All), || registered(&bed)).await;
    bed.advance(HOUR);
    run_until(&bed, hourly(Missed::All), || async { ticks(&bed).await.len() == 1 }).await;
    assert_eq!(ticks(&bed).await, ["hourly@2030-01-01T13:00:00Z"]);
}

#[tokio::test]
async fn a_paused_schedule_passes_over_its_ticks_and_can_be_run_by_hand() {
    let bed = TestBed::new().await.unwrap();
    let name = ScheduleName::new("hourly").unwrap();
    run_until(&bed, hourly(Missed::All), || registered(&bed)).await;
    let inspector = bed.inspector();
    assert!(inspector.pause_schedule(&name).await.unwrap());
    assert!(!inspector.pause_schedule(&name).await.unwrap());
    let receipt = inspector.run_schedule(&name).await.unwrap();
    assert!(receipt.is_accepted());
    bed.assert_count("default", TaskState::Pending, 1).await;
    assert!(inspector.resume_schedule(&name).await.unwrap());
    let unknown = ScheduleName::new("hourli").unwrap();
    let error = inspector.pause_schedule(&unknown).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "no schedule hourli; did you mean hourly?");
}

#[tokio::test]
async fn a_schedule_run_by_hand_gives_its_task_the_options_of_its_ticks() {
    // It had the defaults of every option: no timeout, no retention, 25 retries.
    let bed = TestBed::new().await.unwrap();
    let request = TaskRequest::raw("tick", "payload")
        .queue("q")
        .max_retry(3)
        .timeout(Duration::from_secs(7))
        .retention(HOUR)
        .unique(HOUR)
        .header("tenant", "acme");
    let schedule = Schedule::new("hourly", "0 * * * *", request).unwrap();
    let name = schedule.name().clone();
    run_until(&bed, schedule, || registered(&bed)).await;
    assert!(bed.inspector().run_schedule(&name).await.unwrap().is_accepted());
    let task = &bed.tasks("q", TaskState::Pending).await.unwrap()[0];
    assert_eq!((&task.payload[..], task.max_retry), (&b"payload"[..], 3));
    assert_eq!((task.timeout, task.retention), (Some(Duration::from_secs(7)), HOUR));
    assert_eq!(task.headers["tenant"], "acme");
    let again = bed.inspector().run_schedule(&name).await.unwrap();
    assert_eq!(again.verdict.as_str(), "duplicate");
}

#[tokio::test]
async fn schedules_come_and_go_while_the_scheduler_runs() {
    let bed = TestBed::new().await.unwrap();
    let scheduler = Scheduler::new(bed.client().connection());
    let name = hourly(Missed::Skip).name().clone();
    let script = async {
        scheduler.add(hourly(Missed::Skip)).unwrap();
        assert!(scheduler.add(hourly(Missed::Skip)).is_err(), "the name is taken");
        while !registered(&bed).await {
            tokio::task::yield_now().await;
        }
        assert!(scheduler.remove(&name));
        assert!(!scheduler.remove(&name));
    };
    soon("the script", scheduler.run_until(script)).await;
    assert!(scheduler.names().is_empty());
}

/// Its last beat held for 20 s, so that a schedule which nobody kept any more stayed listed: all of a scheduler that was shut
/// down, and the last one that was removed from a scheduler that went on.
#[tokio::test]
async fn a_schedule_that_nobody_keeps_any_more_is_not_listed_for_long() {
    let soon_after = Duration::from_secs(7);
    let bed = TestBed::new().await.unwrap();
    run_until(&bed, hourly(Missed::Skip), || registered(&bed)).await;
    bed.advance(soon_after);
    assert!(!registered(&bed).await, "it was shut down");
    let scheduler = Scheduler::new(bed.client().connection());
    scheduler.add(hourly(Missed::Skip)).unwrap();
    let name = hourly(Missed::Skip).name().clone();
    let removed = async {
        while !registered(&bed).await {
            tokio::task::yield_now().await;
        }
        assert!(scheduler.remove(&name));
        let mut passed = Duration::ZERO;
        while registered(&bed).await {
            // Before its beat is over, and whenever the scheduler comes to it.
            let step = Duration::from_millis(1).min(Duration::from_secs(19) - passed);
            bed.advance(step);
            passed += step;
            tokio::task::yield_now().await;
        }
    };
    soon("the removal", scheduler.run_until(removed)).await;
}

#[test]
fn a_wrong_schedule_names_the_field_and_the_zone() {
    let schedule = |cron: &str| Schedule::new("s", cron, TaskRequest::raw("t", ""));
    let error = schedule("61 * * * *").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("minute"), "{error}");
    let error = schedule("* * * * *").unwrap().timezone("Mars/Olympus").unwrap_err();
    assert!(error.to_string().starts_with("time zone \"Mars/Olympus\" is not known"), "{error}");
}
