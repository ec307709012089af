//! Code mode: the model writes code that calls what the agent may do, and one tool runs it.
//!
//! Code runs in an isolate that sees only its [bindings](crate::binding): the agent's own tools as
//! `tools.*`, what else the agent has, and `codemode`, with which it finds out what there is.
//! `turn::code` drives it; what is here knows nothing of conversations.
//!
//! - [`CodeOptions`], `Engine`: the isolates of a process, and room to run them.
//! - `direct`: a program that runs without being written down.
//! - `registry`: what a run may call; `own`: the agent's tools as a binding.
//! - `discover`: `codemode.search` and `codemode.describe`; `snippet`: code that people promoted.
//! - [`images`]: the engines that saved programs need.
//! - [`journal`]: what a run leaves in the store; `outcome`: what the model reads of it; [`runs`]: what
//!   others see of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bowline_model::ToolSpec;
use bowline_runtime::Failure;
use bowline_sandbox::isolate::{IsolateError, Isolates, IsolatesOptions, Limits};
use bowline_store::{Store, StoreError, Timestamp};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, Semaphore};

use crate::tool::{Effect, Tool, ToolContext, ToolError, ToolOutput};

pub(crate) mod declared;
pub(crate) mod direct;
mod discover;
pub mod images;
pub mod journal;
pub(crate) mod outcome;
pub(crate) mod own;
pub(crate) mod registry;
pub mod runs;
pub mod snippet;

pub(crate) use discover::Discovery;
pub(crate) use registry::Registry;
pub use snippet::Snippet;

/// The name of the tool that runs code.
pub const TOOL: &str = "code";
/// The namespace of what code finds out by itself.
pub const CODEMODE: &str = "codemode";
/// The namespace of the agent's own tools.
pub const TOOLS: &str = "tools";
/// What one run may take, waiting for calls included and parking not, unless the agent says otherwise.
pub const WALL: Duration = Duration::from_secs(300);

/// What a run may use unless the agent says otherwise: the defaults of [`Limits`], and [`WALL`].
pub fn default_limits() -> Limits {
    Limits {
        wall: WALL,
        ..Limits::default()
    }
}

/// The isolates of a process.
#[derive(Debug, Clone)]
pub struct CodeOptions {
    /// An engine that is shared with others; without one, [`CodeOptions::isolates`] make it when code is
    /// run first.
    pub engine: Option<Isolates>,
    /// How the engine is made.
    pub isolates: IsolatesOptions,
    /// Programs that have the CPU at the same time, at least 1; others wait their turn between two
    /// calls. Default: four for each core, at least 16.
    pub at_once: usize,
}

impl Default for CodeOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            engine: None,
            isolates: IsolatesOptions::default(),
            at_once: (cores * 4).max(16),
        }
    }
}

/// The engine of a process, started when it is needed first.
#[derive(Debug)]
pub(crate) struct Engine {
    options: CodeOptions,
    isolates: OnceCell<Isolates>,
    /// The same engine with images of earlier versions, by their hash.
    earlier: Mutex<HashMap<String, Isolates>>,
    /// The image is in the store.
    kept: AtomicBool,
    /// Who may run now.
    pub(crate) turns: Arc<Semaphore>,
}

impl Engine {
    pub(crate) fn new(options: CodeOptions) -> Self {
        let turns = Arc::new(Semaphore::new(options.at_once.max(1)));
        Self {
            options,
            isolates: OnceCell::new(),
            earlier: Mutex::default(),
            kept: AtomicBool::new(false),
            turns,
        }
    }

    /// The isolates.
    pub(crate) async fn isolates(&self) -> Result<Isolates, IsolateError> {
        let open = || async {
            if let Some(engine) = &self.options.engine {
                return Ok(engine.clone());
            }
            let options = self.options.isolates.clone();
            let opened = tokio::task::spawn_blocking(move || Isolates::open(&options)).await;
            opened.unwrap_or_else(|error| Err(IsolateError::Engine(error.to_string())))
        };
        self.isolates.get_or_try_init(open).await.cloned()
    }

    /// The isolates with the image of this hash: nothing where neither this version nor the store has it.
    pub(crate) async fn with_image(
        &self,
        hash: &str,
        store: &dyn Store,
    ) -> Result<Result<Isolates, IsolateError>, StoreError> {
        let isolates = match self.isolates().await {
            Ok(isolates) if isolates.image() != hash => isolates,
            same => return Ok(same),
        };
        if let Some(known) = self.earlier().get(hash) {
            return Ok(Ok(known.clone()));
        }
        let Some(bytes) = images::find(store, hash).await? else {
            return Ok(Err(IsolateError::SavedImage));
        };
        let name = hash.to_owned();
        let open = move || isolates.with_image(&bytes, &name);
        let opened = tokio::task::spawn_blocking(open).await;
        let opened = opened.unwrap_or_else(|error| Err(IsolateError::Engine(error.to_string())));
        if let Ok(isolates) = &opened {
            self.earlier().insert(hash.to_owned(), isolates.clone());
        }
        Ok(opened)
    }

    fn earlier(&self) -> MutexGuard<'_, HashMap<String, Isolates>> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that a run which is about to be written down can go on in another version.
    pub(crate) async fn keep_image(&self, isolates: &Isolates, store: &dyn Store, now: Timestamp) {
        if self.kept.load(Ordering::Acquire) {
            return;
        }
        let kept = images::keep(store, isolates.image(), isolates.image_bytes(), now).await;
        self.kept.store(kept, Ordering::Release);
    }
}

/// Why a run cannot go on where it stood. The model reads it as the outcome of its call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// The code did something else than what the journal says it did.
    #[error(
        "the code cannot go on where it was cut: it now calls {now} where it had called {before}; run it again, what it did outside stays done"
    )]
    Diverged {
        /// What it called before.
        before: String,
        /// What it calls now.
        now: String,
    },
    /// What was done outside cannot be undone.
    #[error("{path} cannot be undone: {why}; undo it by hand")]
    NotUndone {
        /// What was called.
        path: String,
        /// Why.
        why: String,
    },
    /// A binding of the agent cannot be bound.
    #[error("{0}")]
    Binding(String),
}

impl CodeError {
    /// The stable type that users see; each has a page in `docs/errors`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Diverged { .. } => "code_diverged",
            Self::NotUndone { .. } => "code_not_undone",
            Self::Binding(_) => "code_binding",
        }
    }
}

impl From<CodeError> for Failure {
    fn from(error: CodeError) -> Self {
        Self::new(error.code(), error.to_string(), "")
    }
}

/// The tool, as the model sees it. The loop runs it itself.
pub(crate) struct CodeTool {
    spec: ToolSpec,
}

impl CodeTool {
    pub(crate) fn new(registry: &Registry) -> Self {
        let parameters = json!({
            "type": "object",
            "properties": {
                "code": {"type": "string", "minLength": 1, "description": "JavaScript or TypeScript: an async arrow function, a module, or statements. What it returns is the result."},
            },
            "required": ["code"],
        });
        Self {
            spec: ToolSpec {
                name: TOOL.to_owned(),
                description: discover::instructions(registry),
                parameters,
            },
        }
    }
}

#[async_trait]
impl Tool for CodeTool {
    fn spec(&self) -> &ToolSpec {
        &self.spec
    }

    fn effect(&self) -> Effect {
        Effect::None
    }

    async fn call(&self, _: &ToolContext, _: Value) -> Result<ToolOutput, ToolError> {
        Err(ToolError::new("Code is run by the loop only."))
    }
}
