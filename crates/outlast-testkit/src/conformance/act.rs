//! Acting on tasks by hand: every action in every state exactly as the table says, one and many.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use bytes::Bytes;
use outlast_core::state::{Event, Next, next};
use outlast_core::{Action, Refusal, Selector, TaskState, TaskType};

use super::case::Case;
use super::words::{
    LEASE, archive, done, due, grouped, id, ids_of, kept, policy, retry, t, task, tasks, with,
};

/// A task in this state, named after it.
async fn put(c: &Case, state: TaskState) -> String {
    let name = state.to_string();
    match state {
        TaskState::Pending => c.accept(t(0), [task(&name)]).await,
        TaskState::Scheduled => c.accept(t(0), [due(&name, t(900))]).await,
        TaskState::Aggregating => c.accept(t(0), [grouped(&name, "g")]).await,
        TaskState::Active => drop(c.running(t(0), task(&name)).await),
        TaskState::Retry => {
            let claimed = c.running(t(0), task(&name)).await;
            c.finish(t(0), &claimed, retry(t(900))).await;
        }
        TaskState::Archived => {
            let claimed = c.running(t(0), task(&name)).await;
            c.finish(t(0), &claimed, archive()).await;
        }
        TaskState::Completed => {
            let claimed = c.running(t(0), kept(&name, 900)).await;
            c.finish(t(0), &claimed, done()).await;
        }
    }
    assert_eq!(c.state(&name).await, Some(state));
    name
}

/// Does `action` to a task in every state and compares what becomes of it with the table.
async fn follows_the_table(
    c: &Case,
    action: &Action,
    event: Event,
    refusals: &[(TaskState, Refusal)],
) {
    for state in TaskState::ALL {
        let name = put(c, state).await;
        let before = c.stats(t(5)).await.count(state);
        let answer = c.act_on(action, &name, t(5)).await;
        let refused = refusals.iter().find(|(of, _)| *of == state).map(|(_, why)| *why);
        assert_eq!(answer.err(), refused, "{action:?} of a task that is {state}");
        let expected = match next(state, event) {
            Next::State(state) => Some(state),
            Next::Gone => None,
            Next::Refused => Some(state),
        };
        assert_eq!(c.state(&name).await, expected, "{action:?} of a task that is {state}");
        let left = u64::from(refused.is_none());
        assert_eq!(c.stats(t(5)).await.count(state), before - left, "{state} counts its tasks");
        // Out of the way, so that the next state is reached in an empty queue.
        c.act_on(&Action::Delete, &name, t(6)).await.ok();
        if let TaskState::Active = state {
            c.sweep(t(LEASE)).await;
            c.act_on(&Action::Delete, &name, t(LEASE)).await.expect("no longer active");
        }
    }
}

pub async fn run_makes_a_task_of_any_waiting_or_finished_state_pending(c: &Case) {
    let refusals =
        [(TaskState::Active, Refusal::Active), (TaskState::Pending, Refusal::AlreadyPending)];
    follows_the_table(c, &Action::Run, Event::RunByHand, &refusals).await;
}

pub async fn archive_puts_away_a_task_of_any_state_but_active(c: &Case) {
    let refusals =
        [(TaskState::Active, Refusal::Active), (TaskState::Archived, Refusal::AlreadyArchived)];
    follows_the_table(c, &Action::Archive, Event::ArchiveByHand, &refusals).await;
}

pub async fn delete_removes_a_task_of_any_state_but_active(c: &Case) {
    let refusals = [(TaskState::Active, Refusal::Active)];
    follows_the_table(c, &Action::Delete, Event::DeleteByHand, &refusals).await;
}

pub async fn cancel_is_for_active_tasks_only(c: &Case) {
    for state in TaskState::ALL {
        let name = put(c, state).await;
        let answer = c.act_on(&Action::Cancel, &name, t(5)).await;
        let expected = if state == TaskState::Active { Ok(()) } else { Err(Refusal::NotActive) };
        assert_eq!(answer, expected, "{state}");
        assert_eq!(c.state(&name).await, Some(state), "a cancel moves nothing");
        c.act_on(&Action::Delete, &name, t(6)).await.ok();
    }
}

pub async fn only_the_payload_of_a_scheduled_task_can_be_set(c: &Case) {
    let set = Action::SetPayload(Bytes::from_static(b"new"));
    for state in TaskState::ALL {
        let name = put(c, state).await;
        let answer = c.act_on(&set, &name, t(5)).await;
        let scheduled = state == TaskState::Scheduled;
        assert_eq!(answer.err(), (!scheduled).then_some(Refusal::NotScheduled), "{state}");
        let payload = c.record(&name, t(5)).await.payload;
        let expected = if scheduled { b"new" } else { name.as_bytes() };
        assert_eq!(&payload[..], expected, "{state}");
        c.act_on(&Action::Delete, &name, t(6)).await.ok();
    }
}

pub async fn a_task_that_is_not_there_is_not_found(c: &Case) {
    let set = Action::SetPayload(Bytes::new());
    for action in [Action::Run, Action::Archive, Action::Delete, Action::Cancel, set] {
        assert_eq!(c.act_on(&action, "a", t(0)).await, Err(Refusal::NotFound), "no queue");
        assert_eq!(c.inspect.queue(&c.queue, t(0)).await.expect("answered"), None);
    }
    c.accept(t(0), [task("b")]).await;
    for action in [Action::Run, Action::Archive, Action::Delete, Action::Cancel] {
        assert_eq!(c.act_on(&action, "a", t(0)).await, Err(Refusal::NotFound), "no task");
    }
}

pub async fn a_task_that_is_run_by_hand_stands_behind_those_that_wait(c: &Case) {
    c.accept(t(0), [due("a", t(900)), task("b")]).await;
    c.act_on(&Action::Run, "a", t(5)).await.expect("it is scheduled");
    let task = c.record("a", t(5)).await;
    assert_eq!((task.next_at, task.pending_since), (Some(t(5)), Some(t(5))));
    assert_eq!(ids_of(&c.claim(t(6), 2).await), ["b", "a"]);
}

pub async fn a_completed_task_that_runs_again_is_no_longer_completed(c: &Case) {
    let claimed = c.running(t(0), kept("a", 100)).await;
    c.finish(t(1), &claimed, done()).await;
    c.act_on(&Action::Run, "a", t(2)).await.expect("it is completed");
    assert_eq!(c.record("a", t(2)).await.completed_at, None);
    assert_eq!(c.sweep(t(500)).await.deleted, 0, "its retention does not end while it waits");
    let claimed = c.claim_one(t(500)).await;
    c.finish(t(501), &claimed, done()).await;
    assert_eq!(c.sweep(t(600)).await.deleted, 0);
    assert_eq!(c.sweep(t(601)).await.deleted, 1);
}

pub async fn an_archived_task_that_runs_again_keeps_its_history(c: &Case) {
    let claimed = c.running(t(0), task("a")).await;
    c.finish(t(1), &claimed, retry(t(2))).await;
    let claimed = c.claim_one(t(2)).await;
    c.finish(t(3), &claimed, archive()).await;
    c.act_on(&Action::Run, "a", t(4)).await.expect("it is archived");
    let task = c.record("a", t(4)).await;
    assert_eq!((task.retried, task.last_failed_at), (1, Some(t(3))));
    assert_eq!(task.last_error.as_deref(), Some("it broke for good"));
}

pub async fn archiving_by_hand_is_no_failure(c: &Case) {
    c.accept(t(0), [task("a")]).await;
    c.act_on(&Action::Archive, "a", t(1)).await.expect("it is pending");
    let task = c.record("a", t(1)).await;
    assert_eq!((task.last_error, task.last_failed_at, task.next_at), (None, None, None));
    assert_eq!(c.stats(t(1)).await.failed_total, 0);
    assert!(c.claim(t(2), 1).await.is_empty());
}

pub async fn the_last_member_that_is_taken_out_ends_its_group(c: &Case) {
    c.accept(t(0), [grouped("a", "g"), grouped("b", "g"), grouped("c", "g")]).await;
    for (action, name) in [(Action::Run, "a"), (Action::Archive, "b"), (Action::Delete, "c")] {
        c.act_on(&action, name, t(1)).await.expect("it waits in its group");
    }
    assert!(c.inspect.groups(&c.queue).await.expect("answered").is_empty());
    assert_eq!((c.stats(t(1)).await.groups, c.stats(t(1)).await.aggregating), (0, 0));
}

pub async fn the_payload_that_was_set_is_the_one_that_runs(c: &Case) {
    c.accept(t(0), [due("a", t(50))]).await;
    let set = Action::SetPayload(Bytes::from_static(b"\x00\xffnew"));
    c.act_on(&set, "a", t(1)).await.expect("it is scheduled");
    let task = c.claim_one(t(50)).await.task;
    assert_eq!((&task.payload[..], task.enqueued_at), (&b"\x00\xffnew"[..], Some(t(0))));
}

pub async fn several_ids_are_answered_together(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c"])).await;
    c.claim_one(t(1)).await;
    let ids = ["a", "b", "nowhere"].map(id).to_vec();
    let acted = c.act(&Action::Archive, &Selector { ids, ..Selector::default() }, t(2), 10).await;
    let mut refused = acted.refused;
    refused.sort_by(|one, two| one.0.cmp(&two.0));
    assert_eq!(acted.changed, 1);
    assert_eq!(refused, [(id("a"), Refusal::Active), (id("nowhere"), Refusal::NotFound)]);
    assert_eq!(c.ids(TaskState::Pending).await, ["c"], "what was not named is left alone");
}

pub async fn a_whole_state_is_acted_on_step_by_step(c: &Case) {
    for (action, state) in
        [(Action::Run, TaskState::Pending), (Action::Archive, TaskState::Archived)]
    {
        let names: Vec<_> = (0..10).map(|n| format!("{state}-{n}")).collect();
        let at = |n: usize| t(500 + i64::try_from(n).expect("few"));
        c.accept(t(0), names.iter().enumerate().map(|(n, name)| due(name, at(n)))).await;
        let acted = c.act(&action, &Selector::state(TaskState::Scheduled), t(1), 3).await;
        assert_eq!((acted.changed, acted.refused.len()), (10, 0));
        assert_eq!(c.stats(t(1)).await.count(state), 10);
        assert_eq!(c.stats(t(1)).await.scheduled, 0);
    }
    assert_eq!(c.ids(TaskState::Pending).await[..2], ["pending-0", "pending-1"], "in their order");
    let acted = c.act(&Action::Delete, &Selector::state(TaskState::Archived), t(2), 4).await;
    assert_eq!((acted.changed, c.stats(t(2)).await.archived), (10, 0));
}

pub async fn an_action_that_leaves_tasks_where_they_are_ends_too(c: &Case) {
    c.accept(t(0), (0..10).map(|n| due(&format!("{n}"), t(500)))).await;
    let set = Action::SetPayload(Bytes::from_static(b"same"));
    let acted = c.act(&set, &Selector::state(TaskState::Scheduled), t(1), 3).await;
    assert_eq!(acted.changed, 10, "each task once");
    for n in 0..10 {
        assert_eq!(&c.record(&n.to_string(), t(1)).await.payload[..], b"same");
    }
}

pub async fn a_whole_state_that_refuses_changes_nothing_and_names_nobody(c: &Case) {
    c.accept(t(0), tasks(&["a", "b", "c", "d", "e"])).await;
    c.claim(t(0), 2).await;
    for (action, state) in [
        (Action::Run, TaskState::Pending),
        (Action::Delete, TaskState::Active),
        (Action::Cancel, TaskState::Pending),
    ] {
        let acted = c.act(&action, &Selector::state(state), t(1), 2).await;
        assert_eq!((acted.changed, acted.refused.len()), (0, 0), "{action:?} {state}");
    }
    assert_eq!((c.stats(t(1)).await.pending, c.stats(t(1)).await.active), (3, 2));
}

pub async fn a_whole_group_is_acted_on_but_for_those_being_aggregated(c: &Case) {
    c.accept(t(0), [grouped("a", "g"), grouped("b", "g")]).await;
    c.claim_group(t(1), &policy("g", 0)).await.expect("ready");
    c.accept(t(2), [grouped("c", "g"), grouped("d", "g"), grouped("e", "h")]).await;
    let group = outlast_core::GroupName::new("g").ok();
    let select = Selector { group, ..Selector::state(TaskState::Aggregating) };
    let acted = c.act(&Action::Delete, &select, t(3), 1).await;
    assert_eq!((acted.changed, acted.refused.len()), (2, 0));
    assert_eq!(c.ids(TaskState::Aggregating).await.len(), 3, "the set and the other group");
}

pub async fn a_selection_is_acted_on_and_nothing_else(c: &Case) {
    let typed = |n: usize| {
        let name = if n.is_multiple_of(3) { "keep" } else { "drop" };
        with(task(&format!("{n:02}")), |task| {
            task.task_type = TaskType::new(name).expect("a valid type");
        })
    };
    c.accept(t(0), (0..30).map(typed)).await;
    let select = Selector { task_type: Some("dr*".into()), ..Selector::state(TaskState::Pending) };
    assert_eq!(c.act(&Action::Delete, &select, t(1), 4).await.changed, 20);
    let left: Vec<_> = (0..10).map(|n| format!("{:02}", n * 3)).collect();
    assert_eq!(c.ids(TaskState::Pending).await, left);
}

pub async fn acting_on_one_queue_leaves_the_others_alone(c: &Case) {
    let other = super::words::queue("other");
    c.enqueue_in(&other, t(0), [task("a")]).await;
    c.accept(t(0), [task("a")]).await;
    c.act(&Action::Delete, &Selector::state(TaskState::Pending), t(1), 10).await;
    let found = c.inspect.task(&other, &id("a"), t(1)).await.expect("answered");
    assert!(found.is_some());
}
