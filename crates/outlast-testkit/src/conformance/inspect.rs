//! Looking: queues in numbers, days, listings in their order, pages and selections.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use bytes::Bytes;
use outlast_core::limits::PAGE_MAX;
use outlast_core::{
    Action, Attempt, Cursor, GroupName, Kind, NewTask, Outcome, PageRequest, QueueStats, Selector,
    TaskState, TaskType,
};

use super::case::Case;
use super::words::{
    archive, done, due, front, grouped, id, kept, policy, queue, retry, t, task, tasks, with,
};

/// One task in every state; in the archive two.
async fn one_of_each(c: &Case) {
    c.accept(t(0), [kept("completed", 500), task("retry"), task("archived-1")]).await;
    let claimed = c.claim(t(0), 3).await;
    c.finish(t(1), &claimed[0], done()).await;
    c.finish(t(2), &claimed[1], retry(t(900))).await;
    c.finish(t(3), &claimed[2], archive()).await;
    c.accept(t(4), [task("active"), due("scheduled", t(800)), grouped("aggregating", "g")]).await;
    c.claim_one(t(5)).await;
    c.accept(t(6), [task("pending"), task("archived-2")]).await;
    c.act_on(&Action::Archive, "archived-2", t(7)).await.expect("it is pending");
}

pub async fn a_queue_in_which_nothing_was_ever_enqueued_is_unknown(c: &Case) {
    assert_eq!(c.inspect.queue(&c.queue, t(0)).await.expect("answered"), None);
    assert!(c.inspect.queues(t(0)).await.expect("answered").is_empty());
}

pub async fn a_queue_appears_with_the_first_task_that_it_accepts(c: &Case) {
    let wrong = with(task("a"), |task| task.max_retry = u32::MAX);
    c.enqueue(t(0), [wrong]).await;
    assert_eq!(c.inspect.queue(&c.queue, t(0)).await.expect("answered"), None);
    c.accept(t(1), [task("b")]).await;
    assert!(c.inspect.queue(&c.queue, t(1)).await.expect("answered").is_some());
}

pub async fn a_queue_stays_known_when_its_last_task_is_gone(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, done()).await;
    let stats = c.inspect.queue(&c.queue, t(1)).await.expect("answered").expect("known");
    assert_eq!((stats.size(), stats.processed_total), (0, 1));
}

pub async fn queues_are_listed_by_name(c: &Case) {
    for name in ["b", "c", "a", "B"] {
        c.enqueue_in(&queue(name), t(0), [task(name)]).await;
    }
    let queues = c.inspect.queues(t(0)).await.expect("answered");
    let names: Vec<_> = queues.iter().map(|stats| stats.queue.as_str()).collect();
    assert_eq!(names, ["B", "a", "b", "c"]);
    let mut one = c.inspect.queue(&queue("a"), t(0)).await.expect("answered").expect("known");
    // A broker that has to sample the memory may do so for one queue only.
    one.bytes = queues[1].bytes.and(one.bytes);
    assert_eq!(one, queues[1], "the same numbers alone and in the list");
}

pub async fn tasks_are_counted_by_state(c: &Case) {
    one_of_each(c).await;
    let stats = c.stats(t(10)).await;
    let counts = TaskState::ALL.map(|state| (state, stats.count(state)));
    let expected = TaskState::ALL.map(|state| (state, 1 + u64::from(state == TaskState::Archived)));
    assert_eq!(counts, expected);
    assert_eq!((stats.size(), stats.unfinished(), stats.groups), (8, 5, 1));
    assert_eq!(stats.next_due, Some(t(800)));
    assert_eq!(stats.paused_since, None);
}

pub async fn the_age_of_a_queue_is_that_of_the_next_task_to_run(c: &Case) {
    c.accept(t(10), [task("a")]).await;
    c.accept(t(20), [task("b")]).await;
    let stats = c.stats(t(50)).await;
    assert_eq!((stats.oldest_pending, stats.latency(t(50)).as_secs()), (Some(t(10)), 40));
    c.claim_one(t(50)).await;
    assert_eq!(c.stats(t(50)).await.oldest_pending, Some(t(20)));
    c.claim_one(t(50)).await;
    assert_eq!(c.stats(t(50)).await.oldest_pending, None);
}

pub async fn runs_are_counted_for_the_day_in_utc_and_for_ever(c: &Case) {
    // The suite's noon is twelve hours before midnight in UTC.
    let (today, tomorrow) = (t(12 * 3600 - 1), t(12 * 3600));
    c.accept(t(0), tasks(&["a", "b", "c", "d"])).await;
    let claimed = c.claim(t(0), 4).await;
    c.finish(today, &claimed[0], done()).await;
    c.finish(today, &claimed[1], archive()).await;
    c.finish(tomorrow, &claimed[2], Outcome::Revoke).await;
    let day = |stats: QueueStats| (stats.processed_today, stats.failed_today);
    assert_eq!(day(c.stats(today).await), (2, 1));
    assert_eq!(day(c.stats(tomorrow).await), (1, 0));
    let stats = c.stats(tomorrow).await;
    assert_eq!((stats.processed_total, stats.failed_total), (3, 1));
    let kept = Outcome::Retry { at: t(0), error: "e".into(), attempt: Attempt::Kept };
    c.finish(tomorrow, &claimed[3], kept).await;
    assert_eq!(c.stats(tomorrow).await.processed_total, 3);
}

pub async fn history_is_by_day_newest_first(c: &Case) {
    let day = 86_400;
    c.accept(t(0), tasks(&["a", "b", "c"])).await;
    let claimed = c.claim(t(0), 3).await;
    c.finish(t(0), &claimed[0], done()).await;
    c.finish(t(2 * day), &claimed[1], retry(t(9 * day))).await;
    c.finish(t(2 * day), &claimed[2], done()).await;
    let history = c.inspect.history(&c.queue, t(2 * day), 4).await.expect("answered");
    let days: Vec<_> =
        history.iter().map(|day| (day.date.as_str(), day.processed, day.failed)).collect();
    let expected =
        [("2026-11-26", 2, 1), ("2026-11-25", 0, 0), ("2026-11-24", 1, 0), ("2026-11-23", 0, 0)];
    assert_eq!(days, expected);
    assert!(history.iter().all(|day| day.queue == c.queue));
}

pub async fn pending_tasks_are_listed_in_the_order_in_which_they_will_run(c: &Case) {
    c.accept(t(0), [task("b"), task("a"), front("z")]).await;
    assert_eq!(c.ids(TaskState::Pending).await, ["z", "b", "a"]);
}

pub async fn active_tasks_are_listed_in_the_order_in_which_they_were_claimed(c: &Case) {
    c.accept(t(0), tasks(&["b", "a", "c"])).await;
    for at in 1..=3 {
        c.claim_one(t(at)).await;
    }
    assert_eq!(c.ids(TaskState::Active).await, ["b", "a", "c"]);
}

pub async fn scheduled_and_retry_tasks_are_listed_by_their_due_times(c: &Case) {
    c.accept(t(0), [task("y"), task("x"), due("b", t(900)), due("c", t(100)), due("a", t(500))])
        .await;
    let claimed = c.claim(t(0), 2).await;
    c.finish(t(1), &claimed[0], retry(t(70))).await;
    c.finish(t(2), &claimed[1], retry(t(60))).await;
    assert_eq!(c.ids(TaskState::Scheduled).await, ["c", "a", "b"]);
    assert_eq!(c.ids(TaskState::Retry).await, ["x", "y"]);
}

pub async fn archived_tasks_are_listed_by_the_time_of_their_archiving(c: &Case) {
    c.accept(t(0), [task("b"), task("a"), task("c")]).await;
    let claimed = c.claim(t(0), 2).await;
    c.finish(t(1), &claimed[1], archive()).await;
    c.act_on(&Action::Archive, "c", t(2)).await.expect("it is pending");
    c.finish(t(3), &claimed[0], archive()).await;
    assert_eq!(c.ids(TaskState::Archived).await, ["a", "c", "b"]);
}

pub async fn completed_tasks_are_listed_by_the_end_of_their_retention(c: &Case) {
    c.accept(t(0), [kept("long", 900), kept("short", 100), kept("middle", 500)]).await;
    for claimed in c.claim(t(0), 3).await {
        c.finish(t(1), &claimed, done()).await;
    }
    assert_eq!(c.ids(TaskState::Completed).await, ["short", "middle", "long"]);
}

pub async fn members_of_a_group_are_listed_in_the_order_in_which_they_joined(c: &Case) {
    for (at, name) in [(0, "b"), (1, "c"), (2, "a")] {
        c.accept(t(at), [grouped(name, "g")]).await;
    }
    let of_group =
        Selector { group: GroupName::new("g").ok(), ..Selector::state(TaskState::Aggregating) };
    assert_eq!(c.select(&of_group, t(3)).await, ["b", "c", "a"]);
    c.claim_group(t(3), &policy("g", 0)).await.expect("ready");
    assert_eq!(c.select(&of_group, t(3)).await, ["b", "c", "a"], "claimed or not");
}

pub async fn a_page_holds_no_more_than_its_limit_and_ends_without_a_cursor(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c", "d"])).await;
    let select = Selector::state(TaskState::Pending);
    let page = c.inspect.tasks(&c.queue, &select, &PageRequest::first(3), t(0)).await;
    let page = page.expect("answered");
    assert_eq!(page.items.len(), 3);
    let request = PageRequest { limit: 3, cursor: page.next };
    let rest = c.inspect.tasks(&c.queue, &select, &request, t(0)).await.expect("answered");
    assert_eq!((rest.items.len(), rest.next), (1, None));
}

/// Three pages of every listing of 20, of which those in front leave after each page.
async fn pages_while_tasks_leave(c: &Case, state: TaskState) {
    let select = Selector::state(state);
    let before = c.ids(state).await;
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: 4, cursor };
        let page = c.inspect.tasks(&c.queue, &select, &request, t(5)).await.expect("answered");
        for task in &page.items {
            seen.push(task.id.to_string());
            // The tasks that were shown leave, the last of the page (the cursor's own) included.
            c.act_on(&Action::Delete, task.id.as_str(), t(5)).await.expect("it waits");
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, before, "{state}");
}

pub async fn paging_neither_repeats_nor_skips_when_tasks_leave_meanwhile(c: &Case) {
    let names: Vec<_> = (0..20).map(|n| format!("{n:02}")).collect();
    c.accept(t(0), names.iter().map(|name| task(&format!("p{name}")))).await;
    c.accept(t(0), (0..20).map(|n| due(&format!("s{n:02}"), t(100 + n / 3)))).await;
    pages_while_tasks_leave(c, TaskState::Pending).await;
    pages_while_tasks_leave(c, TaskState::Scheduled).await;
    c.accept(t(1), names.iter().map(|name| task(&format!("a{name}")))).await;
    let pending = Selector::state(TaskState::Pending);
    assert_eq!(c.act(&Action::Archive, &pending, t(2), 100).await.changed, 20);
    pages_while_tasks_leave(c, TaskState::Archived).await;
}

pub async fn paging_shows_every_task_that_stays_when_others_come_in_front(c: &Case) {
    c.accept(t(0), (0..6).map(|n| task(&n.to_string()))).await;
    let select = Selector::state(TaskState::Pending);
    let first = c.inspect.tasks(&c.queue, &select, &PageRequest::first(3), t(0)).await;
    let next = first.expect("answered").next;
    c.accept(t(1), [front("x"), front("y")]).await;
    let request = PageRequest { limit: 10, cursor: next };
    let rest = c.inspect.tasks(&c.queue, &select, &request, t(1)).await.expect("answered");
    let ids: Vec<_> = rest.items.iter().map(|task| task.id.as_str()).collect();
    assert_eq!(ids, ["3", "4", "5"]);
}

pub async fn pages_can_be_small_and_tasks_equal_in_time(c: &Case) {
    c.accept(t(0), (0..10).map(|n| due(&n.to_string(), t(100)))).await;
    let select = Selector::state(TaskState::Scheduled);
    let (mut seen, mut cursor) = (Vec::new(), None);
    for _ in 0..20 {
        let request = PageRequest { limit: 1, cursor };
        let page = c.inspect.tasks(&c.queue, &select, &request, t(0)).await.expect("answered");
        seen.extend(page.items.iter().map(|task| task.id.to_string()));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    seen.sort();
    assert_eq!(seen, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn varied(c: &Case) {
    let typed = |name: &str, task_type: &str, payload: &'static str| {
        NewTask::new(
            id(name),
            TaskType::new(task_type).expect("a valid type"),
            Bytes::from_static(payload.as_bytes()),
        )
    };
    c.accept(t(0), [typed("a", "mail:new", "to anna"), typed("b", "mail:old", "100%_sure")]).await;
    c.accept(t(10), [typed("c", "mail", "To Anna"), typed("d", "sms", "ünïcode ✓")]).await;
}

async fn selected(c: &Case, change: impl FnOnce(&mut Selector)) -> Vec<String> {
    let mut select = Selector::state(TaskState::Pending);
    change(&mut select);
    c.select(&select, t(100)).await
}

pub async fn tasks_are_selected_by_their_type_or_its_beginning(c: &Case) {
    varied(c).await;
    assert_eq!(selected(c, |s| s.task_type = Some("mail".into())).await, ["c"]);
    assert_eq!(selected(c, |s| s.task_type = Some("mail*".into())).await, ["a", "b", "c"]);
    assert_eq!(selected(c, |s| s.task_type = Some("mail:*".into())).await, ["a", "b"]);
    assert_eq!(selected(c, |s| s.task_type = Some("*".into())).await.len(), 4);
    assert!(selected(c, |s| s.task_type = Some("MAIL*".into())).await.is_empty());
    assert!(selected(c, |s| s.task_type = Some("m_il*".into())).await.is_empty());
}

pub async fn tasks_are_selected_by_text_in_their_payload_to_the_letter(c: &Case) {
    varied(c).await;
    assert_eq!(selected(c, |s| s.text = Some("anna".into())).await, ["a"]);
    assert_eq!(selected(c, |s| s.text = Some("0%_s".into())).await, ["b"]);
    assert_eq!(selected(c, |s| s.text = Some("✓".into())).await, ["d"]);
    assert!(selected(c, |s| s.text = Some("1%e".into())).await.is_empty(), "no patterns");
}

pub async fn tasks_are_selected_by_text_in_their_last_error(c: &Case) {
    c.accept(t(0), tasks(&["a", "b"])).await;
    for (claimed, error) in c.claim(t(0), 2).await.iter().zip(["disk full", "no route"]) {
        c.finish(t(1), claimed, Outcome::Archive { error: error.into() }).await;
    }
    let select = Selector { text: Some("k fu".into()), ..Selector::state(TaskState::Archived) };
    assert_eq!(c.select(&select, t(2)).await, ["a"]);
}

pub async fn tasks_are_selected_by_the_time_of_their_acceptance(c: &Case) {
    varied(c).await;
    assert_eq!(selected(c, |s| s.before = Some(t(10))).await, ["a", "b"], "before, not at");
    assert!(selected(c, |s| s.before = Some(t(0))).await.is_empty());
}

pub async fn tasks_are_selected_by_their_group(c: &Case) {
    c.accept(t(0), [grouped("a", "g"), grouped("b", "h"), grouped("c", "g")]).await;
    let of = |group: &str| Selector {
        group: GroupName::new(group).ok(),
        ..Selector::state(TaskState::Aggregating)
    };
    assert_eq!(c.select(&of("g"), t(1)).await, ["a", "c"]);
    assert!(c.select(&of("G"), t(1)).await.is_empty());
}

pub async fn tasks_are_selected_by_their_ids_in_whatever_state(c: &Case) {
    one_of_each(c).await;
    let ids = ["retry", "nowhere", "pending", "completed"].map(id).to_vec();
    let mut found = c.select(&Selector { ids: ids.clone(), ..Selector::default() }, t(10)).await;
    found.sort();
    assert_eq!(found, ["completed", "pending", "retry"]);
    let retrying = Selector { ids, ..Selector::state(TaskState::Retry) };
    assert_eq!(c.select(&retrying, t(10)).await, ["retry"]);
}

pub async fn what_is_selected_must_match_every_field(c: &Case) {
    varied(c).await;
    let narrow = |s: &mut Selector| {
        s.task_type = Some("mail*".into());
        s.before = Some(t(10));
        s.text = Some("anna".into());
        s.ids = vec![id("a"), id("c")];
    };
    assert_eq!(selected(c, narrow).await, ["a"]);
}

pub async fn a_selection_is_paged_like_a_whole_state(c: &Case) {
    let typed = |n: usize| {
        let name = if n.is_multiple_of(3) { "keep" } else { "drop" };
        with(task(&format!("{n:02}")), |task| {
            task.task_type = TaskType::new(name).expect("a valid type");
        })
    };
    c.accept(t(0), (0..60).map(typed)).await;
    let expected: Vec<_> = (0..20).map(|n| format!("{:02}", n * 3)).collect();
    assert_eq!(selected(c, |s| s.task_type = Some("keep".into())).await, expected);
}

pub async fn a_selector_of_everything_is_rejected(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let page = PageRequest::first(10);
    let all = Selector::default();
    let listed = c.inspect.tasks(&c.queue, &all, &page, t(0)).await;
    assert_eq!(listed.expect_err("no state, no id").kind(), Kind::Rejected);
    let acted = c.inspect.act(&c.queue, &Action::Delete, &all, &page, t(0)).await;
    assert_eq!(acted.expect_err("no state, no id").kind(), Kind::Rejected);
    assert_eq!(c.stats(t(0)).await.pending, 1);
}

pub async fn a_page_of_nothing_or_too_much_is_rejected(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let select = Selector::state(TaskState::Pending);
    for limit in [0, PAGE_MAX + 1] {
        let page = PageRequest::first(limit);
        let listed = c.inspect.tasks(&c.queue, &select, &page, t(0)).await;
        assert_eq!(listed.expect_err("out of bounds").kind(), Kind::Rejected, "{limit}");
        let acted = c.inspect.act(&c.queue, &Action::Delete, &select, &page, t(0)).await;
        assert_eq!(acted.expect_err("out of bounds").kind(), Kind::Rejected, "{limit}");
    }
    assert_eq!(c.stats(t(0)).await.pending, 1);
}

pub async fn a_cursor_that_no_broker_made_is_rejected(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    let select = Selector::state(TaskState::Pending);
    for garbage in ["", "garbage", "'; DROP TABLE tasks; --", "\u{1F980}", "999999999999999999999"]
    {
        let page = PageRequest { limit: 10, cursor: Some(Cursor(garbage.into())) };
        let listed = c.inspect.tasks(&c.queue, &select, &page, t(0)).await;
        assert_eq!(listed.expect_err(garbage).kind(), Kind::Rejected, "{garbage:?}");
        let acted = c.inspect.act(&c.queue, &Action::Delete, &select, &page, t(0)).await;
        assert_eq!(acted.expect_err(garbage).kind(), Kind::Rejected, "{garbage:?}");
    }
}

pub async fn an_unknown_queue_is_looked_at_without_an_error(c: &Case) {
    let nowhere = queue("nowhere");
    let page = PageRequest::first(10);
    let select = Selector::state(TaskState::Pending);
    let listed = c.inspect.tasks(&nowhere, &select, &page, t(0)).await.expect("answered");
    assert_eq!((listed.items.len(), listed.next), (0, None));
    assert_eq!(c.inspect.task(&nowhere, &id("a"), t(0)).await.expect("answered"), None);
    assert!(c.inspect.groups(&nowhere).await.expect("answered").is_empty());
    let history = c.inspect.history(&nowhere, t(0), 2).await.expect("answered");
    assert!(history.iter().all(|day| day.processed == 0));
    assert!(c.inspect.queues(t(0)).await.expect("answered").is_empty(), "looking makes no queue");
}

pub async fn another_connection_sees_the_same(c: &Case) {
    one_of_each(c).await;
    let Some(other) = c.unless_skipped(c.fixture.second_handle().await) else { return };
    let stats = other.inspect.queue(&c.queue, t(10)).await.expect("answered");
    assert_eq!(stats, Some(c.stats(t(10)).await));
    let task = other.inspect.task(&c.queue, &id("retry"), t(10)).await.expect("answered");
    assert_eq!(task, Some(c.record("retry", t(10)).await));
}
