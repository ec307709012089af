//! Reading the files of tools.

use std::{fs, io::Read as _, path::Path, time::Duration};

use bowline_model::ToolSpec;
use bowline_sandbox::{
    isolate::{IsolateError, Program},
    typescript::{self, Function, MAX_BYTES, Setting, SourceError, SourceErrorKind},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{DURABLE_TIMEOUT, MAX_TIMEOUT, Policy, Script};
use crate::{
    approval::Condition,
    binding::Web,
    definition::{
        Approval, DefinitionError, DefinitionErrorKind, Fault, FaultKind, closest, document::Node,
        entries, is_tool_name,
    },
    tool::{Effect, OnCrash},
};

/// The folders of a project with tools, and with what they import.
const TOOLS: &str = "tools";
const LIB: &str = "lib";
/// The constant of a file with its settings.
const SETTINGS: &str = "tool";
const KEYS: [&str; 4] = ["durable", "timeout", "approval", "effect"];
/// How many tools one folder may have.
const MAX_TOOLS: usize = 256;

/// The entry of a durable tool. `step.do` runs what it is given: what it calls is written down by itself,
/// so nothing of it is done twice.
const DURABLE: &str = "globalThis.step = Object.freeze({ do: async (name, body) => { \
if (typeof name !== 'string' || typeof body !== 'function') \
throw new TypeError('step.do takes a name and a function'); return await body(); } });";

/// The tools of an agent's own folder, by name.
pub(crate) fn load_own(project: &Path, agent: &str) -> Result<Vec<Script>, DefinitionError> {
    let folder = format!("agents/{agent}");
    let files = files(&project.join(&folder).join(TOOLS))?;
    let mut scripts: Vec<Script> = Vec::new();
    for file in files {
        let script = load(project, &folder, &format!("{folder}/{TOOLS}/{file}"))?;
        let name = &script.spec.name;
        if let Some(same) = scripts.iter().find(|other| other.spec.name == *name) {
            return Err(DefinitionError::new(
                DefinitionErrorKind::InvalidName,
                format!("two files are the tool `{name}`: {}", same.file.display()),
                "rename one of them",
            )
            .in_file(&script.file));
        }
        scripts.push(script);
    }
    Ok(scripts)
}

/// The project's tool that an agent lists as `name`, which may be its file's name; nothing when there
/// is none.
pub(crate) fn load_shared(
    project: &Path,
    agent: &str,
    name: &str,
) -> Result<Option<Script>, DefinitionError> {
    let folder = project.join(TOOLS);
    let same = |file: &String| tool_name(file).is_some_and(|known| known == underscored(name));
    let Some(file) = files(&folder)?.into_iter().find(same) else {
        return Ok(None);
    };
    load(
        project,
        &format!("agents/{agent}"),
        &format!("{TOOLS}/{file}"),
    )
    .map(Some)
}

/// A name as the model sees it.
pub(crate) fn underscored(name: &str) -> String {
    name.replace('-', "_")
}

fn tool_name(file: &str) -> Option<String> {
    file.strip_suffix(".ts").map(underscored)
}

/// The files of a folder that are tools. What else may lie there does not run: declarations for an
/// editor, its settings, and Markdown.
fn files(folder: &Path) -> Result<Vec<String>, DefinitionError> {
    let mut found = Vec::new();
    for (name, kind) in entries(folder)?.unwrap_or_default() {
        let path = folder.join(&name);
        let passive = name.ends_with(".d.ts") || name.ends_with(".md") || name == "tsconfig.json";
        if name.starts_with('.') || passive {
            continue;
        }
        let refuse = |message: String, hint: &str| {
            Err(
                DefinitionError::new(DefinitionErrorKind::InvalidName, message, hint)
                    .in_file(&path),
            )
        };
        if !kind.is_file() {
            let hint = "put what tools share into the folder `lib`, as files";
            return refuse("is no file, and only files are tools".to_owned(), hint);
        }
        let Some(stem) = name.strip_suffix(".ts") else {
            let hint = "rename it to end with `.ts`, or move it to the folder `lib`";
            return refuse("is no TypeScript".to_owned(), hint);
        };
        if !is_tool_name(stem) {
            let hint = "use lower-case letters and digits in words joined by `-`";
            return refuse(format!("`{stem}` cannot name a tool"), hint);
        }
        found.push(name);
    }
    if found.len() > MAX_TOOLS {
        return Err(DefinitionError::new(
            DefinitionErrorKind::InvalidValue,
            format!("has {} tools, more than {MAX_TOOLS}", found.len()),
            "give the agent fewer, or another agent some of them",
        )
        .in_file(folder));
    }
    Ok(found)
}

/// Reads the tool in `name`, a path from the project's folder with `/`.
fn load(project: &Path, agent: &str, name: &str) -> Result<Script, DefinitionError> {
    let file = project.join(name);
    let own = format!("{agent}/{LIB}/");
    let shared = format!("{LIB}/");
    let find = |wanted: &str| {
        let allowed = wanted == name || wanted.starts_with(&own) || wanted.starts_with(&shared);
        if !allowed {
            return Err("is neither in the agent's `lib` nor in the project's".to_owned());
        }
        text(&project.join(wanted))
    };
    let at = |error: SourceError| {
        let file = project.join(&error.file);
        DefinitionError::of_source(error, &file)
    };
    let module = typescript::read_with(name, SETTINGS, &find).map_err(at)?;
    let policy = policy(&module.settings).map_err(|(setting, fault)| {
        let line = setting.line;
        DefinitionError::new(
            DefinitionErrorKind::Tool(SourceErrorKind::Setting),
            fault.message,
            fault.hint,
        )
        .in_file(&file)
        .on_line(line)
        .at_column(setting.column)
    })?;
    let spec = spec(name, &module.function).map_err(at)?;
    let program = program(&module.files, policy.durable).map_err(|error| {
        DefinitionError::new(
            DefinitionErrorKind::Tool(SourceErrorKind::Syntax),
            error.to_string(),
            "correct the code",
        )
        .in_file(&file)
    })?;
    let mut hasher = Sha256::new();
    for (name, text) in &module.files {
        for part in [name, text] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    Ok(Script {
        spec,
        returns: module.function.returns,
        policy,
        program,
        file,
        digest: hasher
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    })
}

/// The text of a file; nothing when there is none.
fn text(path: &Path) -> Result<Option<String>, String> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => return Ok(None),
        Ok(meta) => meta,
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    if !meta.is_file() {
        return Err("is a link, and links are not followed".to_owned());
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot be read: {error}"))?;
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| "is not UTF-8 text".to_owned())
}

fn missing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotFound | NotADirectory)
}

fn program(files: &[(String, String)], durable: bool) -> Result<Program, IsolateError> {
    let Some(((name, text), others)) = files.split_first() else {
        return Err(IsolateError::Engine("there is no file".to_owned()));
    };
    let before = Web::before(files.iter().map(|(_, text)| text.as_str()));
    let (mut program, others) = if durable {
        let name = Value::from(name.as_str());
        let entry =
            format!("import run from {name};\n{DURABLE}\nexport default (input) => run(input);");
        (Program::with_before("tool.js", &entry, before)?, files)
    } else {
        (Program::with_before(name, text, before)?, others)
    };
    for (name, text) in others {
        program = program.module(name, text)?;
    }
    Ok(program)
}

fn spec(name: &str, function: &Function) -> Result<ToolSpec, SourceError> {
    let fail = |line: u32, column: u32, message: String, fix: &str| SourceError {
        kind: SourceErrorKind::Function,
        file: name.to_owned(),
        line,
        column,
        message,
        fix: fix.to_owned(),
    };
    if function.description.is_empty() {
        return Err(fail(
            function.line,
            function.column,
            "nothing says what the tool does".to_owned(),
            "write a comment `/** … */` before the function",
        ));
    }
    let parameters = match function.parameters.as_slice() {
        [] => json!({"type": "object", "properties": {}}),
        [one] => {
            let mut schema = one.schema.clone();
            if schema.get("type") != Some(&json!("object")) || schema.get("anyOf").is_some() {
                return Err(fail(
                    one.line,
                    one.column,
                    format!("the parameter `{}` is no object with properties", one.name),
                    "take one object, such as `input: { title: string }`",
                ));
            }
            if let Some(object) = schema.as_object_mut() {
                object.entry("properties").or_insert_with(|| json!({}));
            }
            schema
        }
        [_, second, ..] => {
            return Err(fail(
                second.line,
                second.column,
                "a tool takes one parameter".to_owned(),
                "put all of them into one object, such as `input: { title: string }`",
            ));
        }
    };
    let file = name.rsplit('/').next().unwrap_or(name);
    Ok(ToolSpec {
        name: tool_name(file).unwrap_or_default(),
        description: function.description.clone(),
        parameters,
    })
}

fn policy(settings: &[Setting]) -> Result<Policy, (&Setting, Fault)> {
    let mut policy = Policy::default();
    let mut timeout = None;
    for setting in settings {
        let with = |fault: Fault| (setting, fault);
        // JSON is YAML, so settings are read as those of an agent are.
        let node = Node::from_yaml(&setting.value.to_string(), setting.line).map_err(with)?;
        let key = setting.key.as_str();
        match key {
            "durable" => policy.durable = node.bool(key).map_err(with)?,
            "timeout" => {
                let least = Duration::from_millis(10);
                timeout = Some(node.duration(key, least, MAX_TIMEOUT).map_err(with)?);
            }
            "approval" => policy.approval = approval(key, &node).map_err(with)?,
            "effect" => {
                let words = ["none", "retry", "unknown", "ask"];
                policy.effect = match node.word(key, &words).map_err(with)? {
                    "none" => Effect::None,
                    "retry" => Effect::Outside(OnCrash::Retry),
                    "ask" => Effect::Outside(OnCrash::Ask),
                    _ => Effect::Outside(OnCrash::Unknown),
                };
            }
            _ => {
                let hint = match closest(key, KEYS) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "the keys are `durable`, `timeout`, `approval` and `effect`".to_owned(),
                };
                let message = format!("unknown key `{key}`");
                let line = Some(setting.line);
                return Err(with(Fault::new(FaultKind::UnknownKey, line, message, hint)));
            }
        }
    }
    policy.timeout = timeout.unwrap_or(if policy.durable {
        DURABLE_TIMEOUT
    } else {
        policy.timeout
    });
    Ok(policy)
}

fn approval(key: &str, node: &Node) -> Result<Approval, Fault> {
    if !node.is_table() {
        return Ok(match node.word(key, &["never", "required"])? {
            "required" => Approval::Required,
            _ => Approval::Never,
        });
    }
    let table = node.table(key, &["when"])?;
    let when = table.require("when", "write `{ when: \"@.amount > 100\" }`")?;
    let condition = Condition::parse(when.text("when")?).map_err(|why| {
        Fault::new(
            FaultKind::InvalidValue,
            Some(node.line()),
            format!("`when` is no condition: {why}"),
            "write a filter such as `@.amount > 100`",
        )
    })?;
    Ok(Approval::When(condition))
}

impl DefinitionError {
    /// A mistake in a file of TypeScript.
    fn of_source(error: SourceError, file: &Path) -> Self {
        let kind = DefinitionErrorKind::Tool(error.kind);
        Self::new(kind, error.message, error.fix)
            .in_file(file)
            .on_line(error.line)
            .at_column(error.column)
    }
}
