//! Signs of life: tokens, commands, workers that come and go, and the history of schedules.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use std::collections::BTreeSet;

use outlast_core::broker::tick_id;
use outlast_core::inspect::{RunningTask, ScheduleOptions, TickRecord, WorkerStatus};
use outlast_core::limits::TICKS_KEPT;
use outlast_core::{
    Action, Beat, Command, LeaseToken, PageRequest, ScheduleControl, ScheduleName, ScheduleView,
    Selector, TaskState, WorkerBeat, WorkerView,
};

use super::case::Case;
use super::words::{beat, id, secs, t, task, tasks, worker};

async fn first_beat(c: &Case, name: &str) -> LeaseToken {
    let reply = c.broker.beat(t(0), &beat(worker(name), None, 60)).await.expect("answered");
    reply.token.expect("a first beat hands out a token")
}

/// What a worker that has carried out everything up to `seen` is asked.
async fn commands(c: &Case, name: &str, token: LeaseToken, seen: u64) -> Vec<(u64, Command)> {
    let worker = Some(WorkerBeat { view: worker(name), token: Some(token), seen });
    let beat = Beat { worker, ttl: secs(60), ..Beat::default() };
    c.broker.beat(t(1), &beat).await.expect("answered").commands
}

async fn alive(c: &Case, at: i64) -> Vec<String> {
    let workers = c.inspect.workers(t(at)).await.expect("answered");
    let mut names: Vec<_> = workers.into_iter().map(|worker| worker.id).collect();
    names.sort();
    names
}

fn schedule(name: &str) -> ScheduleName {
    ScheduleName::new(name).expect("a valid name")
}

fn view(c: &Case, name: &str) -> ScheduleView {
    ScheduleView {
        name: schedule(name),
        cron: "0 3 * * *".into(),
        timezone: "Europe/Berlin".into(),
        task_type: task("a").task_type,
        payload: "{}".into(),
        queue: c.queue.clone(),
        missed: "once".into(),
        next_at: Some(t(500)),
        options: ScheduleOptions { timeout_s: Some(7), ..ScheduleOptions::default() },
    }
}

fn scheduler(c: &Case, names: &[&str], ticks: Vec<TickRecord>) -> Beat {
    let schedules = names.iter().map(|name| view(c, name)).collect();
    Beat { schedules, ticks, ttl: secs(60), ..Beat::default() }
}

fn tick(name: &str, at: i64) -> TickRecord {
    let (schedule, tick) = (schedule(name), t(at));
    let task = Some(tick_id(&schedule, tick));
    TickRecord { schedule, tick, task, enqueued_at: t(at + 1) }
}

async fn history(c: &Case, name: &str, limit: usize) -> Vec<TickRecord> {
    let (mut ticks, mut cursor) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit, cursor };
        let page = c.inspect.ticks(&schedule(name), &request).await.expect("answered");
        assert!(page.items.len() <= limit, "a page holds no more than its limit");
        ticks.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return ticks;
        }
    }
}

pub async fn every_worker_gets_a_token_of_its_own(c: &Case) {
    let mut tokens = BTreeSet::new();
    for n in 0..20 {
        tokens.insert(first_beat(c, &format!("w{n}")).await);
    }
    assert_eq!(tokens.len(), 20);
}

pub async fn a_token_is_constant_for_the_life_of_its_worker(c: &Case) {
    let token = first_beat(c, "w").await;
    for at in [1, 30, 5000] {
        let next = beat(worker("w"), Some(token), 60);
        assert_eq!(c.broker.beat(t(at), &next).await.expect("answered").token, Some(token));
    }
}

pub async fn a_first_beat_that_is_repeated_hands_out_the_same_token(c: &Case) {
    assert_eq!(first_beat(c, "w").await, first_beat(c, "w").await);
}

pub async fn a_token_that_the_broker_has_forgotten_stays_its_workers(c: &Case) {
    let token = LeaseToken::new(12_345).expect("a valid token");
    let reply = c.broker.beat(t(0), &beat(worker("w"), Some(token), 60)).await;
    assert_eq!(reply.expect("answered").token, Some(token));
}

pub async fn a_beat_of_nobody_gets_no_token(c: &Case) {
    let reply = c.broker.beat(t(0), &Beat::default()).await.expect("answered");
    assert_eq!((reply.token, reply.commands.len(), reply.schedules.len()), (None, 0, 0));
}

pub async fn a_worker_is_shown_as_it_describes_itself(c: &Case) {
    let running = RunningTask {
        queue: c.queue.clone(),
        id: id("a"),
        task_type: task("a").task_type,
        started_at: t(5),
        deadline: t(900),
        payload: (&b"no text: \xff"[..]).into(),
    };
    let mut view = worker("w");
    (view.active, view.status, view.running) = (1, WorkerStatus::Draining, vec![running]);
    c.broker.beat(t(6), &beat(view.clone(), None, 60)).await.expect("answered");
    assert_eq!(c.inspect.workers(t(7)).await.expect("answered"), [view]);
}

pub async fn the_last_beat_counts(c: &Case) {
    let token = first_beat(c, "w").await;
    let busy = WorkerView { active: 7, ..worker("w") };
    c.broker.beat(t(5), &beat(busy, Some(token), 60)).await.expect("answered");
    let workers = c.inspect.workers(t(6)).await.expect("answered");
    assert_eq!(workers.iter().map(|worker| worker.active).collect::<Vec<_>>(), [7]);
}

pub async fn a_worker_whose_beat_no_longer_holds_is_not_listed(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    let token = first_beat(c, "w").await;
    assert_eq!((alive(c, 59).await, alive(c, 61).await), (vec!["w".to_owned()], vec![]));
    assert!(!c.inspect.tell("w", &Command::Stop, t(61)).await.expect("answered"));
    c.broker.beat(t(100), &beat(worker("w"), Some(token), 60)).await.expect("answered");
    assert_eq!(alive(c, 101).await, ["w"], "it was only slow");
}

pub async fn a_worker_that_is_gone_is_removed_at_once(c: &Case) {
    let token = first_beat(c, "w").await;
    first_beat(c, "stays").await;
    let gone = WorkerView { status: WorkerStatus::Gone, ..worker("w") };
    c.broker.beat(t(1), &beat(gone, Some(token), 60)).await.expect("answered");
    assert_eq!(alive(c, 1).await, ["stays"]);
    assert!(!c.inspect.tell("w", &Command::Stop, t(1)).await.expect("answered"));
}

pub async fn a_command_reaches_its_worker_until_it_is_carried_out(c: &Case) {
    let token = first_beat(c, "w").await;
    assert!(c.inspect.tell("w", &Command::Quiet, t(1)).await.expect("answered"));
    let first = commands(c, "w", token, 0).await;
    assert_eq!(first.iter().map(|(_, command)| command).collect::<Vec<_>>(), [&Command::Quiet]);
    assert_eq!(commands(c, "w", token, 0).await, first, "the answer may have been lost");
    assert!(commands(c, "w", token, first[0].0).await.is_empty());
    assert!(commands(c, "w", token, first[0].0).await.is_empty());
}

pub async fn commands_come_in_order_and_their_numbers_grow(c: &Case) {
    let token = first_beat(c, "w").await;
    let cancel = Command::Cancel { queue: c.queue.clone(), id: id("a") };
    for command in [&cancel, &Command::Quiet, &Command::Stop] {
        assert!(c.inspect.tell("w", command, t(1)).await.expect("answered"));
    }
    let all = commands(c, "w", token, 0).await;
    let told: Vec<_> = all.iter().map(|(_, command)| command.clone()).collect();
    assert_eq!(told, [cancel, Command::Quiet, Command::Stop]);
    assert!(all.is_sorted_by(|one, two| one.0 < two.0), "{all:?}");
    assert_eq!(commands(c, "w", token, all[1].0).await, all[2..], "the rest is still to be done");
}

pub async fn a_command_reaches_nobody_else(c: &Case) {
    let (one, two) = (first_beat(c, "one").await, first_beat(c, "two").await);
    assert!(c.inspect.tell("one", &Command::Stop, t(1)).await.expect("answered"));
    assert!(commands(c, "two", two, 0).await.is_empty());
    assert_eq!(commands(c, "one", one, 0).await.len(), 1);
}

pub async fn nobody_can_be_told_who_is_not_there(c: &Case) {
    assert!(!c.inspect.tell("nobody", &Command::Stop, t(0)).await.expect("answered"));
}

pub async fn a_cancel_reaches_the_worker_that_holds_the_lease(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.other_token().await;
    assert_eq!(c.act_on(&Action::Cancel, "a", t(1)).await, Ok(()));
    let told = commands(c, "the-worker", claimed.lease.token, 0).await;
    let cancel = Command::Cancel { queue: c.queue.clone(), id: id("a") };
    assert_eq!(told.iter().map(|(_, command)| command).collect::<Vec<_>>(), [&cancel]);
    assert!(commands(c, "the-other-worker", c.other_token().await, 0).await.is_empty());
    assert_eq!(c.state("a").await, Some(TaskState::Active), "it runs until its worker says so");
}

pub async fn all_active_tasks_can_be_cancelled(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c"])).await;
    let claimed = c.claim(t(0), 2).await;
    let acted = c.act(&Action::Cancel, &Selector::state(TaskState::Active), t(1), 1).await;
    assert_eq!(acted.changed, 2);
    assert_eq!(commands(c, "the-worker", claimed[0].lease.token, 0).await.len(), 2);
}

pub async fn a_scheduler_lists_what_it_would_enqueue(c: &Case) {
    c.broker.beat(t(0), &scheduler(c, &["b", "a"], vec![])).await.expect("answered");
    let listed = c.inspect.schedules(t(1)).await.expect("answered");
    let views: Vec<_> = listed.iter().map(|(view, _)| view.clone()).collect();
    assert_eq!(views, [view(c, "a"), view(c, "b")], "by name");
    assert!(listed.iter().all(|(_, state)| state.paused_since.is_none()));
}

pub async fn the_state_of_schedules_is_told_in_the_order_of_the_beat(c: &Case) {
    c.inspect.control_schedule(&schedule("a"), ScheduleControl::Pause, t(0)).await.expect("ok");
    let beat = scheduler(c, &["b", "a"], vec![tick("b", 100)]);
    let states = c.broker.beat(t(101), &beat).await.expect("answered").schedules;
    let names: Vec<_> = states.iter().map(|state| state.name.as_str()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!((states[0].paused_since, states[0].last_tick), (None, Some(t(100))));
    assert_eq!((states[1].paused_since, states[1].last_tick), (Some(t(0)), None));
}

pub async fn a_schedule_that_nobody_mentions_any_more_is_not_listed(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    c.broker.beat(t(0), &scheduler(c, &["a"], vec![tick("a", 0)])).await.expect("answered");
    assert_eq!(c.inspect.schedules(t(59)).await.expect("answered").len(), 1);
    assert!(c.inspect.schedules(t(61)).await.expect("answered").is_empty());
    assert_eq!(history(c, "a", 10).await.len(), 1, "its history stays");
}

/// What a scheduler kept until it was shut down was listed until its last beat was over.
pub async fn a_schedule_that_ended_is_listed_for_a_moment_unless_somebody_else_keeps_it(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    c.broker.beat(t(0), &scheduler(c, &["a", "b", "c"], vec![])).await.expect("answered");
    c.inspect.control_schedule(&schedule("c"), ScheduleControl::Pause, t(1)).await.expect("ok");
    let names = ["a", "b", "c", "unknown"].map(schedule).to_vec();
    let last = Beat { ended: names, ..scheduler(c, &[], vec![tick("a", 1)]) };
    for at in [2, 3] {
        c.broker.beat(t(at), &last).await.expect("answered, however often");
    }
    c.broker.beat(t(7), &scheduler(c, &["b"], vec![])).await.expect("another scheduler's");
    let listed = async |at| {
        let listed = c.inspect.schedules(t(at)).await.expect("answered").into_iter();
        listed.map(|(view, _)| view.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(
        listed(7).await,
        ["a", "b", "c"],
        "another scheduler had no time to say that it keeps them"
    );
    assert_eq!(listed(9).await, ["b", "c"], "and who wants to resume it must find it");
    assert_eq!(history(c, "a", 10).await, [tick("a", 1)]);
}

pub async fn a_paused_schedule_is_listed_though_nobody_mentions_it(c: &Case) {
    if c.is_ttl_out_of_reach() {
        return;
    }
    c.broker.beat(t(0), &scheduler(c, &["a"], vec![])).await.expect("answered");
    c.inspect.control_schedule(&schedule("a"), ScheduleControl::Pause, t(1)).await.expect("ok");
    let listed = c.inspect.schedules(t(500)).await.expect("answered");
    assert_eq!(listed.len(), 1, "or nobody could find it to resume it");
    assert_eq!(listed[0].1.paused_since, Some(t(1)));
}

pub async fn pausing_and_resuming_say_whether_it_was_so_already(c: &Case) {
    let name = schedule("a");
    let control = async |control, at| {
        c.inspect.control_schedule(&name, control, t(at)).await.expect("answered")
    };
    use ScheduleControl::{Pause, Resume};
    assert!(!control(Resume, 0).await);
    assert!(control(Pause, 1).await);
    assert!(!control(Pause, 2).await);
    c.broker.beat(t(3), &scheduler(c, &["a"], vec![])).await.expect("answered");
    let listed = c.inspect.schedules(t(3)).await.expect("answered");
    assert_eq!(listed[0].1.paused_since, Some(t(1)), "since the first time");
    assert!(control(Resume, 4).await);
    assert!(!control(Resume, 5).await);
}

pub async fn ticks_of_a_pause_are_not_caught_up(c: &Case) {
    let beat = scheduler(c, &["a"], vec![tick("a", 100)]);
    c.broker.beat(t(101), &beat).await.expect("answered");
    for (control, at) in [(ScheduleControl::Pause, 150), (ScheduleControl::Resume, 400)] {
        c.inspect.control_schedule(&schedule("a"), control, t(at)).await.expect("answered");
    }
    let states = c.broker.beat(t(401), &scheduler(c, &["a"], vec![])).await.expect("answered");
    let last = states.schedules[0].last_tick.expect("known");
    assert!(last >= t(400), "catching up begins behind the moment of resuming, not at {last}");
}

pub async fn a_tick_is_recorded_once_whoever_reports_it(c: &Case) {
    for at in [101, 102] {
        let beat = scheduler(c, &["a"], vec![tick("a", 100)]);
        c.broker.beat(t(at), &beat).await.expect("answered");
    }
    assert_eq!(history(c, "a", 10).await, [tick("a", 100)]);
}

pub async fn a_tick_that_was_skipped_is_recorded_and_counts_as_the_last(c: &Case) {
    let skipped = TickRecord { task: None, ..tick("a", 200) };
    let beat = scheduler(c, &["a"], vec![tick("a", 100), skipped.clone()]);
    let states = c.broker.beat(t(201), &beat).await.expect("answered").schedules;
    assert_eq!(states[0].last_tick, Some(t(200)));
    assert_eq!(history(c, "a", 10).await, [skipped, tick("a", 100)]);
}

pub async fn a_late_report_of_an_early_tick_does_not_move_the_last_one_back(c: &Case) {
    c.broker.beat(t(201), &scheduler(c, &["a"], vec![tick("a", 200)])).await.expect("answered");
    let beat = scheduler(c, &["a"], vec![tick("a", 100)]);
    let states = c.broker.beat(t(202), &beat).await.expect("answered").schedules;
    assert_eq!(states[0].last_tick, Some(t(200)));
}

pub async fn history_is_newest_first_in_pages_and_of_one_schedule(c: &Case) {
    let ticks = (0..25).map(|n| tick("a", n * 100)).chain([tick("b", 50)]).collect();
    c.broker.beat(t(5000), &scheduler(c, &["a", "b"], ticks)).await.expect("answered");
    let expected: Vec<_> = (0..25).rev().map(|n| tick("a", n * 100)).collect();
    assert_eq!(history(c, "a", 4).await, expected);
    assert_eq!(history(c, "b", 4).await, [tick("b", 50)]);
    assert!(history(c, "c", 4).await.is_empty());
}

pub async fn history_keeps_the_newest_ticks_up_to_its_limit(c: &Case) {
    let kept = i64::try_from(TICKS_KEPT).expect("a thousand");
    let all: Vec<_> = (0..kept + 5).map(|n| tick("a", n)).collect();
    for some in all.chunks(200) {
        let beat = scheduler(c, &["a"], some.to_vec());
        c.broker.beat(t(5000), &beat).await.expect("answered");
    }
    let listed = history(c, "a", 500).await;
    assert!(listed.len() <= TICKS_KEPT, "{} are kept", listed.len());
    assert!(listed.len() >= TICKS_KEPT - 1, "{} are kept", listed.len());
    assert_eq!(listed[0], tick("a", kept + 4));
}
