//! The six tools of a workspace: `read`, `write`, `edit`, `bash`, `grep`, `glob`.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bowline_model::ToolSpec;
use bowline_sandbox::{
    shell::{Shell, ShellState},
    tools::{self, Seen, ToolFailure},
    workspace::Overlay,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Effect, Tool, ToolContext, ToolError, ToolOutput, schema};

/// The shell of one conversation and the state it stands in. Cheap to clone.
#[derive(Clone, Default)]
pub struct ShellCell(Arc<ShellInner>);

#[derive(Default)]
struct ShellInner {
    shell: Shell,
    /// Held for a clone or a replacement, never across a command.
    state: Mutex<StateOfStep>,
}

#[derive(Default, Clone)]
struct StateOfStep {
    state: ShellState,
    changed: bool,
    seen: Seen,
    seen_changed: bool,
}

impl fmt::Debug for ShellCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShellCell").finish_non_exhaustive()
    }
}

impl ShellCell {
    /// Sets the state that a step starts from, and the files that the model has seen.
    pub fn start(&self, state: ShellState, seen: Seen) {
        *self.lock() = StateOfStep {
            state,
            changed: false,
            seen,
            seen_changed: false,
        };
    }

    /// The files that the model has seen after the step, when they are others.
    pub fn seen_changed(&self) -> Option<Seen> {
        let current = self.lock();
        current.seen_changed.then(|| current.seen.clone())
    }

    fn lock(&self) -> MutexGuard<'_, StateOfStep> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seen(&self) -> Seen {
        self.lock().seen.clone()
    }

    fn see(&self, seen: Seen) {
        let mut current = self.lock();
        current.seen_changed |= current.seen != seen;
        current.seen = seen;
    }

    /// The state after the step, when it is another one.
    pub fn changed(&self) -> Option<ShellState> {
        let current = self.lock();
        current.changed.then(|| current.state.clone())
    }

    fn state(&self) -> ShellState {
        self.lock().state.clone()
    }

    fn set(&self, state: ShellState) {
        let mut current = self.lock();
        (current.state, current.changed) = (state, true);
    }
}

/// Which of the six.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Read,
    Write,
    Edit,
    Bash,
    Grep,
    Glob,
}

struct SandboxTool {
    kind: Kind,
    spec: ToolSpec,
}

/// The six tools.
///
/// # Errors
///
/// Never for the tools as they are; the schemas are checked all the same.
pub fn all() -> Result<Vec<Arc<dyn Tool>>, schema::SchemaError> {
    let tool = |kind, name: &str, description: &str, parameters| {
        let spec = ToolSpec {
            name: name.to_owned(),
            description: description.to_owned(),
            parameters,
        };
        Arc::new(SandboxTool { kind, spec }) as Arc<dyn Tool>
    };
    Ok(vec![
        tool(
            Kind::Read,
            "read",
            "Read a text file, an image or a PDF. A long text is cut at 2000 lines or 50 KB; the result says how to go on.",
            schema::of::<tools::ReadInput>()?,
        ),
        tool(
            Kind::Write,
            "write",
            "Write a file: creates it with its folders, or replaces all of it.",
            schema::of::<tools::WriteInput>()?,
        ),
        tool(
            Kind::Edit,
            "edit",
            "Change parts of a file. Each oldText must be in the file exactly once, unless replaceAll is true; all edits apply or none.",
            schema::of::<tools::EditInput>()?,
        ),
        tool(
            Kind::Bash,
            "bash",
            "Run a bash command in the workspace. Directory, variables and functions last from one command to the next. There is no network, and no other program than the usual text tools.",
            schema::of::<tools::BashInput>()?,
        ),
        tool(
            Kind::Grep,
            "grep",
            "Search file contents with a regular expression, or a literal text.",
            schema::of::<tools::GrepInput>()?,
        ),
        tool(
            Kind::Glob,
            "glob",
            "Find files by a pattern such as src/**/*.rs.",
            schema::of::<tools::GlobInput>()?,
        ),
    ])
}

#[async_trait]
impl Tool for SandboxTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    /// What it writes is committed with its result, so a call that was cut did not happen.
    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn call(&self, context: &ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        let Some(files) = &context.files else {
            return Err(ToolError::new("there is no workspace"));
        };
        let output = match self.kind {
            Kind::Read | Kind::Write | Kind::Edit => {
                let Some(cell) = &context.shell else {
                    return Err(ToolError::new("there is no workspace"));
                };
                // Calls of a step run one after the other, so nobody else sees files meanwhile.
                let mut seen = cell.seen();
                let output = match self.kind {
                    Kind::Write => seen.write(files, input(arguments)?).await,
                    Kind::Edit => seen.edit(files, input(arguments)?).await,
                    Kind::Read | Kind::Grep | Kind::Glob | Kind::Bash => {
                        seen.read(files, input(arguments)?).await
                    }
                };
                if output.is_ok() {
                    cell.see(seen);
                }
                output
            }
            Kind::Grep => tools::grep(files, input(arguments)?).await,
            Kind::Glob => tools::glob(files, input(arguments)?).await,
            Kind::Bash => return bash(files, context, arguments).await,
        };
        output.map(convert).map_err(failure)
    }
}

async fn bash(
    files: &Overlay,
    context: &ToolContext,
    arguments: Value,
) -> Result<ToolOutput, ToolError> {
    let Some(cell) = &context.shell else {
        return Err(ToolError::new("there is no shell"));
    };
    let env = BTreeMap::new();
    let run = tools::bash(files, &cell.0.shell, cell.state(), input(arguments)?, &env);
    let run = run.await.map_err(failure)?;
    if run.state_changed {
        cell.set(run.state);
    }
    Ok(convert(run.output))
}

fn input<T: DeserializeOwned>(arguments: Value) -> Result<T, ToolError> {
    serde_json::from_value(arguments).map_err(|error| ToolError::new(error.to_string()))
}

fn convert(output: tools::ToolOutput) -> ToolOutput {
    ToolOutput {
        text: output.text,
        media: output.media,
        output: None,
    }
}

fn failure(failure: ToolFailure) -> ToolError {
    match failure {
        ToolFailure::Refused(text) => ToolError::Refused(text),
        ToolFailure::Store(error) => ToolError::Store(error),
    }
}
