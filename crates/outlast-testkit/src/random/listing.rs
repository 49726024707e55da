//! What is compared: answers and listings as lines of text, without what brokers may choose.

use outlast_core::{
    Claim, Claims, EnqueueVerdict, Inspect, Lease, LeaseToken, PageRequest, QueueName, QueueStats,
    Selector, SettleVerdict, TaskRecord, TaskState, Timestamp,
};

/// Everything a queue shows, a line each.
pub(super) async fn lines(inspect: &dyn Inspect, queue: &QueueName, now: Timestamp) -> Vec<String> {
    let stats = inspect.queue(queue, now).await.expect("the question is answered");
    let mut lines = vec![stats_line(stats)];
    let groups = inspect.groups(queue).await.expect("the question is answered");
    lines.extend(groups.iter().map(|group| format!("group {} {}", group.group, group.size)));
    for state in TaskState::ALL {
        let mut tasks = in_state(inspect, queue, state, now).await;
        match state {
            // Pending is the line itself.
            TaskState::Pending => {}
            TaskState::Scheduled | TaskState::Retry => {
                assert!(tasks.is_sorted_by_key(|task| task.next_at), "{state} is in order");
                tasks.sort_by_key(|task| (task.next_at, task.id.clone()));
            }
            TaskState::Active
            | TaskState::Archived
            | TaskState::Completed
            | TaskState::Aggregating => tasks.sort_by_key(|task| task.id.clone()),
        }
        lines.extend(tasks.into_iter().map(task_line));
    }
    lines
}

pub(super) async fn in_state(
    inspect: &dyn Inspect,
    queue: &QueueName,
    state: TaskState,
    now: Timestamp,
) -> Vec<TaskRecord> {
    let (mut tasks, mut cursor) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: 5, cursor };
        let page = inspect.tasks(queue, &Selector::state(state), &request, now).await;
        let page = page.expect("the listing is answered");
        tasks.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return tasks;
        }
    }
}

fn stats_line(stats: Option<QueueStats>) -> String {
    let Some(mut stats) = stats else { return "no such queue".into() };
    stats.bytes = None;
    let waits = stats.oldest_pending.take().is_some();
    format!("waits: {waits}, {stats:?}")
}

pub(super) fn task_line(mut task: TaskRecord) -> String {
    let waits = task.pending_since.take().is_some();
    if let Some(error) = task.last_error.as_mut().filter(|error| !error.starts_with("e:")) {
        *error = "in the broker's words".into();
    }
    format!("{} {} waits: {waits}, {task:?}", task.state, task.id)
}

/// What was claimed: tasks in order, then groups by name, and by which of the two workers.
pub(super) fn claim_lines(claims: &Claims, tokens: [LeaseToken; 2]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut groups = Vec::new();
    let worker = |token| tokens.iter().position(|of| *of == token);
    for claim in &claims.claims {
        match claim {
            Claim::Task(claimed) => {
                let lease = &claimed.lease;
                let who = worker(lease.token);
                let task = task_line(claimed.task.clone());
                lines.push(format!("{} by {who:?} until {}: {task}", lease.id, lease.until));
            }
            Claim::Group(group) => {
                let mut members: Vec<_> =
                    group.tasks.iter().map(|task| task_line(task.clone())).collect();
                members.sort();
                let (who, until) = (worker(group.lease.token), group.lease.until);
                groups.push(format!("{} by {who:?} until {until}: {members:?}", group.group));
            }
            Claim::Corrupt { id, .. } => lines.push(format!("corrupt: {id}")),
        }
    }
    groups.sort();
    lines.extend(groups);
    lines.push(format!("lost: {:?}", claims.lost));
    lines
}

/// Tasks in order, then groups by name: the same on both sides.
pub(super) fn leases_of(claims: &Claims) -> Vec<Lease> {
    let mut leases = Vec::new();
    let mut groups = Vec::new();
    for claim in &claims.claims {
        match claim {
            Claim::Task(claimed) => leases.push(claimed.lease.clone()),
            Claim::Group(group) => groups.push((group.group.clone(), group.lease.clone())),
            Claim::Corrupt { .. } => {}
        }
    }
    groups.sort_by(|one, two| one.0.cmp(&two.0));
    leases.extend(groups.into_iter().map(|(_, lease)| lease));
    leases
}

pub(super) fn enqueue_line(verdict: &EnqueueVerdict) -> String {
    match verdict {
        EnqueueVerdict::Accepted { .. } => "accepted",
        EnqueueVerdict::Stored => "stored",
        EnqueueVerdict::Duplicate { .. } => "duplicate",
        EnqueueVerdict::IdConflict => "conflict",
        EnqueueVerdict::Rejected(_) => "rejected",
    }
    .into()
}

pub(super) fn settle_line(verdict: &SettleVerdict) -> String {
    match verdict {
        SettleVerdict::Applied => "applied",
        SettleVerdict::Journaled => "journaled",
        SettleVerdict::Adopted => "adopted",
        SettleVerdict::LeaseLost => "lost",
        SettleVerdict::Rejected(_) => "rejected",
    }
    .into()
}

/// The first line in which the two differ, or `None`.
pub(super) fn difference(model: &[String], broker: &[String]) -> Option<String> {
    let longer = model.len().max(broker.len());
    let line = (0..longer).find(|n| model.get(*n) != broker.get(*n))?;
    let shown = |lines: &[String]| lines.get(line).cloned().unwrap_or_else(|| "nothing".into());
    Some(format!("the model says   {}\nthe broker says {}", shown(model), shown(broker)))
}
