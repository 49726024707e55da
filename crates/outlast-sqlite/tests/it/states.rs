//! Law L5: what the SQL does to a task is what core's table says, for every event in every state.

use std::sync::Arc;
use std::time::Duration;

use outlast_core::limits::LOSSES_MAX;
use outlast_core::state::{Event, Next, next};
use outlast_core::{
    Action, Attempt, Broker, Claim, GroupName, GroupPolicy, Inspect, Lease, NewTask, Outcome,
    PageRequest, Selector, Settlement, TaskState, Timestamp,
};
use outlast_sqlite::SqliteBroker;

use crate::kit::*;

const TOKEN: u32 = 5;
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// A task in a state, and the lease under which it is or was run.
struct Subject {
    broker: SqliteBroker,
    lease: Lease,
    now: Timestamp,
}

fn grouped(mut new: NewTask) -> NewTask {
    new.group = Some(GroupName::new("g").expect("a valid name"));
    new
}

fn kept(mut new: NewTask) -> NewTask {
    new.retention = DAY;
    new
}

/// A task that waits in the state it has been given, whatever the sweeps of the next hour do.
async fn subject(state: TaskState, event: Event) -> Subject {
    let broker = SqliteBroker::memory().expect("opens");
    let mut new = task("1");
    if matches!(event, Event::DueInGroup) || state == TaskState::Aggregating {
        new = grouped(new);
    }
    if event == Event::DoneKept || state == TaskState::Completed {
        new = kept(new);
    }
    let lease = Lease { id: new.id.clone(), token: token(TOKEN), until: NOW };
    let losses = if event == Event::LeaseLostTooOften { LOSSES_MAX - 1 } else { 0 };
    let mut subject = Subject { broker, lease, now: NOW };
    match state {
        TaskState::Scheduled => new.due = Some(NOW.plus(HOUR)),
        TaskState::Aggregating => {}
        _ if new.group.is_some() => return subject.in_group(new, state).await,
        _ => {}
    }
    put(&subject.broker, "q", new).await;
    subject.bring_to(state, losses).await;
    subject
}

impl Subject {
    /// A grouped task that is no longer waiting in its group: run by hand out of it.
    async fn in_group(mut self, new: NewTask, state: TaskState) -> Subject {
        put(&self.broker, "q", new).await;
        self.act(&Action::Run).await;
        if state == TaskState::Archived {
            // Losing its leases would bring it back into its group.
            self.act(&Action::Archive).await;
        } else {
            self.bring_to(state, 0).await;
        }
        self
    }

    async fn bring_to(&mut self, state: TaskState, losses: u32) {
        match state {
            TaskState::Scheduled | TaskState::Pending | TaskState::Aggregating => {}
            TaskState::Active => {
                for _ in 0..losses {
                    self.lose().await;
                    self.now = self.now.plus(Duration::from_secs(5));
                }
                self.claim().await;
            }
            TaskState::Retry => self.lose().await,
            TaskState::Archived => {
                for _ in 0..LOSSES_MAX {
                    self.lose().await;
                    self.now = self.now.plus(Duration::from_secs(5));
                }
            }
            TaskState::Completed => {
                self.claim().await;
                self.settle(Outcome::Done { result: None }).await;
            }
        }
    }

    async fn claim(&mut self) {
        let want = want(TOKEN, 1);
        let claims = self.broker.claim(&queue("q"), stamp(), self.now, &want).await;
        if let Some(Claim::Task(claimed)) = claims.expect("claims").claims.pop() {
            self.lease = claimed.lease;
        }
    }

    async fn lose(&mut self) {
        self.claim().await;
        self.now = self.lease.until;
        sweep(&self.broker, "q", self.now).await;
    }

    async fn settle(&self, outcome: Outcome) {
        let batch: Arc<[Settlement]> = [Settlement { lease: self.lease.clone(), outcome }].into();
        self.broker.settle(&queue("q"), stamp(), self.now, batch).await.expect("settles");
    }

    async fn act(&self, action: &Action) {
        let select = Selector::id(self.lease.id.clone());
        let page = PageRequest::first(1);
        self.broker.act(&queue("q"), action, &select, &page, self.now).await.expect("acts");
    }

    async fn state(&self) -> Option<TaskState> {
        let found = self.broker.task(&queue("q"), &self.lease.id, self.now).await;
        found.expect("answers").map(|task| task.state)
    }

    /// Makes a group's set of the task and aggregates it.
    async fn aggregate(&self) {
        let policy = GroupPolicy {
            pattern: "g".into(),
            grace: Duration::ZERO,
            max_delay: None,
            max_size: None,
        };
        let mut want = want(TOKEN, 1);
        want.groups = [policy].into();
        let claims = self.broker.claim(&queue("q"), stamp(), self.now, &want).await;
        let into = Outcome::Aggregated { into: Box::new(task("sum")) };
        let lease = match claims.expect("claims").claims.pop() {
            Some(Claim::Group(group)) => group.lease,
            _ => self.lease.clone(),
        };
        let batch: Arc<[Settlement]> = [Settlement { lease, outcome: into }].into();
        self.broker.settle(&queue("q"), stamp(), self.now, batch).await.expect("settles");
    }

    /// Lets the event happen, or tries to.
    async fn happen(&mut self, state: TaskState, event: Event) {
        let at = self.now.plus(HOUR);
        match event {
            Event::Due | Event::DueInGroup if state != TaskState::Active => {
                sweep(&self.broker, "q", at).await;
            }
            // An hour is longer than the lease: what comes due is asked right now.
            Event::Due | Event::DueInGroup => {
                sweep(&self.broker, "q", self.now).await;
            }
            Event::Claim => self.claim().await,
            Event::Done | Event::DoneKept => self.settle(Outcome::Done { result: None }).await,
            Event::Retry => {
                let (error, attempt) = ("no".to_owned(), Attempt::Spent);
                self.settle(Outcome::Retry { at, error, attempt }).await;
            }
            Event::Snooze => self.settle(Outcome::Snooze { until: at }).await,
            Event::Fail => self.settle(Outcome::Archive { error: "no".into() }).await,
            Event::Revoke => self.settle(Outcome::Revoke).await,
            Event::Release => self.settle(Outcome::Release).await,
            Event::LeaseLost | Event::LeaseLostTooOften => {
                let end = if state == TaskState::Active { self.lease.until } else { self.now };
                sweep(&self.broker, "q", end).await;
            }
            Event::Expire => self.expire(state).await,
            Event::Aggregate if state == TaskState::Aggregating => self.aggregate().await,
            Event::Aggregate => {
                self.settle(Outcome::Aggregated { into: Box::new(task("sum")) }).await;
            }
            Event::RunByHand => self.act(&Action::Run).await,
            Event::ArchiveByHand => self.act(&Action::Archive).await,
            Event::DeleteByHand => self.act(&Action::Delete).await,
        }
    }

    async fn expire(&self, state: TaskState) {
        let end = match state {
            TaskState::Completed => self.now.plus(DAY),
            TaskState::Archived => self.now.plus(outlast_core::limits::ARCHIVE_AGE),
            _ => self.now,
        };
        sweep(&self.broker, "q", end).await;
    }
}

#[tokio::test]
async fn every_event_in_every_state_does_what_the_table_says() {
    let mut checked = 0;
    for state in TaskState::ALL {
        for event in Event::ALL {
            let mut subject = subject(state, event).await;
            assert_eq!(subject.state().await, Some(state), "made for {event:?}");
            subject.happen(state, event).await;
            let expected = match next(state, event) {
                Next::State(to) => Some(to),
                Next::Gone => None,
                Next::Refused => Some(state),
            };
            assert_eq!(subject.state().await, expected, "{event:?} in {state}");
            checked += 1;
        }
    }
    assert_eq!(checked, TaskState::ALL.len() * Event::ALL.len());
}

/// One task in every state, named after it.
pub(crate) async fn one_in_every_state(broker: &SqliteBroker, q: &str) {
    let settled = |id: &'static str, outcome: Outcome| async move {
        put(broker, q, kept(task(id))).await;
        let claimed = take_one(broker, q, TOKEN).await;
        end(broker, q, &claimed.lease, outcome).await;
    };
    settled("completed", Outcome::Done { result: Some("the result".into()) }).await;
    settled("archived", Outcome::Archive { error: "failed for good".into() }).await;
    let (at, error) = (NOW.plus(HOUR), "failed".to_owned());
    settled("retry", Outcome::Retry { at, error, attempt: Attempt::Spent }).await;
    put(broker, q, task("active")).await;
    take_one(broker, q, TOKEN).await;
    let mut scheduled = task("scheduled");
    scheduled.due = Some(NOW.plus(DAY));
    put(broker, q, scheduled).await;
    put(broker, q, grouped(task("aggregating"))).await;
    put(broker, q, task("pending")).await;
}
