//! Tests of the runtime through its public interface.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod alarms;
mod bad_input;
mod budget;
mod defects;
mod effects;
mod endings;
mod fibers;
mod life;
mod messages;
mod owners;
mod parked;
mod scale;
mod simulation;
mod state;
mod streams;

use std::{sync::Arc, time::Duration};

use bowline_runtime::{
    Bounds, NewSubmission, Outcome, Program, Receipt, Runtime, RuntimeOptions, Settled, kind,
};
use bowline_store::{ActorId, MemoryStore, Store, StoredRecord};
use bowline_testkit::sim::{
    clock,
    journal::{Event, Journal},
    program::{Plan, Planned},
};

const HOUR: Duration = Duration::from_secs(3_600);
const MINUTE: Duration = Duration::from_secs(60);

/// A store, and processes on it.
struct Stage {
    store: Arc<MemoryStore>,
    journal: Arc<Journal>,
    sources: bowline_runtime::Sources,
    options: RuntimeOptions,
    bounds: Bounds,
}

impl Stage {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            journal: Arc::default(),
            sources: clock::sources(1),
            options: RuntimeOptions::default(),
            bounds: Bounds::default(),
        }
    }

    fn start(&self) -> Runtime {
        self.start_on(self.store.clone())
    }

    fn start_on(&self, store: Arc<dyn Store>) -> Runtime {
        let program: Arc<dyn Program> = Arc::new(Planned {
            journal: self.journal.clone(),
            bounds: self.bounds,
        });
        let programs = [("planned".to_owned(), program)];
        Runtime::new(store, self.sources.clone(), self.options.clone(), programs)
    }

    async fn records(&self, actor: &ActorId) -> Vec<StoredRecord> {
        self.store.read(actor, 0, usize::MAX).await.unwrap()
    }

    async fn count(&self, actor: &ActorId, kind: u16) -> usize {
        self.records(actor)
            .await
            .iter()
            .filter(|stored| stored.record.kind == kind)
            .count()
    }

    /// The submissions in the order of their first attempts.
    async fn attempted(&self, actor: &ActorId) -> Vec<String> {
        let mut order: Vec<String> = Vec::new();
        for stored in self.records(actor).await {
            let id = stored.record.submission.unwrap_or_default();
            if stored.record.kind == kind::ATTEMPT_STARTED && !order.contains(&id) {
                order.push(id);
            }
        }
        order
    }

    fn executed(&self) -> usize {
        let is_step = |event: &&Event| matches!(event, Event::Executed { .. });
        self.journal.events().iter().filter(is_step).count()
    }
}

fn actor(key: &str) -> ActorId {
    ActorId::new("planned", "test", key)
}

fn new(plan: &Plan) -> NewSubmission {
    NewSubmission {
        payload: plan.payload(),
        key: None,
        blobs: Vec::new(),
        trace: None,
    }
}

fn keyed(plan: &Plan, key: &str) -> NewSubmission {
    NewSubmission {
        key: Some(key.to_owned()),
        ..new(plan)
    }
}

async fn submit(runtime: &Runtime, actor: &ActorId, plan: &Plan) -> Receipt {
    runtime.submit(actor, new(plan)).await.unwrap()
}

async fn settle(runtime: &Runtime, actor: &ActorId, receipt: &Receipt) -> Settled {
    runtime
        .settled(actor, &receipt.submission_id)
        .await
        .unwrap()
}

fn failed_with(settled: &Settled, code: &str) -> bool {
    settled.outcome == Outcome::Failed
        && settled
            .error
            .as_ref()
            .is_some_and(|error| error.code == code)
}

/// Lets everything run that can run now.
async fn rest() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}
