//! Reading `agents/<name>/`.

use std::collections::BTreeMap;
use std::fs::{self, FileType};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bowline_model::Thinking;
use serde_json::Value;

use bowline_sandbox::{egress::Allow, workspace::WorkspaceLimits};

use super::code::CodeSettings;
use super::document::{Node, Table};
use super::error::{DefinitionError, DefinitionErrorKind};
use super::fault::{Fault, FaultKind, closest, quoted};
use super::feature::Feature;
use super::front_matter::{FrontMatter, entries, read_text};
use super::limits::{LimitSettings, Limits};
use super::name::{AgentName, InvalidName, is_tool_name};
use super::{
    Approval, CodeLimits, Compaction, CompactionSettings, Definition, LocalSandbox,
    MAX_DESCRIPTION, SandboxKind,
};
use crate::approval::Condition;
use crate::code::snippet::{self, Snippet};
use crate::skill::{self, Skill};
use crate::tool::script::{self, Script};
use crate::tool::validate::Validator;
use crate::turn::result::value_schema;

const KEYS: [&str; 15] = [
    "description",
    "model",
    "fallback",
    "thinking",
    "sandbox",
    "skills",
    "tools",
    "subagents",
    "bindings",
    "code",
    "approvals",
    "egress",
    "limits",
    "compaction",
    "result",
];

const FOLDERS: [(&str, Option<Feature>); 8] = [
    ("skills", None),
    ("snippets", None),
    ("workspace", None),
    ("tools", None),
    ("lib", None),
    ("subagents", Some(Feature::SubagentsFolder)),
    ("workflows", Some(Feature::WorkflowsFolder)),
    ("schedules", Some(Feature::SchedulesFolder)),
];

/// Reads the agent `name` of the project at `project`.
///
/// `env` gives the variables for `${VAR}`; `shared` are the limits of the project, which hold
/// where the agent sets none of its own. The model is not looked up here.
///
/// # Errors
///
/// [`DefinitionError`], with the file, the line and what to do next. Nothing is written.
pub fn load(
    project: &Path,
    name: &str,
    env: &dyn Fn(&str) -> Option<String>,
    shared: &LimitSettings,
) -> Result<Definition, DefinitionError> {
    let dir = find(project, name)?;
    let agent = AgentName::new(name).map_err(|error| invalid_name(name, error))?;
    let file = dir.join("agent.md");
    let at = |fault: Fault| DefinitionError::of_agent(fault, &file);

    let FrontMatter { mut settings, body } = FrontMatter::parse(&read_text(&file)?).map_err(at)?;
    let keys = settings.table("", &KEYS).map_err(at)?;
    supported(&keys).map_err(at)?;
    let folders = folders(&dir)?;
    settings.interpolate(env).map_err(at)?;

    let keys = settings.entries("").map_err(at)?;
    let sandbox = sandbox(&keys, project).map_err(at)?;
    let workspace_seed = seed(&dir, &folders, &sandbox)?;
    let mut definition = Definition::new(agent, model(&keys).map_err(at)?, body);
    definition.description = description(&keys).map_err(at)?;
    definition.thinking = thinking(&keys).map_err(at)?;
    definition.sandbox = sandbox;
    definition.skills = skills(project, &dir, &keys, &file)?;
    definition.tools = tools(&keys).map_err(at)?;
    definition.bindings = lines(&keys, "bindings").map_err(at)?;
    definition.egress = egress(&keys).map_err(at)?;
    definition.code = code_mode(&keys, &shared.code).map_err(at)?;
    definition.script_limits = shared.code.apply(CodeLimits::default());
    definition.scripts = scripts(project, &mut definition)?;
    definition.snippets = snippets(&dir, &folders)?;
    definition.fallback = lines(&keys, "fallback").map_err(at)?;
    (definition.approvals, definition.approvals_expire) = approvals(&keys).map_err(at)?;
    consent_of_scripts(&mut definition);
    (definition.limits, definition.workspace) = limits(&keys, shared).map_err(at)?;
    definition.compaction = compaction(&keys).map_err(at)?;
    definition.result = result(&keys).map_err(at)?;
    definition.workspace_seed = workspace_seed;
    definition.dir = Some(dir);
    Ok(definition)
}

/// One agent of a project, as far as it can be said without the environment.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentSummary {
    /// The name of its folder.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// Its model as it is written, variables not replaced.
    pub model: Option<String>,
    /// Why it cannot be used, when that is seen already. Only [`load`] sees everything.
    pub problem: Option<DefinitionError>,
}

/// The agents of a project, by name; none when there is no folder `agents`. An agent with a
/// mistake is in the list, with its problem.
///
/// # Errors
///
/// [`DefinitionErrorKind::Unreadable`] when the folder cannot be read.
pub fn list(project: &Path) -> Result<Vec<AgentSummary>, DefinitionError> {
    let folder = project.join("agents");
    if !is_folder(project) {
        return Err(not_a_folder(project));
    }
    Ok(names(&folder)?
        .into_iter()
        .map(|name| summary(&folder, name))
        .collect())
}

fn summary(folder: &Path, name: String) -> AgentSummary {
    let file = folder.join(&name).join("agent.md");
    let read = || -> Result<(Option<String>, Option<String>), DefinitionError> {
        AgentName::new(name.as_str()).map_err(|error| invalid_name(&name, error))?;
        let at = |fault: Fault| DefinitionError::of_agent(fault, &file);
        let parts = FrontMatter::parse(&read_text(&file)?).map_err(at)?;
        let keys = parts.settings.table("", &KEYS).map_err(at)?;
        supported(&keys).map_err(at)?;
        let written = |key| keys.get(key).and_then(Node::as_text).map(str::to_owned);
        model(&keys).map_err(at)?;
        Ok((written("description"), written("model")))
    };
    match read() {
        Ok((description, model)) => AgentSummary {
            name,
            description,
            model,
            problem: None,
        },
        Err(problem) => AgentSummary {
            name,
            description: None,
            model: None,
            problem: Some(problem),
        },
    }
}

/// The folder of an agent that exists.
fn find(project: &Path, name: &str) -> Result<PathBuf, DefinitionError> {
    if !is_folder(project) {
        return Err(not_a_folder(project));
    }
    let folder = project.join("agents");
    let names = names(&folder)?;
    if names.iter().any(|known| known == name) {
        return Ok(folder.join(name));
    }
    let known = || names.iter().map(String::as_str);
    let hint = match closest(name, known()) {
        Some(near) => format!("did you mean `{near}`? Agents here: {}", quoted(known())),
        None if names.is_empty() => {
            "create one with `bowline init`, or name another project with --project".to_owned()
        }
        None => format!("agents here: {}", quoted(known())),
    };
    Err(DefinitionError::new(
        DefinitionErrorKind::AgentNotFound,
        format!("there is no agent `{name}` in {}", folder.display()),
        hint,
    ))
}

fn is_folder(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_dir())
}

fn not_a_folder(project: &Path) -> DefinitionError {
    match fs::read_dir(project) {
        Err(error) => DefinitionError::unreadable(project, &error),
        Ok(_) => DefinitionError::new(
            DefinitionErrorKind::Unreadable,
            "is not a folder",
            "name the folder of bowline.toml with --project",
        )
        .in_file(project),
    }
}

/// The names of the folders in `agents`, hidden ones apart.
fn names(folder: &Path) -> Result<Vec<String>, DefinitionError> {
    let found = entries(folder)?.unwrap_or_default();
    Ok(found
        .into_iter()
        .filter(|(name, kind)| !name.starts_with('.') && is_dir(&folder.join(name), *kind))
        .map(|(name, _)| name)
        .collect())
}

/// Whether this is a folder, or a link to one.
fn is_dir(path: &Path, kind: FileType) -> bool {
    kind.is_dir() || (kind.is_symlink() && is_folder(path))
}

fn invalid_name(name: &str, error: InvalidName) -> DefinitionError {
    DefinitionError::new(
        DefinitionErrorKind::InvalidName,
        format!("`{name}` cannot name an agent: {error}"),
        "rename its folder",
    )
}

/// The schema of the final answer.
fn result(keys: &Table<'_>) -> Result<Option<Value>, Fault> {
    let Some(node) = keys.get("result") else {
        return Ok(None);
    };
    let schema = node.to_json();
    match Validator::new(&value_schema(&schema)) {
        Ok(_) if schema.is_object() => Ok(Some(schema)),
        _ => Err(node.wants("result", "a JSON Schema")),
    }
}

/// Refuses the keys of features that are not built, unless they say nothing.
fn supported(keys: &Table<'_>) -> Result<(), Fault> {
    for (key, line, node) in keys.iter() {
        let empty = node.list(key).is_ok_and(<[Node]>::is_empty);
        let feature = match key {
            "subagents" if !empty => Feature::Subagents,
            _ => continue,
        };
        feature.need(Some(line))?;
    }
    Ok(())
}

/// The known folders of an agent that have something in them.
fn folders(dir: &Path) -> Result<Vec<&'static str>, DefinitionError> {
    let mut found = Vec::new();
    for (name, kind) in entries(dir)?.unwrap_or_default() {
        if name.starts_with('.') || !is_dir(&dir.join(&name), kind) {
            continue;
        }
        let path = dir.join(&name);
        let Some((known, feature)) = FOLDERS.iter().find(|(known, _)| *known == name) else {
            let near = FOLDERS
                .iter()
                .find(|(known, _)| strsim::levenshtein(&name.to_lowercase(), known) <= 1);
            if let Some((near, _)) = near {
                return Err(DefinitionError::new(
                    DefinitionErrorKind::UnknownKey,
                    format!("unknown folder `{name}`"),
                    format!("did you mean `{near}`?"),
                )
                .in_file(&path));
            }
            continue;
        };
        let inside = entries(&path)?.unwrap_or_default();
        if inside.iter().all(|(name, _)| name.starts_with('.')) && feature.is_some() {
            continue;
        }
        if let Some(feature) = feature {
            feature
                .need(None)
                .map_err(|fault| DefinitionError::of_agent(fault, &path))?;
        }
        found.push(*known);
    }
    Ok(found)
}

fn seed(
    dir: &Path,
    folders: &[&str],
    sandbox: &SandboxKind,
) -> Result<Option<PathBuf>, DefinitionError> {
    if !folders.contains(&"workspace") {
        return Ok(None);
    }
    let path = dir.join("workspace");
    match sandbox {
        SandboxKind::Workspace => Ok(Some(path)),
        SandboxKind::None | SandboxKind::Local(_) => Err(DefinitionError::new(
            DefinitionErrorKind::InvalidValue,
            match sandbox {
                SandboxKind::Local(_) => {
                    "the folder `workspace` has no use with `sandbox: {local: …}`"
                }
                SandboxKind::None | SandboxKind::Workspace => {
                    "the folder `workspace` has no use with `sandbox: none`"
                }
            },
            "remove the folder, or set `sandbox: workspace`",
        )
        .in_file(&path)),
    }
}

/// The code that people promoted.
fn snippets(dir: &Path, folders: &[&str]) -> Result<Vec<Snippet>, DefinitionError> {
    let mut found: Vec<Snippet> = Vec::new();
    if !folders.contains(&"snippets") {
        return Ok(found);
    }
    let folder = dir.join("snippets");
    let mut total = 0;
    for (file, _) in entries(&folder)?.unwrap_or_default() {
        if file.starts_with('.') {
            continue;
        }
        let path = folder.join(&file);
        let bad = |message: &str, hint: &str| {
            let kind = DefinitionErrorKind::SnippetInvalid;
            DefinitionError::new(kind, message, hint).in_file(&path)
        };
        let Some(name) = file.strip_suffix(".ts") else {
            return Err(bad(
                "is no snippet",
                "name it `NAME.ts`, or move it elsewhere",
            ));
        };
        let source = read_text(&path)?;
        total += source.len();
        let snippet = Snippet::new(name, source);
        let hint = "correct it, or remove it with `bowline code remove`";
        found.push(snippet.map_err(|error| bad(&error.to_string(), hint))?);
        if found.len() > snippet::MOST || total > snippet::MAX_TOTAL {
            let what = "is one snippet too many: an agent may have 100, with 512 KiB together";
            return Err(bad(what, "remove some of them with `bowline code remove`"));
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn model(keys: &Table<'_>) -> Result<String, Fault> {
    let hint = "add `model: provider/model`, or the name of a model in bowline.toml";
    keys.require("model", hint)?
        .line_of_text("model")
        .map(str::to_owned)
}

fn description(keys: &Table<'_>) -> Result<Option<String>, Fault> {
    let Some(node) = keys.get("description") else {
        return Ok(None);
    };
    let text = node.line_of_text("description")?;
    if text.chars().count() > MAX_DESCRIPTION {
        return Err(Fault::new(
            FaultKind::InvalidValue,
            Some(node.line()),
            format!("`description` has more than {MAX_DESCRIPTION} characters"),
            "say it shorter; details belong in the instructions",
        ));
    }
    Ok(Some(text.to_owned()))
}

fn thinking(keys: &Table<'_>) -> Result<Option<Thinking>, Fault> {
    let Some(node) = keys.get("thinking") else {
        return Ok(None);
    };
    let word = node.word("thinking", &Thinking::ALL.map(Thinking::as_str))?;
    Ok(Thinking::ALL
        .into_iter()
        .find(|level| level.as_str() == word))
}

fn sandbox(keys: &Table<'_>, project: &Path) -> Result<SandboxKind, Fault> {
    let Some(node) = keys.get("sandbox") else {
        return Ok(SandboxKind::default());
    };
    if node.is_table() {
        let table = node.table("sandbox", &["local", "read", "unconfined", "container"])?;
        match (table.get("local"), table.get("container")) {
            (Some(folder), None) => return local(folder, &table, project),
            (None, Some(image))
                if table.get("unconfined").is_none() && table.get("read").is_none() =>
            {
                image.line_of_text("container")?;
                Feature::ContainerSandbox.need(Some(node.line()))?;
            }
            _ => return Err(sandbox_fault(node)),
        }
    }
    match node.as_text().map(str::trim) {
        Some("none") => Ok(SandboxKind::None),
        Some("workspace") => Ok(SandboxKind::Workspace),
        _ => Err(sandbox_fault(node)),
    }
}

/// A directory of the machine; a relative path starts at the project.
fn local(folder: &Node, table: &Table<'_>, project: &Path) -> Result<SandboxKind, Fault> {
    let place = |node: &Node, key: &str| {
        let text = node.line_of_text(key)?;
        project.join(text).canonicalize().map_err(|error| {
            Fault::new(
                FaultKind::InvalidValue,
                Some(node.line()),
                format!("`{key}`: {text}: {error}"),
                "make the directory, or name another one; a relative path starts at the project",
            )
        })
    };
    let mut sandbox = LocalSandbox::new(place(folder, "local")?);
    if let Some(unconfined) = table.get("unconfined") {
        sandbox.unconfined = unconfined.bool("unconfined")?;
    }
    if let Some(read) = table.get("read") {
        for node in read.list("read")? {
            sandbox.read.push(place(node, "read")?);
        }
    }
    Ok(SandboxKind::Local(sandbox))
}

fn sandbox_fault(node: &Node) -> Fault {
    let mut fault = node.wants(
        "sandbox",
        "`none`, `workspace`, `{local: DIR}` or `{container: IMAGE}`",
    );
    if let Some(near) = node
        .as_text()
        .and_then(|text| closest(text, ["none", "workspace"]))
    {
        fault.hint = format!("did you mean `{near}`?");
    }
    fault
}

fn lines(keys: &Table<'_>, key: &str) -> Result<Vec<String>, Fault> {
    let Some(node) = keys.get(key) else {
        return Ok(Vec::new());
    };
    Ok(node
        .names(key)?
        .into_iter()
        .map(|(line, _)| line.to_owned())
        .collect())
}

fn egress(keys: &Table<'_>) -> Result<Allow, Fault> {
    keys.get("egress").map_or(Ok(Allow::default()), allow_list)
}

/// A list of patterns `host[:port][/path]`.
///
/// # Errors
///
/// When it is no list, or a pattern cannot be understood.
pub fn allow_list(node: &Node) -> Result<Allow, Fault> {
    let patterns = node.names("egress")?;
    for (pattern, line) in &patterns {
        Allow::new([pattern]).map_err(|error| {
            let message = format!("`{pattern}` cannot be allowed: {}", error.why);
            let hint = "write `host[:port][/path]`, for example `api.example.com`";
            Fault::new(FaultKind::InvalidValue, Some(*line), message, hint)
        })?;
    }
    let names = patterns.into_iter().map(|(pattern, _)| pattern);
    Allow::new(names).map_err(|error| node.wants("egress", error.why))
}

fn tools(keys: &Table<'_>) -> Result<Vec<String>, Fault> {
    let Some(node) = keys.get("tools") else {
        return Ok(Vec::new());
    };
    let mut tools = Vec::new();
    for (name, line) in node.names("tools")? {
        if !is_tool_name(name) {
            return Err(Fault::new(
                FaultKind::InvalidValue,
                Some(line),
                format!("`{name}` cannot name a tool"),
                "use lower-case letters and digits in words joined by `_` or `-`",
            ));
        }
        tools.push(name.to_owned());
    }
    Ok(tools)
}

/// Whether the model runs code, with its limits: `true`, or a table of them.
fn code_mode(keys: &Table<'_>, shared: &CodeSettings) -> Result<Option<CodeLimits>, Fault> {
    let Some(node) = keys.get("code") else {
        return Ok(None);
    };
    let limits = shared.apply(crate::code::default_limits());
    if !node.is_table() {
        return Ok(node.bool("code")?.then_some(limits));
    }
    let table = node.table("code", &CodeSettings::KEYS)?;
    Ok(Some(CodeSettings::read(&table)?.apply(limits)))
}

/// The agent's own tools in TypeScript, and those of the project that it lists. In the list a tool may
/// have the name of its file.
fn scripts(
    project: &Path,
    definition: &mut Definition,
) -> Result<Vec<Arc<Script>>, DefinitionError> {
    let agent = definition.name.as_str();
    let mut scripts = script::load_own(project, agent)?;
    for name in &mut definition.tools {
        let wanted = script::underscored(name);
        if !scripts.iter().any(|own| own.spec().name == wanted) {
            match script::load_shared(project, agent, name)? {
                Some(shared) => scripts.push(shared),
                None => continue,
            }
        }
        *name = wanted;
    }
    scripts.sort_by(|a, b| a.spec().name.cmp(&b.spec().name));
    Ok(scripts.into_iter().map(Arc::new).collect())
}

/// What the agent says of a tool, also by the name of its file, wins over what the tool says.
fn consent_of_scripts(definition: &mut Definition) {
    for script in &definition.scripts {
        let name = &script.spec().name;
        let file = name.replace('_', "-");
        if file != *name {
            if let Some(approval) = definition.approvals.remove(&file) {
                definition.approvals.insert(name.clone(), approval);
            }
            if let Some(wait) = definition.approvals_expire.remove(&file) {
                definition.approvals_expire.insert(name.clone(), wait);
            }
        }
        let own = &script.policy().approval;
        if *own != Approval::Never {
            definition
                .approvals
                .entry(name.clone())
                .or_insert_with(|| own.clone());
        }
    }
}

/// What needs consent, and how long it waits for it where that is said.
type Approvals = (BTreeMap<String, Approval>, BTreeMap<String, Duration>);

fn approvals(keys: &Table<'_>) -> Result<Approvals, Fault> {
    let (mut approvals, mut expire) = (BTreeMap::new(), BTreeMap::new());
    let Some(node) = keys.get("approvals") else {
        return Ok((approvals, expire));
    };
    for (name, _, node) in node.entries("approvals")?.iter() {
        let approval = if node.is_table() {
            let table = node.table(name, &["when", "expires"])?;
            if let Some(node) = table.get("expires") {
                const DAY: Duration = Duration::from_secs(86_400);
                let wait = node.duration("expires", Duration::from_secs(1), 365 * DAY)?;
                expire.insert(name.to_owned(), wait);
            }
            match table.get("when") {
                Some(node) => Approval::When(condition(node)?),
                None if table.is_empty() => {
                    table.require("when", "write `{when: EXPRESSION}`")?;
                    Approval::Required
                }
                None => Approval::Required,
            }
        } else {
            match node.word(name, &["never", "required"])? {
                "never" => Approval::Never,
                _ => Approval::Required,
            }
        };
        approvals.insert(name.to_owned(), approval);
    }
    Ok((approvals, expire))
}

fn condition(node: &Node) -> Result<Condition, Fault> {
    let text = node.line_of_text("when")?;
    Condition::parse(text).map_err(|why| {
        Fault::new(
            FaultKind::InvalidValue,
            Some(node.line()),
            format!("`when` is no condition: {why}"),
            "write a filter such as `@.amount > 100`; docs/reference/agent-md.md has more",
        )
    })
}

/// What a submission may use, and what the files may grow to.
fn limits(keys: &Table<'_>, shared: &LimitSettings) -> Result<(Limits, WorkspaceLimits), Fault> {
    let own = keys
        .get("limits")
        .map(LimitSettings::read)
        .transpose()?
        .unwrap_or_default();
    let files = shared.apply_to_workspace(WorkspaceLimits::default());
    Ok((
        own.apply(shared.apply(Limits::default())),
        own.apply_to_workspace(files),
    ))
}

fn compaction(keys: &Table<'_>) -> Result<Compaction, Fault> {
    let Some(node) = keys.get("compaction") else {
        return Ok(Compaction::default());
    };
    match node.as_bool() {
        Some(true) => return Ok(Compaction::default()),
        Some(false) => return Ok(Compaction::Off),
        None => {}
    }
    if !node.is_table() {
        return Err(node.wants(
            "compaction",
            "`false`, or `reserve`, `keep`, `model`, `instructions`",
        ));
    }
    let table = node.table("compaction", &["reserve", "keep", "model", "instructions"])?;
    let count = |key: &str| {
        table
            .get(key)
            .map(|node| node.count(key, 1, 10_000_000))
            .transpose()
    };
    let text = |key: &str| -> Result<Option<String>, Fault> {
        table
            .get(key)
            .map(|node| node.text(key).map(str::to_owned))
            .transpose()
    };
    Ok(Compaction::On(CompactionSettings {
        reserve: count("reserve")?,
        keep: count("keep")?,
        model: text("model")?,
        instructions: text("instructions")?,
    }))
}

/// The agent's own skills and those of the project that it lists, by name.
fn skills(
    project: &Path,
    dir: &Path,
    keys: &Table<'_>,
    file: &Path,
) -> Result<Vec<Skill>, DefinitionError> {
    let at = |fault: Fault| DefinitionError::of_agent(fault, file);
    let mut skills = skill::load_all(&dir.join("skills"))?;
    let listed = match keys.get("skills") {
        Some(node) => node.names("skills").map_err(at)?,
        None => Vec::new(),
    };
    let own: Vec<String> = skills.iter().map(|skill| skill.name.clone()).collect();
    let shared = project.join("skills");
    for (name, line) in listed {
        if own.iter().any(|known| known == name) {
            continue;
        }
        let known = names(&shared)?;
        if known.iter().any(|known| known == name) {
            skills.push(Skill::load(&shared.join(name))?);
            continue;
        }
        let known = || own.iter().chain(&known).map(String::as_str);
        let hint = match closest(name, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("skills here: {}", quoted(known())),
        };
        return Err(DefinitionError::new(
            DefinitionErrorKind::SkillNotFound,
            format!("there is no skill `{name}` in the agent's or the project's skills"),
            hint,
        )
        .in_file(file)
        .on_line(line));
    }
    skills.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(skills)
}
