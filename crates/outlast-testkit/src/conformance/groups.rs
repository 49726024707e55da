//! Aggregation: when a group is ready, what a claimed set is, and how it becomes one task.

#![expect(missing_docs, reason = "the name of a case is its sentence")]

use outlast_core::limits::GROUP_SIZE_MAX;
use outlast_core::{
    Action, Claim, ClaimedGroup, Extended, GroupPolicy, Hold, Lease, Outcome, Refusal, Rest,
    SettleVerdict, TaskState,
};

use super::case::Case;
use super::words::{
    LEASE, archive, done, due, grouped, id, ids_of_group, is_accepted, locking, policy, retry,
    secs, t, task, unique, with,
};

async fn members(c: &Case, at: i64, names: &[&str]) {
    for (n, name) in names.iter().enumerate() {
        let at = t(at + i64::try_from(n).expect("few members"));
        c.accept(at, [grouped(name, "g")]).await;
    }
}

/// A set of all of `g`, claimed at `at`.
async fn set(c: &Case, at: i64) -> ClaimedGroup {
    c.claim_group(t(at), &policy("g", 0)).await.expect("the group is ready")
}

fn into(name: &str) -> Outcome {
    Outcome::Aggregated { into: Box::new(task(name)) }
}

pub async fn a_group_is_ready_after_a_calm_time(c: &Case) {
    members(c, 0, &["a", "b"]).await;
    assert_eq!(c.claim_group(t(10), &policy("g", 10)).await, None);
    let group = c.claim_group(t(11), &policy("g", 10)).await.expect("nothing came for 10 s");
    assert_eq!((group.group.as_str(), ids_of_group(&group)), ("g", vec!["a", "b"]));
}

pub async fn every_new_member_begins_the_calm_time_again(c: &Case) {
    c.accept(t(0), [grouped("a", "g")]).await;
    c.accept(t(9), [grouped("b", "g")]).await;
    assert_eq!(c.claim_group(t(18), &policy("g", 10)).await, None);
    assert!(c.claim_group(t(19), &policy("g", 10)).await.is_some());
}

pub async fn a_group_is_ready_when_its_oldest_member_waits_too_long(c: &Case) {
    let impatient = GroupPolicy { max_delay: Some(secs(15)), ..policy("g", 10) };
    for at in [0, 8, 14] {
        c.accept(t(at), [grouped(&format!("m{at:02}"), "g")]).await;
    }
    assert_eq!(c.claim_group(t(14), &impatient).await, None);
    let group = c.claim_group(t(15), &impatient).await.expect("the oldest waits 15 s");
    assert_eq!(ids_of_group(&group), ["m00", "m08", "m14"]);
}

pub async fn a_group_is_ready_at_its_size_and_never_taken_beyond_it(c: &Case) {
    let small = GroupPolicy { max_size: Some(2), ..policy("g", 1000) };
    c.accept(t(0), [grouped("a", "g")]).await;
    assert_eq!(c.claim_group(t(0), &small).await, None);
    members(c, 1, &["b", "c", "d", "e"]).await;
    let first = c.claim_group(t(5), &small).await.expect("full");
    let second = c.claim_group(t(5), &small).await.expect("full again");
    assert_eq!((ids_of_group(&first), ids_of_group(&second)), (vec!["a", "b"], vec!["c", "d"]));
    assert_eq!(c.claim_group(t(5), &small).await, None, "the rest waits for its calm time");
    let last = c.claim_group(t(2000), &small).await.expect("calm");
    assert_eq!(ids_of_group(&last), ["e"]);
}

pub async fn no_set_is_larger_than_the_limit_of_all_groups(c: &Case) {
    let mut names: Vec<String> = (0..GROUP_SIZE_MAX + 5).map(|n| format!("{n:04}")).collect();
    for batch in names.chunks(250) {
        c.accept(t(0), batch.iter().map(|name| grouped(name, "g"))).await;
    }
    let group = set(c, 100).await;
    names.truncate(GROUP_SIZE_MAX);
    assert_eq!(ids_of_group(&group), names);
    assert_eq!(set(c, 100).await.tasks.len(), 5);
}

pub async fn the_first_policy_that_matches_a_group_counts(c: &Case) {
    c.accept(t(0), [grouped("a", "user:1"), grouped("b", "team:1")]).await;
    let mut want = c.want(5).await;
    want.groups = [policy("user:1", 100), policy("*", 10)].into();
    let claims = c.claims(t(50), &want).await;
    let groups: Vec<_> = claims.claims.iter().map(group_name).collect();
    assert_eq!(groups, ["team:1"], "user:1 has a policy of its own, which is not ready");
}

fn group_name(claim: &Claim) -> &str {
    match claim {
        Claim::Group(group) => group.group.as_str(),
        other => panic!("a group was expected, not {other:?}"),
    }
}

pub async fn a_group_without_a_policy_waits(c: &Case) {
    members(c, 0, &["a"]).await;
    assert_eq!(c.claim_group(t(1000), &policy("h", 0)).await, None);
    assert_eq!(c.claim_group(t(1000), &policy("gg*", 0)).await, None);
    assert!(c.claim_group(t(1000), &policy("g*", 0)).await.is_some());
}

pub async fn groups_do_not_mix(c: &Case) {
    c.accept(t(0), [grouped("a", "g"), grouped("b", "h"), grouped("c", "g")]).await;
    assert_eq!(ids_of_group(&set(c, 10).await), ["a", "c"]);
    let other = c.claim_group(t(10), &policy("h", 0)).await.expect("ready");
    assert_eq!(ids_of_group(&other), ["b"]);
}

pub async fn a_group_counts_as_one_of_the_tasks_that_are_wanted(c: &Case) {
    c.accept(t(0), [grouped("a", "g"), grouped("b", "g"), grouped("c", "h")]).await;
    let mut want = c.want(1).await;
    want.groups = [policy("*", 0)].into();
    let claims = c.claims(t(10), &want).await;
    assert_eq!((claims.claims.len(), claims.rest), (1, Rest::More));
    assert_eq!(c.claims(t(10), &want).await.claims.len(), 1);
    assert_eq!(c.claims(t(10), &want).await.rest, Rest::Empty);
}

pub async fn tasks_and_groups_are_claimed_together(c: &Case) {
    c.accept(t(0), [task("alone"), grouped("a", "g"), grouped("b", "g")]).await;
    let mut want = c.want(10).await;
    want.groups = [policy("*", 0)].into();
    let claims = c.claims(t(10), &want).await.claims;
    let groups = claims.iter().filter(|claim| matches!(claim, Claim::Group(_))).count();
    assert_eq!((claims.len(), groups), (2, 1));
}

pub async fn a_ready_group_comes_before_a_line_of_tasks_that_may_never_end(c: &Case) {
    c.accept(t(0), [task("alone"), grouped("a", "g"), grouped("b", "g")]).await;
    let mut want = c.want(1).await;
    want.groups = [policy("*", 0)].into();
    let claims = c.claims(t(10), &want).await.claims;
    assert!(matches!(claims[..], [Claim::Group(_)]), "{claims:?}");
    let claims = c.claims(t(10), &want).await.claims;
    assert!(matches!(claims[..], [Claim::Task(_)]), "{claims:?}");
}

pub async fn a_set_is_leased_and_its_members_stay_aggregating(c: &Case) {
    members(c, 0, &["a", "b"]).await;
    let group = set(c, 10).await;
    assert_eq!((group.lease.token, group.lease.until), (c.token().await, t(10 + LEASE)));
    assert!(group.tasks.iter().all(|task| task.state == TaskState::Aggregating));
    assert_eq!(c.ids(TaskState::Aggregating).await, ["a", "b"]);
    assert_eq!(c.stats(t(10)).await.active, 0);
    assert_eq!(c.claim_group(t(1000), &policy("g", 0)).await, None, "nobody else gets them");
}

pub async fn members_that_come_after_the_claim_form_the_next_set(c: &Case) {
    members(c, 0, &["a"]).await;
    set(c, 10).await;
    members(c, 11, &["b"]).await;
    assert_eq!(ids_of_group(&set(c, 20).await), ["b"]);
}

pub async fn an_aggregated_set_becomes_one_task_in_one_step(c: &Case) {
    members(c, 0, &["a", "b"]).await;
    let group = set(c, 10).await;
    let verdict = c.settle(t(11), &group.lease, into("sum")).await;
    assert_eq!(verdict, SettleVerdict::Applied);
    let stats = c.stats(t(11)).await;
    assert_eq!((stats.aggregating, stats.pending, stats.groups), (0, 1, 0));
    assert_eq!(c.claim_one(t(12)).await.task.id, id("sum"));
    assert_eq!(c.settle(t(13), &group.lease, into("x")).await, SettleVerdict::LeaseLost);
}

pub async fn the_task_that_stands_for_a_set_keeps_its_options(c: &Case) {
    members(c, 0, &["a"]).await;
    let group = set(c, 10).await;
    let later = with(due("sum", t(500)), |task| task.max_retry = 2);
    let verdict =
        c.settle(t(11), &group.lease, Outcome::Aggregated { into: Box::new(later) }).await;
    assert_eq!(verdict, SettleVerdict::Applied);
    let sum = c.record("sum", t(11)).await;
    assert_eq!((sum.state, sum.next_at, sum.max_retry), (TaskState::Scheduled, Some(t(500)), 2));
    assert_eq!(sum.enqueued_at, Some(t(11)));
}

pub async fn an_aggregated_set_gives_its_locks_back(c: &Case) {
    c.accept(t(0), [locking(grouped("a", "g"), "d", 1000)]).await;
    let group = set(c, 10).await;
    assert!(!is_accepted(&c.enqueue(t(11), [unique("b", "d", 60)]).await[0]));
    c.settle(t(12), &group.lease, into("sum")).await;
    assert!(is_accepted(&c.enqueue(t(13), [unique("b", "d", 60)]).await[0]));
}

pub async fn aggregating_counts_no_run(c: &Case) {
    members(c, 0, &["a", "b"]).await;
    let group = set(c, 10).await;
    c.settle(t(11), &group.lease, into("sum")).await;
    let stats = c.stats(t(11)).await;
    assert_eq!((stats.processed_total, stats.failed_total), (0, 0), "the new task will count");
}

pub async fn a_set_whose_new_task_is_refused_stays_as_it_was(c: &Case) {
    let holder = locking(due("holder", t(900)), "d", 1000);
    c.accept(t(0), [due("taken", t(900)), holder, grouped("a", "g")]).await;
    let group = set(c, 10).await;
    let wrong = with(task("sum"), |task| task.deadline = Some(t(5)));
    for refused in [task("taken"), unique("sum", "d", 60), wrong] {
        let outcome = Outcome::Aggregated { into: Box::new(refused) };
        let verdict = c.settle(t(11), &group.lease, outcome).await;
        assert!(matches!(verdict, SettleVerdict::Rejected(_)), "{verdict:?}");
    }
    assert_eq!(c.ids(TaskState::Aggregating).await, ["a"]);
    assert_eq!(c.settle(t(12), &group.lease, into("sum")).await, SettleVerdict::Applied);
    assert_eq!(c.find("a", t(12)).await, None);
}

pub async fn a_released_set_gives_its_members_back_in_their_order(c: &Case) {
    members(c, 0, &["b", "a"]).await;
    let group = set(c, 10).await;
    members(c, 11, &["c"]).await;
    assert_eq!(c.settle(t(12), &group.lease, Outcome::Release).await, SettleVerdict::Applied);
    assert_eq!(ids_of_group(&set(c, 20).await), ["b", "a", "c"]);
}

pub async fn a_set_can_only_be_aggregated_or_released(c: &Case) {
    members(c, 0, &["a"]).await;
    let group = set(c, 10).await;
    let outcomes =
        [done(), retry(t(50)), archive(), Outcome::Revoke, Outcome::Snooze { until: t(50) }];
    for outcome in outcomes {
        let verdict = c.settle(t(11), &group.lease, outcome).await;
        assert!(matches!(verdict, SettleVerdict::Rejected(_)), "{verdict:?}");
    }
    assert_eq!(c.settle(t(12), &group.lease, Outcome::Release).await, SettleVerdict::Applied);
}

pub async fn a_set_is_fenced_by_its_token(c: &Case) {
    members(c, 0, &["a"]).await;
    let group = set(c, 10).await;
    let foreign = Lease { token: c.other_token().await, ..group.lease.clone() };
    assert_eq!(c.settle(t(11), &foreign, into("sum")).await, SettleVerdict::LeaseLost);
    assert_eq!(c.settle(t(11), &foreign, Outcome::Release).await, SettleVerdict::LeaseLost);
    assert_eq!(c.ids(TaskState::Aggregating).await, ["a"]);
}

pub async fn a_set_can_be_held_longer(c: &Case) {
    members(c, 0, &["a"]).await;
    let group = set(c, 10).await;
    let hold = Hold { lease: group.lease.clone(), result: None };
    let held = c.broker.extend(&c.queue, t(30), [hold].into(), secs(100)).await;
    assert_eq!(held.expect("answered"), [Extended::Until(t(130))]);
    assert_eq!(c.sweep(t(129)).await.reclaimed, 0);
    assert_eq!(c.settle(t(129), &group.lease, into("sum")).await, SettleVerdict::Applied);
}

pub async fn an_abandoned_set_is_given_back_in_its_order(c: &Case) {
    members(c, 0, &["b", "a"]).await;
    let group = set(c, 10).await;
    members(c, 11, &["c"]).await;
    assert_eq!(c.sweep(t(10 + LEASE - 1)).await.reclaimed, 0);
    assert_eq!(c.sweep(t(10 + LEASE)).await.reclaimed, 1);
    assert_eq!(c.settle(t(50), &group.lease, into("sum")).await, SettleVerdict::LeaseLost);
    assert_eq!(c.record("a", t(50)).await.losses, 0, "members are not to blame");
    assert_eq!(ids_of_group(&set(c, 60).await), ["b", "a", "c"]);
}

pub async fn a_scheduled_member_joins_its_group_when_it_is_due(c: &Case) {
    c.accept(t(0), [with(grouped("a", "g"), |task| task.due = Some(t(50)))]).await;
    assert_eq!(c.claim_group(t(49), &policy("g", 0)).await, None);
    let group = c.claim_group(t(60), &policy("g", 0)).await.expect("it joins as it is claimed");
    assert_eq!(ids_of_group(&group), ["a"]);
    c.accept(t(70), [with(grouped("b", "g"), |task| task.due = Some(t(80)))]).await;
    assert_eq!(c.sweep(t(85)).await.due, 1);
    assert_eq!(c.state("b").await, Some(TaskState::Aggregating));
    assert_eq!(c.claim_group(t(90), &policy("g", 10)).await, None, "it joined at 85");
}

pub async fn a_member_that_runs_by_hand_runs_alone_and_joins_again_on_retry(c: &Case) {
    members(c, 0, &["a"]).await;
    assert_eq!(c.act_on(&Action::Run, "a", t(1)).await, Ok(()));
    assert_eq!(c.stats(t(1)).await.groups, 0);
    let claimed = c.claim_one(t(2)).await;
    assert_eq!(claimed.task.id, id("a"));
    c.finish(t(3), &claimed, retry(t(50))).await;
    c.sweep(t(50)).await;
    assert_eq!(c.state("a").await, Some(TaskState::Aggregating));
}

pub async fn members_of_a_claimed_set_cannot_be_acted_on(c: &Case) {
    members(c, 0, &["a"]).await;
    let group = set(c, 10).await;
    for action in [Action::Run, Action::Archive, Action::Delete] {
        assert_eq!(c.act_on(&action, "a", t(11)).await, Err(Refusal::InAggregation));
    }
    c.settle(t(12), &group.lease, Outcome::Release).await;
    assert_eq!(c.act_on(&Action::Delete, "a", t(13)).await, Ok(()));
}

pub async fn finished_members_still_name_their_group(c: &Case) {
    c.accept(t(0), [with(grouped("a", "g"), |task| task.retention = secs(500))]).await;
    c.act_on(&Action::Run, "a", t(1)).await.expect("it waits in its group");
    let claimed = c.claim_one(t(2)).await;
    c.finish(t(3), &claimed, done()).await;
    members(c, 4, &["b"]).await;
    c.act_on(&Action::Archive, "b", t(5)).await.expect("it waits in its group");
    for name in ["a", "b"] {
        let group = c.record(name, t(6)).await.group;
        assert_eq!(group.as_ref().map(|group| group.as_str()), Some("g"), "{name}");
    }
}

pub async fn groups_are_listed_by_name_with_their_sizes(c: &Case) {
    c.accept(t(0), [grouped("a", "y"), grouped("b", "x"), grouped("c", "y"), task("d")]).await;
    let listed = c.inspect.groups(&c.queue).await.expect("answered");
    let listed: Vec<_> = listed.iter().map(|group| (group.group.as_str(), group.size)).collect();
    assert_eq!(listed, [("x", 1), ("y", 2)]);
    assert_eq!((c.stats(t(0)).await.groups, c.stats(t(0)).await.aggregating), (2, 3));
}

pub async fn members_in_a_claimed_set_are_still_counted(c: &Case) {
    members(c, 0, &["a", "b"]).await;
    set(c, 10).await;
    members(c, 11, &["c"]).await;
    let listed = c.inspect.groups(&c.queue).await.expect("answered");
    assert_eq!(listed.iter().map(|group| group.size).collect::<Vec<_>>(), [3]);
    assert_eq!(c.stats(t(11)).await.aggregating, 3);
}
