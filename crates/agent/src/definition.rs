//! What an agent is: the directory and the Rust builder make the same value, a [`Definition`].
//!
//! - [`load`] reads `agents/<name>/`, [`list`] says which agents there are.
//! - [`Limits`], [`Approval`], [`SandboxKind`] with [`LocalSandbox`], [`Compaction`] are its parts.
//! - [`document`] reads settings strictly, with lines and closest names; `bowline.toml` is read
//!   with it as well.
//!
//! Everything that is wrong is a [`DefinitionError`]; a setting of a feature that is not built is
//! one too.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bowline_model::Thinking;
use bowline_sandbox::{egress::Allow, workspace::WorkspaceLimits};
use serde_json::Value;

/// What a run of code may use; see [`crate::code::default_limits`].
pub use bowline_sandbox::isolate::Limits as CodeLimits;

use crate::approval::Condition;
use crate::code::Snippet;
use crate::skill::Skill;
use crate::tool::script::Script;

mod code;
pub mod document;
mod error;
mod fault;
mod feature;
mod front_matter;
mod interpolate;
mod limits;
mod load;
mod name;

pub use code::CodeSettings;
pub use error::{DefinitionError, DefinitionErrorKind};
pub use fault::{Fault, FaultKind, closest};
pub use limits::{LimitSettings, Limits};
pub use load::{AgentSummary, allow_list, list, load};
pub use name::{AgentName, InvalidName, MAX_NAME};

pub(crate) use fault::quoted;
pub(crate) use front_matter::{FrontMatter, entries, read_text};
pub(crate) use name::{is_name, is_tool_name};

/// The most characters of an agent's description.
pub const MAX_DESCRIPTION: usize = 1_024;

/// What an agent knows and may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// Its name; with an instance id it is an address.
    pub name: AgentName,
    /// What it is for, in one line of at most 1,024 characters.
    pub description: Option<String>,
    /// `provider/model`, or a name from `[models]`.
    pub model: String,
    /// Models to use instead when that one fails, in order. Default none.
    pub fallback: Vec<String>,
    /// How much the model thinks. `None`: `medium` where the model can think.
    pub thinking: Option<Thinking>,
    /// What it works in. Default [`SandboxKind::Workspace`].
    pub sandbox: SandboxKind,
    /// The instructions, in Markdown.
    pub instructions: String,
    /// Its skills, by name.
    pub skills: Vec<Skill>,
    /// The names of tools that it is given besides those of its sandbox. Nobody has checked yet
    /// that there are such tools.
    pub tools: Vec<String>,
    /// The names of the project's bindings that its code may call.
    pub bindings: Vec<String>,
    /// What its shell and its code may reach on the network. Default nothing.
    pub egress: Allow,
    /// Whether the model gets one tool that runs code in place of the list of tools, and what a run may
    /// use then. Default: the list.
    pub code: Option<CodeLimits>,
    /// Its tools in TypeScript: its own, and those of the project that it lists.
    pub scripts: Vec<Arc<Script>>,
    /// What a call of one of them may use, but for its time, which it sets itself.
    pub script_limits: CodeLimits,
    /// Code that people promoted, for `codemode.run`, by name. Default none.
    pub snippets: Vec<Snippet>,
    /// What needs a person's consent, by tool or `binding.method`; what is not there does not.
    pub approvals: BTreeMap<String, Approval>,
    /// How long a request for consent, or a question, waits for an answer, by tool. Default 30 days.
    pub approvals_expire: BTreeMap<String, Duration>,
    /// What a submission may use at most.
    pub limits: Limits,
    /// What its workspace may grow to.
    pub workspace: WorkspaceLimits,
    /// Whether and how a long conversation is summarised. Default on.
    pub compaction: Compaction,
    /// The JSON Schema of the final answer. Default none.
    pub result: Option<Value>,
    /// The folder of files with which the workspace starts.
    pub workspace_seed: Option<PathBuf>,
    /// The agent's folder, when it has one: scripts of `scripted/FILE.yaml` are relative to it.
    pub dir: Option<PathBuf>,
}

impl Definition {
    /// An agent with instructions and a model, and the default of everything else.
    pub fn new(name: AgentName, model: impl Into<String>, instructions: impl Into<String>) -> Self {
        Self {
            name,
            description: None,
            model: model.into(),
            fallback: Vec::new(),
            thinking: None,
            sandbox: SandboxKind::Workspace,
            instructions: instructions.into(),
            skills: Vec::new(),
            tools: Vec::new(),
            bindings: Vec::new(),
            egress: Allow::default(),
            code: None,
            scripts: Vec::new(),
            script_limits: CodeLimits::default(),
            snippets: Vec::new(),
            approvals: BTreeMap::new(),
            approvals_expire: BTreeMap::new(),
            limits: Limits::default(),
            workspace: WorkspaceLimits::default(),
            compaction: Compaction::default(),
            result: None,
            workspace_seed: None,
            dir: None,
        }
    }
}

impl Definition {
    /// The durable tool in TypeScript of this name, which the loop runs itself. Code that the model writes
    /// calls it as it calls any other.
    pub(crate) fn durable(&self, name: &str) -> Option<&Arc<Script>> {
        let found = || {
            self.scripts
                .iter()
                .find(|one| one.spec.name == name && one.policy.durable)
        };
        self.code.is_none().then(found).flatten()
    }
}

/// What an agent works in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SandboxKind {
    /// Nothing: no files and no shell.
    None,
    /// The durable workspace of the instance, with a virtual shell.
    #[default]
    Workspace,
    /// A directory of the machine, with real processes.
    Local(LocalSandbox),
}

/// A directory of the machine that an agent works in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSandbox {
    /// The directory, absolute.
    pub dir: PathBuf,
    /// Other directories that its processes may read and run programs from. Default none.
    pub read: Vec<PathBuf>,
    /// Whether its processes may do all that the user may do who runs Bowline. Default false.
    pub unconfined: bool,
}

impl LocalSandbox {
    /// A directory whose processes are confined to it.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            read: Vec::new(),
            unconfined: false,
        }
    }
}

/// Whether a call waits for a person's consent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Approval {
    /// It never does.
    Never,
    /// It always does.
    Required,
    /// It does when this is true of the arguments.
    When(Condition),
}

/// Whether and how a long conversation is summarised to fit the model's window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compaction {
    /// Never: the submission fails when the window is full.
    Off,
    /// When the window is nearly full.
    On(CompactionSettings),
}

impl Default for Compaction {
    fn default() -> Self {
        Self::On(CompactionSettings::default())
    }
}

/// How a conversation is summarised. What is `None` is decided by the model's window.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactionSettings {
    /// Tokens of the window to keep free for the answer.
    pub reserve: Option<u64>,
    /// Tokens of the newest messages that are kept word for word.
    pub keep: Option<u64>,
    /// The model that writes the summary. `None`: the agent's own.
    pub model: Option<String>,
    /// What the summary should pay attention to.
    pub instructions: Option<String>,
}
