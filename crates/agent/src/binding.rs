//! Bindings: what code in an isolate may call.
//!
//! A binding is a namespace of async functions behind one trait, [`Binding`]: the workspace, the
//! agent's own tools, an HTTP service, a function in Rust. Code sees a global object with its name,
//! and only the methods that [`Binding::methods`] lists. A credential stays on this side.

mod arguments;
pub mod declare;
mod function;
pub mod http;
pub mod openapi;
mod ordered;
mod state;
mod web;

use async_trait::async_trait;
use bowline_sandbox::isolate::{Thrown, Value};
use bowline_store::StoreError;
use serde_json::Value as Json;

pub use function::Functions;
pub use state::State;
pub use web::Web;

use crate::approval::Question;
use crate::tool::{Effect, OnCrash, ToolContext};

/// A namespace of async functions that code in an isolate may call.
#[async_trait]
pub trait Binding: Send + Sync + 'static {
    /// The global that code sees. It MUST be an identifier, and MUST NOT be `codemode`.
    fn name(&self) -> &str;

    /// One line that says what it is for, or nothing.
    fn description(&self) -> &str;

    /// Its methods. The order and the contents MUST stay the same while the value lives.
    fn methods(&self) -> &[Method];

    /// Runs a method of [`Binding::methods`]. The arguments are hostile: it MUST check them. What it
    /// does outside MUST carry `context.effect_id` as idempotency key where the other side takes one.
    /// It MUST NOT wait for ever, and MUST stop when `context.cancel` fires.
    ///
    /// # Errors
    ///
    /// [`CallError::Thrown`] is thrown at the `await` in the program; it MUST hold no credential.
    async fn call(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: Vec<Value>,
    ) -> Result<Value, CallError>;

    /// What a person has to be asked in place of a call; the answer is its result, and
    /// [`Binding::call`] is not called. The default is nothing.
    ///
    /// # Errors
    ///
    /// As in [`Binding::call`], when the arguments make no question.
    fn asks(&self, method: &str, arguments: &[Value]) -> Result<Option<Question>, CallError> {
        let _ = (method, arguments);
        Ok(None)
    }

    /// Whether a call without an outside effect may run at the same time as others. It gets no files
    /// then. The default is no: calls run one after the other, and see what those before them wrote.
    fn beside(&self, method: &str) -> bool {
        let _ = method;
        false
    }

    /// Whether a call with an outside effect works on the files and in the shell too. It runs in turn with
    /// those without an effect then, and what it wrote is committed with its answer. The default is no.
    fn in_workspace(&self, method: &str) -> bool {
        let _ = method;
        false
    }

    /// Undoes a call that returned `result`, when a run is rolled back. Called only for methods with
    /// [`Method::reverts`]; `context.effect_id` is another one than the call's. It MAY be called again
    /// after a crash, with the same id. The default undoes nothing.
    ///
    /// # Errors
    ///
    /// As in [`Binding::call`]; the roll back goes on with the other calls and tells it at the end.
    async fn revert(
        &self,
        context: &ToolContext,
        method: &str,
        arguments: &[Value],
        result: &Value,
    ) -> Result<(), CallError> {
        let _ = (context, method, arguments, result);
        Ok(())
    }
}

/// A function of a binding.
#[derive(Debug, Clone, PartialEq)]
pub struct Method {
    /// The name that code calls, an identifier.
    pub name: String,
    /// What it does, for the declarations and for the search. Lines are kept.
    pub description: String,
    /// Its positional parameters.
    pub parameters: Vec<Parameter>,
    /// JSON Schema of what the promise gives; nothing is `unknown` in the declarations.
    pub returns: Option<Json>,
    /// Whether it acts outside. Calls without an effect are run again after a crash.
    pub effect: Effect,
    /// Whether a person is asked first unless the agent's `approvals` say otherwise.
    pub approval: bool,
    /// Whether [`Binding::revert`] undoes it.
    pub reverts: bool,
}

impl Method {
    /// A method without parameters that acts outside with an unknown outcome when it is cut.
    pub fn new(name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            parameters: Vec::new(),
            returns: None,
            effect: Effect::Outside(OnCrash::Unknown),
            approval: false,
            reverts: false,
        }
    }

    /// With one more required parameter.
    #[must_use]
    pub fn takes(mut self, name: impl Into<String>, schema: Json) -> Self {
        self.parameters.push(Parameter {
            name: name.into(),
            schema,
            optional: false,
        });
        self
    }

    /// With one more parameter that may be left out.
    #[must_use]
    pub fn may_take(mut self, name: impl Into<String>, schema: Json) -> Self {
        self.parameters.push(Parameter {
            name: name.into(),
            schema,
            optional: true,
        });
        self
    }

    /// With what it gives.
    #[must_use]
    pub fn gives(mut self, schema: Json) -> Self {
        self.returns = Some(schema);
        self
    }

    /// With its effect.
    #[must_use]
    pub fn effect(mut self, effect: Effect) -> Self {
        self.effect = effect;
        self
    }
}

/// A positional parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in the declarations.
    pub name: String,
    /// JSON Schema of the value. Binary is `{"type":"string","format":"binary"}` (`Uint8Array`).
    pub schema: Json,
    /// Whether it may be left out. Parameters after it may be left out too.
    pub optional: bool,
}

/// Why a call gave no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The program catches this at its `await`.
    #[error("{0}")]
    Thrown(Box<Thrown>),
    /// The store failed; the program cannot help, and the step ends.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CallError {
    /// An error with this name and message.
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Thrown(Box::new(Thrown::new(name, message)))
    }
}
