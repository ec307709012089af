//! The six tools of a sandbox: `read`, `write`, `edit`, `bash`, `grep`, `glob`.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use bowline_model::ToolSpec;
use bowline_sandbox::{
    egress::Outside,
    host::{HostDir, HostError, HostShell},
    shell::{Shell, ShellOptions, ShellState},
    tools::{self, Files, Seen, ToolFailure},
    workspace::Overlay,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Effect, OnCrash, Tool, ToolContext, ToolError, ToolOutput, schema};
use crate::definition::LocalSandbox;

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

/// What agents in a directory of the machine need.
#[derive(Debug, Clone, Default)]
pub struct HostAccess {
    /// A program that calls [`bowline_sandbox::host::helper`] first, such as the `bowline` binary.
    pub helper: PathBuf,
    /// Files and directories that an agent must not reach, such as where Bowline keeps its data: a
    /// directory that holds one of them, or lies in one, is refused unless it is unconfined.
    pub keep_out: Vec<PathBuf>,
}

/// What the tools work on.
#[derive(Clone)]
pub enum Ground {
    /// The workspace of the conversation, and the network of its shell: what `git` and `curl` may reach.
    Workspace(Option<Arc<dyn Outside>>),
    /// A directory of the machine.
    Host(Arc<Host>),
}

/// A directory of the machine and the shell in it.
pub struct Host {
    local: LocalSandbox,
    keep_out: Vec<PathBuf>,
    shell: HostShell,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workspace(_) => f.write_str("Workspace"),
            Self::Host(host) => host.fmt(f),
        }
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.local).finish()
    }
}

impl Ground {
    /// A directory of the machine, when it may be used and the machine can confine processes.
    ///
    /// # Errors
    ///
    /// [`HostError`].
    pub fn host(local: &LocalSandbox, access: Option<&HostAccess>) -> Result<Self, HostError> {
        let access = access.ok_or_else(|| {
            HostError::Helper("the program that serves the agent names none".to_owned())
        })?;
        let shell = if local.unconfined {
            HostShell::unconfined(&access.helper)
        } else {
            HostShell::confined(&access.helper)?
        };
        let host = Host {
            local: local.clone(),
            keep_out: if local.unconfined {
                Vec::new()
            } else {
                access.keep_out.clone()
            },
            shell: shell.read(local.read.clone()),
        };
        host.open()?;
        Ok(Self::Host(Arc::new(host)))
    }
}

impl Host {
    /// Anew for each call: the directory may have been replaced meanwhile.
    fn open(&self) -> Result<HostDir, HostError> {
        HostDir::open(&self.local.dir, &self.keep_out)
    }

    fn bash_description(&self) -> String {
        let dir = self.local.dir.display();
        if self.local.unconfined {
            format!(
                "Run a bash command in {dir}. Each command starts there in a new shell, and all its processes end with it."
            )
        } else {
            format!(
                "Run a bash command in {dir}. Each command starts there in a new shell, and all its processes end with it. Only files below that directory and in $TMPDIR can be written. There is no network."
            )
        }
    }
}

struct SandboxTool {
    kind: Kind,
    spec: ToolSpec,
    ground: Ground,
}

/// The six tools. A workspace's shell may have a network: each command is then one outside effect, whose
/// outcome is unknown after a crash, because nobody knows what it sent.
///
/// # Errors
///
/// Never for the tools as they are; the schemas are checked all the same.
pub fn all(ground: &Ground) -> Result<Vec<Arc<dyn Tool>>, schema::SchemaError> {
    let tool = |kind, name: &str, description: &str, parameters| {
        let spec = ToolSpec {
            name: name.to_owned(),
            description: description.to_owned(),
            parameters,
        };
        let ground = ground.clone();
        Arc::new(SandboxTool { kind, spec, ground }) as Arc<dyn Tool>
    };
    let bash = match ground {
        Ground::Workspace(None) => "Run a bash command in the workspace. Directory, variables and functions last from one command to the next. There is no network, and no other program than the usual text tools and git.".to_owned(),
        Ground::Workspace(Some(_)) => "Run a bash command in the workspace. Directory, variables and functions last from one command to the next. curl and git reach the hosts that are allowed; there is no other program than the usual text tools.".to_owned(),
        Ground::Host(host) => host.bash_description(),
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
        tool(Kind::Bash, "bash", &bash, schema::of::<tools::BashInput>()?),
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

    /// What is written to a workspace is committed with its result, so a call that was cut did not happen.
    /// What is written to a directory of the machine is written. To write a file again does no harm.
    fn effect(&self) -> Effect {
        match (&self.ground, self.kind) {
            (Ground::Workspace(Some(_)), Kind::Bash) => Effect::Outside(OnCrash::Unknown),
            (Ground::Workspace(_), _) | (Ground::Host(_), Kind::Read | Kind::Grep | Kind::Glob) => {
                Effect::None
            }
            (Ground::Host(_), Kind::Write) => Effect::Outside(OnCrash::Retry),
            (Ground::Host(_), Kind::Edit | Kind::Bash) => Effect::Outside(OnCrash::Unknown),
        }
    }

    /// A model that writes a file and runs it in one answer means it in that order.
    fn ordered(&self) -> bool {
        match &self.ground {
            Ground::Workspace(_) => false,
            Ground::Host(_) => true,
        }
    }

    fn in_workspace(&self) -> bool {
        match &self.ground {
            Ground::Workspace(_) => true,
            Ground::Host(_) => false,
        }
    }

    async fn call(&self, context: &ToolContext, arguments: Value) -> Result<ToolOutput, ToolError> {
        match &self.ground {
            Ground::Workspace(outside) => {
                let Some(files) = &context.files else {
                    return Err(ToolError::new("there is no workspace"));
                };
                match self.kind {
                    Kind::Bash => bash(files, context, arguments, outside.clone()).await,
                    Kind::Read | Kind::Write | Kind::Edit | Kind::Grep | Kind::Glob => {
                        self.on(files, context, arguments).await
                    }
                }
            }
            Ground::Host(host) => {
                let dir = host.open();
                let dir = dir.map_err(|error| ToolError::new(error.to_string()))?;
                match self.kind {
                    Kind::Bash => {
                        let (shell, env) = (&host.shell, BTreeMap::new());
                        let run = tools::host_bash(&dir, shell, input(arguments)?, &env).await;
                        run.map(convert).map_err(failure)
                    }
                    Kind::Read | Kind::Write | Kind::Edit | Kind::Grep | Kind::Glob => {
                        self.on(&dir, context, arguments).await
                    }
                }
            }
        }
    }
}

impl SandboxTool {
    /// All but `bash`, which differs with the ground.
    async fn on(
        &self,
        files: &impl Files,
        context: &ToolContext,
        arguments: Value,
    ) -> Result<ToolOutput, ToolError> {
        let output = match self.kind {
            Kind::Grep => tools::grep(files, input(arguments)?).await,
            Kind::Glob => tools::glob(files, input(arguments)?).await,
            Kind::Read | Kind::Write | Kind::Edit | Kind::Bash => {
                let Some(cell) = &context.shell else {
                    return Err(ToolError::new("there is no workspace"));
                };
                // Calls that see files run one after the other, so nobody else does meanwhile.
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
        };
        output.map(convert).map_err(failure)
    }
}

async fn bash(
    files: &Overlay,
    context: &ToolContext,
    arguments: Value,
    outside: Option<Arc<dyn Outside>>,
) -> Result<ToolOutput, ToolError> {
    let Some(cell) = &context.shell else {
        return Err(ToolError::new("there is no shell"));
    };
    let options = ShellOptions {
        outside,
        ..ShellOptions::default()
    };
    let arguments = input(arguments)?;
    let run = tools::bash(files, &cell.0.shell, cell.state(), arguments, options);
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
