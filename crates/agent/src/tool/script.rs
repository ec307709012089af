//! A tool in TypeScript: one typed, documented function in a file.
//!
//! Its parameters, its result and its description are read from its types and comments when the agent
//! is loaded; nothing of it runs then. A call runs it in an isolate of its own, with the bindings that
//! its agent has and no others.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bowline_model::ToolSpec;
use bowline_sandbox::isolate::{Program, Value as Guest, ViewKind};
use serde_json::Value;

use super::{Effect, OnCrash, Tool, ToolContext, ToolError, ToolOutput};
use crate::{
    code::{
        direct::{self, Place},
        outcome::{self, Ending},
    },
    definition::Approval,
};

mod read;

pub(crate) use read::{load_own, load_shared, underscored};

/// How long a call may take unless the tool says otherwise, waiting included.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// How long a call of a durable tool may take unless it says otherwise; time in which it is parked
/// does not count.
pub const DURABLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest that a tool may say, either way.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A tool in TypeScript, as it was read from its file.
#[derive(Clone)]
pub struct Script {
    pub(crate) spec: ToolSpec,
    pub(crate) returns: Option<Value>,
    pub(crate) policy: Policy,
    pub(crate) program: Program,
    file: PathBuf,
    /// What identifies its files and everything that they say.
    digest: String,
}

/// What `export const tool = { … }` says.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Whether a call goes on where it stood after a crash, each call of a binding done once.
    pub durable: bool,
    /// How long a call may take. Default [`TIMEOUT`], or [`DURABLE_TIMEOUT`].
    pub timeout: Duration,
    /// Whether a person is asked first, unless the agent says otherwise. Default never.
    pub approval: Approval,
    /// Whether it acts outside. Default yes, with an unknown outcome when a call is cut.
    pub effect: Effect,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            durable: false,
            timeout: TIMEOUT,
            approval: Approval::Never,
            effect: Effect::Outside(OnCrash::Unknown),
        }
    }
}

impl Script {
    /// Name, description and parameters.
    pub fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// JSON Schema of what it gives, when its author wrote a type.
    pub fn returns(&self) -> Option<&Value> {
        self.returns.as_ref()
    }

    /// How it may be called.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Its file.
    pub fn file(&self) -> &PathBuf {
        &self.file
    }
}

impl PartialEq for Script {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest && self.spec == other.spec && self.policy == other.policy
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script")
            .field("name", &self.spec.name)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// A script where it can be run.
pub(crate) struct ScriptTool {
    script: Arc<Script>,
    place: Arc<Place>,
}

impl ScriptTool {
    pub(crate) fn new(script: &Arc<Script>, place: &Arc<Place>) -> Self {
        Self {
            script: Arc::clone(script),
            place: Arc::clone(place),
        }
    }
}

#[async_trait]
impl Tool for ScriptTool {
    fn spec(&self) -> &ToolSpec {
        &self.script.spec
    }

    fn effect(&self) -> Effect {
        self.script.policy.effect
    }

    fn returns(&self) -> Option<&Value> {
        self.script.returns.as_ref()
    }

    async fn call(&self, context: &ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        let script = &self.script;
        let job = direct::Job {
            name: &script.spec.name,
            program: &script.program,
            input: Guest::from(arguments),
            wall: script.policy.timeout,
            outside: script.policy.effect != Effect::None,
        };
        match direct::run(&self.place, context, job).await {
            Ok(value) => Ok(output(value)),
            Err(direct::Broken::Store(error)) => Err(error.into()),
            Err(direct::Broken::Told(text)) => Err(ToolError::Refused(text)),
        }
    }
}

/// What is told of a durable tool that ended. What it printed goes to the log of the process.
pub(crate) fn result(
    name: &str,
    ending: &Ending,
    log: &[String],
    unawaited: &[String],
) -> Result<ToolOutput, ToolError> {
    for line in log {
        tracing::debug!(tool = name, "{line}");
    }
    if !unawaited.is_empty() {
        tracing::warn!(tool = name, "it did not await {}", unawaited.join(", "));
    }
    match ending {
        Ending::Completed(value) => Ok(output(value.clone())),
        Ending::Error {
            code: None,
            message,
        } => Err(ToolError::new(message)),
        Ending::Error {
            code: Some(code),
            message,
        } => Err(ToolError::new(format!("{message} ({code})"))),
        Ending::RolledBack { .. } => {
            let told = outcome::told(ending, Vec::new(), &[]);
            Err(ToolError::new(told.to_string()))
        }
    }
}

/// What a program gave, as a tool gives it. An object with `mediaType` and bytes as `data` is a picture
/// or a document that the model sees; its `text` goes with it.
pub(crate) fn output(value: Guest) -> ToolOutput {
    let media = match (value.get("mediaType"), value.get("data")) {
        (Some(Guest::String(kind)), Some(Guest::View(ViewKind::Uint8, bytes))) => {
            Some((kind.clone(), bytes.clone()))
        }
        _ => None,
    };
    if media.is_some() {
        let text = value
            .get("text")
            .and_then(Guest::as_str)
            .unwrap_or_default();
        return ToolOutput {
            media,
            ..ToolOutput::text(text)
        };
    }
    let json = value.to_json();
    let text = match (&value, &json) {
        (Guest::Undefined, _) => "Done.".to_owned(),
        (_, Value::String(text)) => text.clone(),
        (_, other) => other.to_string(),
    };
    ToolOutput {
        text,
        media: None,
        output: Some(json),
    }
}
