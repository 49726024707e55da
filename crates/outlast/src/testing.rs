//! Tests for code that uses Outlast: a broker in memory, a clock that stands still, and workers that
//! run until nothing is left to do now.
//!
//! ```
//! use outlast::testing::TestBed;
//! use outlast::{TaskRequest, TaskState, Worker};
//! use std::time::Duration;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> outlast::Result<()> {
//! let bed = TestBed::new().await?;
//! bed.client().enqueue(TaskRequest::raw("remind", "").delay(Duration::from_secs(3600))).await?;
//! bed.assert_count("default", TaskState::Scheduled, 1).await;
//!
//! bed.advance(Duration::from_secs(3600));
//! let worker = Worker::new(bed.client()).handle_type("remind", async || {});
//! assert_eq!(bed.drain(worker).await?.succeeded, 1);
//! bed.assert_empty("default").await;
//! # Ok(()) }
//! ```

use std::time::Duration;

use outlast_core::{PageRequest, QueueName, Selector, TaskRecord, TaskState, limits};

use crate::error::Result;
use crate::worker::{Summary, Worker};
use crate::{Client, Clock, Connection, Inspector};

/// A world of its own for one test. Any number may exist beside each other.
#[derive(Clone, Debug)]
pub struct TestBed {
    client: Client,
    clock: Clock,
}

impl TestBed {
    /// An empty broker in memory, at noon of the 1st of January 2030 in UTC.
    ///
    /// # Errors
    /// If the broker in memory cannot be made.
    #[cfg(feature = "sqlite")]
    pub async fn new() -> Result<Self> {
        let clock = Clock::manual(outlast_core::Timestamp::from_seconds(1_893_499_200));
        let connection = Connection::open("sqlite::memory:").await?;
        Ok(Self::of(connection, clock))
    }

    /// The same around another broker.
    #[must_use]
    pub fn of(connection: Connection, clock: Clock) -> Self {
        let connection = connection.with_clock(clock.clone());
        Self { client: connection.client(), clock }
    }

    /// The client of this world.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Its clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Its inspector.
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        self.client.inspector()
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Runs the worker until nothing can run at the clock's present time.
    ///
    /// # Errors
    /// See [`Worker::run_until`].
    pub async fn drain(&self, worker: Worker) -> Result<Summary> {
        worker.exit_when_idle().run_until(std::future::pending()).await
    }

    /// The tasks of a queue in one state, at most a thousand.
    ///
    /// # Errors
    /// What the broker answers; a queue that does not exist has no tasks.
    pub async fn tasks(&self, queue: &str, state: TaskState) -> Result<Vec<TaskRecord>> {
        let queue = QueueName::new(queue)?;
        let (select, page) = (Selector::state(state), PageRequest::first(limits::PAGE_MAX));
        let inspect = &self.client.connection().inspect;
        Ok(inspect.tasks(&queue, &select, &page, self.clock.now()).await?.items)
    }

    /// Asserts that a queue has so many tasks in a state, and shows them if not.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    pub fn assert_count(
        &self,
        queue: &str,
        state: TaskState,
        expected: usize,
    ) -> impl Future<Output = ()> + '_ {
        let (queue, caller) = (queue.to_owned(), std::panic::Location::caller());
        async move {
            match self.tasks(&queue, state).await {
                Ok(tasks) if tasks.len() == expected => {}
                found => panic!(
                    "{caller}: expected {expected} {state} tasks in {queue}, found {found:#?}"
                ),
            }
        }
    }

    /// Asserts that a queue has no tasks in any state.
    ///
    /// # Panics
    /// If it has some.
    #[track_caller]
    pub fn assert_empty(&self, queue: &str) -> impl Future<Output = ()> + '_ {
        let (queue, caller) = (queue.to_owned(), std::panic::Location::caller());
        async move {
            for state in TaskState::ALL {
                match self.tasks(&queue, state).await {
                    Ok(tasks) if tasks.is_empty() => {}
                    found => {
                        panic!("{caller}: expected no {state} tasks in {queue}, found {found:#?}")
                    }
                }
            }
        }
    }

    /// Asserts that a task of this type waits in the queue, now or for later, and returns the first.
    ///
    /// # Panics
    /// If none does.
    #[track_caller]
    pub fn assert_enqueued(
        &self,
        queue: &str,
        task_type: &str,
    ) -> impl Future<Output = TaskRecord> + '_ {
        let (queue, task_type) = (queue.to_owned(), task_type.to_owned());
        let caller = std::panic::Location::caller();
        async move {
            for state in [TaskState::Pending, TaskState::Scheduled, TaskState::Aggregating] {
                let tasks = self.tasks(&queue, state).await;
                let tasks = tasks.unwrap_or_else(|error| panic!("{caller}: {error}"));
                let found = tasks.into_iter().find(|task| task.task_type.as_str() == task_type);
                if let Some(task) = found {
                    return task;
                }
            }
            panic!("{caller}: expected a task of type {task_type} in {queue}, found none")
        }
    }
}
