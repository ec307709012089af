//! Skills: instructions for one kind of work that the model reads when it needs them.
//!
//! A skill is a folder in the Agent Skills format: `SKILL.md` with `name` and `description` in
//! front of the instructions, and any files beside it. The model sees the [`catalogue`] in its
//! system prompt, the instructions when it calls `activate_skill` ([`Skill::activation`]), and the
//! files when it calls `read_skill_resource` ([`read_resource`]).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

use crate::definition::document::{Node, Table};
use crate::definition::{
    DefinitionError, DefinitionErrorKind, Fault, FaultKind, FrontMatter, is_name, quoted, read_text,
};

mod files;

/// The most characters of a skill's description.
pub const MAX_DESCRIPTION: usize = 1_024;
/// The most characters of `compatibility`.
pub const MAX_COMPATIBILITY: usize = 500;
/// The most files of a skill, `SKILL.md` apart.
pub const MAX_FILES: usize = 500;
/// The largest file of a skill, in bytes: 1 MiB.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The most bytes of all files of a skill: 10 MiB.
pub const MAX_TOTAL_BYTES: u64 = 10 * 1024 * 1024;
/// The deepest folder of a skill, counted from its own.
pub const MAX_DEPTH: usize = 8;

/// One skill.
#[derive(Clone, Debug, PartialEq)]
pub struct Skill {
    /// Its name: that of its folder, at most 64 characters.
    pub name: String,
    /// What it is for and when to use it, at most 1,024 characters.
    pub description: String,
    /// Its licence, or the name of a file with it.
    pub license: Option<String>,
    /// What it needs to work, at most 500 characters. For people; nothing checks it.
    pub compatibility: Option<String>,
    /// Further properties, for other programs.
    pub metadata: BTreeMap<String, String>,
    /// The tools that its author had in mind. Recorded, not enforced: what an agent may call is
    /// decided by its `tools`, never by a skill.
    pub allowed_tools: Vec<String>,
    /// The instructions, in Markdown.
    pub body: String,
    /// The files beside `SKILL.md`, by path.
    pub files: Vec<SkillFile>,
    /// Its folder, when it has one.
    pub dir: Option<PathBuf>,
}

/// A file of a skill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkillFile {
    /// The path inside the skill's folder, with `/`.
    pub path: String,
    /// Its size in bytes when the skill was loaded.
    pub size: u64,
}

impl Skill {
    /// A skill without files, as a Rust program gives it.
    ///
    /// # Errors
    ///
    /// `skill_invalid` when the name or the description is not allowed, or the body is empty.
    pub fn new(
        name: impl Into<String>,
        description: impl Into<String>,
        body: impl Into<String>,
    ) -> Result<Self, DefinitionError> {
        let (name, description, body) = (name.into(), description.into(), body.into());
        let invalid = |message: &str, hint: &str| {
            DefinitionError::new(
                DefinitionErrorKind::SkillInvalid,
                format!("skill `{name}`: {message}"),
                hint,
            )
        };
        if !is_name(&name) {
            return Err(invalid(NAME_RULE, "rename it"));
        }
        if description.trim().is_empty() || description.chars().count() > MAX_DESCRIPTION {
            return Err(invalid(
                DESCRIPTION_RULE,
                "say what it is for and when to use it",
            ));
        }
        if body.trim().is_empty() {
            return Err(invalid("it has no instructions", "write them"));
        }
        Ok(Self {
            name,
            description,
            license: None,
            compatibility: None,
            metadata: BTreeMap::new(),
            allowed_tools: Vec::new(),
            body,
            files: Vec::new(),
            dir: None,
        })
    }

    /// Reads the skill in the folder `dir`, of which the name is the skill's.
    ///
    /// # Errors
    ///
    /// `skill_invalid` for a `SKILL.md` that is not in the format, `skill_unsafe` for a symbolic
    /// link or a file that looks like a secret, `skill_too_large` beyond the limits of this
    /// module, `definition_unreadable` for what cannot be read.
    pub fn load(dir: &Path) -> Result<Self, DefinitionError> {
        files::refuse_link(dir)?;
        let file = dir.join("SKILL.md");
        files::refuse_link(&file)?;
        let at = |fault: Fault| DefinitionError::of_skill(fault, &file);
        let folder = dir
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let parts = FrontMatter::parse(&read_text(&file)?).map_err(at)?;
        let mut skill = parse(&parts, folder.as_deref().unwrap_or_default()).map_err(at)?;
        skill.files = files::list(dir)?;
        skill.dir = Some(dir.to_path_buf());
        Ok(skill)
    }

    /// What `activate_skill` answers: the instructions, and the list of files with the paths that
    /// `read_skill_resource` takes.
    pub fn activation(&self) -> String {
        let mut text = self.body.clone();
        if !self.files.is_empty() {
            text.push_str("\n\nFiles of this skill, for `read_skill_resource`:\n");
            for file in &self.files {
                let _ = writeln!(text, "- {}/{} ({} bytes)", self.name, file.path, file.size);
            }
            text.truncate(text.trim_end().len());
        }
        text
    }

    /// The bytes of one of its files.
    fn read(&self, file: &SkillFile) -> Result<Bytes, String> {
        let Some(dir) = &self.dir else {
            return Err("it has no files".to_owned());
        };
        let mut path = dir.clone();
        // The folder may have changed since it was listed: no link is followed, ever.
        for part in Path::new(&file.path).components() {
            let Component::Normal(part) = part else {
                return Err("its path is unsafe".to_owned());
            };
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_symlink() => return Err("it is a symbolic link now".to_owned()),
                Ok(_) => {}
                Err(error) => return Err(format!("it cannot be read: {error}")),
            }
        }
        let mut bytes = Vec::new();
        let read = fs::File::open(&path)
            .and_then(|open| open.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 > MAX_FILE_BYTES => {
                Err("it has grown over 1 MiB".to_owned())
            }
            Ok(_) => Ok(bytes.into()),
            Err(error) => Err(format!("it cannot be read: {error}")),
        }
    }
}

/// The skills in a folder of skills, by name; none when there is no such folder.
///
/// # Errors
///
/// As [`Skill::load`], for the first skill that has a mistake; `skill_invalid` for a Markdown file
/// beside the skills, which would be ignored.
pub fn load_all(folder: &Path) -> Result<Vec<Skill>, DefinitionError> {
    let mut skills = Vec::new();
    for (name, kind) in files::entries(folder)? {
        let path = folder.join(&name);
        if name.starts_with('.') {
            continue;
        }
        if kind.is_file() {
            if name.ends_with(".md") && !name.eq_ignore_ascii_case("readme.md") {
                return Err(DefinitionError::new(
                    DefinitionErrorKind::SkillInvalid,
                    "a skill is a folder with a SKILL.md",
                    format!("move it to {}/SKILL.md", path.with_extension("").display()),
                )
                .in_file(&path));
            }
            continue;
        }
        skills.push(Skill::load(&path)?);
    }
    Ok(skills)
}

/// The part of the system prompt that names the skills, or `None` when there are none.
pub fn catalogue(skills: &[Skill]) -> Option<String> {
    if skills.is_empty() {
        return None;
    }
    let mut text = "## Skills\n\nEach skill holds instructions for one kind of work: when a task \
                    fits one, call `activate_skill` with its name before you begin.\n"
        .to_owned();
    for skill in skills {
        let line = skill
            .description
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        let _ = write!(text, "\n- {} — {line}", skill.name);
    }
    Some(text)
}

/// The skill of a name.
///
/// # Errors
///
/// A text for the model that names the skills there are.
pub fn find<'a>(skills: &'a [Skill], name: &str) -> Result<&'a Skill, String> {
    skills
        .iter()
        .find(|skill| skill.name == name)
        .ok_or_else(|| {
            let known = quoted(skills.iter().map(|skill| skill.name.as_str()));
            format!("There is no skill `{}`. Skills: {known}.", shorten(name))
        })
}

/// The bytes of `<skill>/<path of the file>`, at most 1 MiB. Only files that were there when the
/// skill was loaded can be read; nothing outside of its folder can.
///
/// # Errors
///
/// A text for the model that says which files there are.
pub fn read_resource(skills: &[Skill], path: &str) -> Result<Bytes, String> {
    let clean = path.strip_prefix("./").unwrap_or(path);
    let (name, rest) = clean.split_once('/').unwrap_or((clean, ""));
    let skill = find(skills, name)?;
    let rest = rest.strip_prefix("./").unwrap_or(rest);
    let Some(file) = skill.files.iter().find(|file| file.path == rest) else {
        let paths: Vec<String> = skill
            .files
            .iter()
            .take(50)
            .map(|file| format!("{name}/{}", file.path))
            .collect();
        let known = quoted(paths.iter().map(String::as_str));
        return Err(format!(
            "There is no file `{}`. Files: {known}.",
            shorten(path)
        ));
    };
    skill
        .read(file)
        .map_err(|why| format!("Cannot read `{}`: {why}.", shorten(path)))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(200) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

const NAME_RULE: &str = "a name is lower-case letters and digits in words joined by `-`, starts \
                         with a letter, and has at most 64 characters";
const DESCRIPTION_RULE: &str = "its description has not between 1 and 1024 characters";

const KEYS: [&str; 6] = [
    "name",
    "description",
    "license",
    "compatibility",
    "metadata",
    "allowed-tools",
];

fn parse(parts: &FrontMatter, folder: &str) -> Result<Skill, Fault> {
    let keys = parts.settings.table("", &KEYS).map_err(|mut fault| {
        if fault.kind == FaultKind::UnknownKey && !fault.hint.starts_with("did you mean") {
            "put properties of your own under `metadata`".clone_into(&mut fault.hint);
        }
        fault
    })?;
    let invalid = |node: &Node, message: &str, hint: &str| {
        Fault::new(FaultKind::InvalidValue, Some(node.line()), message, hint)
    };
    let node = keys.require("name", "add `name:` with the name of the folder")?;
    let name = node.line_of_text("name")?;
    if !is_name(name) {
        return Err(invalid(node, NAME_RULE, "rename the skill and its folder"));
    }
    if name != folder {
        let message = format!("the name `{name}` is not that of the folder, `{folder}`");
        return Err(invalid(node, &message, "make them the same"));
    }
    let node = keys.require(
        "description",
        "add one that says what it is for and when to use it",
    )?;
    let description = node.text("description")?.trim();
    if description.is_empty() || description.chars().count() > MAX_DESCRIPTION {
        return Err(invalid(
            node,
            DESCRIPTION_RULE,
            "say what it is for and when to use it",
        ));
    }
    let compatibility = text(&keys, "compatibility")?;
    if let (Some(text), Some(node)) = (&compatibility, keys.get("compatibility"))
        && text.chars().count() > MAX_COMPATIBILITY
    {
        return Err(invalid(
            node,
            "`compatibility` has more than 500 characters",
            "say it shorter",
        ));
    }
    if parts.body.is_empty() {
        return Err(Fault::new(
            FaultKind::InvalidValue,
            None,
            "there are no instructions below the settings",
            "write them",
        ));
    }
    let mut metadata = BTreeMap::new();
    if let Some(node) = keys.get("metadata") {
        for (key, _, value) in node.entries("metadata")?.iter() {
            metadata.insert(key.to_owned(), value.scalar(key)?);
        }
    }
    Ok(Skill {
        license: text(&keys, "license")?,
        compatibility,
        metadata,
        allowed_tools: allowed_tools(&keys)?,
        ..Skill::new(name, description, &parts.body).map_err(|error| {
            Fault::new(
                FaultKind::InvalidValue,
                None,
                error.to_string(),
                error.hint(),
            )
        })?
    })
}

fn text(keys: &Table<'_>, key: &str) -> Result<Option<String>, Fault> {
    keys.get(key)
        .map(|node| node.text(key).map(|text| text.trim().to_owned()))
        .transpose()
}

/// A list, or words between spaces or commas; a word may hold those in parentheses.
fn allowed_tools(keys: &Table<'_>) -> Result<Vec<String>, Fault> {
    let Some(node) = keys.get("allowed-tools") else {
        return Ok(Vec::new());
    };
    let Some(text) = node.as_text() else {
        return Ok(node
            .names("allowed-tools")?
            .into_iter()
            .map(|(n, _)| n.to_owned())
            .collect());
    };
    let mut depth = 0_u32;
    let words = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && (c.is_whitespace() || c == ',')
    });
    Ok(words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect())
}
