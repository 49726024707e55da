//! asynqmon's routes that change tasks, each in turn: for every state, what can be done with one task, with some, and with all.

use std::time::Duration;

use outlast::{QueueName, TaskRequest, TaskState, Worker};
use serde_json::{Value, json};

use super::faces::Mon;
use super::world::{World, built};

const HOUR: Duration = Duration::from_secs(3600);

/// What asynqmon offers for the tasks of a state.
const OFFERS: [(TaskState, &[&str]); 6] = [
    (TaskState::Pending, &["delete", "archive"]),
    (TaskState::Scheduled, &["delete", "run", "archive"]),
    (TaskState::Retry, &["delete", "run", "archive"]),
    (TaskState::Archived, &["delete", "run"]),
    (TaskState::Completed, &["delete"]),
    (TaskState::Aggregating, &["delete", "run", "archive"]),
];

/// With how many tasks at once.
#[derive(Clone, Copy, Debug)]
enum Form {
    One,
    Batch,
    All,
}

/// A route with a queue of its own.
struct Route {
    state: TaskState,
    verb: &'static str,
    form: Form,
}

fn routes() -> impl Iterator<Item = Route> {
    let forms = [Form::One, Form::Batch, Form::All];
    OFFERS.into_iter().flat_map(move |(state, verbs)| {
        verbs.iter().flat_map(move |verb| forms.map(|form| Route { state, verb, form }))
    })
}

impl Route {
    fn queue(&self) -> String {
        format!("{}-{}-{:?}", self.state, self.verb, self.form)
    }

    /// Two tasks in its state, or such that a worker brings them there.
    async fn fill(&self, world: &World) {
        for id in ["a", "b"] {
            let kind = match self.state {
                TaskState::Retry => "fail:no luck",
                TaskState::Archived => "skip_retry:hopeless",
                _ => "echo",
            };
            let request = TaskRequest::raw(kind, "payload").queue(&self.queue()).id(id);
            let request = match self.state {
                TaskState::Scheduled => request.delay(HOUR),
                TaskState::Aggregating => request.group("g"),
                _ => request.retention(HOUR),
            };
            world.client.enqueue(request).await.unwrap().accepted().unwrap();
        }
    }

    fn needs_a_worker(&self) -> bool {
        matches!(self.state, TaskState::Retry | TaskState::Archived | TaskState::Completed)
    }

    /// Asks for it, and checks the answer.
    async fn ask(&self, mon: &Mon) {
        let Self { state, verb, form } = self;
        let tasks = match state {
            TaskState::Aggregating => "groups/g/aggregating_tasks".to_owned(),
            _ => format!("{state}_tasks"),
        };
        let at = format!("queues/{}/{tasks}", self.queue());
        match (form, *verb) {
            (Form::One, "delete") => {
                mon.change("DELETE", &format!("{at}/a"), &Value::Null).await;
            }
            (Form::One, _) => {
                mon.change("POST", &format!("{at}/a:{verb}"), &Value::Null).await;
            }
            (Form::Batch, _) => {
                let ids = json!({"task_ids": ["a", "nobody"]});
                let told = mon.change("POST", &format!("{at}:batch_{verb}"), &ids).await;
                let (done, refused) = match *verb {
                    "delete" => ("deleted_ids", "failed_ids"),
                    "run" => ("pending_ids", "error_ids"),
                    _ => ("archived_ids", "error_ids"),
                };
                assert_eq!(told[done], json!(["a"]), "{at}: {told}");
                assert_eq!(told[refused], json!(["nobody"]), "{at}: {told}");
            }
            (Form::All, "delete") => {
                let told = mon.change("DELETE", &format!("{at}:delete_all"), &Value::Null).await;
                assert_eq!(told["deleted"], 2, "{at}: {told}");
            }
            (Form::All, _) => {
                mon.change("POST", &format!("{at}:{verb}_all"), &Value::Null).await;
            }
        }
    }

    /// Checks what has become of the two tasks.
    async fn check(&self, world: &World) {
        let queue = self.queue();
        let after = match self.verb {
            "delete" => None,
            "run" => Some(TaskState::Pending),
            _ => Some(TaskState::Archived),
        };
        let untouched = Some(self.state);
        let second = if matches!(self.form, Form::All) { after } else { untouched };
        for (id, state) in [("a", after), ("b", second)] {
            match state {
                Some(state) => drop(world.in_state(&queue, id, state).await),
                None => world.gone(&queue, id).await,
            }
        }
    }
}

#[tokio::test]
async fn every_route_of_asynqmon_that_changes_tasks_does_it_to_ours() {
    if built("outlast-asynqmon").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let mon = Mon::start(&world).await;
    for route in routes() {
        route.fill(&world).await;
    }
    let worked = routes().filter(Route::needs_a_worker);
    let ours = world.we_work(|worker| {
        let all = |worker: Worker, route: Route| worker.queue(&route.queue(), 1);
        worked.fold(worker, all).retry_with(|_, _, _| HOUR)
    });
    for route in routes() {
        for id in ["a", "b"] {
            world.in_state(&route.queue(), id, route.state).await;
        }
    }
    ours.stop().await;
    for route in routes() {
        route.ask(&mon).await;
        route.check(&world).await;
    }
}

#[tokio::test]
async fn asynqmon_cancels_some_and_all_of_our_running_tasks() {
    if built("outlast-asynqmon").is_none() {
        return;
    }
    let Some(world) = World::start().await else { return };
    let mon = Mon::start(&world).await;
    for n in 0..4 {
        let request = TaskRequest::raw("hang", "").queue("q").id(&format!("t{n}"));
        world.client.enqueue(request).await.unwrap().accepted().unwrap();
    }
    let _ours = world.we_work(|worker| worker.queue("q", 1).retry_with(|_, _, _| HOUR));
    world.queue_when("q", |stats| stats.active == 4).await;
    let some = json!({"task_ids": ["t0"]});
    let told = mon.change("POST", "queues/q/active_tasks:batch_cancel", &some).await;
    assert_eq!((&told["canceled_ids"], &told["error_ids"]), (&json!(["t0"]), &json!([])));
    world.in_state("q", "t0", TaskState::Retry).await;
    assert_eq!(world.inspector.queue(&QueueName::stored("q")).await.unwrap().active, 3);
    mon.change("POST", "queues/q/active_tasks:cancel_all", &Value::Null).await;
    world.queue_when("q", |stats| stats.retry == 4).await;
}
