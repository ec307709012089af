//! The program that runs actors of the kind `agent`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
};

use async_trait::async_trait;
use bowline_model::{ModelRef, Models, ResolvedModel, RetryPolicy, ToolSpec};
use bowline_runtime::{Bounds, Failure, Instance, Program, Sources, state::Proposed};
use bowline_sandbox::{
    host::{HostDir, HostError},
    tools::Files,
    workspace::{ChangeSet, Workspace, WorkspaceError, WriteOptions},
};
use bowline_store::{ActorId, BlobId, Seq, Store, StoreError};
use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    census::{Census, Tally},
    code::{CodeOptions, CodeTool, Engine, Registry, declared, direct::Place},
    context::{READ_TOOL, WORKING_DIRECTORY, budget},
    conversation::Conversation,
    definition::{Compaction, Definition, SandboxKind},
    instance::AgentInstance,
    live::Observers,
    render::{Agent, Rendered},
    tool::{
        Mounted, elided, framework,
        sandbox::{self, Ground, HostAccess},
        script::ScriptTool,
    },
};

/// The kind of an agent's actor.
pub const KIND: &str = "agent";
/// Space of what streams and is not complete: message id, block → text.
pub(crate) const DRAFT: &str = "draft";
/// Space of the shell's state.
pub(crate) const SHELL: &str = "shell";
/// Records read at once when a conversation is opened.
const PAGE: usize = 1_000;
/// How long a model rests after another one had to stand in for it.
const REST: std::time::Duration = std::time::Duration::from_secs(60);
/// Largest workspace that an agent's folder may start with, in bytes.
const MAX_SEED: u64 = 64 * 1024 * 1024;
/// Most that is read of the `AGENTS.md` of a host directory, in bytes.
const MAX_AGENTS_MD: usize = 1024 * 1024;

/// The actor of an agent's instance.
pub fn actor(agent: &str, instance: &str) -> ActorId {
    ActorId::new(KIND, agent, instance)
}

/// Runs agents.
#[derive(Clone)]
pub struct Agents(Arc<Shared>);

pub(crate) struct Shared {
    /// Held to look something up only, never across an await.
    agents: RwLock<Arc<BTreeMap<String, Agent>>>,
    pub(crate) models: Models,
    pub(crate) sources: Sources,
    pub(crate) observers: Observers,
    pub(crate) census: Census,
    pub(crate) retry: RetryPolicy,
    /// Tools by agent, as long as what they were made from stays the same.
    mounted: Mutex<BTreeMap<String, MountedTools>>,
    /// Models that were resolved, by name and folder: a script is read once.
    resolved: Mutex<BTreeMap<(String, PathBuf), ResolvedModel>>,
    /// When models failed that had another one stand in for them.
    tired: Mutex<HashMap<ModelRef, Instant>>,
    /// Where code is run.
    pub(crate) engine: Arc<Engine>,
    /// What host directories need.
    host: OnceLock<HostAccess>,
}

#[derive(Clone)]
struct MountedTools {
    made_from: Rendered,
    toolbox: Arc<Toolbox>,
}

/// The tools of an agent, and what follows from them.
pub(crate) struct Toolbox {
    pub(crate) tools: Arc<Vec<Mounted>>,
    /// Those that only code can call.
    own: Vec<Mounted>,
    /// As the model is told of them.
    pub(crate) specs: Arc<Vec<ToolSpec>>,
    /// What identifies each.
    pub(crate) digests: BTreeMap<String, String>,
    /// What they take of the window, in tokens.
    pub(crate) tokens: u64,
    /// Whether the model can read what was shortened.
    pub(crate) readable: bool,
    /// What code may call, when the model runs code.
    pub(crate) code: Option<Arc<Registry>>,
    /// What durable tools in TypeScript may call.
    pub(crate) scripts: Option<Arc<Registry>>,
}

impl Toolbox {
    /// The arguments of a tool, or of a method that code calls, as they are taken; or why they are not.
    pub(crate) fn validate(&self, name: &str, arguments: &Value) -> Result<Value, String> {
        let tool = self
            .tools
            .iter()
            .chain(&self.own)
            .find(|tool| tool.name() == name);
        tool.map_or_else(|| Ok(arguments.clone()), |tool| tool.validate(arguments))
    }

    fn new(tools: Vec<Mounted>, code: Option<(Vec<Mounted>, Arc<Registry>)>) -> Self {
        let (own, code) = code.unzip();
        let specs: Vec<ToolSpec> = tools.iter().map(|one| one.tool.spec().clone()).collect();
        let digest = |spec: &ToolSpec| {
            let text = serde_json::to_vec(spec).unwrap_or_default();
            (
                spec.name.clone(),
                BlobId::of(&text).to_string()[..16].to_owned(),
            )
        };
        Self {
            digests: specs.iter().map(digest).collect(),
            tokens: budget::fixed("", &specs),
            readable: specs.iter().any(|spec| spec.name == READ_TOOL),
            specs: Arc::new(specs),
            tools: Arc::new(tools),
            own: own.unwrap_or_default(),
            code,
            scripts: None,
        }
    }
}

impl fmt::Debug for Agents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agents")
            .field("agents", &self.0.agents().keys())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Agents {
    /// The program of these agents.
    pub fn new(agents: impl IntoIterator<Item = Agent>, models: Models, sources: Sources) -> Self {
        Self::with_code(agents, models, sources, CodeOptions::default())
    }

    /// The same with the isolates that code is run in.
    pub fn with_code(
        agents: impl IntoIterator<Item = Agent>,
        models: Models,
        sources: Sources,
        code: CodeOptions,
    ) -> Self {
        Self(Arc::new(Shared {
            agents: RwLock::new(Arc::new(by_name(agents))),
            models,
            sources,
            observers: Observers::default(),
            census: Census::default(),
            retry: RetryPolicy::default(),
            mounted: Mutex::default(),
            resolved: Mutex::default(),
            tired: Mutex::default(),
            engine: Arc::new(Engine::new(code)),
            host: OnceLock::new(),
        }))
    }

    /// Says what agents with `sandbox: {local: …}` need. Only the first call counts; without one such an
    /// agent cannot run.
    #[must_use]
    pub fn with_host(self, access: HostAccess) -> Self {
        let _ = self.0.host.set(access);
        self
    }

    /// Who follows conversations in this process.
    pub fn observers(&self) -> &Observers {
        &self.0.observers
    }

    /// What each agent came to since this was made; agents that did nothing are left out.
    pub fn tallies(&self) -> BTreeMap<String, Tally> {
        self.0.census.tallies()
    }

    /// The names of the agents, in order.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let agents = self.0.agents();
        agents.keys().cloned().collect::<Vec<_>>().into_iter()
    }

    /// Puts an agent in the place of the one of its name, or adds it. A model call that is under way, and
    /// what it asks for, goes on with the agent that it began with; the next one is made with this one.
    /// Its models are resolved anew, so that a script is read again.
    pub fn put(&self, agent: Agent) {
        let name = agent.name().to_string();
        let dir = agent.rendered().definition.dir;
        let dir = dir.as_deref().unwrap_or(Path::new("."));
        let mut agents = self
            .0
            .agents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut agents).insert(name.clone(), agent);
        let mut resolved = self
            .0
            .resolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        resolved.retain(|(_, base), _| base != dir);
        let mut mounted = self
            .0
            .mounted
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        mounted.remove(&name);
    }

    /// Takes an agent away; its conversations stay, and fail at their next model call. `false` when there
    /// was none.
    pub fn remove(&self, name: &str) -> bool {
        let mut agents = self
            .0
            .agents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::make_mut(&mut agents).remove(name).is_some()
    }

    /// What an agent is at this moment; `None` when there is none of this name.
    pub fn definition(&self, agent: &str) -> Option<Definition> {
        let agents = self.0.agents();
        let found = agents.get(agent)?;
        Some(found.rendered().definition)
    }

    /// Checks that an agent can run: its model is known and has a key, its tools can be mounted.
    ///
    /// # Errors
    ///
    /// What a submission to it would fail with.
    pub fn check(&self, agent: &str) -> Result<(), Failure> {
        let rendered = self.0.rendered(agent)?;
        self.0.chain(&rendered)?;
        if let Compaction::On(settings) = &rendered.definition.compaction
            && let Some(model) = &settings.model
        {
            self.0.resolve_name(&rendered, model)?;
        }
        self.0.tools(&rendered)?;
        Ok(())
    }
}

fn by_name(agents: impl IntoIterator<Item = Agent>) -> BTreeMap<String, Agent> {
    let named = |agent: Agent| (agent.name().to_string(), agent);
    agents.into_iter().map(named).collect()
}

impl Shared {
    /// The agents as they are now.
    fn agents(&self) -> Arc<BTreeMap<String, Agent>> {
        let agents = self.agents.read().unwrap_or_else(PoisonError::into_inner);
        agents.clone()
    }

    pub(crate) fn rendered(&self, agent: &str) -> Result<Rendered, Failure> {
        let agents = self.agents();
        let found = agents.get(agent).ok_or_else(|| {
            let known = agents.keys().cloned().collect::<Vec<_>>().join(", ");
            Failure::new(
                "agent_not_found",
                format!("there is no agent {agent}"),
                format!("the agents are: {known}"),
            )
        })?;
        Ok(found.rendered())
    }

    /// The agent's own model.
    pub(crate) fn resolve(&self, rendered: &Rendered) -> Result<ResolvedModel, Failure> {
        self.resolve_name(rendered, &rendered.definition.model)
    }

    /// The agent's model and those that it falls back to, in order; at least one.
    pub(crate) fn chain(&self, rendered: &Rendered) -> Result<Vec<ResolvedModel>, Failure> {
        let mut chain = vec![self.resolve(rendered)?];
        for name in &rendered.definition.fallback {
            chain.push(self.resolve_name(rendered, name)?);
        }
        Ok(chain)
    }

    /// The first model of the chain from `at` on that did not fail just now; the last one, if all did.
    pub(crate) fn rested(&self, chain: &[ResolvedModel], at: usize) -> usize {
        let tired = self.tired.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let last = chain.len() - 1;
        let rested = |model: &ResolvedModel| {
            let since = tired.get(&model.reference);
            since.is_none_or(|since| now.duration_since(*since) >= REST)
        };
        let from = at.min(last);
        (from..last).find(|at| rested(&chain[*at])).unwrap_or(last)
    }

    /// Lets a model rest that another one had to stand in for.
    pub(crate) fn tire(&self, model: &ResolvedModel) {
        let mut tired = self.tired.lock().unwrap_or_else(PoisonError::into_inner);
        tired.insert(model.reference.clone(), Instant::now());
    }

    /// Another model of the same agent.
    pub(crate) fn resolve_name(
        &self,
        rendered: &Rendered,
        name: &str,
    ) -> Result<ResolvedModel, Failure> {
        let base = rendered.definition.dir.as_deref().unwrap_or(Path::new("."));
        let key = (name.to_owned(), base.to_path_buf());
        if let Some(known) = self
            .resolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(known.clone());
        }
        let resolved = self.models.resolve(name, base);
        let resolved = resolved
            .map_err(|error| Failure::new(error.code(), error.to_string(), error.hint()))?;
        self.resolved
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, resolved.clone());
        Ok(resolved)
    }

    /// The tools of an agent; compiled once for each change of the agent.
    pub(crate) fn tools(&self, rendered: &Rendered) -> Result<Arc<Vec<Mounted>>, Failure> {
        Ok(self.toolbox(rendered)?.tools.clone())
    }

    /// The same with what follows from them.
    pub(crate) fn toolbox(&self, rendered: &Rendered) -> Result<Arc<Toolbox>, Failure> {
        let name = rendered.definition.name.as_ref();
        {
            let mounted = self.mounted.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = mounted
                .get(name)
                .filter(|known| same(&known.made_from, rendered))
            {
                return Ok(known.toolbox.clone());
            }
        }
        let toolbox = Arc::new(toolbox(rendered, &self.engine, self.host.get())?);
        let entry = MountedTools {
            made_from: rendered.clone(),
            toolbox: toolbox.clone(),
        };
        self.mounted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), entry);
        Ok(toolbox)
    }
}

/// True when two renders have the same tools.
fn same(one: &Rendered, other: &Rendered) -> bool {
    let (a, b) = (&one.definition, &other.definition);
    a.sandbox == b.sandbox
        && a.skills == b.skills
        && a.tools == b.tools
        && a.scripts == b.scripts
        && a.approvals == b.approvals
        && a.code == b.code
        && a.snippets == b.snippets
        && match (&one.outside, &other.outside) {
            (None, None) => true,
            (Some(left), Some(right)) => Arc::ptr_eq(left, right),
            (None, Some(_)) | (Some(_), None) => false,
        }
        && one.tools.len() == other.tools.len()
        && one.tools.iter().zip(&other.tools).all(|(left, right)| {
            Arc::ptr_eq(left, right)
                || (left.spec() == right.spec() && left.effect() == right.effect())
        })
        && one.bindings.len() == other.bindings.len()
        && one
            .bindings
            .iter()
            .zip(&other.bindings)
            .all(|(left, right)| {
                Arc::ptr_eq(left, right)
                    || (left.name() == right.name() && left.methods() == right.methods())
            })
}

/// Everything that the code of an agent sees, as TypeScript declarations: in code mode what the model's
/// code sees, else what its tools in TypeScript see. `host` is for agents in a directory of the machine.
///
/// # Errors
///
/// What a submission to it would fail with, as far as its tools are concerned.
pub fn declarations(agent: &Agent, host: &HostAccess) -> Result<String, Failure> {
    let rendered = agent.rendered();
    let engine = Arc::new(Engine::new(CodeOptions::default()));
    let toolbox = toolbox(&rendered, &engine, Some(host))?;
    let codemode = toolbox.code.is_some();
    let registry = match toolbox.code {
        Some(registry) => registry,
        None => Arc::new(Registry::without_tools(&rendered)?),
    };
    let mut scripts = rendered.definition.scripts.iter();
    let step = scripts.any(|script| script.policy.durable);
    Ok(declared::all(&registry, codemode, step))
}

/// What the model gets: the list of tools, or the one that runs code.
fn toolbox(
    rendered: &Rendered,
    engine: &Arc<Engine>,
    host: Option<&HostAccess>,
) -> Result<Toolbox, Failure> {
    let scripts = match rendered.definition.scripts.as_slice() {
        [] => None,
        _ => Some(Arc::new(Registry::without_tools(rendered)?)),
    };
    let own = mount(rendered, engine, scripts.as_deref(), host)?;
    let registry = match rendered.definition.code {
        None => None,
        Some(_) => Some(Arc::new(Registry::of(rendered, &own)?)),
    };
    let has = |name: &str| {
        own.iter().any(|tool| tool.name() == name)
            || [&registry, &scripts]
                .into_iter()
                .flatten()
                .any(|registry| registry.has(name))
    };
    let named = rendered.definition.tools.iter();
    for name in named.chain(rendered.definition.approvals.keys()) {
        if !has(name) {
            return Err(Failure::new(
                "tool_not_found",
                format!(
                    "agent {} names a tool {name} that nobody brings",
                    rendered.definition.name
                ),
                "remove it from tools or approvals, or add it to the program that serves the agent",
            ));
        }
    }
    let Some(registry) = registry else {
        return Ok(Toolbox {
            scripts,
            ..Toolbox::new(own, None)
        });
    };
    let tool = Mounted::new(Arc::new(CodeTool::new(&registry)))
        .map_err(|error| Failure::new(error.code(), error.to_string(), error.hint()))?;
    Ok(Toolbox::new(vec![tool], Some((own, registry))))
}

fn mount(
    rendered: &Rendered,
    engine: &Arc<Engine>,
    scripts: Option<&Registry>,
    host: Option<&HostAccess>,
) -> Result<Vec<Mounted>, Failure> {
    let failure = |error: crate::tool::schema::SchemaError| {
        Failure::new(error.code(), error.to_string(), error.hint())
    };
    let definition = &rendered.definition;
    let mut tools = Vec::new();
    let ground = match &definition.sandbox {
        SandboxKind::None => None,
        SandboxKind::Workspace => Some(Ground::Workspace(rendered.outside.clone())),
        SandboxKind::Local(local) => Some(Ground::host(local, host).map_err(host_failure)?),
    };
    if let Some(ground) = ground {
        for tool in sandbox::all(&ground).map_err(failure)? {
            tools.push(Mounted::new(tool).map_err(failure)?);
        }
    }
    if !definition.skills.is_empty() {
        let skills = definition.skills.clone();
        tools.push(
            Mounted::new(Arc::new(framework::ActivateSkill::new(skills.clone())))
                .map_err(failure)?,
        );
        if skills.iter().any(|skill| !skill.files.is_empty()) {
            tools.push(
                Mounted::new(Arc::new(framework::ReadSkillResource::new(skills)))
                    .map_err(failure)?,
            );
        }
    }
    for tool in &rendered.tools {
        tools.push(Mounted::new(tool.clone()).map_err(failure)?);
    }
    if let Some(registry) = scripts {
        let place = Arc::new(Place::new(definition, engine, registry));
        for script in &definition.scripts {
            let tool = ScriptTool::new(script, &place);
            tools.push(Mounted::new(Arc::new(tool)).map_err(failure)?);
        }
    }
    let asks = definition
        .tools
        .iter()
        .any(|name| name == framework::ASK_QUESTION);
    if asks
        && !tools
            .iter()
            .any(|tool| tool.name() == framework::ASK_QUESTION)
    {
        tools.push(Mounted::new(Arc::new(framework::AskQuestion::new())).map_err(failure)?);
    }
    if !tools.is_empty() {
        tools.push(Mounted::new(Arc::new(elided::ReadElided::new())).map_err(failure)?);
    }
    for (index, tool) in tools.iter().enumerate() {
        if tools
            .iter()
            .take(index)
            .any(|other| other.name() == tool.name())
        {
            return Err(Failure::new(
                "tool_name_conflict",
                format!("two tools are named {}", tool.name()),
                "give one of them another name",
            ));
        }
    }
    Ok(tools)
}

#[async_trait]
impl Program for Agents {
    async fn open(
        &self,
        actor: &ActorId,
        store: &Arc<dyn Store>,
    ) -> Result<Box<dyn Instance>, Failure> {
        let rendered = self.0.rendered(actor.name())?;
        let conversation = load(&**store, actor)
            .await
            .map_err(|error| store_failure(&error))?;
        let limits = rendered.definition.workspace;
        let workspace = Workspace::with_limits(store.clone(), actor.clone(), limits);
        let mut seed = None;
        if conversation.id.is_empty() && rendered.definition.sandbox == SandboxKind::Workspace {
            let changes = seed_workspace(&workspace, &rendered, self.0.sources.now()).await;
            seed = Some(changes.map_err(|error| workspace_failure(&error))?);
        }
        let told = if conversation.id.is_empty() {
            let read = self.0.agents_md(&rendered).await;
            read.map_err(|error| workspace_failure(&error))?
        } else {
            None
        };
        let instance = AgentInstance::open(
            self.0.clone(),
            actor.clone(),
            store.clone(),
            conversation,
            workspace,
            seed,
            told,
        );
        let instance = instance.await.map_err(|error| store_failure(&error))?;
        Ok(Box::new(instance))
    }

    fn validate_state(&self, actor: &ActorId, change: &Proposed<'_>) -> Result<(), Failure> {
        let agents = self.0.agents();
        let Some(agent) = agents.get(actor.name()) else {
            return Ok(());
        };
        agent.may_be_state(change.next).map_err(|why| {
            let hint = "set a state that the agent takes";
            Failure::new("state_invalid", why, hint)
        })
    }

    fn bounds(&self, actor: &ActorId) -> Bounds {
        let Ok(rendered) = self.0.rendered(actor.name()) else {
            return Bounds::default();
        };
        rendered.definition.limits.bounds()
    }
}

/// Reads a conversation from its records.
pub async fn load(store: &dyn Store, actor: &ActorId) -> Result<Conversation, StoreError> {
    load_after(store, actor, 0).await
}

/// Reads what a conversation did after a record, without what came before.
pub async fn load_after(
    store: &dyn Store,
    actor: &ActorId,
    after: Seq,
) -> Result<Conversation, StoreError> {
    let mut conversation = Conversation::after(after);
    loop {
        let records = store.read(actor, conversation.seq, PAGE).await?;
        conversation.apply(&records)?;
        if records.len() < PAGE {
            return Ok(conversation);
        }
    }
}

pub(crate) fn store_failure(error: &StoreError) -> Failure {
    Failure::new(error.code(), error.to_string(), "")
}

pub(crate) fn workspace_failure(error: &WorkspaceError) -> Failure {
    Failure::new(error.code(), error.to_string(), error.hint())
}

pub(crate) fn host_failure(error: HostError) -> Failure {
    Failure::new(error.code(), error.to_string(), error.hint())
}

impl Shared {
    /// The `AGENTS.md` that the agent's files have now.
    pub(crate) async fn agents_md(
        &self,
        rendered: &Rendered,
    ) -> Result<Option<String>, WorkspaceError> {
        match &rendered.definition.sandbox {
            SandboxKind::None | SandboxKind::Workspace => seeded_agents_md(rendered).await,
            SandboxKind::Local(local) => {
                let keep_out = self.host.get().map(|host| host.keep_out.clone());
                // What is wrong with the directory is told by its tools.
                let Ok(dir) = HostDir::open(&local.dir, &keep_out.unwrap_or_default()) else {
                    return Ok(None);
                };
                let read = Files::read_range(&dir, "AGENTS.md", 0, MAX_AGENTS_MD).await;
                Ok(read
                    .ok()
                    .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            }
        }
    }
}

async fn seeded_agents_md(rendered: &Rendered) -> Result<Option<String>, WorkspaceError> {
    let Some(dir) = rendered.definition.workspace_seed.clone() else {
        return Ok(None);
    };
    let read = move || match std::fs::read(dir.join("AGENTS.md")) {
        Ok(bytes) if bytes.len() as u64 <= MAX_SEED => {
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Ok(_) | Err(_) => None,
    };
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| WorkspaceError::Invalid(error.to_string()))
}

/// What a workspace starts with: the agent's own files, and the directories that are always there.
pub(crate) struct Seed {
    pub(crate) changes: ChangeSet,
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seed").finish_non_exhaustive()
    }
}

async fn seed_workspace(
    workspace: &Workspace,
    rendered: &Rendered,
    now: bowline_store::Timestamp,
) -> Result<Seed, WorkspaceError> {
    let files = match rendered.definition.workspace_seed.clone() {
        None => Vec::new(),
        Some(dir) => {
            let read = tokio::task::spawn_blocking(move || read_seed(&dir)).await;
            read.unwrap_or_else(|error| Err(error.to_string()))
                .map_err(WorkspaceError::Invalid)?
        }
    };
    let overlay = workspace.begin(now).await?;
    overlay.mkdir(WORKING_DIRECTORY, true).await?;
    for (path, bytes, executable) in files {
        let path = format!("{WORKING_DIRECTORY}/{path}");
        overlay
            .write(&path, bytes, &WriteOptions::with_parents())
            .await?;
        if executable {
            overlay.chmod(&path, 0o755).await?;
        }
    }
    let mut changes = overlay.changes()?;
    changes.sign("the agent's workspace folder")?;
    Ok(Seed { changes })
}

/// The files of a folder, in order, with their paths below it. Links are not followed.
fn read_seed(dir: &Path) -> Result<Vec<(String, Bytes, bool)>, String> {
    let cannot =
        |path: &Path, error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let mut files = Vec::new();
    let mut total = 0;
    let mut folders = vec![dir.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| cannot(&folder, error))?;
        for entry in entries {
            let entry = entry.map_err(|error| cannot(&folder, error))?;
            let path = entry.path();
            let meta = entry.metadata().map_err(|error| cannot(&path, error))?;
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            if !meta.is_file() {
                return Err(format!(
                    "{} is neither a file nor a folder: remove it",
                    path.display()
                ));
            }
            total += meta.len();
            if total > MAX_SEED {
                return Err(format!("{} holds more than 64 MiB", dir.display()));
            }
            let relative = path.strip_prefix(dir).ok().and_then(Path::to_str);
            let relative = relative
                .ok_or_else(|| format!("{} has no UTF-8 name: rename it", path.display()))?
                .to_owned();
            let bytes = std::fs::read(&path).map_err(|error| cannot(&path, error))?;
            files.push((relative, Bytes::from(bytes), executable(&meta)));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(unix)]
fn executable(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    meta.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
fn executable(_meta: &std::fs::Metadata) -> bool {
    false
}
