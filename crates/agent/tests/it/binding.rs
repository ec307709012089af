//! Bindings, called as code in an isolate calls them.

mod function;
mod http;
mod state;

use bowline_agent::{
    binding::{Binding, CallError},
    tool::ToolContext,
};
use bowline_sandbox::{
    isolate::{Thrown, Value},
    workspace::{Overlay, Workspace},
};
use bowline_store::{ActorId, MemoryStore, Timestamp};
use serde_json::Value as Json;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);

/// An empty workspace.
pub(crate) async fn files() -> Overlay {
    let actor = ActorId::new("agent", "test", "one");
    let workspace = Workspace::open(Arc::new(MemoryStore::new()), actor);
    workspace.begin(NOW).await.unwrap()
}

pub(crate) fn context(files: Option<Overlay>) -> ToolContext {
    ToolContext {
        call_id: "call_1".into(),
        effect_id: Some("eff_1".into()),
        files,
        shell: None,
        history: None,
        now: NOW,
        cancel: CancellationToken::new(),
    }
}

/// Calls a method; the arguments are given as JSON.
pub(crate) async fn call(
    binding: &dyn Binding,
    context: &ToolContext,
    method: &str,
    arguments: Json,
) -> Result<Value, Thrown> {
    let arguments = match arguments {
        Json::Array(items) => items.into_iter().map(Value::from).collect(),
        one => vec![Value::from(one)],
    };
    call_with(binding, context, method, arguments).await
}

pub(crate) async fn call_with(
    binding: &dyn Binding,
    context: &ToolContext,
    method: &str,
    arguments: Vec<Value>,
) -> Result<Value, Thrown> {
    match binding.call(context, method, arguments).await {
        Ok(value) => Ok(value),
        Err(CallError::Thrown(thrown)) => Err(*thrown),
        Err(CallError::Store(error)) => panic!("{error}"),
    }
}
