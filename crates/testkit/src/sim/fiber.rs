//! A fiber with every way to end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bowline_runtime::{
    Failure,
    fiber::{Fiber, Handler, Handlers, Reason, Recovered, Stop},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::journal::{Event, Journal};

/// The name of the simulated fibers; in the journal, that of their submissions as well.
pub const FIBER: &str = "simulated";

/// What a simulated fiber does: its input.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Task {
    /// Steps, one stash each: the number of the next one.
    pub steps: u32,
    /// Milliseconds that each step takes before it is done.
    pub pause: u64,
    /// What happens after the last step.
    pub end: TaskEnd,
}

/// What happens after the last step of a [`Task`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEnd {
    /// It returns the number of its steps.
    Complete,
    /// It fails.
    Fail,
    /// It waits until somebody decides.
    Interrupt,
    /// It panics, each time.
    Panic,
}

/// Works through the [`Task`] of each fiber.
#[derive(Debug)]
pub struct Worker(pub Arc<Journal>);

impl Worker {
    /// The handlers of a simulated process.
    pub fn handlers(journal: Arc<Journal>) -> Handlers {
        let worker: Arc<dyn Handler> = Arc::new(Self(journal));
        Handlers::new([(FIBER.to_owned(), worker)])
    }

    async fn work(&self, fiber: &mut Fiber<'_>, resumed: bool) -> Result<Value, Stop> {
        let task: Task = serde_json::from_value(fiber.input().clone())
            .map_err(|error| Failure::new("task_invalid", error.to_string(), ""))?;
        let first: u32 = fiber.stash_as().unwrap_or(0);
        for step in first..task.steps {
            if task.pause > 0 {
                tokio::time::sleep(Duration::from_millis(task.pause)).await;
            }
            self.0.push(Event::Executed {
                actor: fiber.attempt().actor().clone(),
                submission: FIBER.to_owned(),
                step,
            });
            fiber.set_stash(&(step + 1)).await?;
        }
        match task.end {
            TaskEnd::Interrupt if !resumed => Err(Stop::Interrupted {
                reason: "it was planned".to_owned(),
                within: Duration::from_secs(7_200),
            }),
            TaskEnd::Complete | TaskEnd::Interrupt => Ok(task.steps.into()),
            TaskEnd::Fail => Err(Failure::new("planned", "it was planned to fail", "").into()),
            // A panic without the report on stderr.
            TaskEnd::Panic => std::panic::resume_unwind(Box::new("a planned panic")),
        }
    }
}

#[async_trait]
impl Handler for Worker {
    async fn run(&self, fiber: &mut Fiber<'_>) -> Result<Value, Stop> {
        self.work(fiber, false).await
    }

    async fn on_recovered(
        &self,
        fiber: &mut Fiber<'_>,
        recovered: Recovered,
    ) -> Result<Value, Stop> {
        self.work(fiber, recovered.reason == Reason::Resumed).await
    }
}
