//! A queue with one task in every state, put there and brought there by one side.

use std::time::Duration;

use outlast::{TaskRequest, TaskState};
use serde_json::{Value, json};

use super::go::Go;
use super::ours::Ours;
use super::world::World;

const HOUR: Duration = Duration::from_secs(3600);

/// Every state with the id of its task.
pub(crate) const STATES: [(TaskState, &str); 7] = [
    (TaskState::Retry, "retry"),
    (TaskState::Archived, "archived"),
    (TaskState::Completed, "completed"),
    (TaskState::Active, "active"),
    (TaskState::Pending, "pending"),
    (TaskState::Scheduled, "scheduled"),
    (TaskState::Aggregating, "aggregating"),
];

fn behaviour(state: TaskState) -> &'static str {
    match state {
        TaskState::Retry => "fail:no luck",
        TaskState::Archived => "skip_retry:hopeless",
        TaskState::Completed => "echo",
        TaskState::Active => "hang",
        TaskState::Pending | TaskState::Scheduled | TaskState::Aggregating => "ok",
    }
}

impl World {
    /// We fill the queue `q`: its worker has one slot, and that one is taken.
    pub(crate) async fn we_fill(&self) -> Ours {
        for (state, id) in STATES {
            let request = TaskRequest::raw(behaviour(state), "payload").queue("q").id(id);
            let request = request.retention(HOUR).max_retry(7).header("trace", "1");
            let request = match state {
                TaskState::Scheduled => request.delay(HOUR),
                TaskState::Aggregating => request.group("g"),
                _ => request,
            };
            self.client.enqueue(request).await.unwrap().accepted().unwrap();
        }
        let ours = self.we_work(|w| w.queue("q", 1).slots(1).retry_with(|_, _, _| HOUR));
        self.filled().await;
        ours
    }

    /// Go fills the queue `q`.
    pub(crate) async fn go_fills(&self) -> Go {
        for (state, id) in STATES {
            let mut options: Value = json!({"queue": "q", "task_id": id, "retention": "1h",
                "max_retry": 7, "headers": {"trace": "1"}});
            match state {
                TaskState::Scheduled => options["process_in"] = json!("1h"),
                TaskState::Aggregating => options["group"] = json!("g"),
                _ => {}
            }
            let kind = behaviour(state);
            self.go_enqueues(json!({"type": kind, "payload": "payload", "options": options})).await;
        }
        let go =
            self.go_works(&["-queues", "q=1", "-concurrency", "1", "-retry-delay", "1h"]).await;
        self.filled().await;
        go
    }

    async fn filled(&self) {
        for (state, id) in STATES {
            self.in_state("q", id, state).await;
        }
    }
}
